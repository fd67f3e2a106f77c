"""A trained network as the solution of its problem: values and derivatives at any points."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from whence import _checks
from whence.arrays import ArrayLike, in_kind_of, to_locations
from whence.pinn.pde.names import parse
from whence.pinn.pde.problem import Problem
from whence.points import blocks


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
    >>> solution([[-1.0, 0.5], [1.0, 0.5]]).round(12).tolist()       # u(±1, t) = 0 by the ansatz
    [[-0.0], [0.0]]
    >>> solution([[0.1, 0.5]], "u", "u_x").shape, solution.u_x([[0.1, 0.5]]).shape
    ((1, 2), (1,))
    """

    def __init__(self, problem: Problem, network: nn.Module) -> None:
        self.problem = problem
        self.network = network

    def __call__(self, points: ArrayLike, *names: str) -> Any:
        """Return the solution at points (n, d), or the named fields: (n, number of names).

        Parameters
        ----------
        points:
            Where: rows of coordinates in the problem's order, or a data frame with a column for
            each.
        names:
            Outputs, derivatives of any order (``"u_x"``, ``"u_xt"``) and coordinates; by default
            all outputs.

        Raises
        ------
        TypeError
            If the points are no numbers.
        ValueError
            If the points are not (n, d), not finite or outside of the domain, or a name means
            nothing; the message names the nearest.
        """
        wanted = names or tuple(self.problem.outputs)
        rows = to_locations("the points", points, self.problem.coordinates)
        self.problem.check_points(None, rows)
        values = self.problem.evaluate(self.network, rows, wanted)
        return in_kind_of(values, points, wanted)

    def residual(self, points: ArrayLike, term: str | None = None) -> Any:
        """Return the residual of a term, by default the first equation's, at points: (n, m)."""
        name = self.problem.terms[0] if term is None else term
        _checks.one_of("term", name, self.problem.terms)
        rows = to_locations("the points", points, self.problem.coordinates)
        self.problem.check_points(name, rows)

        like = next(self.network.parameters())
        placed = rows.to(dtype=like.dtype, device=like.device)
        tensors = {n: p.detach() for n, p in self.network.named_parameters()}
        residual = self.problem.residual(self.network, name)
        parts = []
        with torch.no_grad():
            for block in blocks(placed):
                parts.append(residual(tensors, block.points))
        values = torch.cat(parts)
        return in_kind_of(values, points, _numbered(name, values.shape[1]))

    def error(self, points: ArrayLike) -> Any:
        """Return the solution minus the reference solution at points: (n, outputs)."""
        rows = to_locations("the points", points, self.problem.coordinates)
        outputs = tuple(self.problem.outputs)
        values = self.problem.evaluate(self.network, rows, outputs)
        difference = values.double().cpu() - self.problem.reference(rows)
        return in_kind_of(difference, points, outputs)

    def __getattr__(self, name: str) -> Callable[[ArrayLike], Any]:
        # Only called for what is no attribute: the name of a field.
        if name.startswith("_") or "problem" not in self.__dict__:
            raise AttributeError(name)
        try:
            parse(name, self.problem.coordinates, tuple(self.problem.outputs))
        except ValueError as error:
            raise AttributeError(str(error)) from None
        return functools.partial(self._field, name)

    def _field(self, name: str, points: ArrayLike) -> Any:
        """Return one field at points (n, d): (n,)."""
        rows = to_locations("the points", points, self.problem.coordinates)
        self.problem.check_points(None, rows)
        values = self.problem.evaluate(self.network, rows, (name,))
        return in_kind_of(values[:, 0], points, (name,))

    def __dir__(self) -> Sequence[str]:
        fields = list(self.problem.outputs)
        for output in self.problem.outputs:
            fields += [f"{output}_{c}" for c in self.problem.coordinates]
        return [*super().__dir__(), *fields]

    def __repr__(self) -> str:
        coordinates = ", ".join(self.problem.coordinates)
        outputs = ", ".join(self.problem.outputs)
        return f"Solution({self.problem.name!r}: ({coordinates}) -> ({outputs}))"


def _numbered(name: str, m: int) -> tuple[str, ...]:
    if m == 1:
        return (name,)
    return tuple(f"{name}_{k}" for k in range(m))
