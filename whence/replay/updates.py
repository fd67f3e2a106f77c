"""Steps of optimizers as functions that can be differentiated, by the class of ``torch.optim``.

A step makes of a parameter θ, its gradient g and the optimizer's state for it the next θ and the
next state, number by number. Each function here is that formula; :func:`check_update` compares it
with what the optimizer itself did.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

OptimizerTensors = Mapping[str, Tensor]
"""An optimizer's state for one parameter, by torch's names; empty before the first step."""
Options = Mapping[str, Any]
"""Options of a group of parameters as ``optimizer.param_groups`` has them."""
Update = Callable[
    [Tensor, Tensor, OptimizerTensors, Options], tuple[Tensor, dict[str, Tensor]]
]
"""``(θ, g, state, options) -> (next θ, next state)``."""


def square_root(values: Tensor) -> Tensor:
    """Return ``√v``, with derivative zero at v = 0 in place of infinity.

    v is a mean of squared gradients. Where it is zero so are they, and all that depends on them is
    constant: the product of that zero with an infinity must be zero.
    """
    # The root of what is chosen, so that no infinity arises where it is not.
    is_positive = values > 0
    safe = torch.where(is_positive, values, torch.ones_like(values))
    return torch.where(is_positive, safe.sqrt(), torch.zeros_like(values))


def _signed(gradient: Tensor, options: Options) -> Tensor:
    """Return the gradient of what is minimized."""
    return -gradient if options["maximize"] else gradient


def _with_penalty(gradient: Tensor, parameter: Tensor, options: Options) -> Tensor:
    """Return ``g + cθ``, the gradient with that of the penalty ``(c/2)‖θ‖²``."""
    decay = options["weight_decay"]
    return gradient + decay * parameter if decay else gradient


def sgd(
    parameter: Tensor, gradient: Tensor, state: OptimizerTensors, options: Options
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return a step of gradient descent, with momentum where there is some.

    ``b ← μb + (1 − τ)g`` (``b = g`` at first), ``θ ← θ − ηb``, or ``θ − η(g + μb)`` of Nesterov's.
    """
    step = _with_penalty(_signed(gradient, options), parameter, options)
    # Without momentum torch keeps nothing.
    momentum = options["momentum"]
    following: dict[str, Tensor] = {}
    if momentum:
        # At first the buffer is the gradient itself, without dampening.
        before = state.get("momentum_buffer")
        buffer = step
        if before is not None:
            buffer = momentum * before + (1 - options["dampening"]) * step
        following["momentum_buffer"] = buffer
        step = step + momentum * buffer if options["nesterov"] else buffer
    return parameter - options["lr"] * step, following


def adam(
    parameter: Tensor, gradient: Tensor, state: OptimizerTensors, options: Options
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return a step of Adam, or of AdamW where decay is decoupled (Loshchilov & Hutter 2019).

    ``m ← β₁m + (1 − β₁)g``, ``v ← β₂v + (1 − β₂)g²``,
    ``θ ← θ − η · m/(1 − β₁ᵗ) / (√(v/(1 − β₂ᵗ)) + ε)``; with amsgrad the largest v so far.
    """
    gradient = _signed(gradient, options)
    if options.get("decoupled_weight_decay"):
        parameter = parameter * (1 - options["lr"] * options["weight_decay"])
    else:
        gradient = _with_penalty(gradient, parameter, options)

    zeros = torch.zeros_like(parameter)
    first_decay, second_decay = options["betas"]
    first = state.get("exp_avg", zeros)
    second = state.get("exp_avg_sq", zeros)
    first = first_decay * first + (1 - first_decay) * gradient
    second = second_decay * second + (1 - second_decay) * gradient.square()
    following = {"exp_avg": first, "exp_avg_sq": second}

    # The largest so far is compared before the bias is corrected, as torch does.
    scale = second
    if options["amsgrad"]:
        scale = torch.maximum(state.get("max_exp_avg_sq", zeros), second)
        following["max_exp_avg_sq"] = scale

    count = float(state["step"]) + 1 if "step" in state else 1.0
    following["step"] = torch.tensor(count)
    # Means that begin at zero are too small by these factors.
    first_bias = 1 - first_decay**count
    second_bias = 1 - second_decay**count
    width = square_root(scale) / second_bias**0.5 + options["eps"]
    return parameter - (options["lr"] / first_bias) * first / width, following


def rmsprop(
    parameter: Tensor, gradient: Tensor, state: OptimizerTensors, options: Options
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return a step of RMSprop, with momentum and centered where asked for.

    ``v ← αv + (1 − α)g²``, ``θ ← θ − η g/(√v + ε)``; centered, v less the square of the mean of g.
    """
    gradient = _with_penalty(_signed(gradient, options), parameter, options)
    zeros = torch.zeros_like(parameter)
    decay = options["alpha"]
    second = decay * state.get("square_avg", zeros) + (1 - decay) * gradient.square()
    following = {"square_avg": second}

    # Centered: mean of squares less square of the mean.
    variance = second
    if options["centered"]:
        mean = decay * state.get("grad_avg", zeros) + (1 - decay) * gradient
        following["grad_avg"] = mean
        variance = second - mean.square()

    step = gradient / (square_root(variance) + options["eps"])
    if options["momentum"]:
        step = options["momentum"] * state.get("momentum_buffer", zeros) + step
        following["momentum_buffer"] = step

    count = float(state["step"]) + 1 if "step" in state else 1.0
    following["step"] = torch.tensor(count)
    return parameter - options["lr"] * step, following


def adagrad(
    parameter: Tensor, gradient: Tensor, state: OptimizerTensors, options: Options
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return a step of Adagrad: ``s ← s + g²``, ``θ ← θ − η/(1 + (t − 1)c) · g/(√s + ε)``."""
    gradient = _with_penalty(_signed(gradient, options), parameter, options)
    count = float(state["step"]) + 1
    total = state["sum"] + gradient.square()
    rate = options["lr"] / (1 + (count - 1) * options["lr_decay"])
    following = {"sum": total, "step": torch.tensor(count)}
    return parameter - rate * gradient / (
        square_root(total) + options["eps"]
    ), following


UPDATES: dict[type[torch.optim.Optimizer], Update] = {
    torch.optim.SGD: sgd,
    torch.optim.Adam: adam,
    torch.optim.AdamW: adam,
    torch.optim.RMSprop: rmsprop,
    torch.optim.Adagrad: adagrad,
}
"""The step of each optimizer; one of your own is added here, as ``UPDATES[MyOptimizer] = step``."""


def update_of(optimizer: torch.optim.Optimizer) -> Update:
    """Return an optimizer's step as a function.

    Raises
    ------
    ValueError
        If no such function is known of its class.

    Examples
    --------
    >>> import torch
    >>> from whence.replay.updates import update_of
    >>> update_of(torch.optim.AdamW([torch.zeros(1)])).__name__
    'adam'
    """
    # A subclass may step in another way, so that only the class itself counts.
    kind = type(optimizer)
    if kind not in UPDATES:
        known = ", ".join(sorted(known.__name__ for known in UPDATES))
        raise ValueError(
            f"the step of {kind.__name__} is not known as a function that can be differentiated: "
            f"train with one of {known}, or add whence.replay.updates.UPDATES[{kind.__name__}]"
        )
    return UPDATES[kind]
