"""Whether arrays on disk are what a run wrote; messages do not name the file."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

ITERATION = "iteration"
"""Name of the iterations at which spectra were taken."""


def renamed_times(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return points with their times under the names that they have since format 4."""
    if any(":" in name for name in arrays):
        return arrays

    renamed = dict(arrays)
    for name in arrays:
        # TERM_entered beside TERM and TERM_left, which could also be points of other terms.
        if f"{name}_entered" in arrays and f"{name}_left" in arrays:
            renamed[f"{name}:entered"] = renamed.pop(f"{name}_entered")
            renamed[f"{name}:left"] = renamed.pop(f"{name}_left")
    return renamed


def check_point_arrays(arrays: Mapping[str, np.ndarray]) -> None:
    """Raise ``ValueError`` unless these are points with their times, without naming the file."""
    terms = [name for name in arrays if f"{name}:entered" in arrays]
    known: set[str] = set()
    for name in terms:
        known |= {name, f"{name}:entered", f"{name}:left"}
        if f"{name}:pinned" in arrays:
            known.add(f"{name}:pinned")
    if set(arrays) != known:
        raise ValueError(
            f"it holds {', '.join(sorted(arrays))}, not points with their times"
        )

    for name in terms:
        points = arrays[name]  # (n, d)
        is_table = points.ndim == 2 and points.dtype == np.float64
        if not is_table or not np.isfinite(points).all():
            raise ValueError(f"{name!r} is not an array of finite points")

        # Iterations, (n,); a point that is still in training left at −1.
        for times in (arrays[f"{name}:entered"], arrays[f"{name}:left"]):
            # One iteration for each point.
            if times.shape != points.shape[:1] or times.dtype.kind != "i":
                raise ValueError(
                    f"term {name!r} needs one entry and one exit time per point"
                )

        pinned = arrays.get(f"{name}:pinned")
        if pinned is None:
            continue
        if pinned.shape != points.shape[:1] or pinned.dtype != bool:
            raise ValueError(
                f"term {name!r} needs one truth value per point, of whether it is pinned"
            )


def check_spectra(arrays: Mapping[str, np.ndarray]) -> None:
    """Raise ``ValueError`` unless these are spectra by iteration."""
    times = arrays.get(ITERATION)
    is_list = times is not None and times.ndim == 1 and times.dtype.kind == "i"
    if times is None or not is_list or not len(times):
        raise ValueError("spectra need the iterations at which they were taken")

    for name, values in arrays.items():
        if name == ITERATION:
            continue

        is_table = values.ndim == 2 and len(values) == len(times)
        # The kind is asked first, as isfinite raises TypeError for text.
        is_finite = values.dtype.kind == "f" and bool(np.isfinite(values).all())
        if not is_table or not is_finite:
            raise ValueError(
                f"the spectra of term {name!r} must be a finite array of shape "
                "(records, eigenvalues)"
            )
