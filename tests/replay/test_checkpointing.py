"""Going backwards with few states: the right ones, in order, by as few steps as can be."""

import functools

import pytest

from whence.replay.checkpointing import backwards, default_kept, repetitions, split


def trace(n, kept):
    """Return what comes backwards, the steps taken on the way, and the most states held."""
    taken = []

    def advance(state, first, last):
        assert state == first < last
        taken.append(last - first)
        return last

    return list(backwards(advance, 0, n, kept)), sum(taken)


@functools.cache
def least(n, kept):
    """Return the least number of steps for reversing n with so many states, by trying all."""
    if n == 1:
        return 0
    if kept == 1:
        return n * (n - 1) // 2
    return min(m + least(n - m, kept - 1) + least(m, kept) for m in range(1, n))


@pytest.mark.parametrize("kept", [1, 2, 3, 5])
def test_states_come_from_the_last_to_the_first_by_the_fewest_steps(kept):
    for n in range(1, 40):
        states, taken = trace(n, kept)
        assert states == [(t, t) for t in range(n - 1, -1, -1)]
        assert taken == least(n, kept)


def test_long_trainings_are_repeated_a_few_times_only():
    for n in (100, 1000, 20_000):
        kept = default_kept(n)
        states, taken = trace(n, kept)
        assert len(states) == n
        assert taken <= repetitions(n, kept) * n
    assert default_kept(20_000) == 60
    assert repetitions(20_000, 60) == 3


def test_a_split_leaves_steps_on_both_sides():
    for n in range(2, 60):
        for kept in range(2, 8):
            assert 0 < split(n, kept) < n
