"""Indicators of an attribution, with intervals and baselines."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import xarray as xr

from whence import _checks
from whence.diagnosis.indicators.base import Indicator, Values

RESAMPLES = 2000
"""Bootstrap samples of an interval."""


def measure(
    table: xr.DataArray,
    indicators: Mapping[str, Indicator],
    level: float = 0.95,
    seed: int = 0,
) -> xr.Dataset:
    """Return indicators of an attribution, each quantity's with an interval and a baseline.

    An indicator is the mean over targets; its interval is that of the percentile bootstrap over
    targets (Efron & Tibshirani 1993, chapter 13), so it says how much the choice of targets
    matters, not what another training would give.

    Parameters
    ----------
    table:
        An attribution (target, point) with coordinates of points and targets, of one quantity or
        several.
    indicators:
        What to measure, by names of your own.
    level:
        Of the intervals.
    seed:
        Of the bootstrap.

    Returns
    -------
    xarray.Dataset
        Dimensions (indicator, quantity): ``value``, ``low`` and ``high``, ends of the interval,
        ``baseline``, which the places of the points alone would give, and ``targets``, their
        number.

    Raises
    ------
    ValueError
        If there are no indicators, or points or targets lack what one asks for.

    Examples
    --------
    >>> from whence.attribution.result import Attribution
    >>> from whence.diagnosis.indicators import Causality, measure
    >>> coords = {"t": ("point", [0.2, 0.8]), "target_t": ("target", [0.5, 0.9])}
    >>> table = Attribution([[3.0, 1.0], [1.0, 1.0]], coords, ("target", "point"))
    >>> numbers = measure(table, {"past": Causality()})
    >>> numbers.value.values, numbers.baseline.values
    (array([[0.875]]), array([[0.75]]))
    """
    if not indicators:
        raise ValueError("give one indicator at least, by name")
    _checks.number("level", level)
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, got {level}")
    if set(table.dims) != {"target", "point"}:
        raise ValueError(
            f"indicators are of an attribution (target, point), got {table.dims}: keep the "
            "dimension with isel(target=[0])"
        )

    groups = _targets_by_quantity(table)
    columns: dict[str, list[list[float]]] = {
        name: [] for name in ("value", "low", "high", "baseline", "targets")
    }
    for indicator in indicators.values():
        rows: dict[str, list[float]] = {name: [] for name in columns}
        for members in groups.values():
            values = indicator.at_targets(table.isel(target=members))
            for name, number in _numbers(values, level, seed).items():
                rows[name].append(number)
        for name, row in rows.items():
            columns[name].append(row)

    dims = ("indicator", "quantity")
    variables = {name: (dims, np.asarray(rows)) for name, rows in columns.items()}
    return xr.Dataset(
        variables,
        coords={"indicator": list(indicators), "quantity": list(groups)},
        attrs={"level": level},
    )


def _targets_by_quantity(table: xr.DataArray) -> dict[str, np.ndarray]:
    """Return the positions of the targets of each quantity, in the order in which they come."""
    n_targets = table.sizes["target"]
    if "quantity" not in table.coords:
        return {str(table.attrs.get("quantity", "")): np.arange(n_targets)}

    names = np.full(n_targets, table.coords["quantity"].values)
    return {name: np.flatnonzero(names == name) for name in dict.fromkeys(names)}


def _numbers(values: Values, level: float, seed: int) -> dict[str, float]:
    """Return mean, interval and baseline of an indicator over the targets that have one."""
    is_known = np.isfinite(values.values)
    known = values.values[is_known]
    if not len(known):
        nothing = dict.fromkeys(("value", "low", "high", "baseline"), np.nan)
        return {**nothing, "targets": 0.0}

    generator = np.random.default_rng(seed)
    means = []
    for _ in range(RESAMPLES):
        drawn = generator.integers(len(known), size=len(known))
        means.append(known[drawn].mean())

    # Half of what lies outside of the interval on either side.
    tail = (1 - level) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return {
        "value": float(known.mean()),
        "low": float(low),
        "high": float(high),
        "baseline": float(values.baseline[is_known].mean()),
        "targets": float(len(known)),
    }
