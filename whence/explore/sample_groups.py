"""The groups that samples are looked at in: classes of a classifier, ranges of a regression."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

RANGES = 8
"""Ranges that the values of a regression are put into, of about as many samples."""


@dataclass(frozen=True)
class Groups:
    """Classes or ranges of values, in order.

    Parameters
    ----------
    names:
        What each is called.
    classes:
        The class numbers, rising, (g,); None where groups are ranges.
    edges:
        The values between one range and the next, rising, (g − 1,); None where they are classes.

    Examples
    --------
    >>> from whence.explore.sample_groups import Groups
    >>> groups = Groups.of_classes([3, 1, 1], names=["cat", "dog"])
    >>> groups.names, groups.places([1, 3, 7]).tolist()
    (('cat', 'dog', '3'), [1, 2, -1])
    >>> ranges = Groups.of_values([0.0, 1.0, 2.0, 3.0], n=2)
    >>> ranges.names, ranges.places([-5.0, 2.5]).tolist()
    (('0 … 1', '2 … 3'), [0, 1])
    """

    names: tuple[str, ...]
    classes: np.ndarray | None = None
    edges: np.ndarray | None = None

    @classmethod
    def of_classes(
        cls, labels: Sequence[int] | np.ndarray, names: Sequence[str] | None = None
    ) -> Groups:
        """Return a group for each class that is named or that a sample has."""
        known = np.arange(len(names or ()))
        classes = np.union1d(known, np.asarray(labels, dtype=np.int64))

        words = []
        for number in classes.tolist():
            is_named = names is not None and 0 <= number < len(names)
            words.append(str(names[number]) if names and is_named else str(number))
        return cls(tuple(words), classes=classes)

    @classmethod
    def of_values(cls, values: Sequence[float] | np.ndarray, n: int = RANGES) -> Groups:
        """Return ranges that hold about as many of the values each."""
        numbers = np.asarray(values, dtype=float)
        inner = np.quantile(numbers, np.arange(1, n) / n)
        # Many equal values make some edges equal, and some ranges empty.
        edges = np.unique(inner)
        places = np.searchsorted(edges, numbers, side="right")
        present = np.unique(places)

        names = []
        for place in present:
            inside = numbers[places == place]
            low, high = inside.min(), inside.max()
            names.append(f"{low:.3g}" if low == high else f"{low:.3g} … {high:.3g}")
        # Between two ranges that hold values lies the edge below the second one.
        return cls(tuple(names), edges=edges[present[1:] - 1])

    @classmethod
    def of_nothing(cls) -> Groups:
        """Return the one group of samples that have no target of one number."""
        return cls(("all samples",), edges=np.zeros(0))

    def __len__(self) -> int:
        return len(self.names)

    def places(self, labels: Sequence[float] | np.ndarray) -> np.ndarray:
        """Return the number of each label's group, (n,), −1 for a class that is none of them."""
        numbers = np.asarray(labels)
        if self.edges is not None:
            return np.searchsorted(self.edges, numbers.astype(float), side="right")

        assert self.classes is not None
        places = np.searchsorted(self.classes, numbers)
        nearest = places.clip(0, len(self.classes) - 1)
        return np.where(self.classes[nearest] == numbers, nearest, -1)
