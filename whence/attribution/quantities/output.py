"""An output of the network at given points, or a function of its fields."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from whence import _checks
from whence.attribution.quantities.base import AtPoints
from whence.catalogue import QUANTITIES
from whence.objective import Objective, PointsLike
from whence.points import Points, Pointwise

SHOWN_NAMES = 12
"""Names of outputs that a message lists."""


@QUANTITIES.named("output")
@dataclass(frozen=True, eq=False)
class Output(AtPoints):
    """An output of the network at given points, or a function of fields by argument name.

    Parameters
    ----------
    points:
        Where, shape (T, d): a tensor, an array, a list of rows or a data frame.
    of:
        ``None`` for the only output, an output's name, or a function whose argument names are
        outputs, derivatives or coordinates, such as ``lambda u, v: (u**2 + v**2).sqrt()``.

    Examples
    --------
    >>> import whence as wh
    >>> wh.Output([[0.5, 0.5]], lambda u, v: (u**2 + v**2).sqrt()).label()
    'f(u, v)'
    """

    of: str | Callable[..., Tensor] | None = None

    @classmethod
    def of_objective(cls, objective: Objective, points: PointsLike) -> Output:
        """Return the first output at these points."""
        return cls(points, objective.outputs[0])

    def label(self) -> str:
        """Return the output's name."""
        if callable(self.of):
            names = _checks.arguments("the function of an Output", self.of)
            return f"f({', '.join(names)})"
        return self.of or "output"

    def function(self, objective: Objective) -> Pointwise:
        """Return the output as a pointwise function."""
        if callable(self.of):
            return _composed(objective, self.of)
        if self.of is not None:
            _checks.one_of("output", self.of, objective.outputs)
            return objective.fields((self.of,))

        if len(objective.outputs) > 1:
            raise ValueError(
                f"the network has outputs {shown(objective.outputs)}: name one, such as "
                f"Output(points, {objective.outputs[0]!r})"
            )
        return objective.fields(objective.outputs)

    def columns(self, objective: Objective) -> Sequence[str]:
        """Return the output's name."""
        # function() allows None for a network of one output only, so the first is the one meant.
        return (objective.outputs[0] if self.of is None else self.label(),)


def _composed(objective: Objective, function: Callable[..., Tensor]) -> Pointwise:
    """Return a function of fields as a pointwise function of parameters and points."""
    names = _checks.arguments("the function of an Output", function)
    fields = objective.fields(names)

    def evaluate(tensors: Mapping[str, Tensor], points: Points) -> Tensor:
        columns = fields(tensors, points).unbind(1)  # (n,) for each argument
        value = function(*columns)
        if not isinstance(value, Tensor) or value.shape != (len(points),):
            raise ValueError(
                f"a function of fields must return shape {(len(points),)}, got "
                f"{_checks.shape_of(value)}"
            )
        return value.unsqueeze(1)

    evaluate.__qualname__ = "the function of an Output"
    return evaluate


def shown(names: Sequence[str]) -> str:
    """Return names for a message, of many the first few and the last."""
    if len(names) <= SHOWN_NAMES:
        return ", ".join(names)
    return f"{', '.join(names[:3])}, …, {names[len(names) - 1]}"
