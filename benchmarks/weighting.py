"""Weightings: what an update costs, and the same numbers as PINA's class.

``python -m benchmarks.weighting``: the traces of five terms with 2000 points, 3 × 32, beside one
training step, eager and compiled, and beside a loop of autograd over the residuals; the weights of
``NeuralTangentKernel(estimate="gradient_norm")`` beside those of PINA's class over ten steps of
Adam on the same losses; and the time of an iteration of Adam with each weighting of the study
(benchmarks/weighting_study.py), whose errors are in ``benchmarks/results/weighting_study.csv``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace

import torch
from torch import Tensor

from benchmarks import _measure
from benchmarks._measure import Row
from benchmarks.weighting_study import NONE, POINTS, weightings
from whence import pinn
from whence.compilation import Compiled
from whence.evaluator import Remembering
from whence.objective import Objective
from whence.pinn.optimizers import Stepper
from whence.pinn.training.reweighting import Reweighting

STEP_BAR, LOOP_BAR, PINA_BAR = 1.5, 5.0, 1e-6
UPDATES = 10


@dataclass(frozen=True)
class Sizes:
    """Points of five terms, iterations timed, repeats."""

    points: int = 2000
    iterations: int = 200
    repeats: int = 15
    loops: int = 2


QUICK = Sizes(50, 10, 2, 1)


def burgers(u: Tensor, u_t: Tensor, u_x: Tensor, u_xx: Tensor) -> Tensor:
    """Return the residual of Burgers' equation."""
    return u_t + u * u_x - 0.01 / math.pi * u_xx


def five_terms(points: int) -> Objective:
    """Return Burgers' equation with four conditions: half of the points in the equation."""
    problem = pinn.Problem(
        domain=pinn.Interval("x", -1, 1) * pinn.Interval("t", 0, 1),
        outputs=("u",),
        equations={"pde": burgers},
        conditions=(
            pinn.Initial(u=lambda x: -torch.sin(math.pi * x)),
            pinn.Dirichlet(u=0.0, on="x"),
            pinn.Periodic("u", along="x"),
            pinn.Periodic("u_x", along="x"),
        ),
    )
    counts = {
        name: points // 2 if name == "pde" else points // 8 for name in problem.terms
    }
    return problem.objective(
        pinn.MLP([2, 32, 32, 32, 1], seed=0), problem.sample(counts, seed=0)
    )


def autograd_loop(objective: Objective) -> dict[str, float]:
    """Return the traces by one backward pass for every residual, as scripts do."""
    live, found = objective.parameters.live(), {}
    chosen = [live[name] for name in objective.parameters.names]
    for name, term in objective.terms.items():
        total = 0.0
        for value in term.residual(live, term.points).flatten():
            grads = torch.autograd.grad(value, chosen, retain_graph=True, materialize_grads=True,
                                        allow_unused=True)  # fmt: skip
            total += sum(float(g.square().sum()) for g in grads)
        found[name] = total
    return found


def steps(
    stepper: Stepper, objective: Objective, iterations: int
) -> Callable[[], object]:
    """Return what takes so many steps."""
    return lambda: stepper.advance(objective, iterations)


def traces(sizes: Sizes) -> list[Row]:
    """Time an update by traces beside steps and the loop."""
    objective = five_terms(sizes.points)
    eager = objective.with_evaluator(Remembering())
    evaluation = Compiled(objective)
    evaluation.compile_traces(objective)
    compiled = objective.with_evaluator(evaluation)
    weighting = pinn.NeuralTangentKernel()
    adam = pinn.Adam(10**9)
    timings = _measure.paired(
        {
            "update": lambda: weighting.renew(objective),
            "compiled update": lambda: weighting.renew(compiled),
            "eager": steps(adam.start(objective.parameters), eager, 1),
            "plain": steps(adam.start(objective.parameters), objective, 1),
            "compiled": steps(adam.start(objective.parameters), compiled, 1),
        },
        3 * sizes.repeats,
    )
    loop = _measure.paired(
        {
            "loop": lambda: autograd_loop(objective),
            "update": lambda: weighting.renew(objective),
        },
        sizes.loops,
    )
    update = timings["update"].median
    faster = loop["loop"].median / loop["update"].median
    ours, theirs = (
        pinn.NeuralTangentKernel(alpha=0.0).renew(objective),
        autograd_loop(objective),
    )
    total = sum(theirs.values())
    error = max(abs(float(ours[n]) * theirs[n] / total - 1) for n in theirs)
    what, detail = "trace update, 5 terms", f"update {timings['update']}"
    return [
        Row(f"{what}: by an eager training step", update / timings["plain"].median, "×",
            f"{detail}, step {timings['plain']}", most=STEP_BAR),
        Row(f"{what}: compiled, by a compiled step",
            timings["compiled update"].median / timings["compiled"].median, "×",
            f"update {timings['compiled update']}, step {timings['compiled']}", most=STEP_BAR),
        Row(f"{what}: faster than a loop over residuals", faster, "×",
            f"loop {loop['loop']}", least=LOOP_BAR),
        Row(f"{what}: weights against the loop's, relative", error, "", most=1e-12),
    ]  # fmt: skip


def pina(sizes: Sizes) -> list[Row]:
    """Compare weights with PINA's class over ten steps of Adam."""
    from pina.weighting import NeuralTangentKernelWeighting

    alpha, worst = 0.5, 0.0
    objective = five_terms(sizes.points)
    parameters = list(objective.network.parameters())
    theirs = NeuralTangentKernelWeighting(alpha=alpha)
    trainer = SimpleNamespace(current_epoch=0)
    theirs._solver = SimpleNamespace(model=objective.network, trainer=trainer)
    ours = pinn.NeuralTangentKernel(alpha=alpha, estimate="gradient_norm")
    adam = torch.optim.Adam(parameters, lr=1e-3)
    for _ in range(UPDATES):
        losses = objective.losses(objective.parameters.live())
        total = theirs.aggregate(losses)
        weights = ours.update(losses, parameters)
        other = theirs.last_saved_weights()
        worst = max(
            worst, *(abs(float(weights[n]) / float(other[n]) - 1) for n in other)
        )
        adam.zero_grad()
        total.backward()
        adam.step()
    detail = f"largest relative difference in {UPDATES} updates"
    return [Row("gradient_norm against PINA's class", worst, "", detail, most=PINA_BAR)]


def iterations(sizes: Sizes) -> list[Row]:
    """Time Adam with each weighting of the study, compiled, on soft-constrained burgers."""
    problem = pinn.zoo.load("burgers", "soft")
    network = pinn.MLP([2, 32, 32, 32, 1], seed=0)
    counts = {name: POINTS if name == "pde" else POINTS // 10 for name in problem.terms}
    objective = problem.objective(network, problem.sample(counts, seed=0))
    objective = objective.with_evaluator(Compiled(objective))
    start = objective.parameters.vector()

    def run(make: Callable[[], object]) -> Callable[[], object]:
        def train() -> None:
            objective.parameters.assign(start)
            stepper, own, weighting = (
                pinn.Adam(10**9).start(objective.parameters),
                objective,
                make(),
            )
            if weighting is None:
                stepper.advance(own, sizes.iterations)
                return
            reweighting, done = Reweighting(weighting, objective), 0  # type: ignore[arg-type]
            while done < sizes.iterations:
                own = reweighting.renewed(own)
                steps = reweighting.steps_until_due(done)
                stepper.advance(own, steps)
                done += steps

        return train

    made = {name: run(make) for name, make in weightings(problem.terms).items()}
    timings = _measure.paired(made, sizes.repeats)
    none = timings[NONE].median
    return [
        Row(f"iteration of Adam, {name}", timing.median / none, "× none's",
            str(timing.per(sizes.iterations)))
        for name, timing in timings.items()
    ]  # fmt: skip


def main() -> None:
    """Measure and print."""
    given = _measure.parser(__doc__).parse_args()
    sizes = QUICK if given.quick else Sizes()
    _measure.run(given, lambda: traces(sizes) + pina(sizes) + iterations(sizes))


if __name__ == "__main__":
    main()
