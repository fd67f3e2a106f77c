"""What every score is, and what scores share."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from whence import _checks
from whence.arrays import ArrayLike
from whence.attribution.quantities import Loss
from whence.jacobian import gradient_products, point_gradients
from whence.objective import Objective
from whence.points import blocks, locations
from whence.term import Term

Candidates = ArrayLike | Mapping[str, ArrayLike]
"""Candidates of the first term, (n, d), or by term."""
Sign = Literal["abs", "positive", "negative", "positive_shifted", "negative_shifted"]
Reduction = Literal["abs_of_sum", "sum_of_abs"]

SIGNS = ("abs", "positive", "negative", "positive_shifted", "negative_shifted")
REDUCTIONS = ("abs_of_sum", "sum_of_abs")
SCORE_DAMPING = 1e-6
"""Least relative damping of scores: candidates lie outside the training set, and weaker damping
scores little but how far outside."""
SCORE_TOLERANCE = 1e-10
"""Relative residual of a score's linear system: ranks need no more."""


@runtime_checkable
class Score(Protocol):
    """Gives every candidate point a number, not negative: the larger, the more wanted.

    A field ``seed`` is set to a new one for every round of resampling. One whose values grow with
    the weight of a candidate's term has ``counts_weights = True``. One whose values do not depend
    on the other candidates has ``is_pointwise = True``, so that workers may share them.
    """

    def score(self, objective: Objective, candidates: Candidates) -> Tensor:
        """Return one value per candidate, shape (n,)."""


@runtime_checkable
class PreparedScore(Score, Protocol):
    """A score with work to do before it sees a candidate, the same for all of them."""

    sign: Sign

    def prepared(self, objective: Objective, terms: Iterable[str]) -> Score:
        """Return the score with that work done; where the sign shifts its values are unshifted."""


@runtime_checkable
class EmbeddedScore(Score, Protocol):
    """A score whose values are the squared lengths of vectors that it can return."""

    def embedding(self, objective: Objective, candidates: Candidates) -> Tensor:
        """Return a vector for each candidate, (n, q); its squared length is the score."""


def by_term(objective: Objective, candidates: Candidates) -> dict[str, Tensor]:
    """Return checked candidates by term; those not given by term belong to the first one."""
    # Points alone are candidates of the first term, an equation's.
    if not isinstance(candidates, Mapping):
        candidates = {next(iter(objective.terms)): candidates}
    if not candidates:
        raise TypeError(
            f"candidates must be points of shape (n, {len(objective.coordinates)}), or such "
            f"points by term, got {_checks.describe(candidates)}"
        )

    prepared = {}
    for name, points in candidates.items():
        what = f"the candidates of term {name!r}"
        prepared[name] = locations(objective.prepare(what, points, name))
    return prepared


def candidate_blocks(
    objective: Objective, candidates: Candidates
) -> Iterator[tuple[Term, Tensor]]:
    """Yield every candidate once, some of a term at a time."""
    for name, points in by_term(objective, candidates).items():
        for block in blocks(points):
            yield objective.terms[name], locations(block.points)


def signed_part(values: Tensor, sign: Sign) -> Tensor:
    """Return what a sum over test points takes of each value.

    The size, or that of the positive or negative ones alone and zero elsewhere; for a sign that
    shifts the value itself, or its negative.
    """
    if sign == "abs":
        return values.abs()
    if sign == "positive":
        return values.clamp_min(0)
    if sign == "negative":
        return (-values).clamp_min(0)
    return values if sign == "positive_shifted" else -values


def shifted(scores: Tensor, sign: Sign) -> Tensor:
    """Return scores (n,); those of a sign that shifts less the least one, where that is negative.

    So none is negative and their order stays, as the published code makes weights of them.
    """
    if not sign.endswith("_shifted"):
        return scores
    return scores - scores.min().clamp_max(0)


def loss_products(
    objective: Objective, terms: Mapping[str, Tensor], vector: Tensor
) -> Tensor:
    """Return ``∇ℓ(x)ᵀ v`` of each point, (n,), of one vector (P,)."""
    column = vector.unsqueeze(1)
    products = []

    for name, points in terms.items():
        term = objective.terms[name]
        product = gradient_products(term, objective.parameters, points, column)
        products.append(product[:, 0])

    return torch.cat(products)


def summed_products(
    objective: Objective, terms: Mapping[str, Tensor], vectors: Tensor, sign: Sign
) -> Tensor:
    """Return ``Σ_t part(∇ℓ(x)ᵀ v_t)`` of each point, (n,), of vectors v_t, (P, T)."""
    totals = []
    for name, points in terms.items():
        term = objective.terms[name]
        parts = point_gradients(term, objective.parameters, points)
        for _, linear, cotangent in parts:
            products = linear.rows(cotangent) @ vectors  # (n, T)
            totals.append(signed_part(products, sign).sum(dim=1))

    return torch.cat(totals)


@dataclass(frozen=True, eq=False)
class ProductScore:
    """What products of a candidate's gradient with vectors say of it, as they are.

    Parameters
    ----------
    vectors:
        v, (P,), of which there is ``part(∇ℓ(x)ᵀ v)``, or several, (P, T), with the sum over them.
    sign:
        Which part of a product counts.
    """

    vectors: Tensor
    sign: Sign

    def score(self, objective: Objective, candidates: Candidates) -> Tensor:
        """Return one value per candidate, shape (n,)."""
        terms = by_term(objective, candidates)
        if self.vectors.ndim == 1:
            products = loss_products(objective, terms, self.vectors)
            return signed_part(products, self.sign)
        return summed_products(objective, terms, self.vectors, self.sign)


def loss_at_test_points(
    objective: Objective, terms: Iterable[str], n: int, seed: int
) -> Loss:
    """Return the losses at n fresh uniform test points of each scored term."""
    return Loss(fresh_test_points(objective, terms, n, seed))


def fresh_test_points(
    objective: Objective, terms: Iterable[str], n: int, seed: int
) -> dict[str, Tensor]:
    """Return n fresh uniform test points of each scored term."""
    points = {}
    for k, name in enumerate(terms):
        # Other seeds than the candidates', which would otherwise be the same points.
        points[name] = objective.draw(name, n, spawn(seed, 1 + k))
    return points


def spawn(seed: int, k: int) -> int:
    """Return a seed that is independent of the others made from the same one."""
    # SeedSequence mixes its numbers, so that seeds side by side give unrelated states.
    sequence = np.random.SeedSequence([seed, k])
    return int(sequence.generate_state(1)[0])


def check_scores(scores: Tensor) -> None:
    """Raise ``ValueError`` unless there is a finite number for each point."""
    if not isinstance(scores, Tensor) or scores.ndim != 1:
        raise ValueError(
            "scores must be a tensor of shape (n,), one for each point, got "
            f"{_checks.shape_of(scores)}"
        )

    # A NaN would sort anywhere, and be selected at random.
    bad = ~torch.isfinite(scores)
    if bool(bad.any()):
        raise ValueError(
            f"scores must be finite: {int(bad.sum())} of {len(scores)} are NaN or infinite, the "
            f"first is that of candidate {int(bad.nonzero()[0])}"
        )
