"""The points that a run takes over from the one it starts from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from torch import Tensor, nn

from whence._files import JsonObject, PathLike
from whence.arrays import ArrayLike
from whence.objective import Objective
from whence.pinn.pde.problem import Problem
from whence.pinn.pde.term_function import Count
from whence.pinn.training.first_points import (
    HeldOut,
    PlainPoints,
    Points,
    first_objective,
    first_points,
    first_weights,
    hold_out_points,
    without_weights,
)
from whence.pinn.training.load import load_base_weights, load_points
from whence.pinn.training.pinned import Pinned, pinned_rows, with_pinned
from whence.pinn.training.run_folder import RunFolder


@dataclass(frozen=True)
class StartingPoints:
    """The points that a run begins with, those of an earlier run among them.

    Parameters
    ----------
    rows:
        The points of every term.
    given:
        Those that the user gave, now or to the earlier run; all others were drawn.
    carried:
        Terms whose points the user gave to the earlier run, from which they are taken over.
    pinned:
        Points that never leave, by term; they stand first among ``rows``.
    base_weights:
        Weights (N,) that belong to the points, by term that has such.
    """

    rows: Mapping[str, ArrayLike]
    given: PlainPoints
    carried: tuple[str, ...] = ()
    pinned: Mapping[str, Tensor] = field(default_factory=dict)
    base_weights: Mapping[str, Tensor] = field(default_factory=dict)

    def with_pinned(self, problem: Problem, pinned: Pinned | None) -> StartingPoints:
        """Return the same with points that never leave at the head of their terms."""
        heads = pinned_rows(problem, pinned)
        for name in heads:
            if name in self.base_weights:
                raise ValueError(
                    f"the points of term {name!r} have weights of their own, which pinned ones "
                    "have not: give these among the points, with a weight each"
                )
        rows = with_pinned(self.rows, heads, problem.coordinates)
        return replace(self, rows=rows, pinned=heads)

    def objective(
        self,
        problem: Problem,
        network: nn.Module,
        weights: Mapping[str, float] | None,
        hold_out: HeldOut,
        seed: int,
    ) -> tuple[Objective, dict[str, Tensor]]:
        """Return the objective at these points, without those held out, and these by term.

        Raises
        ------
        ValueError
            If points that are taken over are to be held out.
        """
        for name in self.carried:
            share = hold_out
            if isinstance(hold_out, Mapping):
                share = hold_out.get(name, 0)
            if share:
                # A resume has those of the run alone, which no longer has those held out.
                raise ValueError(
                    f"hold_out holds out points of term {name!r}, which are taken over from the "
                    f"run to start from: give them, points={{{name!r}: "
                    f"pinn.load_points(run)[{name!r}]}}"
                )

        objective = first_objective(
            problem,
            network,
            self.rows,
            self.given,
            weights,
            self.pinned,
            self.base_weights,
        )
        return hold_out_points(objective, problem, hold_out, seed)


def starting_points(
    problem: Problem,
    points: Points | None,
    run: PathLike | None,
    seed: int,
    sampling: str,
    pinned: Pinned | None = None,
) -> StartingPoints:
    """Return the points asked for; terms that are left out take those that ``run`` was kept with.

    Pinned ones stand before them.
    """
    wanted = {} if points is None else points
    base_weights = first_weights(problem, wanted, sampling)
    if run is not None and isinstance(wanted, Mapping):
        # Points that are taken over have the weights that they had.
        earlier = load_base_weights(run)
        taken = {name: w for name, w in earlier.items() if name not in wanted}
        base_weights = taken | base_weights

    plain = without_weights(wanted)
    first = asked_or_taken_over(problem, plain, run, seed, sampling)
    weighted = replace(first, base_weights=base_weights)
    return weighted.with_pinned(problem, pinned)


def asked_or_taken_over(
    problem: Problem,
    points: PlainPoints,
    run: PathLike | None,
    seed: int,
    sampling: str,
) -> StartingPoints:
    """Return the points asked for, and of terms that are left out those of ``run``.

    Where numbers are asked for, points are drawn by ``seed`` and ``sampling``. Points that the run
    drew are drawn ones here too: they are renewed and validated on fresh points. Those that its
    user gave remain given.

    Raises
    ------
    ValueError
        If a term is left out of which the run has no points.
    """
    # One number is of the only term, so that nothing is left out.
    if run is None or not isinstance(points, Mapping):
        rows = first_points(problem, points, seed, sampling)
        return StartingPoints(rows, points)

    earlier = load_points(run)
    given_earlier = names_given(RunFolder(run).config())
    asked: dict[str, Count | ArrayLike] = dict(points)
    given: dict[str, Count | ArrayLike] = dict(points)
    carried = []

    for name in problem.terms:
        if name in points or name in problem.given_terms:
            continue

        check_carried(problem, name, earlier, run)
        asked[name] = earlier[name]
        if name in given_earlier:
            given[name] = earlier[name]
            carried.append(name)

    rows = first_points(problem, asked, seed, sampling)
    return StartingPoints(rows, given, tuple(carried))


def check_carried(
    problem: Problem, name: str, earlier: Mapping[str, Tensor], run: PathLike
) -> None:
    """Raise ``ValueError`` unless the run has points of this term, of the problem's dimension."""
    advice = f"give their number, {{{name!r}: 100}} (--points {name}=100)"
    if name not in earlier:
        terms = ", ".join(earlier)
        raise ValueError(
            f"no points for term {name!r}: {run}, from which to start, has points of {terms} "
            f"only: {advice}"
        )

    dimension = len(problem.coordinates)
    columns = earlier[name].shape[1]
    if columns != dimension:
        raise ValueError(
            f"the points of term {name!r} in {run}, from which to start, have {columns} "
            f"coordinates, those of {problem.name!r} {dimension}: {advice}"
        )


def names_given(config: JsonObject) -> set[str]:
    """Return the terms whose points the user of a run gave."""
    # Runs say so themselves, as what they start from may be gone; older ones by their options.
    if "given" in config:
        return set(config["given"])

    points = config["points"]
    if not isinstance(points, Mapping):
        return set()
    return {name for name, rows in points.items() if not isinstance(rows, (int, float))}
