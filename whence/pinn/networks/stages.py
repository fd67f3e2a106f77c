"""Networks in stages: each corrects the sum of those before it, at its own scale."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from whence import _checks
from whence._files import JsonObject
from whence.catalogue import NETWORKS
from whence.pinn.networks.mlp import Bounds
from whence.pinn.networks.parts import part_of, part_options


@NETWORKS.named("stages")
class Stages(nn.Module):
    """A sum of networks, ``N = N_1 + Σ_k ε_k N_{k+1}``, of which the last one trains.

    A network stops improving when its residual is small beside rounding of its own parameters'
    steps and of high frequency beside itself. A further one fits that residual as a problem of
    order one (Wang & Lai, arXiv 2307.08934). :func:`whence.pinn.refine` makes and trains it.

    Parameters
    ----------
    layers
        Widths of each stage.
    scales
        ε of each stage but the first.
    kind
        What each stage is, by its name in the catalogue.
    bounds
        Lowest and highest value of each input, shape (2, inputs).
    seed
        Stage k is drawn from ``seed + k``.
    options
        What else each stage takes.

    Examples
    --------
    >>> from whence import pinn
    >>> network = pinn.Stages([2, 8, 1], scales=[1e-3], seed=0)
    >>> network
    Stages(2 × MLP, scales=[0.001], trained=33)
    """

    def __init__(
        self,
        layers: Sequence[int],
        scales: Sequence[float] = (),
        kind: str = "mlp",
        bounds: Bounds | None = None,
        seed: int | None = None,
        **options: object,
    ) -> None:
        super().__init__()
        _checks.one_of("kind of network", kind, NETWORKS)
        stages = []
        # One scale fewer than stages: the first has none.
        for k in range(len(scales) + 1):
            # Equal seeds would make all stages equal.
            stage_seed = seed
            if seed is not None:
                stage_seed = seed + k
            stage = NETWORKS[kind](
                layers,
                bounds=bounds,
                seed=stage_seed,
                **options,
            )
            stages.append(stage)

        self._set_stages(stages, scales)

    def _set_stages(self, stages: Sequence[nn.Module], scales: Sequence[float]) -> None:
        n_stages = len(stages)
        n_later = n_stages - 1
        if len(scales) != n_later:
            raise ValueError(
                f"{n_stages} stages have {n_later} scales, got {len(scales)}"
            )

        # Zero would leave the later stages without a gradient, and a sign is theirs to find.
        numbers = []
        for scale in scales:
            _checks.positive("a scale", scale)
            numbers.append(float(scale))

        self._scales = tuple(numbers)
        self.stages = nn.ModuleList(stages)
        # Frozen, so that neither optimizers nor influence take them for parameters.
        *frozen, _ = stages
        for stage in frozen:
            stage.requires_grad_(False)

    @classmethod
    def of(cls, stages: Sequence[nn.Module], scales: Sequence[float]) -> Stages:
        """Return the sum of networks that are there already; all but the last are frozen.

        Raises
        ------
        ValueError
            If there is not one scale for each but the first, or one is no positive number.

        Examples
        --------
        >>> from whence import pinn
        >>> pinn.Stages.of([pinn.MLP([1, 4, 1], seed=0), pinn.SIREN([1, 4, 1], seed=1)], [0.01])
        Stages(MLP + SIREN, scales=[0.01], trained=13)
        """
        # Without the constructor, which would draw stages of its own.
        made = cls.__new__(cls)
        nn.Module.__init__(made)
        made._set_stages(stages, scales)
        return made

    @property
    def scales(self) -> tuple[float, ...]:
        """ε of each stage but the first."""
        return self._scales

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs, shape (n, outputs), at inputs of shape (n, inputs)."""
        first, *later = self.stages
        y: Tensor = first(x)
        for scale, stage in zip(self._scales, later, strict=True):
            correction = stage(x)
            y = y + scale * correction
        return y

    def options(self) -> JsonObject:
        """Return the arguments that make a network of this architecture, as JSON can hold them.

        Raises
        ------
        TypeError
            If a stage is no network of the catalogue.
        """
        # Kinds may differ from stage to stage.
        stages = [part_options(stage) for stage in self.stages]
        scales = list(self._scales)
        return {
            "scales": scales,
            "stages": stages,
        }

    @classmethod
    def from_options(cls, options: JsonObject) -> Stages:
        """Return a network of this architecture from what :meth:`options` returned."""
        stages = []
        for stage in options["stages"]:
            stages.append(part_of(stage))
        return cls.of(stages, options["scales"])

    def __repr__(self) -> str:
        kinds = [type(stage).__name__ for stage in self.stages]
        shown = " + ".join(kinds)
        # Of many alike the number says it.
        if len(set(kinds)) == 1:
            kind = kinds[0]
            shown = f"{len(kinds)} × {kind}"

        trained = 0
        for parameter in self.parameters():
            if parameter.requires_grad:
                trained += parameter.numel()

        scales = list(self._scales)
        return f"Stages({shown}, scales={scales}, trained={trained})"
