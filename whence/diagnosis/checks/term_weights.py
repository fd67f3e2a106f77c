"""Whether a term is left behind because others outweigh it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from whence.catalogue import CHECKS
from whence.diagnosis.evidence import Evidence, State
from whence.diagnosis.finding import Finding, Severity
from whence.diagnosis.remedies import advise

MIN_RELATIVE = 0.02
"""Residuals below two percent of their term's parts are small enough, whatever the weight."""
SERIOUS_RELATIVE = 0.1
"""A term that is off by a tenth of its parts is not met."""
MAX_SHARE = 0.03
"""Share of the heaviest term's pull below which a term has hardly any."""
MIN_LEAD = 3.0
"""How much better than it the heaviest term must be met, relatively, to be what it was left for."""
UNMET = 0.5
"""A term that is off by half of its parts is not met at all."""
HARDLY_ANY = 1e-3
"""Share of the pull with which a term that is not met needs no further proof."""
MAX_RISE = 2.0
"""By how much the residuals of others may rise for it."""
MIN_FALL = 3.0
"""By how much its residual must fall under even weights, tenfold in the loss."""


@CHECKS.named("term_weights")
@dataclass(frozen=True)
class TermWeights:
    """Whether a term's residual would fall by much under even weights, and the others barely rise.

    The pull of a term is its weight times its squared scale: what its loss would be if it were not
    met at all. A term of little pull that is not met, beside one of much that is, is refitted with
    all pulls equal; only if that mends it the weight was to blame.
    """

    rank: ClassVar[int] = 40

    def findings(self, evidence: Evidence) -> list[Finding]:
        """Return a finding for each term whose weight is too low."""
        relative = evidence.relative_by_term(evidence.trained)
        if not relative:
            return []
        pulls = {}
        for name in relative:
            # w_k s_k², the loss of a term whose residual is as large as its parts.
            weight = evidence.objective.term(name).mean_weight
            pulls[name] = weight * evidence.scales.of(name) ** 2
        heaviest = max(pulls, key=lambda name: pulls[name])

        # Left behind: of little pull, not met, while what pulls most is met.
        behind = []
        for name, size in relative.items():
            has_little = pulls[name] < MAX_SHARE * pulls[heaviest]
            least = max(MIN_RELATIVE, MIN_LEAD * relative[heaviest])
            if has_little and size > least:
                behind.append(name)
        if not behind:
            return []

        even = {}
        for name in pulls:
            scale = evidence.scales.of(name)
            even[name] = scale**-2
        # All pulls equal: w_k = 1/s_k².
        evened = evidence.objective.with_weights(even)
        refitted = evidence.refitted(evened)

        findings = []
        for name in sorted(behind, key=lambda name: -relative[name]):
            share = pulls[name] / pulls[heaviest]
            if is_to_blame(evidence, refitted, name, share):
                findings.append(
                    self._finding(
                        evidence,
                        refitted,
                        pulls,
                        name,
                        heaviest,
                    )
                )
        return findings

    def _finding(
        self,
        evidence: Evidence,
        refitted: State,
        pulls: Mapping[str, float],
        name: str,
        heaviest: str,
    ) -> Finding:
        weight = evidence.objective.term(name).mean_weight
        # The weight at which it pulls as much as the heaviest.
        wanted = 1.0
        if weight:
            wanted = weight * pulls[heaviest] / pulls[name]
        # Where it is not met now.
        region = evidence.fresh_region(evidence.trained, name)
        size = evidence.relative(evidence.trained, name)
        lead = evidence.relative(evidence.trained, heaviest)
        after = evidence.relative(refitted, name)
        severity: Severity = "mild"
        if size > SERIOUS_RELATIVE:
            severity = "serious"

        statement = (
            f"The weight of {name} ({weight:.3g}) is too low beside that of {heaviest}: its "
            f"residual is {size:.1%} of its parts (rms), {region.mostly}, while that of {heaviest} "
            f"is {lead:.1%}."
        )
        if after < size / MIN_FALL:
            statement += f" A few steps under even weights bring it to {after:.1%}."
        remedies = advise(
            ["term_weight", "weighting", "hard_constraint"],
            [name],
            region,
            wanted,
        )
        return Finding(
            check="term_weights",
            severity=severity,
            statement=statement,
            normal=f"No weight leaves a term above {MIN_RELATIVE:.0%} that another would mend.",
            value=size,
            threshold=MIN_RELATIVE,
            terms=(name, heaviest),
            region=region,
            remedies=remedies,
        )


def is_to_blame(evidence: Evidence, refitted: State, name: str, share: float) -> bool:
    """Whether its weight is why a term is not met.

    Parameters
    ----------
    evidence:
        The run.
    refitted:
        Where a few steps under even weights lead.
    name:
        The term.
    share:
        Its pull over that of the heaviest.
    """
    before = evidence.relative_by_term(evidence.trained)
    size = before[name]
    if share < HARDLY_ANY and size > UNMET:
        # From a trivial solution, which the others like, a few steps may lead nowhere.
        return True

    continued = evidence.relative(evidence.continued, name)
    if share > HARDLY_ANY and continued < size / MIN_FALL:
        # The same steps under the weights as they are do it too: training ended early.
        return False

    # Even weights mend it, and others rise no further than to what is small anyway.
    after = evidence.relative_by_term(refitted)
    for other, value in after.items():
        most = max(MIN_RELATIVE, MAX_RISE * before[other])
        if other != name and value > most:
            return False
    return after[name] < size / MIN_FALL
