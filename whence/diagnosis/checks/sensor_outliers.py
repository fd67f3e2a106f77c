"""Whether some measurements contradict all others and the equations."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch
from scipy import stats

from whence.catalogue import CHECKS
from whence.diagnosis.evidence import Evidence
from whence.diagnosis.finding import Finding
from whence.diagnosis.remedies import advise
from whence.pinn.estimates import suspects

if TYPE_CHECKING:
    import pandas as pd

MIN_DEVIATION = 4.0
"""Standard deviations of a measurement that is hardly right, see ``result.suspects()``."""
FALSE_ALARM = 0.001
"""Chance that any of all measurements is taken for an outlier where errors are normal."""
MAX_SHARE = 0.1
"""Share of the measurements above which those that deviate are no outliers but the fit is off."""
MAX_NAMED = 10
"""Rows that are named in the sentence."""


@CHECKS.named("sensor_outliers")
@dataclass(frozen=True)
class SensorOutliers:
    """Whether measurements deviate from the fit made without them by more than errors explain.

    Deviations are studentized (Cook & Weisberg 1982), and judged by their own median absolute
    deviation too, so that a fit that is off everywhere makes no outliers. They are taken where a
    few more Gauss–Newton steps lead, as they hold at a minimum.
    """

    rank: ClassVar[int] = 20

    def findings(self, evidence: Evidence) -> list[Finding]:
        """Return a finding for each set of measurements with outliers."""
        problem = evidence.problem
        sets = []
        for data in problem.data:
            if data.name in evidence.objective.terms:
                sets.append(data.name)
        if not sets:
            return []

        theta = evidence.continued.theta
        parameters = evidence.objective.parameters
        with parameters.at(theta), warnings.catch_warnings():
            # That steps did not end at a minimum is said by another check.
            warnings.simplefilter("ignore")
            table = suspects(evidence.objective, problem.data)

        findings = []
        for name in sets:
            is_of_set = table["term"] == name
            rows = outliers(table[is_of_set])
            if len(rows):
                findings.append(self._finding(evidence, name, rows))
        return findings

    def _finding(self, evidence: Evidence, name: str, rows: pd.DataFrame) -> Finding:
        numbers = [int(number) for number in rows["index"]]
        # A few rows are read, hundreds are not.
        named = ", ".join(map(str, numbers[:MAX_NAMED]))
        if len(numbers) > MAX_NAMED:
            named += ", …"

        coordinates = list(evidence.problem.coordinates)
        places = rows[coordinates].to_numpy(dtype=float)
        points = torch.tensor(places)
        # Each row counts the same for where they lie.
        alike = torch.ones(len(points)).double()
        region = evidence.region(points, alike)

        # The worst comes first.
        first = []
        for coordinate, value in zip(coordinates, places[0], strict=True):
            first.append(f"{coordinate} = {value:.3g}")
        place = ", ".join(first)
        worst = float(rows["deviation"].abs().max())

        statement = (
            f"Row {named} of {name}, at {place}, fits neither the others nor the equations: it is "
            f"{worst:.1f} standard deviations off the fit made without it."
        )
        # One is the usual case, and deserves its own grammar.
        if len(numbers) > 1:
            statement = (
                f"Rows {named} of {name} fit neither the others nor the equations: they are up to "
                f"{worst:.1f} standard deviations off the fit made without them, at {place}."
            )
        normal = f"Right measurements are within {MIN_DEVIATION:g}."
        remedies = advise(["check_measurements"], [name], region)
        return Finding(
            check="sensor_outliers",
            severity="serious",
            statement=statement,
            normal=normal,
            value=worst,
            threshold=MIN_DEVIATION,
            terms=(name,),
            region=region,
            rows=tuple(numbers),
            remedies=remedies,
        )


def outliers(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of a table of deviations that are outliers, the worst first.

    Examples
    --------
    >>> import numpy as np, pandas as pd
    >>> from whence.diagnosis.checks.sensor_outliers import outliers
    >>> deviations = np.random.default_rng(0).normal(size=50)
    >>> deviations[7] = 9.0
    >>> outliers(pd.DataFrame({"deviation": deviations})).index.tolist()
    [7]
    """
    deviations = table["deviation"].to_numpy()
    n = len(deviations)
    # A normal error exceeds z with 2(1 − Φ(z)); one of n does with n times that.
    chance = FALSE_ALARM / (2 * n)
    least = float(stats.norm.isf(chance))
    least = max(MIN_DEVIATION, least)

    # The median of |z| is 0.6745 for a normal z.
    center = np.median(deviations)
    distances = np.abs(deviations - center)
    spread = np.median(distances) / 0.6745
    robust = distances / max(spread, np.finfo(float).tiny)

    is_far = np.abs(deviations) > least
    is_out = is_far & (robust > least)
    # Where many deviate, it is the fit that is off.
    if is_out.sum() > max(1, MAX_SHARE * n):
        return table.iloc[:0]

    rows = table[is_out]
    sizes = rows["deviation"].abs()
    order = sizes.sort_values(ascending=False).index
    return rows.loc[order]
