"""What a problem does not know: numbers, and functions with networks of their own.

Both are trained with the network, by every optimizer, and equations take them by name. A number is
a linear layer on the constant 1, so that its rows of the Jacobian come as those of any layer.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from whence import _checks
from whence.pinn.networks import MLP

FIELD_WIDTHS = (16, 16)
"""Hidden layers of a field's network unless another is given."""

Bounds = tuple[float | None, float | None]


@dataclass(frozen=True)
class Unknown:
    """A number that is trained with the network: a coefficient, an initial value, an eigenvalue.

    It is trained as θ, of size one whatever its units: ``k = scale · θ``; where it must stay
    positive, ``k = scale · exp(θ)``; above a bound a, ``k = a + scale · exp(θ)``; between two,
    ``k = a + (b − a) / (1 + exp(−θ))``.

    Parameters
    ----------
    initial:
        Where training starts.
    positive:
        Whether it is greater than zero; short for ``bounds=(0, None)``.
    bounds:
        Lowest and highest value, ``None`` where there is none.
    scale:
        Its typical size; by default that of ``initial`` above the bound, or 1 if that is zero.

    Raises
    ------
    ValueError
        If a number is not finite, the bounds are not in order, or ``initial`` is not between them.

    Examples
    --------
    >>> from whence import pinn
    >>> conductivity = pinn.Unknown(400.0, positive=True)
    >>> conductivity.limits, conductivity.size
    ((0.0, None), 400.0)
    """

    initial: float
    positive: bool = False
    bounds: Bounds | None = None
    scale: float | None = None

    def __post_init__(self) -> None:
        initial = _checks.number("the initial value of an unknown", self.initial)
        object.__setattr__(self, "initial", initial)
        _checks.boolean("positive", self.positive)
        if self.scale is not None:
            _checks.positive("scale", self.scale)
        if self.bounds is not None:
            _checks.pair("bounds", self.bounds, "end")
            for bound in self.bounds:
                if bound is not None:
                    _checks.number("a bound of an unknown", bound)

        low, high = self.limits
        is_above = low is None or initial > low
        is_below = high is None or initial < high
        if not is_above or not is_below:
            raise ValueError(
                f"the initial value of an unknown must lie between its bounds {low} and {high}, "
                f"neither of which it can reach, got {initial}"
            )

    @property
    def limits(self) -> Bounds:
        """Lowest and highest value, ``None`` where there is none."""
        low, high = self.bounds or (None, None)
        low = None if low is None else float(low)
        high = None if high is None else float(high)
        if self.positive:
            low = 0.0 if low is None else max(0.0, low)
        return low, high

    @property
    def size(self) -> float:
        """The scale of θ, in the units of the unknown."""
        if self.scale is not None:
            return float(self.scale)

        low, high = self.limits
        offset = self.initial
        if low is not None:
            offset = self.initial - low
        elif high is not None:
            offset = high - self.initial
        return abs(offset) or 1.0

    def theta(self) -> float:
        """Return θ of the initial value."""
        low, high = self.limits
        if low is not None and high is not None:
            # The inverse of (b − a)/(1 + exp(−θ)): the log of the odds.
            return math.log((self.initial - low) / (high - self.initial))
        if low is not None:
            return math.log((self.initial - low) / self.size)
        if high is not None:
            return math.log((high - self.initial) / self.size)
        return self.initial / self.size

    def value(self, theta: Tensor) -> Tensor:
        """Return the values that belong to some θ."""
        low, high = self.limits
        if low is not None and high is not None:
            return low + (high - low) * torch.sigmoid(theta)
        if low is not None:
            return low + self.size * theta.exp()
        if high is not None:
            return high - self.size * theta.exp()
        return self.size * theta


@dataclass(frozen=True, eq=False)
class Field:
    """An unknown function of some coordinates, with a network of its own.

    Equations take it and its derivatives by name, as they take outputs: ``C``, ``C_x``.

    Parameters
    ----------
    name:
        Its name.
    of:
        The coordinates that it depends on.
    network:
        A module from (n, len(of)) to (n, 1), of which each training gets a copy; by default two
        hidden layers of 16 tanh units.

    Raises
    ------
    TypeError
        If the network is no module.
    ValueError
        If a name cannot be that of an argument.

    Examples
    --------
    >>> from whence import pinn
    >>> pinn.Field("C", of=("x",)).of
    ('x',)
    """

    name: str
    of: Sequence[str]
    network: nn.Module | None = None

    def __post_init__(self) -> None:
        of = (self.of,) if isinstance(self.of, str) else tuple(self.of)
        object.__setattr__(self, "of", of)
        _checks.identifiers("field", (self.name,))
        _checks.names("of", of)
        if self.network is not None and not isinstance(self.network, nn.Module):
            raise TypeError(
                f"the network of field {self.name!r} must be a torch.nn.Module, got "
                f"{_checks.describe(self.network)}"
            )

    def new_network(self, bounds: np.ndarray, seed: int) -> nn.Module:
        """Return a network of its own; ``bounds`` (2, len(of)) are those of its coordinates."""
        if self.network is not None:
            return copy.deepcopy(self.network)
        sizes = [len(self.of), *FIELD_WIDTHS, 1]
        return MLP(sizes, bounds=bounds.tolist(), seed=seed)


UnknownLike = float | Unknown | Field
"""What a problem does not know: a first guess, or more than that."""


class UnknownLayer(nn.Module):
    """An unknown number as a layer: θ times the constant 1, at every point."""

    def __init__(self, unknown: Unknown) -> None:
        super().__init__()
        self.unknown = unknown
        theta = torch.full((1, 1), unknown.theta(), dtype=torch.float64)
        self.theta = nn.Parameter(theta)

    def forward(self, points: Tensor) -> Tensor:
        """Return the value at each of the points (..., d): (...,)."""
        # As a linear layer, for which rows of J need no transform of torch.func.
        one = torch.ones_like(points[..., :1])
        theta = F.linear(one, self.theta)  # (..., 1)
        return self.unknown.value(theta)[..., 0]


class Model(nn.Module):
    """A network with the unknowns of its problem, whose parameters are trained together.

    Parameters
    ----------
    network:
        From coordinates (n, d) to raw outputs (n, m).
    unknowns:
        The unknown numbers by name.
    fields:
        Networks of unknown functions by name.
    columns:
        Which coordinates each of these takes.
    """

    def __init__(
        self,
        network: nn.Module,
        unknowns: Mapping[str, Unknown],
        fields: Mapping[str, nn.Module],
        columns: Mapping[str, Sequence[int]],
    ) -> None:
        super().__init__()
        self.network = network
        self.unknowns = nn.ModuleDict(
            {name: UnknownLayer(unknown) for name, unknown in unknowns.items()}
        )
        self.fields = nn.ModuleDict(fields)
        self._columns = {name: list(of) for name, of in columns.items()}

    def forward(self, points: Tensor, unknown: str | None = None) -> Tensor:
        """Return raw outputs and fields at points (n, d), (n, m); or an unknown's value, (n,)."""
        if unknown is not None:
            value: Tensor = self.unknowns[unknown](points)
            return value

        parts = [self.network(points)]
        for name, network in self.fields.items():
            at = points[..., self._columns[name]]
            parts.append(network(at))
        if len(parts) == 1:
            return parts[0]
        return torch.cat(parts, dim=-1)

    def values(self) -> dict[str, float]:
        """Return the unknown numbers as they are now."""
        values = {}
        for name, layer in self.unknowns.items():
            assert isinstance(layer, UnknownLayer)
            with torch.no_grad():
                values[name] = float(layer.unknown.value(layer.theta))
        return values
