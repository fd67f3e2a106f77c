"""Functions that couple the points of a batch, found by what they give at single points.

A loss is a sum over points, and a row of its Jacobian is the derivative of one point's residual. A
function whose value at a point depends on which others are with it (a mean over the batch, a flip,
a cumulative sum, batch normalization) has no such rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

PROBES = 5
"""Points at which a function is tried together and one by one: more than a sort could hide."""
SHIFT = 0.1
"""By what share parameters are moved for it, so that no residual is small by cancellation."""
ALLOWED = {torch.float64: 1e-8, torch.float32: 1e-3}
"""Largest difference that rounding explains, relative to the largest value."""
ALLOWED_OTHERWISE = 3e-2
NUDGE = 4
"""Units in the last place by which parameters are changed to see what rounding does."""
AMPLIFIED = 1000.0
"""Difference that rounding explains, in units of what such a change makes."""


class CoupledPoints(ValueError):
    """A function's value at a point depends on the other points of the batch."""


def differ(together: Tensor, alone: Tensor, rounding: float = 0.0) -> bool:
    """Whether values (n, m) of points together and of each alone differ by more than rounding.

    A value that is finite in one of the two alone differs. ``rounding`` is a difference that is
    allowed in any case.

    Examples
    --------
    >>> import torch
    >>> from whence.coupling import differ
    >>> x = torch.tensor([[1.0], [3.0]])
    >>> differ(x - x.mean(0), torch.zeros(2, 1)), differ(2 * x, torch.tensor([[2.0], [6.0]]))
    (True, False)
    """
    if together.shape != alone.shape:
        return True
    # Where both are not finite, as at a singular point, nothing is said.
    is_finite = together.isfinite()
    if bool((is_finite != alone.isfinite()).any()):
        return True
    together, alone = together[is_finite], alone[is_finite]
    if not together.numel():
        return False

    scale = torch.maximum(together.abs(), alone.abs()).max()
    allowed = ALLOWED.get(together.dtype, ALLOWED_OTHERWISE)
    largest = (together - alone).abs().max()
    return bool(largest > (allowed * scale).clamp_min(rounding))


def check_uncoupled(
    what: str,
    values: Callable[[Mapping[str, Tensor], Sequence[int]], Tensor],
    tensors: Mapping[str, Tensor],
    n: int,
    advice: str,
    *,
    random_advice: str | None = None,
) -> None:
    """Raise :class:`CoupledPoints` if a function couples its points.

    Parameters
    ----------
    what:
        What the message calls it.
    values:
        Its values (k, m) by tensors of parameters, at the points of some row numbers together.
    tensors:
        The parameters at which it is tried.
    n:
        How many points there are; of one no coupling can be seen.
    advice:
        What to do about it.
    random_advice:
        What to do about random numbers, where drawing them is an error too.
    """
    # A spread of points, in no order that a sort would keep.
    probes = min(n, PROBES)
    rows = [(k * (n - 1)) // max(1, probes - 1) for k in range(probes)]
    rows = list(dict.fromkeys(rows))
    rows = rows[1::2] + rows[::2][::-1]
    if len(rows) < 2:
        # Of one point two calls can be compared, and nothing else.
        if random_advice is None:
            return
        if differ(values(tensors, rows), values(tensors, rows)):
            raise ValueError(f"{what} draws random numbers, {random_advice}")
        return

    together = values(tensors, rows)
    alone = torch.cat([values(tensors, [row]) for row in rows])
    if not differ(together, alone):
        return
    if differ(together, values(tensors, rows)):
        if random_advice is not None:
            raise ValueError(f"{what} draws random numbers, {random_advice}")
        return  # which says nothing of other points

    # Where large terms cancel and an exponential follows, rounding alone makes a large difference:
    # as large as a change of the parameters in their last places does.
    at_nudged = values(nudged(tensors), rows)
    rounding = (at_nudged - together).abs().nan_to_num()
    if not differ(together, alone, AMPLIFIED * float(rounding.max())):
        return

    raise CoupledPoints(
        f"{what} couples the points of a batch: its value at a point changes with the points that "
        f"are evaluated with it, so that its loss depends on how points are cut into batches and "
        f"no point has an influence of its own. {advice}"
    )


def moved(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors of parameters with each number moved by about a tenth, always the same way."""
    return _scaled(tensors, lambda _: SHIFT)


def nudged(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors of parameters with each number changed by a few units in the last place."""
    return _scaled(tensors, lambda dtype: NUDGE * torch.finfo(dtype).eps)


def _scaled(
    tensors: Mapping[str, Tensor], share: Callable[[torch.dtype], float]
) -> dict[str, Tensor]:
    """Return each number times a factor uniform in [1 − share, 1 + share], of an equal seed."""
    generator = torch.Generator().manual_seed(0)
    result = {}
    for name, tensor in tensors.items():
        if not tensor.is_floating_point():
            result[name] = tensor
            continue
        noise = torch.rand(tensor.shape, generator=generator, dtype=torch.float64)
        factor = 1 + share(tensor.dtype) * (2 * noise - 1)
        result[name] = tensor * factor.to(tensor)
    return result
