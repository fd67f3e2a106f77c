"""What a recorded function does at single points: which layers it consists of, and the rest.

A :class:`Plan` says where each site of a function (:mod:`whence.recorder`) has its points. It is
made by running the function at one point and at several, and kept for all chunks of points and all
values of the parameters; where a chunk does not fit, another one is made. By it
:func:`recorded` brings the calls into one form, points in front, and says which parameters are
used in ways without a rule.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import FunctionType
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from whence import _checks
from whence.arrangement import Arrangement, arrangement_of, is_shared
from whence.coupling import check_uncoupled, differ, moved
from whence.layers import Call
from whence.parameters import Parameters
from whence.points import Points, Pointwise
from whence.recorder import Recorder, Site, record

Run = tuple[Tensor, Recorder]
"""A function's value at some points, and what it did there."""
Expanding = Mapping[int, int]
"""Sites whose results are repeated for each point, and with how many axes of one entry."""
MAX_AXES = 4
"""So many numbers of such axes are tried."""


@dataclass(frozen=True)
class Place:
    """Where a site has its points.

    Parameters
    ----------
    kinds, single:
        What it does, and its shapes at one point, by which it is known again.
    arrangements:
        Where points are in its sources and in its result; None where that is not known, or where
        it has no points.
    """

    kinds: tuple[object, ...]
    single: tuple[torch.Size, ...]
    arrangements: tuple[Arrangement, ...] | None

    def fits(self, site: Site, n: int) -> bool:
        """Whether a site at n points is this one."""
        if site.kinds != self.kinds or len(site.shapes) != len(self.single):
            return False
        # What has no points may have any shape: its parameters have no rule in any case.
        if self.arrangements is None:
            return True
        triples = zip(self.arrangements, site.shapes, self.single, strict=True)
        return all(
            len(shape) == len(single) and arrangement.fits(n, shape, single)
            for arrangement, shape, single in triples
        )

    def calls(self, site: Site) -> list[Call] | None:
        """Return the calls of a site with points in front, or None where one has no rule."""
        if self.arrangements is None:
            return None
        *of_sources, of_target = self.arrangements
        calls = []
        for call, of_source in zip(site.calls, of_sources, strict=True):
            arranged = call.arranged(of_source, of_target) if call.intact else None
            if arranged is None:
                return None
            calls.append(arranged)
        return calls


@dataclass(frozen=True)
class Plan:
    """Where a function's sites have their points, and which of them are repeated for each point."""

    places: tuple[Place, ...]
    expanding: Expanding
    outputs: torch.Size

    def fits(self, run: Run, n: int) -> bool:
        """Whether a run at n points is one of this function."""
        value, recorder = run
        if len(recorder.sites) != len(self.places):
            return False
        if value.ndim != 2 or value.shape != (n, *self.outputs):
            return False
        pairs = zip(self.places, recorder.sites, strict=True)
        return all(place.fits(site, n) for place, site in pairs)


@dataclass(frozen=True, eq=False)
class Recording:
    """What a function did at some points.

    Parameters
    ----------
    value:
        What it gave, with its graph.
    calls:
        Uses of parameters that have a rule, points in front; of parameters that have none but
        these.
    outside:
        Selected parameters that are used in another way, sorted.
    is_general:
        Whether calls cannot be trusted to be all there is.
    recurrent:
        Whether it calls recurrent layers that are not taken apart.
    is_plain:
        Whether no points were moved or repeated to bring calls into this form.
    """

    value: Tensor
    calls: list[Call]
    outside: list[str]
    is_general: bool
    recurrent: bool
    is_plain: bool


_PLANS: WeakKeyDictionary[Parameters, WeakKeyDictionary[Pointwise, Plan]] = (
    WeakKeyDictionary()
)


def recorded(function: Pointwise, parameters: Parameters, points: Points) -> Recording:
    """Run a function at some points and return what it did with its parameters.

    Raises
    ------
    DifferentiatesItself
        If the function calls ``torch.autograd``.
    """
    plans = _PLANS.setdefault(parameters, WeakKeyDictionary())
    # What cannot be a key, such as an object without a hash, is tried each time.
    is_rememberable = isinstance(function, FunctionType) or getattr(
        function, "is_lasting", False
    )
    plan = plans.get(function) if is_rememberable else None
    n = len(points)
    expanding = {} if plan is None else plan.expanding
    run = record(function, parameters, points, expanding)
    if plan is None or not plan.fits(run, n):
        # Repeated results may be what does not fit.
        if expanding:
            run = record(function, parameters, points)
        is_new = plan is None and isinstance(function, FunctionType)
        plan, run = planned(function, parameters, points, run)
        if is_new:
            _check_uncoupled(function, parameters, points)
        if is_rememberable:
            plans[function] = plan
    return recording_of(plan, run, parameters)


def planned(
    function: Pointwise, parameters: Parameters, points: Points, run: Run
) -> tuple[Plan, Run]:
    """Return a plan for a function, and its run at these points by it."""
    n = len(points)
    value, _ = run
    single = record(function, parameters, points[:1])
    value_at_one, _ = single
    _checks.pointwise(value, value_at_one, n)

    # One point tells nothing of where points are: it is taken twice.
    several_points = points if n > 1 else points[torch.zeros(2, dtype=torch.int64)]
    several = run if n > 1 else record(function, parameters, several_points)
    outputs = value_at_one.shape[1:]
    shared = shared_sites(several, single)
    if not shared:
        return Plan(places_of(several, single), {}, outputs), run

    def repeating(expanding: Expanding) -> tuple[Run, Run] | None:
        """Return runs in which some sites are repeated, or None where that changes the value."""
        try:
            with warnings.catch_warnings():
                # Of what comes of it where it does not fit nothing is taken.
                warnings.simplefilter("ignore")
                repeated = record(function, parameters, several_points, expanding)
                alone = record(function, parameters, points[:1], expanding)
        except (RuntimeError, ValueError, IndexError, TypeError, AssertionError):
            return None
        changed = differ(repeated[0], several[0])
        return None if changed else (repeated, alone)

    expanding, runs = _repeated(shared, repeating)
    if runs is None:
        return Plan(places_of(several, single), {}, outputs), run
    several, single = runs
    plan = Plan(places_of(several, single), expanding, outputs)
    return plan, several if n > 1 else record(function, parameters, points, expanding)


def _repeated(
    shared: Sequence[int], repeating: Callable[[Expanding], tuple[Run, Run] | None]
) -> tuple[Expanding, tuple[Run, Run] | None]:
    """Return how shared sites can be repeated for each point, and the runs in which they are.

    With how many axes behind that of the points a result can take the place of the shared one
    depends on what it meets further on, so it is tried: for all alike, or else one by one.
    """
    for axes in range(MAX_AXES):
        expanding: Expanding = dict.fromkeys(shared, axes)
        runs = repeating(expanding)
        if runs is not None:
            return expanding, runs

    # Of sites that cannot be repeated the parameters have no rule.
    expanding = {}
    for site in shared:
        for axes in range(MAX_AXES):
            if repeating({site: axes}) is not None:
                expanding[site] = axes
                break
    return expanding, repeating(expanding) if expanding else None


def shared_sites(several: Run, single: Run) -> list[int]:
    """Return the numbers of sites that are the same at several points as at one."""
    sites = several[1].sites
    at_one = single[1].sites
    if len(sites) != len(at_one):
        return []
    shared = []
    # Of equal sizes at one point and at several there are no points in it.
    for place, (site, alone) in enumerate(zip(sites, at_one, strict=True)):
        if all(map(is_shared, site.shapes, alone.shapes)):
            shared.append(place)
    return shared


def places_of(several: Run, single: Run) -> tuple[Place, ...]:
    """Return where each site has its points, from a run at several points and one at the first."""
    value, recorder = several
    _, at_one = single
    places = []
    # A function that does other things at several points than at one is not followed.
    is_alike = len(recorder.sites) == len(at_one.sites)
    for number, site in enumerate(recorder.sites):
        arrangements = None
        shapes = site.shapes
        if is_alike and site.kinds == at_one.sites[number].kinds:
            alone = at_one.sites[number]
            arrangements = arrangements_of(site, alone, len(value))
            shapes = alone.shapes
        places.append(Place(site.kinds, shapes, arrangements))
    return tuple(places)


def arrangements_of(site: Site, alone: Site, n: int) -> tuple[Arrangement, ...] | None:
    """Return where n points are in a site's sources and result, or None if that is not known."""
    arrangements = []
    for several, single in zip(site.sources, alone.sources, strict=True):
        arrangement = arrangement_of(several, single, n)
        if arrangement is None:
            return None
        arrangements.append(arrangement)

    # The result has the order of what it is made of.
    orders = {a.points_first for a in arrangements if a.entries > 1}
    axes = [k for k in range(len(site.target)) if site.target[k] != alone.target[k]]
    if len(orders) > 1 or len(axes) != 1 or len(site.target) != len(alone.target):
        return None
    # One point has as many entries on the axis as there are positions on it.
    (axis,) = axes
    entries = alone.target[axis]
    if site.target[axis] != n * entries or (entries > 1 and not orders):
        return None
    points_first = orders.pop() if orders else True
    return (*arrangements, Arrangement(axis, entries, points_first))


def recording_of(plan: Plan, run: Run, parameters: Parameters) -> Recording:
    """Return the calls of a run that are all there is for their parameters, and the others."""
    value, recorder = run
    outside = set(recorder.outside)
    arranged: list[Call] = []
    is_plain = not plan.expanding
    n_sites = len(recorder.sites)
    if n_sites != len(plan.places):
        places: Sequence[Place | None] = [None] * n_sites
    else:
        places = plan.places
    for place, site in zip(places, recorder.sites, strict=True):
        calls = None if place is None else place.calls(site)
        # Without its points one use of a parameter spoils its rows.
        if calls is None:
            outside |= site.names
            continue
        is_plain &= all(call.arrangement is None for call in calls)
        arranged.extend(calls)

    # A parameter has rows by layers only if all of its uses have.
    kept = []
    for call in arranged:
        weight = None if call.weight in outside else call.weight
        bias = None if call.bias in outside else call.bias
        if weight or bias:
            kept.append(replace(call, weight=weight, bias=bias))
    return Recording(
        value,
        kept,
        sorted(outside),
        recorder.is_general or value.ndim != 2,
        recorder.recurrent,
        is_plain,
    )


def _check_uncoupled(
    function: Callable[..., Tensor], parameters: Parameters, points: Points
) -> None:
    """Raise :class:`whence.coupling.CoupledPoints` if a function couples its points."""

    def values(tensors: Mapping[str, Tensor], rows: Sequence[int]) -> Tensor:
        with torch.no_grad():
            return function(tensors, points[torch.tensor(rows)]).detach()

    what = getattr(function, "__qualname__", "the residual")
    check_uncoupled(
        what,
        values,
        moved(parameters.tensors()),
        len(points),
        "Write it as a function of each point alone.",
        random_advice="such as dropout, so that it has no derivative to speak of: call "
        "network.eval() first",
    )
