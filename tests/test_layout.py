import math

import pytest

from whence import layout as module
from whence.layout import UnsupportedOperation, layout

BELL = [1, 1, 2, 5, 15, 52, 203]
STIRLING_6 = [1, 31, 90, 65, 15, 1]
"""Partitions of six things into one to six blocks."""


@pytest.mark.parametrize(
    ("requested", "indices"),
    [
        ([], [()]),
        ([(0, 0, 0)], [(), (0,), (0, 0), (0, 0, 0)]),
        ([(1, 0, 0)], [(), (0,), (1,), (0, 0), (0, 1), (0, 0, 1)]),
        ([(2,), (0, 0, 0)], [(), (0,), (2,), (0, 0), (0, 0, 0)]),
    ],
)
def test_a_layout_is_closed_downward_and_no_larger(requested, indices):
    assert layout(requested).indices == tuple(indices)


def test_the_counts_are_those_of_leibniz():
    lay = layout([(0, 0, 0, 1, 1)])
    top = {(a, b): count for count, a, b in lay.products[-1]}
    assert len(top) == 4 * 3
    for (a, b), count in top.items():
        x, y = lay.indices[a].count(0), lay.indices[a].count(1)
        assert count == math.comb(3, x) * math.comb(2, y)
        assert sorted((*lay.indices[a], *lay.indices[b])) == [0, 0, 0, 1, 1]
    # The sum over β of C(α, β) is 2^|α|, with and without the pairs of squares.
    assert sum(top.values()) == 2**5
    assert sum(term.times for term in lay.squares[-1]) == 2**5 - 2
    assert sum(term.times for term in lay.compositions.chains[-1]) == 2**4


def test_the_transposed_sums_are_the_transpose():
    lay = layout([(0, 0, 1), (1, 1, 1, 1)])
    plain = {(c, a, b, n) for c, ts in enumerate(lay.products) for n, a, b in ts}
    back = {
        (c, a, b, n) for a, ts in enumerate(lay.transposed_products) for n, c, b in ts
    }
    assert plain == back
    for channel, terms in enumerate(lay.transposed_products):
        assert terms[0] == (1, channel, 0)


@pytest.mark.parametrize("index", [(0,) * 6, (0, 1, 2, 3, 4, 5), (0, 0, 1, 1, 1, 2)])
def test_partitions_are_as_many_as_there_are(index):
    lay = layout([index])
    for channel, terms in enumerate(lay.compositions.partitions):
        size = len(lay.indices[channel])
        assert sum(term.times for term in terms) == (BELL[size] if size else 0)
    by_blocks = [0] * 6
    for count, blocks, _ in lay.compositions.partitions[-1]:
        by_blocks[blocks - 1] += count
    assert by_blocks == STIRLING_6


def test_of_an_affine_function_one_partition_is_left():
    lay = layout([(0, 0, 1, 1)])
    rules = lay.composition(lay.n_affine)
    assert lay.n_affine == 3
    for channel, terms in enumerate(rules.partitions[1:], start=1):
        ((count, blocks, _),) = terms
        assert (count, blocks) == (1, len(lay.indices[channel]))


@pytest.mark.parametrize(
    ("requested", "n"),
    [
        ([tuple(range(8))], 256),
        ([(0,) * 200], 201),
        ([tuple(range(50))], 2**50),
        ([(i, j, k, k) for i in range(6) for j in range(6) for k in range(6)], None),
    ],
)
def test_too_many_channels_are_an_error_before_any_is_made(requested, n):
    with pytest.raises(UnsupportedOperation, match="at most 128 derivatives") as info:
        layout(requested)
    assert n is None or str(n) in str(info.value)


def test_as_many_as_there_may_be_are_carried():
    four_of_five = [
        (a, b, c, d)
        for a in range(5)
        for b in range(a, 5)
        for c in range(b, 5)
        for d in range(c, 5)
    ]
    assert len(layout(four_of_five)) == math.comb(9, 4) <= module.MAX_CHANNELS
    assert len(layout([(0,) * 127])) == module.MAX_CHANNELS
