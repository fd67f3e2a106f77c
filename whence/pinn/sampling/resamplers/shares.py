"""Which of several terms' candidates were selected, and how many points join and leave each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from whence.pinn.sampling.scores.base import check_scores


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


def of_equal_age(n: int, n_pinned: int, seed: int) -> Tensor:
    """Return row numbers of n points that came together: pinned ones, the others as by chance.

    First points are mostly laid out in order, as those of a Hammersley set from one side of the
    domain to the other: left in that order, that side would be without points for a while.
    """
    generator = torch.Generator().manual_seed(seed)
    others = torch.randperm(n - n_pinned, generator=generator)
    return torch.cat([torch.arange(n_pinned), n_pinned + others])


def check_limit(counts: Mapping[str, int], limit: int, *, together: bool) -> None:
    """Raise ``ValueError`` if there are more points than may be, of a term or ``together``.

    Examples
    --------
    >>> from whence.pinn.sampling.resamplers.shares import check_limit
    >>> check_limit({"pde": 500, "wall": 300}, 600, together=False)
    """
    largest = max(counts, key=lambda name: counts[name])
    present, whose = counts[largest], f"of term {largest!r}"
    if together:
        present, whose = sum(counts.values()), "of all terms"
    if present > limit:
        raise ValueError(
            f"{present} points {whose} are more than max_points = {limit}, so that the first round "
            "would leave fewer: raise max_points, or give fewer points"
        )


def leaving_counts(
    counts: Mapping[str, int], must_stay: Mapping[str, int], surplus: int
) -> dict[str, int]:
    """Return how many present points leave each term, in proportion to their numbers.

    Of each term at least ``must_stay`` are left, so that fewer than ``surplus`` may leave.
    """
    can_leave = {}
    for name, count in counts.items():
        can_leave[name] = max(0, count - must_stay[name])
    return portions(surplus, counts, can_leave)


def portions(
    n: int, amounts: Mapping[str, float], limits: Mapping[str, int]
) -> dict[str, int]:
    """Return n in whole parts by term, in proportion to amounts and none above its limit.

    The parts sum to n, or to all limits where these are fewer.
    """
    total = 0.0
    for name, amount in amounts.items():
        if limits[name]:
            total += amount

    shares = {}
    parts = {}
    for name, amount in amounts.items():
        shares[name] = 0.0
        if limits[name] and total > 0:
            shares[name] = n * amount / total
        parts[name] = min(int(shares[name]), limits[name])

    # Shares were rounded down; what is missing goes where the share is cut most.
    while (missing := n - sum(parts.values())) > 0:
        candidates = [name for name in amounts if parts[name] < limits[name]]
        if not candidates:
            break
        candidates.sort(key=lambda name: parts[name] - shares[name])
        for name in candidates[:missing]:
            parts[name] += 1

    return parts


def weighted_scores(
    values: Tensor, weights: Mapping[str, float], pools: Mapping[str, Tensor]
) -> Tensor:
    """Return scores (n,) times the weight of their term, embeddings (n, q) times its root."""
    power = 1.0
    if values.ndim > 1:
        power = 0.5  # the squared length of an embedding is the score

    factors = []
    for name, pool in pools.items():
        factor = weights[name] ** power
        factors.append(values.new_full((len(pool),), factor))

    by_candidate = torch.cat(factors)
    if values.ndim > 1:
        by_candidate = by_candidate.unsqueeze(1)
    return values * by_candidate


def mean_scores(values: Tensor, pools: Mapping[str, Tensor]) -> dict[str, float]:
    """Return the mean score of each pool's candidates, of scores (n,) or embeddings (n, q).

    Raises
    ------
    ValueError
        If a score is not finite, or a mean is negative, which is no share.
    """
    scores = values
    if values.ndim > 1:
        scores = values.square().sum(dim=1)  # as an embedding's squared length is
    check_scores(scores)

    sizes = [len(pool) for pool in pools.values()]
    means = {}
    for name, part in zip(pools, scores.split(sizes), strict=True):
        # A term that holds at no point that could be drawn has no candidates.
        means[name] = float(part.mean()) if len(part) else 0.0
        if means[name] < 0:
            raise ValueError(
                f"the mean score of term {name!r} is {means[name]:.3g}, of which there is no "
                "share: shares='score' needs scores that are not negative"
            )
    return means
