"""A trained network as the solution of its problem: values and derivatives at any points."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

from torch import nn

from whence import _checks
from whence.arrays import ArrayLike, Values, in_kind_of, to_locations
from whence.pinn.pde.fields import evaluate_at
from whence.pinn.pde.problem import Problem


class Solution:
    """The solution that a network represents, the problem's ansatz included.

    What comes back follows what went in: a tensor for a tensor, a data frame for a data frame,
    a NumPy array for arrays and lists.

    Parameters
    ----------
    problem:
        What was solved.
    network:
        The trained network, whose own outputs are raw: without the ansatz.

    Examples
    --------
    >>> from whence import pinn
    >>> problem = pinn.zoo.load("burgers")
    >>> solution = pinn.Solution(problem, problem.network(seed=0))
    >>> abs(solution([[-1.0, 0.5], [1.0, 0.5]])).round(12).tolist()  # u(±1, t) = 0 by the ansatz
    [[0.0], [0.0]]
    >>> solution([[0.1, 0.5]], "u", "u_x").shape, solution.u_x([[0.1, 0.5]]).shape
    ((1, 2), (1,))
    """

    def __init__(self, problem: Problem, network: nn.Module) -> None:
        self.problem = problem
        self.network = network

    def __call__(self, points: ArrayLike, *names: str) -> Values:
        """Return the solution at points (n, d), or the named fields: (n, number of names).

        Parameters
        ----------
        points:
            Where: rows of coordinates in the problem's order, or a data frame with a column for
            each.
        names:
            Outputs, derivatives of any order (``"u_x"``, ``"u_xt"``), coordinates, unknowns and
            derived fields; by default all outputs.

        Raises
        ------
        TypeError
            If the points are no numbers.
        ValueError
            If the points are not (n, d), not finite or outside of the domain, or a name means
            nothing; the message names the nearest.
        """
        wanted = names or tuple(self.problem.outputs)
        problem = self.problem
        rows = to_locations("the points", points, problem.coordinates)
        problem.check_points(None, rows)

        values = problem.evaluate(self.network, rows, wanted)  # (n, names)
        return in_kind_of(values, points, wanted)

    def residual(self, points: ArrayLike, term: str | None = None) -> Values:
        """Return the residual of a term, by default the first equation's, at points: (n, m)."""
        problem = self.problem
        name = problem.terms[0] if term is None else term
        _checks.one_of("term", name, problem.terms)
        rows = to_locations("the points", points, problem.coordinates)
        problem.check_points(name, rows)

        function = problem.residual(self.network, name)
        values = evaluate_at(self.network, function, rows)  # (n, m)

        # Columns of a data frame: the term's name, numbered where there are several.
        m = values.shape[1]
        columns = [name]
        if m > 1:
            columns = [f"{name}_{k}" for k in range(m)]
        return in_kind_of(values, points, columns)

    def error(self, points: ArrayLike) -> Values:
        """Return the solution minus the reference solution at points: (n, outputs)."""
        problem = self.problem
        rows = to_locations("the points", points, problem.coordinates)
        problem.check_points(None, rows)
        outputs = tuple(problem.outputs)
        values = problem.evaluate(self.network, rows, outputs)

        # The reference is in float64 on the CPU, whatever the network is in.
        difference = values.double().cpu() - problem.reference(rows)
        return in_kind_of(difference, points, outputs)

    def __getattr__(self, name: str) -> Callable[[ArrayLike], Values]:
        # Only called for what is no attribute: the name of a field.
        # Copying and pickling ask for attributes before __init__ has run.
        if name.startswith("_") or "problem" not in self.__dict__:
            raise AttributeError(name)
        try:
            self.problem.parse(name)
        except ValueError as error:
            raise AttributeError(str(error)) from None
        return functools.partial(self.field, name)

    def field(self, name: str, points: ArrayLike) -> Values:
        """Return one field at points (n, d): (n,); ``solution.u_x(points)`` is short for it."""
        problem = self.problem
        rows = to_locations("the points", points, problem.coordinates)
        problem.check_points(None, rows)
        values = problem.evaluate(self.network, rows, (name,))  # (n, 1)
        return in_kind_of(values[:, 0], points, (name,))

    def __dir__(self) -> Sequence[str]:
        problem = self.problem
        differentiable = (*problem.outputs, *problem.functions)
        fields = [*differentiable, *problem.numbers, *problem.derived]
        for output in differentiable:
            fields += [f"{output}_{c}" for c in problem.coordinates]
        return [*super().__dir__(), *fields]

    def __repr__(self) -> str:
        coordinates = ", ".join(self.problem.coordinates)
        outputs = ", ".join(self.problem.outputs)
        return f"Solution({self.problem.label!r}: ({coordinates}) -> ({outputs}))"
