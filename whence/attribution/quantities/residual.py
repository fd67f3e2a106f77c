"""The residual of a term at given points."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from whence.attribution.quantities.base import AtPoints
from whence.catalogue import QUANTITIES
from whence.objective import Objective, PointsLike
from whence.points import Points, Pointwise


@QUANTITIES.named("residual")
@dataclass(frozen=True, eq=False)
class Residual(AtPoints):
    """Every residual component of a term at given points, in the term's own sign.

    Parameters
    ----------
    points:
        Where, shape (T, d).
    term:
        The term's name.

    Examples
    --------
    >>> import torch, whence as wh
    >>> network = torch.nn.Linear(1, 1, bias=False, dtype=torch.float64)
    >>> _ = torch.nn.init.constant_(network.weight, 2.0)
    >>> def residual(tensors, z):
    ...     return z * tensors["weight"] - 5.0
    >>> points = torch.tensor([[1.0], [2.0]], dtype=torch.float64)
    >>> objective = wh.Objective(network, [wh.Term("line", residual, points)])
    >>> wh.Residual(points, "line").values(objective).tolist()       # 2 z − 5
    [-3.0, -1.0]
    """

    term: str

    @classmethod
    def of_objective(cls, objective: Objective, points: PointsLike) -> Residual:
        """Return the residual of the first term at these points."""
        return cls(points, next(iter(objective.terms)))

    def label(self) -> str:
        """Return ``residual`` and the term."""
        return f"residual {self.term}"

    def function(self, objective: Objective) -> Pointwise:
        """Return the term's residual."""
        return objective.term(self.term).residual

    def prepared(self, objective: Objective) -> Points:
        """Return the points, checked to lie where the term holds."""
        what = f"the points of {self.label()!r}"
        return objective.prepare(what, self.points, self.term)

    def columns(self, objective: Objective) -> Sequence[str]:
        """Return the label, numbered if the residual has several components."""
        first = self.prepared(objective)[:1]
        residual = self.function(objective)(objective.parameters.tensors(), first)
        m = residual.shape[1]
        if m == 1:
            return [self.label()]
        return [f"{self.label()} {k}" for k in range(m)]
