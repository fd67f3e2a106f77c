"""Which loss stands for one of torch, or for any function, tried on some samples."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from whence import _checks
from whence.losses import (
    Absolute,
    BinaryCrossEntropy,
    CrossEntropy,
    Loss,
    PerSample,
    Squared,
)

_MODULES: dict[Any, nn.Module] = {
    F.cross_entropy: nn.CrossEntropyLoss(),
    F.nll_loss: nn.NLLLoss(),
    F.mse_loss: nn.MSELoss(),
    F.l1_loss: nn.L1Loss(),
    F.smooth_l1_loss: nn.SmoothL1Loss(),
    F.huber_loss: nn.HuberLoss(),
    F.binary_cross_entropy: nn.BCELoss(),
    F.binary_cross_entropy_with_logits: nn.BCEWithLogitsLoss(),
}
"""The module for each function: functions reduce too, and have no reduction to put aside."""


def loss_of(given: object, output: Tensor, target: Tensor) -> Loss:
    """Return a loss from one of ours, any of ``torch.nn`` or any callable, tried on some samples.

    Parameters
    ----------
    given:
        A loss of :mod:`whence.losses`; a loss module of torch, whose reduction is put aside; a
        function of ``torch.nn.functional`` for which there is such a loss; or a function
        ``(outputs, targets) -> (n,)``.
    output, target:
        What the model gives for some samples, (n, ...), and their targets.

    Raises
    ------
    TypeError
        If it is none of these, or the targets are of the wrong type.
    ValueError
        If it returns one number for all samples, or targets have another shape or range.

    Examples
    --------
    >>> import torch
    >>> from whence.torch_losses import loss_of
    >>> loss_of(torch.nn.MSELoss(), torch.zeros(2, 4), torch.zeros(2, 4))
    Squared(scale=0.25)
    """
    n, *shape = output.shape
    flat = output.reshape(n, -1)
    source = given
    if callable(given):
        source = _MODULES.get(given, given)

    loss = _with_formulas(source, tuple(shape))
    if loss is None:
        if not callable(source) or isinstance(source, type):
            raise TypeError(
                "loss must be one such as wh.CrossEntropy(), a torch.nn loss or a function "
                f"(outputs, targets) -> (n,), got {_checks.describe(given)}"
            )
        sample_shape = None if len(shape) == 1 else tuple(shape)
        loss = PerSample(_without_reduction(source), sample_shape)

    _check_target(loss, output, target)
    try:
        values = loss.value(flat, target)
    except (RuntimeError, IndexError) as error:
        raise type(error)(
            f"the loss cannot compare outputs of shape {tuple(output.shape)} with targets of shape "
            f"{tuple(target.shape)} and {target.dtype}: {error}"
        ) from error

    if not isinstance(loss, PerSample):
        return loss
    if not values.dtype.is_floating_point:
        raise TypeError(f"a loss must return real numbers, got {values.dtype}")
    # Whether a function is convex cannot be told from it, but from these samples.
    return replace(loss, is_convex=loss.is_convex_at(flat, target))


def _with_formulas(source: object, shape: tuple[int, ...]) -> Loss | None:
    """Return the loss with formulas of its own that stands for one of torch, or None."""
    if isinstance(
        source, (Squared, Absolute, CrossEntropy, BinaryCrossEntropy, PerSample)
    ):
        return source

    # Reductions by mean divide by components too; without one, further axes are averaged.
    n_components = int(torch.Size(shape).numel())
    scale = 1 / n_components
    if getattr(source, "reduction", "mean") == "sum":
        scale = 1.0
    if isinstance(source, nn.MSELoss):
        return Squared(scale=scale)
    if isinstance(source, nn.L1Loss):
        return Absolute(scale=scale)

    # Of further axes, as in segmentation, classes are the second one: there are no formulas.
    is_vector = len(shape) == 1
    if isinstance(source, nn.CrossEntropyLoss) and is_vector:
        return CrossEntropy(source.weight, source.label_smoothing, source.ignore_index)
    # Of a log-softmax, whose exponentials sum to one: its own log-softmax is itself.
    if isinstance(source, nn.NLLLoss) and is_vector:
        return CrossEntropy(source.weight, ignore_index=source.ignore_index)

    if isinstance(source, nn.BCEWithLogitsLoss):
        is_flat = len(shape) <= 1
        if source.weight is None and is_flat:
            return BinaryCrossEntropy(source.pos_weight, scale=scale)
    return None


def _without_reduction(source: Any) -> Callable[[Tensor, Any], Tensor]:
    """Return a module of torch with its reduction put aside, or the function itself."""
    reduction = getattr(source, "reduction", "none")
    if not isinstance(source, nn.Module) or reduction == "none":
        return source

    unreduced = copy.copy(source)
    unreduced.reduction = "none"  # type: ignore[assignment]
    if reduction != "sum":
        return unreduced

    def summed(output: Tensor, target: Any) -> Tensor:
        return unreduced(output, target).flatten(1).sum(dim=1)

    return summed


def _check_target(loss: Loss, output: Tensor, target: Tensor) -> None:
    is_real = target.dtype.is_floating_point
    if isinstance(loss, (Squared, Absolute)) and not is_real:
        raise TypeError(
            f"targets of a regression must be real numbers, got {target.dtype}: use "
            "targets.float(), or wh.CrossEntropy() for classes"
        )
    if not isinstance(loss, CrossEntropy):
        return

    m = output.shape[-1]
    if is_real and target.shape != output.shape:
        raise TypeError(
            f"targets of a cross-entropy must be class numbers (integers, shape (n,)) or "
            f"probabilities of shape (n, {m}), got {target.dtype} of shape "
            f"{tuple(target.shape)}: use targets.long()"
        )
    if target.dtype == torch.bool:
        raise TypeError(
            "targets of a cross-entropy must be class numbers, got booleans: use "
            "targets.long()"
        )
    if m < 2:
        raise ValueError(
            "a cross-entropy needs at least two outputs, got one: use "
            "wh.BinaryCrossEntropy() for a single logit"
        )
