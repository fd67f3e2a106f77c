"""
A quantity of your own
======================

The heat that leaves a rod through one end, over all time, is a functional of the solution. Which
points does it depend on?
"""

# %%
import math

import numpy as np
import torch

import whence as wh
from whence import pinn, plots

problem = pinn.zoo.load("diffusion")
result = pinn.train(
    problem,
    pinn.MLP([2, 16, 16, 1], seed=0),
    points=200,
    schedule=pinn.GaussNewton(60),
    progress=False,
)

# Gauss' rule for the time.
nodes, weights = np.polynomial.legendre.leggauss(12)
times, weights = torch.tensor((nodes + 1) / 2), torch.tensor(weights / 2)
edge = torch.stack([torch.ones_like(times), times], dim=1)
flux = wh.Functional(
    lambda field: -(weights * field("u_x", edge)).sum(), name="flux at x = 1"
)
exact = math.pi * (1 - math.exp(-1))
print(f"flux {float(flux.values(result.objective)[0]):.6f}, exact {exact:.6f}")

# %%
row = wh.Influence(result.objective).attribute(flux).isel(target=0)
plots.influence_map(row, problem)

# %%
# The strongest points one by one.
plots.influence_bars(row, k=12)
