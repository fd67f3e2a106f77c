"""Which loss stands for one of torch, or for any function, tried on some samples.

A mean of torch over samples of several positions (tokens, pixels) divides by the positions that
count, each by its class weight; ``ℓ_i`` of a sample is the sum over its own times N over that
total, so that the mean over samples is torch's loss.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from whence import _checks
from whence.classification import (
    BinaryCrossEntropy,
    CrossEntropy,
    check_class_weights,
)
from whence.coupling import check_uncoupled
from whence.losses import Absolute, Loss, PerSample, Squared
from whence.outputs import OutputLayout, Outputs, Targets, layout_of, table_of
from whence.summed_losses import LossByOutput, Part, SummedLoss, weighed_losses

MODULES: dict[Any, type[nn.Module]] = {
    F.cross_entropy: nn.CrossEntropyLoss,
    F.nll_loss: nn.NLLLoss,
    F.mse_loss: nn.MSELoss,
    F.l1_loss: nn.L1Loss,
    F.smooth_l1_loss: nn.SmoothL1Loss,
    F.huber_loss: nn.HuberLoss,
    F.binary_cross_entropy: nn.BCELoss,
    F.binary_cross_entropy_with_logits: nn.BCEWithLogitsLoss,
}
"""The module for each function: functions reduce too, and have no reduction to put aside."""
_ELEMENTWISE = (
    nn.SmoothL1Loss,
    nn.HuberLoss,
    nn.BCELoss,
    nn.BCEWithLogitsLoss,
    nn.PoissonNLLLoss,
    nn.SoftMarginLoss,
)
"""Losses that are a sum over outputs, so that their curvature is diagonal."""
LOG_SOFTMAX_ERROR = 1e-3
"""How far exponentials may be from the sum 1 to be those of a log-softmax."""
OF_PROBABILITIES = (
    "The loss is one of probabilities, whose Gauss–Newton matrix differs from that of logits: let "
    "the model return logits, and use BCEWithLogitsLoss."
)


COUPLED_LOSS = (
    "A loss of single samples is needed. In place of Cox's partial likelihood, take the likelihood "
    "of hazards in discrete time; of a contrastive loss with negatives from the batch, give pairs "
    "or triples as samples; of a mean that divides by what a batch holds, divide by what all data "
    "hold."
)


def loss_of(
    given: object,
    output: Tensor | Outputs,
    target: Targets,
    targets: Iterable[Targets] | None = None,
    *,
    classes_last: bool = False,
) -> Loss:
    """Return a loss from one of ours, any of ``torch.nn`` or any callable, tried on some samples.

    Parameters
    ----------
    given:
        A loss of :mod:`whence.losses`; a loss module of torch, whose reduction is put aside; a
        function of ``torch.nn.functional`` for which there is such a loss, or a partial of it; a
        function ``(outputs, targets) -> (n,)``; or, of several outputs, such losses by name or in
        order, each alone or with a weight.
    output, target:
        What the model gives for some samples, (n, ...), or several such, and their targets.
    targets:
        Those of all samples, in parts, by which a mean over what counts is divided; by default
        ``target`` alone.
    classes_last:
        Whether classes are on the last axis where targets say so too, as the logits of models
        of transformers have them.

    Raises
    ------
    TypeError
        If it is none of these, or the targets are of the wrong type.
    ValueError
        If it returns one number for all samples or couples them, targets have another shape or
        range, class weights are not finite, negative, or not one for each class, or nothing
        counts.

    Examples
    --------
    >>> import torch
    >>> from whence.torch_losses import loss_of
    >>> loss_of(torch.nn.MSELoss(), torch.zeros(2, 4), torch.zeros(2, 4))
    Squared(scale=0.25)
    """
    parts = [target] if targets is None else targets
    if isinstance(given, (Mapping, tuple, list)):
        return summed_loss_of(given, output, target, list(parts), classes_last)
    if not isinstance(output, Tensor):
        return loss_of_several(given, output, target)
    if not isinstance(target, Tensor):
        loss: Loss = _per_sample(given, tuple(output.shape[1:]))
        return _tried(loss, output, target)

    source = _module_of(given)
    if classes_last:
        source = with_classes_last(source, output, target)
    _check_layout(source, output, target)
    loss = _with_formulas(source, output) or _per_sample(
        source, tuple(output.shape[1:])
    )

    _check_target(loss, output, target)
    flat = output.reshape(len(output), -1)
    if isinstance(loss, CrossEntropy):
        n_classes = flat.shape[1] // loss.positions
        loss.check_weights(n_classes)
        loss = _averaged(loss, source, parts)
    if isinstance(loss, BinaryCrossEntropy):
        loss.check_weights(flat.shape[1])
    return _tried(loss, output, target)


def _per_sample(source: object, shape: tuple[int, ...] | OutputLayout) -> PerSample:
    """Return a loss without formulas of its own, of outputs of this shape."""
    if not callable(source) or isinstance(source, type):
        raise TypeError(
            "loss must be one such as wh.CrossEntropy(), a torch.nn loss or a function "
            f"(outputs, targets) -> (n,), got {_checks.describe(source)}"
        )
    # A row of numbers is what losses are given in any case.
    is_row = not isinstance(shape, OutputLayout) and len(shape) == 1
    return PerSample(
        _without_reduction(source),
        None if is_row else shape,
        is_elementwise=isinstance(source, _ELEMENTWISE),
        caveat=OF_PROBABILITIES if isinstance(source, nn.BCELoss) else "",
    )


def loss_of_several(given: object, outputs: Outputs, target: Targets) -> Loss:
    """Return the loss of several outputs that a function of all of them is."""
    layout = layout_of(outputs)
    names = ", ".join(map(repr, layout.shapes))
    of_one = (nn.Module, Squared, Absolute, CrossEntropy, BinaryCrossEntropy)
    if isinstance(given, of_one):
        raise TypeError(
            f"the model returns several outputs, {names}: give a loss for each, such as "
            "{'class': nn.CrossEntropyLoss(), 'boxes': (5.0, nn.L1Loss())}, or a function of all "
            "(outputs, targets) -> (n,)"
        )
    return _tried(_per_sample(given, layout), table_of(outputs), target)


def summed_loss_of(
    given: LossByOutput,
    outputs: Tensor | Outputs,
    target: Targets,
    targets: Sequence[Targets],
    classes_last: bool,
) -> Loss:
    """Return the sum of a loss for each of several outputs."""
    if isinstance(outputs, Tensor):
        raise TypeError(
            "losses by output need a model that returns its outputs by name or in order, got one "
            "tensor"
        )
    layout = layout_of(outputs)
    parts = []
    for key, weight, loss in weighed_losses(given):
        if key not in layout.shapes:
            listed = ", ".join(map(repr, layout.shapes))
            raise ValueError(
                f"there is a loss for {key!r}, and the model returns {listed}"
            )
        try:
            goal = target[key]
        except (KeyError, IndexError, TypeError):
            raise ValueError(
                f"there is a loss for the output {key!r}, and the targets have none: give targets "
                "in the same names or order as the losses"
            ) from None
        # In its own shape, by which a loss knows classes from positions.
        of_key = layout.of(table_of(outputs), key)
        of_output = loss_of(
            loss,
            of_key,
            goal,
            [part[key] for part in targets],
            classes_last=classes_last,
        )
        parts.append(Part(key, of_output, weight))
    return SummedLoss(tuple(parts), layout)


def with_classes_last(source: object, output: Tensor, target: Tensor) -> object:
    """Return a cross-entropy that reads classes on the last axis, where targets say so."""
    of_classes = (nn.CrossEntropyLoss, CrossEntropy)
    # Targets (n, positions …) of outputs (n, positions …, classes).
    is_last = output.ndim > 2 and tuple(target.shape) == tuple(output.shape[:-1])
    if not isinstance(source, of_classes) or not is_last:
        return source
    if isinstance(source, CrossEntropy):
        return replace(source, axis=-1)
    return _LastAxis(source)


class _LastAxis(nn.Module):
    """A cross-entropy of torch whose classes are on the last axis."""

    def __init__(self, source: nn.CrossEntropyLoss) -> None:
        super().__init__()
        self.source = source
        self.reduction = source.reduction


def _tried(loss: Loss, output: Tensor, target: Any) -> Loss:
    """Return a loss after it was tried on some samples, together and alone."""
    flat = output.reshape(len(output), -1)
    try:
        values = loss.value(flat, target)
    except (RuntimeError, IndexError, KeyError) as error:
        shown = _checks.describe(target)
        if isinstance(target, Tensor):
            shown = f"shape {tuple(target.shape)} and {target.dtype}"
        kind = ValueError if isinstance(error, KeyError) else type(error)
        raise kind(
            f"the loss cannot compare outputs of shape {tuple(output.shape)} with targets of "
            f"{shown}: {error}"
        ) from error

    if not isinstance(loss, PerSample):
        return loss
    if not values.dtype.is_floating_point:
        raise TypeError(f"a loss must return real numbers, got {values.dtype}")
    # Targets may be several by name.
    first = pytree.tree_map(lambda tensor: tensor[:1], target)
    loss.gradient(flat[:1], first)  # which not every function has
    _check_apart(loss, flat, target)
    return loss.judged_by(flat, target)


def _check_apart(loss: PerSample, output: Tensor, target: Any) -> None:
    """Raise ``ValueError`` if a function gives a sample another loss in other company."""

    def values(_: Mapping[str, Tensor], places: Sequence[int]) -> Tensor:
        # The outputs themselves are what they are: only the loss is tried.
        rows = torch.as_tensor(places, device=output.device)
        some = pytree.tree_map(lambda tensor: tensor[rows], target)
        return loss.value(output[rows].detach(), some).unsqueeze(1)

    check_uncoupled("the loss", values, {}, len(output), COUPLED_LOSS)


def of_logits(given: object) -> nn.Module | None:
    """Return the loss of logits that a loss of probabilities stands for, or None for any other."""
    source = _module_of(given)
    if not isinstance(source, nn.BCELoss):
        return None
    return nn.BCEWithLogitsLoss(source.weight, reduction=source.reduction)


def _module_of(given: object) -> object:
    """Return the module that stands for a function of torch or a partial of one, or what it is."""
    if isinstance(given, functools.partial) and not given.args:
        if given.func in MODULES:
            return MODULES[given.func](**given.keywords)
        return given
    # What has no hash is no function of torch.
    if callable(given) and getattr(given, "__hash__", None) is not None:
        module = MODULES.get(given)
        return given if module is None else module()
    return given


def _with_formulas(source: object, output: Tensor) -> Loss | None:
    """Return the loss with formulas of its own that stands for one of torch, or None."""
    _, *shape = output.shape
    # Of further axes, as in segmentation, classes are the first one of a sample.
    positions = int(torch.Size(shape[1:]).numel())
    if isinstance(source, CrossEntropy):
        if source.axis == -1:
            positions = int(torch.Size(shape[:-1]).numel())
        return replace(source, positions=positions) if positions > 1 else source
    if isinstance(source, _LastAxis):
        by_torch = source.source
        return CrossEntropy(
            by_torch.weight,
            by_torch.label_smoothing,
            by_torch.ignore_index,
            positions=int(torch.Size(shape[:-1]).numel()),
            axis=-1,
        )
    if isinstance(source, (Squared, Absolute, BinaryCrossEntropy, PerSample)):
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

    if isinstance(source, nn.CrossEntropyLoss):
        return CrossEntropy(
            source.weight,
            source.label_smoothing,
            source.ignore_index,
            positions=positions,
        )
    # Of a log-softmax, whose exponentials sum to one: its own log-softmax is itself.
    if isinstance(source, nn.NLLLoss) and _is_log_softmax(output):
        return CrossEntropy(
            source.weight, ignore_index=source.ignore_index, positions=positions
        )

    if isinstance(source, nn.BCEWithLogitsLoss) and source.weight is None:
        weight = source.pos_weight
        if weight is not None:
            check_class_weights("pos_weight", weight)
            if weight.numel() > 1:
                weight = _by_output(weight, tuple(shape))
        return BinaryCrossEntropy(weight, scale=scale)
    return None


def _by_output(weight: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Return weights that broadcast to a sample's output as one for each of its numbers."""
    try:
        return weight.expand(shape).reshape(-1)
    except RuntimeError:
        raise ValueError(
            f"pos_weight must be one number, or broadcast to a sample's output of shape {shape}, "
            f"got shape {tuple(weight.shape)}"
        ) from None


def _is_log_softmax(output: Tensor) -> bool:
    """Whether the exponentials of the classes sum to one at each position."""
    if output.ndim < 2:
        return False
    logarithms = output.detach().double().logsumexp(dim=1)
    return bool((logarithms.abs() < LOG_SOFTMAX_ERROR).all())


def _averaged(
    loss: CrossEntropy, source: object, targets: Iterable[Any]
) -> CrossEntropy:
    """Return the loss whose mean over samples is torch's, or over all positions that count."""
    reduction = getattr(source, "reduction", "mean")
    if reduction == "sum":
        return loss
    if reduction == "none":
        return replace(loss, scale=1 / loss.positions)

    # Of torch a mean divides by class weights, too; of ours they are factors.
    is_torchs = isinstance(source, nn.Module)
    n = 0
    total = 0.0
    for part in targets:
        n += len(part)
        total += loss.counted(part, weigh=is_torchs)
    if not total > 0:
        raise ValueError(
            f"none of the {n} targets counts: each is ignore_index={loss.ignore_index}, or of a "
            "class of weight 0"
        )
    return replace(loss, scale=loss.scale * n / total)


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


def _check_layout(source: object, output: Tensor, target: Tensor) -> None:
    """Raise where the classes of a sequence are on the last axis, as (n, T, classes)."""
    of_classes = (nn.CrossEntropyLoss, nn.NLLLoss, CrossEntropy)
    if not isinstance(source, of_classes) or target.dtype.is_floating_point:
        return
    if isinstance(source, CrossEntropy) and source.axis == -1:
        check_positions(source, output, target)
        return
    if output.ndim < 3:
        return

    expected = (len(output), *output.shape[2:])
    classes_last = tuple(output.shape[:-1])
    if tuple(target.shape) == classes_last != expected:
        order = ", ".join(map(str, [0, output.ndim - 1, *range(1, output.ndim - 1)]))
        raise ValueError(
            f"the model gives {tuple(output.shape)} with the classes on the last axis for targets "
            f"of shape {tuple(target.shape)}; a cross-entropy takes them on the second, as in "
            f"torch: let the model return output.permute({order}), or use "
            "wh.CrossEntropy(axis=-1), or wh.NextToken() where targets are the tokens themselves"
        )
    if tuple(target.shape) != expected:
        raise ValueError(
            f"targets of a cross-entropy for outputs of shape {tuple(output.shape)} (samples, "
            f"classes, positions …) must have shape {expected}, got {tuple(target.shape)}"
        )


def check_positions(loss: CrossEntropy, output: Tensor, target: Tensor) -> None:
    """Raise ``ValueError`` unless there is a target for each position, with classes last."""
    expected = tuple(output.shape[:-1])
    if output.ndim < 2 or tuple(target.shape) != expected:
        raise ValueError(
            f"targets of {type(loss).__name__} for outputs of shape {tuple(output.shape)} "
            f"(samples, positions …, classes) must have shape {expected}, got {tuple(target.shape)}"
        )


def _check_target(loss: Loss, output: Tensor, target: Tensor) -> None:
    is_real = target.dtype.is_floating_point
    if isinstance(loss, (Squared, Absolute)) and not is_real:
        raise TypeError(
            f"targets of a regression must be real numbers, got {target.dtype}: use "
            "targets.float(), or wh.CrossEntropy() for classes"
        )
    if not isinstance(loss, CrossEntropy):
        return

    m = output.shape[1] if output.ndim > 1 else 1
    if loss.axis == -1:
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
