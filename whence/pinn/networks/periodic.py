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


@NETWORKS.named("periodic")
class PeriodicNetwork(nn.Module):
    """A network of cosines and sines of its periodic inputs, and of the others as they are.

    An input x of period P becomes ``cos(2πk x/P)`` and ``sin(2πk x/P)``, k = 1, …, modes, so that
    outputs and all their derivatives have that period exactly, at the start and after training
    (Dong & Ni, arXiv 2007.07442). What follows may be any network of the catalogue. Conditions
    :class:`whence.pinn.Periodic` then hold by themselves.

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
        Lowest and highest value of each input, shape (2, inputs), from which the network within
        scales the inputs that are not periodic.
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
        table = None if bounds is None else checked_bounds(bounds, inputs)
        if periods is None:
            width = DEFAULT_PERIOD if table is None else float(table.diff(dim=0)[0, 0])
            periods = {0: width}
        self._set_waves(inputs, periods, modes, coordinates, dtype)

        limits = None
        if table is not None:
            # Cosines and sines lie in [−1, 1] already.
            unit = torch.ones(2 * len(self.waves), dtype=torch.float64)
            of_others = table[:, self._others]
            limits = torch.cat([torch.stack([-unit, unit]), of_others], dim=1)
        widths = [self._features, *others]
        self.network = NETWORKS[kind](
            widths, bounds=limits, seed=seed, dtype=dtype, **options
        )

    def _set_waves(
        self,
        inputs: int,
        periods: Mapping[str, float] | Mapping[int, float],
        modes: int,
        coordinates: Sequence[str] | None,
        dtype: torch.dtype,
    ) -> None:
        """Keep what is periodic in which input, and make ``2πk/P`` of each wave, (waves, d)."""
        _checks.count("modes", modes)
        names = [str(k) for k in range(inputs)]
        if coordinates is not None and len(coordinates) != inputs:
            raise ValueError(
                f"coordinates must be {inputs} names, one for each input, got "
                f"{list(coordinates)}"
            )

        self._inputs = inputs
        self._modes = int(modes)
        self._periods: dict[int, float] = {}
        for key, period in periods.items():
            name = str(key)
            if coordinates is not None and name in coordinates:
                name = names[list(coordinates).index(name)]
            choices = [*names, *(coordinates or ())]
            _checks.one_of("periodic input", name, choices)
            _checks.positive(f"the period of input {key!r}", period)
            self._periods[int(name)] = float(period)

        rows = []
        for column, period in self._periods.items():
            for k in range(1, self._modes + 1):
                row = torch.zeros(inputs, dtype=torch.float64)
                row[column] = 2 * math.pi * k / period
                rows.append(row)
        if not rows:
            raise ValueError("periods must name at least one input, such as {0: 2.0}")

        self.register_buffer("waves", torch.stack(rows).to(dtype))
        self._others = [k for k in range(inputs) if k not in self._periods]
        self._features = 2 * len(rows) + len(self._others)

    @classmethod
    def of(
        cls,
        network: nn.Module,
        inputs: int,
        periods: Mapping[str, float] | Mapping[int, float],
        modes: int = 1,
        coordinates: Sequence[str] | None = None,
    ) -> PeriodicNetwork:
        """Return a network that is there already, fed with waves of ``inputs`` inputs.

        It takes the cosines of all waves, then their sines, then the other inputs in their order.

        Examples
        --------
        >>> from whence import pinn
        >>> pinn.PeriodicNetwork.of(pinn.SIREN([3, 8, 1], seed=0), 2, {0: 2.0})
        PeriodicNetwork(periods={0: 2.0}, modes=1, SIREN([3, 8, 1], omega=30.0, parameters=41))
        """
        made = cls.__new__(cls)
        nn.Module.__init__(made)
        dtype = next(network.parameters()).dtype
        made._set_waves(inputs, periods, modes, coordinates, dtype)
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
        if x.shape[-1] != self._inputs:
            raise ValueError(
                f"x must have shape (n, {self._inputs}), got {tuple(x.shape)}"
            )

        angles = F.linear(x, self.waves)
        features = [torch.cos(angles), torch.sin(angles)]
        if self._others:
            features.append(x[..., self._others])

        y: Tensor = self.network(torch.cat(features, dim=-1))
        return y

    def options(self) -> JsonObject:
        """Return the arguments that make a network of this architecture, as JSON can hold them.

        Raises
        ------
        TypeError
            If the network within is none of the catalogue.
        """
        periods = {str(column): period for column, period in self._periods.items()}
        return {
            "inputs": self._inputs,
            "periods": periods,
            "modes": self._modes,
            "network": part_options(self.network),
        }

    @classmethod
    def from_options(cls, options: JsonObject) -> PeriodicNetwork:
        """Return a network of this architecture from what :meth:`options` returned."""
        network = part_of(options["network"])
        return cls.of(network, options["inputs"], options["periods"], options["modes"])

    def __repr__(self) -> str:
        return (
            f"PeriodicNetwork(periods={self._periods}, modes={self._modes}, "
            f"{self.network!r})"
        )
