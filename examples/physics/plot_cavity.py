"""
Navier-Stokes: the vortex under a moving lid
============================================

A lid moves over a box of fluid at Re = 100. The stream function's fourth-order equation is trained
in seconds; then: which points does the middle of the vortex come from?
"""

# %%
import matplotlib.pyplot as plt
import numpy as np

import whence as wh
from whence import pinn

problem = pinn.zoo.load("lid_driven_cavity")
print(pinn.zoo.describe("lid_driven_cavity"))
result = pinn.train(
    problem,
    pinn.MLP([2, 20, 20, 1], bounds=problem.domain.bounds, seed=0),
    points=400,
    schedule=pinn.GaussNewton(30),
    progress=False,
)
print(f"relative L2 error {result.summary['relative_l2']:.1e}")

# %%
# Velocities are derivatives of the stream function: u = ψ_y, v = -ψ_x.
side = np.linspace(0, 1, 60)
x, y = np.meshgrid(side, side)
grid = np.stack([x.ravel(), y.ravel()], axis=1)
slopes = result.solution(grid, "psi_x", "psi_y")
u, v = slopes[:, 1].reshape(60, 60), -slopes[:, 0].reshape(60, 60)

figure, ax = plt.subplots(figsize=(5.2, 4.6), layout="constrained")
speed = np.hypot(u, v)
drawn = ax.pcolormesh(x, y, speed, cmap="viridis", shading="gouraud")
ax.streamplot(x, y, u, v, color="white", linewidth=0.7, density=1.2, arrowsize=0.8)
ax.set(xlabel="x", ylabel="y", aspect="equal", title="speed and streamlines")
figure.colorbar(drawn)
figure

# %%
# The middle of the vortex, where the stream function is least, comes from the lid's corner, where
# the flow turns down, and from all along its way around.
values = np.asarray(result.solution(grid)).ravel()
center = grid[[values.argmin()]]
row = wh.Influence(result.objective).attribute(wh.Output(center, "psi"))
row.isel(target=0).plot(problem=problem)
