"""The loss that a model computes itself, as those of transformers do where they are given labels.

First it is tried whether a loss with formulas gives the same number; if so, it takes its place.
Any other is evaluated sample by sample, exact as well: it must be the mean of the samples' own,
each counting by one or by its labels that count.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from whence import _checks
from whence.classification import CrossEntropy, NextToken
from whence.data import TARGET_NAMES
from whence.losses import Loss, PerSample
from whence.outputs import Outputs, Targets
from whence.samples import Samples
from whence.supervised import ModelFunction, evaluating
from whence.torch_losses import loss_of

CANDIDATES: tuple[object, ...] = (
    NextToken(),
    CrossEntropy(axis=-1),
    nn.CrossEntropyLoss(),
    nn.MSELoss(),
    nn.BCEWithLogitsLoss(),
)
"""Losses with formulas that a model's own may be."""
AGREEMENT = 1e-5
"""Relative difference of two losses that are taken for one."""
IGNORED = -100

Counting = Callable[[Tensor], Tensor]
"""How much each sample counts in a mean, (n,), by its labels."""


def by_sample(labels: Tensor) -> Tensor:
    """Return one for each sample."""
    return torch.ones(len(labels), dtype=torch.float64)


def by_label(labels: Tensor) -> Tensor:
    """Return how many labels of each sample count."""
    return (labels != IGNORED).reshape(len(labels), -1).sum(dim=1).double()


def by_next_label(labels: Tensor) -> Tensor:
    """Return how many labels after the first one count."""
    return by_label(labels[:, 1:]) if labels.ndim > 1 else by_sample(labels)


COUNTINGS: tuple[Counting, ...] = (by_sample, by_label, by_next_label)


class OwnLoss:
    """What a model returns as ``.loss``, or under the name ``loss``, for samples with targets.

    Parameters
    ----------
    model:
        The model, whose ``forward`` takes the target by one of its usual names.

    Raises
    ------
    TypeError
        If it takes no target.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        arguments = inspect.signature(model.forward).parameters
        names = [name for name in TARGET_NAMES if name in arguments]
        # A module around another one, such as one of peft, takes whatever that takes.
        if any(
            argument.kind is argument.VAR_KEYWORD for argument in arguments.values()
        ):
            names.append(TARGET_NAMES[0])
        if not names:
            raise TypeError(
                "without a loss the model's own is taken, and its forward takes none of "
                f"{', '.join(TARGET_NAMES)}: give a loss, such as wh.CrossEntropy()"
            )
        self.name = names[0]

    def value(self, tensors: Mapping[str, Tensor], samples: Samples) -> Tensor:
        """Return the loss of some samples, one number.

        Raises
        ------
        TypeError
            If the model returns none.
        """
        # The target goes in by name, whether the inputs do or not.
        inputs = samples.inputs
        keywords = {self.name: samples.target}
        if isinstance(inputs, Mapping):
            arguments: tuple[Any, ...] = ()
            keywords = {**inputs, **keywords}
        else:
            arguments = inputs
        with evaluating(self.model):
            returned = torch.func.functional_call(
                self.model, dict(tensors), arguments, keywords
            )
        # An object of transformers is a mapping, too.
        loss = getattr(returned, "loss", None)
        if isinstance(returned, Mapping):
            loss = returned.get("loss")
        if not isinstance(loss, Tensor) or loss.numel() != 1:
            raise TypeError(
                "without a loss the model's own is taken, and for labels it returned "
                f"{_checks.describe(returned)} without a number called loss: give a loss, such as "
                "wh.CrossEntropy()"
            )
        return loss.reshape(())


class OwnLossFunction(ModelFunction):
    """A model's own loss of each sample, (n, 1), evaluated one after the other.

    Each is multiplied so that their mean over all data is the model's loss of all data.
    """

    def __init__(self, own: OwnLoss, counting: Counting, factor: float) -> None:
        super().__init__(own.model)
        self._own = own
        self._counting = counting
        self._factor = factor

    def output(
        self, tensors: Mapping[str, Tensor], samples: Samples
    ) -> Tensor | Outputs:
        """Return the loss of each sample, (n, 1)."""
        # Alone, as a loss of several may be divided by what counts in all of them.
        values = []
        for i in range(len(samples)):
            values.append(self._own.value(tensors, samples[i : i + 1]))
        counts = self._counting(samples.target).to(values[0])
        table = torch.stack(values) * counts * self._factor
        return table.unsqueeze(1)


def own_loss(
    function: ModelFunction,
    tensors: Mapping[str, Tensor],
    probe: Samples,
    output: Tensor | Outputs,
    targets: Iterable[Targets],
) -> tuple[ModelFunction, Loss]:
    """Return the function and the loss that together are a model's own loss.

    Parameters
    ----------
    function, tensors:
        What gives the model's outputs, at these parameters.
    probe, output:
        Some samples and their outputs.
    targets:
        Those of all samples, in parts.

    Raises
    ------
    TypeError
        If the model takes no targets, or returns no loss.
    ValueError
        If its loss of several samples is no mean of theirs.
    """
    returned = OwnLoss(function.model)
    # Targets are gone through twice.
    everything = list(targets)
    several = probe[: min(len(probe), 5)]
    # At several samples and at one: losses that agree at one may divide by different numbers.
    parts = [several, several[:1]]
    with torch.no_grad():
        expected = [returned.value(tensors, part) for part in parts]

    is_plain = isinstance(output, Tensor) and isinstance(probe.target, Tensor)
    for candidate in CANDIDATES:
        if is_plain and agrees(candidate, output, parts, expected):
            of_all = loss_of(candidate, output, probe.target, everything)
            return function, of_all

    if not isinstance(probe.target, Tensor):
        raise TypeError(
            "a model's own loss needs a target of one tensor: give a loss of its outputs"
        )
    counting = counting_of(returned, tensors, several, expected[0])
    counts = torch.cat([counting(target) for target in everything])
    # (1/N) Σ_i c_i ℓ_i N / Σ c is the mean of ℓ_i with weights c_i.
    factor = len(counts) / float(counts.sum())
    return OwnLossFunction(returned, counting, factor), PerSample(
        only_number, is_convex=False
    )


def only_number(output: Tensor, target: Tensor) -> Tensor:
    """Return a sample's only output as its loss."""
    return output[:, 0]


def agrees(
    candidate: object,
    output: Tensor | Outputs,
    parts: Sequence[Samples],
    expected: Sequence[Tensor],
) -> bool:
    """Whether a loss with formulas gives a model's own for some samples."""
    for part, value in zip(parts, expected, strict=True):
        assert isinstance(output, Tensor)
        of_part = output[: len(part)].detach()
        try:
            loss = loss_of(candidate, of_part, part.target)
            mean = loss.value(of_part.reshape(len(part), -1), part.target).mean()
        except (TypeError, ValueError, RuntimeError, IndexError):
            return False
        if not _is_near(mean, value):
            return False
    return True


def counting_of(
    own: OwnLoss, tensors: Mapping[str, Tensor], samples: Samples, together: Tensor
) -> Counting:
    """Return how samples count in a model's own loss, which some of them show."""
    with torch.no_grad():
        alone = [own.value(tensors, samples[i : i + 1]) for i in range(len(samples))]
    values = torch.stack(alone).double()
    for counting in COUNTINGS:
        # L = Σ c_i ℓ_i / Σ c_i
        counts = counting(samples.target).to(values)
        mean = (counts * values).sum() / counts.sum()
        if _is_near(mean, together):
            return counting
    raise ValueError(
        "the model's own loss of several samples is no mean of those of single ones, so that no "
        "sample has a loss of its own (a term that balances experts over the batch, say): give a "
        "loss of its outputs, such as wh.NextToken()"
    )


def _is_near(found: Tensor, expected: Tensor) -> bool:
    difference = float((found.double() - expected.double()).abs())
    return difference <= AGREEMENT * max(float(expected.abs()), AGREEMENT)
