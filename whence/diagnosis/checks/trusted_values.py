"""Whether the solution differs from trusted values, and which term contradicts them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from whence.catalogue import CHECKS
from whence.diagnosis.contradictions import (
    Contradiction,
    Contradictions,
    likeliest_first,
)
from whence.diagnosis.evidence import Evidence
from whence.diagnosis.explanations import explanation
from whence.diagnosis.finding import Finding, Severity
from whence.diagnosis.remedies import advise

MIN_ERROR = 0.02
"""Errors of a percent or two are what a moderate training leaves."""
SERIOUS_ERROR = 0.1
"""A solution that is off by a tenth is another one."""
MIN_RELATIVE = 0.02
"""Residual of a term at the trusted solution, relative to its parts, that contradicts it."""
MIN_RESOLVED = 0.6
"""Share of the conflict with the trusted values that leaving out a term must resolve."""
MAX_MISFIT = 0.3
"""Share of the error that may be left of the misfit, for the refit to have reached the values."""
MIN_AWAY = 0.5
"""Share of the error to which a contradicting term takes the trusted solution back."""
MIN_FIXED = 0.02
"""Error where the ansatz fixes the solution: its conditions are exact there, to rounding."""
MIN_REACHED = 0.02
"""Misfit that is small enough, whatever the error was."""


@CHECKS.named("trusted_values")
@dataclass(frozen=True)
class TrustedValues:
    """Whether the solution differs from trusted values, and which term or ansatz is in the way.

    Needs a reference: the problem's own solution or a table. A wrong equation that has a solution
    cannot be told from a right one without.
    """

    rank: ClassVar[int] = 25

    def findings(self, evidence: Evidence) -> list[Finding]:
        """Return a finding that names the term, or says that all terms agree with the values."""
        if evidence.reference is None:
            return []
        contradictions = Contradictions(evidence, evidence.reference)
        trained = evidence.trained.theta
        # Where training ended, not where a few steps more would lead.
        error = contradictions.misfit(trained)
        if error < MIN_ERROR:
            return []

        # What no network can change is proven; it comes before what refits suggest.
        if evidence.problem.ansatz is not None:
            fixed = contradictions.fixed_errors()
            if float(fixed.max()) > MIN_FIXED:
                return [self._of_ansatz(contradictions, error, fixed)]
        named = self._contradiction(contradictions, error)
        if named is not None:
            return [self._of_term(contradictions, named, error)]
        return [self._of_training(contradictions, error)]

    def _contradiction(
        self, contradictions: Contradictions, error: float
    ) -> Contradiction | None:
        """Return the term whose leaving out lets all others be met, None if there is none."""
        equations = contradictions.evidence.problem.equations
        left_out = {}
        for name in contradictions.candidates():
            left_out[name] = contradictions.leave_out(name)
        for candidate in likeliest_first(left_out, equations):
            # All others and the values are met without it, as they are not with it.
            falls = contradictions.resolved(candidate) > MIN_RESOLVED
            # Or else the refit ended elsewhere, and says nothing of the term.
            reaches = candidate.misfit < max(MAX_MISFIT * error, MIN_REACHED)
            contradicts = falls and reaches and candidate.relative > MIN_RELATIVE
            # Not if all terms together stay near the trusted values once they are there.
            if contradicts and contradictions.released(candidate) > MIN_AWAY * error:
                return candidate
        return None

    def _of_term(
        self, contradictions: Contradictions, named: Contradiction, error: float
    ) -> Finding:
        evidence = contradictions.evidence
        # Its own residual at the trusted solution, not where training ended.
        region = evidence.fresh_region(named.state, named.name)
        # Which part is off, where one alone can be.
        words = explanation(evidence, named.state, named.name)
        statement = (
            f"{named.name} contradicts {contradictions.reference.source}, from which the solution "
            f"differs by {error:.1%}: a network that meets these and all other terms leaves "
            f"{named.relative:.1%} of its parts (rms), {region.mostly}.{words}"
        )
        remedies = advise(["wrong_equation"], [named.name], region)
        return Finding(
            check="trusted_values",
            severity="serious",
            statement=statement,
            normal=f"The right solution meets a right term to {MIN_RELATIVE:.0%} of its parts.",
            value=named.relative,
            threshold=MIN_RELATIVE,
            terms=(named.name,),
            region=region,
            remedies=remedies,
        )

    def _of_ansatz(
        self, contradictions: Contradictions, error: float, fixed: Tensor
    ) -> Finding:
        region = contradictions.evidence.region(contradictions.points, fixed.square())
        # The largest, as one wrong corner is enough.
        worst = float(fixed.max())
        statement = (
            f"The ansatz contradicts {contradictions.reference.source}, from which the solution "
            f"differs by {error:.1%}: where no network can change it, it is up to {worst:.1%} off, "
            f"{region.mostly}."
        )
        remedies = advise(["check_ansatz"], region=region)
        return Finding(
            check="trusted_values",
            severity="serious",
            statement=statement,
            normal="What an ansatz fixes is right to rounding.",
            value=worst,
            threshold=MIN_FIXED,
            terms=("ansatz",),
            region=region,
            remedies=remedies,
        )

    def _of_training(self, contradictions: Contradictions, error: float) -> Finding:
        evidence = contradictions.evidence
        theta = evidence.trained.theta
        squares = contradictions.errors(theta).square().sum(dim=1)
        region = evidence.region(contradictions.points, squares)
        # No cause, so that it is told after those that other checks find.
        severity: Severity = "mild"
        if error > SERIOUS_ERROR:
            severity = "serious"
        statement = (
            f"The solution differs from {contradictions.reference.source} by {error:.1%}, "
            f"{region.mostly}, but no term contradicts these: training, points, weights or the "
            "network are to blame."
        )
        remedies = advise(
            ["train_longer", "points_there", "wider_network"], region=region
        )
        return Finding(
            check="trusted_values",
            severity=severity,
            statement=statement,
            normal=f"Below {MIN_ERROR:.0%}.",
            value=error,
            threshold=MIN_ERROR,
            region=region,
            remedies=remedies,
            is_symptom=True,
        )
