"""Checks of the points at which reference solutions are taken, and what they share."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def checked_points(
    x: Array, t: Array, *, x_bound: float = np.inf, t_bound: float = np.inf
) -> tuple[Array, Array]:
    """Return ``x`` and ``t`` as float64, or raise ``ValueError`` saying what was given."""
    x = np.asarray(x, dtype=np.float64)
    t = np.asarray(t, dtype=np.float64)
    if x.ndim != 1 or x.shape != t.shape:
        raise ValueError(
            f"x and t must be of equal shape (n,), got {x.shape} and {t.shape}"
        )

    _check_finite("x", x)
    _check_finite("t", t)
    if not x.size:
        return x, t

    first = float(t.min())
    last = float(t.max())
    if first < 0:
        raise ValueError(f"t must be at least 0, got {first}")
    if last > t_bound:
        raise ValueError(f"t must be at most {t_bound}, got {last}")

    farthest = float(x[np.abs(x).argmax()])
    if abs(farthest) > x_bound:
        raise ValueError(f"x must be within [{-x_bound}, {x_bound}], got {farthest}")

    return x, t


def _check_finite(name: str, values: Array) -> None:
    bad = np.flatnonzero(~np.isfinite(values))
    if bad.size:
        k = bad[0]
        raise ValueError(
            f"{name} must be finite: {bad.size} of {values.size} values are not, "
            f"the first is {name}[{k}] = {float(values[k])}"
        )


def sin_pi(x: Array) -> Array:
    """Return sin(πx), exactly zero at the integers (``np.sin(np.pi)`` is 1.2e-16)."""
    # sin(πx) = (−1)^k sin(π(x − k)), and x − k is exact for the nearest integer k.
    whole = np.round(x)
    sign = 1 - 2 * np.mod(whole, 2)
    rest = np.pi * (x - whole)
    sine: Array = np.sin(rest) * sign
    return sine + 0.0  # turns -0.0 into 0.0


def as_floats(*columns: Array) -> list[Array]:
    """Return columns of coordinates as float64 of equal shape (n,), finite."""
    arrays = [np.asarray(column, dtype=np.float64) for column in columns]
    shapes = [array.shape for array in arrays]
    if arrays[0].ndim != 1 or len(set(shapes)) > 1:
        raise ValueError(f"coordinates must be of equal shape (n,), got {shapes}")
    for k, array in enumerate(arrays):
        _check_finite(f"coordinate {k}", array)
    return arrays
