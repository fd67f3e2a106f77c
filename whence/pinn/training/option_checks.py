"""Checks of the options of training: each wrong one is an error before any work."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from whence import _checks
from whence._files import PathLike
from whence.objective import Objective
from whence.pinn.pde.problem import Problem
from whence.pinn.sampling.resamplers.base import Resampler
from whence.pinn.training.loop import Plan
from whence.pinn.training.observers import Observer
from whence.pinn.training.pinned import Pinned, pinned_rows
from whence.pinn.training.reweighting import WeightingLike
from whence.pinn.training.threads import Threads, check_threads


def check_points(
    problem: Problem, points: object, start: PathLike | None, pinned: Pinned | None
) -> None:
    """Raise ``ValueError`` unless points by term are of every term, and of no other."""
    pinned_rows(problem, pinned)  # which checks them
    if not isinstance(points, Mapping):
        return  # a count, which the problem checks

    for name in points:
        _checks.one_of("term", name, problem.terms)
    if start is not None:
        return  # that run has the points of the others

    for name in problem.terms:
        if name not in points and name not in problem.given_terms:
            raise ValueError(f"no points for term {name!r}: every term needs points")


def check_parts(
    resample: object, weighting: object, observers: Sequence[object], test: int
) -> None:
    """Raise ``TypeError`` for an object of the wrong kind, ``ValueError`` for a wrong number."""
    _checks.count("test", test, zero=True)
    # A class has the methods of its objects, so that it would pass for one of them.
    is_resampler = isinstance(resample, Resampler) and not isinstance(resample, type)
    if resample is not None and not is_resampler:
        raise TypeError(
            "resample must be an object such as pinn.Resample(pinn.InfluenceScore()), got "
            f"{resample!r}"
        )

    is_weighting = isinstance(weighting, WeightingLike) and not isinstance(
        weighting, type
    )
    if weighting is not None and not is_weighting:
        raise TypeError(
            "weighting must be an object such as pinn.NeuralTangentKernel(), or pinn.Fixed({...}) "
            f"for weights that stay, got {weighting!r}"
        )

    if not isinstance(observers, Sequence) or isinstance(observers, str):
        raise TypeError(
            f"observers must be a list such as [pinn.Stop(criterion)], got {observers!r}"
        )

    for observer in observers:
        if not isinstance(observer, Observer):
            raise TypeError(
                "observers must be objects such as pinn.Stop(criterion) or pinn.Spectra(), got "
                f"{observer!r}"
            )


def check_choices(
    keep: str,
    validation: int,
    max_seconds: float | None,
    seed: int,
    compile: object,
    device: str | torch.device,
    resume: bool,
    out: PathLike | None,
    dtype: object,
    threads: Threads,
) -> None:
    """Raise ``ValueError`` for a choice that there is not."""
    if dtype not in (torch.float32, torch.float64):
        raise ValueError(f"dtype must be torch.float64 or torch.float32, got {dtype!r}")
    _checks.one_of("keep", keep, ("best", "last"))
    _checks.count("validation", validation)
    if max_seconds is not None:
        _checks.positive("max_seconds", max_seconds)
    _checks.seed("seed", seed)
    _checks.one_of("compile", compile, ("auto", True, False))
    check_threads(threads)
    if resume and out is None:
        raise ValueError("resume=True needs out=, the folder of the run to go on with")

    try:
        # Only to make a tensor there tells whether a device can be used.
        places = [torch.empty(0, device=device), torch.empty(0)]
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"device {str(device)!r} cannot be used: {reason}") from None
    if any(tensor.is_meta for tensor in places):
        raise ValueError("on the device 'meta' tensors have no values: choose another")


def check_plan(plan: Plan, objective: Objective) -> None:
    """Raise ``ValueError`` if this objective could not be trained, or its points renewed, so."""
    # A stage that refuses these parameters says so before the stages ahead of it do their work.
    for stage in plan.schedule:
        stage.start(objective.parameters)

    if plan.resample is not None:
        plan.resample.check(objective)
    if plan.weighting is not None:
        plan.weighting.check(objective)
