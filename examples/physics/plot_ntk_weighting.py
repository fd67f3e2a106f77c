"""
Weights by the neural tangent kernel
====================================

With first-order optimizers, terms whose kernel is small are learnt last, or never. Here the equation
drowns the two boundary values. The tangent kernel's trace says how fast each term is learnt; weights
that make these rates equal mend it.
"""

# %%
import math

import numpy as np
import torch

from whence import pinn

WAVE = 2 * math.pi
problem = pinn.Problem(
    name="poisson",
    domain=pinn.Interval("x", 0, 1),
    outputs=("u",),
    equations={"pde": lambda x, u_xx: u_xx + WAVE**2 * torch.sin(WAVE * x)},
    conditions=[pinn.Dirichlet(u=0.0, on="x", name="ends")],
    solution=lambda x: np.sin(WAVE * x),
)


def trained(weighting=None):
    """Return the training of the same network with or without a weighting."""
    return pinn.train(
        problem,
        pinn.MLP([1, 30, 30, 1], bounds=problem.domain.bounds, seed=0),
        points={"pde": 60, "ends": 2},
        schedule=pinn.Adam(800, lr=2e-3),
        weighting=weighting,
        progress=False,
    )


without = trained()
weighting = pinn.NeuralTangentKernel(alpha=0.9, update_every=100, estimate="mean_trace")
weighted = trained(weighting)
print(f"without weights: relative L2 error {without.summary['relative_l2']:.1e}")
print(f"tangent kernel:  relative L2 error {weighted.summary['relative_l2']:.1e}")

# %%
# Without weights the ends stay behind.
without.plot("convergence")

# %%
# With them, their weight rises until both are learnt equally fast.
weighted.plot("convergence")
