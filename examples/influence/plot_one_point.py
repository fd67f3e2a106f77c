"""
What one training point does everywhere
=======================================

The other way around: one initial point, and every place of the solution that depends on it.
"""

# %%
import math

import torch

import whence as wh
from whence import pinn, plots

problem = pinn.Problem(
    name="burgers",
    domain=pinn.Interval("x", -1, 1) * pinn.Interval("t", 0, 1),
    outputs=("u",),
    equations={"pde": lambda u, u_t, u_x, u_xx: u_t + u * u_x - 0.03 * u_xx},
    conditions=[
        pinn.Initial(u=lambda x: -torch.sin(math.pi * x)),
        pinn.Dirichlet(u=0.0, on="x"),
    ],
)
result = pinn.train(
    problem,
    pinn.MLP([2, 20, 20, 1], seed=0),
    points={"pde": 400, "initial_u": 60, "dirichlet_u": 40},
    schedule=pinn.GaussNewton(60),
    progress=False,
)

# %%
# One solve, whatever the number of places.
grid = problem.domain.sample(2500, "grid")
point = wh.TrainingPoints({"initial_u": [20]})
table = wh.Influence(result.objective).attribute(wh.Output(grid, "u"), point)
plots.influence_field(table, problem)
