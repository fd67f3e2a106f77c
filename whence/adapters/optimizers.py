"""What an optimizer of torch says of the objective: its penalty, and the rates of its groups."""

from __future__ import annotations

import torch

from whence import _checks


def penalty_of_optimizer(optimizer: torch.optim.Optimizer) -> float:
    """Return c of the penalty ``(c/2)‖θ‖²`` that an optimizer of torch adds by ``weight_decay``.

    Raises
    ------
    ValueError
        If its groups of parameters differ in it, or it decays weights apart from the loss, as AdamW
        does, which no penalty stands for.

    Examples
    --------
    >>> import torch
    >>> from whence.adapters.optimizers import penalty_of_optimizer
    >>> weights = [torch.nn.Parameter(torch.ones(2))]
    >>> penalty_of_optimizer(torch.optim.SGD(weights, lr=0.1, weight_decay=0.01))
    0.01
    """
    groups = optimizer.param_groups
    values = {float(group.get("weight_decay", 0.0)) for group in groups}
    if values == {0.0}:
        return 0.0
    if len(values) > 1:
        raise ValueError(
            f"the optimizer has a weight_decay for each group, {_checks.describe(sorted(values))}, "
            "and an objective has one for all parameters: give weight_decay=, or parameters of one "
            "group"
        )

    # Adam of torch can be told to do as AdamW does.
    is_apart = any(group.get("decoupled_weight_decay") for group in groups)
    if is_apart or isinstance(optimizer, torch.optim.AdamW):
        raise ValueError(
            f"{type(optimizer).__name__} decays weights apart from the loss, so that it minimizes "
            "no penalty: give weight_decay=0.0 to leave it out, or what stands for it"
        )
    return values.pop()
