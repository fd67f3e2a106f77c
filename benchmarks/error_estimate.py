"""How well one Gauss–Newton step at fresh points predicts the error of the solution.

``python -m benchmarks.error_estimate`` trains the networks of :mod:`benchmarks.ablation` for
``--steps`` steps on points redrawn by residual and prints, for several numbers of fresh points and
dampings, the predicted change ``Δu`` beside the true error ``u_ref − u`` on other points: the ratio
of norms and the cosine between both. One thread, one seed.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.func import jvp

from benchmarks import _measure
from benchmarks.ablation import ACTIVATIONS, METHODS, POINTS, PROBLEMS, WIDTHS
from whence import pinn
from whence.objective import Objective

PLACES = 2000
SETTINGS = ((1000, 1e-6), (1000, 1e-9), (1000, 1e-12), (500, 1e-12), (250, 1e-12))
"""Fresh points and relative damping of an estimate."""


def trained(problem: pinn.Problem, name: str, steps: int, seed: int) -> pinn.Result:
    """Return a run of so many steps by the residual."""
    return pinn.train(
        problem,
        pinn.MLP([2, *WIDTHS, len(problem.outputs)], ACTIVATIONS[name], seed=seed),
        points=POINTS,
        schedule=pinn.GaussNewton(steps),
        resample=METHODS["residual"].resampler("replace"),
        validation=1000,
        seed=seed,
        compile=False,
        progress=False,
    )


def predicted_change(
    objective: Objective, places: Tensor, n: int, damping: float
) -> Tensor:
    """Return Δu of all outputs at some places, (n, outputs)."""
    score = pinn.ErrorInfluenceScore(n_test=n, estimate_damping=damping)
    first = next(iter(objective.terms))
    step = score.predicted_step(objective, {first: objective.locations(first)})
    fields = objective.fields(objective.outputs)
    parameters = objective.parameters

    def outputs(vector: Tensor) -> Tensor:
        return fields(parameters.substituted(vector), places)

    # J_u Δθ, all in one pass.
    change: Tensor = jvp(outputs, (parameters.vector(),), (step,))[1]
    return change.detach()


def lines(name: str, steps: int, seed: int) -> list[list[str]]:
    """Return the rows of one problem."""
    problem = pinn.zoo.load(name)
    result = trained(problem, name, steps, seed)
    (places,) = problem.sample(PLACES, seed=10_000 + seed).values()
    values = problem.evaluate(result.network, places, tuple(problem.outputs))
    error = problem.reference(places) - values.detach()

    rows = []
    for n, damping in SETTINGS:
        change = predicted_change(result.objective, places, n, damping)
        ratio = float(change.norm() / error.norm())
        cosine = float((change * error).sum() / (change.norm() * error.norm()))
        row = [name, f"{result.summary['relative_l2']:.1e}", str(n), f"{damping:.0e}"]
        rows.append([*row, f"{ratio:.3f}", f"{cosine:.3f}"])
    return rows


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line, train, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("problems", nargs="*", default=list(PROBLEMS), metavar="PROBLEM")
    add("--steps", type=int, default=200)
    add("--seed", type=int, default=0)
    given = parser.parse_args(arguments)

    torch.set_num_threads(1)
    rows = []
    for name in given.problems:
        rows += lines(name, given.steps, given.seed)
    print(
        _measure.table(
            ["problem", "error", "fresh points", "damping", "‖Δu‖/‖e‖", "cosine"], rows
        )
    )


if __name__ == "__main__":
    main()
