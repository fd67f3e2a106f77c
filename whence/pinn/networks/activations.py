"""Functions between the layers of a network: by name, or any function of a tensor."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from whence._names import one_of

Activation = Callable[[Tensor], Tensor]

ACTIVATIONS: dict[str, Activation] = {
    "tanh": torch.tanh,
    "gelu": F.gelu,
    "sin": torch.sin,
    "silu": F.silu,
}


def activation_of(given: str | Activation) -> Activation:
    """Return the function of this name, or the function given.

    Raises
    ------
    ValueError
        For an unknown name; the message names the nearest.
    TypeError
        If it is neither a name nor a function, or a class of modules.

    Examples
    --------
    >>> import torch
    >>> from whence.pinn.networks.activations import activation_of
    >>> activation_of("sin") is torch.sin, activation_of(torch.relu) is torch.relu
    (True, True)
    """
    if isinstance(given, str):
        one_of("activation", given, ACTIVATIONS)
        return ACTIVATIONS[given]

    # nn.Tanh is callable too, but what it returns is a module, not a tensor.
    if isinstance(given, type) and issubclass(given, nn.Module):
        raise TypeError(
            f"activation must be a function or one of {', '.join(ACTIVATIONS)}, got the class "
            f"{given.__name__}: call it, as in activation=nn.{given.__name__}()"
        )

    if not callable(given):
        raise TypeError(
            f"activation must be one of {', '.join(ACTIVATIONS)} or a function of a tensor, "
            f"such as torch.relu, got {given!r}"
        )

    function: Activation = given  # type: ignore[assignment]
    return function


def name_of(activation: str | Activation) -> str:
    """Return the name of an activation: its own here, or that of the function.

    Examples
    --------
    >>> import torch
    >>> from whence.pinn.networks.activations import name_of
    >>> name_of(torch.sin), name_of(torch.relu), name_of(torch.nn.ELU())
    ('sin', 'relu', 'ELU')
    """
    if isinstance(activation, str):
        return activation

    for name, function in ACTIVATIONS.items():
        if function is activation:
            return name
    return getattr(activation, "__name__", type(activation).__name__)
