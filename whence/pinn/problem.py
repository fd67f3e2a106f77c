"""A PDE problem: domain, equations, conditions, and the objective they make with a network."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from whence import _checks
from whence.objective import Objective, Pointwise, Term
from whence.pinn.boundary import Part
from whence.pinn.conditions import Condition, normals_at, stacked
from whence.pinn.domain import Domain
from whence.pinn.fields import Equation, FieldMap, argument_names, is_derivative, parse

Counts = int | Mapping[str, int]


@dataclass(frozen=True, eq=False)
class Problem:
    """A PDE, where it holds, and what else must hold.

    Parameters
    ----------
    domain:
        Where, with named coordinates.
    outputs:
        Names of the network's outputs.
    equations:
        Residuals by term name: functions whose argument names are outputs, derivatives
        (``u_x``, ``u_xt``) and coordinates. Each returns a tensor (n,), or a tuple of them.
    ansatz:
        Function of coordinates and raw network outputs, by name, that returns the outputs so
        that conditions hold exactly ("hard constraints").
    conditions:
        Soft conditions, each a term of its own.
    time:
        Name of the time coordinate, by default ``"t"`` where there is one.
    architecture:
        ``architecture(seed)`` makes the default network.
    solution:
        Reference solution as a function of the coordinates by name (NumPy arrays (n,)), that
        returns an array (n,) or a tuple of them.
    derivatives:
        ``"jets"`` (the default) or ``"autograd"``, see :class:`whence.pinn.fields.FieldMap`.
    name:
        How results refer to it.

    Raises
    ------
    ValueError
        At construction, for an argument name that means nothing on this domain, a term named
        twice, or a condition whose part of the boundary does not exist.

    Examples
    --------
    >>> import math, torch
    >>> from whence import pinn
    >>> problem = pinn.Problem(
    ...     domain=pinn.Interval("x", -1, 1) * pinn.Interval("t", 0, 1),
    ...     outputs=("u",),
    ...     equations={"pde": lambda u_t, u_xx: u_t - u_xx},
    ...     conditions=[pinn.Initial(u=lambda x: torch.sin(math.pi * x)),
    ...                 pinn.Dirichlet(u=0.0, on="x")],
    ... )
    >>> problem.terms
    ('pde', 'initial_u', 'dirichlet_u')
    >>> points = problem.sample({"pde": 100, "initial_u": 20, "dirichlet_u": 20}, seed=0)
    >>> objective = problem.objective(pinn.MLP([2, 16, 1], seed=0), points)
    >>> sorted(objective.losses())
    ['dirichlet_u', 'initial_u', 'pde']
    """

    domain: Domain
    outputs: Sequence[str]
    equations: Mapping[str, Equation]
    ansatz: Callable[..., Any] | None = None
    conditions: Sequence[Condition] = ()
    time: str | None = None
    architecture: Callable[[int], nn.Module] | None = None
    solution: Callable[..., Any] | None = None
    derivatives: Literal["jets", "autograd"] = "jets"
    name: str = "problem"
    _parts: dict[str, Part] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        _checks.one_of("derivatives", self.derivatives, ("jets", "autograd"))
        if self.time is None and "t" in self.domain.coordinates:
            object.__setattr__(self, "time", "t")
        _check_outputs(self.outputs, self.coordinates)
        if not self.equations:
            raise ValueError('a problem needs at least one equation, such as {"pde": function}')
        if len(set(self.terms)) < len(self.terms):
            raise ValueError(f"each term needs a name of its own, got {', '.join(self.terms)}")
        for equation in self.equations.values():
            self._check_names(argument_names(equation))
        if self.ansatz is not None:
            for name in argument_names(self.ansatz):
                _checks.one_of("argument of the ansatz", name, (*self.coordinates, *self.outputs))
        for condition in self.conditions:
            if "n" in self.coordinates and any(map(self._normal_of, condition.names)):
                raise ValueError(
                    f"condition {condition.name!r} takes a normal derivative, which a coordinate "
                    "called 'n' makes ambiguous: give the coordinate another name"
                )
            self._check_names(self._expanded(condition.names))
            self._parts[condition.name] = condition.part(self.domain, self.time)

    def _check_names(self, names: Sequence[str]) -> None:
        for name in names:
            parse(name, self.coordinates, self.outputs)

    @property
    def coordinates(self) -> tuple[str, ...]:
        """Names of the coordinates, in the order of the points' columns."""
        return self.domain.coordinates

    @property
    def terms(self) -> tuple[str, ...]:
        """Names of the loss terms: the equations, then the conditions."""
        return (*self.equations, *(condition.name for condition in self.conditions))

    def network(self, seed: int = 0) -> nn.Module:
        """Return a new network of the problem's own architecture, initialised from ``seed``."""
        if self.architecture is None:
            raise ValueError(
                f"{self.name!r} names no architecture: pass a network, such as "
                f"pinn.MLP([{self.domain.dimension}, 32, 32, {len(self.outputs)}])"
            )
        return self.architecture(seed)

    def sample(
        self, counts: Counts, seed: int | None = None, method: str = "hammersley"
    ) -> dict[str, Tensor]:
        """Return points by term, each float64 of shape (count, d); a grid may have fewer.

        Parameters
        ----------
        counts:
            Number of points by term, or one number where there is one term.
        seed:
            Seed; ``None`` gives the plain sequence where the method has one.
        method:
            ``hammersley``, ``sobol``, ``halton``, ``latin_hypercube``, ``grid`` or ``random``.
        """
        if isinstance(counts, int):
            if len(self.terms) > 1:
                raise ValueError(
                    f"the problem has terms {', '.join(self.terms)}: give a count for each, such "
                    f"as {{{self.terms[0]!r}: {counts}, ...}}"
                )
            counts = {self.terms[0]: counts}
        for name in counts:
            _checks.one_of("term", name, self.terms)
        missing = [name for name in self.terms if name not in counts]
        if missing:
            raise ValueError(f"no count for term {missing[0]!r}: every term needs points")
        for name in self.terms:
            _checks.count(f"the number of points of term {name!r}", counts[name])
        return {name: self.draw(name, counts[name], seed, method) for name in self.terms}

    def draw(
        self, term: str, n: int, seed: int | None = None, method: str = "hammersley"
    ) -> Tensor:
        """Return n points where ``term`` holds, float64 of shape (n, d)."""
        _checks.one_of("term", term, self.terms)
        where = self._parts.get(term, self.domain)
        return where.sample(n, method, _child(seed, self.terms.index(term)))

    def objective(
        self,
        network: nn.Module,
        points: Mapping[str, Tensor],
        weights: Mapping[str, float] | None = None,
    ) -> Objective:
        """Return the loss of a network at points by term, ``Σ_k w_k/N_k Σ_i ‖r_k(z_i)‖²``.

        Points take the network's dtype and device; terms without points are left out. Weights
        are 1 unless given.
        """
        for name in (*points, *(weights or {})):
            _checks.one_of("term", name, self.terms)
        like = next(network.parameters())
        fields = self.fields(network)
        terms = []
        for name in (term for term in self.terms if term in points):
            given = _checks.points(
                f"the points of term {name!r}", points[name], len(self.coordinates)
            )
            inside = self._parts.get(name, self.domain).contains(
                given, self._tolerance(1e-5, given)
            )
            if not bool(inside.all()):
                row = int((~inside).nonzero()[0])
                raise ValueError(
                    f"{int((~inside).sum())} of {len(given)} points of term {name!r} lie outside "
                    f"its domain, the first is row {row}: {given[row].tolist()}"
                )
            placed = given.to(dtype=like.dtype, device=like.device)
            residual = self._residual(name, fields)
            terms.append(Term(name, residual, placed, (weights or {}).get(name, 1.0)))
        return Objective(
            network,
            terms,
            coordinates=self.coordinates,
            outputs=self.outputs,
            fields=fields,
            draw=self.draw,
        )

    def fields(self, network: nn.Module) -> FieldMap:
        """Return the map from a network to named outputs and derivatives."""
        return FieldMap(
            network, self.coordinates, tuple(self.outputs), self.ansatz, self.derivatives
        )

    def reference(self, points: Tensor) -> Tensor:
        """Return the reference solution at points (n, d), float64 of shape (n, outputs)."""
        if self.solution is None:
            raise ValueError(f"{self.name!r} has no reference solution")
        points = _checks.points("points", points, len(self.coordinates))
        table = points.detach().cpu().double().numpy()
        columns = {name: table[:, k].copy() for k, name in enumerate(self.coordinates)}
        values = self.solution(*(columns[name] for name in argument_names(self.solution)))
        values = values if isinstance(values, tuple) else (values,)
        return torch.from_numpy(np.stack(values, axis=1))

    def relative_l2(self, network: nn.Module, points: Tensor, truth: Tensor | None = None) -> float:
        """Return ‖u − u_ref‖₂ / ‖u_ref‖₂ over all outputs at points (n, d).

        ``truth`` is ``reference(points)`` where that is at hand already.
        """
        like = next(network.parameters())
        truth = self.reference(points) if truth is None else truth
        tensors = {name: p.detach() for name, p in network.named_parameters()}
        placed = points.to(dtype=like.dtype, device=like.device)
        with torch.no_grad():
            values = self.fields(network)(tuple(self.outputs))(tensors, placed)
        error = values.double().cpu() - truth
        return float(torch.linalg.vector_norm(error) / torch.linalg.vector_norm(truth))

    def _expanded(self, names: Sequence[str]) -> tuple[str, ...]:
        """Return the fields to compute, with the gradient in place of a normal derivative."""
        wanted: list[str] = []
        for name in names:
            output = self._normal_of(name)
            wanted += [f"{output}_{c}" for c in self.coordinates] if output else [name]
        return tuple(dict.fromkeys(wanted))

    def _normal_of(self, name: str) -> str | None:
        return name[:-2] if name.endswith("_n") and name[:-2] in self.outputs else None

    def _tolerance(self, least: float, points: Tensor) -> float:
        """Return how far the rounding of coordinates may move points, at least ``least``."""
        return max(least, 4 * torch.finfo(points.dtype).eps * float(abs(self.domain.bounds).max()))

    def _residual(self, name: str, fields: FieldMap) -> Pointwise:
        if name in self.equations:
            return _equation_residual(name, self.equations[name], fields)
        condition = next(c for c in self.conditions if c.name == name)
        return self._condition_residual(condition, fields)

    def _condition_residual(self, condition: Condition, fields: FieldMap) -> Pointwise:
        wanted = self._expanded(condition.names)
        has_normals = any(self._normal_of(name) for name in condition.names)
        part = self._parts[condition.name]

        def at(tensors: Mapping[str, Tensor], points: Tensor) -> Tensor:
            values = fields.evaluate(tensors, points, wanted)
            if has_normals:
                normals = normals_at(part, points, self._tolerance(1e-6, points))
                for output in self.outputs:
                    names = [f"{output}_{c}" for c in self.coordinates]
                    if f"{output}_n" in condition.names:
                        gradient = torch.stack([values[n] for n in names], dim=1)
                        values[f"{output}_n"] = (normals * gradient).sum(dim=1)
            result = condition.residual(*(values[n] for n in condition.names))
            return stacked(f"condition {condition.name!r}", result, len(points))

        def residual(tensors: Mapping[str, Tensor], points: Tensor) -> Tensor:
            first, *partner = (at(tensors, p) for p in condition.places(self.domain, points))
            return first - partner[0] if partner else first

        return residual


def _equation_residual(name: str, equation: Equation, fields: FieldMap) -> Pointwise:
    names = argument_names(equation)

    def residual(tensors: Mapping[str, Tensor], points: Tensor) -> Tensor:
        values = fields.evaluate(tensors, points, names)
        return stacked(f"equation {name!r}", equation(*(values[n] for n in names)), len(points))

    return residual


def _check_outputs(outputs: Sequence[str], coordinates: Sequence[str]) -> None:
    """Raise unless every output's name can mean only that output."""
    if isinstance(outputs, str):
        raise TypeError(f"outputs must be a tuple of names, such as ({outputs!r},)")
    _checks.identifiers("output", outputs)
    if not outputs or len({*outputs, *coordinates}) < len(outputs) + len(coordinates):
        raise ValueError(
            f"outputs need names of their own, other than the coordinates', got outputs "
            f"{', '.join(outputs) or 'none'} and coordinates {', '.join(coordinates)}"
        )
    for name in outputs:
        others = [output for output in outputs if output != name]
        if any(is_derivative(name, output, (*coordinates, "n")) for output in others):
            raise ValueError(
                f"output {name!r} reads as a derivative of another output: give it another name"
            )


def _child(seed: int | None, k: int) -> int | None:
    """Return a seed for the k-th term that is independent of the other terms' seeds."""
    if seed is None:
        return None
    return int(np.random.SeedSequence([seed, k]).generate_state(1)[0])
