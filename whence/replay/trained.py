"""What a recorded training is of: a model as a function of samples, its data and their loss."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from torch import nn

from whence.frozen import HeadFunction
from whence.losses import Loss
from whence.objective import LossLike, Objective
from whence.samples import Data, Samples, samples_of
from whence.supervised import ModelFunction


@dataclass(frozen=True, eq=False)
class Trained:
    """A model, what it is trained on and for.

    Parameters
    ----------
    objective:
        The model with all training samples and the loss.
    function:
        The model as a function of samples, with what is frozen of it.
    data:
        The training samples.
    loss:
        ℓ of a sample.
    """

    objective: Objective
    function: ModelFunction
    data: Samples
    loss: Loss

    @classmethod
    def of(
        cls,
        model: nn.Module,
        data: Data,
        loss: LossLike | None,
        parameters: Collection[str],
    ) -> Trained:
        """Return what is trained, of a model by the names of its parameters."""
        objective = Objective.supervised(
            model, data, loss, parameters=lambda name, _: name in parameters
        )
        like = objective.parameters
        samples = samples_of("the data", data, like.dtype, like.device)
        (term,) = objective.terms.values()

        # Frozen layers, whose features are kept, are called too: in training mode they may draw
        # random numbers.
        function = term.residual
        is_whole = isinstance(function, ModelFunction)
        if not is_whole or isinstance(function, HeadFunction):
            function = ModelFunction(model)
        assert isinstance(function, ModelFunction)
        return cls(objective, function, samples, term.loss)
