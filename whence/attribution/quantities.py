"""Quantities of interest: what an attribution explains.

A quantity has T targets. It knows their values, their gradients by θ and their labels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from whence import _checks
from whence.attribution.labels import target_arrays
from whence.jacobian import chunks, point_gradients, row_blocks
from whence.linearization import Linearization, linearize
from whence.objective import Objective, Points, Pointwise, at_once
from whence.samples import Samples, samples_of


@runtime_checkable
class Quantity(Protocol):
    """What an attribution explains: T scalars that depend on θ."""

    def label(self) -> str:
        """Return a short name for captions."""

    def values(self, objective: Objective) -> Tensor:
        """Return the targets' values, (T,)."""

    def gradients(self, objective: Objective) -> Iterator[Tensor]:
        """Yield the targets' gradients by θ in blocks, each (block, P), T rows in all."""

    def targets(self, objective: Objective) -> dict[str, np.ndarray]:
        """Return the coordinates of the targets by name, each of length T."""


@dataclass(frozen=True, eq=False)
class _AtPoints:
    """Shared by quantities that are a pointwise function at given points."""

    points: Any

    def __post_init__(self) -> None:
        object.__setattr__(self, "points", read_once(self.points, targets=False))

    def label(self) -> str:
        raise NotImplementedError

    def _function(self, objective: Objective) -> Pointwise:
        raise NotImplementedError

    def _columns(self, objective: Objective) -> Sequence[str]:
        return (self.label(),)

    def _checked(self, objective: Objective) -> Points:
        return objective.placed("the points of a quantity", self.points)

    def values(self, objective: Objective) -> Tensor:
        """Return the targets' values, (T,), point by point."""
        function, points = self._function(objective), self._checked(objective)
        tensors = objective.parameters.tensors()
        parts = [
            function(tensors, part).detach() for part in points.split(at_once(points))
        ]
        return torch.cat(parts).reshape(-1)

    def gradients(self, objective: Objective) -> Iterator[Tensor]:
        """Yield the targets' gradients by θ in blocks, each (block, P)."""
        points = self._checked(objective)
        for block in row_blocks(
            self._function(objective), objective.parameters, points
        ):
            yield block.reshape(-1, objective.parameters.size)

    def linearized(
        self, objective: Objective
    ) -> Iterator[tuple[Linearization, Tensor]]:
        """Yield linearizations and seeds whose rows are the gradients, where there is one each."""
        points, function = self._checked(objective), self._function(objective)
        for part in chunks(points, objective.parameters):
            linear = linearize(function, objective.parameters, points[part])
            if linear.value.shape[1] > 1:
                return
            yield linear, torch.ones_like(linear.value)

    def targets(self, objective: Objective) -> dict[str, np.ndarray]:
        """Return the target points' coordinates and the component explained."""
        points, columns = self._checked(objective), self._columns(objective)
        return {
            **target_arrays(objective, points, len(columns)),
            "quantity": np.tile(np.asarray(columns, dtype=str), len(points)),
        }


@dataclass(frozen=True, eq=False)
class Output(_AtPoints):
    """An output of the network at given points, or a function of fields by argument name.

    Parameters
    ----------
    points:
        Where, shape (T, d).
    of:
        ``None`` for the only output, an output's name, or a function whose argument names are
        outputs, derivatives or coordinates, such as ``lambda u, v: (u**2 + v**2).sqrt()``.

    Examples
    --------
    >>> import torch, whence as wh
    >>> points = torch.tensor([[0.5, 0.5]], dtype=torch.float64)
    >>> wh.Output(points, lambda u, v: (u**2 + v**2).sqrt()).label()
    'f(u, v)'
    """

    of: str | Callable[..., Tensor] | None = None

    def label(self) -> str:
        """Return the output's name."""
        if callable(self.of):
            return f"f({', '.join(_checks.arguments('the function of an Output', self.of))})"
        return self.of or "output"

    def _function(self, objective: Objective) -> Pointwise:
        if callable(self.of):
            return _composed(objective, self.of)
        if self.of is not None:
            _checks.one_of("output", self.of, objective.outputs)
            return objective.fields((self.of,))
        if len(objective.outputs) > 1:
            raise ValueError(
                f"the network has outputs {', '.join(objective.outputs)}: name one, such as "
                f"Output(points, {objective.outputs[0]!r})"
            )
        return objective.fields(objective.outputs)

    def _columns(self, objective: Objective) -> Sequence[str]:
        return (self.label() if self.of is not None else objective.outputs[0],)


@dataclass(frozen=True, eq=False)
class Derivative(_AtPoints):
    """A derivative of an output at given points, named as in equations: ``"u_x"``, ``"u_xt"``.

    Examples
    --------
    >>> import torch, whence as wh
    >>> wh.Derivative(torch.zeros(1, 2), "u_x").label()
    'u_x'
    """

    of: str

    def label(self) -> str:
        """Return the derivative's name."""
        return self.of

    def _function(self, objective: Objective) -> Pointwise:
        return objective.fields((self.of,))


@dataclass(frozen=True, eq=False)
class Residual(_AtPoints):
    """Every residual component of a term at given points, in the term's own sign."""

    term: str

    def label(self) -> str:
        """Return ``residual`` and the term."""
        return f"residual {self.term}"

    def _function(self, objective: Objective) -> Pointwise:
        return objective.term(self.term).residual

    def _checked(self, objective: Objective) -> Points:
        objective.term(self.term)
        return objective.placed(
            f"the points of {self.label()!r}", self.points, self.term
        )

    def _columns(self, objective: Objective) -> Sequence[str]:
        points = self._checked(objective)[:1]
        m = (
            objective.term(self.term)
            .residual(objective.parameters.tensors(), points)
            .shape[1]
        )
        return [self.label()] if m == 1 else [f"{self.label()} {k}" for k in range(m)]


@dataclass(frozen=True, eq=False)
class Loss:
    """The loss of named terms at given points, unweighted: ``ℓ_k(z)``.

    Parameters
    ----------
    points:
        Points by term. Of a supervised objective the inputs, or a ``Dataset`` or ``DataLoader`` of
        inputs and targets. ``None`` for the training points of every term.
    target:
        The targets of the inputs, where these are given alone.
    reduce:
        ``"none"``: one target per point. ``"sum"``: one target, the sum over all of them.
        ``"mean"``: one target, the sum over terms of each term's mean.

    Examples
    --------
    >>> import torch, whence as wh
    >>> wh.Loss({"pde": torch.zeros(5, 2)}, reduce="sum").label()
    'sum of losses'
    >>> wh.Loss(torch.zeros(5, 3), torch.zeros(5, dtype=torch.long)).label()
    'loss'
    """

    points: Any = None
    target: Any = None
    reduce: Literal["none", "sum", "mean"] = "none"

    def __post_init__(self) -> None:
        _checks.one_of("reduction of a loss", self.reduce, ("none", "sum", "mean"))
        points = self.points
        if self.target is not None:
            given = points if isinstance(points, tuple) else (points,)
            points = Samples(
                given[0] if isinstance(given[0], Mapping) else given, self.target
            )
        elif isinstance(points, Tensor) or (isinstance(points, Mapping) and not points):
            raise TypeError(
                "the points of a Loss are given by term, such as {'pde': points}, with their "
                "targets, as Loss(inputs, targets), or as None for the training points, got "
                f"{_checks.shown(points)}"
            )
        elif points is not None and not isinstance(points, Mapping):
            points = read_once(points, targets=True)
        object.__setattr__(self, "points", points)

    def label(self) -> str:
        """Return ``loss``, or which aggregate of losses it is."""
        return "loss" if self.reduce == "none" else f"{self.reduce} of losses"

    def _points(self, objective: Objective) -> dict[str, Points]:
        if self.points is None:
            return {name: term.points for name, term in objective.terms.items()}
        given = self.points
        if isinstance(given, Samples):
            given = {next(iter(objective.terms)): given}
        for name in given:
            objective.term(name)
        return {
            name: objective.placed(f"the points of term {name!r}", points, name)
            for name, points in given.items()
        }

    def _factor(self, points: Points) -> float:
        return 1 / len(points) if self.reduce == "mean" else 1.0

    def values(self, objective: Objective) -> Tensor:
        """Return ℓ of each point, or the one aggregate."""
        tensors, parts = objective.parameters.tensors(), []
        for name, points in self._points(objective).items():
            term, factor = objective.terms[name], self._factor(points)
            for part in points.split(at_once(points)):
                parts.append(factor * term.value(term.residual(tensors, part), part))
        each = torch.cat(parts).detach()
        return each if self.reduce == "none" else each.sum().unsqueeze(0)

    def gradients(self, objective: Objective) -> Iterator[Tensor]:
        """Yield ∇ℓ of each point in blocks, or the one aggregate's gradient."""
        parameters = objective.parameters
        total = torch.zeros(
            1, parameters.size, dtype=parameters.dtype, device=parameters.device
        )
        for name, points in self._points(objective).items():
            for _, linear, seed in point_gradients(
                objective.terms[name], parameters, points
            ):
                if self.reduce == "none":
                    yield linear.rows(seed)
                else:
                    total += self._factor(points) * linear.rmatvec(seed)
        if self.reduce != "none":
            yield total

    def linearized(
        self, objective: Objective
    ) -> Iterator[tuple[Linearization, Tensor]]:
        """Yield linearizations and seeds whose rows are the gradients; none of an aggregate."""
        if self.reduce != "none":
            return
        for name, points in self._points(objective).items():
            found = point_gradients(objective.terms[name], objective.parameters, points)
            for _, linear, seed in found:
                yield linear, seed

    def targets(self, objective: Objective) -> dict[str, np.ndarray]:
        """Return the coordinates and terms of the points, or the aggregate's name."""
        if self.reduce != "none":
            return {"quantity": np.asarray([self.label()])}
        points = self._points(objective)
        tables = [target_arrays(objective, given) for given in points.values()]
        names = [f"loss {n}" for n, p in points.items() for _ in range(len(p))]
        joined = {n: np.concatenate([table[n] for table in tables]) for n in tables[0]}
        return {**joined, "quantity": np.asarray(names)}


def read_once(points: Any, *, targets: bool) -> Any:
    """Return data that would be read anew at each use as samples; leave tensors by themselves."""
    numbers = (int, float, tuple, list)
    several = isinstance(points, (tuple, list)) and not any(
        isinstance(p, numbers) for p in points
    )
    if several or isinstance(points, (Dataset, DataLoader)):
        return samples_of(
            "the points of a quantity", points, None, None, targets=targets
        )
    return points


@runtime_checkable
class Linearized(Protocol):
    """A quantity whose targets' gradients are rows of linearizations."""

    def linearized(
        self, objective: Objective
    ) -> Iterator[tuple[Linearization, Tensor]]:
        """Yield linearizations and seeds whose rows are the gradients; none of others."""


Field = Callable[[str, Any], Tensor]


@dataclass(frozen=True, eq=False)
class Functional:
    """Any scalar functional of the network: an integral, a flux, a value at a sensor.

    Parameters
    ----------
    of:
        Function of one argument ``field``, itself a function ``field(name, points (n, d)) ->
        (n,)`` for outputs and derivatives by name. It returns a scalar tensor.
    name:
        Its name in results.

    Examples
    --------
    The mean of u over some points:

    >>> import torch, whence as wh
    >>> points = torch.rand(100, 2, dtype=torch.float64)
    >>> mean = wh.Functional(lambda field: field("u", points).mean(), name="mean of u")
    """

    of: Callable[[Field], Tensor]
    name: str = "functional"

    def __post_init__(self) -> None:
        if not callable(self.of):
            raise TypeError(
                "a Functional takes a function of one argument, such as "
                f"lambda field: field('u', points).mean(), got {_checks.shown(self.of)}"
            )

    def label(self) -> str:
        """Return the functional's name."""
        return self.name

    def _evaluate(self, objective: Objective, tensors: Mapping[str, Tensor]) -> Tensor:
        def field(name: str, points: Any) -> Tensor:
            if objective.has_samples and not isinstance(points, Samples):
                points = objective.placed("the points of a functional", points)
            return objective.fields((name,))(tensors, points)[:, 0]

        value = self.of(field)
        if not isinstance(value, Tensor) or value.numel() != 1:
            given = (
                tuple(value.shape)
                if isinstance(value, Tensor)
                else type(value).__name__
            )
            raise ValueError(f"{self.name!r} must return a scalar tensor, got {given}")
        return value.reshape(())

    def values(self, objective: Objective) -> Tensor:
        """Return the functional's value, shape (1,)."""
        return (
            self._evaluate(objective, objective.parameters.tensors())
            .detach()
            .unsqueeze(0)
        )

    def gradients(self, objective: Objective) -> Iterator[Tensor]:
        """Yield the functional's gradient, shape (1, P)."""
        parameters = objective.parameters

        def scalar(theta: Tensor) -> Tensor:
            return self._evaluate(objective, parameters.substituted(theta))

        theta = parameters.vector().requires_grad_()
        with torch.enable_grad():
            value = scalar(theta)
        if not value.requires_grad:
            raise ValueError(
                f"{self.name!r} does not depend on the network: use field(name, points), and "
                "neither .detach() nor torch.no_grad()"
            )
        (gradient,) = torch.autograd.grad(value, theta)
        yield gradient.unsqueeze(0)

    def targets(self, objective: Objective) -> dict[str, np.ndarray]:
        """Return the functional's name."""
        return {"quantity": np.asarray([self.name])}


def _composed(objective: Objective, function: Callable[..., Tensor]) -> Pointwise:
    names = _checks.arguments("the function of an Output", function)
    fields = objective.fields(names)

    def evaluate(tensors: Mapping[str, Tensor], points: Tensor) -> Tensor:
        columns = fields(tensors, points).unbind(1)
        value = function(*columns)
        if not isinstance(value, Tensor) or value.shape != points.shape[:1]:
            given = (
                tuple(value.shape)
                if isinstance(value, Tensor)
                else type(value).__name__
            )
            raise ValueError(
                f"a function of fields must return shape {tuple(points.shape[:1])}, got {given}"
            )
        return value.unsqueeze(1)

    return evaluate


def aggregate_gradient(quantity: Quantity, objective: Objective) -> Tensor:
    """Return the gradient of the sum of a quantity's targets, (P,), without keeping the rows."""
    if isinstance(quantity, _AtPoints):
        total = None
        points = quantity._checked(objective)
        for part in chunks(points, objective.parameters):
            linear = linearize(
                quantity._function(objective), objective.parameters, points[part]
            )
            one = linear.rmatvec(torch.ones_like(linear.value))
            total = one if total is None else total + one
        assert total is not None
        return total
    if isinstance(quantity, Loss) and quantity.reduce == "none":
        quantity = replace(quantity, target=None, reduce="sum")
    total = torch.zeros_like(objective.parameters.vector())
    for block in quantity.gradients(objective):
        total += block.sum(0)
    return total
