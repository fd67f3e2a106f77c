"""When and how training points are renewed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from whence import _checks
from whence.objective import Objective
from whence.pinn.sampling.scores import (
    InfluenceScore,
    ResidualScore,
    SavedScore,
    Score,
    by_term,
    spawn,
)
from whence.pinn.sampling.selection import Proportional, Selection


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
    update:
        ``"add"`` or ``"replace"``.
    candidates:
        Fresh uniform candidates in each round and term.
    max_points:
        Upper limit of points of a term, for ``add``.
    terms:
        Which terms; by default the first equation's, or that of a :class:`SavedScore`, or all of
        them where ``joint``.
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
    update: Literal["add", "replace"] = "add"
    candidates: int = 10_000
    max_points: int | None = None
    terms: tuple[str, ...] | None = None
    joint: bool = False

    def __post_init__(self) -> None:
        self._check_kinds()
        _checks.count("every", self.every)
        _checks.count("candidates", self.candidates)
        _checks.one_of("update", self.update, ("add", "replace"))
        if self.n is not None:
            _checks.count("n", self.n)
        elif self.update == "add":
            raise ValueError("update='add' needs the number n of points to add")
        if self.max_points is not None:
            _checks.count("max_points", self.max_points)
            if self.update == "replace":
                raise ValueError(
                    "max_points does nothing with update='replace', which keeps the number of "
                    "points: leave it out"
                )
            if self.n is not None and self.n > self.max_points:
                raise ValueError(f"n = {self.n} exceeds max_points = {self.max_points}")
        if self.n is not None and self.n > self._pool_size() and not self.joint:
            raise ValueError(
                f"cannot select n = {self.n} of {self._pool_size()} candidates: raise `candidates`"
            )

    def _check_kinds(self) -> None:
        for what, given, method, example in (
            ("score", self.score, "score", "pinn.ResidualScore()"),
            ("selection", self.selection, "select", "pinn.TopK()"),
        ):
            if isinstance(given, type) or not callable(getattr(given, method, None)):
                raise TypeError(
                    f"{what} must be an object such as {example}, got {given!r}"
                )
        if _embedded(self.selection) and not hasattr(self.score, "embedding"):
            raise TypeError(
                f"{type(self.selection).__name__} selects by embeddings, which "
                f"{type(self.score).__name__} has not: use pinn.PinnacleScore()"
            )
        if not isinstance(self.joint, bool):
            raise TypeError(f"joint must be True or False, got {self.joint!r}")
        if self.joint and isinstance(self.score, SavedScore):
            raise ValueError("saved scores are of one term: leave joint=True out")
        _checks.names("terms", self.terms)

    def _pool_size(self) -> int:
        saved = isinstance(self.score, SavedScore)
        return len(self.score.candidates) if saved else self.candidates  # type: ignore[attr-defined]

    def check(self, objective: Objective) -> None:
        """Raise ``ValueError`` if the objective's points could not be renewed."""
        names = tuple(self._terms(objective))
        if self.joint and self.max_points is not None and self.max_points <= len(names):
            raise ValueError(
                f"max_points is {self.max_points}, but each of {len(names)} terms keeps a point: "
                "raise max_points"
            )
        for name in names:
            present = len(objective.term(name).points)
            if self.n is None and present > self._pool_size():
                raise ValueError(
                    f"cannot renew all {present} points of term {name!r} from "
                    f"{self._pool_size()} candidates: raise `candidates`"
                )
            if isinstance(self.score, SavedScore):
                self._check_saved(self.score, objective, name)
            else:
                objective.draw(name, 1, seed=0)  # which says so where none can be drawn
        if isinstance(self.score, InfluenceScore) and self.score.quantity is not None:
            self.score.quantity.values(objective)

    def _check_saved(self, saved: SavedScore, objective: Objective, name: str) -> None:
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
        names = tuple(self._terms(objective))
        groups = [names] if self.joint else [(name,) for name in names]
        fresh: dict[str, Tensor] = {}
        for k, group in enumerate(groups):
            fresh |= self._renewed(objective, group, spawn(seed, 1000 * round + k))
        return fresh

    def _renewed(
        self, objective: Objective, names: Sequence[str], seed: int
    ) -> dict[str, Tensor]:
        """Return the points of some terms with new ones selected from candidates of all of them."""
        present = {name: objective.term(name).points for name in names}
        pools = self._pools(objective, names, seed)
        values = self._values(objective, pools, spawn(seed, 1))
        new = {name: _new_rows(pool, present[name]) for name, pool in pools.items()}
        rows = _stacked(new, pools)
        counts = {name: len(points) for name, points in present.items()}
        fewest = {
            n: int(self.joint) if len(new[n]) else count for n, count in counts.items()
        }
        n = min(len(rows), self._wanted(counts, fewest))
        if n == 0:
            return present
        chosen = rows[self.selection.select(values.cpu()[rows], n, spawn(seed, 2))]
        taken = _split(chosen, pools)
        total = sum(counts.values()) + n
        surplus = (
            n
            if self.update == "replace"
            else max(0, total - (self.max_points or total))
        )
        leaving = _leaving(counts, fewest, surplus)
        return {
            name: torch.cat([points, pools[name][taken[name].to(points.device)]])[
                leaving[name] :
            ]
            for name, points in present.items()
        }

    def _wanted(self, counts: Mapping[str, int], fewest: Mapping[str, int]) -> int:
        """Return how many points to select, by those present and how many of them must stay."""
        total, staying = sum(counts.values()), sum(fewest.values())
        wanted = total if self.n is None else self.n
        if self.update == "replace":
            return min(wanted, total - staying) if self.joint else wanted
        room = wanted if self.max_points is None else max(0, self.max_points - staying)
        return min(wanted, room)

    def _pools(
        self, objective: Objective, names: Sequence[str], seed: int
    ) -> dict[str, Tensor]:
        if isinstance(self.score, SavedScore):
            return {names[0]: self.score.candidates.to(objective.term(names[0]).points)}
        seeds = [seed, *(spawn(seed, 10 + k) for k in range(1, len(names)))]
        return {
            name: objective.draw(name, self.candidates, own)
            for name, own in zip(names, seeds, strict=True)
        }

    def _values(
        self, objective: Objective, pools: dict[str, Tensor], seed: int
    ) -> Tensor:
        """Return scores (n,), or embeddings (n, q) where the selection needs them."""
        score: Any = self.score
        if is_dataclass(score) and "seed" in {one.name for one in fields(score)}:
            score = replace(score, seed=seed)  # type: ignore[type-var]
        asked = score.embedding if _embedded(self.selection) else score.score
        values: Tensor = asked(objective, pools)
        return values

    def _terms(self, objective: Objective) -> Iterator[str]:
        if self.terms:
            yield from self.terms
        elif self.joint:
            yield from objective.terms
        else:
            saved = isinstance(self.score, SavedScore)
            yield self.score.term if saved else next(iter(objective.terms))  # type: ignore[attr-defined]


@dataclass(frozen=True)
class R3:
    """Retain, resample, release: points of little residual make room for uniform ones.

    Every ``every`` iterations the points of a term whose residual norm ‖r‖ is above the mean are
    kept, and as many uniform ones are drawn as are let go, so that their number stays (Daw et al.
    2023, arXiv 2207.02338, algorithm 1).

    Parameters
    ----------
    every:
        Iterations between two rounds.
    terms:
        Which terms; by default the first, an equation's.

    Examples
    --------
    >>> from whence import pinn
    >>> problem = pinn.zoo.load("diffusion")
    >>> objective = problem.objective(problem.network(seed=0), problem.sample(50, seed=0))
    >>> pinn.R3().update_points(objective, round=1, seed=0)["pde"].shape
    torch.Size([50, 2])
    """

    every: int = 100
    terms: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        _checks.count("every", self.every)
        _checks.names("terms", self.terms)

    def check(self, objective: Objective) -> None:
        """Raise ``ValueError`` if the objective's points could not be renewed."""
        for name in self._terms(objective):
            objective.draw(name, 1, seed=0)

    def _terms(self, objective: Objective) -> tuple[str, ...]:
        return self.terms or tuple(objective.terms)[:1]

    def update_points(
        self, objective: Objective, round: int, seed: int
    ) -> dict[str, Tensor]:
        """Return the renewed points of each term, those that stay first."""
        return {
            name: self._renewed(objective, name, spawn(seed, 1000 * round + k))
            for k, name in enumerate(self._terms(objective))
        }

    def _renewed(self, objective: Objective, name: str, seed: int) -> Tensor:
        points = objective.term(name).points
        sizes = ResidualScore().score(objective, {name: points})
        kept = points[sizes > sizes.mean()]
        drawn = objective.draw(name, len(points), seed)
        fresh = drawn[_new_rows(drawn, kept).to(drawn.device)][
            : len(points) - len(kept)
        ]
        # Of a term that holds at few points there may not be enough others.
        rest = points[sizes <= sizes.mean()]
        missing = len(points) - len(kept) - len(fresh)
        again = rest[_new_rows(rest, torch.cat([kept, fresh])).to(rest.device)][
            :missing
        ]
        return torch.cat([kept, again, fresh])


def _embedded(selection: Selection) -> bool:
    return bool(getattr(selection, "embedded", False))


def _new_rows(pool: Tensor, present: Tensor) -> Tensor:
    """Return the row numbers of candidates that are not present, each different one once."""
    again = _checks.repeated(torch.cat([present, pool]))
    return torch.nonzero(~again[len(present) :])[:, 0]


def _stacked(rows: Mapping[str, Tensor], pools: Mapping[str, Tensor]) -> Tensor:
    """Return row numbers within each pool as row numbers within all pools one after the other."""
    parts, start = [], 0
    for name, pool in pools.items():
        parts.append(rows[name] + start)
        start += len(pool)
    return torch.cat(parts)


def _split(rows: Tensor, pools: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return row numbers within all pools as those within each, in the same order."""
    found, start = {}, 0
    for name, pool in pools.items():
        found[name] = rows[(rows >= start) & (rows < start + len(pool))] - start
        start += len(pool)
    return found


def _leaving(
    counts: Mapping[str, int], fewest: Mapping[str, int], surplus: int
) -> dict[str, int]:
    """Return how many present points leave each term, in proportion to their numbers.

    So many that ``fewest`` are left of each at least; those that cannot leave are left out.
    """
    most = {name: max(0, count - fewest[name]) for name, count in counts.items()}
    total = sum(counts[name] for name in counts if most[name])
    shares = {n: surplus * c / total if most[n] else 0.0 for n, c in counts.items()}
    leaving = {name: min(int(share), most[name]) for name, share in shares.items()}
    while (left := surplus - sum(leaving.values())) > 0:
        open_ones = [name for name in counts if leaving[name] < most[name]]
        if not open_ones:
            break
        open_ones.sort(key=lambda name: leaving[name] - shares[name])
        for name in open_ones[:left]:
            leaving[name] += 1
    return leaving
