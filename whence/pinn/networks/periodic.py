"""Networks that are periodic by their inputs: exactly, with all derivatives."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from whence import _checks
from whence._files import JsonObject
from whence.catalogue import NETWORKS
from whence.pinn.networks.mlp import Bounds, checked_bounds, checked_widths
from whence.pinn.networks.parts import part_of, part_options

DEFAULT_PERIOD = 2.0
"""Period of an input without bounds: the width of [−1, 1]."""
ROUNDING = 8
"""How far from the end of a period, in units of rounding, an input is at the end."""


@NETWORKS.named("periodic")
class PeriodicNetwork(nn.Module):
    """A network of cosines and sines of its periodic inputs, and of the others as they are.

    An input x of period P becomes ``cos(2πk (x − a)/P)`` and ``sin(2πk (x − a)/P)`` for
    k = 1, …, modes, a being its lower bound, so that outputs and all their derivatives have that
    period exactly, at the start and after training (Dong & Ni, arXiv 2007.07442). What follows may
    be any network of the catalogue. Conditions :class:`whence.pinn.Periodic` on opposite sides then
    hold by themselves, to the last bit.

    Parameters
    ----------
    layers
        Widths: inputs, hidden layers, outputs. The network within has as many inputs as there are
        cosines, sines and other inputs.
    periods
        Period by input, which is a column such as ``0``, or a name among ``coordinates``. By
        default the first input has the width of its bounds for a period, or 2 without bounds.
    modes
        Waves of each periodic input.
    kind
        What the network within is, by its name in the catalogue.
    coordinates
        Names of the inputs.
    bounds
        Lowest and highest value of each input, shape (2, inputs): waves begin at the lowest, and
        the network within scales the inputs that are not periodic.
    seed
        Equal seeds draw equal parameters; ``None`` draws from the global random state.
    dtype
        Floating-point type.
    options
        What else the network within takes.

    Raises
    ------
    ValueError
        For an input that is not there, or a period that is no positive number.

    Examples
    --------
    >>> from whence import pinn
    >>> network = pinn.PeriodicNetwork(
    ...     [2, 16, 1], {"x": 2.0}, modes=3, coordinates=("x", "t"), seed=0)
    >>> network
    PeriodicNetwork(periods={0: 2.0}, modes=3, MLP([7, 16, 1], activation='tanh', parameters=145))
    >>> import torch
    >>> ends = torch.tensor([[-1.0, 0.3], [1.0, 0.3]], dtype=torch.float64)
    >>> bool(network(ends).diff(dim=0).abs() < 1e-14)
    True
    """

    turns: Tensor
    origins: Tensor
    waves: Tensor

    def __init__(
        self,
        layers: Sequence[int],
        periods: Mapping[str, float] | Mapping[int, float] | None = None,
        modes: int = 1,
        kind: str = "mlp",
        coordinates: Sequence[str] | None = None,
        bounds: Bounds | None = None,
        seed: int | None = None,
        dtype: torch.dtype = torch.float64,
        **options: object,
    ) -> None:
        super().__init__()
        _checks.one_of("kind of network", kind, NETWORKS)
        inputs, *others = checked_widths(layers)
        # Without a box waves begin at zero.
        table = None
        lowest = [0.0] * inputs
        width = DEFAULT_PERIOD
        if bounds is not None:
            table = checked_bounds(bounds, inputs)
            lowest = table[0].tolist()
            width = float(table[1, 0] - table[0, 0])
        if periods is None:
            periods = {0: width}

        self._set_waves(
            inputs,
            periods,
            modes,
            coordinates,
            lowest,
            dtype,
        )
        # What is within has waves and other inputs for its own.
        widths = [self._features, *others]
        self.network = NETWORKS[kind](
            widths,
            bounds=self._limits(table),
            seed=seed,
            dtype=dtype,
            **options,
        )

    def _limits(self, bounds: Tensor | None) -> Tensor | None:
        """Return the bounds of what the network within takes, (2, features)."""
        if bounds is None:
            return None

        # Cosines and sines lie in [−1, 1] already.
        n_waves = 2 * len(self.waves)
        unit = torch.ones(n_waves, dtype=torch.float64)
        of_waves = torch.stack([-unit, unit])
        of_others = bounds[:, self._others]
        return torch.cat([of_waves, of_others], dim=1)

    def _set_waves(
        self,
        inputs: int,
        periods: Mapping[str, float] | Mapping[int, float],
        modes: int,
        coordinates: Sequence[str] | None,
        lowest: Sequence[float],
        dtype: torch.dtype,
    ) -> None:
        """Keep what is periodic in which input, from where, and how often each wave turns."""
        _checks.count("modes", modes)
        # Buffers hold what is computed with, the attributes what made them.
        self._inputs = inputs
        self._modes = int(modes)
        self._periods = by_column(inputs, periods, coordinates)
        self._lowest = [float(value) for value in lowest]
        # In the order in which they were named, which is that of the waves.
        self._columns = list(self._periods)
        self._others = [k for k in range(inputs) if k not in self._periods]

        origins = [self._lowest[column] for column in self._columns]
        turns = [1 / period for period in self._periods.values()]
        self.register_buffer("origins", torch.tensor(origins, dtype=dtype))
        self.register_buffer("turns", torch.tensor(turns, dtype=dtype))

        # Wave k of an input turns by 2πk over a period, and of no other input: a row for each
        # wave, a column for each periodic input.
        n_periodic = len(self._columns)
        unit = torch.eye(n_periodic, dtype=torch.float64)
        numbers = torch.arange(1.0, self._modes + 1, dtype=torch.float64)
        angles = 2 * math.pi * numbers
        waves = torch.kron(unit, angles.unsqueeze(1))
        self.register_buffer("waves", waves.to(dtype))
        # A cosine and a sine for each.
        self._features = 2 * len(waves) + len(self._others)

    @classmethod
    def of(
        cls,
        network: nn.Module,
        inputs: int,
        periods: Mapping[str, float] | Mapping[int, float],
        modes: int = 1,
        coordinates: Sequence[str] | None = None,
        lowest: Sequence[float] | None = None,
    ) -> PeriodicNetwork:
        """Return a network that is there already, fed with waves of ``inputs`` inputs.

        It takes the cosines of all waves, then their sines, then the other inputs in their order.
        ``lowest`` says where waves begin, by default at zero.

        Examples
        --------
        >>> from whence import pinn
        >>> pinn.PeriodicNetwork.of(pinn.SIREN([3, 8, 1], seed=0), 2, {0: 2.0})
        PeriodicNetwork(periods={0: 2.0}, modes=1, SIREN([3, 8, 1], omega=30.0, parameters=41))
        """
        # Without the constructor, which would make a network of its own.
        made = cls.__new__(cls)
        nn.Module.__init__(made)
        parameter = next(network.parameters())
        if lowest is None:
            lowest = [0.0] * inputs
        made._set_waves(
            inputs,
            periods,
            modes,
            coordinates,
            lowest,
            parameter.dtype,
        )
        made.network = network
        return made

    @property
    def periods(self) -> dict[int, float]:
        """Period of each periodic input, by its column."""
        return dict(self._periods)

    @property
    def modes(self) -> int:
        """Waves of each periodic input."""
        return self._modes

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs, shape (n, outputs), at inputs of shape (n, inputs)."""
        inputs = self._inputs
        # Checked here because what is missing might be periodic, and found by chance elsewhere.
        if x.shape[-1] != inputs:
            shape = tuple(x.shape)
            raise ValueError(f"x must have shape (n, {inputs}), got {shape}")

        phases = self._phases(x)
        angles = F.linear(phases, self.waves)  # (n, waves)
        features = [
            torch.cos(angles),
            torch.sin(angles),
        ]
        if self._others:
            others = x[..., self._others]
            features.append(others)

        table = torch.cat(features, dim=-1)
        y: Tensor = self.network(table)
        return y

    def _phases(self, x: Tensor) -> Tensor:
        """Return what share of its period each periodic input has gone, (n, periodic inputs)."""
        columns = x[..., self._columns]
        phases = (columns - self.origins) * self.turns

        # Whole periods go, so that both ends of one give the same bits; a jet's derivatives stay.
        value = getattr(phases, "value", phases).detach()
        whole = torch.floor(value)

        # Rounding of the input may leave an end a little before or after it.
        nearest = torch.round(value)
        distance = (value - nearest).abs()
        size = nearest.abs().clamp_min(1.0)
        rounding = ROUNDING * torch.finfo(value.dtype).eps
        is_end = distance <= rounding * size
        gone = torch.where(is_end, value, whole)
        return phases - gone

    def options(self) -> JsonObject:
        """Return the arguments that make a network of this architecture, as JSON can hold them.

        Raises
        ------
        TypeError
            If the network within is none of the catalogue.
        """
        # The keys of a JSON object are words.
        periods = {}
        for column, period in self._periods.items():
            periods[str(column)] = period
        return {
            "inputs": self._inputs,
            "periods": periods,
            "modes": self._modes,
            "lowest": self._lowest,
            "network": part_options(self.network),
        }

    @classmethod
    def from_options(cls, options: JsonObject) -> PeriodicNetwork:
        """Return a network of this architecture from what :meth:`options` returned."""
        network = part_of(options["network"])
        return cls.of(
            network,
            options["inputs"],
            options["periods"],
            options["modes"],
            lowest=options["lowest"],
        )

    def __repr__(self) -> str:
        return (
            f"PeriodicNetwork(periods={self._periods}, modes={self._modes}, "
            f"{self.network!r})"
        )


def by_column(
    inputs: int,
    periods: Mapping[str, float] | Mapping[int, float],
    coordinates: Sequence[str] | None,
) -> dict[int, float]:
    """Return periods by column, from those by column or by name.

    Raises
    ------
    ValueError
        For an input that is not there, or a period that is no positive number.

    Examples
    --------
    >>> from whence.pinn.networks.periodic import by_column
    >>> by_column(2, {"t": 1.0, "0": 2.0}, ("x", "t"))
    {1: 1.0, 0: 2.0}
    """
    # Names are of the problem, which a network does not know.
    names = [] if coordinates is None else list(coordinates)
    if coordinates is not None and len(names) != inputs:
        raise ValueError(
            f"coordinates must be {inputs} names, one for each input, got {names}"
        )

    numbers = [str(k) for k in range(inputs)]
    columns: dict[int, float] = {}
    for key, period in periods.items():
        # A column may come as a number, or as a word from the command line.
        name = str(key)
        _checks.one_of("periodic input", name, [*numbers, *names])
        _checks.positive(f"the period of input {key!r}", period)
        column = names.index(name) if name in names else int(name)
        columns[column] = float(period)

    if not columns:
        raise ValueError("periods must name at least one input, such as {0: 2.0}")
    return columns
