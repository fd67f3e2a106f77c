"""The zero set of a function on a grid, as segments or triangles (marching simplices)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator

import numpy as np

from whence.pinn.geometry.charts import Mask
from whence.pinn.geometry.rays import Indices
from whence.pinn.geometry.samplings import Array

BISECTIONS = 50
"""Halvings of an edge of the grid in search of the zero on it."""


def zero_facets(
    function: Callable[[Array], Array],
    nodes: Array,
    values: Array,
    shape: tuple[int, ...],
) -> Array:
    """Return facets (F, d, d) whose corners lie on the zero set of a function.

    Parameters
    ----------
    function
        Function of points (n, d) that returns (n,).
    nodes
        Points of a grid (N, d), the last coordinate fastest, d = 2 or 3.
    values
        The function there, (N,).
    shape
        Nodes along each coordinate.

    Examples
    --------
    >>> axis = np.linspace(-1.05, 1.05, 22)
    >>> nodes = np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1).reshape(-1, 2)
    >>> def circle(points): return np.hypot(*points.T) - 0.9
    >>> facets = zero_facets(circle, nodes, circle(nodes), (22, 22))
    >>> length = np.linalg.norm(facets[:, 1] - facets[:, 0], axis=1).sum()
    >>> round(float(length) / (2 * np.pi * 0.9), 2)
    1.0
    """
    inside = values < 0
    pairs = []  # of nodes, between which each corner of each facet lies
    for simplices in cut_simplices(inside, shape):
        pairs.append(facet_edges(simplices, inside[simplices]))
    edges = np.concatenate(pairs)  # (F, d, 2)

    # Facets next to each other share the edges of the grid that they end on.
    d = len(shape)
    distinct, which = np.unique(edges.reshape(-1, 2), axis=0, return_inverse=True)
    corners = bisect(function, nodes[distinct[:, 0]], nodes[distinct[:, 1]])
    return corners[which.reshape(-1)].reshape(-1, d, d)


def cut_simplices(inside: Mask, shape: tuple[int, ...]) -> Iterator[Indices]:
    """Yield simplices (S, d + 1) of a grid, rows of its nodes, that have both signs."""
    d = len(shape)
    strides = [math.prod(shape[k + 1 :]) for k in range(d)]
    ids = np.arange(math.prod(shape)).reshape(shape)
    all_but_last = tuple(slice(0, -1) for _ in shape)
    lowest = ids[all_but_last].reshape(-1)  # the first node of each cell

    # Only cells with both signs are cut up further.
    corners = itertools.product(*((0, stride) for stride in strides))
    offsets = np.array([sum(corner) for corner in corners])
    mixed = lowest[_has_both(inside[lowest[:, None] + offsets])]

    # A cell is d! simplices, one for each order in which to walk along its sides (Kuhn).
    for order in itertools.permutations(strides):
        steps = np.concatenate([[0], np.cumsum(order)])
        simplices = mixed[:, None] + steps
        yield simplices[_has_both(inside[simplices])]


def _has_both(signs: Mask) -> Mask:
    """Return which rows (n,) of booleans (n, k) hold both of them."""
    return np.asarray(signs.any(axis=1) & ~signs.all(axis=1))


def facet_edges(simplices: Indices, inside: Mask) -> Indices:
    """Return for each corner of the cut through a simplex the edge that it lies on, (F, d, 2).

    The cut parts the nodes inside from the others: a segment or triangle where one node is
    alone, two triangles where a tetrahedron has two of each.
    """
    d = simplices.shape[1] - 1
    n_inside = inside.sum(axis=1)
    pairs = []

    for count in (1, d):
        chosen = n_inside == count
        # The node that is alone comes first.
        is_first = inside[chosen] if count == 1 else ~inside[chosen]
        nodes = _sorted_by(simplices[chosen], ~is_first)
        ends = [nodes[:, [0, k]] for k in range(1, d + 1)]
        pairs.append(np.stack(ends, axis=1))

    if d == 3:
        chosen = n_inside == 2
        # Nodes a and b are inside, p and q outside.
        nodes = _sorted_by(simplices[chosen], ~inside[chosen])
        ap = nodes[:, [0, 2]]
        aq = nodes[:, [0, 3]]
        bq = nodes[:, [1, 3]]
        bp = nodes[:, [1, 2]]
        # In turn around the quadrangle, which is cut along a diagonal.
        pairs.append(np.stack([ap, aq, bq], axis=1))
        pairs.append(np.stack([ap, bq, bp], axis=1))

    return np.sort(np.concatenate(pairs), axis=2)


def _sorted_by(simplices: Indices, key: Mask) -> Indices:
    """Return the nodes of simplices, those with a false key first."""
    order = np.argsort(key, axis=1, kind="stable")
    return np.take_along_axis(simplices, order, axis=1)


def bisect(function: Callable[[Array], Array], start: Array, end: Array) -> Array:
    """Return the zeros (n, d) of a function between points at which its signs differ."""
    start_inside = function(start) < 0
    # From inside to outside, whichever end that was.
    low = np.where(start_inside[:, None], start, end)
    high = np.where(start_inside[:, None], end, start)
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        is_inside = (function(middle) < 0)[:, None]
        low = np.where(is_inside, middle, low)
        high = np.where(is_inside, high, middle)
    return np.asarray((low + high) / 2)
