"""What the page of a supervised model asks for, as plain data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from whence import _checks
from whence._files import JsonObject
from whence.attribution.quality import quality
from whence.evaluation.bad_data import By
from whence.explore.sample_inputs import SUMMARY, InputView
from whence.explore.sample_session import Reduce, SampleSession

if TYPE_CHECKING:
    from whence.attribution.result import Attribution

PAGE = 200
"""Samples that are sent at once, at most."""
SIDES = {"small": 32, "large": 128}
"""Pixels of an image along each side, at most: among others, and alone."""
ORDERS = ("number", "loss", "wrong")
"""Orders of test samples: as they come, the largest loss first, and that of the misread alone."""

Table = list[JsonObject]


class SampleAnswers:
    """A session as its page sees it: some samples at a time, and the numbers of all.

    Parameters
    ----------
    session:
        What is explored.
    title:
        What the page is called.

    Examples
    --------
    >>> import torch, whence as wh
    >>> from whence.explore import SampleSession
    >>> from whence.explore.sample_answers import SampleAnswers
    >>> x = torch.linspace(-1, 1, 20).double()[:, None]
    >>> model = torch.nn.Linear(1, 2, dtype=torch.float64)
    >>> data = x, (x[:, 0] > 0).long()
    >>> influence = wh.Influence(model, data, wh.CrossEntropy(), damping=1e-3)
    >>> answers = SampleAnswers(SampleSession(influence, data), "line")
    >>> answers.model()["groups"], answers.model()["input"]["kind"]
    (['0', '1'], 'row')
    >>> page = answers.tests(start=5, count=3)
    >>> page["total"], [row["index"] for row in page["rows"]]
    (20, [5, 6, 7])
    """

    def __init__(self, session: SampleSession, title: str = "model") -> None:
        self.session = session
        self.title = title
        self._view = InputView.of(session.training)
        self._row: tuple[int, Attribution] | None = None
        """The last test sample that was explained, of which several things are asked."""

    # --- what is there ---

    def model(self) -> JsonObject:
        """Return what the page needs to know before any question."""
        session = self.session
        has_predictions = "predicted" in session.test_outcomes
        # Probabilities as labels are no classes that could be confused.
        is_label = session.target_kind == "label"
        is_classifier = session.is_classifier and is_label and has_predictions
        summary: JsonObject = {"loss": float(session.test_outcomes["loss"].mean())}
        if is_classifier:
            is_right = self._predicted_groups() == session.test_groups()
            summary["accuracy"] = float(is_right.mean())

        # Their numbers in the data, by which a sample is given another label.
        classes = session.groups.classes
        return {
            "title": self.title,
            "n_training": len(session.training),
            "n_test": len(session.test),
            "target": session.target_kind,
            "is_classifier": is_classifier,
            "has_predictions": has_predictions,
            "groups": list(session.groups.names),
            "classes": None if classes is None else classes.tolist(),
            "input": self._input(),
            "page": PAGE,
            "summary": summary,
        }

    def _input(self) -> JsonObject:
        """Return how inputs are shown."""
        view = self._view
        columns = list(SUMMARY)
        if view.kind == "row":
            n = int(np.prod(view.shape, dtype=int))
            names = self.session.features
            # Names that do not fit the columns would be at the wrong ones.
            has_names = names is not None and len(names) == n
            columns = [f"x{k}" for k in range(n)]
            if names is not None and has_names:
                columns = names
        elif view.kind != "other":
            columns = []

        sizes = {}
        if view.kind == "image":
            sizes = {name: list(view.size(side)) for name, side in SIDES.items()}
        return {
            "kind": view.kind,
            "shape": list(view.shape),
            "columns": columns,
            "sizes": sizes,
            "low": view.low,
            "high": view.high,
        }

    def training(self) -> np.ndarray:
        """Return the group and the label or value of every training sample, (2, n)."""
        labels = self.session.training.labels()
        groups = self.session.training_groups().astype(float)
        if labels is None:
            labels = np.full(len(groups), np.nan)
        return np.stack([groups, labels.astype(float)])

    def inputs(
        self, of: str, indices: Sequence[int], size: str = "small"
    ) -> np.ndarray:
        """Return the numbers to show of some samples, (k, numbers).

        Parameters
        ----------
        of:
            ``"test"`` or ``"training"``.
        indices:
            Their numbers there.
        size:
            Of images, one of :data:`SIDES`.
        """
        _checks.one_of("kind of samples", of, ("test", "training"))
        _checks.one_of("size of images", size, SIDES)
        samples = self.session.test if of == "test" else self.session.training
        if len(indices) > PAGE:
            raise ValueError(f"at most {PAGE} samples at once, got {len(indices)}")
        for index in indices:
            if not 0 <= index < len(samples):
                raise ValueError(
                    f"{of} samples are numbered 0 … {len(samples) - 1}, got {index}"
                )
        return self._view.numbers(samples[torch.tensor(list(indices))], SIDES[size])

    # --- test samples ---

    def tests(
        self,
        start: int = 0,
        count: int = PAGE,
        order: str = "number",
        label: int | None = None,
        predicted: int | None = None,
    ) -> JsonObject:
        """Return some test samples with their labels, predictions and losses.

        Parameters
        ----------
        start, count:
            Which of those that are wanted.
        order:
            One of :data:`ORDERS`.
        label, predicted:
            Groups that they must be of, and be predicted to be of.
        """
        _checks.one_of("order", order, ORDERS)
        chosen = self._members(False, label, predicted)
        losses = self.session.test_outcomes["loss"]
        if order == "wrong" and self.session.is_classifier:
            is_wrong = self._predicted_groups() != self.session.test_groups()
            chosen = chosen[is_wrong[chosen]]
        if order != "number":
            chosen = chosen[np.argsort(-losses[chosen], kind="stable")]

        part = chosen[_part(start, count)]
        return {"total": len(chosen), "rows": self._rows(False, part)}

    def _predicted_groups(self, is_training: bool = False) -> np.ndarray:
        """Return the group that each sample is predicted to be of."""
        session = self.session
        outcomes = session.training_outcomes if is_training else session.test_outcomes
        if "predicted" not in outcomes:
            return np.full(len(outcomes["loss"]), -1)
        return session.groups.places(outcomes["predicted"])

    def _members(
        self, is_training: bool, label: int | None, predicted: int | None
    ) -> np.ndarray:
        """Return the numbers of samples of a label and of a prediction."""
        session = self.session
        groups = session.training_groups() if is_training else session.test_groups()
        is_wanted = np.ones(len(groups), dtype=bool)
        if label is not None:
            is_wanted &= groups == label
        if predicted is not None:
            is_wanted &= self._predicted_groups(is_training) == predicted
        return np.flatnonzero(is_wanted)

    def _rows(self, is_training: bool, indices: np.ndarray) -> Table:
        """Return what is known of samples, one after the other."""
        session = self.session
        samples = session.training if is_training else session.test
        outcomes = session.training_outcomes if is_training else session.test_outcomes
        groups = session.training_groups() if is_training else session.test_groups()

        columns: dict[str, np.ndarray] = {"index": indices, "group": groups[indices]}
        labels = samples.labels()
        if labels is not None:
            columns["label"] = labels[indices]
        if "predicted" in outcomes:
            columns["predicted_group"] = self._predicted_groups(is_training)[indices]
        for name, values in outcomes.items():
            columns[name] = values[indices]

        lists: dict[str, Sequence[object]] = {}
        for name, values in columns.items():
            is_real = values.dtype.kind == "f"
            lists[name] = _numbers(values) if is_real else values.tolist()

        # One mapping for each sample.
        rows: Table = []
        for entries in zip(*lists.values(), strict=True):
            rows.append(dict(zip(lists, entries, strict=True)))
        return rows

    # --- what is asked of one ---

    def influence(self, i: int) -> np.ndarray:
        """Return the influence of every training sample on the loss of a test sample, (n,)."""
        return np.asarray(self._influence_at(i).values, dtype=float)

    def sample(self, i: int) -> JsonObject:
        """Return what is known of a test sample, and how far its influences can be trusted."""
        row = self._influence_at(i)
        (known,) = self._rows(False, np.array([i]))
        return {**known, "quality": str(quality(row))}

    def _influence_at(self, i: int) -> Attribution:
        if self._row is None or self._row[0] != i:
            self._row = i, self.session.influence_at(i)
        return self._row[1]

    # --- classes ---

    def confusion(self) -> JsonObject:
        """Return the confusion matrix: numbers of groups, and counts (label, predicted)."""
        counts = self.session.confusion()
        return self._matrix(counts.values)

    def by_class(self, reduce: Reduce) -> JsonObject:
        """Return influence by test label and training label, see the session."""
        return self._matrix(self.session.by_class(reduce).values)

    def _matrix(self, table: np.ndarray) -> JsonObject:
        shown = self.session.shown_groups().tolist()
        return {"groups": shown, "values": [_numbers(row) for row in table]}

    # --- suspects ---

    def suspects(
        self,
        by: By,
        start: int = 0,
        count: int = PAGE,
        label: int | None = None,
        predicted: int | None = None,
    ) -> JsonObject:
        """Return some training samples, the most suspicious first.

        Parameters are those of :meth:`tests`; ``by`` is one of
        :func:`whence.evaluation.bad_data.suspects`.
        """
        ranked = self.session.suspects(by)
        rank = ranked["rank"].values
        members = self._members(True, label, predicted)
        ordered = members[np.argsort(rank[members], kind="stable")]
        part = ordered[_part(start, count)]

        rows = self._rows(True, part)
        suspicion = ranked["suspicion"].values
        for row, index in zip(rows, part, strict=True):
            row["rank"] = int(rank[index])
            row["suspicion"] = float(suspicion[index])
        text = str(ranked.attrs.get("quality", ""))
        return {"total": len(ordered), "rows": rows, "quality": text}


def _part(start: int, count: int) -> slice:
    """Return which of many samples are sent, a page of them at most."""
    _checks.count("start", start, zero=True)
    _checks.count("count", count)
    return slice(start, start + min(count, PAGE))


def _numbers(values: np.ndarray) -> list[float | None]:
    """Return numbers as JSON has them, which knows none that is not finite."""
    return [float(value) if np.isfinite(value) else None for value in values]
