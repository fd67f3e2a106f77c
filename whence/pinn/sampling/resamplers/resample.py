"""Score fresh candidates, select some, and let them join or replace the training points."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from whence import _checks
from whence.catalogue import LATER, RESAMPLERS
from whence.objective import Objective
from whence.pinn.sampling.resamplers.base import (
    check_unweighted,
    new_rows,
    renewable_terms,
    units_of,
)
from whence.pinn.sampling.resamplers.shares import (
    after_round,
    check_limit,
    embeddings_of_units,
    leaving_counts,
    mean_scores,
    of_equal_age,
    portions,
    rows_in_all,
    rows_in_each,
    scores_of_units,
    weighted_scores,
)
from whence.pinn.sampling.scores.base import EmbeddedScore, Score, by_term, spawn
from whence.pinn.sampling.scores.influence import InfluenceScore
from whence.pinn.sampling.scores.saved import SavedScore
from whence.pinn.sampling.selections.base import RandomSelection, Selection
from whence.pinn.sampling.selections.proportional import Proportional
from whence.pinn.sampling.weighted_points import WeightedPoints


@RESAMPLERS.named("resample")
@dataclass(frozen=True)
class Resample:
    """When and how training points are renewed.

    Every ``every`` iterations, ``candidates`` fresh points of each resampled term are scored and
    ``n`` of them selected. ``add`` puts them beside the present points; once there are
    ``max_points`` of them, the points longest in training leave. ``replace`` lets them
    take the place of the ``n`` points longest in training. The first points are equally old: which
    of them leave first is by chance, as their order is often that of their places. No point is
    trained on twice: candidates that are training points already are passed over, so saved ones
    can run out.

    Parameters
    ----------
    score, selection:
        What makes a candidate wanted, and how wanted ones are chosen.
    n:
        Points selected each time; ``None``: as many as there are (``replace`` only).
    every:
        Iterations between two rounds.
    stages:
        Rounds follow every so many stages of the schedule in place of ``every`` iterations: 2 is
        a cycle of Adam and L-BFGS, which may end early.
    at_start:
        Whether there is a round before the first step too.
    rounds:
        Rounds at most, one at the start included: the points stay after the last, so that the
        steps that are left lower one and the same loss. ``None``: as long as training goes on.
    update:
        ``"add"`` or ``"replace"``.
    candidates:
        Fresh uniform candidates in each round and term.
    max_points:
        Upper limit of points of a term, for ``add``.
    leave:
        ``"oldest"``: the points longest in training leave. ``"harmful"``: those whose influence
        says that without them the score's quantity is least, which takes a score with a ``sign``
        such as :class:`InfluenceScore`.
    terms:
        Which terms; by default the first equation's, or that of a :class:`SavedScore`, or all of
        them with ``joint`` or ``shares``. Points that the user gave are renewed only if their term
        is named here, measurements never. Equations at the same points are renewed together and
        keep the same ones: a candidate has the sum of their scores, and a point counts once.
    joint:
        Select from the candidates of all terms at once, n points in total, so that new ones go to
        the terms that need them. Scores must compare for that: :class:`PinnacleScore` and
        :class:`LeverageScore` count the terms' weights, others take residuals and gradients as they
        are. ``max_points`` is then the limit of all terms together. Points that leave come from the
        terms in proportion to their numbers; each term keeps one at least, and one that holds at
        few points, all of them present, keeps them all.
    shares:
        ``"score"``: n is the number of points of all terms together, as with ``joint``, and each
        term has its share of them: in proportion to ``w_k s̄_k``, its weight by the mean score of
        its candidates, where a score has not counted the weight itself. Within its term the
        selection is as without. ``None``: n for each term.
    importance:
        Whether selected points have the weight ``n/(M π)`` with π the probability with which each
        was taken of M candidates. The weighted mean over the points is then an unbiased estimate of
        the mean over the domain, as of uniform points: adaptive ones lower its variance and do not
        change what is minimized. For selections by chance, ``Proportional`` with c > 0. Pinned and
        first points weigh 1.

    Examples
    --------
    >>> from whence import pinn
    >>> resample = pinn.Resample(pinn.ResidualScore(), n=5, candidates=100)
    >>> problem = pinn.zoo.load("diffusion")
    >>> objective = problem.objective(problem.network(seed=0), problem.sample(50, seed=0))
    >>> resample.update_points(objective, round=1, seed=0)["pde"].shape
    torch.Size([55, 2])
    """

    score: Score = field(default_factory=InfluenceScore)
    selection: Selection = field(default_factory=lambda: Proportional(k=2, c=0))
    n: int | None = 10
    every: int = 100
    stages: int | None = field(default=None, metadata=LATER)
    at_start: bool = field(default=False, metadata=LATER)
    rounds: int | None = field(default=None, metadata=LATER)
    update: Literal["add", "replace"] = "add"
    candidates: int = 10_000
    max_points: int | None = None
    leave: Literal["oldest", "harmful"] = field(default="oldest", metadata=LATER)
    terms: tuple[str, ...] | None = None
    joint: bool = False
    shares: Literal["score"] | None = field(default=None, metadata=LATER)
    importance: bool = field(default=False, metadata=LATER)

    def __post_init__(self) -> None:
        self._check_parts()
        _checks.names("terms", self.terms)
        _checks.count("every", self.every)
        if self.stages is not None:
            _checks.count("stages", self.stages)
        _checks.boolean("at_start", self.at_start)
        if self.rounds is not None:
            _checks.count("rounds", self.rounds)
        _checks.count("candidates", self.candidates)
        _checks.one_of("update", self.update, ("add", "replace"))
        self._check_numbers()
        self._check_leave()

    def _check_parts(self) -> None:
        """Raise unless score and selection are such, and fit each other."""
        # A class has the methods of its objects, so that it looks like a score.
        if isinstance(self.score, type) or not isinstance(self.score, Score):
            raise TypeError(
                f"score must be an object such as pinn.ResidualScore(), got {self.score!r}"
            )

        is_class = isinstance(self.selection, type)
        if is_class or not isinstance(self.selection, Selection):
            raise TypeError(
                f"selection must be an object such as pinn.TopK(), got {self.selection!r}"
            )
        if self._needs_embedding and not isinstance(self.score, EmbeddedScore):
            raise TypeError(
                f"{type(self.selection).__name__} selects by embeddings, which "
                f"{type(self.score).__name__} has not: use pinn.PinnacleScore() or "
                "pinn.LeverageScore()"
            )

        _checks.boolean("joint", self.joint)
        self._check_shares()
        _checks.boolean("importance", self.importance)
        if self.importance:
            self._check_importance()

    def _check_shares(self) -> None:
        """Raise ``ValueError`` unless points can move between terms, in one way only."""
        if self.shares is not None:
            _checks.one_of("shares", self.shares, ("score",))
        if self.joint and self.shares is not None:
            raise ValueError(
                "joint=True selects from the candidates of all terms at once, shares='score' a "
                "number within each: leave one of them out"
            )
        if self._moves_between_terms and isinstance(self.score, SavedScore):
            option = "joint=True" if self.joint else "shares='score'"
            raise ValueError(f"saved scores are of one term: leave {option} out")

    @property
    def _moves_between_terms(self) -> bool:
        """Whether n is the number of points of all terms together."""
        return self.joint or self.shares is not None

    def _check_importance(self) -> None:
        """Raise ``ValueError`` unless weights can make up for how points are selected."""
        if not isinstance(self.selection, RandomSelection):
            raise ValueError(
                f"{type(self.selection).__name__} takes candidates without chance, or by chances "
                "that depend on each other: other candidates are never taken, so that no weights "
                "make its points an estimate of the uniform mean. With importance=True use "
                "pinn.Proportional(k=1, c=1)"
            )
        self.selection.check_probabilities()

        if self._moves_between_terms:
            option = "joint=True" if self.joint else "shares='score'"
            raise ValueError(
                f"importance=True weighs points within a term, {option} moves them between terms: "
                "leave one of them out"
            )
        if isinstance(self.score, SavedScore):
            raise ValueError(
                "importance=True needs fresh uniform candidates in each round, which saved scores "
                "have not: leave it out"
            )

    def _check_numbers(self) -> None:
        """Raise ``ValueError`` unless the numbers of points fit each other."""
        # To replace all is a number, to add all there are is none.
        if self.n is None and self.update == "add":
            raise ValueError("update='add' needs the number n of points to add")
        if self.n is not None:
            _checks.count("n", self.n)

        if self.max_points is not None:
            _checks.count("max_points", self.max_points)
            if self.update == "replace":
                raise ValueError(
                    "max_points does nothing with update='replace', which keeps the number of "
                    "points: leave it out"
                )
            if self.n is not None and self.n > self.max_points:
                raise ValueError(f"n = {self.n} exceeds max_points = {self.max_points}")

        pool = self._pool_size
        if self.n is not None and self.n > pool and not self._moves_between_terms:
            raise ValueError(
                f"cannot select n = {self.n} of {pool} candidates: raise `candidates`"
            )

    def _check_leave(self) -> None:
        """Raise unless points leave, and the score can say which."""
        _checks.one_of("leave", self.leave, ("oldest", "harmful"))
        if self.leave == "oldest":
            return

        if "sign" not in option_names(self.score):
            raise TypeError(
                f"leave='harmful' needs a score with a sign, got {type(self.score).__name__}: use "
                "pinn.InfluenceScore(), pinn.ErrorInfluenceScore() or pinn.GradDotScore()"
            )
        if self.update == "add" and self.max_points is None:
            raise ValueError(
                "leave='harmful' does nothing where no points leave: give max_points, or "
                "update='replace'"
            )

    @property
    def _needs_embedding(self) -> bool:
        """Whether the selection is given embeddings (n, q) in place of scores (n,)."""
        return bool(getattr(self.selection, "embedded", False))

    @property
    def _pool_size(self) -> int:
        """Number of candidates of a term."""
        if isinstance(self.score, SavedScore):
            return len(self.score.candidates)
        return self.candidates

    def _terms(self, objective: Objective) -> tuple[str, ...]:
        """Return the names of the terms whose points are renewed."""
        names = self.terms
        is_alone = not self._moves_between_terms
        if not names and is_alone and isinstance(self.score, SavedScore):
            names = (self.score.term,)
        renewable = renewable_terms(objective, names)
        if names or not is_alone:
            return renewable
        return units_of(objective, renewable)[0]

    def check(self, objective: Objective) -> None:
        """Raise ``ValueError`` if the objective's points could not be renewed."""
        names = self._terms(objective)
        if not self.importance:
            # With weights of their own new points may stand beside weighted ones.
            check_unweighted(objective, names)
        n_most = self.max_points
        if self._moves_between_terms and n_most is not None and n_most <= len(names):
            raise ValueError(
                f"max_points is {self.max_points}, but each of {len(names)} terms keeps a point: "
                "raise max_points"
            )

        if n_most is not None:
            counts = {name: len(objective.term(name).points) for name in names}
            check_limit(counts, n_most, together=self._moves_between_terms)
        for name in names:
            self._check_term(objective, name)
        if isinstance(self.score, InfluenceScore) and self.score.quantity is not None:
            self.score.quantity.values(objective)

    def _check_term(self, objective: Objective, name: str) -> None:
        """Raise ``ValueError`` if the points of a term could not be renewed."""
        present = len(objective.term(name).points)
        if self.n is None and present > self._pool_size:
            raise ValueError(
                f"cannot renew all {present} points of term {name!r} from "
                f"{self._pool_size} candidates: raise `candidates`"
            )
        if not isinstance(self.score, SavedScore):
            objective.draw(name, 1, seed=0)  # which says so if none can be drawn
            return

        saved = self.score
        if name != saved.term:
            raise ValueError(
                f"the saved scores are of term {saved.term!r}, not of {name!r}: "
                f"pass terms=({saved.term!r},)"
            )

        by_term(objective, {name: saved.candidates})
        if isinstance(self.selection, Proportional):
            self.selection.select(saved.values, 1, seed=0)

    def update_points(
        self, objective: Objective, round: int, seed: int
    ) -> dict[str, Tensor | WeightedPoints]:
        """Return the renewed points of each resampled term, oldest first; weighted if so asked.

        Parameters
        ----------
        objective:
            The present objective.
        round, seed:
            Together they determine every random draw, so a run can be repeated and resumed.
        """
        names = self._terms(objective)
        # Terms that share their points are known by the first of them.
        units = {unit[0]: unit for unit in self._units(objective, names)}
        groups: list[tuple[str, ...]] = [(name,) for name in units]
        if self._moves_between_terms:
            groups = [tuple(units)]

        renewed: dict[str, Tensor | WeightedPoints] = {}
        for k, group in enumerate(groups):
            group_seed = spawn(seed, 1000 * round + k)
            members = {name: units[name] for name in group}
            points = self._renew_terms(objective, members, group_seed, round == 1)
            for name, rows in points.items():
                renewed |= dict.fromkeys(units[name], rows)
        return renewed

    def _units(
        self, objective: Objective, names: tuple[str, ...]
    ) -> list[tuple[str, ...]]:
        """Return the terms in units that share their points."""
        if isinstance(self.score, SavedScore):
            return [names]  # saved scores are of one term
        return units_of(objective, names)

    def _renew_terms(
        self,
        objective: Objective,
        units: Mapping[str, tuple[str, ...]],
        seed: int,
        is_first: bool,
    ) -> dict[str, Tensor | WeightedPoints]:
        """Return the points of some terms with new ones selected from candidates of all of them."""
        names = tuple(units)
        present = {name: objective.locations(name) for name in names}
        pools = self._pools(objective, names, seed)
        values = self._values(objective, units, pools, spawn(seed, 1))

        # A term without new candidates keeps its points: it holds at few, all of them present.
        new = {name: new_rows(pool, present[name]) for name, pool in pools.items()}
        counts = {name: len(points) for name, points in present.items()}
        pinned = {}
        for name, unit in units.items():
            pinned[name] = max(objective.term(member).pinned for member in unit)

        at_least = int(self._moves_between_terms)  # of each term
        must_stay = dict(counts)
        for name in names:
            if len(new[name]):
                must_stay[name] = max(pinned[name], at_least)

        # Saved candidates can run out.
        n_candidates = sum(len(rows) for rows in new.values())
        n = min(n_candidates, self._wanted(counts, must_stay))
        if n == 0 and self.importance:
            return {}  # weights stay with what stays
        if n == 0:
            return dict(present)

        taken, weights = self._taken(values.cpu(), new, pools, n, spawn(seed, 2))
        leaving = leaving_counts(counts, must_stay, self._surplus(counts, n))

        renewed: dict[str, Tensor | WeightedPoints] = {}

        for name, points in present.items():
            fresh = pools[name][taken[name].to(points.device)]
            counted = pinned[name], leaving[name]
            order = torch.arange(len(points))
            if self.leave == "harmful" and leaving[name]:
                order = self._by_harm(
                    objective, units[name], points, pinned[name], spawn(seed, 3)
                )
            elif is_first and self.points_leave:
                order = of_equal_age(len(points), pinned[name], spawn(seed, 3))
            order = order.to(points.device)
            kept = after_round(points[order], fresh, *counted)
            renewed[name] = kept
            if weights is not None:
                # Of one term, as there are none where several are renewed together.
                known = objective.term(name).base_weights
                if known is None:
                    known = torch.ones_like(points[:, 0])
                of_points = after_round(known[order], weights.to(known), *counted)
                renewed[name] = WeightedPoints(kept, of_points)

        return renewed

    def _taken(
        self,
        values: Tensor,
        new: Mapping[str, Tensor],
        pools: Mapping[str, Tensor],
        n: int,
        seed: int,
    ) -> tuple[dict[str, Tensor], Tensor | None]:
        """Return the rows of n selected candidates by pool, and the weights of the points."""
        if self.shares is None:
            rows = rows_in_all(new, pools)
            selected, weights = self._selected(values[rows], n, seed)
            return rows_in_each(rows[selected], pools), weights

        # The sum of all terms, Σ_k w_k E_k[s], is estimated from N_k points of each with the
        # variance Σ_k w_k² σ_k²/N_k, which is least for N_k in proportion to w_k σ_k (Neyman);
        # the mean score, which has the weight in it here, stands for the spread σ_k.
        limits = {name: len(rows) for name, rows in new.items()}
        numbers = portions(n, mean_scores(values, pools), limits)

        taken = {}
        start = 0
        for k, (name, pool) in enumerate(pools.items()):
            rows = new[name]
            taken[name] = rows[:0]
            if numbers[name]:
                scores = values[start + rows]
                chosen, _ = self._selected(scores, numbers[name], spawn(seed, k))
                taken[name] = rows[chosen]
            start += len(pool)
        return taken, None

    def _by_harm(
        self,
        objective: Objective,
        unit: tuple[str, ...],
        points: Tensor,
        n_pinned: int,
        seed: int,
    ) -> Tensor:
        """Return row numbers of a unit's points: pinned ones, then by the harm that they do."""
        # Of positive sign is what lowers the quantity by being there; harm is its negative.
        score = _seeded(self.score, seed)
        signed = replace(score, sign="negative_shifted")
        scores = signed.score(objective, dict.fromkeys(unit, points))
        harm = scores.view(len(unit), -1).sum(dim=0)

        pinned = torch.arange(n_pinned, device=harm.device)
        others = torch.argsort(harm[n_pinned:], descending=True, stable=True)
        return torch.cat([pinned, n_pinned + others])

    def _selected(
        self, values: Tensor, n: int, seed: int
    ) -> tuple[Tensor, Tensor | None]:
        """Return the row numbers that the selection chooses, checked, and their weights."""
        weights = None
        if self.importance:
            selection = self.selection
            assert isinstance(selection, RandomSelection)
            rows, chances = selection.select_with_probabilities(values, n, seed)
            # Those of the largest keys come first, and would leave first.
            generator = torch.Generator().manual_seed(spawn(seed, 1))
            order = torch.randperm(n, generator=generator)
            selected = rows[order]
            # Σ f/π over the n selected estimates the sum over M, so that their mean of
            # n/(M π) · f estimates the mean over M.
            weights = n / (len(values) * chances[order])
        else:
            selected = torch.as_tensor(self.selection.select(values, n, seed))

        is_list = selected.ndim == 1 and not selected.dtype.is_floating_point
        if is_list and len(selected):
            lowest, highest = int(selected.min()), int(selected.max())
            is_list = lowest >= 0 and highest < len(values)
            is_list = is_list and len(selected.unique()) == len(selected)
        if not is_list:
            raise ValueError(
                f"{type(self.selection).__name__} must return {n} different row numbers below "
                f"{len(values)}, got {selected.tolist()[:10]}"
            )
        return selected, weights

    @property
    def points_leave(self) -> bool:
        """Whether there are rounds in which points leave."""
        return self.update == "replace" or self.max_points is not None

    def _surplus(self, counts: Mapping[str, int], n: int) -> int:
        """Return how many present points leave when n new ones come."""
        if self.update == "replace":
            return n
        if self.max_points is None:
            return 0
        return max(0, sum(counts.values()) + n - self.max_points)

    def _wanted(self, counts: Mapping[str, int], must_stay: Mapping[str, int]) -> int:
        """Return how many points to select, by those present and how many of them must stay."""
        total = sum(counts.values())  # of all terms where they are resampled together
        staying = sum(must_stay.values())
        wanted = total if self.n is None else self.n

        if self.update == "replace":
            if self._moves_between_terms or staying:
                return min(wanted, total - staying)
            return wanted
        if self.max_points is None:
            return wanted

        return min(wanted, max(0, self.max_points - staying))

    def _pools(
        self, objective: Objective, names: Sequence[str], seed: int
    ) -> dict[str, Tensor]:
        """Return the candidates of each term."""
        if isinstance(self.score, SavedScore):
            (name,) = names  # saved scores are of one term
            return {name: self.score.candidates.to(objective.locations(name))}

        pools = {}
        for k, name in enumerate(names):
            # Terms on the same domain would otherwise draw the same points.
            pool_seed = seed if k == 0 else spawn(seed, 10 + k)
            pools[name] = objective.draw(name, self.candidates, pool_seed)
        return pools

    def _values(
        self,
        objective: Objective,
        units: Mapping[str, tuple[str, ...]],
        pools: Mapping[str, Tensor],
        seed: int,
    ) -> Tensor:
        """Return scores (n,), or embeddings (n, q) where the selection needs them.

        A candidate of several terms has the sum of their scores, their embeddings side by side.
        """
        # Other test points in each round: none is always near, none always far.
        score = _seeded(self.score, seed)
        candidates: dict[str, Tensor] = {}
        for leader, unit in units.items():
            candidates |= dict.fromkeys(unit, pools[leader])

        values: object
        if self._needs_embedding:
            values = score.embedding(objective, candidates)
        else:
            values = score.score(objective, candidates)
        if isinstance(values, np.ndarray):
            values = torch.from_numpy(values)

        n = sum(len(pool) for pool in candidates.values())
        if not isinstance(values, Tensor) or values.ndim < 1 or len(values) != n:
            raise ValueError(
                f"{type(score).__name__} must return a tensor with one score for each of {n} "
                f"candidates, got {_checks.shape_of(values)}"
            )

        counts_weights = getattr(score, "counts_weights", False)
        if self.shares is not None and not counts_weights:
            weights = {name: objective.term(name).mean_weight for name in candidates}
            values = weighted_scores(values, weights, candidates)
        sizes = {leader: len(pool) for leader, pool in pools.items()}
        if self._needs_embedding:
            return embeddings_of_units(values, units, sizes)
        return scores_of_units(values, units, sizes)


def option_names(score: object) -> set[str]:
    """Return the names of a score's fields."""
    if not is_dataclass(score):
        return set()
    return {entry.name for entry in fields(score)}


def _seeded(score: Score, seed: int) -> Any:
    """Return a score with this seed, if it has one."""
    if "seed" not in option_names(score):
        return score
    return replace(score, seed=seed)  # type: ignore[type-var]
