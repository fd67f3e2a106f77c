"""Whether losses are those of the library that a model comes from, up to rounding."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch

from whence.coupling import moved
from whence.objective import Objective

Losses = Callable[[], Mapping[str, float]]
"""Returns losses by name, at the parameters that the model has when it is called."""
TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-8}
"""How far, relatively, a loss may be from the library's."""
ROUNDING = {torch.float32: 1e-11, torch.float64: 1e-28}
"""Losses below are those of residuals that vanish but for rounding, as hard constraints do."""


def disagreements(
    objective: Objective, ours: Losses, theirs: Losses
) -> dict[str, tuple[float, float]]:
    """Return the losses that are not the library's, each with the library's.

    The residual of a model that is trained to the end is a difference of equal numbers, and its
    loss has few digits. Where losses differ they are therefore compared at parameters moved by a
    tenth too, and may differ at those of the model by what is rounding beside that.

    Parameters
    ----------
    objective:
        Whose parameters are those of the model.
    ours, theirs:
        The losses; what only one of them has is not compared.
    """
    dtype = objective.parameters.dtype
    tolerance = TOLERANCE[dtype]
    values, expected = ours(), theirs()
    wrong = {}
    for name in values.keys() & expected.keys():
        pair = (values[name], expected[name])
        if not math.isclose(*pair, rel_tol=tolerance, abs_tol=ROUNDING[dtype]):
            wrong[name] = pair
    if not wrong:
        return {}

    vector = objective.parameters.vector()
    with objective.parameters.at(moved({"theta": vector})["theta"]):
        moved_values, moved_expected = ours(), theirs()

    for name, (value, other) in list(wrong.items()):
        size = moved_expected[name]
        is_same = math.isclose(moved_values[name], size, rel_tol=tolerance)
        # Of residuals, whose rounding does not depend on how small they are.
        difference = abs(math.sqrt(value) - math.sqrt(other)) if is_same else math.inf
        if difference <= tolerance * math.sqrt(size):
            del wrong[name]
    return wrong
