"""A recorded training of a model, which can be made again, and derived."""

from __future__ import annotations

import copy
from dataclasses import dataclass

from torch import Tensor, nn

from whence import _checks
from whence.objective import Objective
from whence.replay.model_steps import ModelSteps
from whence.replay.record import Record


@dataclass(frozen=True, eq=False)
class TrainingRun:
    """A training that can be made again, as :func:`whence.train` and recorders return it.

    A step's loss is ``(1/B) Σ_i w_i ℓ(f(x_i), y_i)`` over its batch of B samples, with weights
    ``w = 1`` in the training that was.

    Parameters
    ----------
    model:
        The trained model.
    objective:
        The model with all training samples and the loss, for attributions of any kind.
    record:
        What its steps were made with.

    Examples
    --------
    >>> import torch, whence as wh
    >>> model = torch.nn.Linear(2, 1)
    >>> x, y = torch.rand(20, 2), torch.rand(20, 1)
    >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    >>> run = wh.train(model, (x, y), wh.Squared(), optimizer, epochs=2, batch_size=5)
    >>> len(run), run.record.steps[0].places.shape
    (8, torch.Size([5]))
    """

    model: nn.Module
    objective: Objective
    record: Record

    def __len__(self) -> int:
        return len(self.record.steps)

    def steps(self) -> ModelSteps:
        """Return the steps, to be taken forwards and backwards."""
        return ModelSteps(self.record)

    def retrained(self, weights: Tensor) -> nn.Module:
        """Return the model of the same training with other weights w of the samples, (N,).

        Everything else is as it was: the start, the batches and their sizes B, random numbers and
        learning rates. With weights of zero this is what removing samples really does, which
        :class:`whence.Replay` predicts.

        Raises
        ------
        ValueError
            If there is not a finite weight of zero or more for each sample.

        Examples
        --------
        >>> import torch, whence as wh
        >>> model = torch.nn.Linear(1, 1, bias=False)
        >>> x, y = torch.ones(2, 1), torch.tensor([[1.0], [0.0]])
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
        >>> run = wh.train(model, (x, y), wh.Squared(), optimizer, epochs=100, batch_size=2)
        >>> run.retrained(torch.tensor([1.0, 0.0])).weight.detach().round(decimals=4)
        tensor([[1.]])
        """
        _checks.weights("the samples' weights", weights, len(self.record.data))
        # Copies of model and optimizer take the steps; the trained model stays as it is.
        steps = ModelSteps(self.record, weights)
        steps.advance(self.record.start, 0, len(self))
        model = copy.deepcopy(steps.model)
        model.train(self.model.training)
        return model
