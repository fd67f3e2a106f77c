"""What a weighting may ask of the terms of a loss: of an objective, or of a loop's own tensors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor

from whence import _checks
from whence.jacobian import Jacobian
from whence.objective import Objective

ROWS_AT_ONCE = 256
"""Residuals whose gradients are computed in one batched backward pass."""


class TermStatistics(Protocol):
    """The terms at the present parameters; each question is answered when it is asked."""

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the terms."""

    def losses(self) -> dict[str, float]:
        """Return ``L_k``, the mean loss of each term without its weight."""

    def gradients(self) -> dict[str, Tensor]:
        """Return ``∇L_k`` (P,) of each term."""

    def traces(self) -> dict[str, float]:
        """Return ``Tr K_kk = Σ_i ‖∇r_k(z_i)‖²`` of each term."""

    def counts(self) -> dict[str, int]:
        """Return the number of residuals of each term."""

    def point_losses(self, term: str) -> Tensor:
        """Return the loss of each of a term's points, (n,)."""

    def points(self, term: str) -> Tensor:
        """Return the points of a term, (n, d)."""

    def has_points(self, term: str) -> bool:
        """Whether the points of a term are known."""

    def column(self, coordinate: str | int) -> int:
        """Return the column of a coordinate in the points."""


class ObjectiveStatistics:
    """The terms of an objective; gradients are shared with the step that follows."""

    def __init__(self, objective: Objective) -> None:
        self._objective = objective
        self.names = tuple(objective.terms)

    def losses(self) -> dict[str, float]:
        """Return ``L_k``, the mean loss of each term without its weight."""
        return self._objective.term_losses()

    def gradients(self) -> dict[str, Tensor]:
        """Return ``∇L_k`` (P,) of each term."""
        gradients = self._objective.term_gradients()
        return {name: gradient for name, (_, gradient) in gradients.items()}

    def traces(self) -> dict[str, float]:
        """Return ``Tr K_kk = Σ_i ‖∇r_k(z_i)‖²`` of each term."""
        return self._objective.traces()

    def counts(self) -> dict[str, int]:
        """Return the number of residuals of each term."""
        return Jacobian(self._objective).counts()  # points times components

    def point_losses(self, term: str) -> Tensor:
        """Return the loss of each of a term's points, (n,)."""
        # Of this term alone, so that no other residual is evaluated.
        only = self._objective.with_terms([self._objective.term(term)])
        with torch.no_grad():
            return only.point_losses()[term].detach()

    def points(self, term: str) -> Tensor:
        """Return the points of a term, (n, d)."""
        return self._objective.locations(term)

    def has_points(self, term: str) -> bool:
        """Whether the points of a term are known."""
        return True

    def column(self, coordinate: str | int) -> int:
        """Return the column of a coordinate in the points."""
        names = self._objective.coordinates
        if isinstance(coordinate, str):
            _checks.one_of("coordinate", coordinate, names)
            return names.index(coordinate)

        _checks.one_of("coordinate", coordinate, range(len(names)))
        return coordinate


class TensorStatistics:
    """The terms of a loop of one's own.

    A scalar is a term's mean loss; a tensor (n,) or (n, m) holds its residuals, whose loss is
    ``(1/n) Σ_i ‖r_i‖²``.
    """

    def __init__(
        self,
        losses: Mapping[str, Tensor],
        parameters: Iterable[Tensor] | None,
        points: Mapping[str, Tensor] | None,
    ) -> None:
        if not isinstance(losses, Mapping) or not losses:
            raise TypeError(
                "losses must be tensors by term, such as {'pde': loss, 'initial': other}, or an "
                f"Objective, got {_checks.describe(losses)}"
            )

        for name, value in losses.items():
            if not isinstance(value, Tensor):
                raise TypeError(
                    f"the loss of term {name!r} must be a tensor, got {value!r}"
                )

        self._values = dict(losses)
        """By term its mean loss or its residuals."""
        self._parameters: list[Tensor] = []

        for parameter in () if parameters is None else parameters:
            if not isinstance(parameter, Tensor):
                raise TypeError(
                    "parameters must be tensors, such as list(model.parameters()), got "
                    f"{_checks.describe(parameter)}"
                )
            if parameter.requires_grad:
                self._parameters.append(parameter)

        self._points = dict(points or {})
        self.names = tuple(losses)

    def losses(self) -> dict[str, float]:
        """Return ``L_k``, the mean loss of each term without its weight."""
        return {name: float(self._loss(name).detach()) for name in self.names}

    def _loss(self, name: str) -> Tensor:
        value = self._values[name]
        if value.ndim == 0:
            return value
        return value.square().sum() / len(value)  # (1/n) Σ_i ‖r_i‖²

    def gradients(self) -> dict[str, Tensor]:
        """Return ``∇L_k`` (P,) of each term."""
        gradients = {}
        for name in self.names:
            (gradients[name],) = self._vector_jacobian(self._loss(name), None)
        return gradients

    def _vector_jacobian(self, value: Tensor, cotangents: Tensor | None) -> Tensor:
        """Return ``cᵀ ∂value/∂θ`` for each cotangent c, (k, P); without, of a scalar, (1, P)."""
        if not self._parameters:
            raise ValueError(
                "this weighting needs the parameters that the losses depend on: "
                "update(losses, list(model.parameters()))"
            )
        if not value.requires_grad:
            raise ValueError(
                "the losses depend on no parameter: pass them before detach() or item()"
            )

        gradients: Sequence[Tensor | None] = torch.autograd.grad(
            value,
            self._parameters,
            grad_outputs=cotangents,
            # Other terms and the user's own backward() need it still
            retain_graph=True,
            allow_unused=True,  # a term need not depend on every parameter
            is_grads_batched=cotangents is not None,
        )

        count = 1 if cotangents is None else len(cotangents)
        parts = []

        for gradient, parameter in zip(gradients, self._parameters, strict=True):
            if gradient is None:
                # Torch would fill in zeros itself, but without the batch's dimension.
                parts.append(value.new_zeros(count, parameter.numel()))
            else:
                parts.append(gradient.reshape(count, -1))

        return torch.cat(parts, dim=1)

    def traces(self) -> dict[str, float]:
        """Return ``Tr K_kk = Σ_i ‖∇r_k(z_i)‖²`` of each term, a backward pass for every i."""
        traces = {}
        for name in self.names:
            flat = self._residuals(name).reshape(-1)
            total = 0.0
            for some in flat.split(ROWS_AT_ONCE):
                # The rows of the identity as cotangents pick one residual each.
                unit = torch.eye(len(some), dtype=flat.dtype, device=flat.device)
                rows = self._vector_jacobian(some, unit)
                total += float(rows.square().sum())

            traces[name] = total

        return traces

    def _residuals(self, name: str) -> Tensor:
        """Return the residuals of a term, (n,) or (n, m); a mean loss is a ``ValueError``."""
        value = self._values[name]
        if value.ndim == 0:
            raise ValueError(
                f"a mean loss does not tell the residuals of term {name!r}, which this weighting "
                "needs: pass them, shape (n,) or (n, m), in place of their mean square"
            )

        return value

    def counts(self) -> dict[str, int]:
        """Return the number of residuals of each term."""
        return {name: self._residuals(name).numel() for name in self.names}

    def point_losses(self, term: str) -> Tensor:
        """Return the loss of each of a term's points, (n,)."""
        residuals = self._residuals(term).detach()
        return residuals.reshape(len(residuals), -1).square().sum(dim=1)

    def points(self, term: str) -> Tensor:
        """Return the points of a term, (n, d)."""
        if term not in self._points:
            raise ValueError(
                f"this weighting needs the points of term {term!r}, shape (n, d): "
                f"update(losses, parameters, points={{{term!r}: ...}})"
            )

        what = f"the points of term {term!r}"
        return _checks.points(what, self._points[term], "d").detach()

    def has_points(self, term: str) -> bool:
        """Whether the points of a term are known."""
        return term in self._points

    def column(self, coordinate: str | int) -> int:
        """Return the column of a coordinate in the points."""
        if isinstance(coordinate, str):
            raise ValueError(
                f"outside of whence's objectives coordinates have no names: give the column of "
                f"{coordinate!r} in the points, such as coordinate=1"
            )

        return coordinate


def statistics_of(
    losses: Mapping[str, Tensor] | Objective,
    parameters: Iterable[Tensor] | None = None,
    points: Mapping[str, Tensor] | None = None,
) -> TermStatistics:
    """Return the terms of an objective, or of tensors by term."""
    if isinstance(losses, Objective):
        return ObjectiveStatistics(losses)
    return TensorStatistics(losses, parameters, points)
