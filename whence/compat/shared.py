"""What the compatible interfaces share: losses and loaders as users have them, tiles as tensors."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Iterator
from typing import cast

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, RandomSampler, SequentialSampler

from whence import _checks
from whence.attribution.arguments import PreparedPoints
from whence.attribution.tiles import Solved, Tile
from whence.objective import LossLike, Objective
from whence.samples import Samples
from whence.torch_losses import MODULES

LossFunction = nn.Module | Callable[[Tensor, Tensor], Tensor]
"""A loss of ``torch.nn`` or a function of outputs and targets, reduced or not."""
TERM = "data"
"""The term of a supervised objective."""


def sample_loss(loss: object) -> LossLike:
    """Return a loss of single samples from a function of a batch, reduced or not.

    The loss of a sample is what the function gives for a batch of that sample alone. Losses of
    ``torch.nn`` and of ``torch.nn.functional`` stay what they are: :mod:`whence` has formulas for
    most of them, and puts their reduction aside.

    Raises
    ------
    TypeError
        If it cannot be called.

    Examples
    --------
    >>> import torch
    >>> from whence.compat.shared import sample_loss
    >>> mean_square = sample_loss(lambda output, target: (output - target).square().mean())
    >>> mean_square(torch.tensor([[1.0], [3.0]]), torch.zeros(2, 1))
    tensor([1., 9.])
    """
    if not callable(loss):
        raise TypeError(
            "the loss must be one of torch.nn or a function of outputs and targets, got "
            f"{_checks.describe(loss)}"
        )
    if has_reduction(loss):
        return cast(LossLike, loss)
    function = cast(Callable[[Tensor, Tensor], Tensor], loss)

    def of_one(output: Tensor, target: Tensor) -> Tensor:
        value = function(output.unsqueeze(0), target.unsqueeze(0))
        return value.reshape(())

    def of_samples(outputs: Tensor, targets: Tensor) -> Tensor:
        return torch.vmap(of_one)(outputs, targets)

    return of_samples


def has_reduction(loss: object) -> bool:
    """Whether a loss is one of torch, whose reduction is put aside where samples are looked at."""
    if isinstance(loss, functools.partial):
        return not loss.args and loss.func in MODULES
    if isinstance(loss, nn.Module):
        return type(loss).__module__.startswith("torch.nn.")
    return loss in MODULES


def in_order(what: str, loader: DataLoader[object]) -> DataLoader[object]:
    """Return a loader of the same data in the order of its data set, none left out.

    Where nothing depends on the order, as the curvature of all data does not, a loader that was
    made for training may shuffle.

    Raises
    ------
    ValueError
        If its sampler leaves samples out or repeats them, as weighted ones do.
    """
    sampler = loader.sampler
    if isinstance(sampler, SequentialSampler) and not loader.drop_last:
        return loader
    is_shuffle = isinstance(sampler, RandomSampler) and not sampler.replacement
    is_plain = isinstance(sampler, SequentialSampler) or is_shuffle
    # None of the data set's own: a sampler of some samples has an order of its own.
    if not is_plain or len(sampler) != len(loader.dataset):  # type: ignore[arg-type]
        raise ValueError(
            f"{what} come from a loader whose {type(sampler).__name__} leaves samples out or "
            "repeats them: give DataLoader(dataset, shuffle=False)"
        )
    return DataLoader(
        loader.dataset,
        batch_size=loader.batch_size,
        collate_fn=loader.collate_fn,
        num_workers=loader.num_workers,
    )


def unscaled(objective: Objective, samples: Samples) -> PreparedPoints:
    """Return samples whose entries carry no factor 1/N."""
    return PreparedPoints({TERM: samples}, {TERM: 1.0})


def matrix_of(tiles: Iterator[Tile], shape: tuple[int, int], like: Tensor) -> Tensor:
    """Return the whole of some tiles, (targets, points); warn where systems were not solved."""
    matrix = like.new_empty(shape)
    solved = Solved()
    for tile in tiles:
        matrix[tile.targets, tile.points] = tile.values
        solved = solved.worst_with(tile.solved)
    warn_unsolved(solved)
    return matrix.detach()


def warn_unsolved(solved: Solved) -> None:
    """Warn if a solver did not reach what it promises."""
    if not solved.converged:
        reason = solved.message or f"the relative residual is {solved.residual:.1e}"
        warnings.warn(f"the systems are not solved: {reason}", stacklevel=3)
