"""Weights of single points: by their own losses, and by what comes before them in time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from whence import _checks
from whence.objective import Objective
from whence.pinn.weighting.measured import Measured, OfObjective
from whence.pinn.weighting.weighting import Weighting, Weights, check_names


def _terms(given: Measured | Objective) -> Measured:
    return OfObjective(given) if isinstance(given, Objective) else given


@dataclass(eq=False)
class SelfAdaptive(Weighting):
    """A weight for each point that grows with its loss: ``min_θ max_λ Σ_i m(λ_i) ℓ_i``.

    Each update is a step of ascent, ``λ_i ← decay·λ_i + lr·m′(λ_i)·ℓ_i / ℓ̄`` with ℓ̄ the mean loss
    of the term's points, from λ = 1; a point weighs ``m(λ_i) = λ_i^power`` (McClenny &
    Braga-Neto, arXiv 2009.04544; dividing by ℓ̄ makes ``lr`` hold while losses fall by orders of
    magnitude). Without decay weights only grow; with it they forget (as residual-based attention
    does, Anagnostopoulos et al., arXiv 2307.00379). When points are resampled, each new one takes
    over λ of the nearest former point of its term, distances taken in the units of the points.

    Parameters
    ----------
    lr:
        Step of ascent.
    decay:
        Factor on λ in each update, in (0, 1].
    power:
        Exponent of the mask m.
    update_every:
        Steps between two updates.
    terms:
        Terms whose points have weights of their own; by default all.
    """

    lr: float = 0.01
    decay: float = 0.999
    power: float = 1.0
    update_every: int = 1
    terms: tuple[str, ...] | None = None

    def _check_options(self) -> None:
        _checks.positive("lr", self.lr)
        _checks.positive("decay", self.decay)
        _checks.positive("power", self.power)
        if self.decay > 1:
            raise ValueError(f"decay must be at most 1, got {self.decay!r}")
        _checks.names("terms", self.terms)

    def _check_terms(self, terms: Measured) -> None:
        check_names("term", self.terms or (), terms.names)

    def _renewed(self, terms: Measured) -> Weights:
        found: Weights = dict.fromkeys(terms.names, 1.0)
        for name in self.terms or terms.names:
            losses = terms.point_losses(name)
            sizes = self._carried(terms, name, losses)
            slope = self.power * sizes.pow(self.power - 1)
            mean = losses.mean().clamp_min(torch.finfo(losses.dtype).tiny)
            sizes = self.decay * sizes + self.lr * slope * losses / mean
            self._keep(terms, name, sizes)
            found[name] = sizes.pow(self.power)
        return found

    def at(self, terms: Measured | Objective) -> Weights:
        """Return the present weights, at the points of the terms."""
        now = _terms(terms)
        weights = self.weights
        for name in self._group("sizes"):
            weights[name] = self._carried(now, name, None).pow(self.power)
        return weights

    def _keep(self, terms: Measured, name: str, sizes: Tensor) -> None:
        self._note("sizes", {name: sizes})
        if terms.has_points(name):
            self._note("points", {name: terms.points(name).clone()})

    def _carried(self, terms: Measured, name: str, losses: Tensor | None) -> Tensor:
        """Return λ at the present points: of the same points, of the nearest ones, or 1."""
        held = self._group("sizes").get(name)
        if held is None:
            assert losses is not None
            return torch.ones_like(losses)
        before = self._group("points").get(name)
        if before is None:
            if len(terms.point_losses(name) if losses is None else losses) != len(held):
                terms.points(name)  # which says how to give them
            return held
        now = terms.points(name)
        if now.shape == before.shape and torch.equal(now, before):
            return held
        return held[_nearest(now, before)]


@dataclass(eq=False)
class Causal(Weighting):
    """Later times weigh nothing until earlier ones are solved.

    Points are put into windows of time of equal length. With ``L_j`` the mean loss in window j
    those of window i weigh ``exp(−ε Σ_{j<i} L_j)`` (Wang, Sankaran & Perdikaris, arXiv 2203.07404,
    algorithm 1). Once the last window weighs more than ``threshold``, ε goes on to the next.

    Parameters
    ----------
    epsilon:
        Values of the strictness ε in turn, rising.
    windows:
        Number of windows.
    threshold:
        Weight of the last window at which the next ε begins, in (0, 1).
    coordinate:
        The time: its name, or its column in the points.
    terms:
        Terms that are weighted so; by default the first, an equation's.
    update_every:
        Steps between two updates.
    """

    epsilon: Sequence[float] = (0.01, 0.1, 1.0, 10.0, 100.0)
    windows: int = 32
    threshold: float = 0.99
    coordinate: str | int = "t"
    terms: tuple[str, ...] | None = None
    update_every: int = 1

    def _check_options(self) -> None:
        if not isinstance(self.epsilon, Sequence) or not self.epsilon:
            raise TypeError(
                f"epsilon must be numbers such as (0.1, 1.0), got {self.epsilon!r}"
            )
        for value in self.epsilon:
            _checks.positive("epsilon", value)
        if list(self.epsilon) != sorted(self.epsilon):
            raise ValueError(f"epsilon must be in rising order, got {self.epsilon!r}")
        _checks.count("windows", self.windows)
        if self.windows < 2:
            raise ValueError(f"windows must be 2 or more, got {self.windows}")
        if not isinstance(self.threshold, float) or not 0 < self.threshold < 1:
            raise ValueError(
                f"threshold must be between 0 and 1, got {self.threshold!r}"
            )
        if not isinstance(self.coordinate, str):
            _checks.count("coordinate", self.coordinate, zero=True)
        _checks.names("terms", self.terms)

    def _check_terms(self, terms: Measured) -> None:
        check_names("term", self.terms or (), terms.names)
        terms.column(self.coordinate)

    def _renewed(self, terms: Measured) -> Weights:
        least = 1.0
        stage = int(self._state.get("stage", 0))
        for name in self._chosen(terms):
            means = self._means(terms, name)
            before = means.cumsum(0) - means
            by_window = torch.exp(-self.epsilon[stage] * before)
            self._note("windows", {name: by_window})
            least = min(least, float(by_window[-1]))
        if least > self.threshold and stage + 1 < len(self.epsilon):
            self._state["stage"] = stage + 1
        return self.at(terms)

    def at(self, terms: Measured | Objective) -> Weights:
        """Return the present weights, at the points of the terms."""
        now = _terms(terms)
        weights: Weights = dict.fromkeys(now.names, 1.0)
        for name, by_window in self._group("windows").items():
            weights[name] = by_window[self._window(now, name)]
        return weights

    def _chosen(self, terms: Measured) -> tuple[str, ...]:
        return self.terms or terms.names[:1]

    def _means(self, terms: Measured, name: str) -> Tensor:
        """Return the mean loss in each window; an empty one has none."""
        losses, window = terms.point_losses(name), self._window(terms, name)
        total = losses.new_zeros(self.windows).index_add_(0, window, losses)
        count = losses.new_zeros(self.windows).index_add_(
            0, window, torch.ones_like(losses)
        )
        return total / count.clamp_min(1)

    def _window(self, terms: Measured, name: str) -> Tensor:
        """Return the window of each point, (n,); the first points set where they begin and end."""
        points, column = terms.points(name), terms.column(self.coordinate)
        _checks.one_of("coordinate", column, range(points.shape[1]))
        times = points[:, column]
        if f"begin/{name}" not in self._state:
            begin, end = float(times.min()), float(times.max())
            if begin == end:
                raise ValueError(
                    f"the points of term {name!r} are all at the time {begin:g}: choose other terms"
                )
            self._note("begin", {name: begin})
            self._note("end", {name: end})
        begin, end = self._state[f"begin/{name}"], self._state[f"end/{name}"]
        share = (times - begin) / (end - begin)
        return (share * self.windows).long().clamp(0, self.windows - 1)


def _nearest(points: Tensor, among: Tensor) -> Tensor:
    """Return for each point the row number of the nearest of others, (n,)."""
    exact = "donot_use_mm_for_euclid_dist"  # so that a point is nearest to itself
    found = [
        torch.cdist(p, among, compute_mode=exact).argmin(dim=1)
        for p in points.split(1000)
    ]
    return torch.cat(found)
