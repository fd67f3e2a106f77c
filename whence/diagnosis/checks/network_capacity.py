"""Whether a loss stays high at a minimum with points enough: what the network cannot follow."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from whence.catalogue import CHECKS
from whence.diagnosis.evidence import STEPS, Evidence
from whence.diagnosis.finding import Finding, Severity
from whence.diagnosis.remedies import advise

MIN_LOSS_LEFT = 0.5
"""A loss of which a few steps leave half is near its minimum."""
MAX_RATIO = 3.0
"""Squared residuals between points over those at points above which points are too few."""
MIN_RELATIVE = 0.05
"""Residuals below a twentieth of a term's parts are what a moderate training leaves."""
SERIOUS_RELATIVE = 0.2
"""A term off by a fifth of its parts is not met."""


@CHECKS.named("network_capacity")
@dataclass(frozen=True)
class NetworkCapacity:
    """Whether residuals stay large though training is converged and points are enough.

    Then the network cannot represent the solution, or there is none: terms that contradict each
    other leave the same. Which of the two, only another network or trusted values tell.
    """

    rank: ClassVar[int] = 70

    def findings(self, evidence: Evidence) -> list[Finding]:
        """Return a finding that names the term whose residual is the largest."""
        trained, continued = evidence.trained, evidence.continued
        if continued.loss < MIN_LOSS_LEFT * trained.loss or not evidence.drawn:
            return []

        # The term that is met the least, where more points would not help.
        relative = evidence.relative_by_term(continued)
        name = max(relative, key=lambda term: relative[term])
        size = relative[name]
        # Where points are too few, more of them come first.
        between = float(continued.fresh[name].mean())
        at_points = float(continued.training[name].mean())
        if size < MIN_RELATIVE or between > MAX_RATIO * at_points:
            return []

        # What the network cannot follow is often one steep place.
        region = evidence.fresh_region(continued, name)
        severity: Severity = "mild"
        if size > SERIOUS_RELATIVE:
            severity = "serious"
        # How little more steps would change.
        left = continued.loss / trained.loss
        statement = (
            f"{name} stays at {size:.1%} of its parts (rms), {region.mostly}, though "
            f"{STEPS} more Gauss–Newton steps leave {left:.0%} of the loss and points are enough: "
            "the network is too small for the solution, or the terms have none in common."
        )
        names = ["wider_network", "points_there", "wrong_equation", "trusted_values"]
        remedies = advise(names, [name], region)
        return [
            Finding(
                check="network_capacity",
                severity=severity,
                statement=statement,
                normal=f"At a minimum residuals are below {MIN_RELATIVE:.0%} of their parts.",
                value=size,
                threshold=MIN_RELATIVE,
                terms=(name,),
                region=region,
                remedies=remedies,
            )
        ]
