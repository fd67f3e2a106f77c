"""A model of inputs and targets as a pointwise function of its parameters."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from whence.points import Points
from whence.samples import Samples


class ModelFunction:
    """What a model in evaluation mode gives for samples, flat: (n, m)."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model

    def __call__(self, tensors: Mapping[str, Tensor], points: Points) -> Tensor:
        """Return the outputs of samples, (n, m)."""
        assert isinstance(points, Samples)
        output = self.output(tensors, points)  # (n, ...)
        return output.reshape(len(points), -1)

    def output(self, tensors: Mapping[str, Tensor], samples: Samples) -> Tensor:
        """Return the model's output in its own shape, (n, ...).

        Raises
        ------
        TypeError
            If the model returns no tensor.
        ValueError
            If it does not return an output for each sample.
        """
        # A mapping holds keyword arguments, a tuple positional ones.
        inputs = samples.inputs
        if isinstance(inputs, Mapping):
            arguments, keywords = (), dict(inputs)
        else:
            arguments, keywords = inputs, {}

        with evaluating(self.model):
            value = torch.func.functional_call(
                self.model, dict(tensors), arguments, keywords
            )

        if not isinstance(value, Tensor):
            raise TypeError(
                f"the model must return a tensor, got {type(value).__name__}: wrap it in a module "
                "that returns the one to explain"
            )

        # A batch that is reduced to one number has no outputs of single samples.
        if not value.ndim or len(value) != len(samples):
            raise ValueError(
                f"the model must return an output for each of {len(samples)} samples on the first "
                f"axis, got shape {tuple(value.shape)}"
            )

        return value


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put the parts of a model that are in training mode into evaluation mode for a while."""
    # Part by part: model.eval() would lose which parts were in evaluation mode before.
    training = [module for module in model.modules() if module.training]
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True
