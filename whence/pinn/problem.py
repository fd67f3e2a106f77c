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
from whence.parameters import Parameters
from whence.pinn.boundary import Part, named
from whence.pinn.conditions import Condition, normals_at, stacked
from whence.pinn.domain import Domain
from whence.pinn.fields import (
    Equation,
    FieldMap,
    is_derivative,
    parse,
    same_kind,
    tried,
)

Counts = int | Mapping[str, int]
Columns = Callable[[Mapping[str, Tensor], Tensor], dict[str, Tensor]]


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
        self._check_kinds()
        _checks.one_of("derivatives", self.derivatives, ("jets", "autograd"))
        if self.time is None and "t" in self.domain.coordinates:
            object.__setattr__(self, "time", "t")
        if self.time is not None:
            _checks.one_of("coordinate for time=", self.time, self.coordinates)
        _check_outputs(self.outputs, self.coordinates)
        if not self.equations:
            raise ValueError(
                'a problem needs at least one equation, such as {"pde": function}'
            )
        if len(set(self.terms)) < len(self.terms):
            raise ValueError(
                f"each term needs a name of its own, got {', '.join(self.terms)}"
            )
        for name, equation in self.equations.items():
            self._check_names(_checks.arguments(f"equation {name!r}", equation))
        if self.ansatz is not None:
            for name in _checks.arguments("the ansatz", self.ansatz):
                _checks.one_of(
                    "argument of the ansatz", name, (*self.coordinates, *self.outputs)
                )
        for condition in self.conditions:
            self._check_normals(condition)
            self._check_names(self._expanded(condition.names))
            self._parts[condition.name] = condition.part(self.domain, self.time)

    def _check_kinds(self) -> None:
        if not isinstance(self.domain, Domain):
            raise TypeError(
                f'domain must be a domain, such as pinn.Interval("x", 0, 1), got {self.domain!r}'
            )
        if not isinstance(self.equations, Mapping):
            raise TypeError(
                'equations must be functions by term name, such as {"pde": function}, got '
                f"{self.equations!r}"
            )
        given = (
            self.conditions
            if isinstance(self.conditions, Sequence)
            else [self.conditions]
        )
        if given is not self.conditions or not all(
            isinstance(c, Condition) for c in given
        ):
            raise TypeError(
                "conditions must be a list of conditions, such as [pinn.Initial(u=0.0)], got "
                f"{self.conditions!r}"
            )

    def _check_normals(self, condition: Condition) -> None:
        """Raise ``ValueError`` for a normal derivative that has no meaning."""
        slopes = [name for name in condition.names if self._normal_of(name)]
        if slopes and "n" in self.coordinates:
            raise ValueError(
                f"condition {condition.name!r} takes a normal derivative, which a coordinate "
                "called 'n' makes ambiguous: give the coordinate another name"
            )
        if slopes and condition.along is not None:
            raise ValueError(
                f"condition {condition.name!r} compares {slopes[0]!r} at both ends of "
                f"{condition.along!r}, where the normals are opposite: compare "
                f"'{slopes[0][:-2]}_{condition.along}'"
            )

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
        if isinstance(counts, int) and not isinstance(counts, bool):
            if len(self.terms) > 1:
                raise ValueError(
                    f"the problem has terms {', '.join(self.terms)}: give a count for each, such "
                    f"as {{{self.terms[0]!r}: {counts}, ...}}"
                )
            counts = {self.terms[0]: counts}
        if not isinstance(counts, Mapping):
            raise TypeError(
                f"points must be numbers by term, such as {{{self.terms[0]!r}: 100}}, got "
                f"{_checks.shown(counts)}"
            )
        for name in counts:
            _checks.one_of("term", name, self.terms)
        missing = [name for name in self.terms if name not in counts]
        if missing:
            raise ValueError(
                f"no count for term {missing[0]!r}: every term needs points"
            )
        for name in self.terms:
            _checks.count(f"the number of points of term {name!r}", counts[name])
            self._check_room(name, counts[name])
        return {
            name: self.draw(name, counts[name], seed, method) for name in self.terms
        }

    def draw(
        self, term: str, n: int, seed: int | None = None, method: str = "hammersley"
    ) -> Tensor:
        """Return n points where ``term`` holds, float64 of shape (n, d)."""
        _checks.one_of("term", term, self.terms)
        if seed is not None:
            _checks.count("seed", seed, zero=True)
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
        are 1 unless given. The network, the ansatz and each residual are tried at two points.

        Raises
        ------
        ValueError
            For a point outside its term's domain, given twice or not finite, a network that does
            not fit, and an equation or ansatz that gives another shape, dtype or device, or
            changes what it is given.
        """
        for what, given in (("points", points), ("weights", weights or {})):
            if not isinstance(given, Mapping):
                raise TypeError(
                    f"{what} must be given by term, such as {{{self.terms[0]!r}: ...}}, got "
                    f"{_checks.shown(given)}"
                )
            for name in given:
                _checks.one_of("term", name, self.terms)
        if not points:
            raise ValueError(
                f"no points were given: the terms are {', '.join(self.terms)}"
            )
        like = Parameters(network)
        fields = self.fields(network)
        terms = []
        for name in (term for term in self.terms if term in points):
            self._check_points(name, points[name])
            _checks.distinct(f"the points of term {name!r}", points[name])
            placed = points[name].to(dtype=like.dtype, device=like.device)
            residual = self._residual(name, fields)
            terms.append(Term(name, residual, placed, (weights or {}).get(name, 1.0)))
        fields.check(terms[0].points[[0, -1]])
        for term in terms:
            self._try(term.name, fields, like.tensors(), term.points[[0, -1]])
        return Objective(
            network,
            terms,
            coordinates=self.coordinates,
            outputs=self.outputs,
            fields=fields,
            draw=self.draw,
            inside=self._check_points,
        )

    def fields(self, network: nn.Module) -> FieldMap:
        """Return the map from a network to named outputs and derivatives."""
        return FieldMap(
            network,
            self.coordinates,
            tuple(self.outputs),
            self.ansatz,
            self.derivatives,
        )

    def reference(self, points: Tensor) -> Tensor:
        """Return the reference solution at points (n, d), float64 of shape (n, outputs)."""
        if self.solution is None:
            raise ValueError(f"{self.name!r} has no reference solution")
        points = _checks.points("points", points, len(self.coordinates))
        table = points.detach().cpu().double().numpy()
        columns = {name: table[:, k].copy() for k, name in enumerate(self.coordinates)}
        names = _checks.arguments("the solution", self.solution)
        values = self.solution(*(columns[name] for name in names))
        values = tuple(values) if isinstance(values, (tuple, list)) else (values,)
        shapes = [np.shape(value) for value in values]
        if shapes != [(len(table),)] * len(self.outputs):
            raise ValueError(
                f"the solution must return {len(self.outputs)} array(s) of shape "
                f"({len(table)},), for {', '.join(self.outputs)}, got {shapes}"
            )
        return torch.from_numpy(np.stack(values, axis=1))

    def relative_l2(
        self, network: nn.Module, points: Tensor, truth: Tensor | None = None
    ) -> float:
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
        return max(
            least,
            4 * torch.finfo(points.dtype).eps * float(abs(self.domain.bounds).max()),
        )

    def _check_points(self, term: str | None, points: Tensor) -> None:
        """Raise unless points are finite and where the term holds; without one, in the domain."""
        of = "" if term is None else f" of term {term!r}"
        given = _checks.points(f"the points{of}", points, len(self.coordinates))
        where = self.domain if term is None else self._parts.get(term, self.domain)
        inside = where.contains(given, self._tolerance(1e-5, given))
        if not bool(inside.all()):
            row = int((~inside).nonzero()[0])
            raise ValueError(
                f"{int((~inside).sum())} of {len(given)} points{of} lie outside "
                f"{'its' if of else 'the'} domain, the first is row {row}: {given[row].tolist()}; "
                f"the bounds are {named(self.coordinates, self.domain.bounds.T)}"
            )

    def _check_room(self, term: str, n: int) -> None:
        """Raise ``ValueError`` if the term holds at fewer than n points, such as an end."""
        part = self._parts.get(term)
        if part is not None and part.size is not None and n > part.size:
            raise ValueError(
                f"term {term!r} holds at {part.size} point(s) only: {n} points would repeat them, "
                f"give {term!r}: {part.size}"
            )

    def _condition(self, term: str) -> Condition | None:
        return next((c for c in self.conditions if c.name == term), None)

    def _function(self, term: str) -> tuple[str, Equation, tuple[str, ...]]:
        """Return what a term's function is called, the function, and its arguments' names."""
        condition = self._condition(term)
        if condition is not None:
            return f"condition {term!r}", condition.residual, tuple(condition.names)
        what = f"equation {term!r}"
        return what, self.equations[term], _checks.arguments(what, self.equations[term])

    def _residual(self, term: str, fields: FieldMap) -> Pointwise:
        what, function, names = self._function(term)
        condition, columns = self._condition(term), self._columns(term, fields)

        def at(tensors: Mapping[str, Tensor], points: Tensor) -> Tensor:
            values = columns(tensors, points)
            return stacked(what, function(*(values[n] for n in names)), len(points))

        def difference(tensors: Mapping[str, Tensor], points: Tensor) -> Tensor:
            assert condition is not None
            first, partner = (
                at(tensors, p) for p in condition.places(self.domain, points)
            )
            return first - partner

        return at if condition is None or condition.along is None else difference

    def _columns(self, term: str, fields: FieldMap) -> Columns:
        """Return the function of parameters and points that computes a term's arguments."""
        _, _, names = self._function(term)
        slopes = {name: self._normal_of(name) for name in names if term in self._parts}
        normal = {name: output for name, output in slopes.items() if output is not None}
        wanted = self._expanded(names) if normal else names

        def columns(tensors: Mapping[str, Tensor], points: Tensor) -> dict[str, Tensor]:
            values = fields.evaluate(tensors, points, wanted)
            if normal:
                part = self._parts[term]
                normals = normals_at(part, points, self._tolerance(1e-6, points))
                for name, output in normal.items():
                    gradient = [values[f"{output}_{c}"] for c in self.coordinates]
                    values[name] = (normals * torch.stack(gradient, dim=1)).sum(dim=1)
            return values

        return columns

    def _try(
        self, term: str, fields: FieldMap, tensors: Mapping[str, Tensor], points: Tensor
    ) -> None:
        """Call a term's function once; see :func:`whence.pinn.fields.tried`."""
        what, function, names = self._function(term)
        values = self._columns(term, fields)(tensors, points)
        result = tried(what, function, {name: values[name] for name in names})
        stacked(what, result, len(points))
        same_kind(
            what, result if isinstance(result, (tuple, list)) else (result,), points
        )


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
