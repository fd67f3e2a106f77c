"""Every point that was ever trained on, with the iterations at which it came and went."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

PRESENT = -1
"""The iteration at which a point left that is still in training."""


class PointRecord:
    """Every point that was ever trained on, with the iterations at which it came and went.

    Examples
    --------
    >>> import torch
    >>> from whence.pinn.training.point_record import PointRecord
    >>> record = PointRecord()
    >>> record.update({"pde": torch.tensor([[0.0], [1.0]])}, iteration=0)
    >>> record.update({"pde": torch.tensor([[1.0], [2.0]])}, iteration=5)
    >>> arrays = record.arrays()
    >>> arrays["pde:entered"].tolist(), arrays["pde:left"].tolist()       # −1: still there
    ([0, 0, 5], [5, -1, -1])
    """

    def __init__(self, arrays: Mapping[str, np.ndarray] | None = None) -> None:
        self._terms: dict[str, _TermRecord] = {}
        if arrays is None:
            return

        for name, rows in arrays.items():
            entered = arrays.get(f"{name}:entered")
            left = arrays.get(f"{name}:left")
            if entered is not None and left is not None:
                pinned = arrays.get(f"{name}:pinned", np.zeros(len(rows), dtype=bool))
                term = _TermRecord(
                    list(rows), entered.tolist(), left.tolist(), pinned.tolist()
                )
                self._terms[name] = term

    def update(
        self,
        points: Mapping[str, Tensor],
        iteration: int,
        pinned: Mapping[str, int] | None = None,
    ) -> None:
        """Record the points that train from ``iteration`` on, of which the first are pinned."""
        for name, tensor in points.items():
            # In float64, in which float32 coordinates are exact too.
            rows = tensor.detach().cpu().double().numpy()
            term = self._terms.setdefault(name, _TermRecord())
            n_pinned = (pinned or {}).get(name, 0)
            term.update(rows, iteration, n_pinned)

    def present(self) -> dict[str, set[bytes]]:
        """Return the points in training by term, each as the bytes of its float64 coordinates."""
        return {name: set(term.present) for name, term in self._terms.items()}

    def rewind(self, iteration: int) -> PointRecord:
        """Return the record as it stood just after ``iteration``."""
        arrays = {}
        for name, term in self._terms.items():
            entered = np.asarray(term.entered)
            left = np.asarray(term.left)
            # Points that came later are forgotten, those that left later are back.
            is_known = entered <= iteration
            back = np.where(left > iteration, PRESENT, left)
            arrays[name] = np.asarray(term.points)[is_known]
            arrays[f"{name}:entered"] = entered[is_known]
            arrays[f"{name}:left"] = back[is_known]
            arrays[f"{name}:pinned"] = np.asarray(term.pinned, dtype=bool)[is_known]

        return PointRecord(arrays)

    def arrays(self) -> dict[str, np.ndarray]:
        """Return the arrays to save: TERM (n, d), TERM:entered (n,), TERM:left (n,).

        Of a term with pinned points TERM:pinned (n,) too, whether each is one of them.
        """
        arrays: dict[str, np.ndarray] = {}
        for name, term in self._terms.items():
            arrays[name] = np.asarray(term.points)
            arrays[f"{name}:entered"] = np.asarray(term.entered)
            arrays[f"{name}:left"] = np.asarray(term.left)
            if any(term.pinned):
                arrays[f"{name}:pinned"] = np.asarray(term.pinned)
        return arrays


@dataclass
class _TermRecord:
    """The points of one term, and which rows are in training."""

    points: list[np.ndarray] = field(default_factory=list)
    entered: list[int] = field(default_factory=list)
    left: list[int] = field(default_factory=list)
    pinned: list[bool] = field(default_factory=list)
    present: dict[bytes, int] = field(init=False)
    """Row numbers of the points in training, by the bytes of their coordinates."""

    def __post_init__(self) -> None:
        self.present = {}
        for k, row in enumerate(self.points):
            if self.left[k] == PRESENT:
                self.present[row.tobytes()] = k

    def update(self, rows: np.ndarray, iteration: int, n_pinned: int) -> None:
        """Record the points that train from ``iteration`` on; the first ones are pinned."""
        present: dict[bytes, int] = {}
        for k, row in enumerate(rows):
            key = row.tobytes()  # the same point, to the last bit
            if key in self.present:
                present[key] = self.present[key]
            elif key not in present:
                present[key] = len(self.points)
                self.points.append(row)
                self.entered.append(iteration)
                self.left.append(PRESENT)
                self.pinned.append(k < n_pinned)

        # What trained until now and does no more has left.
        for key, k in self.present.items():
            if key not in present:
                self.left[k] = iteration
        self.present = present
