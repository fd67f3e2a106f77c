"""What a run's folder says of its training, as plain data."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping

import numpy as np

from whence._files import JsonObject
from whence.pinn.training.result import Result

MAX_ROWS = 1000
"""Rows of a history that are shown: more is not seen on a screen."""
FINDINGS = "diagnosis.md"
"""What ``whence diagnose`` leaves in a run's folder."""
INDICATORS = "indicators.csv"
"""And ``whence indicators``."""
SUMMARY = ("relative_l2", "loss", "iterations", "seconds", "points", "stopped_by")
"""The numbers of a run that a reader looks for first."""


def history(result: Result) -> JsonObject:
    """Return the columns of numbers of a run's history, None where a row lacks one."""
    rows = list(result.history)
    # Evenly thinned, the last one kept.
    step = max(1, math.ceil(len(rows) / MAX_ROWS))
    rows = rows[::-1][::step][::-1]

    columns: dict[str, list[float | None]] = {}
    for name in result.history.columns:
        cells = [row.get(name) for row in rows]
        if any(isinstance(cell, str) for cell in cells):
            continue
        columns[name] = [finite(cell) for cell in cells]
    return columns


def finite(cell: object) -> float | None:
    """Return a number that JSON has a name for, or None."""
    if not isinstance(cell, (int, float)) or not math.isfinite(cell):
        return None
    return float(cell)


def entered(
    rows: np.ndarray, record: Mapping[str, np.ndarray], term: str
) -> np.ndarray:
    """Return the iteration at which each point came, −1 where the record has it not."""
    known = {}
    if f"{term}:entered" in record:
        pairs = zip(record[term], record[f"{term}:entered"], strict=True)
        known = {row.tobytes(): int(iteration) for row, iteration in pairs}
    return np.array([known.get(row.tobytes(), -1) for row in rows], dtype=int)


def rounds(result: Result) -> np.ndarray:
    """Return every point ever trained on as columns: coordinates, term, entered, left; (d + 3, n).

    ``left`` is −1 of a point that is still in training, ``term`` its place among the terms.
    """
    record = result.points or {}
    n_coordinates = len(result.problem.coordinates)
    parts = [np.zeros((n_coordinates + 3, 0))]
    for k, name in enumerate(result.objective.terms):
        if f"{name}:entered" not in record:
            continue
        places = np.asarray(record[name], dtype=float)
        came, went = record[f"{name}:entered"], record[f"{name}:left"]
        parts.append(np.stack([*places.T, np.full(len(places), k), came, went]))
    return np.concatenate(parts, axis=1)


def spectra(result: Result) -> JsonObject:
    """Return the iterations at which spectra were taken, and of each term its eigenvalues."""
    arrays = result.spectra or {}
    return {name: np.asarray(values).tolist() for name, values in arrays.items()}


def findings(result: Result) -> JsonObject:
    """Return what was found about a run, from its folder; empty where nothing was.

    Returns
    -------
    dict
        ``text``: the page that ``whence diagnose`` left; ``indicators``: the rows of the table that
        ``whence indicators`` left, its names first.
    """
    texts = {FINDINGS: "", INDICATORS: ""}
    for name in texts:
        file = result.path / name if result.path is not None else None
        if file is not None and file.is_file():
            texts[name] = file.read_text(encoding="utf-8")
    rows = list(csv.reader(io.StringIO(texts[INDICATORS])))
    return {"text": texts[FINDINGS], "indicators": rows}


def summary(result: Result) -> JsonObject:
    """Return the numbers of a run's summary that a reader looks for first."""
    shown = {}
    for name in SUMMARY:
        value = result.summary.get(name)
        # A run that diverged has errors that are no numbers.
        if isinstance(value, str) or finite(value) is not None:
            shown[name] = value
    return shown
