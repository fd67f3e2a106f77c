"""An equation that holds in a part of the domain."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from whence import _checks
from whence.pinn.geometry.domain import Domain

Where = Domain | Callable[..., Tensor]
"""A region of the same coordinates, or a function of coordinates that tells what is in it."""


@dataclass(frozen=True, eq=False)
class Equation:
    """An equation that holds in a part of the domain only.

    Parameters
    ----------
    residual:
        Function of fields by argument name, as of any equation.
    where:
        A domain of the same coordinates, or a function of coordinates by argument name that
        returns which points (n,) are in it.

    Raises
    ------
    TypeError
        If one of them is of another kind.

    Examples
    --------
    Two materials, with an output each:

    >>> from whence import pinn
    >>> below = pinn.Equation(lambda a_yy: 1.38 * a_yy, where=lambda y: y < 0.5)
    >>> square = pinn.Rectangle(("x", "y"), (0, 0), (1, 1))
    >>> bool((below.region(square).sample(100)[:, 1] < 0.5).all())
    True
    """

    residual: Any
    where: Where

    def __post_init__(self) -> None:
        if not callable(self.where) and not isinstance(self.where, Domain):
            raise TypeError(
                "where must be a domain, or a function of coordinates such as lambda y: y < 0.5, "
                f"got {_checks.describe(self.where)}"
            )

    def region(self, domain: Domain) -> Domain:
        """Return where it holds."""
        if not isinstance(self.where, Domain):
            return domain.where(self.where)
        if self.where.coordinates != domain.coordinates:
            raise ValueError(
                f"an equation holds in a region of coordinates {', '.join(self.where.coordinates)}"
                f", the problem has {', '.join(domain.coordinates)}: give a region of all of them"
            )
        return self.where
