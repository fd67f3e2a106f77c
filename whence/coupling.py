"""Whether a function's value at a point depends on the other points: then rows of J mean nothing.

``∂L/∂θ`` of a sum over points is a sum of rows only where each value comes from its own point.
A mean over the batch, a softmax along it, a cumulative sum, or normalization by the batch's own
statistics couple points: values at several of them differ from those at each alone.
"""

from __future__ import annotations

import torch
from torch import Tensor

TOLERANCES = {
    torch.float64: 1e-8,
    torch.float32: 1e-4,
    torch.float16: 5e-2,
    torch.bfloat16: 1e-1,
}
"""Difference, relative to the largest value, that rounding and other kernels may make."""
ACCELERATOR_TOLERANCE = 5e-3
"""The same of float32 on an accelerator, whose convolutions may round to ten bits."""
MAX_COMPARED = 4
"""Points that are evaluated alone."""


def check_uncoupled(
    what: str, value_at_n: Tensor, values_at_single_points: Tensor, advice: str
) -> None:
    """Raise ``ValueError`` unless values at points together are those at each of them alone.

    Parameters
    ----------
    what:
        What was evaluated, for the message, such as "the model's output".
    value_at_n:
        Values at n points together, (n, m).
    values_at_single_points:
        Values at each of these points alone, (n, m), in the same order; other rows than those that
        were compared may be left out of both.
    advice:
        What to do about it, a sentence.

    Examples
    --------
    >>> import torch
    >>> from whence.coupling import check_uncoupled
    >>> x = torch.tensor([[1.0], [3.0]])
    >>> check_uncoupled("the residual", x**2, torch.cat([x[:1] ** 2, x[1:] ** 2]), "")
    >>> check_uncoupled("the residual", x - x.mean(), torch.zeros(2, 1), "Use no mean.")
    Traceback (most recent call last):
    ...
    ValueError: the residual at a point depends on the other points: at number 0 it is -1 among 2 \
points and 0 alone. Use no mean.
    """
    place = coupled_place(value_at_n, values_at_single_points)
    if place is None:
        return
    i, k = place
    together = float(value_at_n[i, k])
    alone = float(values_at_single_points[i, k])
    raise ValueError(
        f"{what} at a point depends on the other points: at number {i} it is {together:.6g} among "
        f"{len(value_at_n)} points and {alone:.6g} alone. {advice}"
    )


def coupled_place(together: Tensor, alone: Tensor) -> tuple[int, int] | None:
    """Return the place (i, k) where two tables (n, m) differ most, None but for rounding."""
    both = together.detach(), alone.detach()
    # Where both are not finite, as at a singular point, they do not differ.
    is_finite = both[0].isfinite() & both[1].isfinite()
    is_one_sided = both[0].isfinite() ^ both[1].isfinite()
    if bool(is_one_sided.any()):
        i, k = is_one_sided.nonzero()[0].tolist()
        return i, k
    if not bool(is_finite.any()):
        return None

    zero = torch.zeros_like(both[0])
    difference = torch.where(is_finite, (both[0] - both[1]).abs(), zero)
    size = torch.where(is_finite, both[0].abs().maximum(both[1].abs()), zero).max()
    if float(difference.max()) <= _tolerance(together) * float(size):
        return None

    i, k = divmod(int(difference.argmax()), difference.shape[1])
    return i, k


def _tolerance(values: Tensor) -> float:
    tolerance = TOLERANCES.get(values.dtype, max(TOLERANCES.values()))
    if values.device.type != "cpu" and values.dtype is torch.float32:
        return ACCELERATOR_TOLERANCE
    return tolerance


def compared_places(n: int) -> list[int]:
    """Return the places of a few points among n that tell, the first and the last among them.

    Examples
    --------
    >>> from whence.coupling import compared_places
    >>> compared_places(100), compared_places(2)
    ([0, 33, 66, 99], [0, 1])
    """
    steps = min(n, MAX_COMPARED) - 1
    if steps < 1:
        return list(range(n))
    return [k * (n - 1) // steps for k in range(steps + 1)]
