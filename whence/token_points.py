"""Tokens, or spans of them, as training points of their own.

A point of a language model is a text, its loss the sum over the text's tokens. To ask which tokens
an answer comes from, each becomes a sample: the whole text for input, and its own label alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from whence import _checks
from whence.data import checked_batch, named_batch

Span = tuple[int, int, int]
"""A text, its first token, and the one after the last."""


class TokenPoints(Dataset[dict[str, Tensor]]):
    """Each token of a batch by name that counts, or each of some spans, as a sample.

    The mean loss is that of the batch, as a mean over tokens is the same however they are
    collected, and so are all curvatures of the model; the effects of a text's tokens add up to
    the text's. A token costs as much as a text.

    Parameters
    ----------
    batch:
        Tensors by name with ``labels`` (n, tokens), as for ``wh.Objective.supervised``.
    spans:
        ``(text, first, stop)`` each, whose tokens are one sample; by default every token that
        counts is one.
    ignore_index:
        The label of what does not count.
    is_shifted:
        Whether labels move by one place, as for :class:`whence.NextToken`: the first token of a
        text is predicted from nothing, and is no point.

    Raises
    ------
    TypeError
        If the batch has no labels.
    ValueError
        If labels are not (n, tokens), a span is outside of them, or none of its tokens counts.

    Examples
    --------
    >>> import torch
    >>> from whence.token_points import TokenPoints
    >>> ids = torch.tensor([[5, 6, 7], [8, 9, 0]])
    >>> batch = {"input_ids": ids, "labels": ids.masked_fill(ids == 0, -100)}
    >>> points = TokenPoints(batch)
    >>> len(points), points.spans.tolist()
    (3, [[0, 1, 2], [0, 2, 3], [1, 1, 2]])
    >>> points[1]["labels"]
    tensor([-100, -100,    7])
    """

    def __init__(
        self,
        batch: Mapping[str, object],
        *,
        spans: Sequence[Span] | None = None,
        ignore_index: int = -100,
        is_shifted: bool = True,
    ) -> None:
        checked = checked_batch(
            "the batch", named_batch("the batch", batch), None, None
        )
        labels = checked.target
        if not isinstance(labels, Tensor) or labels.ndim != 2:
            raise ValueError(
                "tokens as points need labels of shape (texts, tokens), got "
                f"{_checks.describe(labels)}"
            )
        assert isinstance(checked.inputs, Mapping)
        self._inputs = dict(checked.inputs)
        # The target goes back under the name that it came by.
        (self._name,) = [name for name in batch if name not in self._inputs]
        self._labels = labels
        self._ignore_index = ignore_index

        counts = labels != ignore_index
        # Nothing comes before the first token.
        if is_shifted:
            counts[:, 0] = False
        self.spans = self._spans(counts, spans)
        """Text, first token and the one after the last of each point, (points, 3)."""

    @staticmethod
    def _spans(counts: Tensor, spans: Sequence[Span] | None) -> np.ndarray:
        if spans is None:
            # (text, token) of each, in the order of the texts.
            places = counts.nonzero()
            ends = places[:, 1:] + 1
            return torch.cat([places, ends], dim=1).numpy()

        # Before any work, as an empty sample has no loss.
        n_texts, n_tokens = counts.shape
        for text, first, stop in spans:
            is_inside = 0 <= text < n_texts and 0 <= first < stop <= n_tokens
            if not is_inside or not bool(counts[text, first:stop].any()):
                raise ValueError(
                    f"the span {(text, first, stop)} must be tokens first … stop − 1 of one of "
                    f"{n_texts} texts of {n_tokens} tokens, one of which counts at least"
                )
        return np.asarray(spans, dtype=np.int64).reshape(-1, 3)

    def __len__(self) -> int:
        return len(self.spans)

    def __getitem__(self, place: int) -> dict[str, Tensor]:
        """Return a text by name, in whose labels only the tokens of a point count."""
        text, first, stop = self.spans[place]
        # All others are as padding: known to the model, but not judged.
        labels = torch.full_like(self._labels[text], self._ignore_index)
        labels[first:stop] = self._labels[text, first:stop]
        item = {name: tensor[text] for name, tensor in self._inputs.items()}
        return {**item, self._name: labels}
