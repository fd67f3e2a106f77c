"""captum's Arnoldi influence on a network whose loss is the residual of a PDE."""

from __future__ import annotations

import inspect

import torch

# captum 0.9 has the class, but exports it no longer.
from captum.influence._core.arnoldi_influence_function import ArnoldiInfluenceFunction
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from whence import pinn

DIMENSION = (
    inspect.signature(ArnoldiInfluenceFunction).parameters["arnoldi_dim"].default
)
"""Of the Krylov space, captum's default."""


class Residual(nn.Module):
    """A problem in x and t with one equation: points (n, 2) to residuals (n, 1).

    What captum takes is a module, so derivatives by x and t are made the way any PyTorch user
    would, by nested ``torch.autograd.grad``.
    """

    def __init__(self, problem: pinn.Problem, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self._ansatz = problem.ansatz
        (self._equation,) = problem.equations.values()
        self._names = list(inspect.signature(self._equation).parameters)

    def forward(self, points: Tensor) -> Tensor:
        """Return the residuals."""
        points = points.detach().requires_grad_()
        x, t = points[:, :1], points[:, 1:]
        u = self._ansatz(x, t, self.network(points))
        first = _gradient(u, points)
        fields = {"x": x, "t": t, "u": u, "u_x": first[:, :1], "u_t": first[:, 1:]}
        if "u_xx" in self._names:
            fields["u_xx"] = _gradient(fields["u_x"], points)[:, :1]
        return self._equation(*(fields[name] for name in self._names))


def _gradient(values: Tensor, points: Tensor) -> Tensor:
    return torch.autograd.grad(values.sum(), points, create_graph=True)[0]


class SquaredError(nn.Module):
    """ℓ = r², one value a point; captum reads ``reduction``."""

    reduction = "none"

    def forward(self, output: Tensor, label: Tensor) -> Tensor:
        """Return (output − label)², shape (n,)."""
        return (output - label).pow(2).sum(dim=1)


def _labelled(points: Tensor, batch: int) -> DataLoader:
    return DataLoader(TensorDataset(points, torch.zeros_like(points[:, :1])), batch)


def prepared(
    model: Residual,
    training: Tensor,
    candidates: Tensor,
    batches: tuple[int, int],
    dimension: int | None = None,
) -> ArnoldiInfluenceFunction:
    """Return captum's influence function, rank 50, with its low-rank inverse Hessian made.

    ``batches`` are the points a batch in Hessian products and in gradients; ``dimension`` is that
    of the Krylov space where it is not captum's default.
    """
    arnoldi = {} if dimension is None else {"arnoldi_dim": dimension}
    return ArnoldiInfluenceFunction(
        model,
        _labelled(candidates, batches[1]),
        "",  # a checkpoint is asked for, but the network is at hand
        checkpoints_load_func=lambda _model, _path: 1.0,
        loss_fn=SquaredError(),
        hessian_dataset=_labelled(training, batches[0]),
        batch_size=None,
        **arnoldi,
    )


def influence(function: ArnoldiInfluenceFunction, test: Tensor, batch: int) -> Tensor:
    """Return the influence of every candidate on the loss of every test point."""
    return function.influence(_labelled(test, batch))
