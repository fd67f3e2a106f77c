"""One training step: Adam beside DeepXDE, Gauss–Newton beside its algebra alone.

``python -m benchmarks.steps``: burgers, 3 × 32, 1000 points, hard constraints, and the residual of
the Navier–Stokes equations, 4 × 64, 2500 points: an Adam step, eager and compiled, against
``model.train`` of DeepXDE on the same network and points. Then a Gauss–Newton step on burgers, 2000
points, against its Jacobian, ``JJᵀ`` and Cholesky factor alone. Last the Navier–Stokes equations as
three terms at the same points, against one term that returns all three.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

import whence as wh
from benchmarks import _deepxde, _measure
from benchmarks._measure import Row, Timing
from whence import pinn
from whence.compilation import Compiled
from whence.symmetric_products import self_product

LEARNING_RATE = 1e-3
VISCOSITY = 0.05
NEVER = 10**9
EAGER_BAR, BURGERS_BAR, NAVIER_STOKES_BAR, GAUSS_NEWTON_BAR = 1.0, 2.0, 3.0, 1.3
SHARED_BAR = 1.15
SETTLING = 50
"""Gauss–Newton steps within which one is looked for whose first trial succeeds."""


@dataclass(frozen=True)
class Sizes:
    """Points, and steps a timed run: so many that DeepXDE's two tests a run do not count."""

    burgers: int = 1000
    burgers_steps: int = 100
    navier_stokes: int = 2500
    navier_stokes_steps: int = 50
    gauss_newton: int = 2000
    shared_gauss_newton: int = 300
    adam_repeats: int = 7
    repeats: int = 15


QUICK = Sizes(100, 3, 100, 2, 200, 50, adam_repeats=2, repeats=2)


def navier_stokes(
    u: Tensor,
    v: Tensor,
    u_x: Tensor,
    u_y: Tensor,
    v_x: Tensor,
    v_y: Tensor,
    p_x: Tensor,
    p_y: Tensor,
    u_xx: Tensor,
    u_yy: Tensor,
    v_xx: Tensor,
    v_yy: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the residuals of both momenta and of mass, stationary and incompressible."""
    return (
        u * u_x + v * u_y + p_x - VISCOSITY * (u_xx + u_yy),
        u * v_x + v * v_y + p_y - VISCOSITY * (v_xx + v_yy),
        u_x + v_y,
    )


def flow() -> pinn.Problem:
    """Return the Navier–Stokes problem on the unit square, its residual only."""
    return pinn.Problem(
        domain=pinn.Interval("x", 0, 1) * pinn.Interval("y", 0, 1),
        outputs=("u", "v", "p"),
        equations={"flow": navier_stokes},
    )


def momentum_x(
    u: Tensor,
    v: Tensor,
    u_x: Tensor,
    u_y: Tensor,
    p_x: Tensor,
    u_xx: Tensor,
    u_yy: Tensor,
) -> Tensor:
    """Return the residual of the momentum along x."""
    return u * u_x + v * u_y + p_x - VISCOSITY * (u_xx + u_yy)


def momentum_y(
    u: Tensor,
    v: Tensor,
    v_x: Tensor,
    v_y: Tensor,
    p_y: Tensor,
    v_xx: Tensor,
    v_yy: Tensor,
) -> Tensor:
    """Return the residual of the momentum along y."""
    return u * v_x + v * v_y + p_y - VISCOSITY * (v_xx + v_yy)


def continuity(u_x: Tensor, v_y: Tensor) -> Tensor:
    """Return the residual of mass."""
    return u_x + v_y


def flow_of_three_terms() -> pinn.Problem:
    """Return the Navier–Stokes problem with each of its equations a term."""
    return pinn.Problem(
        domain=flow().domain,
        outputs=("u", "v", "p"),
        equations={"x": momentum_x, "y": momentum_y, "mass": continuity},
    )


Steps = Callable[[int], object]
"""Takes so many steps."""


def adam_step(objective: wh.Objective, compiled: bool) -> Steps:
    """Return what takes Adam steps on the objective, eager or compiled."""
    if compiled:
        objective = objective.with_evaluator(Compiled(objective))
    stepper = pinn.Adam(NEVER, lr=LEARNING_RATE).start(objective.parameters)
    return lambda n: stepper.advance(objective, n)


def deepxde_step(problem: pinn.Problem, network: pinn.MLP, points: Tensor) -> Steps:
    """Return what takes Adam steps under DeepXDE."""
    model = _deepxde.model(problem, network, points)
    model.compile("adam", lr=LEARNING_RATE, verbose=0)
    return lambda n: model.train(iterations=n, display_every=NEVER, verbose=0)


def adam(
    problem: pinn.Problem, layers: list[int], n: int, steps: int, repeats: int
) -> tuple[dict[str, Timing], float]:
    """Return the time of one step, eager, compiled and DeepXDE's, and that of compilation."""
    points = problem.sample(n, seed=0)
    (tensor,) = points.values()

    def objective() -> wh.Objective:
        return problem.objective(pinn.MLP(layers, seed=0), points)

    compilation, compiled = _measure.once(lambda: adam_step(objective(), compiled=True))
    contestants = {
        "eager": adam_step(objective(), compiled=False),
        "compiled": compiled,
        "deepxde": deepxde_step(problem, pinn.MLP(layers, seed=0), tensor),
    }
    runs = {name: lambda take=take: take(steps) for name, take in contestants.items()}
    timings = _measure.paired(runs, repeats)
    return {name: timing.per(steps) for name, timing in timings.items()}, compilation


def adam_rows(
    what: str, measured: tuple[dict[str, Timing], float], bars: dict[str, float]
) -> list[Row]:
    """Return how much faster than DeepXDE each way is."""
    timings, compilation = measured
    theirs = timings["deepxde"]
    notes = {"eager": "", "compiled": f"; compiled in {compilation:.2g} s"}
    return [
        Row(
            f"Adam step, {what}, {way}: faster than DeepXDE",
            theirs.median / timings[way].median,
            "x",
            f"{timings[way]} against {theirs}{notes[way]}",
            least=bars.get(way),
        )
        for way in ("eager", "compiled")
    ]


def settled(objective: wh.Objective) -> Callable[[], object]:
    """Return a Gauss–Newton step that can be repeated and whose first trial succeeds.

    Each further trial costs one more Cholesky factor. Damping falls by ``decrease`` only after a
    step that succeeds at once.
    """
    stepper = pinn.GaussNewton(NEVER).start(objective.parameters)
    stepper.advance(objective, 1)
    for _ in range(SETTLING):
        theta, before = objective.parameters.vector(), stepper.state()
        stepper.advance(objective, 1)
        if stepper.state().numbers["mu"] < before.numbers["mu"] / 2:
            break
    else:
        raise RuntimeError(
            f"no Gauss–Newton step of {SETTLING} succeeded at its first trial"
        )

    def step() -> object:
        objective.parameters.assign(theta)
        stepper.restore(before)
        return stepper.advance(objective, 1)

    return step


def gauss_newton(n: int, repeats: int) -> list[Row]:
    """Return a Gauss–Newton step over its Jacobian, product and Cholesky factor."""
    problem = pinn.zoo.load("burgers")
    objective = problem.objective(problem.network(seed=0), problem.sample(n, seed=0))
    step = settled(objective)

    def algebra(product: Callable[[Tensor], Tensor]) -> Tensor:
        rows, _ = wh.Jacobian(objective, scaled=True).system()
        gram = product(rows)
        gram.diagonal().add_(1e-3 * gram.diagonal().mean())
        return torch.linalg.cholesky_ex(gram)[0]

    timings = _measure.paired(
        {
            "step": step,
            "half": lambda: algebra(self_product),
            "full": lambda: algebra(lambda rows: rows @ rows.T),
        },
        repeats,
    )
    what = (
        f"Gauss–Newton step, burgers, {n} points: over Jacobian, JJᵀ and Cholesky alone"
    )
    names = {
        "half": "half of JJᵀ multiplied, the rest mirrored",
        "full": "torch's J @ J.T",
    }
    bars = {"half": GAUSS_NEWTON_BAR}
    return [
        Row(
            f"{what}, {label}",
            timings["step"].median / timings[name].median,
            "x",
            f"{timings['step']} against {timings[name]}",
            most=bars.get(name),
        )
        for name, label in names.items()
    ]


def shared(sizes: Sizes) -> list[Row]:
    """Return three terms at the same points over one term of three residuals, by kind of step."""
    hidden = [64, 64, 64, 64]
    n, n_dual = sizes.navier_stokes, sizes.shared_gauss_newton

    def objective(problem: pinn.Problem, points: int) -> wh.Objective:
        counts = dict.fromkeys(problem.terms, points)
        network = pinn.MLP([2, *hidden, 3], seed=0)
        return problem.objective(network, problem.sample(counts, seed=0))

    def adam_of(problem: pinn.Problem, compiled: bool) -> Callable[[], object]:
        take = adam_step(objective(problem, n), compiled)
        return lambda: take(1)

    ways: dict[str, Callable[[pinn.Problem], Callable[[], object]]] = {
        f"Adam step, eager, {n} points": lambda of: adam_of(of, False),
        f"Adam step, compiled, {n} points": lambda of: adam_of(of, True),
        f"Gauss–Newton step, {n_dual} points": lambda of: settled(
            objective(of, n_dual)
        ),
    }
    rows = []
    for what, step_of in ways.items():
        steps = {"three": step_of(flow_of_three_terms()), "one": step_of(flow())}
        timings = _measure.paired(steps, sizes.repeats)
        rows.append(
            Row(
                f"{what}, Navier–Stokes: three terms at the same points over one of three",
                timings["three"].median / timings["one"].median,
                "x",
                f"{timings['three']} against {timings['one']}",
                most=SHARED_BAR,
            )
        )
    return rows


def measure(sizes: Sizes) -> list[Row]:
    """Return all rows."""
    _measure.say("Adam, burgers")
    first = adam(
        pinn.zoo.load("burgers"),
        [2, 32, 32, 32, 1],
        sizes.burgers,
        sizes.burgers_steps,
        sizes.adam_repeats,
    )
    _measure.say("Adam, Navier–Stokes")
    second = adam(
        flow(),
        [2, 64, 64, 64, 64, 3],
        sizes.navier_stokes,
        sizes.navier_stokes_steps,
        sizes.adam_repeats,
    )
    _measure.say("Gauss–Newton, burgers")
    return [
        *adam_rows(
            f"burgers, {sizes.burgers} points",
            first,
            {"eager": EAGER_BAR, "compiled": BURGERS_BAR},
        ),
        *adam_rows(
            f"Navier–Stokes, {sizes.navier_stokes} points",
            second,
            {"compiled": NAVIER_STOKES_BAR},
        ),
        *gauss_newton(sizes.gauss_newton, sizes.repeats),
        *shared(sizes),
    ]


def main() -> None:
    """Measure and print."""
    given = _measure.parser(__doc__).parse_args()
    _measure.run(given, lambda: measure(QUICK if given.quick else Sizes()))


if __name__ == "__main__":
    main()
