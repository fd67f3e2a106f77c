"""whence's problems under DeepXDE: same equation, hard constraints, network and points, float64."""

from __future__ import annotations

import contextlib
import inspect
import os
import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from whence import pinn


def _loaded() -> Any:
    os.environ["DDE_BACKEND"] = "pytorch"  # read when DeepXDE is imported
    with contextlib.redirect_stdout(sys.stderr):
        import deepxde

        deepxde.config.set_default_float("float64")
    return deepxde


dde = _loaded()
Equation = Callable[[Tensor, Tensor], Any]


def equation(problem: pinn.Problem) -> Equation:
    """Return the only equation of a problem as DeepXDE wants it, (inputs, outputs) to residuals.

    Only the derivatives that the equation names are made, each by ``dde.grad``.
    """
    (function,) = problem.equations.values()
    names = list(inspect.signature(function).parameters)

    def residuals(x: Tensor, y: Tensor) -> Any:
        found = function(*(_field(problem, name, x, y) for name in names))
        return list(found) if isinstance(found, tuple) else found

    return residuals


def _field(problem: pinn.Problem, name: str, x: Tensor, y: Tensor) -> Tensor:
    coordinates, outputs = list(problem.coordinates), list(problem.outputs)
    if name in coordinates:
        k = coordinates.index(name)
        return x[:, k : k + 1]
    output, _, along = name.partition("_")
    i, axes = outputs.index(output), [coordinates.index(c) for c in along]
    if not axes:
        return y[:, i : i + 1]
    if len(axes) == 1:
        return dde.grad.jacobian(y, x, i=i, j=axes[0])
    return dde.grad.hessian(y, x, component=i, i=axes[0], j=axes[1])


def network(problem: pinn.Problem, like: pinn.MLP) -> Any:
    """Return DeepXDE's network with the parameters of ``like`` and the problem's constraints."""
    net = dde.nn.FNN(list(like.layers), like.activation, "Glorot normal")
    net.load_state_dict(like.state_dict())
    ansatz = problem.ansatz
    if ansatz is not None:
        names = list(inspect.signature(ansatz).parameters)
        net.apply_output_transform(
            lambda x, y: ansatz(*(_field(problem, n, x, y) for n in names))
        )
    return net


def model(problem: pinn.Problem, like: pinn.MLP, points: Tensor) -> Any:
    """Return a model that trains a copy of ``like`` on exactly these points."""
    low, high = problem.domain.bounds.tolist()
    # Without boundary conditions the geometry says only how many coordinates there are.
    geometry = dde.geometry.Rectangle(low, high)
    data = dde.data.PDE(geometry, equation(problem), [], anchors=points.numpy())
    return dde.Model(data, network(problem, like))


def gradients(
    problem: pinn.Problem, net: Any, points: Tensor, batch: int
) -> tuple[Tensor, Tensor]:
    """Return ∂r/∂θ (n, P) and r (n,), by one backward pass a point.

    ``batch`` points share a forward pass.
    """
    residuals, parameters = equation(problem), list(net.parameters())
    rows, values = [], []
    for part in points.split(batch):
        value = _residual(residuals, net, part)
        for entry in value:
            grads = torch.autograd.grad(entry, parameters, retain_graph=True)
            rows.append(torch.cat([g.reshape(-1) for g in grads]))
        values.append(value.detach())
    return torch.stack(rows), torch.cat(values)


def loss_gradient(problem: pinn.Problem, net: Any, points: Tensor) -> Tensor:
    """Return the gradient of Σ r² over the points, (P,), by one backward pass."""
    loss = _residual(equation(problem), net, points).pow(2).sum()
    return torch.cat(
        [g.reshape(-1) for g in torch.autograd.grad(loss, list(net.parameters()))]
    )


def _residual(residuals: Equation, net: Any, points: Tensor) -> Tensor:
    dde.grad.clear()  # derivatives are remembered by the identity of inputs and outputs
    inputs = points.clone().requires_grad_()
    return residuals(inputs, net(inputs))[:, 0]
