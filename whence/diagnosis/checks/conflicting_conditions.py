"""Whether conditions prescribe different values where they meet, or ones no network can give."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from whence.catalogue import CHECKS
from whence.diagnosis.evidence import Evidence
from whence.diagnosis.finding import Finding, Severity
from whence.diagnosis.regions import PlainRegion
from whence.diagnosis.remedies import advise
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
            findings += self._fixed(evidence, name)
            prescribed = prescribed_values(evidence, name)
            if prescribed is not None:
                values[name] = prescribed

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
        extent = high - low
        apart = torch.cdist(first.points / extent, second.points / extent)
        nearest = apart.flatten().argsort()[:N_PAIRS]
        nearest = nearest[apart.flatten()[nearest] <= MAX_APART]
        if not len(nearest):
            return []

        rows = nearest // len(second.points)
        columns = nearest % len(second.points)
        size = evidence.scales.field(first.field)
        differences = (first.values[rows] - second.values[columns]).abs()
        # What two points that are apart may differ by where nothing jumps.
        steepest = first.steepness(extent, rows) + second.steepness(extent, columns)
        explained = SAFETY * steepest * apart.flatten()[nearest]
        jumps = (differences - explained).clamp_min(0.0) / size
        worst = int(jumps.argmax())
        jump = float(jumps[worst])
        if jump < MIN_JUMP:
            return []

        place = first.points[rows[worst]]
        words = _at(evidence.problem.coordinates, place)
        region = PlainRegion(words, tuple(place.tolist()), tuple(place.tolist()), 0.0)
        here = float(first.values[rows[worst]])
        there = float(second.values[columns[worst]])
        severity: Severity = "serious" if jump > SERIOUS_JUMP else "mild"
        statement = (
            f"{name} and {other} contradict each other where they meet, {words}: they prescribe "
            f"{here:.3g} and {there:.3g} for {first.field}."
        )
        normal = f"They agree to within {MIN_JUMP:.0%} of the size of {first.field}."
        remedies = advise(["one_value", "wrong_equation"], [name, other], region)
        return [
            Finding(
                "conflicting_conditions", severity, statement, normal, jump, MIN_JUMP,
                (name, other), region, remedies=remedies,
            )
        ]  # fmt: skip

    def _fixed(self, evidence: Evidence, name: str) -> list[Finding]:
        """Return whether the ansatz fixes a condition's residual at something else than zero."""
        term = evidence.fresh.term(name)
        parameters = evidence.objective.parameters
        generator = torch.Generator().manual_seed(evidence.seed)
        theta = parameters.vector()
        shift = torch.randn(len(theta), generator=generator, dtype=theta.dtype)
        others = parameters.substituted(theta + shift.to(theta))
        with torch.no_grad():
            residual = term.residual(parameters.tensors(), term.points)
            changed = term.residual(others, term.points)
        scale = evidence.scales.of(name)
        is_fixed = (changed - residual).abs().amax(dim=1) < MAX_MOVED * scale
        size = (residual.square().sum(dim=1).sqrt() / scale) * is_fixed
        worst = float(size.max())
        if worst < MIN_JUMP:
            return []

        region = evidence.region(term.points, size)
        statement = (
            f"The ansatz contradicts {name}: {region.text} its residual is up to {worst:.1%} of "
            "its parts, whatever the network."
        )
        normal = "What an ansatz fixes meets the conditions."
        remedies = advise(["check_ansatz", "wrong_equation"], [name], region)
        return [
            Finding(
                "conflicting_conditions", "serious", statement, normal, worst, MIN_JUMP,
                (name, "ansatz"), region, remedies=remedies,
            )
        ]  # fmt: skip


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
        nearest = apart.argsort(dim=1)[:, 1 : N_NEIGHBORS + 1]
        change = (self.values[nearest] - self.values[rows].unsqueeze(1)).abs()
        distance = apart.gather(1, nearest).clamp_min(1e-12)
        return (change / distance).amax(dim=1)


def prescribed_values(evidence: Evidence, name: str) -> Prescribed | None:
    """Return what a condition prescribes, None unless its residual is ``a (field − value)``."""
    term = evidence.objective.term(name)
    made_of = field_function(term.residual)
    if made_of is None:
        return None
    parse = evidence.problem.parse
    fields = [n for n in made_of.names if parse(n).output is not None]
    if len(fields) != 1:
        return None

    points = evidence.draw(name, N_POINTS, seed=4)
    at_points = replace(term, points=points, point_weights=None, base_weights=None)
    residuals = [_residual_at(evidence, at_points, made_of, v) for v in (0.0, 1.0, 2.0)]
    if residuals[0].shape[1] != 1:
        return None
    first, second, third = (r[:, 0] for r in residuals)
    slope = second - first
    # Linear, and the same everywhere: r(2) − r(1) = r(1) − r(0) = a.
    is_linear = torch.allclose(third - second, slope)
    if not is_linear or not torch.allclose(slope, slope[:1]) or float(slope[0]) == 0:
        return None
    # r = a (f − v) is −a v at f = 0.
    return Prescribed(fields[0], points, -first / slope)


def _residual_at(
    evidence: Evidence, term: Term, made_of: FieldFunction, value: float
) -> Tensor:
    """Return a residual (n, m) where each of its outputs and derivatives has one value."""
    scales = replace(evidence.scales, points={term.name: term.locations})
    fields, points = scales.values(term, made_of)
    for field in made_of.names:
        if evidence.problem.parse(field).output is not None:
            fields[field] = torch.full_like(fields[field], value)
    return made_of.function(fields, points)


def _at(coordinates: tuple[str, ...], place: Tensor) -> str:
    pairs = zip(coordinates, place.tolist(), strict=True)
    return "at " + ", ".join(f"{name} = {value:.3g}" for name, value in pairs)
