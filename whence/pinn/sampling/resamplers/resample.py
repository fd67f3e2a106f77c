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
from whence.pinn.sampling.resamplers.base import new_rows, renewable_terms
from whence.pinn.sampling.scores.base import EmbeddedScore, Score, by_term, spawn
from whence.pinn.sampling.scores.influence import InfluenceScore
from whence.pinn.sampling.scores.saved import SavedScore
from whence.pinn.sampling.selections.base import Selection
from whence.pinn.sampling.selections.proportional import Proportional


@RESAMPLERS.named("resample")
@dataclass(frozen=True)
class Resample:
    """When and how training points are renewed.

    Every ``every`` iterations, ``candidates`` fresh points of each resampled term are scored and
    ``n`` of them selected. ``add`` puts them beside the present points; once there are
    ``max_points`` of them, the points longest in training leave. ``replace`` lets them
    take the place of the ``n`` points longest in training. No point is trained on twice: candidates
    that are training points already are passed over, so saved ones can run out.

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
    update:
        ``"add"`` or ``"replace"``.
    candidates:
        Fresh uniform candidates in each round and term.
    max_points:
        Upper limit of points of a term, for ``add``.
    terms:
        Which terms; by default the first equation's, or that of a :class:`SavedScore`, or all of
        them where ``joint``. Points that the user gave are renewed only if their term is named
        here, measurements never.
    joint:
        Select from the candidates of all terms at once, n points in total, so that new ones go to
        the terms that need them. Scores must compare for that: :class:`PinnacleScore` and
        :class:`LeverageScore` count the terms' weights, others take residuals and gradients as they
        are. ``max_points`` is then the limit of all terms together. Points that leave come from the
        terms in proportion to their numbers; each term keeps one at least, and one that holds at
        few points, all of them present, keeps them all.

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
    update: Literal["add", "replace"] = "add"
    candidates: int = 10_000
    max_points: int | None = None
    terms: tuple[str, ...] | None = None
    joint: bool = False

    def __post_init__(self) -> None:
        self._check_parts()
        _checks.names("terms", self.terms)
        _checks.count("every", self.every)
        if self.stages is not None:
            _checks.count("stages", self.stages)
        _checks.boolean("at_start", self.at_start)
        _checks.count("candidates", self.candidates)
        _checks.one_of("update", self.update, ("add", "replace"))
        self._check_numbers()

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
                f"{type(self.score).__name__} has not: use pinn.PinnacleScore()"
            )

        _checks.boolean("joint", self.joint)
        if self.joint and isinstance(self.score, SavedScore):
            raise ValueError("saved scores are of one term: leave joint=True out")

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
        if self.n is not None and self.n > pool and not self.joint:
            raise ValueError(
                f"cannot select n = {self.n} of {pool} candidates: raise `candidates`"
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
        if not names and not self.joint and isinstance(self.score, SavedScore):
            names = (self.score.term,)
        renewable = renewable_terms(objective, names)
        if names or self.joint:
            return renewable
        return renewable[:1]

    def check(self, objective: Objective) -> None:
        """Raise ``ValueError`` if the objective's points could not be renewed."""
        names = self._terms(objective)
        if self.joint and self.max_points is not None and self.max_points <= len(names):
            raise ValueError(
                f"max_points is {self.max_points}, but each of {len(names)} terms keeps a point: "
                "raise max_points"
            )

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
    ) -> dict[str, Tensor]:
        """Return the renewed points of each resampled term, oldest first.

        Parameters
        ----------
        objective:
            The present objective.
        round, seed:
            Together they determine every random draw, so a run can be repeated and resumed.
        """
        names = self._terms(objective)
        groups = [names] if self.joint else [(name,) for name in names]
        renewed: dict[str, Tensor] = {}
        for k, group in enumerate(groups):
            group_seed = spawn(seed, 1000 * round + k)
            renewed |= self._renew_terms(objective, group, group_seed)
        return renewed

    def _renew_terms(
        self, objective: Objective, names: Sequence[str], seed: int
    ) -> dict[str, Tensor]:
        """Return the points of some terms with new ones selected from candidates of all of them."""
        present = {name: objective.locations(name) for name in names}
        pools = self._pools(objective, names, seed)
        values = self._values(objective, pools, spawn(seed, 1))

        # A term without new candidates keeps its points: it holds at few, all of them present.
        new = {name: new_rows(pool, present[name]) for name, pool in pools.items()}
        counts = {name: len(points) for name, points in present.items()}
        must_stay = dict(counts)
        for name in names:
            if len(new[name]):
                must_stay[name] = int(self.joint)

        rows = rows_in_all(new, pools)
        n = min(
            len(rows), self._wanted(counts, must_stay)
        )  # saved candidates can run out
        if n == 0:
            return present

        selected = self._selected(values.cpu()[rows], n, spawn(seed, 2))
        taken = rows_in_each(rows[selected], pools)
        leaving = leaving_counts(counts, must_stay, self._surplus(counts, n))

        renewed = {}

        for name, points in present.items():
            fresh = pools[name][taken[name].to(points.device)]
            # The oldest stand first, and leave first.
            renewed[name] = torch.cat([points, fresh])[leaving[name] :]

        return renewed

    def _selected(self, values: Tensor, n: int, seed: int) -> Tensor:
        """Return the row numbers that the selection chooses, checked."""
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
        return selected

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
            if self.joint:
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
        self, objective: Objective, pools: dict[str, Tensor], seed: int
    ) -> Tensor:
        """Return scores (n,), or embeddings (n, q) where the selection needs them."""
        score: Any = self.score
        if is_dataclass(score) and "seed" in {entry.name for entry in fields(score)}:
            # Other test points in each round: none is always near, none always far.
            score = replace(score, seed=seed)  # type: ignore[type-var]

        values: object
        if self._needs_embedding:
            values = score.embedding(objective, pools)
        else:
            values = score.score(objective, pools)
        if isinstance(values, np.ndarray):
            values = torch.from_numpy(values)

        n = sum(len(pool) for pool in pools.values())
        if not isinstance(values, Tensor) or values.ndim < 1 or len(values) != n:
            raise ValueError(
                f"{type(score).__name__} must return a tensor with one score for each of {n} "
                f"candidates, got {_checks.shape_of(values)}"
            )
        return values


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
