"""
A stored attribution, read back with xarray
===========================================

An attribution is an ``xarray.DataArray`` with named dimensions, the points' coordinates and terms,
and everything about how it was made. It is written as NetCDF, or in parts as zarr when it does not
fit in memory, and anything that reads these reads it.
"""

# %%
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import xarray as xr

import whence as wh
from whence import pinn

problem = pinn.zoo.load("diffusion", "soft")
result = pinn.train(
    problem,
    pinn.MLP([2, 20, 20, 1], bounds=problem.domain.bounds, seed=0),
    points={"pde": 300, "initial_u": 60, "dirichlet_u": 60},
    schedule=pinn.GaussNewton(40),
    progress=False,
)
grid = problem.domain.sample(400, "grid")
folder = Path(tempfile.mkdtemp())
influence = wh.Influence(result.objective)
influence.attribute(wh.Output(grid, "u"), out=folder / "influence.zarr")

# %%
# No whence from here on.
table = xr.open_zarr(folder / "influence.zarr", consolidated=False)
print(table)

# %%
# Which term holds the solution where? Means over points, by term, on the grid of targets.
values = abs(table["influence"].load())
by_term = values.groupby("term").sum().to_dataset(dim="term")
shares = by_term / sum(by_term.values())

figure, axes = plt.subplots(
    1, 3, figsize=(9, 3), sharex=True, sharey=True, layout="constrained"
)
for ax, term in zip(axes, shares, strict=True):
    drawn = ax.tripcolor(
        table["target_t"], table["target_x"], shares[term], vmin=0, vmax=1,
        shading="gouraud",
    )  # fmt: skip
    ax.set(title=term, xlabel="t")
axes[0].set_ylabel("x")
figure.colorbar(drawn, ax=axes, label="share of influence")
figure
