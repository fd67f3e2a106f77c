"""
What damping does
=================

Damping keeps directions in check that hardly any point determines. Strong damping takes neighbours
for one another and spreads an answer over many points; weak damping tells them apart.
"""

# %%
import matplotlib.pyplot as plt
import numpy as np
import torch

import whence as wh
from whence import pinn

problem = pinn.zoo.load("diffusion")
result = pinn.train(
    problem,
    pinn.MLP([2, 16, 16, 1], seed=0),
    points=300,
    schedule=pinn.GaussNewton(60),
    progress=False,
)
target = wh.Output([[0.3, 0.6]])
DAMPINGS = (1e-2, 1e-5, 1e-8, 1e-11)
tables = {
    damping: wh.Influence(result.objective, damping=damping).attribute(target)[0]
    for damping in DAMPINGS
}

# %%
figure, axes = plt.subplots(
    1, 4, figsize=(12, 3.4), sharex=True, sharey=True, layout="constrained"
)
for ax, (damping, row) in zip(axes, tables.items(), strict=True):
    size = abs(row.values) / abs(row.values).max()
    ax.scatter(
        row["t"], row["x"], s=4 + 60 * size, c=np.sign(row.values) * size,
        cmap="PuOr_r", vmin=-1, vmax=1, edgecolor="0.6", linewidth=0.3,
    )  # fmt: skip
    ax.plot(0.6, 0.3, "*", color="#009E73", markersize=14, markeredgecolor="black")
    ax.set(title=f"damping {damping:.0e}", xlabel="t")
    # How many points the answer rests on: (Σ|I|)² / Σ I².
    effective = np.abs(row.values).sum() ** 2 / (row.values**2).sum()
    ax.text(0.02, 0.02, f"≈ {effective:.0f} points", transform=ax.transAxes, fontsize=8)
axes[0].set_ylabel("x")
figure

# %%
# The eigenvalues of the Gauss-Newton matrix say why: damping cuts off all below its line.
rows = wh.Jacobian(result.objective).dense()
eigenvalues = torch.linalg.svdvals(rows).square()
figure, ax = plt.subplots(figsize=(6.5, 3.2), layout="constrained")
ax.semilogy(eigenvalues / eigenvalues[0], color="#0072B2")
for damping in DAMPINGS:
    ax.axhline(damping, color="#E69F00", linewidth=0.8)
    ax.text(119, 1.3 * damping, f"damping {damping:.0e}", fontsize=8, ha="right")
ax.set(
    xlabel="number", ylabel="eigenvalue / the largest", xlim=(0, 120), ylim=(1e-17, 2)
)
ax.grid(color="0.9")
figure
