"""Which of several terms' candidates were selected, and how many points leave each term."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor


def rows_in_all(rows: Mapping[str, Tensor], pools: Mapping[str, Tensor]) -> Tensor:
    """Return row numbers within each pool as row numbers within all pools one after the other."""
    parts = []
    start = 0
    for name, pool in pools.items():
        parts.append(rows[name] + start)
        start += len(pool)
    return torch.cat(parts)


def rows_in_each(rows: Tensor, pools: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return row numbers within all pools as those within each, in the same order."""
    by_pool = {}
    start = 0

    for name, pool in pools.items():
        is_inside = (rows >= start) & (rows < start + len(pool))
        by_pool[name] = rows[is_inside] - start
        start += len(pool)

    return by_pool


Units = Mapping[str, Sequence[str]]
"""Terms that share their points, by the first of them."""


def scores_of_units(values: Tensor, units: Units, sizes: Mapping[str, int]) -> Tensor:
    """Return the sum of the scores that each candidate has in the terms of its unit, (n,).

    ``values`` go unit by unit, in it term by term; ``sizes`` are the numbers of candidates.
    """
    sums = []
    for by_term in _by_unit(values, units, sizes):
        sums.append(by_term.sum(dim=0))
    return torch.cat(sums)


def embeddings_of_units(
    values: Tensor, units: Units, sizes: Mapping[str, int]
) -> Tensor:
    """Return the embeddings of each candidate in the terms of its unit side by side, (n, q).

    Squared lengths add up so, as scores do. Units of fewer terms have zeros behind.
    """
    most = max(len(unit) for unit in units.values())
    parts = []
    for by_term in _by_unit(values, units, sizes):
        side_by_side = torch.cat(list(by_term), dim=1)
        missing = most * values.shape[1] - side_by_side.shape[1]
        parts.append(torch.nn.functional.pad(side_by_side, (0, missing)))
    return torch.cat(parts)


def _by_unit(
    values: Tensor, units: Units, sizes: Mapping[str, int]
) -> Iterator[Tensor]:
    """Yield the values of each unit, (terms, candidates, ...)."""
    start = 0
    for leader, unit in units.items():
        stop = start + len(unit) * sizes[leader]
        yield values[start:stop].unflatten(0, (len(unit), -1))
        start = stop


def after_round(
    present: Tensor, fresh: Tensor, n_pinned: int, n_leaving: int
) -> Tensor:
    """Return present rows with fresh ones behind, without the oldest that leave.

    The oldest stand first, and leave first; pinned ones stay before them.
    """
    head = present[:n_pinned]
    others = torch.cat([present[n_pinned:], fresh])
    return torch.cat([head, others[n_leaving:]])


def leaving_counts(
    counts: Mapping[str, int], must_stay: Mapping[str, int], surplus: int
) -> dict[str, int]:
    """Return how many present points leave each term, in proportion to their numbers.

    Of each term at least ``must_stay`` are left, so that fewer than ``surplus`` may leave.
    """
    can_leave = {}
    total = 0

    for name, count in counts.items():
        can_leave[name] = max(0, count - must_stay[name])
        if can_leave[name]:
            total += count

    shares = {}
    leaving = {}
    for name, count in counts.items():
        shares[name] = 0.0
        if can_leave[name]:
            shares[name] = surplus * count / total
        leaving[name] = min(int(shares[name]), can_leave[name])

    # Shares were rounded down; what is missing goes where the share is cut most.
    while (missing := surplus - sum(leaving.values())) > 0:
        candidates = [name for name in counts if leaving[name] < can_leave[name]]
        if not candidates:
            break
        candidates.sort(key=lambda name: leaving[name] - shares[name])
        for name in candidates[:missing]:
            leaving[name] += 1

    return leaving
