"""
Optimizers on one problem
=========================

Adam, L-BFGS, self-scaled Broyden and Gauss-Newton train the same network on the same points for a
few seconds each.
"""

# %%
import matplotlib.pyplot as plt

from whence import pinn

problem = pinn.zoo.load("diffusion")
SCHEDULES = {
    "Adam": pinn.Adam(800, lr=3e-3),
    "L-BFGS": pinn.LBFGS(400),
    "self-scaled Broyden": pinn.SSBroyden(300),
    "Gauss-Newton": pinn.GaussNewton(50),
}
results = {
    name: pinn.train(
        problem,
        pinn.MLP([2, 20, 20, 1], seed=0),
        points=200,
        schedule=schedule,
        progress=False,
    )
    for name, schedule in SCHEDULES.items()
}

# %%
# Losses over seconds: a step of Gauss-Newton costs more than one of Adam, and does more.
figure, ax = plt.subplots(figsize=(7, 4), layout="constrained")
colors = ("#8c8c8c", "#E69F00", "#009E73", "#0072B2")
for (name, result), color in zip(results.items(), colors, strict=True):
    history = result.history
    label = f"{name}: error {result.summary['relative_l2']:.0e}"
    ax.semilogy(history["seconds"], history["loss"], color=color, label=label)
ax.set(xlabel="seconds", ylabel="loss", title="diffusion, 200 points")
ax.grid(color="0.9")
ax.legend(frameon=False)
figure
