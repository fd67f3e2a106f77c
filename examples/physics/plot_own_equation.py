"""
Your own equation in one file
=============================

A pollutant drifts along a channel, spreads and decays: ``c_t + v c_x = D c_xx - k c``. The equation
is a function whose arguments say what it needs, the conditions become terms of the loss, and
Gauss-Newton trains the network in seconds.
"""

# %%
import torch

from whence import pinn

SPEED, SPREAD, DECAY = 1.0, 0.02, 0.5


def transport(c, c_t, c_x, c_xx):
    """Return what must vanish everywhere."""
    return c_t + SPEED * c_x - SPREAD * c_xx + DECAY * c


def spill(x):
    """Return the concentration at the beginning."""
    return torch.exp(-(((x - 0.5) / 0.2) ** 2))


problem = pinn.Problem(
    name="spill",
    domain=pinn.Interval("x", 0, 2) * pinn.Interval("t", 0, 1),
    outputs=("c",),
    equations={"transport": transport},
    conditions=[pinn.Initial(c=spill), pinn.Dirichlet(c=0.0, on="x")],
)
result = pinn.train(
    problem,
    pinn.MLP([2, 20, 20, 1], bounds=problem.domain.bounds, seed=0),
    points={"transport": 500, "initial_c": 80, "dirichlet_c": 60},
    schedule=pinn.GaussNewton(60),
    progress=False,
)
for term, loss in result.summary["losses"].items():
    print(f"{term:12s} mean squared residual {loss:.1e}")

# %%
# The cloud moves to the right, widens and fades.
result.plot()

# %%
# How the loss of each term fell.
result.plot("convergence")
