"""
Where one value of Burgers' equation comes from
===============================================

The influence of every training point on one value of the solution, as points and smoothed to a
field.
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
    ansatz=lambda x, t, u: -torch.sin(math.pi * x) + (1 - x**2) * t * u,
)
result = pinn.train(
    problem,
    pinn.MLP([2, 20, 20, 1], seed=0),
    points=400,
    schedule=pinn.GaussNewton(60),
    progress=False,
)
print(f"loss {result.summary['loss']:.1e}")

# %%
# Characteristics carry u towards the front; the points behind the star's value lie along them.
row = wh.Influence(result.objective).attribute(wh.Output([[0.1, 0.7]])).isel(target=0)
print(plots.describe_influence(row))
plots.influence_map(row, problem)

# %%
# Neighbours of either sign replace each other. The mean over a neighbourhood shows what is left.
plots.smoothed_influence(row, problem)
