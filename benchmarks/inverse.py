"""Inverse problems: how good unknowns are beside the best estimate, and how their intervals cover.

``python -m benchmarks.inverse``: five problems, each solved for ``--sets`` simulated data sets. The
best estimate from the same data is least squares with the exact solution as the model. Printed for
each: the error of the unknown (root mean square over data sets, in standard errors of the best
estimate), its distance from the best estimate, how often its 95 % interval covers the truth, and
the interval's length beside the best one's. Then, for the first problem: the rank correlation of
each datum's influence with refits without it, and how often a planted bad sensor is named first.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import least_squares
from scipy.stats import norm, spearmanr
from torch import Tensor, nn

import whence as wh
from benchmarks import _measure
from benchmarks._measure import Row
from whence import pinn

Array = NDArray[np.float64]

SETS, BAD_SETS = 100, 20
MOST_ERRORS = 1.1
LEAST_COVERED = 0.90
LEAST_CORRELATION = 0.98
BAD = 6.0
"""By how many standard deviations the bad sensor is off."""


@dataclass(frozen=True)
class Case:
    """An inverse problem whose solution is known for every value of its parameters.

    ``model`` maps parameters (k,) to the measured values; ``wanted`` the same to what is judged.
    """

    name: str
    points: Array
    truth: tuple[float, ...]
    sigma: float
    model: Callable[[Array], Array]
    wanted: Callable[[Array], Array]
    problem: Callable[[Array], pinn.Problem]
    counts: dict[str, int]
    quantity: Callable[[], wh.Quantity]
    steps: int = 80

    def simulated(self, seed: int) -> Array:
        """Return measured values with noise."""
        noise = np.random.default_rng(seed).normal(size=len(self.points))
        return self.model(np.array(self.truth)) + self.sigma * noise

    def best(self, u: Array) -> tuple[Array, Array]:
        """Return what least squares finds of what is judged, and its standard errors."""
        start = np.array(self.truth)
        fit = least_squares(lambda p: (self.model(p) - u) / self.sigma, start)
        covariance = np.linalg.inv(fit.jac.T @ fit.jac)
        step = 1e-6
        slopes = []
        for k in range(len(start)):
            moved = fit.x.copy()
            moved[k] += step
            slopes.append((self.wanted(moved) - self.wanted(fit.x)) / step)
        slope = np.stack(slopes, axis=1)
        errors = np.sqrt(np.einsum("ij,jk,ik->i", slope, covariance, slope))
        return self.wanted(fit.x), errors

    def trained(self, u: Array) -> pinn.Result:
        """Return the problem solved with measured values."""
        problem = self.problem(u)
        network = pinn.MLP([problem.domain.dimension, 16, 16, 1], seed=0)
        return pinn.train(
            problem,
            network,
            points=self.counts,
            schedule=pinn.GaussNewton(self.steps),
            progress=False,
            validation=50,
            keep="last",
        )


# --- the five problems ---------------------------------------------------------------------------

TIMES = np.linspace(0.1, 2.0, 20)
PLACES = np.linspace(0.05, 0.95, 20)


def reaction() -> Case:
    """Return a scalar in the equation: y′ = −k y², y(0) = 1, so y = 1/(1 + kt)."""

    def problem(u: Array) -> pinn.Problem:
        return pinn.Problem(
            domain=pinn.Interval("t", 0, 2),
            outputs=("y",),
            equations={"ode": lambda y, y_t, k: y_t + k * y**2},
            ansatz=lambda t, y: 1 + t * y,
            conditions=[pinn.Data("sensors", TIMES[:, None], y=u, sigma=0.01)],
            unknowns={"k": pinn.Unknown(0.5, positive=True)},
        )

    return Case(
        "scalar in the equation (reaction rate)",
        TIMES,
        (1.7,),
        0.01,
        lambda p: 1 / (1 + p[0] * TIMES),
        lambda p: p[:1],
        problem,
        {"ode": 60},
        lambda: wh.UnknownValue("k"),
    )


def flux() -> Case:
    """Return a scalar in a condition: u″ = u/L², u′(0) = −C/(2D)."""
    length, diffusivity = 0.5, 0.3

    def model(p: Array) -> Array:
        x = PLACES / length
        slope = length / (2 * diffusivity)
        return np.asarray(p[1] * np.cosh(x) - p[0] * slope * np.sinh(x))

    def problem(u: Array) -> pinn.Problem:
        return pinn.Problem(
            domain=pinn.Interval("x", 0, 1),
            outputs=("u",),
            equations={"pde": lambda u, u_xx: u_xx - u / length**2},
            conditions=[
                pinn.Condition(
                    "flux",
                    on="x_min",
                    residual=lambda u_n, C: u_n - C / (2 * diffusivity),
                ),
                pinn.Data("sensors", PLACES[:, None], u=u, sigma=0.01),
            ],
            unknowns={"C": 0.5},
        )

    return Case(
        "scalar in a condition (flux)",
        PLACES,
        (1.15, 1.0),
        0.01,
        model,
        lambda p: p[:1],
        problem,
        {"pde": 60, "flux": 1},
        lambda: wh.UnknownValue("C"),
    )


class Quadratic(nn.Module):
    """A polynomial of degree two: what an unknown function is known to be."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 1, dtype=torch.float64)
        nn.init.zeros_(self.layer.weight)
        nn.init.zeros_(self.layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Return a + b x + c x²."""
        return self.layer(torch.cat([x, x**2], dim=-1))


def source() -> Case:
    """Return a function: u″ = f(x), u(0) = u(1) = 0, f a quadratic, judged at five places."""
    at = np.linspace(0.1, 0.9, 5)

    def model(p: Array) -> Array:
        x = PLACES
        # Solutions of u″ = 1, x, x² that vanish at both ends.
        parts = [(x**2 - x) / 2, (x**3 - x) / 6, (x**4 - x) / 12]
        return np.asarray(sum(c * part for c, part in zip(p, parts, strict=True)))

    def wanted(p: Array) -> Array:
        return np.asarray(p[0] + p[1] * at + p[2] * at**2)

    def problem(u: Array) -> pinn.Problem:
        return pinn.Problem(
            domain=pinn.Interval("x", 0, 1),
            outputs=("u",),
            equations={"pde": lambda u_xx, f: u_xx - f},
            ansatz=lambda x, u: x * (1 - x) * u,
            conditions=[pinn.Data("sensors", PLACES[:, None], u=u, sigma=0.003)],
            unknowns={"f": pinn.Field("f", of=("x",), network=Quadratic())},
        )

    return Case(
        "function (source term)",
        PLACES,
        (-2.0, 3.0, 1.0),
        0.003,
        model,
        wanted,
        problem,
        {"pde": 60},
        lambda: wh.Output(at[:, None], "f"),
    )


def initial_value() -> Case:
    """Return an initial value: heat, u(x, 0) = A sin πx, measured later."""
    rate = 0.05
    grid = np.array([(x, t) for t in (0.3, 0.6, 0.9) for x in np.linspace(0.1, 0.9, 7)])

    def model(p: Array) -> Array:
        decay = np.exp(-(math.pi**2) * rate * grid[:, 1])
        return np.asarray(p[0] * decay * np.sin(math.pi * grid[:, 0]))

    def problem(u: Array) -> pinn.Problem:
        return pinn.Problem(
            domain=pinn.Interval("x", 0, 1) * pinn.Interval("t", 0, 1),
            outputs=("u",),
            equations={"pde": lambda u_t, u_xx: u_t - rate * u_xx},
            ansatz=lambda x, t, u, A: A * torch.sin(math.pi * x) + x * (1 - x) * t * u,
            conditions=[pinn.Data("sensors", grid, u=u, sigma=0.01)],
            unknowns={"A": 1.0},
        )

    return Case(
        "initial value (amplitude)",
        grid,
        (2.0,),
        0.01,
        model,
        lambda p: p[:1],
        problem,
        {"pde": 150},
        lambda: wh.UnknownValue("A"),
    )


def oscillator() -> Case:
    """Return two scalars: y″ + c y′ + k y = 0, y(0) = 1, y′(0) = 0."""

    def model(p: Array) -> Array:
        damping, stiffness = p
        omega = math.sqrt(stiffness - damping**2 / 4)
        phase = omega * TIMES
        decay = np.exp(-damping * TIMES / 2)
        return np.asarray(
            decay * (np.cos(phase) + damping / (2 * omega) * np.sin(phase))
        )

    def problem(u: Array) -> pinn.Problem:
        return pinn.Problem(
            domain=pinn.Interval("t", 0, 2),
            outputs=("y",),
            equations={"ode": lambda y, y_t, y_tt, c, k: y_tt + c * y_t + k * y},
            ansatz=lambda t, y: 1 + t**2 * y,
            conditions=[pinn.Data("sensors", TIMES[:, None], y=u, sigma=0.01)],
            unknowns={"c": 0.3, "k": pinn.Unknown(5.0, positive=True)},
        )

    return Case(
        "two scalars (oscillator)",
        TIMES,
        (0.8, 9.0),
        0.01,
        model,
        lambda p: p,
        problem,
        {"ode": 80},
        lambda: wh.UnknownValue("c", "k"),
        steps=150,
    )


CASES = (reaction, flux, source, initial_value, oscillator)


# --- what is measured ----------------------------------------------------------------------------


def judged(case: Case, sets: int) -> list[Row]:
    """Return the rows of one problem."""
    truth = case.wanted(np.array(case.truth))
    reach = float(norm.ppf(0.975))
    from_truth, from_best, covered, lengths = [], [], [], []
    for seed in range(sets):
        u = case.simulated(seed)
        best, errors = case.best(u)
        result = case.trained(u)
        quantity = case.quantity()
        found = quantity.values(result.objective).numpy()
        ours = result.unknowns.standard_errors(quantity)

        from_truth.append((found - truth) / errors)
        from_best.append((found - best) / errors)
        covered.append(np.abs(found - truth) <= reach * ours)
        lengths.append(ours / errors)
    # The best estimate's own error, in its standard errors, on these very data sets.
    rms = float(np.sqrt(np.mean(np.square(from_truth))))
    ideal = float(
        np.sqrt(
            np.mean(
                [
                    np.square((case.best(u)[0] - truth) / case.best(u)[1])
                    for u in map(case.simulated, range(sets))
                ]
            )
        )
    )
    distance = float(np.sqrt(np.mean(np.square(from_best))))
    share = float(np.mean(covered, axis=0).min())
    _measure.say(f"  {case.name}: {rms:.3f} {distance:.3f} {share:.2f}")
    return [
        Row(
            f"{case.name}: error over that of the best estimate",
            rms / ideal,
            "",
            f"{sets} data sets; rms distance from the best {distance:.3f} standard errors",
            most=MOST_ERRORS,
        ),
        Row(
            f"{case.name}: 95 % intervals that cover",
            share,
            "",
            f"length {np.mean(lengths):.3f} of the best one's",
            least=LEAST_COVERED,
        ),
    ]


def influences(case: Case, sets: int) -> list[Row]:
    """Return how influences agree with refits, and how often a bad sensor is found first."""
    n = len(case.points)
    correlations = []
    for seed in range(min(sets, 3)):
        result = case.trained(case.simulated(seed))
        quantity = case.quantity()
        array = wh.Influence(result.objective).attribute(quantity)
        predicted = array.sel(term="sensors").values[0]
        refits = wh.leave_one_out(
            result.objective, quantity, {"sensors": list(range(n))}, steps=30
        ).values[0]
        correlations.append(float(spearmanr(predicted, refits).statistic))

    first = 0
    for seed in range(sets):
        u = case.simulated(1000 + seed)
        rng = np.random.default_rng(seed)
        bad = int(rng.integers(n))
        u[bad] += rng.choice([-1, 1]) * BAD * case.sigma
        table = case.trained(u).suspects("sensors")
        first += int(table["index"][0] == bad)
    return [
        Row(
            f"{case.name}: influence of each datum against refits, Spearman",
            min(correlations),
            "",
            f"least of {len(correlations)} data sets",
            least=LEAST_CORRELATION,
        ),
        Row(
            f"{case.name}: bad sensor ({BAD:g} σ) named first",
            first,
            f"of {sets}",
            least=math.ceil(0.95 * sets),
        ),
    ]


def main() -> None:
    """Measure and print the table."""
    parser = _measure.parser(__doc__)
    parser.add_argument("--sets", type=int, default=SETS, help="simulated data sets")
    given = parser.parse_args()
    sets = 3 if given.quick else given.sets
    bad_sets = 3 if given.quick else BAD_SETS

    def measure() -> list[Row]:
        rows = []
        for make in CASES:
            rows += judged(make(), sets)
        for make in (reaction, flux):
            rows += influences(make(), bad_sets)
        return rows

    _measure.run(given, measure)


if __name__ == "__main__":
    main()
