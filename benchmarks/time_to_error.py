"""Seconds until the best error that was published is reached, beside DeepXDE.

``python -m benchmarks.time_to_error``: the best figures of the table "add" of arXiv 2506.16443
(relative L2 error after 200,000 iterations) are the targets. For each problem:

- whence by a recipe: the problem's best one, that for the paper's network (``--recipe
  burgers=own_network``), or any choice by its name, as ``whence train --recipe`` takes it
  (``burgers=slabs:tanh:20:500:0.1:1e-9``). Seconds are of the whole call, from drawing points to
  the result; a recipe of one training ends at the target, one in slabs of time at its end, as the
  error is known only then.
- DeepXDE by the published settings (``_deepxde_protocol.py``): seconds of a step of Adam and of
  L-BFGS, over one published round of 1000 each or more, after a warm-up; the 100,000 steps of each
  that were published, *projected* from these; and a real run, which ends at the target or, after
  whole rounds, beyond ``--limit`` seconds: if it is not there by then its seconds are a lower
  bound. What stands beside its steps, compilation, tests and the refinement of points, is left out.

Both compute in float64, by one thread (``--threads``), each after a warm-up; one seed.
``--parts whence`` measures whence alone and does without DeepXDE, ``--parts deepxde`` the other.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from benchmarks import _measure
from benchmarks._measure import Row
from whence import pinn
from whence.catalogue import PROBLEMS
from whence.pinn.training.automatic import recipe_of_choice
from whence.pinn.training.problem_file import ProblemFile
from whence.pinn.training.recipe import Recipe, features_recipe

if TYPE_CHECKING:
    from benchmarks._deepxde_protocol import Protocol, PublishedRun

BEST = "best"
"""The problem's own best recipe."""
OWN_NETWORK = "own_network"
"""The best one for the network of the paper."""
RECIPES = {
    "diffusion": BEST,
    "burgers": "slabs:tanh:20:300:0.1:1e-11",
    "allen_cahn": "slabs:tanh:20:250:0.1:1e-11",
    "wave": BEST,
    "drift_diffusion": BEST,
}
"""How whence trains each problem unless ``--recipe`` says otherwise."""
TARGETS = {
    "diffusion": 2.9e-5,
    "burgers": 6.5e-4,
    "allen_cahn": 2.5e-3,
    "wave": 3.7e-4,
    "drift_diffusion": 2.6e-3,
}
"""Best published relative L2 error of each problem (arXiv 2506.16443, "add")."""
TIMES_FASTER = 100
PARTS = ("whence", "deepxde")


@dataclass(frozen=True)
class Ours:
    """Seconds of whence's training, and the relative L2 error it came to."""

    seconds: float
    error: float
    choice: str


def whence(name: str, choice: str, target: float, seed: int) -> Ours:
    """Train a problem by a recipe, until the target where the error is known on the way."""
    problem = pinn.zoo.load(name)
    chosen = chosen_recipe(problem, choice)

    # As with DeepXDE, what is done once in a process is done before.
    small = features_recipe(problem, features=20, scale=1.0, points=100)
    _train(problem, small, target=0.0, seed=seed)
    seconds, result = _measure.once(lambda: _train(problem, chosen, target, seed))
    return Ours(seconds, result.summary["relative_l2"], choice)


def chosen_recipe(problem: pinn.Problem, choice: str) -> Recipe:
    """Return a recipe by its name, as ``whence train --recipe`` takes it."""
    if choice in (BEST, OWN_NETWORK):
        source = ProblemFile(problem.name, vars(PROBLEMS[problem.name]))
        return source.recipe(problem, own_network=choice == OWN_NETWORK)
    return recipe_of_choice(problem, choice)


def _train(
    problem: pinn.Problem, chosen: Recipe, target: float, seed: int
) -> pinn.Result:
    """Train by a recipe, and stop at the target if it is not in slabs."""
    network = None if chosen.network is None else chosen.network(seed)
    arguments: dict[str, Any] = {
        "points": chosen.points,
        "schedule": chosen.schedule,
        "weights": chosen.weights,
        "seed": seed,
        "max_seconds": chosen.max_seconds,
        "validation": chosen.validation,
        "progress": False,
    }
    if chosen.slabs is not None:
        return chosen.slabs.train(problem, network, **arguments)

    return pinn.train(
        problem,
        network,
        resample=chosen.resample,
        observers=[pinn.Stop(lambda row: row["relative_l2"] <= target)],
        **arguments,
    )


def rows_of_deepxde(what: str, protocol: Protocol, run: PublishedRun) -> list[Row]:
    """Return the seconds of its steps, of all published ones by these, and of the run."""
    rows = []
    for optimizer, steps in run.steps.items():
        if steps.count:
            detail = f"mean of {steps.count:,}, {protocol.points} points and more"
            label = f"{what}: DeepXDE, a step of {optimizer}"
            rows.append(Row(label, 1e3 * steps.each, "ms", detail))

    if run.is_whole:
        n_each = protocol.rounds * protocol.steps
        detail = f"{n_each:,} steps of each at these, not run"
        label = f"{what}: DeepXDE, the published {2 * n_each:,} iterations, projected"
        rows.append(Row(label, run.projected(protocol), "s", detail))

    detail = f"least error {run.error:.1e} in {run.iterations:,} iterations"
    label = f"{what}: DeepXDE, a run"
    rows.append(Row(label, run.seconds, "s", detail, beyond=not run.reached))
    return rows


def race(name: str, given: argparse.Namespace) -> list[Row]:
    """Return the rows of one problem."""
    target = TARGETS[name]
    what = f"{name} to {target:.1e}"
    rows = []

    ours = None
    if "whence" in given.parts:
        _measure.say(f"{name}: whence, recipe {given.recipes[name]}")
        ours = whence(name, given.recipes[name], target, given.seed)
        _measure.say(f"  {ours.error:.1e} in {ours.seconds:.3g} s")
        seconds = ours.seconds if ours.error <= target else None
        detail = f"recipe {ours.choice}, relative L2 error {ours.error:.1e}"
        rows.append(Row(f"{what}: whence", seconds, "s", detail))
    if "deepxde" not in given.parts:
        return rows

    # Not at the head: whence alone is measured without it.
    from benchmarks._deepxde_protocol import protocol_of, published_run

    _measure.say(f"{name}: DeepXDE")
    protocol = protocol_of(name)
    made = protocol
    if given.quick:
        made = replace(protocol, steps=20, check_every=10)
    theirs = published_run(name, target, given.seed, given.limit, made)
    _measure.say(f"  {theirs.error:.1e} in {theirs.seconds:.3g} s")
    rows += rows_of_deepxde(what, protocol, theirs)
    if ours is None:
        return rows

    label = f"{what}: sooner than the published iterations, projected"
    if ours.error > target:
        rows.append(Row(label, None, "x", least=TIMES_FASTER))
        return rows
    if theirs.is_whole:
        ratio = theirs.projected(protocol) / ours.seconds
        rows.append(Row(label, ratio, "x", least=TIMES_FASTER))
    ratio = theirs.seconds / ours.seconds
    label = f"{what}: sooner than the run"
    rows.append(Row(label, ratio, "x", beyond=not theirs.reached))
    return rows


def recipes_of(given: list[str]) -> dict[str, str]:
    """Return the recipe of each problem, those given as PROBLEM=CHOICE on top."""
    recipes = dict(RECIPES)
    for text in given:
        name, sign, choice = text.partition("=")
        if name not in RECIPES or not sign:
            raise SystemExit(
                f"--recipe takes PROBLEM=CHOICE with PROBLEM one of {', '.join(RECIPES)}, such as "
                f"wave=features:sin:16:600, got {text!r}"
            )
        recipes[name] = choice
    return recipes


def main() -> None:
    """Measure and print."""
    parser = _measure.parser(__doc__)
    parser.set_defaults(threads=1)
    parser.add_argument("--problems", nargs="+", choices=TARGETS)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--recipe", nargs="+", default=[], metavar="PROBLEM=CHOICE")
    parser.add_argument(
        "--limit", type=float, default=300.0, help="seconds of DeepXDE's run (300)"
    )
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    given.recipes = recipes_of(given.recipe)
    problems = given.problems or list(TARGETS)
    if given.quick:
        problems = given.problems or ["diffusion"]
        given.limit = 1.0

    def measure() -> list[Row]:
        return [row for name in problems for row in race(name, given)]

    _measure.run(given, measure)


if __name__ == "__main__":
    main()
