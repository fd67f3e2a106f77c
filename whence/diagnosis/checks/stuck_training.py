"""Whether training ended far from a minimum of its own loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from whence.catalogue import CHECKS
from whence.diagnosis.evidence import STEPS, Evidence
from whence.diagnosis.finding import Finding, Severity
from whence.diagnosis.remedies import advise
from whence.diagnosis.scales import rms

MIN_CHANGE = 0.01
"""A solution that a few steps still move by a percent is not as good as its loss can make it."""
SERIOUS_CHANGE = 0.1
"""One that they move by a tenth is another solution: nobody reads a figure off it."""
MAX_LOSS_LEFT = 0.5
"""Moves that leave more of the loss than this are along what the loss does not determine."""
UNMET = 0.1
"""Relative residual of a term that such a solution does not meet; a constant may be right."""
MIN_VARIATION = 0.02
"""A solution that varies less than this, in units of what is prescribed, is as good as constant."""


@CHECKS.named("stuck_training")
@dataclass(frozen=True)
class StuckTraining:
    """Whether a few damped Gauss–Newton steps on the same loss still change the solution.

    They are really taken from where training ended, and put back. At a minimum the loss stays.
    """

    rank: ClassVar[int] = 60

    def findings(self, evidence: Evidence) -> list[Finding]:
        """Return whether training can go on, and whether the solution is as good as constant."""
        findings = self._far_from_minimum(evidence)
        if evidence.drawn:
            findings += self._trivial(evidence)
        return findings

    def _far_from_minimum(self, evidence: Evidence) -> list[Finding]:
        trained, continued = evidence.trained, evidence.continued
        # Nothing falls below zero.
        if trained.loss <= 0:
            return []
        # Both must be large: a loss that is nearly zero halves without anything to see.
        left = continued.loss / trained.loss
        change = evidence.change(trained, continued)
        if left > MAX_LOSS_LEFT or change < MIN_CHANGE:
            return []

        severity: Severity = "mild"
        if change >= SERIOUS_CHANGE:
            severity = "serious"
        # Where the solution goes, which is where it is still wrong.
        region = evidence.move_region(trained, continued)
        statement = (
            f"Training ended before its minimum: {STEPS} more Gauss–Newton steps lower the loss "
            f"from {trained.loss:.2g} to {continued.loss:.2g} and move the solution by "
            f"{change:.1%} of its size, {region.mostly}."
        )
        normal = f"At a minimum they move it by less than {MIN_CHANGE:.0%}."
        remedies = advise(["train_longer", "other_start"], region=region)
        return [
            Finding(
                check="stuck_training",
                severity=severity,
                statement=statement,
                normal=normal,
                value=change,
                threshold=MIN_CHANGE,
                region=region,
                remedies=remedies,
            )
        ]

    def _trivial(self, evidence: Evidence) -> list[Finding]:
        """Return whether an output is nearly constant though its conditions ask for more."""
        findings = []
        values = evidence.trained.values
        relative = evidence.relative_by_term(evidence.trained)
        # A constant may be the solution; then every term is met.
        worst = max(relative, key=lambda name: relative[name])
        for k, (name, size) in enumerate(evidence.scales.outputs.items()):
            column = values[:, k]
            # Beside what conditions prescribe, as the output itself has no size then.
            variation = rms(column - column.mean()) / size
            if variation >= MIN_VARIATION or relative[worst] < UNMET:
                continue

            statement = (
                f"{name} is as good as constant: it varies by {variation:.1%} of the values that "
                "are prescribed for it. A trivial solution of the equations is a trap of training."
            )
            remedies = advise(["other_start", "hard_constraint"], [worst])
            findings.append(
                Finding(
                    check="stuck_training",
                    severity="serious",
                    statement=statement,
                    normal="A solution varies about as much as what is prescribed for it.",
                    value=variation,
                    threshold=MIN_VARIATION,
                    remedies=remedies,
                )
            )
        return findings
