"""What a weighting may ask of the terms of a loss: of an objective, or of a loop's own tensors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor

from whence import _checks
from whence.jacobian import Jacobian
from whence.objective import Objective

ROWS_AT_ONCE = 256


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
        return Jacobian(self._objective).counts()

    def point_losses(self, term: str) -> Tensor:
        """Return the loss of each of a term's points, (n,)."""
        alone = self._objective.with_terms([self._objective.term(term)])
        with torch.no_grad():
            return alone.point_losses()[term].detach()

    def points(self, term: str) -> Tensor:
        """Return the points of a term, (n, d)."""
        return self._objective.locations(term)

    def has_points(self, term: str) -> bool:
        """Whether the points of a term are known."""
        return True

    def column(self, coordinate: str | int) -> int:
        """Return the column of a coordinate in the points."""
        names = self._objective.coordinates
        by_name = isinstance(coordinate, str)
        _checks.one_of(
            "coordinate", coordinate, names if by_name else range(len(names))
        )
        return names.index(coordinate) if isinstance(coordinate, str) else coordinate


class TensorStatistics:
    """The terms of a loop of one's own.

    A scalar is a term's mean loss; a tensor (n,) or (n, m) holds its residuals, whose loss is
    ``(1/n) Σ_i ‖r_i‖²``.
    """

    def __init__(
        self,
        given: Mapping[str, Tensor],
        parameters: Iterable[Tensor] | None,
        points: Mapping[str, Tensor] | None,
    ) -> None:
        if not isinstance(given, Mapping) or not given:
            raise TypeError(
                "losses must be tensors by term, such as {'pde': loss, 'initial': other}, or an "
                f"Objective, got {_checks.describe(given)}"
            )
        for name, value in given.items():
            if not isinstance(value, Tensor):
                raise TypeError(
                    f"the loss of term {name!r} must be a tensor, got {value!r}"
                )
        self._given = dict(given)
        self._parameters = _that_require_grad(parameters)
        self._points = dict(points or {})
        self.names = tuple(given)

    def losses(self) -> dict[str, float]:
        """Return ``L_k``, the mean loss of each term without its weight."""
        return {name: float(self._loss(name).detach()) for name in self.names}

    def _loss(self, name: str) -> Tensor:
        value = self._given[name]
        return value if value.ndim == 0 else value.square().sum() / len(value)

    def gradients(self) -> dict[str, Tensor]:
        """Return ``∇L_k`` (P,) of each term."""
        return {name: self._pulled(self._loss(name), None)[0] for name in self.names}

    def _pulled(self, value: Tensor, seeds: Tensor | None) -> Tensor:
        """Return the gradients of ``value`` for each seed, (number of seeds, P); 1 without."""
        if not self._parameters:
            raise ValueError(
                "this weighting needs the parameters that the losses depend on: "
                "update(losses, list(model.parameters()))"
            )
        if not value.requires_grad:
            raise ValueError(
                "the losses depend on no parameter: pass them before detach() or item()"
            )
        found = torch.autograd.grad(
            value,
            self._parameters,
            grad_outputs=seeds,
            retain_graph=True,
            allow_unused=True,
            is_grads_batched=seeds is not None,
        )
        count = 1 if seeds is None else len(seeds)
        # Torch would fill in zeros itself, but without the batch's dimension.
        parts = [
            value.new_zeros(count, p.numel()) if g is None else g.reshape(count, -1)
            for g, p in zip(found, self._parameters, strict=True)
        ]
        return torch.cat(parts, dim=1)

    def traces(self) -> dict[str, float]:
        """Return ``Tr K_kk = Σ_i ‖∇r_k(z_i)‖²`` of each term, a backward pass for every i."""
        return {name: self._trace(self._residuals(name)) for name in self.names}

    def _trace(self, residuals: Tensor) -> float:
        flat, total = residuals.reshape(-1), 0.0
        for start in range(0, len(flat), ROWS_AT_ONCE):
            some = flat[start : start + ROWS_AT_ONCE]
            unit = torch.eye(len(some), dtype=flat.dtype, device=flat.device)
            total += float(self._pulled(some, unit).square().sum())
        return total

    def _residuals(self, name: str) -> Tensor:
        value = self._given[name]
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
        return _checks.points(
            f"the points of term {term!r}", self._points[term], "d"
        ).detach()

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


def _that_require_grad(parameters: Iterable[Tensor] | None) -> list[Tensor]:
    held = [] if parameters is None else list(parameters)
    for parameter in held:
        if not isinstance(parameter, Tensor):
            raise TypeError(
                "parameters must be tensors, such as list(model.parameters()), got "
                f"{_checks.describe(parameter)}"
            )
    return [parameter for parameter in held if parameter.requires_grad]


def statistics_of(
    losses: Any,
    parameters: Iterable[Tensor] | None = None,
    points: Mapping[str, Tensor] | None = None,
) -> TermStatistics:
    """Return the terms of an objective, or of tensors by term."""
    if isinstance(losses, Objective):
        return ObjectiveStatistics(losses)
    return TensorStatistics(losses, parameters, points)
