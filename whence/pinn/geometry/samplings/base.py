"""What every sampling is, and the one call for all of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import ClassVar, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from whence._checks import count
from whence.catalogue import SAMPLINGS

Array = NDArray[np.float64]

MAX_DRAWN = 2**15
"""Points drawn at once: what drawing holds beside its result does not grow with their number."""


class Sampling(Protocol):
    """A rule that spreads points over the unit cube [0, 1)^dimension."""

    may_return_fewer: ClassVar[bool]
    """Whether fewer than n points may come back, since only some numbers are possible."""
    is_ordered: ClassVar[bool]
    """Whether the first coordinate rises: the points must then be thinned, not cut off."""

    def points(self, n: int, dimension: int, seed: int | None) -> Array:
        """Return points of the unit cube, (n, dimension); the dimension is at least one."""


@runtime_checkable
class WeightedSampling(Sampling, Protocol):
    """A rule whose points have weights: a quadrature rule of the unit cube."""

    def weights(self, n: int, dimension: int) -> Array:
        """Return the weight of each of :meth:`points`, of mean 1, so that means are integrals."""


@runtime_checkable
class BlockwiseSampling(Sampling, Protocol):
    """A rule whose points can be drawn one part after another."""

    def blocks(
        self, n: int, dimension: int, seed: int | None, size: int
    ) -> Iterator[Array]:
        """Yield the rows of :meth:`points` in their order, ``size`` at a time."""


def tensor_product(axes: Sequence[Array]) -> Array:
    """Return all combinations of the numbers along each axis, (·, axes), the last one fastest."""
    mesh = np.meshgrid(*axes, indexing="ij")
    return np.stack(mesh, axis=-1).reshape(-1, len(axes))


def sampling_of(method: str) -> Sampling:
    """Return the sampling of this name; an unknown one is an error that names the nearest."""
    sampling: Sampling = SAMPLINGS[method]()
    return sampling


def unit_points(
    n: int, dimension: int, method: str = "hammersley", seed: int | None = None
) -> Array:
    """Return points spread over the unit cube [0, 1)^dimension.

    Parameters
    ----------
    n
        How many points; for ``"grid"``, at most how many.
    dimension
        Columns of the result. With zero, all methods but ``"grid"`` return n empty rows.
    method
        - ``"hammersley"``: (i + 1/2)/n, then the radical inverses of i + 1 in bases 2, 3, 5, …;
          no coordinate is ever zero. An integer seed shifts all points by one random vector,
          modulo one (Cranley and Patterson, 1976).
        - ``"sobol"``, ``"halton"``: scrambled sequences.
        - ``"latin_hypercube"``: one point in each of n slices along every coordinate.
        - ``"grid"``: the centres of equal cells, k or k + 1 of them along each coordinate, as
          many as do not exceed n. The number returned can be smaller than n; no seed is used.
        - ``"gauss_legendre"``, ``"gauss_legendre_panels"``: nodes of Gauss–Legendre rules, the
          same number along each coordinate; ``pinn.train`` takes their weights too.
        - ``"random"``: independent and uniform.
    seed
        Equal seeds give equal points. ``None`` gives the plain Hammersley set, and fresh
        entropy to the methods that are random by nature. No global random state is used.

    Returns
    -------
    numpy.ndarray
        Points in float64, shape (n, dimension).

    Examples
    --------
    >>> unit_points(4, 2)
    array([[0.125, 0.5  ],
           [0.375, 0.25 ],
           [0.625, 0.75 ],
           [0.875, 0.125]])
    >>> unit_points(5, 2, "grid").shape
    (4, 2)
    """
    count("n", n)
    count("dimension", dimension, zero=True)
    if seed is not None:
        count("seed", seed, zero=True)

    sampling = sampling_of(method)
    # A single point, such as an end of a line: it cannot be spread.
    if dimension == 0:
        return np.zeros((1 if sampling.may_return_fewer else n, 0))

    unit = sampling.points(n, dimension, seed)
    return half_open(unit)


def unit_blocks(
    n: int, dimension: int, method: str, seed: int | None
) -> Iterator[Array]:
    """Yield the rows of :func:`unit_points` in order, at most ``MAX_DRAWN`` at a time.

    A rule that is not blockwise draws them all before the first is yielded.

    Examples
    --------
    >>> [len(block) for block in unit_blocks(70_000, 2, "hammersley", seed=None)]
    [32768, 32768, 4464]
    """
    sampling = sampling_of(method)
    if dimension > 0 and isinstance(sampling, BlockwiseSampling):
        for block in sampling.blocks(n, dimension, seed, MAX_DRAWN):
            yield half_open(block)
        return

    unit = unit_points(n, dimension, method, seed)
    for start in range(0, len(unit), MAX_DRAWN):
        yield unit[start : start + MAX_DRAWN]


def block_sizes(n: int, size: int) -> Iterator[int]:
    """Yield the sizes of the blocks that n rows make, the last of which may be smaller.

    Examples
    --------
    >>> list(block_sizes(5, size=2))
    [2, 2, 1]
    """
    for start in range(0, n, size):
        yield min(size, n - start)


def half_open(unit: Array) -> Array:
    """Return points of the closed unit cube, those on its far sides moved inside by rounding."""
    # Rounding may put a point of a half-open slice on its far end.
    return np.minimum(unit, np.nextafter(1.0, 0.0))
