"""A PDE problem: domain, equations, conditions, and the objective they make with a network."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from whence import _checks
from whence.arrays import ArrayLike, Values, in_kind_of, to_locations
from whence.objective import Objective
from whence.parameters import Parameters
from whence.pinn.geometry.boundary import named
from whence.pinn.geometry.domain import Domain
from whence.pinn.pde.conditions import Condition
from whence.pinn.pde.data import Data, data_weights
from whence.pinn.pde.derived import DerivedField
from whence.pinn.pde.equation import (
    Equations,
    first_alike,
    names_of,
    split_by_name,
)
from whence.pinn.pde.fields import Derived, FieldMap, as_tuple, evaluate_at
from whence.pinn.pde.integrals import Integral
from whence.pinn.pde.names import Name
from whence.pinn.pde.place import Place, Region
from whence.pinn.pde.problem_checks import (
    Counts,
    check_kinds,
    check_outputs,
    check_symbols,
    check_terms,
    checked_counts,
)
from whence.pinn.pde.term_function import (
    TermFunction,
    check_batch_normalization,
    check_term_uncoupled,
)
from whence.pinn.pde.unknowns import Field, Model, Unknown, UnknownLike
from whence.points import Pointwise, blocks, locations
from whence.space import Space
from whence.term import Term

CONSTRAINTS = (Condition, Data, Integral)
"""What may stand among a problem's conditions."""

DOMAIN_TOLERANCE = 1e-5
"""Distance outside of the domain that rounding is forgiven, in units of the coordinates."""


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
        Under a tuple of names, ``{("mass", "momentum"): function}``, each component that the
        function returns is a term of its own, with the function's fields in one shared pass.
        Vector equations are written with :mod:`whence.pinn.helpers`.
    ansatz:
        Function of coordinates and raw network outputs, by name, that returns the outputs so
        that conditions hold exactly ("hard constraints"). The network itself stays raw:
        the solution is ``result.solution(points)``, or ``pinn.Solution(problem, network)(points)``.
    conditions:
        Soft conditions, measurements (:class:`whence.pinn.Data`) and integrals
        (:class:`whence.pinn.Integral`), each a term of its own.
    time:
        Name of the time coordinate, by default ``"t"`` where there is one.
    architecture:
        ``architecture(seed)`` makes the default network.
    solution:
        Reference solution as a function of the coordinates by name (NumPy arrays (n,)), that
        returns an array (n,) or a tuple of them.
    derivatives:
        ``"jets"`` (the default) or ``"autograd"``, see :class:`whence.pinn.pde.fields.FieldMap`.
    name:
        How results refer to it.
    unknowns:
        What is to be found beside the solution, by name: a first guess,
        :class:`whence.pinn.Unknown` or :class:`whence.pinn.Field`. Equations, conditions and the
        ansatz take unknowns by name.
    derived:
        Fields made of others, by name: :class:`whence.pinn.At`,
        :class:`whence.pinn.Integrated`, :class:`whence.pinn.Average`.
    variant:
        Which variant of the problem of its name it is (:class:`whence.pinn.Variant`), None for the
        problem as it is.

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
    equations: Equations
    ansatz: Callable[..., Any] | None = None
    conditions: Sequence[Condition | Data | Integral] = ()
    time: str | None = None
    architecture: Callable[[int], nn.Module] | None = None
    solution: Callable[..., Any] | None = None
    derivatives: Literal["jets", "autograd"] = "jets"
    name: str = "problem"
    unknowns: Mapping[str, UnknownLike] = field(default_factory=dict)
    derived: Mapping[str, DerivedField] = field(default_factory=dict)
    variant: str | None = None
    _place: Place = field(init=False, repr=False)
    _derived: Mapping[str, Derived] = field(init=False, repr=False)
    _functions: Mapping[str, TermFunction] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        check_kinds(self.domain, self.equations, self.conditions, CONSTRAINTS)
        _checks.one_of("derivatives", self.derivatives, ("jets", "autograd"))
        # The usual name of the time needs no saying.
        if self.time is None and "t" in self.domain.coordinates:
            object.__setattr__(self, "time", "t")
        if self.time is not None:
            _checks.one_of("coordinate for time=", self.time, self.coordinates)

        check_outputs(self.outputs, self.coordinates)
        check_symbols(self.unknowns, self.derived, self.outputs, self.coordinates)
        conditions = [condition.name for condition in self.conditions]
        check_terms(self.equations, [*names_of(self.equations), *conditions])
        # From here on one equation for each name, whatever is made of the problem.
        object.__setattr__(self, "equations", split_by_name(self.equations))
        if self.ansatz is not None:
            known = (*self.coordinates, *self.outputs, *self.unknowns)
            for name in _checks.arguments("the ansatz", self.ansatz):
                _checks.one_of("argument of the ansatz", name, known)
        if self.solution is not None:
            for name in _checks.arguments("the solution", self.solution):
                _checks.one_of("argument of the solution", name, self.coordinates)
        self._bind()

    def _bind(self) -> None:
        """Read every function; a name that means nothing is an error."""
        place = Place(
            self.domain,
            (*self.outputs, *self.functions),
            self.time,
            self.numbers,
        )
        # One after another: a derived field may be made of those before it, never of itself.
        derived = {}
        for name, field_of_others in self.derived.items():
            bound = field_of_others.bind(name, place)
            bound.check()
            derived[name] = bound
            place = replace(place, symbols=(*place.symbols, name))

        functions = {}
        for name, equation in self.equations.items():
            functions[name] = TermFunction.of_equation(name, equation, place)
        for condition in self.conditions:
            if isinstance(condition, Condition):
                function = TermFunction.of_condition(condition, place)
            else:
                function = condition.term_function(place)
            functions[condition.name] = function
        for function in functions.values():
            function.check_names()
        for name, weight in data_weights(self.data).items():
            functions[name] = replace(functions[name], weight=weight)

        # Around the frozen dataclass.
        object.__setattr__(self, "_place", place)
        object.__setattr__(self, "_derived", derived)
        object.__setattr__(self, "_functions", functions)

    @property
    def label(self) -> str:
        """What messages and titles call it: its name, with the variant in brackets."""
        return self.name if self.variant is None else f"{self.name} ({self.variant})"

    @property
    def numbers(self) -> tuple[str, ...]:
        """Names of the unknown numbers."""
        return tuple(n for n, u in self.unknowns.items() if not isinstance(u, Field))

    @property
    def functions(self) -> tuple[str, ...]:
        """Names of the unknown functions."""
        return tuple(n for n, u in self.unknowns.items() if isinstance(u, Field))

    @property
    def data(self) -> tuple[Data, ...]:
        """The measurements among the conditions."""
        return tuple(c for c in self.conditions if isinstance(c, Data))

    @property
    def coordinates(self) -> tuple[str, ...]:
        """Names of the coordinates, in the order of the points' columns."""
        return self.domain.coordinates

    @property
    def groups(self) -> dict[str, tuple[str, ...]]:
        """Names of the loss terms by kind: ``equations`` and ``conditions``."""
        conditions = tuple(condition.name for condition in self.conditions)
        return {"equations": tuple(self.equations), "conditions": conditions}

    @property
    def terms(self) -> tuple[str, ...]:
        """Names of the loss terms: the equations, then the conditions."""
        groups = self.groups
        return (*groups["equations"], *groups["conditions"])

    def parse(self, name: str) -> Name:
        """Return what a field's name stands for; one that means nothing is a ``ValueError``."""
        return self._place.parse(name)

    def fields_of(self, term: str) -> tuple[str, ...]:
        """Return the names of the fields that a term's function needs."""
        _checks.one_of("term", term, self.terms)
        return self._functions[term].fields

    def network(self, seed: int = 0) -> nn.Module:
        """Return a new network of the problem's own architecture, initialized from ``seed``."""
        if self.architecture is None:
            raise ValueError(
                f"{self.name!r} names no architecture: pass a network, such as "
                f"pinn.MLP([{self.domain.dimension}, 32, 32, {len(self.outputs)}])"
            )

        return self.architecture(seed)

    # --- points ---

    def sample(
        self,
        counts: Counts,
        seed: int | None = None,
        method: str = "hammersley",
        but: Sequence[str] = (),
    ) -> dict[str, Tensor]:
        """Return points by term, each float64 of shape (count, d); a grid may have fewer.

        Parameters
        ----------
        counts:
            Number of points by term, or one number where there is one term. Of a condition also
            by part of the boundary, such as ``{"noslip": {"cylinder": 60, "y": 60}}``.
        seed:
            Seed; ``None`` gives the plain sequence where the method has one. Each condition draws
            points of its own from it. Equations that hold on the whole domain draw the same: where
            their counts are equal, their points are, and one pass through the network serves them.
        method:
            ``hammersley``, ``sobol``, ``halton``, ``latin_hypercube``, ``grid`` or ``random``.
        but:
            Terms that are left out.
        """
        left_out = (*self.given_terms, *but)
        by_term = checked_counts(counts, self.terms, self.given_terms, left_out)
        # All of them are checked before any point is drawn.
        for name, count in by_term.items():
            self._functions[name].check_count(name, count)

        points = {}
        for name in self.terms:
            if name in but:
                continue
            rows = self._functions[name].rows
            if rows is None:
                rows = self.draw(name, by_term[name], seed, method)
            points[name] = rows
        return points

    @property
    def given_terms(self) -> tuple[str, ...]:
        """Terms whose points are part of the problem, such as measurements."""
        return tuple(n for n, f in self._functions.items() if f.rows is not None)

    def given_rows(self, term: str) -> Tensor:
        """Return the points of such a term with what they carry, (n, columns), float64."""
        _checks.one_of("term with given points", term, self.given_terms)
        rows = self._functions[term].rows
        assert rows is not None
        return rows

    def draw(
        self,
        term: str,
        n: int | Mapping[str, int],
        seed: int | None = None,
        method: str = "hammersley",
    ) -> Tensor:
        """Return n points where ``term`` holds, float64 of shape (n, d)."""
        _checks.one_of("term", term, self.terms)
        if seed is not None:
            _checks.count("seed", seed, zero=True)
            sequence = np.random.SeedSequence([seed, self._seed_position(term)])
            seed = int(sequence.generate_state(1)[0])

        function = self._functions[term]
        if function.rows is not None:
            raise ValueError(
                f"the points of term {term!r} are given, no others can be drawn"
            )
        return function.sample(term, n, method, seed)

    def _seed_position(self, term: str) -> int:
        """Return the position of the first term that draws the same points for the same seed."""
        if term in self.equations:
            term = first_alike(self.equations, term)
        # A seed of its own for each condition, independent of the others.
        return self.terms.index(term)

    def check_points(self, term: str | None, points: Tensor) -> None:
        """Raise unless points are finite and where the term holds; without one, in the domain."""
        of = "" if term is None else f" of term {term!r}"
        region: Region = self.domain
        n_columns = len(self.coordinates)
        if term is not None:
            region = self._functions[term].where
            n_columns = len(self._functions[term].columns)
        rows = _checks.points(f"the points{of}", points, n_columns)
        # What a point carries beside coordinates may be anything.
        rows = rows[:, : len(self.coordinates)]
        tolerance = self._place.tolerance(DOMAIN_TOLERANCE, rows)
        inside = []
        for block in blocks(rows):
            inside.append(region.contains(locations(block.points), tolerance))
        is_inside = torch.cat(inside)

        if bool(is_inside.all()):
            return

        outside = (~is_inside).nonzero()[:, 0]
        row = int(outside[0])
        raise ValueError(
            f"{len(outside)} of {len(rows)} points{of} lie outside {'its' if of else 'the'} "
            f"domain, the first is row {row}: {rows[row].tolist()}; the bounds are "
            f"{named(self.coordinates, self.domain.bounds.T)}"
        )

    def region(self, term: str) -> Region:
        """Return where a term holds."""
        _checks.one_of("term", term, self.terms)
        return self._functions[term].where

    def room(self, term: str) -> int | None:
        """Return at how many points a term holds if these are few, such as an end; else None."""
        _checks.one_of("term", term, self.terms)
        return self._functions[term].size

    # --- with a network ---

    def objective(
        self,
        network: nn.Module,
        points: Mapping[str, ArrayLike],
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
        self._check_by_term("points", points)
        self._check_by_term("weights", weights or {})
        if not points:
            raise ValueError(
                f"no points were given: the terms are {', '.join(self.terms)}"
            )

        model = self.model(network)
        like = Parameters(model)
        check_batch_normalization(model)
        field_map = self.fields(model)
        terms = []

        for name in self.terms:
            function = self._functions[name]
            if name not in points and function.rows is None:
                continue
            rows = self._prepared(name, points.get(name))
            terms.append(
                Term(
                    name,
                    function.residual(field_map),
                    rows.to(dtype=like.dtype, device=like.device),
                    (weights or {}).get(name, function.weight),
                    carried=function.carried,
                    source="drawn" if function.rows is None else "fixed",
                )
            )

        # Two points, as with a single one a wrong shape may look right.
        d = len(self.coordinates)
        field_map.check(locations(terms[0].points)[[0, -1], :d])
        for term in terms:
            two = locations(term.points)[[0, -1]]
            self._functions[term.name].try_at(field_map, like.tensors(), two)
            check_term_uncoupled(term, like.tensors(), self._functions[term.name].what)
        return Objective(model, terms, space=ProblemSpace(self, field_map))

    def model(self, network: nn.Module, seed: int = 0) -> nn.Module:
        """Return a network with the problem's unknowns, each at its first guess.

        Without unknowns, or if it has them already, that is the network itself; otherwise a
        :class:`whence.pinn.pde.unknowns.Model` that holds it. ``seed`` initializes the networks of
        unknown functions.
        """
        if not self.unknowns or isinstance(network, Model):
            return network

        numbers = {}
        networks = {}
        columns = {}
        for k, (name, unknown) in enumerate(self.unknowns.items()):
            if isinstance(unknown, Field):
                columns[name] = [self.coordinates.index(c) for c in unknown.of]
                bounds = self.domain.bounds[:, columns[name]]
                networks[name] = unknown.new_network(bounds, seed + k + 1)
            elif isinstance(unknown, Unknown):
                numbers[name] = unknown
            else:
                numbers[name] = Unknown(unknown)

        model = Model(network, numbers, networks, columns)
        # Where the network is, and in its number type.
        like = next(network.parameters())
        return model.to(dtype=like.dtype, device=like.device)

    def _check_by_term(self, what: str, by_term: object) -> None:
        """Raise unless this is a mapping whose keys are terms."""
        if not isinstance(by_term, Mapping):
            raise TypeError(
                f"{what} must be given by term, such as {{{self.terms[0]!r}: ...}}, got "
                f"{_checks.describe(by_term)}"
            )

        for name in by_term:
            _checks.one_of("term", name, self.terms)

    def _prepared(self, term: str, points: ArrayLike | None) -> Tensor:
        """Return training points of a term as a tensor, checked and different from each other."""
        what = f"the points of term {term!r}"
        function = self._functions[term]
        if function.rows is not None:
            # Measurements at one place are several: rows may repeat.
            rows = function.rows
            if points is not None:
                rows = to_locations(what, points, function.columns)
            self.check_points(term, rows)
            return rows

        rows = to_locations(what, points, self.coordinates)
        self.check_points(term, rows)
        # A point given twice would weigh twice, and its influence be split.
        _checks.distinct(what, rows)
        return rows

    def fields(self, network: nn.Module) -> FieldMap:
        """Return the map from a network to named outputs and derivatives."""
        if self.unknowns and not isinstance(network, Model):
            raise TypeError(
                f"{self.name!r} has the unknowns {', '.join(self.unknowns)}, which a network alone "
                "does not know: pass problem.model(network), or the network of a result"
            )

        return FieldMap(
            network,
            self.coordinates,
            tuple(self.outputs),
            self.ansatz,
            self.derivatives,
            self.functions,
            self.numbers,
            self._derived,
        )

    def residual(self, network: nn.Module, term: str) -> Pointwise:
        """Return a term's residual as a function of the network's parameters and points."""
        _checks.one_of("term", term, self.terms)
        return self._functions[term].residual(self.fields(network))

    def reference(self, points: ArrayLike) -> Values:
        """Return the reference solution at points (n, d), of shape (n, outputs), float64.

        A tensor for a tensor, a data frame for a data frame, otherwise an array.
        """
        if self.solution is None:
            raise ValueError(f"{self.name!r} has no reference solution")

        rows = to_locations("points", points, self.coordinates)
        table = rows.detach().cpu().double().numpy()  # (n, d)

        # Copies, as the user's function may write into what it is given.
        arguments = []
        for name in _checks.arguments("the solution", self.solution):
            column = self.coordinates.index(name)
            arguments.append(table[:, column].copy())
        values = as_tuple(self.solution(*arguments))

        shapes = [np.shape(value) for value in values]
        if shapes != [(len(table),)] * len(self.outputs):
            raise ValueError(
                f"the solution must return {len(self.outputs)} array(s) of shape "
                f"({len(table)},), for {', '.join(self.outputs)}, got {shapes}"
            )

        truth = torch.from_numpy(np.stack(values, axis=1))  # (n, outputs)
        return in_kind_of(truth, points, tuple(self.outputs))

    def relative_l2(
        self, network: nn.Module, points: ArrayLike, truth: Tensor | None = None
    ) -> float:
        """Return ‖u − u_ref‖₂ / ‖u_ref‖₂ over all outputs at points (n, d).

        ``truth`` is ``reference(points)`` where that is at hand already.
        """
        rows = to_locations("points", points, self.coordinates)
        if truth is None:
            truth = self.reference(rows)
        values = self.evaluate(network, rows, tuple(self.outputs))
        error = values.double().cpu() - truth  # (n, outputs)

        # The quadrature's weight 1/n is in both and drops out.
        norm = torch.linalg.vector_norm
        return float(norm(error) / norm(truth))

    def evaluate(
        self, network: nn.Module, points: Tensor, names: Sequence[str]
    ) -> Tensor:
        """Return named fields of a network's solution at points (n, d): (n, len(names))."""
        function = self.fields(network)(tuple(names))
        return evaluate_at(network, function, points)


class ProblemSpace(Space):
    """The space of a problem: knows its fields, draws its points, and where each term holds."""

    def __init__(self, problem: Problem, field_map: FieldMap) -> None:
        super().__init__(
            problem.coordinates, field_map.columns, field_map, problem.groups
        )
        # Not a field of Space, whose dataclass knows none of problems.
        object.__setattr__(self, "problem", problem)

    problem: Problem

    def draw(self, term: str, n: int, seed: int, method: str = "random") -> Tensor:
        """Return n fresh points (n, d) where a term holds."""
        return self.problem.draw(term, n, seed, method)

    def check(self, term: str | None, points: Tensor) -> None:
        """Raise ``ValueError`` for points where a term does not hold."""
        self.problem.check_points(term, points)
