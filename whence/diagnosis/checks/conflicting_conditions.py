"""Whether conditions prescribe different values where they meet, or ones no network can give."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from whence.catalogue import CHECKS
from whence.diagnosis.evidence import Evidence
from whence.diagnosis.finding import Finding, Severity
from whence.diagnosis.regions import PlainRegion
from whence.diagnosis.remedies import advise
from whence.points import locations
from whence.shared_pass import FieldFunction, field_function
from whence.term import Term

N_POINTS = 1000
"""Points of each condition: neighbors on a line are then a thousandth of it apart."""
N_PAIRS = 20
"""Nearest pairs of points of two conditions that are compared."""
MAX_APART = 0.01
"""Distance, in units of the domain, within which two conditions meet."""
N_NEIGHBORS = 5
"""Neighbors by which the steepness of prescribed values is measured."""
MIN_DISTANCE = 1e-12
"""Distance below which two points are one."""
SAFETY = 1.5
"""By which that may be too low."""
MIN_JUMP = 0.05
"""A jump of a twentieth of the solution's size, beyond what steepness explains, is one."""
SERIOUS_JUMP = 0.2
"""A jump of a fifth of the solution's size spoils more than its corner."""
MAX_MOVED = 1e-9
"""Change of a residual, relative to its scale, that is none."""


@CHECKS.named("conflicting_conditions")
@dataclass(frozen=True)
class ConflictingConditions:
    """Whether conditions contradict each other where they meet, or contradict the ansatz.

    What a condition prescribes for a field is where its residual vanishes. Nearest points of two
    conditions on one field are compared. A residual that other parameters do not change is one
    that the ansatz fixes.
    """

    rank: ClassVar[int] = 10

    def findings(self, evidence: Evidence) -> list[Finding]:
        """Return a finding for each pair of conditions, and each that the ansatz fixes."""
        findings = []
        values = {}
        for name in evidence.drawn:
            if name in evidence.problem.equations:
                continue
            # Needs no second condition.
            findings += self._fixed(evidence, name)
            prescribed = prescribed_values(evidence, name)
            if prescribed is not None:
                values[name] = prescribed

        # Values of different fields have nothing to agree on.
        for name, other in itertools.combinations(values, 2):
            if values[name].field == values[other].field:
                findings += self._jump(evidence, values, name, other)
        return findings

    def _jump(
        self,
        evidence: Evidence,
        values: Mapping[str, Prescribed],
        name: str,
        other: str,
    ) -> list[Finding]:
        """Return whether two conditions differ where they meet."""
        first, second = values[name], values[other]
        low, high = torch.as_tensor(evidence.problem.domain.bounds).to(first.points)
        # In units of the domain, so that time and space count alike.
        extent = high - low
        apart = torch.cdist(first.points / extent, second.points / extent)
        apart = apart.flatten()
        nearest = apart.argsort()[:N_PAIRS]
        nearest = nearest[apart[nearest] <= MAX_APART]
        if not len(nearest):
            return []

        # Pair k of all is row k // n of the first and row k % n of the second.
        rows = nearest // len(second.points)
        columns = nearest % len(second.points)
        differences = (first.values[rows] - second.values[columns]).abs()
        # What two points that are apart may differ by where nothing jumps.
        steepest = first.steepness(extent, rows) + second.steepness(extent, columns)
        explained = SAFETY * steepest * apart[nearest]
        size = evidence.scales.field(first.field)
        jumps = (differences - explained).clamp_min(0.0) / size
        worst = int(jumps.argmax())
        jump = float(jumps[worst])
        if jump < MIN_JUMP:
            return []

        here = float(first.values[rows[worst]])
        there = float(second.values[columns[worst]])
        place = first.points[rows[worst]].tolist()
        region = point_region(evidence.problem.coordinates, place)
        severity: Severity = "mild"
        if jump > SERIOUS_JUMP:
            severity = "serious"
        statement = (
            f"{name} and {other} contradict each other where they meet, {region.text}: they "
            f"prescribe {here:.3g} and {there:.3g} for {first.field}."
        )
        remedies = advise(
            ["one_value", "wrong_equation"],
            [name, other],
            region,
        )
        return [
            Finding(
                check="conflicting_conditions",
                severity=severity,
                statement=statement,
                normal=f"They agree to within {MIN_JUMP:.0%} of the size of {first.field}.",
                value=jump,
                threshold=MIN_JUMP,
                terms=(name, other),
                region=region,
                remedies=remedies,
            )
        ]

    def _fixed(self, evidence: Evidence, name: str) -> list[Finding]:
        """Return whether the ansatz fixes a condition's residual at something else than zero."""
        term = evidence.fresh.term(name)
        points = locations(term.points)
        parameters = evidence.objective.parameters
        theta = parameters.vector()
        # Added to, as a factor would leave parameters that are zero.
        generator = torch.Generator().manual_seed(evidence.seed)
        shift = torch.randn(
            len(theta),
            generator=generator,
            dtype=theta.dtype,
        )
        others = parameters.substituted(theta + shift.to(theta))
        with torch.no_grad():
            residual = term.residual(parameters.tensors(), points)
            changed = term.residual(others, points)

        # Zero to rounding at a point means that the parameters do not reach it.
        scale = evidence.scales.of(name)
        change = (changed - residual).abs().amax(dim=1)
        is_fixed = change < MAX_MOVED * scale
        sizes = residual.norm(dim=1) / scale
        sizes = sizes * is_fixed
        worst = float(sizes.max())
        if worst < MIN_JUMP:
            return []

        region = evidence.region(points, sizes)
        statement = (
            f"The ansatz contradicts {name}: {region.text} its residual is up to {worst:.1%} of "
            "its parts, whatever the network."
        )
        remedies = advise(
            ["check_ansatz", "wrong_equation"],
            [name],
            region,
        )
        # No training can mend it.
        return [
            Finding(
                check="conflicting_conditions",
                severity="serious",
                statement=statement,
                normal="What an ansatz fixes meets the conditions.",
                value=worst,
                threshold=MIN_JUMP,
                terms=(name, "ansatz"),
                region=region,
                remedies=remedies,
            )
        ]


@dataclass(frozen=True, eq=False)
class Prescribed:
    """What a condition prescribes for a field at points: (n, d) and (n,)."""

    field: str
    points: Tensor
    values: Tensor

    def steepness(self, extent: Tensor, rows: Tensor) -> Tensor:
        """Return how steep the values are around some points, per extent of the domain: (rows,)."""
        places = self.points / extent
        apart = torch.cdist(places[rows], places)
        # The nearest is the point itself.
        order = apart.argsort(dim=1)
        nearest = order[:, 1 : N_NEIGHBORS + 1]
        # |v_j − v_i| over the distance, at the steepest of the neighbors.
        here = self.values[rows].unsqueeze(1)
        change = (self.values[nearest] - here).abs()
        distance = apart.gather(1, nearest).clamp_min(MIN_DISTANCE)
        return (change / distance).amax(dim=1)


def prescribed_values(evidence: Evidence, name: str) -> Prescribed | None:
    """Return what a condition prescribes, None unless its residual is ``a (field − value)``."""
    term = evidence.objective.term(name)
    made_of = field_function(term.residual)
    if made_of is None:
        return None
    fields = []
    for field in made_of.names:
        if evidence.problem.parse(field).output is not None:
            fields.append(field)
    if len(fields) != 1:
        return None

    points = evidence.draw(name, N_POINTS, seed=4)
    # Three values show whether the residual is linear in the field.
    residuals = []
    for value in (0.0, 1.0, 2.0):
        residuals.append(residual_at(evidence, term, made_of, points, value))
    # A condition of several components prescribes several things at once.
    if residuals[0].shape[1] != 1:
        return None

    first, second, third = (residual[:, 0] for residual in residuals)
    slope = second - first
    # Linear: r(2) − r(1) = r(1) − r(0) = a, and a the same everywhere.
    is_linear = torch.allclose(third - second, slope)
    is_even = torch.allclose(slope, slope[:1])
    if not is_linear or not is_even or not bool(slope[0]):
        return None

    # r = a (f − v) is −a v at f = 0.
    values = -first / slope
    return Prescribed(fields[0], points, values)


def residual_at(
    evidence: Evidence,
    term: Term,
    made_of: FieldFunction,
    points: Tensor,
    value: float,
) -> Tensor:
    """Return a residual (n, m) at points where its outputs and derivatives have one value."""
    # The same machinery, at other points than those of the run.
    scales = replace(evidence.scales, points={term.name: points})
    fields, places = scales.values(term, made_of)
    for field in made_of.names:
        if evidence.problem.parse(field).output is not None:
            fields[field] = torch.full_like(fields[field], value)
    return made_of.function(fields, places)


def point_region(coordinates: Sequence[str], place: Sequence[float]) -> PlainRegion:
    """Return a region that is one point.

    Examples
    --------
    >>> from whence.diagnosis.checks.conflicting_conditions import point_region
    >>> point_region(["x", "t"], [0.5, 0.0]).text
    'at x = 0.5, t = 0'
    """
    words = []
    for name, value in zip(coordinates, place, strict=True):
        words.append(f"{name} = {value:.3g}")
    text = ", ".join(words)
    return PlainRegion(f"at {text}", tuple(place), tuple(place), 0.0)
