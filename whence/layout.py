"""Which derivatives a jet carries, and in which order of channels."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

MultiIndex = tuple[int, ...]
"""By which coordinates a derivative is taken: () is the value, (0, 1) the mixed second one."""
MAX_ORDER = 2


class UnsupportedOperation(NotImplementedError):
    """An operation, or a derivative order, that jets do not carry."""


class Layout:
    """Which derivatives a jet carries, closed under leaving out a factor.

    ``indices[c]`` is the sorted multi-index of channel c: ``()`` is the value, ``(0,)`` the
    derivative with respect to coordinate 0, ``(0, 1)`` the mixed one. Use :func:`layout` to build
    one.
    """

    def __init__(self, indices: tuple[MultiIndex, ...]) -> None:
        self.indices = indices
        self.position = {index: c for c, index in enumerate(indices)}
        """The channel of each multi-index."""
        self.order = max(len(index) for index in indices)

        # Of first derivatives the number among them by coordinate.
        number: dict[int, int] = {}
        pairs = []
        for index in indices:
            if len(index) == 1:
                (i,) = index
                number[i] = len(number)
            elif len(index) == 2:
                i, j = index
                pairs.append((number[i], number[j]))
        self.pairs = tuple(pairs)
        """For each second derivative, which two of the first ones it comes from."""

        sizes = [1, len(number), len(pairs)]
        self.sizes = sizes[: 1 + self.order]
        """Channels of the value, of the first and of the second derivatives."""

    def __len__(self) -> int:
        return len(self.indices)


def layout(requested: Iterable[MultiIndex]) -> Layout:
    """Return the smallest layout that carries every requested multi-index.

    Raises
    ------
    UnsupportedOperation
        If an order above two is asked for.
    """
    # Derivatives commute, so that the order of coordinates in an index does not matter.
    wanted = frozenset(tuple(sorted(index)) for index in requested)
    return _layout(wanted)


@lru_cache(maxsize=256)
def _layout(requested: frozenset[MultiIndex]) -> Layout:
    # A second derivative of a product or a composition takes both first ones and the value.
    closed: set[MultiIndex] = {()}
    for index in requested:
        if len(index) > MAX_ORDER:
            raise UnsupportedOperation(
                f"jets carry derivatives to order {MAX_ORDER}, not {index}"
            )
        closed.add(index)
        closed.update((i,) for i in index)

    by_order = sorted(closed, key=lambda index: (len(index), index))
    return Layout(tuple(by_order))
