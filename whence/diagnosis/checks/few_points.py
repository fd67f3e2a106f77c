"""Whether residuals between the training points are larger than at them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from whence.catalogue import CHECKS
from whence.diagnosis.evidence import Evidence
from whence.diagnosis.finding import Finding, Severity
from whence.diagnosis.remedies import advise

DRAWS = 400
"""Bootstrap samples of the ratio."""
LEVEL = 2.5
"""Percentile of them that must be large: the lower end of a 95 % interval."""
MIN_RATIO = 3.0
"""Squared residuals between points that are three times those at points are no noise."""
MIN_RELATIVE = 0.01
"""Residuals below a percent of their term's parts do no harm, however they compare."""
MIN_LEFT = 0.5
"""Share of the squared residual between points that more steps leave where they do not help."""
MIN_CHANGE = 0.005
"""More points that move the solution by less do not matter."""
SERIOUS_CHANGE = 0.05
"""With more points it is another solution."""
N_MORE = 1000
"""Points with which that is tried, or twice as many as there are."""
MAX_MORE = 2000
"""But no more than these, or than there are."""
MIN_ADVISED = 200
"""Least number of points that is advised."""


@CHECKS.named("few_points")
@dataclass(frozen=True)
class FewPoints:
    """Whether squared residuals at fresh points exceed those at training points, by term.

    The ratio is that of the means; its interval is a bootstrap over both sets of points. Where it
    is large, a few Gauss–Newton steps at many more points show whether the solution depends on it.
    """

    rank: ClassVar[int] = 30

    def findings(self, evidence: Evidence) -> list[Finding]:
        """Return a finding for each term that has too few points."""
        # Measurements have no fresh points to compare with.
        ratios = {}
        for name in evidence.drawn:
            ratio = self._ratio(evidence, name)
            if ratio is not None:
                ratios[name] = ratio
        if not ratios:
            return []

        # What the same loss at many points would make of the solution.
        points = {}
        for name in ratios:
            present = len(evidence.objective.term(name).points)
            n = min(max(N_MORE, 2 * present), max(MAX_MORE, present))
            # Others than those at which residuals are compared.
            points[name] = evidence.draw(name, n, seed=3)
        crowded = evidence.with_points(points)
        renewed = evidence.refitted(crowded)
        change = evidence.change(evidence.trained, renewed)
        if change < MIN_CHANGE:
            return []

        severity: Severity = "mild"
        if change >= SERIOUS_CHANGE:
            severity = "serious"
        # The largest ratio first.
        findings = []
        for name in sorted(ratios, key=lambda name: -ratios[name]):
            findings.append(
                self._finding(
                    evidence,
                    name,
                    ratios[name],
                    change,
                    severity,
                )
            )
        return findings

    def _ratio(self, evidence: Evidence, name: str) -> float | None:
        """Return the ratio of a term, None where it is not large beyond doubt or does no harm.

        Where training ended early the few points are not met yet either: then a few more steps
        bring the residual down at them, and not between.
        """
        weights = evidence.objective.term(name).base_weights
        ended = float(evidence.trained.fresh[name].mean())
        for state in (evidence.trained, evidence.continued):
            training, fresh = state.training[name], state.fresh[name]
            is_large = evidence.relative(state, name) > MIN_RELATIVE
            # More steps that help between the points too only needed to be taken.
            is_left = float(fresh.mean()) > MIN_LEFT * ended
            low, ratio = ratio_interval(training, fresh, weights, evidence.seed)
            if low > MIN_RATIO and is_large and is_left:
                return ratio
        return None

    def _finding(
        self,
        evidence: Evidence,
        name: str,
        ratio: float,
        change: float,
        severity: Severity,
    ) -> Finding:
        n = len(evidence.objective.term(name).points)
        region = evidence.fresh_region(evidence.trained, name)
        relative = evidence.relative(evidence.trained, name)
        statement = (
            f"{name} has too few points ({n}): between them its squared residual is {ratio:.3g} "
            f"times that at them ({relative:.1%} of its parts, rms), {region.mostly}; with more, "
            f"the solution moves by {change:.1%}."
        )
        normal = f"The ratio is about 1, and no more than {MIN_RATIO:g} beyond doubt."
        n_wanted = max(4 * n, MIN_ADVISED)
        remedies = advise(
            ["more_points", "points_there"],
            [name],
            region,
            n_wanted,
        )
        return Finding(
            check="few_points",
            severity=severity,
            statement=statement,
            normal=normal,
            value=ratio,
            threshold=MIN_RATIO,
            terms=(name,),
            region=region,
            remedies=remedies,
        )


def ratio_interval(
    training: Tensor, fresh: Tensor, weights: Tensor | None, seed: int
) -> tuple[float, float]:
    """Return the lower end of a 95 % interval of the ratio mean(fresh)/mean(training), and it.

    Parameters
    ----------
    training, fresh:
        Squared residuals, (N,) and (M,).
    weights:
        Base weights of the training points, by which their mean is that over the domain.
    seed:
        Of the bootstrap.

    Examples
    --------
    >>> import torch
    >>> from whence.diagnosis.checks.few_points import ratio_interval
    >>> low, ratio = ratio_interval(torch.ones(50), 4 * torch.ones(80), None, seed=0)
    >>> round(low, 6), round(ratio, 6)
    (4.0, 4.0)
    """
    if weights is None:
        weights = torch.ones_like(training)
    # Σ b_i ‖r_i‖² / Σ b_i, b_i the base weights.
    shares = weights / weights.mean()
    weighted = (training * shares).cpu().numpy()
    others = fresh.cpu().numpy()
    # A loss of exactly zero at the points makes any ratio infinite.
    smallest = np.finfo(float).tiny

    generator = np.random.default_rng(seed)
    ratios = np.empty(DRAWS)
    for draw in range(DRAWS):
        # Both sets again, as large as they were, with replacement (Efron 1979).
        at_points = generator.choice(weighted, len(weighted))
        between = generator.choice(others, len(others))
        ratios[draw] = between.mean() / max(at_points.mean(), smallest)

    ratio = float(others.mean() / max(weighted.mean(), smallest))
    return float(np.percentile(ratios, LEVEL)), ratio
