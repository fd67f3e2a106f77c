"""Callbacks and weightings for PINA's own training: refinement that reaches the loss, the kernel.

PINA 0.3.2 refines points in a place that no loss reads: its data loader keeps the batch that it was
made with, and the condition keeps a second reference to the old points. :class:`PointsReachLoss` is
what its base class lacks, and mends PINA's own refinements too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from lightning.pytorch import Callback
from pina import LabelTensor, Trainer
from pina.callback import R3Refinement
from pina.solver import SolverInterface
from pina.weighting import BaseWeighting
from torch import Tensor

from whence.adapters.pina.labels import labelled, plain
from whence.adapters.pina.solver import from_solver, training_rows
from whence.adapters.pina.space import PinaSpace
from whence.adapters.training import check_resample, rows_of, weights_by_term
from whence.objective import Objective
from whence.pinn.optimizers.stepper import Optimizer, check_schedule
from whence.pinn.sampling.resamplers.resample import Resample
from whence.pinn.training.reweighting import Reweighting
from whence.pinn.weighting import NeuralTangentKernel, Weighting

BaseRefinement = R3Refinement.__mro__[1]
"""PINA's base class of refinements, which it gives no public name."""


class PointsReachLoss(BaseRefinement):  # type: ignore[misc,valid-type]
    """A refinement whose points are those that the next epoch's loss is made of.

    Stands before a refinement of PINA in a list of base classes and does what PINA's base class
    leaves out: the new points take the place of the old ones in the condition, in both of the
    references that it keeps, and in the batch that the data loader holds. Points that the trainer
    has set aside for validation or tests stay as they are.

    Examples
    --------
    >>> from pina.callback import R3Refinement
    >>> class R3(PointsReachLoss, R3Refinement):
    ...     '''R3 that retains and releases points of the loss.'''
    >>> R3(sample_every=5).sample_every
    5
    """

    def on_train_epoch_end(self, trainer: Trainer, solver: SolverInterface) -> None:
        """Renew the points of each condition where a round is due."""
        epoch = trainer.current_epoch
        if epoch == 0 or epoch % self.sample_every:
            return
        for name in self._condition_to_update:
            rows = training_rows(solver, name)
            current = solver.problem.conditions[name].data.input[rows]
            points = self.sample(current, name, solver)
            put_points(trainer, solver, name, points)


def put_points(
    trainer: Trainer, solver: SolverInterface, name: str, points: LabelTensor
) -> None:
    """Let a condition's loss be made of some points (n, d) from the next epoch on.

    There may be more of them than before, or fewer.
    """
    condition = solver.problem.conditions[name]
    subset = trainer.datamodule.train_datasets[name]
    before = condition.data.input
    labels = before.labels

    # Points of validation and tests keep their place, those of training follow.
    is_trained = torch.zeros(len(before), dtype=torch.bool)
    is_trained[subset.indices] = True
    others = dict(trainer.datamodule.split_idxs[name])
    kept = torch.cat(
        [plain(before).detach()[~is_trained], plain(points.extract(labels))]
    )
    new_place = torch.cumsum(~is_trained, 0) - 1
    for part, rows in others.items():
        if part != "train":
            others[part] = [int(new_place[row]) for row in rows]

    n_others = int((~is_trained).sum())
    subset.indices = list(range(n_others, len(kept)))
    others["train"] = subset.indices
    trainer.datamodule.split_idxs[name] = others
    subset.dataset_length = len(subset.indices)
    subset.iterable_length = max(subset.iterable_length, subset.dataset_length)

    # Detached: they are data, whatever they were computed from.
    table = labelled(kept.detach(), labels)
    condition.data.input = table
    condition.data.data["input"] = table
    loader = trainer.train_dataloader.dataloaders[name]
    if isinstance(loader.dataset, dict):
        loader.dataset["input"] = table[
            subset.indices
        ]  # the batch that it goes on to give


class Refinement(PointsReachLoss):
    """Renews the points of conditions by scores of fresh candidates, from epoch to epoch.

    Parameters
    ----------
    resample:
        How points are scored, selected and renewed, see :class:`whence.pinn.Resample`; ``every``
        counts epochs, and ``terms`` are the conditions, by default the one with most points.
    seed:
        Of all that is drawn.

    Raises
    ------
    TypeError, ValueError
        At the start of training, if the solver cannot be converted or its points not be renewed.

    Examples
    --------
    >>> from whence import pinn
    >>> refinement = Refinement(pinn.Resample(pinn.InfluenceScore(), n=20, every=100))
    >>> refinement.sample_every
    100
    """

    def __init__(self, resample: Resample, seed: int = 0) -> None:
        names = None if resample.terms is None else list(resample.terms)
        super().__init__(resample.every, names)
        self._condition_to_update: list[str] | None = names
        self.resample = resample
        self.seed = seed
        self.round = 0
        self._objective: Objective | None = None
        self._renewed: dict[str, Tensor] = {}
        """Points of the present round that are not put in their place yet."""

    def on_train_start(self, trainer: Trainer, solver: SolverInterface) -> None:
        """Convert the solver; what cannot be converted or renewed is an error before any step."""
        self._objective = from_solver(solver, weight_decay=0.0)
        drawn = [t for t in self._objective.terms.values() if t.source == "drawn"]
        check_resample(self.resample, [term.name for term in drawn], "PINA")
        if self._condition_to_update is None:
            largest = max(drawn, key=lambda term: len(term.points), default=None)
            self._condition_to_update = [] if largest is None else [largest.name]
        self.resample = replace(self.resample, terms=tuple(self._condition_to_update))
        self.resample.check(self._objective)
        is_batched = trainer.datamodule.batch_size is not None
        if (
            is_batched
            and self.resample.update == "add"
            and not trainer.reload_dataloaders_every_n_epochs
        ):
            raise ValueError(
                "points are to be added to batches, whose number the trainer counts at its start: "
                "give Trainer(reload_dataloaders_every_n_epochs=1), batch_size=None, or "
                "update='replace'"
            )
        super().on_train_start(trainer, solver)

    def on_train_epoch_end(self, trainer: Trainer, solver: SolverInterface) -> None:
        """Renew the points where a round is due."""
        rounds = self.resample.rounds
        if rounds is None or self.round < rounds:
            super().on_train_epoch_end(trainer, solver)

    def sample(
        self, current_points: LabelTensor, condition_name: str, solver: SolverInterface
    ) -> LabelTensor:
        """Return the renewed points of one condition."""
        assert self._objective is not None
        # All conditions of a round are renewed together, when the first of them is asked for.
        if condition_name not in self._renewed:
            self.round += 1
            objective = refreshed(self._objective, solver)
            with torch.enable_grad():
                points = self.resample.update_points(objective, self.round, self.seed)
            self._renewed = rows_of(points)

        rows = self._renewed.pop(condition_name)
        return labelled(rows, self._objective.coordinates)


def refreshed(objective: Objective, solver: SolverInterface) -> Objective:
    """Return a solver's objective at the points that its conditions have now."""
    terms = []
    for name, term in objective.terms.items():
        if term.source == "drawn":
            points = solver.problem.conditions[name].data.input[
                training_rows(solver, name)
            ]
            rows = plain(points.extract(list(objective.coordinates))).detach()
            term = term.with_points(rows.to(term.locations))
        terms.append(term)
    return objective.with_terms(terms)


class TermWeighting(BaseWeighting):  # type: ignore[misc]
    """One of whence's weightings as PINA's, with residuals and traces, which PINA's base lacks.

    Parameters
    ----------
    weighting:
        Such as ``pinn.NeuralTangentKernel()`` (Wang, Yu & Perdikaris 2022), the default, renewed
        every ``update_every`` epochs.

    Raises
    ------
    ValueError
        At the first step, if it weighs points one by one, or the solver cannot be converted.

    Examples
    --------
    >>> from whence import pinn
    >>> TermWeighting(pinn.NeuralTangentKernel(update_every=50)).update_every_n_epochs
    50
    """

    def __init__(self, weighting: Weighting | None = None) -> None:
        self.weighting = weighting or NeuralTangentKernel(update_every=100)
        super().__init__(update_every_n_epochs=self.weighting.update_every)
        self._objective: Objective | None = None
        self._reweighting: Reweighting | None = None

    def update_weights(self, losses: dict[str, Tensor]) -> dict[str, float]:
        """Return the new weight of each condition."""
        if self._objective is None:
            self._objective = from_solver(self.solver, weight_decay=0.0)
            self._reweighting = Reweighting(self.weighting, self._objective)
        assert self._reweighting is not None
        objective = refreshed(self._objective, self.solver)
        renewed = self._reweighting.renewed(objective)
        space = renewed.space
        assert isinstance(space, PinaSpace)
        return weights_by_term(self.weighting, renewed, space.n_columns)


class UseOptimizer(Callback):  # type: ignore[misc]
    """Lets a solver be trained by an optimizer of whence, such as ``pinn.GaussNewton``.

    In each batch it takes a step at all training points, in place of the optimizer that the solver
    was made with; points, weights, loggers and other callbacks are the trainer's.

    Parameters
    ----------
    optimizer:
        Of :mod:`whence.pinn`; how many steps it takes is up to the trainer.

    Examples
    --------
    >>> from whence import pinn
    >>> callback = UseOptimizer(pinn.GaussNewton(200))
    """

    def __init__(self, optimizer: Optimizer) -> None:
        (self.optimizer,) = check_schedule(optimizer)

    def on_fit_start(self, trainer: Trainer, solver: SolverInterface) -> None:
        """Take the place of the solver's optimizer."""
        trainer.strategy.optimizers = [Steps(solver, self.optimizer)]


class Steps(torch.optim.Optimizer):
    """A stepper of whence in the place of an optimizer of torch.

    Parameters
    ----------
    solver:
        What is trained.
    optimizer:
        By what.
    """

    def __init__(self, solver: SolverInterface, optimizer: Optimizer) -> None:
        self._solver = solver
        self._objective = from_solver(solver, weight_decay=0.0)
        module = self._objective.network
        super().__init__(module.parameters(), {})
        self._stepper = optimizer.start(self._objective.parameters)

    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor | None:  # type: ignore[override]
        """Take a step; return the loss before it.

        Raises
        ------
        FloatingPointError
            If the loss or its gradient is not finite; parameters are those of before.
        """
        loss = None if closure is None else closure()  # which logs it
        objective = refreshed(self._objective, self._solver)
        space = objective.space
        assert isinstance(space, PinaSpace)
        saved = dict(self._solver.weighting.last_saved_weights())
        weights = {}
        for name in objective.terms:
            weights[name] = float(saved.get(name, 1.0)) / space.n_columns[name]

        done = self._stepper.advance(objective.with_weights(weights), 1)
        if done.failure is not None:
            raise FloatingPointError(done.failure)
        if done.finished:
            self._solver.trainer.should_stop = True
        return loss
