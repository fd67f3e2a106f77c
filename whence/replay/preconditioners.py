"""What optimizers multiply a gradient with, number by number, beside the learning rate.

A step of Adam is ``θ ← θ − η p ∘ m`` with ``p = 1/(√(v/(1 − β₂ᵗ)) + ε)``: for as long as v changes
little it is gradient descent with a rate ηp for each parameter.

What counts is what a gradient does to θ over all steps that follow. A running sum ``b ← μb + g``
takes it into the steps after it with factors 1, μ, μ², …: ``1/(1 − μ)`` of it in all. A running
mean ``m ← β₁m + (1 − β₁)g`` does so with ``(1 − β₁)β₁ʲ``, which add up to 1, so that Adam's first
moment leaves no factor.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from whence.replay.updates import OptimizerTensors, Options

Preconditioner = Callable[[Tensor, OptimizerTensors, Options], Tensor]
"""``(θ, state, options) -> p``, of the shape of θ, with the optimizer's state after a step."""


def of_sgd(parameter: Tensor, state: OptimizerTensors, options: Options) -> Tensor:
    """Return ``(1 − τ)/(1 − μ)``, of momentum μ with dampening τ; 1 without momentum."""
    # b ← μb + (1 − τ)g; Nesterov's step g + μb is of τ = 0, and 1 + μ/(1 − μ) = 1/(1 − μ) as well.
    # Without momentum there is no b to dampen.
    factor = 1.0
    momentum = options["momentum"]
    if momentum:
        factor = (1 - options["dampening"]) / (1 - momentum)
    return torch.full_like(parameter, factor)


def of_adam(parameter: Tensor, state: OptimizerTensors, options: Options) -> Tensor:
    """Return ``1/(√(v/(1 − β₂ᵗ)) + ε)``; with amsgrad v is the largest so far."""
    name = "exp_avg_sq"
    if options["amsgrad"]:
        name = "max_exp_avg_sq"
    second_moment = state[name]

    # A mean that begins at zero is too small by this factor: Σ_j (1 − β₂)β₂ʲ over t steps.
    _, decay = options["betas"]
    count = float(state["step"])
    bias = 1 - decay**count
    width = (second_moment / bias).sqrt() + options["eps"]
    return 1 / width


def of_rmsprop(parameter: Tensor, state: OptimizerTensors, options: Options) -> Tensor:
    """Return ``1/(√v + ε)``, over ``1 − μ`` with momentum μ; centered, v less the squared mean."""
    variance = state["square_avg"]
    if options["centered"]:
        variance = variance - state["grad_avg"].square()

    # Rounding may leave a variance a little below zero.
    width = variance.clamp_min(0).sqrt() + options["eps"]
    return 1 / (width * (1 - options["momentum"]))


def of_adagrad(parameter: Tensor, state: OptimizerTensors, options: Options) -> Tensor:
    """Return ``1/((1 + (t − 1)c)(√s + ε))`` with s the sum of squares after t steps."""
    count = float(state["step"])
    slowing = 1 + (count - 1) * options["lr_decay"]
    width = state["sum"].sqrt() + options["eps"]
    return 1 / (slowing * width)


PRECONDITIONERS: dict[type[torch.optim.Optimizer], Preconditioner] = {
    torch.optim.SGD: of_sgd,
    torch.optim.Adam: of_adam,
    torch.optim.AdamW: of_adam,
    torch.optim.RMSprop: of_rmsprop,
    torch.optim.Adagrad: of_adagrad,
}
"""By the class of an optimizer; one of your own is added here."""


def preconditioner_of(optimizer: torch.optim.Optimizer) -> Preconditioner:
    """Return what an optimizer multiplies gradients with, as a function of its state.

    Raises
    ------
    ValueError
        If that is not known of its class, or it maximizes: away from a minimum no rates are those
        of gradient descent.

    Examples
    --------
    >>> import torch
    >>> from whence.replay.preconditioners import preconditioner_of
    >>> optimizer = torch.optim.SGD([torch.zeros(2)], lr=0.1, momentum=0.9)
    >>> preconditioner_of(optimizer)(torch.zeros(2), {}, optimizer.param_groups[0])
    tensor([10., 10.])
    """
    kind = type(optimizer)
    if kind not in PRECONDITIONERS:
        known = ", ".join(sorted(known.__name__ for known in PRECONDITIONERS))
        raise ValueError(
            f"how {kind.__name__} scales gradients is not known: train with one of {known}, or add "
            f"whence.replay.preconditioners.PRECONDITIONERS[{kind.__name__}]"
        )
    if any(group.get("maximize") for group in optimizer.param_groups):
        raise ValueError(
            f"{kind.__name__}(..., maximize=True) climbs the loss, and has no rates of gradient "
            "descent: use wh.Replay, or train with minus the loss"
        )
    return PRECONDITIONERS[kind]


def is_decoupled(options: Options) -> bool:
    """Whether a group's weight decay shrinks parameters beside the gradient, as AdamW's does."""
    return bool(options.get("decoupled_weight_decay"))
