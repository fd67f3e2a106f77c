"""
Points chosen by influence
==========================

A source of width 0.06 in a square: few uniform points see it. Every five steps candidates are scored
by their influence on the loss elsewhere, and the best join the training points.
"""

# %%
import tempfile

import numpy as np
import torch

from whence import pinn

WIDTH = 0.06
CENTER = (0.65, 0.4)


def source(x, y):
    """Return -Δu of the hill u below."""
    r = (x - CENTER[0]) ** 2 + (y - CENTER[1]) ** 2
    return torch.exp(-r / (2 * WIDTH**2)) * (2 - r / WIDTH**2) / WIDTH**2


def hill(x, y):
    """Return the solution."""
    return np.exp(-((x - CENTER[0]) ** 2 + (y - CENTER[1]) ** 2) / (2 * WIDTH**2))


problem = pinn.Problem(
    name="hill",
    domain=pinn.Rectangle(("x", "y"), (0, 0), (1, 1)),
    outputs=("u",),
    equations={"pde": lambda x, y, u_xx, u_yy: WIDTH**2 * (u_xx + u_yy + source(x, y))},
    ansatz=lambda x, y, u: 16 * x * (1 - x) * y * (1 - y) * u,
    solution=hill,
)


def trained(resample=None, points=100):
    """Return the training of a small network."""
    return pinn.train(
        problem,
        pinn.MLP([2, 20, 20, 1], bounds=problem.domain.bounds, seed=0),
        points=points,
        schedule=pinn.GaussNewton(60),
        resample=resample,
        out=tempfile.mkdtemp(),
        progress=False,
    )


by_influence = trained(
    pinn.Resample(pinn.InfluenceScore(n_test=300), n=20, every=5, candidates=1500)
)
by_residual = trained(
    pinn.Resample(pinn.ResidualScore(), n=20, every=5, candidates=1500)
)
fixed = trained(points=by_influence.summary["points"])
for name, result in {
    "by influence": by_influence,
    "by residual": by_residual,
    "uniform, all at once": fixed,
}.items():
    print(
        f"{name:21s} {result.summary['points']} points, "
        f"relative L2 error {result.summary['relative_l2']:.1e}"
    )

# %%
# Where the points of each round came to lie.
by_influence.plot("points")

# %%
by_influence.plot()
