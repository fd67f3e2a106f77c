"""A quantity of one's own: the heat that flows out of a rod, and the points it depends on.

``python examples/own_flux.py`` trains a small network on the diffusion problem, explains the flux
through x = 1 over all time, and resamples for that goal alone.
"""

import math

import numpy as np
import torch

import whence as wh
from whence import pinn

problem = pinn.zoo.load("diffusion")
nodes, weights = (
    torch.from_numpy(part) for part in np.polynomial.legendre.leggauss(12)
)
t, weights = (nodes + 1) / 2, weights / 2
edge = torch.stack([torch.ones_like(t), t], dim=1)
flux = wh.Functional(
    lambda field: -(weights * field("u_x", edge)).sum(), name="flux at x = 1"
)

result = pinn.train(
    problem,
    pinn.MLP([2, 16, 16, 1], seed=0),
    points=150,
    schedule=[pinn.GaussNewton(60)],
    resample=pinn.Resample(
        pinn.InfluenceScore(quantity=flux), n=10, every=10, candidates=1000
    ),
    progress=False,
)
row = wh.Influence(result.objective).attribute(flux).isel(target=0)
strongest = row.isel(point=int(abs(row.values).argmax()))
exact = math.pi * (1 - math.exp(-1))
print(f"flux: {float(flux.values(result.objective)[0]):.6f} (exact {exact:.6f})")
print(
    f"most influential point: x = {float(strongest['x']):.2f}, t = {float(strongest['t']):.2f}, "
    f"removing it changes the flux by {float(strongest):.1e}"
)
