"""States of a training from its last step to its first, with few of them in memory.

Each state is made from the one before it, so going backwards means going forwards again from
states that were kept. With c of them and every step taken at most r times, ``C(c + r, c)`` steps
can be reversed, and no scheme does better (binomial checkpointing: Griewank 1992, doi
10.1080/10556789208805505; Griewank & Walther 2000, algorithm 799).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import TypeVar

S = TypeVar("S")

STATES_PER_DOUBLING = 4
"""States kept for each doubling of the number of steps."""


def default_kept(n_steps: int) -> int:
    """Return how many states to keep unless told otherwise: four for each doubling of the steps.

    A thousand steps are then taken at most three times, a million at most four times.

    Examples
    --------
    >>> from whence.replay.checkpointing import default_kept, repetitions
    >>> default_kept(1000), repetitions(1000, default_kept(1000))
    (40, 3)
    """
    return max(1, STATES_PER_DOUBLING * math.ceil(math.log2(max(2, n_steps))))


def repetitions(n_steps: int, kept: int) -> int:
    """Return the least r with ``C(kept + r, kept) ≥ n_steps``: how often a step is taken at most.

    Examples
    --------
    >>> from whence.replay.checkpointing import repetitions
    >>> repetitions(10, 3), repetitions(11, 3)
    (2, 3)
    """
    # C(c + r, c) grows by orders of magnitude with r, so that a few trials do.
    r = 0
    while math.comb(kept + r, kept) < n_steps:
        r += 1
    return r


def split(n_steps: int, kept: int) -> int:
    """Return after how many of the steps to keep the next state, one of ``kept`` being the first.

    The part behind it is reversed first, with one state fewer; the part before it then has them
    all, and one repetition fewer.
    """
    r = repetitions(n_steps, kept)

    # What the part before can have with r − 1 repetitions, and the one behind should not lack.
    before = math.comb(kept + r - 1, kept)
    behind = math.comb(kept + r - 2, kept - 1)
    return max(1, min(before, n_steps - behind, n_steps - 1))


def backwards(
    advance: Callable[[S, int, int], S], start: S, n_steps: int, kept: int
) -> Iterator[tuple[int, S]]:
    """Yield ``(t, state before step t)`` from the last step to step 0.

    Parameters
    ----------
    advance:
        ``advance(state, first, last)`` takes the steps ``first, …, last − 1``; it returns a new
        state and leaves the one it got as it was.
    start:
        The state before step 0.
    n_steps:
        How many steps there are.
    kept:
        At most so many states are held at once, the start among them.

    Examples
    --------
    >>> from whence.replay.checkpointing import backwards
    >>> list(backwards(lambda state, first, last: state + last - first, 0, 4, kept=2))
    [(3, 3), (2, 2), (1, 1), (0, 0)]
    """
    states = [(0, start)]
    end = n_steps
    while end:
        first, state = states[-1]

        # The step before which the newest state stands is next: nothing needs that state after.
        if first == end - 1:
            yield end - 1, state
            states.pop()
            end -= 1
            continue

        # With no room left, steps are taken again from the newest state and nothing is kept.
        free = kept - len(states)
        if not free:
            yield end - 1, advance(state, first, end - 1)
            end -= 1
            continue

        # The newest state is one of those that the steps up to the end may have.
        last = first + split(end - first, free + 1)
        states.append((last, advance(state, first, last)))
