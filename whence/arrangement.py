"""Where the points are among the axes of what a network computes.

A layer may see its points on the first axis, on another one (sequences with time in front), or on
one axis with positions (rows of all tokens, below each other). Which it is shows where the sizes
at one point and at several are compared; in which order points and positions share an axis, where
the numbers are.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from whence.coupling import differ


@dataclass(frozen=True)
class Arrangement:
    """Where n points are in a tensor: on an axis, each with some entries of it.

    Parameters
    ----------
    axis:
        The axis.
    entries:
        How many entries of the axis each point has.
    points_first:
        Whether the entries of a point lie together; False where those of a position do.

    Examples
    --------
    >>> import torch
    >>> from whence.arrangement import Arrangement
    >>> rows = torch.arange(6).unsqueeze(1)                 # two points of three positions each
    >>> Arrangement(0, 3, points_first=True).of(rows).flatten(1)
    tensor([[0, 1, 2],
            [3, 4, 5]])
    >>> Arrangement(0, 3, points_first=False).of(rows).flatten(1)
    tensor([[0, 2, 4],
            [1, 3, 5]])
    """

    axis: int
    entries: int
    points_first: bool = True

    def of(self, tensor: Tensor) -> Tensor:
        """Return the tensor as (n, ...), what follows being in the shape of one point's."""
        axis = self.axis
        n = tensor.shape[axis] // self.entries
        if self.points_first:
            by_point = tensor.unflatten(axis, (n, self.entries))
            return by_point.movedim(axis, 0)

        # A view, as splitting an axis and moving it take no copy.
        by_position = tensor.unflatten(axis, (self.entries, n))
        return by_position.movedim(axis + 1, 0)

    def is_axis(self, axis: int) -> bool:
        """Whether each point is one entry of this axis."""
        return self.axis == axis and self.entries == 1

    def fits(self, n: int, shape: tuple[int, ...], single: tuple[int, ...]) -> bool:
        """Whether a shape is that of n points where ``single`` is that of one."""
        sizes = list(single)
        sizes[self.axis] *= n
        return list(shape) == sizes


def is_shared(shape: tuple[int, ...], single: tuple[int, ...]) -> bool:
    """Whether several points have the shape that one has, so that it has no axis of points."""
    return shape == single


def arrangement_of(several: Tensor, single: Tensor, n: int) -> Arrangement | None:
    """Return where n points are in a tensor, by comparison with that of the first one alone.

    None where the sizes do not tell, or the order on an axis cannot be told from the numbers.
    """
    shape, alone = several.shape, single.shape
    if len(shape) != len(alone) or n < 2:
        return None

    # Only the axis of the points changes its size with their number.
    axes = [axis for axis in range(len(shape)) if shape[axis] != alone[axis]]
    if len(axes) != 1 or shape[axes[0]] != n * alone[axes[0]]:
        return None

    (axis,) = axes
    entries = alone[axis]
    if entries == 1:
        return Arrangement(axis, 1)

    # In the right order the first point is what it is alone.
    orders = []
    for points_first in (True, False):
        order = Arrangement(axis, entries, points_first)
        first = order.of(several)[0]
        if not differ(_real(first), _real(single)):
            orders.append(order)
    return orders[0] if len(orders) == 1 else None


def _real(values: Tensor) -> Tensor:
    """Return numbers that can be compared up to rounding: indices as real ones."""
    return values if values.dtype.is_floating_point else values.double()
