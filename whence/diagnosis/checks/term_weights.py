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
        pulls = {}
        for name in relative:
            term = evidence.objective.term(name)
            pulls[name] = term.mean_weight * evidence.scales.of(name) ** 2
        heaviest = max(pulls, key=lambda name: pulls[name])

        # Left behind: of little pull, not met, while what pulls most is met.
        suspects = []
        for name, size in relative.items():
            has_little = pulls[name] < MAX_SHARE * pulls[heaviest]
            is_behind = size > max(MIN_RELATIVE, MIN_LEAD * relative[heaviest])
            if has_little and is_behind:
                suspects.append(name)
        if not suspects:
            return []

        even = {name: evidence.scales.of(name) ** -2 for name in pulls}
        refitted = evidence.refitted(evidence.objective.with_weights(even))
        findings = []
        for name in sorted(suspects, key=lambda name: -relative[name]):
            # From a trivial solution, which the others like, a few steps may lead nowhere.
            is_pulled = pulls[name] > HARDLY_ANY * pulls[heaviest]
            is_ignored = relative[name] > UNMET and not is_pulled
            # Where the same steps under the weights as they are do it too, training ended early.
            after = evidence.relative(evidence.continued, name)
            is_stuck = is_pulled and after < relative[name] / MIN_FALL
            if is_ignored or (
                not is_stuck and _is_mended(evidence, refitted, relative, name)
            ):
                findings.append(
                    self._finding(evidence, refitted, relative, pulls, name, heaviest)
                )
        return findings

    def _finding(
        self,
        evidence: Evidence,
        refitted: State,
        relative: Mapping[str, float],
        pulls: Mapping[str, float],
        name: str,
        heaviest: str,
    ) -> Finding:
        weight = evidence.objective.term(name).mean_weight
        # The weight at which it pulls as much as the heaviest.
        wanted = weight * pulls[heaviest] / pulls[name] if pulls[name] else 1.0
        region = evidence.fresh_region(evidence.trained, name)
        size = relative[name]
        severity: Severity = "serious" if size > SERIOUS_RELATIVE else "mild"
        statement = (
            f"The weight of {name} ({weight:.3g}) is too low beside that of {heaviest}: its "
            f"residual is {size:.1%} of its parts (rms), {region.mostly}, while that of {heaviest} "
            f"is {relative[heaviest]:.1%}."
        )
        after = evidence.relative(refitted, name)
        if after < size / MIN_FALL:
            statement += f" A few steps under even weights bring it to {after:.1%}."
        normal = (
            f"No weight leaves a term above {MIN_RELATIVE:.0%} that another would mend."
        )
        remedies = advise(
            ["term_weight", "weighting", "hard_constraint"], [name], region, wanted
        )
        return Finding(
            "term_weights", severity, statement, normal, size, MIN_RELATIVE,
            (name, heaviest), region, remedies=remedies,
        )  # fmt: skip


def _is_mended(
    evidence: Evidence, refitted: State, relative: Mapping[str, float], name: str
) -> bool:
    """Whether even weights make a term's residual fall, and no other's rise by much."""
    after = evidence.relative_by_term(refitted)
    falls = after[name] < relative[name] / MIN_FALL
    others = [n for n in relative if n != name]
    # Others may rise to what is small anyway, or by as much as rounding of weights would do.
    keeps = all(after[n] < max(MIN_RELATIVE, 2 * relative[n]) for n in others)
    return falls and keeps
