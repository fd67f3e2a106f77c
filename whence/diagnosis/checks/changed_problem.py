"""Whether the problem is still the one that was trained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from whence.catalogue import CHECKS
from whence.diagnosis.evidence import Evidence
from whence.diagnosis.finding import Finding
from whence.diagnosis.remedies import advise
from whence.pinn.training.load import SAME_SHARE

MIN_RELATIVE = 1e-3
"""Relative residual below which rounding may be all that there is."""


@CHECKS.named("changed_problem")
@dataclass(frozen=True)
class ChangedProblem:
    """Whether each term's loss at the training points is still the one that the run recorded.

    It is the same to rounding where problem, points and network are. Where it is not, an equation,
    a condition or the data were changed since, and everything else is said of the changed problem.
    """

    rank: ClassVar[int] = 0

    def findings(self, evidence: Evidence) -> list[Finding]:
        """Return a finding for each term that is another one now."""
        findings = []
        for name, (recorded, present) in evidence.changed.items():
            largest = max(recorded, present)
            # ‖r‖ over the scale of the term.
            size = largest**0.5 / evidence.scales.of(name)
            # A loss near rounding is another number on every machine.
            if size > MIN_RELATIVE:
                findings.append(self._finding(name, recorded, present))
        return findings

    def _finding(self, name: str, recorded: float, present: float) -> Finding:
        statement = (
            f"{name} is not what was trained: its loss at the training points was recorded as "
            f"{recorded:.3g} and is {present:.3g} now."
        )
        largest = max(recorded, present)
        return Finding(
            check="changed_problem",
            severity="serious",
            statement=statement,
            normal="Both are the same to rounding.",
            value=abs(present - recorded) / largest,
            threshold=SAME_SHARE,
            terms=(name,),
            remedies=advise(["same_problem"], [name]),
        )
