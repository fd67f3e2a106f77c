"""How large a residual is against what it is made of: the scale of each term.

A residual of 0.1 is small where u_t is 100 and large where it is 0.01. The scale of a term is the
rms of its largest part: the parts of ``u_t + u u_x − ν u_xx`` are u_t, u u_x and ν u_xx. What a
part is, a function that is only called does not say; it is what the residual changes by where one
field is raised by its typical size.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from whence.objective import Objective
from whence.pinn.pde.problem import Problem
from whence.points import locations
from whence.shared_pass import FieldFunction, field_function
from whence.term import Term

TINY = 1e-300
"""Least scale, so that nothing is divided by zero."""


def rms(values: Tensor) -> float:
    """Return the root of the mean square of all values."""
    return float(values.square().mean().sqrt())


@dataclass(frozen=True, eq=False)
class Scales:
    """Typical sizes of outputs, fields and terms at the network's present parameters.

    Parameters
    ----------
    problem, objective:
        What is solved, and the network with its terms.
    points:
        Points by term at which scales are taken.
    probes:
        Points (n, d) spread over the whole domain.

    Examples
    --------
    >>> from whence import pinn
    >>> from whence.diagnosis.scales import Scales
    >>> problem = pinn.zoo.load("burgers", "soft")
    >>> points = problem.sample(dict.fromkeys(problem.terms, 50), seed=0)
    >>> objective = problem.objective(problem.network(seed=0), points)
    >>> scales = Scales(problem, objective, points, problem.domain.sample(100))
    >>> round(scales.of("initial_u"), 1)           # rms of sin πx, which the network has not yet
    0.7
    """

    problem: Problem
    objective: Objective
    points: Mapping[str, Tensor]
    probes: Tensor

    def of(self, name: str) -> float:
        """Return the scale of a term."""
        return self._by_term[name]

    @cached_property
    def outputs(self) -> dict[str, float]:
        """Typical size of each output: its rms, or that of what conditions prescribe for it."""
        sizes = {}
        for name in self.problem.outputs:
            values = self._values(name)
            sizes[name] = rms(values)

        # A network that gives nothing but zero would have no scale; its conditions have.
        for term in self.objective.terms.values():
            made_of = field_function(term.residual)
            if made_of is None:
                continue
            differentiated = self._differentiated(made_of)
            if len(differentiated) == 1 and differentiated[0] in sizes:
                # u − g is −g where u is zero.
                name = differentiated[0]
                prescribed = rms(self.at_zero(term, made_of))
                sizes[name] = max(sizes[name], prescribed)

        for name, size in sizes.items():
            sizes[name] = max(size, TINY)
        return sizes

    @cached_property
    def _by_term(self) -> dict[str, float]:
        scales = {}
        for name, term in self.objective.terms.items():
            made_of = field_function(term.residual)
            if made_of is None:
                # Periodic conditions and measurements are no plain functions of fields.
                scales[name] = self._of_fields(name)
                continue

            parts = list(self.parts(term, made_of).values())
            # What does not depend on the solution, a source or a value, is a part too.
            parts.append(self.at_zero(term, made_of))
            sizes = [rms(part) for part in parts]
            scales[name] = max(*sizes, TINY)
        return scales

    def _of_fields(self, name: str) -> float:
        """Return the typical size of the largest field of a term that is no plain function."""
        # Of a periodic condition that is the field which is compared at both ends.
        fields: tuple[str, ...] = ()
        if name in self.problem.terms:
            fields = self.problem.fields_of(name)

        sizes = []
        for field in fields:
            if self._is_of_output(field):
                sizes.append(self.field(field))
        largest = max(self.outputs.values())
        return max(sizes, default=largest)

    def field(self, name: str) -> float:
        """Return the typical size of an output or a derivative.

        Its rms over the domain, and no less than the size of the output over half the extent of
        the domain to the power of the derivative.
        """
        size = rms(self._values(name))
        parsed = self.problem.parse(name)
        assert parsed.output is not None
        # Unknown functions follow the outputs.
        names = (*self.problem.outputs, *self.problem.functions)
        output = names[parsed.output]
        least = self.outputs.get(output, 0.0)

        low, high = torch.as_tensor(self.problem.domain.bounds)
        half = (high - low) / 2
        for coordinate in parsed.index:
            # ∂u/∂x is at least U/(half the extent of x), and so on.
            least /= float(half[coordinate])
        return max(size, least)

    def parts(self, term: Term, made_of: FieldFunction) -> dict[str, Tensor]:
        """Return by field what the residual changes by where it is raised by its size: (n, m)."""
        fields, points = self.values(term, made_of)
        # One field at a time, the others as they are.
        residual = made_of.function(fields, points)
        parts = {}
        for name in self._differentiated(made_of):
            raised = dict(fields)
            raised[name] = fields[name] + self.field(name)
            # r(f + size) − r(f), which is c·size of a part c·f.
            changed = made_of.function(raised, points)
            parts[name] = changed - residual
        return parts

    def at_zero(self, term: Term, made_of: FieldFunction) -> Tensor:
        """Return what is left of a residual where outputs and derivatives are zero: (n, m)."""
        fields, points = self.values(term, made_of)
        for name in self._differentiated(made_of):
            fields[name] = torch.zeros_like(fields[name])
        return made_of.function(fields, points)

    def values(
        self, term: Term, made_of: FieldFunction
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Return the fields of a term at its points, and the points."""
        # Fresh points where there are some; measurements have only their own.
        points = self.points.get(term.name)
        if points is None:
            points = locations(term.points)
        tensors = self.objective.parameters.tensors()
        with torch.no_grad():
            fields = made_of.source.evaluate(
                tensors,
                points,
                made_of.names,
            )
        return dict(fields), points

    def _differentiated(self, made_of: FieldFunction) -> list[str]:
        """Return the fields that are outputs or derivatives, not coordinates or unknowns."""
        return [name for name in made_of.names if self._is_of_output(name)]

    def _is_of_output(self, name: str) -> bool:
        parsed = self.problem.parse(name)
        return parsed.output is not None

    def _values(self, name: str) -> Tensor:
        """Return a field at the probes, (n, 1)."""
        network = self.objective.network
        return self.problem.evaluate(network, self.probes, (name,))
