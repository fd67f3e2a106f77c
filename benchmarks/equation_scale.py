"""Weights found once from the equations' scale, beside weights of 1 and weights that are renewed.

``python -m benchmarks.equation_scale`` trains soft-constrained problems by Gauss–Newton for the
same CPU seconds of one thread each, in which weighting counts, and prints the relative L2 errors at
the end by seed, with the steps taken. ``--widths 20 20 20`` trains a small network on all problems
in place of each problem's own.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import torch

from benchmarks import _measure
from benchmarks.ablation import ACTIVATIONS, Watch
from whence import pinn

PROBLEMS = ("wave", "drift_diffusion", "helmholtz")
SEEDS = (0, 1)
SECONDS = 20.0
POINTS, CONDITION_POINTS = 500, 50
NETWORKS = 10
"""Random networks over which residuals are averaged."""

Kernel = pinn.NeuralTangentKernel
RANDOM = "residuals of random networks"
"""One over the mean loss of each term, of networks that are not trained."""
WEIGHTINGS: dict[str, pinn.weighting.Weighting | None] = {
    "weights of 1": None,
    'ntk, "mean_trace", once': Kernel(estimate="mean_trace", once=True),
    'ntk, "trace", once': Kernel(estimate="trace", once=True),
    'ntk, "mean_trace", every 20': Kernel(
        alpha=0.0, estimate="mean_trace", update_every=20
    ),
    RANDOM: None,  # depends on the problem
}


def network_of(
    problem: pinn.Problem, widths: Sequence[int], seed: int
) -> torch.nn.Module:
    """Return the problem's own network, or one of these widths."""
    if not widths:
        return problem.network(seed=seed)

    sizes = [len(problem.coordinates), *widths, len(problem.outputs)]
    activation = ACTIVATIONS.get(problem.name, "tanh")
    return pinn.MLP(sizes, activation, seed=seed)


def random_scale(
    problem: pinn.Problem, widths: Sequence[int], seed: int, counts: dict[str, int]
) -> pinn.Fixed:
    """Return weights of one over each term's mean loss of random networks; an equation's is 1."""
    points = problem.sample(counts, seed=seed)
    totals = dict.fromkeys(problem.terms, 0.0)
    for k in range(NETWORKS):
        network = network_of(problem, widths, 1000 * (seed + 1) + k)
        losses = problem.objective(network, points).term_losses()
        for name, loss in losses.items():
            totals[name] += loss

    first = totals[problem.terms[0]]
    return pinn.Fixed({name: first / total for name, total in totals.items()})


def train(
    name: str, weighting: str, seed: int, given: argparse.Namespace
) -> tuple[float, int]:
    """Return the error at the end and the steps of one run."""
    problem = pinn.zoo.load(name, "soft")
    counts = dict.fromkeys(problem.terms, CONDITION_POINTS)
    counts |= dict.fromkeys(problem.equations, POINTS)

    chosen = WEIGHTINGS[weighting]
    if weighting == RANDOM:
        chosen = random_scale(problem, given.widths, seed, counts)

    result = pinn.train(
        problem,
        network_of(problem, given.widths, seed),
        points=counts,
        schedule=pinn.GaussNewton(10**6),
        weighting=chosen,
        # Nothing is measured in training.
        observers=[Watch(lambda objective: 0.0, given.seconds)],
        keep="last",
        seed=seed,
        compile=False,
        progress=False,
    )
    steps = result.history[-1]["iteration"]
    return result.summary["relative_l2"], steps


def main() -> None:
    """Train all, print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("problems", nargs="*", default=list(PROBLEMS), metavar="PROBLEM")
    add("--seeds", type=int, nargs="+", default=list(SEEDS))
    add("--weightings", nargs="+", choices=WEIGHTINGS, default=list(WEIGHTINGS))
    add("--seconds", type=float, default=SECONDS, help="CPU seconds of a run")
    add("--widths", type=int, nargs="*", default=[], help="of a network for all")
    given = parser.parse_args()

    torch.set_num_threads(1)
    lines = []
    for weighting in given.weightings:
        cells = []
        for name in given.problems:
            errors, steps = [], []
            for seed in given.seeds:
                error, taken = train(name, weighting, seed, given)
                errors.append(f"{error:.1e}")
                steps.append(str(taken))
            cells.append(f"{', '.join(errors)} ({', '.join(steps)})")
            _measure.say(f"{weighting}, {name}: {cells[-1]}")
        lines.append([weighting, *cells])
    print(_measure.table(["weights", *given.problems], lines))


if __name__ == "__main__":
    main()
