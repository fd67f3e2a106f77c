"""Callbacks for DeepXDE's training loop: points by influence or residual, weights by the kernel.

They act through what DeepXDE reads at each step, its training points and its loss weights, so that
optimizers, schedules and other callbacks stay as they are.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import deepxde as dde
import numpy as np

from whence import _checks
from whence.adapters.deepxde.model import from_training, refreshed, term_weights
from whence.adapters.deepxde.space import DeepXDESpace
from whence.adapters.training import check_resample, rows_of, weights_by_term
from whence.objective import Objective
from whence.pinn.sampling.resamplers.resample import Resample
from whence.pinn.sampling.scores.base import Score
from whence.pinn.sampling.scores.influence import InfluenceScore
from whence.pinn.sampling.scores.residual import ResidualScore
from whence.pinn.sampling.selections.base import Selection
from whence.pinn.sampling.selections.proportional import Proportional
from whence.pinn.sampling.selections.top_k import TopK
from whence.pinn.training.reweighting import Reweighting
from whence.pinn.weighting import NeuralTangentKernel, Weighting


class Resampler(dde.callbacks.Callback):  # type: ignore[misc]  # without types
    """Renews the points of the equation every so many iterations, by scores of fresh candidates.

    The points of conditions stay. It takes the place of ``PDEPointResampler``.

    Parameters
    ----------
    resample:
        How points are scored, selected and renewed, see :class:`whence.pinn.Resample`; ``every``
        counts iterations.
    seed:
        Of all that is drawn.

    Examples
    --------
    >>> model.train(iterations=10000, callbacks=[  # doctest: +SKIP
    ...     Resampler(pinn.Resample(pinn.PinnacleScore(), pinn.KMeansPlusPlus(), n=50, every=500))])
    """

    def __init__(self, resample: Resample, seed: int = 0) -> None:
        super().__init__()
        _checks.seed("seed", seed)
        self.resample = resample
        self.seed = seed
        self.round = 0
        self._iteration = 0
        self._objective: Objective | None = None

    def on_train_begin(self) -> None:
        """Convert the model; what cannot be converted or resampled is an error before any step."""
        self._objective = from_training(self.model)
        names = equation_terms(self._objective, self.model)
        # DeepXDE makes the points of conditions itself.
        check_resample(self.resample, names, "DeepXDE")
        if self.resample.terms is None:
            self.resample = replace(self.resample, terms=names)
        self.resample.check(self._objective)

    def on_epoch_end(self) -> None:
        """Renew the points where a round is due."""
        self._iteration += 1
        rounds = self.resample.rounds
        is_over = rounds is not None and self.round >= rounds
        if self._iteration % self.resample.every == 0 and not is_over:
            self.renew_points()

    def renew_points(self) -> None:
        """Score, select, and put the selected points into the model's data."""
        assert self._objective is not None
        self.round += 1
        objective = refreshed(self._objective, self.model)
        renewed = self.resample.update_points(objective, self.round, self.seed)

        # Residuals of one equation are at the same points.
        rows = next(iter(rows_of(renewed).values()))
        points = rows.detach().cpu().numpy().astype(dde.config.real(np))
        self.model.data.replace_with_anchors(points)


class InfluenceResampler(Resampler):
    """Replaces points of the equation by those that influence the solution most.

    The score is the published one (Naujoks et al. 2025, arXiv 2506.16443): the summed effect that
    training on a candidate would have on the outputs, by influence functions in the Gauss–Newton
    model; candidates are drawn in proportion to its power k.

    Parameters
    ----------
    period:
        Iterations between two rounds.
    n:
        Points that are replaced, or added, in each round; ``None``: all (``"replace"`` only).
    update:
        ``"replace"``: the points longest in training leave; ``"add"``: none does.
    candidates:
        Fresh points that are scored in each round.
    score:
        See :class:`whence.pinn.InfluenceScore`.
    k, c:
        See :class:`whence.pinn.Proportional`.
    max_points:
        Upper limit of points, for ``"add"``.
    seed:
        Of all that is drawn.

    Examples
    --------
    >>> model.train(iterations=10000, callbacks=[InfluenceResampler(period=100)])  # doctest: +SKIP
    """

    def __init__(
        self,
        period: int = 100,
        n: int | None = None,
        *,
        update: Literal["add", "replace"] = "replace",
        candidates: int = 10_000,
        score: InfluenceScore | None = None,
        k: float = 2,
        c: float = 0,
        max_points: int | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(
            renewal(
                score or InfluenceScore(), Proportional(k=k, c=c),
                period, n, update, candidates, max_points,
            ),
            seed,
        )  # fmt: skip


class RARResampler(Resampler):
    """Adds points of the equation where its residual is largest (RAR, Lu et al. 2021).

    With ``k`` candidates are drawn in proportion to the k-th power of the residual (RAR-D, Wu et
    al. 2022, arXiv 2207.10289).

    Parameters
    ----------
    period:
        Iterations between two rounds.
    n:
        Points that are added, or replaced, in each round.
    update:
        ``"add"`` or ``"replace"``.
    candidates:
        Fresh points whose residual is taken in each round.
    k:
        ``None``: the candidates of largest residual; else the power of the residual.
    c:
        See :class:`whence.pinn.Proportional`.
    max_points:
        Upper limit of points, for ``"add"``.
    seed:
        Of all that is drawn.

    Examples
    --------
    >>> model.train(iterations=10000, callbacks=[RARResampler(period=1000, n=10)])  # doctest: +SKIP
    """

    def __init__(
        self,
        period: int = 100,
        n: int | None = 10,
        *,
        update: Literal["add", "replace"] = "add",
        candidates: int = 10_000,
        k: float | None = None,
        c: float = 0,
        max_points: int | None = None,
        seed: int = 0,
    ) -> None:
        selection: Selection = TopK() if k is None else Proportional(k=k, c=c)
        super().__init__(
            renewal(
                ResidualScore(), selection, period, n, update, candidates, max_points
            ),
            seed,
        )


def renewal(
    score: Score,
    selection: Selection,
    period: int,
    n: int | None,
    update: Literal["add", "replace"],
    candidates: int,
    max_points: int | None,
) -> Resample:
    """Return how points are renewed, by DeepXDE's word for the iterations between two rounds."""
    _checks.count("period", period)
    return Resample(
        score,
        selection,
        n=n,
        every=period,
        update=update,
        candidates=candidates,
        max_points=max_points,
    )


class TermWeighting(dde.callbacks.Callback):  # type: ignore[misc]
    """Renews the loss weights by one of whence's weightings, by default the tangent kernel's.

    They multiply the ``loss_weights`` of ``model.compile``. DeepXDE reports losses times weights.

    Parameters
    ----------
    weighting:
        Such as ``pinn.NeuralTangentKernel()`` (Wang, Yu & Perdikaris 2022), the default, renewed
        every ``update_every`` iterations; one that weighs points one by one is refused.

    Examples
    --------
    >>> model.train(iterations=10000, callbacks=[TermWeighting()])  # doctest: +SKIP
    """

    def __init__(self, weighting: Weighting | None = None) -> None:
        super().__init__()
        self.weighting = weighting or NeuralTangentKernel(update_every=100)
        self._iteration = 0
        self._objective: Objective | None = None
        self._reweighting: Reweighting | None = None
        self._compiled: list[float] = []
        """The loss weights that the model was compiled with."""
        self._set: list[float] | None = None
        """Those that were set here last."""

    def on_train_begin(self) -> None:
        """Convert the model, and set the first weights."""
        # Trained again without being compiled, the model has the weights that were set here.
        if self._set is not None and self.model.loss_weights is self._set:
            self.model.loss_weights = self._compiled
        self._objective = from_training(self.model)
        self._compiled = term_weights(self.model, len(self._objective.terms))
        self.weighting.check(self._objective)
        self._reweighting = Reweighting(self.weighting, self._objective)
        self._renew_weights()

    def on_epoch_end(self) -> None:
        """Renew the weights where they are due."""
        assert self._reweighting is not None
        self._iteration += 1
        if self._reweighting.is_due(self._iteration):
            self._renew_weights()

    def _renew_weights(self) -> None:
        assert self._objective is not None
        assert self._reweighting is not None
        # The weighting multiplies the weights that the model was compiled with.
        self.model.loss_weights = self._compiled
        objective = refreshed(self._objective, self.model)
        renewed = self._reweighting.renewed(objective)
        space = renewed.space
        assert isinstance(space, DeepXDESpace)
        n_columns = {name: place.n_columns for name, place in space.places.items()}
        weights = weights_by_term(self.weighting, renewed, n_columns)
        self.model.loss_weights = self._set = list(weights.values())


def equation_terms(objective: Objective, model: dde.Model) -> tuple[str, ...]:
    """Return the names of the terms of the equation's residuals."""
    names = tuple(objective.terms)
    return names[: len(names) - len(model.data.bcs)]
