"""Where the points of an objective live, and what its network means there."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import overload

import torch
from torch import Tensor, nn

from whence import _checks
from whence.points import Points, Pointwise

Fields = Callable[[Sequence[str]], Pointwise]
"""``fields(("u", "u_x"))`` returns the pointwise function with those columns."""


class NumberedNames(Sequence[str]):
    """The names ``output_0``, ``output_1``, … of many outputs, each made when it is asked for.

    Examples
    --------
    >>> from whence.space import NumberedNames
    >>> names = NumberedNames(25_000_000)
    >>> names[3], "output_24999999" in names, names.index("output_7")
    ('output_3', True, 7)
    """

    def __init__(self, n: int, prefix: str = "output_") -> None:
        self._numbers = range(n)
        self._prefix = prefix

    def __len__(self) -> int:
        return len(self._numbers)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[str, ...]: ...
    def __getitem__(self, index: int | slice) -> str | tuple[str, ...]:
        """Return a name, or some of them."""
        if isinstance(index, slice):
            return tuple(f"{self._prefix}{k}" for k in self._numbers[index])
        return f"{self._prefix}{self._numbers[index]}"

    def __contains__(self, name: object) -> bool:
        """Whether this is one of the names."""
        # Written as it would be made: output_007 is none.
        number = str(name).removeprefix(self._prefix)
        is_number = number.isdecimal() and f"{self._prefix}{int(number)}" == name
        return is_number and int(number) in self._numbers

    def index(self, name: str, start: int = 0, stop: int | None = None) -> int:
        """Return the number in a name."""
        if name not in self:
            raise ValueError(f"{name!r} is none of {len(self)} names")
        return int(name.removeprefix(self._prefix))


@dataclass(frozen=True, eq=False)
class Space:
    """Coordinates of points, outputs of the network, and its fields.

    A problem makes its own, which can also draw points and knows where each term holds.

    Parameters
    ----------
    coordinates:
        Names of the d columns of the points; none of samples.
    outputs:
        Names of the network's outputs.
    evaluate:
        ``evaluate(names)`` returns the pointwise function that computes the named outputs or
        derivatives; by default the columns of ``network(points)``.
    groups:
        Names of terms by the name of a group, such as those of a problem's equations.

    Examples
    --------
    >>> import torch, whence as wh
    >>> network = torch.nn.Linear(2, 1)
    >>> def residual(tensors, z):
    ...     return z @ tensors["weight"].T
    >>> space = wh.Space(coordinates=("x", "t"), outputs=("u",))
    >>> objective = wh.Objective(
    ...     network, wh.Term("pde", residual, torch.rand(5, 2)), space=space)
    >>> objective.coordinates, objective.outputs
    (('x', 't'), ('u',))
    """

    coordinates: tuple[str, ...] = ()
    outputs: Sequence[str] = ("output",)
    evaluate: Fields | None = None
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "coordinates", tuple(self.coordinates))
        if not isinstance(self.outputs, NumberedNames):
            object.__setattr__(self, "outputs", tuple(self.outputs))

    def with_coordinates(self, d: int) -> Space:
        """Return the space with the names x0, x1, … for d columns, if they have none."""
        if self.coordinates:
            return self
        names = tuple(f"x{k}" for k in range(d))
        return replace(self, coordinates=names)

    def fields(self, network: nn.Module, names: Sequence[str]) -> Pointwise:
        """Return the pointwise function with the named outputs or derivatives as columns."""
        if self.evaluate is not None:
            return self.evaluate(tuple(names))
        return self.columns(network_function(network), names)

    def columns(self, function: Pointwise, names: Sequence[str]) -> Pointwise:
        """Return the named columns of what a function of all outputs gives."""
        for name in names:
            _checks.one_of("output", name, self.outputs)
        columns = [self.outputs.index(name) for name in names]

        def evaluate(tensors: Mapping[str, Tensor], points: Points) -> Tensor:
            values = function(tensors, points)  # all outputs, (n, m)
            return values[:, columns]

        return evaluate

    def draw(self, term: str, n: int, seed: int, method: str = "random") -> Tensor:
        """Return n fresh points (n, d) where a term holds.

        Raises
        ------
        ValueError
            If the points are fixed data, as here.
        """
        # Data are what was measured: there are no more of them to draw.
        raise ValueError(
            f"no fresh points of term {term!r} can be drawn: this objective has fixed data"
        )

    def check(self, term: str | None, points: Tensor) -> None:
        """Raise ``ValueError`` for points where a term does not hold, where that is known.

        Without a term: for points where the network has no meaning.
        """


def network_function(network: nn.Module) -> Pointwise:
    """Return ``network(points)`` as a function of its parameters."""

    def evaluate(tensors: Mapping[str, Tensor], points: Points) -> Tensor:
        # Functional, so that it can be differentiated with respect to the tensors.
        value: Tensor = torch.func.functional_call(network, dict(tensors), (points,))
        return value

    return evaluate
