"""The optimizers side by side: error at equal time, a step over its algebra, memory.

``python -m benchmarks.optimizers``: burgers and helmholtz, hard constraints, 3 × 20 tanh, the same
fixed points and first network for all, one thread. First the relative L2 error after
``--seconds`` of training, with the loss and the number of steps. Then the least time of a step,
whose first trial succeeds, over that of the linear algebra and the derivatives which it cannot do
without; of line searches, as many gradients as they took. Then the peak memory of a primal
Gauss–Newton step by the number of points. Last, for the dense quasi-Newton methods on burgers, the
loss after 1500 steps on 1000 fixed points with the gradients taken, and the error with 4000 points
redrawn by their residual every 500 steps where H is kept, and where it is restarted.

``--parts errors steps memory quasi_newton`` and ``--optimizers NAME ...`` measure a part.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

import whence as wh
from benchmarks import _measure
from benchmarks._measure import Row
from whence import pinn
from whence.damped_systems import PrimalSystem
from whence.evaluator import Eager, Terms
from whence.jacobian import Jacobian
from whence.parameters import Parameters
from whence.pinn.optimizers import nncg
from whence.pinn.optimizers.soap import optimizer_class
from whence.triangular import Triangle

PROBLEMS = ("burgers", "helmholtz")
LAYERS = [2, 20, 20, 20, 1]
POINTS = 1500
NEVER = 10**9
STEP_BAR, FLAT_BAR = 1.3, 1.1
MEMORY_POINTS = (10_000, 100_000, 1_000_000)
SETTLING, TIMED = 15, 15
"""Steps before a step is timed, and timed ones."""
PARTS = ("errors", "steps", "memory", "quasi_newton")
RANK = 60

OPTIMIZERS: dict[str, Any] = {
    "gauss_newton": pinn.GaussNewton(NEVER),
    "gauss_newton acceleration": pinn.GaussNewton(NEVER, acceleration=True),
    "gauss_newton momentum 0.5": pinn.GaussNewton(NEVER, momentum=0.5),
    "gauss_newton momentum 0.9": pinn.GaussNewton(NEVER, momentum=0.9),
    "gauss_newton ratio 0.5": pinn.GaussNewton(NEVER, damping_rule="ratio"),
    "gauss_newton ratio 0.75": pinn.GaussNewton(
        NEVER, damping_rule="ratio", target_ratio=0.75
    ),
    "gauss_newton sketched": pinn.GaussNewton(
        NEVER, sketch_rows=1000, sketch_columns=460
    ),
    "varpro": pinn.VarPro(NEVER),
    "ssbroyden": pinn.SSBroyden(NEVER),
    "ssbfgs": pinn.SSBFGS(NEVER),
    "bfgs": pinn.BFGS(NEVER),
    "nncg": pinn.NNCG(NEVER),
    "soap": pinn.SOAP(NEVER),
    "adam": pinn.Adam(NEVER),
    "lbfgs": pinn.LBFGS(NEVER),
}
SCHEDULES: dict[str, Any] = {
    **OPTIMIZERS,
    # As its authors use it: from where L-BFGS has come to.
    "lbfgs, then nncg": [pinn.LBFGS(500), pinn.NNCG(NEVER)],
}


def objective_of(name: str, points: int, seed: int) -> wh.Objective:
    """Return a problem's objective with the small network."""
    problem = pinn.zoo.load(name)
    network = pinn.MLP(LAYERS, seed=seed)
    return problem.objective(network, problem.sample(points, seed=seed))


# --- errors -------------------------------------------------------------------------------------


def errors(given: argparse.Namespace) -> list[Row]:
    """Return the error of every optimizer after the same time."""
    rows = []
    for problem in given.problems:
        for name in given.optimizers:
            result = pinn.train(
                pinn.zoo.load(problem),
                pinn.MLP(LAYERS, seed=given.seed),
                points=given.points,
                schedule=SCHEDULES[name],
                seed=given.seed,
                max_seconds=given.seconds,
                threads=1,
                progress=False,
            )
            summary = result.summary
            error = summary["relative_l2"]
            last = result.history[-1]
            detail = (
                f"{summary['iterations']} steps in {last['seconds']:.0f} s, loss "
                f"{min(result.history['loss']):.1e}"
            )
            _measure.say(f"{problem}, {name}: {error:.2e}, {detail}")
            what = f"{problem}, {name}: relative L2 error"
            rows.append(Row(what, error, "", detail))
    return rows


# --- a step over its algebra --------------------------------------------------------------------

Work = Callable[[], object]


class Counting(Eager):
    """Computes losses and gradients, and counts them."""

    gradients = 0

    def loss_and_gradient(
        self, parameters: Parameters, terms: Terms
    ) -> tuple[float, Tensor]:
        """Return L(θ) and ∇L(θ)."""
        self.gradients += 1
        return super().loss_and_gradient(parameters, terms)


def by_gradient(
    name: str, objective: wh.Objective, optimizer: Any
) -> tuple[float, float]:
    """Return the seconds of a step, and of its gradients and update alone."""
    counting = Counting()
    objective = objective.with_evaluator(counting)
    stepper = optimizer.start(objective.parameters)
    stepper.advance(objective, SETTLING)
    update = update_alone(name, objective)
    wholes, alones = [], []
    for _ in range(TIMED):
        counting.gradients = 0
        seconds, progress = _measure.once(
            lambda: stepper.advance(objective, optimizer.chunk)
        )
        count, taken = counting.gradients, max(progress.iterations, 1)

        def alone(count: int = count, taken: int = taken) -> None:
            for _ in range(count):
                objective.loss_and_gradient()
            for _ in range(taken):
                update()

        wholes.append(seconds / taken)
        alones.append(_measure.once(alone)[0] / taken)
    return statistics.median(wholes), statistics.median(alones)


def update_alone(name: str, objective: wh.Objective) -> Work:
    """Return the update of the package or of H that makes a step of a gradient."""
    theta = objective.parameters.vector()
    _, gradient = objective.loss_and_gradient()
    if name == "adam":
        parameter = torch.nn.Parameter(theta)
        parameter.grad = gradient
        return torch.optim.Adam([parameter]).step
    if name == "soap":
        slopes = objective.parameters.unflatten(gradient)
        parts = []
        for part_name, part in objective.parameters.unflatten(theta).items():
            parts.append(torch.nn.Parameter(part.clone()))
            parts[-1].grad = slopes[part_name]
        return optimizer_class()(parts, weight_decay=0.0).step
    if name == "lbfgs":
        # Two passes over the 100 pairs that are kept.
        table = torch.randn(200, len(theta), dtype=theta.dtype)
        return lambda: table.T @ (table @ gradient)

    # One product with H, and one update of rank two.
    matrix = torch.eye(len(theta), dtype=theta.dtype)
    pair = torch.stack([theta, gradient], dim=1)

    def update() -> None:
        image = matrix @ gradient
        matrix.addmm_(pair, pair.T, alpha=1e-12 * float(image[0] > 0))

    return update


def gauss_newton_algebra(options: pinn.GaussNewton, objective: wh.Objective) -> Work:
    """Return Jacobian, ``JᵀJ`` or ``JJᵀ`` and factor, or the triangle of the sketch."""
    zero = torch.zeros_like(objective.parameters.vector())
    drawn = options.sketch(0)

    def solved() -> Tensor:
        jacobian = Jacobian(objective, scaled=True)
        if drawn is not None:
            sketch = drawn.draw(jacobian.shape, zero)
            rows, right = jacobian.system()
            [(small, right)] = sketch.compressed([(rows, right)])
            triangle = Triangle.of_rows(small, right)
            return sketch.lift(triangle.damped(1e-6))
        system = PrimalSystem(objective, 0.0, zero)
        step = system.solve(1e-3 * system.mean_diagonal)
        assert step is not None
        return step.delta

    def work() -> None:
        delta = solved()
        if options.acceleration:
            jacobian = Jacobian(objective, scaled=True)
            jacobian.rmatvec(jacobian.second_derivative(delta))

    return work


def varpro_algebra(objective: wh.Objective) -> Work:
    """Return the triangle of J, one damped solve, and the triangle of the last layer's columns."""
    last = wh.Objective(
        objective.network,
        objective.terms.values(),
        select="linears.3.*",
        space=objective.space,
    )

    def work() -> None:
        Triangle.of_objective(objective).damped(1e-6)
        Triangle.of_objective(last).least_squares(1e-13)

    return work


class CountingHessian(wh.Hessian):
    """The Hessian, with the number of its products."""

    products = 0

    def matvec(self, vector: Tensor) -> Tensor:
        """Return ``A v``."""
        CountingHessian.products += 1
        return super().matvec(vector)


def nncg_step(objective: wh.Objective) -> tuple[float, float]:
    """Return the seconds of steps, and of their products with H and one gradient a step alone."""
    stepper = replace(OPTIMIZERS["nncg"], rank=RANK).start(objective.parameters)
    stepper.advance(objective, 1)
    _, gradient = objective.loss_and_gradient()
    wholes, alones = [], []
    # In turn; as many steps as do not renew the preconditioner.
    for _ in range(TIMED):
        nncg.Hessian = CountingHessian  # type: ignore[misc]
        CountingHessian.products = 0
        wholes.append(_measure.once(lambda: stepper.advance(objective, 1))[0])
        nncg.Hessian = wh.Hessian  # type: ignore[misc]
        count = CountingHessian.products

        def alone(count: int = count) -> None:
            hessian = wh.Hessian(objective)
            for _ in range(count):
                hessian.matvec(gradient)
            objective.loss_and_gradient()

        alones.append(_measure.once(alone)[0])
    return statistics.median(wholes), statistics.median(alones)


def step_of(name: str, given: argparse.Namespace) -> tuple[float, float]:
    """Return the seconds of a step, and of its algebra alone."""
    objective = objective_of("burgers", given.points, given.seed)
    if name == "nncg":
        return nncg_step(objective)

    options = OPTIMIZERS[name]
    if options.by_gradient:
        return by_gradient(name, objective, options)

    stepper = options.start(objective.parameters)
    stepper.advance(objective, SETTLING)
    if isinstance(options, pinn.GaussNewton):
        work = gauss_newton_algebra(options, objective)
    else:
        work = varpro_algebra(objective)
    # In turn, so that what slows the machine for a while slows both.
    wholes, alones = [], []
    for _ in range(TIMED):
        wholes.append(_measure.once(lambda: stepper.advance(objective, 1))[0])
        alones.append(_measure.once(work)[0])
    return min(wholes), min(alones)


def steps(given: argparse.Namespace) -> list[Row]:
    """Return for every optimizer a step over its algebra."""
    rows = []
    for name in given.optimizers:
        if name not in OPTIMIZERS:
            continue
        whole, alone = step_of(name, given)
        detail = f"{1e3 * whole:.3g} ms against {1e3 * alone:.3g} ms"
        _measure.say(f"{name}: {whole / alone:.2f}, {detail}")
        what = f"{name}: a step over its algebra"
        rows.append(Row(what, whole / alone, "x", detail, most=STEP_BAR))
    return rows


# --- memory -------------------------------------------------------------------------------------


def _child(points: int) -> None:
    """Take a primal Gauss–Newton step and print the peak memory that it added."""
    torch.set_num_threads(1)
    objective = objective_of("burgers", points, 0)
    before = _measure.peak_bytes()
    stepper = pinn.GaussNewton(1, form="primal").start(objective.parameters)
    seconds, _ = _measure.once(lambda: stepper.advance(objective, 1))
    peak = _measure.peak_bytes()
    print(json.dumps({"bytes": peak, "before": before, "seconds": seconds}))


def memory(given: argparse.Namespace) -> list[Row]:
    """Return the peak memory of a process by the number of points."""
    rows = []
    first = None
    for points in MEMORY_POINTS[: 2 if given.quick else 3]:
        record = _measure.child("benchmarks.optimizers", "--child", str(points))
        first = first or record["bytes"]
        ratio = record["bytes"] / first
        detail = (
            f"{record['bytes'] / 2**20:.0f} MiB with libraries, "
            f"{record['before'] / 2**20:.0f} before the step; {record['seconds']:.3g} s"
        )
        _measure.say(f"{points} points: {detail}")
        what = f"gauss_newton, primal, {points:,} points: peak memory"
        rows.append(
            Row(what, ratio, f"× that of {MEMORY_POINTS[0]:,}", detail, most=FLAT_BAR)
        )
    return rows


# --- quasi-Newton -------------------------------------------------------------------------------


def fixed_points(given: argparse.Namespace) -> list[Row]:
    """Return the loss after the same number of steps on fixed points, and the gradients taken."""
    rows = []
    count = 60 if given.quick else 1500
    for name in ("adam", "lbfgs", "bfgs", "ssbfgs", "ssbroyden"):
        counting = Counting()
        objective = objective_of("burgers", 1000, given.seed).with_evaluator(counting)
        stepper = OPTIMIZERS[name].start(objective.parameters)
        done, finished = 0, False
        while done < count and not finished:
            progress = stepper.advance(objective, min(20, count - done))
            done += progress.iterations
            finished = progress.finished
        loss = float(objective.loss())
        what = f"burgers, 1000 fixed points, {name}: loss after {done} steps"
        detail = f"{counting.gradients} gradients"
        _measure.say(f"{what}: {loss:.1e}, {detail}")
        rows.append(Row(what, loss, "", detail))
    return rows


def redrawn_points(given: argparse.Namespace) -> list[Row]:
    """Return the error where H is kept over new points, and where it is restarted."""
    rows = []
    count = 60 if given.quick else 2000
    for on_resample in ("keep", "restart"):
        result = pinn.train(
            pinn.zoo.load("burgers"),
            pinn.MLP(LAYERS, seed=given.seed),
            points=4000,
            schedule=pinn.SSBroyden(count, on_resample=on_resample),
            resample=pinn.Resample(
                pinn.ResidualScore(),
                pinn.Proportional(k=1, c=1),
                n=None,
                update="replace",
                every=500,
            ),
            seed=given.seed,
            threads=1,
            progress=False,
        )
        error = result.summary["relative_l2"]
        seconds = result.history[-1]["seconds"]
        what = (
            f"burgers, 4000 redrawn points, ssbroyden {on_resample}: relative L2 error"
        )
        detail = f"{count} steps in {seconds:.0f} s, seed {given.seed}"
        _measure.say(f"{what}: {error:.1e}, {detail}")
        rows.append(Row(what, error, "", detail))
    return rows


def quasi_newton(given: argparse.Namespace) -> list[Row]:
    """Return both comparisons of the quasi-Newton methods."""
    return fixed_points(given) + redrawn_points(given)


def measure(given: argparse.Namespace) -> list[Row]:
    """Return the rows of all parts that are asked for."""
    measures = {
        "errors": errors,
        "steps": steps,
        "memory": memory,
        "quasi_newton": quasi_newton,
    }
    rows = []
    for part in given.parts:
        rows += measures[part](given)
    return rows


def main() -> None:
    """Measure and print."""
    if "--child" in sys.argv:
        _child(int(sys.argv[sys.argv.index("--child") + 1]))
        return
    parser = _measure.parser(__doc__)
    parser.set_defaults(threads=1)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--problems", nargs="+", choices=PROBLEMS, default=PROBLEMS)
    parser.add_argument(
        "--optimizers", nargs="+", choices=SCHEDULES, default=list(SCHEDULES)
    )
    parser.add_argument("--seconds", type=float, help="of each training (60)")
    parser.add_argument("--points", type=int, default=POINTS)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    given.seconds = given.seconds or (2.0 if given.quick else 60.0)
    _measure.run(given, lambda: measure(given))


if __name__ == "__main__":
    main()
