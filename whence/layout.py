"""Which derivatives a jet carries, in which order of channels, and the sums that its rules take.

A multi-index α is the sorted tuple of coordinates by which a derivative is taken. Written as
numbers α_i of how often coordinate i occurs, ``β ≤ α`` means ``β_i ≤ α_i`` for all i, and
``C(α, β) = Π_i C(α_i, β_i)`` counts in how many ways β is chosen from α. A layout is closed
downward: with α it has every β ≤ α, which is all that α's product and chain rules take.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import cached_property, lru_cache
from typing import NamedTuple

MultiIndex = tuple[int, ...]
"""By which coordinates a derivative is taken: () is the value, (0, 1) the mixed second one."""
MAX_CHANNELS = 128
"""So many derivatives are carried at most: order 4 in five coordinates has 126."""


class UnsupportedOperation(NotImplementedError):
    """An operation, or a number of derivatives, that jets do not carry."""


class Term(NamedTuple):
    """A product ``times · left[a] · right[b]`` of a sum, by its factors' places."""

    times: int
    a: int
    b: int


Terms = tuple[Term, ...]
"""A sum of products. One that is led by a product that counts once has that first."""


class Composition(NamedTuple):
    """The sums by which derivatives of f(u) come from those of u, one for each channel.

    The value's are empty.
    """

    chains: tuple[Terms, ...]
    """The chain rule ``y_{β+i} = Σ_{γ ≤ β} C(β, γ) w_γ u_{β−γ+i}``, w being the jet of f′(u)."""
    inner: frozenset[int]
    """The channels of w that :attr:`chains` takes."""
    monomials: tuple[tuple[int, int], ...]
    """Products of two or more derivatives of u, each as an earlier product and a channel by which
    it is multiplied; products are numbered after the channels."""
    partitions: tuple[Terms, ...]
    """Faà di Bruno's formula over the partitions π of α into blocks,
    ``f(u)_α = Σ_π f^(|π|)(u) Π_{β ∈ π} u_β``: terms ``times · f⁽ᵃ⁾(u) · product b``."""


class Layout:
    """Which derivatives a jet carries, closed downward.

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
        self.n_affine = sum(self.sizes[:2])
        """Channels of a function whose derivatives above the first vanish."""

    def __len__(self) -> int:
        return len(self.indices)

    # What follows is needed above second order only, and made when asked for.

    @cached_property
    def products(self) -> tuple[Terms, ...]:
        """Leibniz' rule, ``(a b)_α = Σ_{β ≤ α} C(α, β) a_β b_{α−β}``; β = () comes first."""
        sums = []
        for index in self.indices:
            terms = []
            for part, rest, count in _splits(index):
                a = self.position[part]
                b = self.position[rest]
                terms.append(Term(count, a, b))
            sums.append(tuple(terms))

        return tuple(sums)

    @cached_property
    def transposed_products(self) -> tuple[Terms, ...]:
        """The transpose of :attr:`products`, ``Σ_{α ≥ β} C(α, β) g_α b_{α−β}`` for each β.

        The term of α = β comes first.
        """
        sums: list[list[Term]] = [[] for _ in self.indices]
        for channel, terms in enumerate(self.products):
            for count, part, rest in terms:
                term = Term(count, channel, rest)
                sums[part].append(term)

        # Channels are sorted by order, so that α = β, with the least of α, came first.
        return tuple(map(tuple, sums))

    @cached_property
    def squares(self) -> tuple[Terms, ...]:
        """What ``(y²)_α`` has beside ``2 y y_α``: ``Σ_{0 < β < α} C(α, β) y_β y_{α−β}``.

        A pair of different factors comes once, with twice its count. The value's sum is empty.
        """
        sums = []
        for terms in self.products:
            pairs = []
            for count, a, b in terms[1:-1]:  # without β = () and β = α
                if a == b:
                    pairs.append(Term(count, a, b))
                elif a < b:
                    pairs.append(Term(2 * count, a, b))
            sums.append(tuple(pairs))

        return tuple(sums)

    @cached_property
    def compositions(self) -> Composition:
        """The rules of f(u) where u has all channels."""
        return _composition(self, len(self))

    @cached_property
    def affine_compositions(self) -> Composition:
        """The rules of f(u) where u has no derivatives above the first: ``f⁽ᵏ⁾(u) Π_i u_i``."""
        return _composition(self, self.n_affine)

    def composition(self, n_channels: int) -> Composition:
        """Return the rules of f(u) where u has so many channels, all or :attr:`n_affine`."""
        if n_channels == len(self):
            return self.compositions
        return self.affine_compositions


def layout(requested: Iterable[MultiIndex]) -> Layout:
    """Return the smallest layout that carries every requested multi-index.

    Raises
    ------
    UnsupportedOperation
        If it would have more than ``MAX_CHANNELS`` channels.
    """
    # Derivatives commute, so that the order of coordinates in an index does not matter.
    wanted = frozenset(tuple(sorted(index)) for index in requested)
    return _layout(wanted)


@lru_cache(maxsize=256)
def _layout(requested: frozenset[MultiIndex]) -> Layout:
    closed: set[MultiIndex] = {()}
    for index in requested:
        # Counted before they are made: Π_i (α_i + 1) multi-indices are no greater than α.
        n_channels = math.prod(often + 1 for often in Counter(index).values())
        if n_channels <= MAX_CHANNELS:
            parts = (part for part, _, _ in _splits(index))
            closed.update(parts)
            n_channels = len(closed)

        if n_channels > MAX_CHANNELS:
            raise UnsupportedOperation(
                f"jets carry at most {MAX_CHANNELS} derivatives; a derivative of order "
                f"{len(index)} by {len(set(index))} coordinate(s), with all lower ones, needs "
                f"{n_channels}"
            )

    by_order = sorted(closed, key=lambda index: (len(index), index))
    return Layout(tuple(by_order))


def _composition(layout: Layout, n_channels: int) -> Composition:
    """Return the rules of f(u) where u has the first channels alone and the others vanish."""
    chains = tuple(_chain(layout, index, n_channels) for index in layout.indices)
    inner = frozenset(term.a for terms in chains for term in terms)

    # A product of k channels is numbered when first met, after those that begin it.
    numbers: dict[tuple[int, ...], int] = {
        (channel,): channel for channel in range(n_channels)
    }
    monomials: list[tuple[int, int]] = []

    def numbered(factors: tuple[int, ...]) -> int:
        if factors not in numbers:
            begun = numbered(factors[:-1])
            numbers[factors] = n_channels + len(monomials)
            monomials.append((begun, factors[-1]))
        return numbers[factors]

    sums: list[Terms] = [()]
    for index in layout.indices[1:]:
        partitions = _partitions(index)
        terms = []
        # The fewest blocks first: f′(u) u_α leads, which counts once.
        for blocks in sorted(partitions, key=lambda blocks: (len(blocks), blocks)):
            factors = sorted(layout.position[block] for block in blocks)
            is_left_out = factors[-1] >= n_channels
            if is_left_out:
                continue

            product = numbered(tuple(factors))
            term = Term(partitions[blocks], len(blocks), product)
            terms.append(term)

        sums.append(tuple(terms))

    return Composition(chains, inner, tuple(monomials), tuple(sums))


def _chain(layout: Layout, index: MultiIndex, n_channels: int) -> Terms:
    """Return Leibniz' rule of ``y_i = w u_i``, differentiated by β, where α = β + i."""
    if not index:
        return ()

    # Of all i in α the one for which the fewest terms arise, Π_j (β_j + 1): that of least α_i.
    often = Counter(index)
    i = min(often, key=lambda coordinate: (often[coordinate], coordinate))
    place = index.index(i)
    lower = index[:place] + index[place + 1 :]

    terms = []
    for part, rest, count in _splits(lower):
        with_i = tuple(sorted((*rest, i)))
        a = layout.position[part]
        b = layout.position[with_i]
        if b < n_channels:
            terms.append(Term(count, a, b))

    return tuple(terms)


def _splits(index: MultiIndex) -> Iterator[tuple[MultiIndex, MultiIndex, int]]:
    """Yield every β ≤ α with α − β and ``C(α, β)``, from β = () to β = α."""
    often = Counter(index)
    ranges = [range(count + 1) for count in often.values()]
    for taken in itertools.product(*ranges):
        part: list[int] = []
        rest: list[int] = []
        count = 1
        choices = zip(often.items(), taken, strict=True)
        for (coordinate, total), chosen in choices:
            left = total - chosen
            part.extend([coordinate] * chosen)
            rest.extend([coordinate] * left)
            count *= math.comb(total, chosen)
        yield tuple(part), tuple(rest), count


@lru_cache(maxsize=1024)
def _partitions(index: MultiIndex) -> dict[tuple[MultiIndex, ...], int]:
    """Return the partitions of α into blocks, with how many partitions of its places each is."""
    if not index:
        return {(): 1}

    # The block that has the first place takes γ of the rest, in C(rest, γ) ways.
    first, *others = index
    counts: Counter[tuple[MultiIndex, ...]] = Counter()
    for part, rest, ways in _splits(tuple(others)):
        block = (first, *part)
        for blocks, count in _partitions(rest).items():
            joined = tuple(sorted((block, *blocks)))
            counts[joined] += ways * count

    return dict(counts)
