"""Scores of candidates in parts, here or by the workers of a dask cluster."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from tqdm import tqdm

from whence.objective import Objective
from whence.pinn.sampling.scores.base import (
    Candidates,
    PreparedScore,
    Score,
    by_term,
    shifted,
)
from whence.points import MAX_EVALUATED
from whence.workers import in_order

if TYPE_CHECKING:
    from distributed import Client

PART = 250 * MAX_EVALUATED
"""Candidates of a term in a part: whole blocks, so that numbers are those of one pass."""

Scored = tuple[Score, Objective, Mapping[str, Tensor]]
"""What every part needs: the score, and candidates by term."""


def score_in_parts(
    scorer: Score,
    objective: Objective,
    candidates: Candidates,
    client: Client | None = None,
) -> Tensor:
    """Return what ``scorer.score(objective, candidates)`` does, (n,), made part by part.

    What needs no candidate, such as the solve of :class:`whence.pinn.InfluenceScore`, is done once,
    here. Of several terms every part has some candidates of each. Numbers are the same to the last
    bit, but to rounding for a term of far fewer candidates than another one. A score of one's own
    sees all candidates at once, unless it says ``is_pointwise = True`` or defines ``prepared``.

    Parameters
    ----------
    scorer, objective, candidates:
        As in the scorer's ``score``.
    client:
        Of a dask cluster whose workers share the parts; None makes them here.

    Raises
    ------
    TypeError
        If the client is none.

    Examples
    --------
    >>> import torch
    >>> from whence import pinn
    >>> from whence.pinn.sampling.scores.parts import score_in_parts
    >>> problem = pinn.zoo.load("diffusion")
    >>> objective = problem.objective(problem.network(seed=0), problem.sample(50, seed=0))
    >>> scorer, candidates = pinn.ResidualScore(), problem.draw("pde", 7, seed=1)
    >>> scores = score_in_parts(scorer, objective, candidates)
    >>> torch.equal(scores, scorer.score(objective, candidates))
    True
    """
    terms = by_term(objective, candidates)
    ready: Score = scorer
    if isinstance(scorer, PreparedScore):
        ready = scorer.prepared(objective, terms)

    parts = [[slice(0, len(points)) for points in terms.values()]]
    if isinstance(scorer, PreparedScore) or getattr(scorer, "is_pointwise", False):
        parts = parts_of(terms)
    progress = tqdm(
        total=sum(map(len, terms.values())),
        desc="candidates",
        unit="point",
        unit_scale=True,
        delay=2,
        leave=False,
    )
    scored = []
    common: Scored = (ready, objective, terms)
    with progress:
        for _, of_terms in in_order(score_part, common, parts, client):
            scored.append(of_terms)
            progress.update(sum(map(len, of_terms)))

    # Term after term, the parts of each one after the other.
    by_terms = [torch.cat(of_term) for of_term in zip(*scored, strict=True)]
    scores = torch.cat(by_terms)
    if isinstance(scorer, PreparedScore):
        return shifted(scores, scorer.sign)
    return scores


def parts_of(terms: Mapping[str, Tensor]) -> list[list[slice]]:
    """Return which candidates of each term are in each part; every part has some of every term."""
    counts = [len(points) for points in terms.values()]
    n_parts = min(-(-max(counts) // PART), min(counts))
    slices = [divided(count, n_parts) for count in counts]
    return [list(part) for part in zip(*slices, strict=True)]


def divided(n: int, n_parts: int) -> list[slice]:
    """Return n divided into parts, at the ends of blocks where there are enough of them."""
    size = MAX_EVALUATED
    if n < (n_parts - 1) * size + 1:
        size = 1
    n_blocks = -(-n // size)

    edges = []
    for k in range(n_parts + 1):
        whole_blocks = n_blocks * k // n_parts
        edges.append(min(n, whole_blocks * size))
    return [slice(low, high) for low, high in itertools.pairwise(edges)]


def score_part(common: Scored, slices: Sequence[slice]) -> list[Tensor]:
    """Return the scores of a part's candidates by term."""
    scorer, objective, terms = common
    chosen = {}
    for name, of_term in zip(terms, slices, strict=True):
        chosen[name] = terms[name][of_term]
    scores = scorer.score(objective, chosen)
    return list(scores.split([len(points) for points in chosen.values()]))
