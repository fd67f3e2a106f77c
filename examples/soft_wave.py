"""Wave equation with soft conditions: train, then ask which points decide one answer.

``python examples/soft_wave.py [STEPS]`` (default 150, about a minute) prints the error and how the
influence is shared between the equation's points and the initial and boundary points.
"""

import sys

import torch

import whence as wh
from whence import pinn

problem = pinn.zoo.load("wave", constraints="soft")
network = pinn.MLP([2, 24, 24, 1], bounds=problem.domain.bounds, seed=0)
counts = {"pde": 400, "initial_u": 80, "initial_u_t": 80, "dirichlet_u": 80}
steps = int(sys.argv[1]) if len(sys.argv) > 1 else 150

result = pinn.train(
    problem,
    network,
    points=counts,
    schedule=[pinn.GaussNewton(steps)],
    resample=pinn.Resample(
        pinn.InfluenceScore(), n=10, every=10, candidates=2000, max_points=600
    ),
    weights={"initial_u": 100.0, "dirichlet_u": 100.0},
    progress=False,
)
print(f"relative L2 error: {result.summary['relative_l2']:.1e}")

at = torch.tensor([[0.5, 0.9]], dtype=torch.float64)
row = wh.Influence(result.objective).attribute(wh.Output(at)).isel(target=0)
shares = abs(row).groupby("term").sum() / abs(row).sum()
for term, share in zip(shares["term"].values, shares.values, strict=True):
    print(f"{term:14s} {100 * share:5.1f} % of the absolute influence on u(0.5, 0.9)")
