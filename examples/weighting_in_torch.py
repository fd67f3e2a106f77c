"""Weights of loss terms in a training loop of one's own: plain PyTorch, whence for the weights.

``python examples/weighting_in_torch.py [STEPS]`` (default 1200, some eight seconds) solves
u″ = −(2π)² sin 2πx on [0, 1] with u(0) = u(1) = 0, where the equation drowns the boundary values,
without weights and with those of the neural tangent kernel.
"""

import math
import sys

import torch
from torch import nn

from whence import pinn

steps = int(sys.argv[1]) if len(sys.argv) > 1 else 1200
inside = torch.linspace(0, 1, 60).unsqueeze(1)
boundary = torch.tensor([[0.0], [1.0]])
wave = 2 * math.pi


def residuals(model):
    """By term what ought to be zero, (n, 1): the losses are mean squares of this."""
    x = inside.clone().requires_grad_()
    (u_x,) = torch.autograd.grad(model(x).sum(), x, create_graph=True)
    (u_xx,) = torch.autograd.grad(u_x.sum(), x, create_graph=True)
    return {
        "equation": u_xx + wave**2 * torch.sin(wave * x),
        "boundary": model(boundary),
    }


def trained(weighting):
    """Train a network; return its relative error and the last weights."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(1, 40), nn.Tanh(), nn.Linear(40, 40), nn.Tanh(), nn.Linear(40, 1)
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    for _ in range(steps):
        found = residuals(model)
        weights = weighting.update(found, list(model.parameters()))
        loss = sum(weights[name] * r.square().mean() for name, r in found.items())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    x = torch.linspace(0, 1, 1000).unsqueeze(1)
    exact = torch.sin(wave * x)
    with torch.no_grad():
        return float((model(x) - exact).norm() / exact.norm()), weights


for label, weighting in {
    "without weights": pinn.Fixed({}),
    "tangent kernel": pinn.NeuralTangentKernel(
        alpha=0.9, update_every=100, estimate="mean_trace"
    ),
}.items():
    error, weights = trained(weighting)
    shown = ", ".join(f"{name} {weight:.3g}" for name, weight in weights.items())
    print(f"{label:15s}  relative error {error:.1e}   weights: {shown}")
