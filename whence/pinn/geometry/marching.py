"""The zero set of a function on a grid, as segments or triangles (marching simplices)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator

import numpy as np

from whence.pinn.geometry.charts import Mask
from whence.pinn.geometry.samplings import Array
from whence.pinn.geometry.simplices import Indices

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
    lowest = ids[tuple(slice(0, -1) for _ in shape)].reshape(-1)  # of each cell

    # Only cells with both signs are cut up further.
    offsets = [sum(corner) for corner in itertools.product(*((0, s) for s in strides))]
    signs = inside[lowest[:, None] + np.array(offsets)]
    mixed = lowest[signs.any(axis=1) & ~signs.all(axis=1)]

    # A cell is d! simplices, one for each order in which to walk along its sides (Kuhn).
    for order in itertools.permutations(strides):
        steps = np.concatenate([[0], np.cumsum(order)])
        simplices = mixed[:, None] + steps
        simplex_signs = inside[simplices]
        has_both = simplex_signs.any(axis=1) & ~simplex_signs.all(axis=1)
        yield simplices[has_both]


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
        # The node alone first: inside ones first where it is inside.
        key = inside[chosen] if count == d else ~inside[chosen]
        order = np.argsort(key, axis=1, kind="stable")
        ordered = np.take_along_axis(simplices[chosen], order, axis=1)
        ends = [
            np.stack([ordered[:, 0], ordered[:, k]], axis=1) for k in range(1, d + 1)
        ]
        pairs.append(np.stack(ends, axis=1))

    if d == 3:
        chosen = n_inside == 2
        order = np.argsort(~inside[chosen], axis=1, kind="stable")
        a, b, p, q = np.take_along_axis(simplices[chosen], order, axis=1).T
        # Around the quadrangle: ap, aq, bq, bp.
        ap, aq = np.stack([a, p], axis=1), np.stack([a, q], axis=1)
        bp, bq = np.stack([b, p], axis=1), np.stack([b, q], axis=1)
        pairs.append(np.stack([ap, aq, bq], axis=1))
        pairs.append(np.stack([ap, bq, bp], axis=1))

    return np.sort(np.concatenate(pairs), axis=2)


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
