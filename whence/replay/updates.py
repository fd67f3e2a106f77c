"""Steps of optimizers as functions that can be differentiated, by the class of ``torch.optim``.

A step makes of a parameter θ, its gradient g and the optimizer's state for it the next θ and the
next state, number by number: all are of the shape of θ, but for the count of steps t. Each function
here is that formula, in the order of torch's own operations.

Steps minimize: with ``maximize`` g is minus the gradient. A weight decay c is the gradient of the
penalty ``(c/2)‖θ‖²``, which is added to g, but where decay is decoupled.
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


def descended(parameter: Tensor, gradient: Tensor, options: Options) -> Tensor:
    """Return the gradient of what is minimized, ``±g + cθ``, the penalty's included."""
    gradient = signed(gradient, options)
    decay = options["weight_decay"]
    if not decay:
        return gradient
    return gradient + decay * parameter


def signed(gradient: Tensor, options: Options) -> Tensor:
    """Return the gradient of what is minimized: minus that of what is maximized."""
    if options["maximize"]:
        return -gradient
    return gradient


def running_mean(before: Tensor, value: Tensor, decay: float) -> Tensor:
    """Return ``βm + (1 − β)x``."""
    return decay * before + (1 - decay) * value


def next_count(state: OptimizerTensors) -> float:
    """Return t, the number of this step, from 1."""
    if "step" not in state:
        return 1.0
    return float(state["step"]) + 1


def sgd(
    parameter: Tensor, gradient: Tensor, state: OptimizerTensors, options: Options
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return a step of gradient descent, with momentum where there is some.

    ``b ← μb + (1 − τ)g`` (``b = g`` at first), ``θ ← θ − ηb``, or ``θ − η(g + μb)`` of Nesterov's,
    with momentum μ and dampening τ. Without momentum torch keeps nothing, and ``θ ← θ − ηg``.
    """
    gradient = descended(parameter, gradient, options)
    step = gradient
    following: dict[str, Tensor] = {}
    momentum = options["momentum"]
    if momentum:
        # At first the buffer is the gradient itself, without dampening.
        buffer = gradient
        before = state.get("momentum_buffer")
        if before is not None:
            buffer = momentum * before + (1 - options["dampening"]) * gradient
        following["momentum_buffer"] = buffer

        step = buffer
        if options["nesterov"]:
            step = gradient + momentum * buffer

    return parameter - options["lr"] * step, following


def adam(
    parameter: Tensor, gradient: Tensor, state: OptimizerTensors, options: Options
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return a step of Adam, or of AdamW where decay is decoupled (Loshchilov & Hutter 2019).

    ``m ← β₁m + (1 − β₁)g``, ``v ← β₂v + (1 − β₂)g²``,
    ``θ ← θ − η · m/(1 − β₁ᵗ) / (√(v/(1 − β₂ᵗ)) + ε)``; with amsgrad the largest v so far.
    Decoupled decay first makes ``(1 − ηc)θ`` of θ, and leaves g as it is.
    """
    rate = options["lr"]
    if options.get("decoupled_weight_decay"):
        gradient = signed(gradient, options)
        parameter = parameter * (1 - rate * options["weight_decay"])
    else:
        gradient = descended(parameter, gradient, options)

    zeros = torch.zeros_like(parameter)
    first_decay, second_decay = options["betas"]
    first = running_mean(state.get("exp_avg", zeros), gradient, first_decay)
    second_before = state.get("exp_avg_sq", zeros)
    second = running_mean(second_before, gradient.square(), second_decay)
    following = {"exp_avg": first, "exp_avg_sq": second}

    # The largest so far is compared before the bias is corrected, as torch does.
    scale = second
    if options["amsgrad"]:
        largest_before = state.get("max_exp_avg_sq", zeros)
        scale = torch.maximum(largest_before, second)
        following["max_exp_avg_sq"] = scale

    # Means that begin at zero are too small by 1 − βᵗ: Σ_{j<t} (1 − β)βʲ.
    count = next_count(state)
    following["step"] = torch.tensor(count)
    first_bias = 1 - first_decay**count
    second_bias = 1 - second_decay**count

    width = square_root(scale) / second_bias**0.5 + options["eps"]
    return parameter - (rate / first_bias) * first / width, following


def rmsprop(
    parameter: Tensor, gradient: Tensor, state: OptimizerTensors, options: Options
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return a step of RMSprop, with momentum and centered where asked for.

    ``v ← αv + (1 − α)g²``, ``d = g/(√v + ε)``, ``θ ← θ − ηd``; centered, v less the square of the
    running mean of g; with momentum μ ``b ← μb + d`` and ``θ ← θ − ηb``.
    """
    gradient = descended(parameter, gradient, options)
    zeros = torch.zeros_like(parameter)
    decay = options["alpha"]
    second_before = state.get("square_avg", zeros)
    second = running_mean(second_before, gradient.square(), decay)
    following = {"square_avg": second}

    # Centered: the mean of squares less the square of the mean.
    variance = second
    if options["centered"]:
        mean = running_mean(state.get("grad_avg", zeros), gradient, decay)
        following["grad_avg"] = mean
        variance = second - mean.square()

    width = square_root(variance) + options["eps"]
    step = gradient / width
    momentum = options["momentum"]
    if momentum:
        buffer_before = state.get("momentum_buffer", zeros)
        step = momentum * buffer_before + step
        following["momentum_buffer"] = step

    following["step"] = torch.tensor(next_count(state))
    return parameter - options["lr"] * step, following


def adagrad(
    parameter: Tensor, gradient: Tensor, state: OptimizerTensors, options: Options
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return a step of Adagrad: ``s ← s + g²``, ``θ ← θ − η/(1 + (t − 1)c) · g/(√s + ε)``.

    c is its decay of the learning rate. torch makes the state, s at ``initial_accumulator_value``,
    before the first step.
    """
    gradient = descended(parameter, gradient, options)
    total = state["sum"] + gradient.square()

    count = next_count(state)
    following = {"sum": total, "step": torch.tensor(count)}

    rate = options["lr"] / (1 + (count - 1) * options["lr_decay"])
    width = square_root(total) + options["eps"]
    return parameter - rate * gradient / width, following


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
