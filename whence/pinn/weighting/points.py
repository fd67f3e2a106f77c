"""Weights of single points: by their own losses, and by what comes before them in time."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from whence import _checks
from whence.catalogue import WEIGHTINGS
from whence.pinn.weighting.base import Weighting, Weights, check_names
from whence.pinn.weighting.term_statistics import TermStatistics

COMPARED_AT_ONCE = 1000
"""Points whose distances to all former ones are taken at a time."""


class PointWeighting(Weighting):
    """Weights of single points from a number λ_i of each, which grows from 1 and is carried along.

    A subclass says how λ grows (:meth:`grown`) and what a point then weighs (:meth:`mask`). When
    points are resampled, each new one takes over λ of the nearest former point of its term,
    distances taken in the units of the points.
    """

    terms: tuple[str, ...] | None = None

    # --- what a subclass writes ---

    @abstractmethod
    def grown(self, before: Tensor, losses: Tensor) -> Tensor:
        """Return the new λ of a term's points, (n,), from the former and from the losses."""

    @abstractmethod
    def mask(self, sizes: Tensor) -> Tensor:
        """Return what points of these λ weigh, (n,)."""

    # --- what is shared ---

    def check_terms(self, terms: TermStatistics) -> None:
        """Raise ``ValueError`` for a name that is no term's."""
        check_names("term", self.terms or (), terms.names)

    def renew_weights(self, terms: TermStatistics) -> Weights:
        """Let every λ grow and return the weights of all points."""
        weights: Weights = dict.fromkeys(terms.names, 1.0)
        for name in self.terms or terms.names:
            losses = terms.point_losses(name)  # ℓ_i, (n,)
            before = self._present_lambda(terms, name, losses)
            now = self.grown(before, losses)

            self.note("sizes", {name: now})
            if terms.has_points(name):
                self.note("points", {name: terms.points(name).clone()})
            weights[name] = self.mask(now)

        return weights

    def weights_at(self, terms: TermStatistics) -> Weights:
        """Return the present weights, at the points of the terms."""
        weights = self.weights
        for name in self.noted("sizes"):
            present = self._present_lambda(terms, name, None)
            weights[name] = self.mask(present)
        return weights

    def _present_lambda(
        self, terms: TermStatistics, name: str, losses: Tensor | None
    ) -> Tensor:
        """Return λ at the present points: of the same points, of the nearest ones, or 1."""
        former = self.noted("sizes").get(name)  # λ of the last update, (n,)
        if former is None:
            assert losses is not None
            return torch.ones_like(losses)

        former_points = self.noted("points").get(name)
        if former_points is None:
            if losses is None:
                losses = terms.point_losses(name)
            if len(losses) != len(former):
                terms.points(name)  # which says how to give them
            return former

        points = terms.points(name)
        if points.shape == former_points.shape and torch.equal(points, former_points):
            return former

        return former[nearest_rows(points, former_points)]


@WEIGHTINGS.named("self_adaptive")
@dataclass(eq=False)
class SelfAdaptive(PointWeighting):
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

    def check_options(self) -> None:
        """Raise ``ValueError`` for an option that is wrong."""
        _checks.positive("lr", self.lr)
        _checks.positive("power", self.power)
        check_decay(self.decay)
        _checks.names("terms", self.terms)

    def grown(self, before: Tensor, losses: Tensor) -> Tensor:
        """Return λ after a step of ascent, (n,)."""
        # Not zero, where all points are met exactly.
        smallest = torch.finfo(losses.dtype).tiny
        mean = losses.mean().clamp_min(smallest)

        # m′(λ) = power·λ^(power−1).
        slope = self.power * before.pow(self.power - 1)
        ascent = self.lr * slope * losses / mean
        return self.decay * before + ascent

    def mask(self, sizes: Tensor) -> Tensor:
        """Return ``m(λ) = λ^power``, (n,)."""
        return sizes.pow(self.power)


@WEIGHTINGS.named("causal")
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

    def check_options(self) -> None:
        """Raise ``ValueError`` for an option that is wrong."""
        self._check_epsilon()
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

    def _check_epsilon(self) -> None:
        if not isinstance(self.epsilon, Sequence) or not self.epsilon:
            raise TypeError(
                f"epsilon must be numbers such as (0.1, 1.0), got {self.epsilon!r}"
            )

        for value in self.epsilon:
            _checks.positive("epsilon", value)
        if list(self.epsilon) != sorted(self.epsilon):
            raise ValueError(f"epsilon must be in rising order, got {self.epsilon!r}")

    def check_terms(self, terms: TermStatistics) -> None:
        """Raise ``ValueError`` for a name that is no term's, or a coordinate that is none."""
        check_names("term", self.terms or (), terms.names)
        terms.column(self.coordinate)

    def renew_weights(self, terms: TermStatistics) -> Weights:
        """Return the weights of all points by the losses in the windows before theirs."""
        stage = self.noted_count("stage")
        smallest = 1.0

        for name in self.terms or terms.names[:1]:
            means = self._window_means(terms, name)  # L_i, (windows,)
            before = means.cumsum(0) - means  # Σ_{j<i} L_j
            by_window = torch.exp(-self.epsilon[stage] * before)  # falls with i
            self.note("windows", {name: by_window})
            smallest = min(smallest, float(by_window[-1]))

        # The last window of all terms weighs enough: their past is solved.
        if smallest > self.threshold and stage + 1 < len(self.epsilon):
            self.note_count("stage", stage + 1)
        return self.weights_at(terms)

    def weights_at(self, terms: TermStatistics) -> Weights:
        """Return the present weights, at the points of the terms."""
        weights: Weights = dict.fromkeys(terms.names, 1.0)
        for name, by_window in self.noted("windows").items():
            weights[name] = by_window[self._windows_of(terms, name)]
        return weights

    def _window_means(self, terms: TermStatistics, name: str) -> Tensor:
        """Return the mean loss in each window; that of an empty one is zero."""
        losses = terms.point_losses(name)
        window = self._windows_of(terms, name)

        zeros = losses.new_zeros(self.windows)
        totals = zeros.index_add(0, window, losses)
        counts = zeros.index_add(0, window, torch.ones_like(losses))
        return totals / counts.clamp_min(1)  # 0/1 where there are no points

    def _windows_of(self, terms: TermStatistics, name: str) -> Tensor:
        """Return the window of each point, (n,); the first points set where they begin and end."""
        points = terms.points(name)
        column = terms.column(self.coordinate)
        _checks.one_of("coordinate", column, range(points.shape[1]))
        times = points[:, column]  # (n,)

        if name not in self.noted("begin"):
            self._set_span(name, times)
        begin = self.noted("begin")[name]
        end = self.noted("end")[name]
        share = (times - begin) / (end - begin)
        # The last time belongs to the last window; new points outside go to the nearest one.
        return (share * self.windows).long().clamp(0, self.windows - 1)

    def _set_span(self, name: str, times: Tensor) -> None:
        begin = float(times.min())
        end = float(times.max())
        if begin == end:
            raise ValueError(
                f"the points of term {name!r} are all at the time {begin:g}: choose other terms"
            )

        self.note("begin", {name: begin})
        self.note("end", {name: end})


def check_decay(decay: float) -> None:
    """Raise ``ValueError`` unless a factor on λ is in (0, 1]."""
    _checks.positive("decay", decay)
    if decay > 1:
        raise ValueError(f"decay must be at most 1, got {decay!r}")


def nearest_rows(points: Tensor, others: Tensor) -> Tensor:
    """Return for each point the row number of the nearest of others, (n,)."""
    exact = "donot_use_mm_for_euclid_dist"  # so that a point is nearest to itself
    rows = []
    for part in points.split(COMPARED_AT_ONCE):
        distances = torch.cdist(part, others, compute_mode=exact)  # (part, others)
        rows.append(distances.argmin(dim=1))
    return torch.cat(rows)
