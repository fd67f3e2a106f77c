"""Optimizers of whence in DeepXDE's own training loop."""

from __future__ import annotations

from collections.abc import Callable

import deepxde as dde
import numpy as np
from torch import Tensor

from whence.adapters.deepxde.model import from_model, refreshed
from whence.pinn.optimizers.stepper import Optimizer, check_schedule

NAME = "whence"
"""What DeepXDE calls the optimizer."""


def use_optimizer(model: dde.Model, optimizer: Optimizer) -> None:
    """Let a compiled model be trained by an optimizer of whence, such as ``pinn.GaussNewton``.

    ``model.train`` then takes its steps in place of the optimizer that the model was compiled with:
    the loop, its callbacks, history, displays and files are DeepXDE's. Parameters are the network's
    and the external variables, in the precision that they have: second-order optimizers want
    ``dde.config.set_default_float("float64")``. Where no step lowers the loss, training ends.

    Parameters
    ----------
    model:
        A compiled model, see :func:`from_model`.
    optimizer:
        Of :mod:`whence.pinn`; how many steps it takes is said to ``model.train``.

    Raises
    ------
    TypeError
        If it is no optimizer of whence, or the model cannot be converted.
    ValueError
        If the model cannot be converted, see :func:`from_model`.

    Examples
    --------
    >>> from whence import pinn
    >>> use_optimizer(model, pinn.GaussNewton(300))  # doctest: +SKIP
    >>> model.train(iterations=300)  # doctest: +SKIP
    """
    (stage,) = check_schedule(optimizer)
    model.opt = Steps(model, stage)
    model.opt_name = NAME
    model.lr_scheduler = None


class Steps:
    """A stepper of whence in the place of an optimizer of torch.

    Parameters
    ----------
    model:
        What is trained.
    optimizer:
        By what.
    """

    def __init__(self, model: dde.Model, optimizer: Optimizer) -> None:
        self._model = model
        self._objective = from_model(model)
        self._stepper = optimizer.start(self._objective.parameters)
        self._seen: tuple[np.ndarray, object] = (model.data.train_x, model.loss_weights)

    def step(self, closure: Callable[[], Tensor] | None = None) -> None:
        """Take a step at the model's present points and weights.

        Raises
        ------
        FloatingPointError
            If the loss or its gradient is not finite; parameters are those of before.
        """
        model = self._model
        now = (model.data.train_x, model.loss_weights)
        # By identity: DeepXDE and its callbacks make new ones, and change none in place.
        if any(a is not b for a, b in zip(now, self._seen, strict=True)):
            self._objective = refreshed(self._objective, model)
            self._seen = now

        done = self._stepper.advance(self._objective, 1)
        if done.failure is not None:
            raise FloatingPointError(done.failure)
        if done.finished:
            model.stop_training = True

    def zero_grad(self) -> None:
        """Do nothing: gradients are no state of these steps."""

    def state_dict(self) -> dict[str, object]:
        """Return the state, for ``model.save``."""
        state = self._stepper.state()
        return {"tensors": state.tensors, "numbers": state.numbers}
