"""Does an attribution predict what leaving a point out does? Points left out and really refitted.

``python -m benchmarks.leave_one_out``: networks with fewer parameters than residuals are trained
on diffusion and burgers, with a weight decay, to a gradient of norm 1e-10; 40 training
points are left out one by one and the network is refitted from the optimum, the drift of a refit
with all points taken off. The score is the Spearman correlation, over these points, of predicted
with real changes of u at a target, mean over 50 targets (Koh & Liang 2017; Naujoks et al., arXiv
2409.08958).

The flow around a cylinder is trained as its recipe does, with fewer features and points and a
weight decay of 1e-10, and refitted without single points of its nine terms. Of the small
networks the table also says how the error of a prediction falls where a point's weight changes by
ε in place of leaving.
"""

from __future__ import annotations

import time
import warnings
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

import whence as wh
from benchmarks import _measure
from benchmarks._measure import Row
from whence import pinn
from whence.attribution.groups import group_influence
from whence.evaluation import leave_one_out_scores
from whence.evaluation.ranks import spearman_rows
from whence.pinn.geometry.graded import graded
from whence.pinn.zoo import navier_stokes

BAR = 0.98
"""Least mean Spearman correlation of the exact influence."""
FLOW_BAR = 0.9
"""The same of the flow."""
SLOPE, SLOPE_MARGIN = 2.0, 0.1
REFIT = {"tolerance": 1e-13, "damping": 1e-13, "curvature": "hessian"}
"""How the nearest minimum is found, from where Gauss–Newton ends."""
GRADIENT = 1e-10
"""Largest norm of the gradient where training ends."""
TARGETS, LEFT_OUT = 50, 40
CHECKPOINTS, ADAM_STEPS, RATE = 5, 1000, 1e-3
"""Of the training before Gauss–Newton, which TracIn looks at."""
FLOW = "navier_stokes"
FLOW_FEATURES, FLOW_POINTS = 800, 1200
FLOW_DECAY = 1e-10
"""Weight decay of the flow: without one, directions that only rounding sees decide its minimum."""
FLOW_REFIT = {"tolerance": 1e-13, "damping": 1e-16}
EPSILONS = (0.4, 0.2, 0.1, 0.05, 0.025)
"""Shares of a point's weight that are taken away."""


@dataclass(frozen=True)
class Case:
    """A network of a problem: hidden widths, numbers of points and a weight decay.

    Without c of the penalty (c/2)‖θ‖² these networks have no minimum, only valleys.
    """

    widths: tuple[int, ...]
    points: int
    decay: float


CASES = {
    "diffusion": Case((8, 8), 500, 1e-4),
    "burgers": Case((8, 8), 2000, 1e-3),
}


@dataclass(frozen=True, eq=False)
class Trained:
    """A network at its optimum, and the states that it went through."""

    objective: wh.Objective
    checkpoints: list[dict[str, Tensor]]
    gradient_norm: float


def trained(name: str, case: Case, seed: int) -> Trained:
    """Return a network trained by Adam, whose states are kept, and then to its optimum."""
    problem = pinn.zoo.load(name)
    bounds = problem.domain.bounds.tolist()
    network = pinn.MLP([2, *case.widths, 1], bounds=bounds, seed=seed)
    points = problem.sample(case.points, seed=seed)
    objective = problem.objective(network, points).with_weight_decay(case.decay)

    stepper = pinn.Adam(ADAM_STEPS, lr=RATE).start(objective.parameters)
    checkpoints = []
    for _ in range(CHECKPOINTS):
        stepper.advance(objective, ADAM_STEPS // CHECKPOINTS)
        state = {name: t.clone() for name, t in network.state_dict().items()}
        checkpoints.append(state)

    pinn.GaussNewton(200).start(objective.parameters).advance(objective, 200)
    norm = settle(objective)
    return Trained(objective, checkpoints, norm)


def settle(objective: wh.Objective) -> float:
    """Move the network to its nearest minimum; return the norm of the gradient there."""
    result = wh.refit(objective, steps=300, **REFIT)
    objective.parameters.assign(result.theta)
    return result.gradient_norm


def predictions(
    case: Trained, output: wh.Output, chosen: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Return what each method predicts of leaving points out, (targets, points)."""
    objective = case.objective
    points = wh.TrainingPoints(chosen)
    arnoldi = wh.Arnoldi(50, complement=False)
    methods = {
        "influence, Hessian": wh.Influence(objective, curvature="hessian"),
        "influence, Gauss–Newton": wh.Influence(objective),
        "influence, Arnoldi-50 of the Hessian": wh.Influence(
            objective, curvature="hessian", solver=arnoldi
        ),
        "grad-dot": wh.GradDot(objective),
        "TracIn": wh.TracIn(objective, case.checkpoints, learning_rates=RATE),
    }
    predicted = {}
    for name, method in methods.items():
        predicted[name] = method.attribute(output, points).values

    # A point that is gone changes the curvature, too: the same algebra without linearizing in it.
    ((term, indices),) = chosen.items()
    singles = {str(index): {term: [int(index)]} for index in indices}
    exact = group_influence(methods["influence, Gauss–Newton"], output, singles)
    predicted["influence, Gauss–Newton, leaving exactly"] = exact.values
    return predicted


def scores(predicted: dict[str, np.ndarray], actual: np.ndarray) -> dict[str, float]:
    """Return the mean over targets of the Spearman correlation over points, by method."""
    return {
        name: float(np.nanmean(spearman_rows(actual, values)))
        for name, values in predicted.items()
    }


def reweighted(
    objective: wh.Objective, term: str, index: int, factor: float
) -> wh.Objective:
    """Return the objective with the weight of one point multiplied."""
    held = objective.terms[term]
    weights = torch.full((len(held.points),), float(held.weight), dtype=torch.float64)
    weights[index] *= factor
    return objective.with_weights({term: weights})


def slope(case: Trained, output: wh.Output, term: str, index: int) -> float:
    """Return how the error of a prediction falls with ε: the slope of log error by log ε.

    Where a point's weight becomes 1 − ε the answers change by ε times the influence of removing
    it, to first order, so that the error falls as ε².
    """
    objective = case.objective
    theta = objective.parameters.vector()
    exact = wh.Influence(objective, curvature="hessian", damping=0.0)
    whole = exact.attribute(output, wh.TrainingPoints({term: [index]})).values[:, 0]
    start = output.values(objective).numpy()

    errors = []
    for epsilon in EPSILONS:
        settle(reweighted(objective, term, index, 1 - epsilon))
        change = output.values(objective).numpy() - start
        errors.append(np.linalg.norm(change - epsilon * whole))
        objective.parameters.assign(theta)
    return float(np.polyfit(np.log(EPSILONS), np.log(errors), 1)[0])


def measured(name: str, seed: int) -> list[Row]:
    """Return the rows of a problem's table."""
    case = trained(name, CASES[name], seed)
    objective = case.objective
    term = next(iter(objective.terms))
    problem = pinn.zoo.load(name)
    output = wh.Output(problem.domain.sample(TARGETS, "random", seed=99))
    generator = np.random.default_rng(seed)
    n = len(objective.terms[term].points)
    chosen = {term: np.sort(generator.choice(n, LEFT_OUT, replace=False))}

    start = time.perf_counter()
    actual = wh.leave_one_out(
        objective, output, chosen, steps=60, progress=False, **REFIT
    )
    seconds = time.perf_counter() - start
    stability = actual.attrs["stability"]
    size = f"{objective.parameters.size} parameters, {n} points, seed {seed}"
    detail = (
        f"{size}; |∇L| = {case.gradient_norm:.1e}, stability {stability:.3f}, "
        f"refits {seconds:.0f} s"
    )
    _measure.say(f"{name}: {detail}")

    rows = [Row(f"{name}: gradient norm", case.gradient_norm, "", size, most=GRADIENT)]
    for method, score in scores(
        predictions(case, output, chosen), actual.values
    ).items():
        least = BAR if method == "influence, Hessian" else None
        rows.append(Row(f"{name}: {method}", score, "", detail, least=least))

    fallen = [slope(case, output, term, int(index)) for index in chosen[term][:3]]
    worst = max(abs(s - SLOPE) for s in fallen)
    listed = ", ".join(f"{s:.3f}" for s in fallen)
    rows.append(
        Row(f"{name}: slope of the error, less 2", worst, "", listed, most=SLOPE_MARGIN)
    )
    return rows


# --- the flow ------------------------------------------------------------------------------------


def flow(seed: int) -> wh.Objective:
    """Return the objective of the flow around a cylinder, trained by its recipe's features."""
    problem = pinn.zoo.load("navier_stokes")
    model = navier_stokes.FLOW
    edges = model.edges()
    inner, _ = graded(problem.domain, FLOW_POINTS, model.spacing)
    everywhere = torch.cat([inner, *edges.values()])
    points = dict.fromkeys(problem.equations, everywhere)
    for name in ("noslip_u", "noslip_v"):
        walls = problem.draw(name, 300, seed)
        points[name] = torch.cat([walls, edges["cylinder"]])
    for name in ("inflow_u", "inflow_v", "outflow_u", "outflow_v"):
        points[name] = problem.draw(name, 80, seed)

    network = model.features(seed, n=FLOW_FEATURES)
    objective = problem.objective(network, points, model.weights())
    for _ in range(12):
        # A stage ends where the loss falls no more: each step is one, as the last ones matter.
        pinn.VarPro(1).start(objective.parameters).advance(objective, 1)

    objective = objective.with_weight_decay(FLOW_DECAY)
    settled = wh.refit(objective, steps=40, **FLOW_REFIT)
    objective.parameters.assign(settled.theta)
    return objective


def flow_measured(seed: int) -> list[Row]:
    """Return the rows of the flow: single points of all terms left out."""
    objective = flow(seed)
    problem = pinn.zoo.load("navier_stokes")
    places = problem.domain.sample(TARGETS, "random", seed=99)
    outputs = [wh.Output(places, name) for name in problem.outputs]
    chosen = random_points(objective, seed)
    arnoldi = wh.Arnoldi(50, complement=False)
    methods = {
        "influence, Hessian": wh.Influence(objective, curvature="hessian", damping=0.0),
        "influence, Gauss–Newton": wh.Influence(objective, damping=0.0),
        "influence, Arnoldi-50 of the Hessian": wh.Influence(
            objective, curvature="hessian", solver=arnoldi
        ),
        "grad-dot": wh.GradDot(objective),
    }

    start = time.perf_counter()
    numbers = leave_one_out_scores(
        methods, outputs, chosen, steps=6, progress=False, **FLOW_REFIT
    )
    seconds = time.perf_counter() - start
    error = problem.relative_l2(objective.network, places)
    _, gradient = objective.loss_and_gradient()
    detail = (
        f"{objective.parameters.size} parameters, {objective.n_points} points of 9 terms, relative "
        f"L2 {float(error):.1e}, |∇L| = {float(gradient.norm()):.1e}, stability "
        f"{numbers.attrs['stability']:.3f}, refits {seconds:.0f} s"
    )
    rows = []
    for name in methods:
        score = float(np.nanmean(numbers.score.sel(predictor=name)))
        least = FLOW_BAR if name == "influence, Hessian" else None
        rows.append(Row(f"{FLOW}: {name}", score, "", detail, least=least))
    return rows


def random_points(objective: wh.Objective, seed: int) -> dict[str, np.ndarray]:
    """Return the indices of random points by term, of all terms alike."""
    owners = []
    for name, term in objective.terms.items():
        owners += [(name, index) for index in range(len(term.points))]
    generator = np.random.default_rng(seed)
    chosen: dict[str, list[int]] = {}
    for k in sorted(generator.choice(len(owners), LEFT_OUT, replace=False)):
        name, index = owners[k]
        chosen.setdefault(name, []).append(index)
    return {name: np.asarray(indices) for name, indices in chosen.items()}


def main() -> None:
    """Measure and print."""
    parser = _measure.parser(__doc__)
    problems = [*CASES, FLOW]
    parser.add_argument("--problems", nargs="+", default=problems, choices=problems)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    given = parser.parse_args()

    def measure() -> list[Row]:
        rows = []
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for name in given.problems:
                for seed in given.seeds:
                    rows += (
                        flow_measured(seed) if name == FLOW else measured(name, seed)
                    )
        return rows

    _measure.run(given, measure)


if __name__ == "__main__":
    main()
