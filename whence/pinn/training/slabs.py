"""Training in slabs of time: one network after another, each starting from where the last ends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from whence import _checks
from whence._files import PathLike
from whence.pinn.networks import Placement
from whence.pinn.optimizers.stepper import Optimizer
from whence.pinn.pde.problem import Problem
from whence.pinn.pde.slab import check_slabs
from whence.pinn.training.march import March, MarchOptions
from whence.pinn.training.result import Result


@dataclass(frozen=True, eq=False, init=False)
class Slabs(MarchOptions):
    """Slabs of time, trained one after another: ``pinn.Slabs(t=0.1).train(problem, network, …)``.

    The first slab has the problem's own initial conditions or ansatz. Each later one has its own
    network, the problem's equations and other conditions between its two times, and one more term,
    ``continuity``: what the slab before says at its end, at points of this slab's start. What comes
    out is one network, :class:`whence.pinn.Piecewise`, of the whole problem, with the slabs tied to
    each other by a term for each edge, so that influence goes through the edges.

    :class:`whence.pinn.RandomFeatures` and :class:`whence.pinn.RadialFeatures` are placed again for
    each slab, and for each pass over it, by how steep the solution is that is known so far
    (:class:`whence.pinn.Placement`), followed along time to where it moves; any other network
    starts as a copy of the slab's before.

    Parameters
    ----------
    passes:
        Most trainings of a slab with features placed by the one before; one for other networks.
    tolerance:
        Loss up to which a slab is good: below it no further pass is made, a slab far above it is
        halved, and an easy one followed by a longer one. Twice the loss of the worst slab so far is
        good too, as that is carried on in any case. None: slabs of equal length, one pass each
        unless features are placed.
    trainings:
        Most trainings of slabs, further passes and halves included, spread evenly over the time:
        where more were made than its share, neither follows, unless a slab has failed. None: as
        many as are called for.
    weight:
        Weight of the term ``continuity``.
    placement:
        How features and points follow steep places.
    length:
        Length of a slab by the name of the time: ``t=0.1``.

    Examples
    --------
    >>> from whence import pinn
    >>> problem = pinn.zoo.load("diffusion")
    >>> network = pinn.RandomFeatures([2, 100, 1], bounds=problem.domain.bounds, seed=0)
    >>> result = pinn.Slabs(t=0.5, passes=1).train(
    ...     problem, network, points=400, schedule=pinn.VarPro(5), progress=False)
    >>> result.network
    Piecewise(2 × RandomFeatures, edges=[0.5])
    >>> result.summary["relative_l2"] < 1e-4
    True
    """

    def __init__(
        self,
        *,
        passes: int = 3,
        tolerance: float | None = None,
        trainings: int | None = None,
        weight: float = 1e4,
        placement: Placement | None = None,
        **length: float,
    ) -> None:
        if len(length) != 1:
            raise TypeError(
                "pinn.Slabs takes the length of a slab by the name of the time, such as "
                f"pinn.Slabs(t=0.1), got {', '.join(length) or 'none'}"
            )
        ((time, size),) = length.items()
        _checks.positive(f"the length of a slab, {time}", size)
        _checks.count("passes", passes)
        _checks.positive("weight", weight)
        if tolerance is not None:
            _checks.positive("tolerance", tolerance)
        if trainings is not None:
            _checks.count("trainings", trainings)

        super().__init__(
            time=time,
            length=float(size),
            passes=passes,
            tolerance=tolerance,
            trainings=trainings,
            weight=float(weight),
            placement=placement or Placement(),
        )

    def train(
        self,
        problem: Problem,
        network: nn.Module | None = None,
        *,
        points: int | Mapping[str, int],
        schedule: Optimizer | Sequence[Optimizer],
        weights: Mapping[str, float] | None = None,
        seed: int = 0,
        out: PathLike | None = None,
        resume: bool = False,
        max_seconds: float | None = None,
        progress: bool = True,
        **options: object,
    ) -> Result:
        """Train a network on each slab in turn; return the run of all of them.

        Parameters
        ----------
        problem, schedule, weights, seed, options:
            As in :func:`whence.pinn.train`; the schedule is that of each slab.
        network:
            The network of one slab; by default the problem's own architecture.
        points:
            Numbers of points by term of each slab.
        out:
            Run folder to make, with the runs of the slabs in its folder ``slabs``.
        resume:
            Go on with the slabs in ``out``, made with the same options; those that are finished are
            not trained again.
        max_seconds:
            Most time for all slabs; None for no limit.
        progress:
            Whether to say what each slab came to.

        Raises
        ------
        ValueError
            If the problem has no time, or measurements, integrals, unknowns or conditions at the
            end of time.
        TimeoutError
            If the time limit comes before the last slab is trained.
        KeyboardInterrupt
            After Ctrl-C; with ``out`` the run goes on with ``resume=True``.
        FloatingPointError
            If the loss of a slab is not finite.
        """
        check_slabs(problem)
        if problem.time != self.time:
            raise ValueError(
                f"{problem.name!r} has the time {problem.time!r}, not {self.time!r}: give the "
                f"length of a slab as pinn.Slabs({problem.time}={self.length:g})"
            )
        march = March(
            self, problem, network, points, schedule, weights, seed, options,
            None if out is None else Path(out), resume, max_seconds, progress,
        )  # fmt: skip
        return march.run()
