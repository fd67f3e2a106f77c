"""Values of a network's solution at the points of a figure."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import Module

from whence.pinn.pde.problem import Problem
from whence.plots.style import Array

CHUNK = 10_000
"""Points at which the network is evaluated at once."""


def predicted_values(problem: Problem, network: Module, points: Tensor) -> Array:
    """Return the network's outputs with the problem's ansatz, (n, outputs)."""
    tensors = {}
    for name, parameter in network.named_parameters():
        tensors[name] = parameter.detach()

    names = tuple(problem.outputs)
    evaluate = problem.fields(network)(names)

    # The network's own precision and device.
    like = next(iter(tensors.values()))
    outputs = []
    for chunk in torch.split(points.to(like), CHUNK):
        outputs.append(evaluate(tensors, chunk))
    return torch.cat(outputs).double().cpu().numpy()
