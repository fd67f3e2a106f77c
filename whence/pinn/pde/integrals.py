"""An integral that must have a value, as a term of the loss."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from whence import _checks
from whence.pinn.pde.derived import Integrated, Of
from whence.pinn.pde.place import Place
from whence.pinn.pde.quadrature import Over
from whence.pinn.pde.term_function import TermFunction


@dataclass(frozen=True, eq=False)
class Integral:
    """Ask that an integral of fields has a value: residual ``∫ f − equals``.

    Where it runs over all coordinates it is one point of the loss; otherwise it holds at each value
    of the others, such as at all times, and ``points={"mass": 20}`` says at how many.

    Parameters
    ----------
    name:
        The term's name.
    over, of, nodes:
        What is integrated over which coordinates, part or region, see
        :class:`whence.pinn.Integrated`.
    equals:
        A number, or a function of coordinates or unknowns by argument name.

    Examples
    --------
    A density that integrates to one:

    >>> from whence import pinn
    >>> one = pinn.Integral("one", over="x", of="u", equals=1.0)
    >>> one.name
    'one'
    """

    name: str
    over: Over = None
    of: Of = "u"
    equals: float | Callable[..., Tensor] = 0.0
    nodes: int | None = None

    def __post_init__(self) -> None:
        if not callable(self.equals):
            _checks.number(f"the value of integral {self.name!r}", self.equals)

    def term_function(self, place: Place) -> TermFunction:
        """Return the term on a problem's domain; what means nothing there is an error."""
        what = f"integral {self.name!r}"
        integrated = Integrated(self.of, self.over, self.nodes)
        integral = integrated.bind(self.name, place)
        integral.check()
        equals = self.equals

        names: tuple[str, ...] = ()
        if callable(equals):
            names = _checks.arguments(f"the value of {what}", equals)
            allowed = (*place.coordinates, *place.symbols)
            for name in names:
                _checks.one_of(f"argument of the value of {what}", name, allowed)

        def residual(total: Tensor, *arguments: Tensor) -> Tensor:
            if callable(equals):
                return total - equals(*arguments)
            return total - float(equals)

        # A name that no field can have, as it is no identifier.
        key = f"∫ {self.name}"
        free = tuple(integral.rule.free)
        region = Collapsed(place, free)
        return TermFunction(
            what,
            residual,
            (key, *names),
            place,
            region=region,
            rows=None if free else region.sample(1),
            derived={key: integral},
        )


@dataclass(frozen=True, eq=False)
class Collapsed:
    """The points of a domain with all but some coordinates put to the middle of their range."""

    place: Place
    free: tuple[str, ...]

    def sample(
        self, n: int, method: str = "hammersley", seed: int | None = None
    ) -> Tensor:
        """Return n points, float64 of shape (n, d)."""
        middle = torch.from_numpy(np.asarray(self.place.domain.bounds.mean(axis=0)))
        if not self.free:
            return middle.expand(n, -1).clone()

        points = self.place.domain.sample(n, method, seed)
        is_free = [name in self.free for name in self.place.coordinates]
        return torch.where(torch.tensor(is_free), points, middle)

    def contains(self, points: Tensor, tolerance: float = 1e-9) -> Tensor:
        """Return which points (n, d) are within the bounds, (n,)."""
        low, high = torch.from_numpy(np.asarray(self.place.domain.bounds)).to(points)
        return ((points >= low - tolerance) & (points <= high + tolerance)).all(dim=1)
