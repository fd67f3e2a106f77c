"""Influence on whole fields: of one point, on several quantities, and of points on themselves.

``python -m benchmarks.fields``: the factorisation is made before, as all contestants share it.

- One training point on u at 2,500 places of a channel (three equations and two conditions of
  Navier–Stokes, 12,867 parameters, 1500 points): one solve at the point, against a solve for
  each target.
- All training points there on u, v, p and the speed: one call, against one for each.
- ``self_influence`` of burgers (3 × 32, 2000 points) against the matrix whose diagonal it is.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import torch
from torch import Tensor

import whence as wh
from benchmarks import _measure
from benchmarks._measure import Row
from whence import pinn


@dataclass(frozen=True)
class Sizes:
    """How large the problems are, and how often each is measured."""

    width: int = 64
    points: int = 300
    targets: int = 2500
    own_points: int = 2000
    repeats: int = 3


QUICK = Sizes(width=8, points=20, targets=50, own_points=100, repeats=1)
ONE_POINT, SELF, SEVERAL = 0.05, 1.0, 0.6


def channel(sizes: Sizes) -> tuple[pinn.Problem, wh.Influence]:
    """Return a channel and the influence of a network after a few steps of training."""
    problem = pinn.Problem(
        domain=pinn.Rectangle(("x", "y"), (0, 0), (1, 1)),
        outputs=("u", "v", "p"),
        equations={
            "mass": lambda u_x, v_y: u_x + v_y,
            "momentum_x": lambda u, v, u_x, u_y, p_x, u_xx, u_yy: (
                u * u_x + v * u_y + p_x - 0.01 * (u_xx + u_yy)
            ),
            "momentum_y": lambda u, v, v_x, v_y, p_y, v_xx, v_yy: (
                u * v_x + v * v_y + p_y - 0.01 * (v_xx + v_yy)
            ),
        },
        conditions=[
            pinn.Dirichlet(u=lambda y: 4 * y * (1 - y), on="x"),
            pinn.Dirichlet(v=0.0, on=("x", "y")),
        ],
    )
    layers = [2, *[sizes.width] * 4, len(problem.outputs)]
    result = pinn.train(
        problem,
        pinn.MLP(layers, seed=0),
        points=dict.fromkeys(problem.terms, sizes.points),
        schedule=[pinn.GaussNewton(5)],
        keep="last",
        progress=False,
    )
    influence = wh.Influence(result.objective)
    influence.state()
    return problem, influence


def by_targets(influence: wh.Influence, output: wh.Output, index: int) -> Tensor:
    """Return the influence of one training point of the first term, solved for by target."""
    objective = influence.objective
    term = next(iter(objective.terms.values()))
    alone = objective.with_terms([term.part(torch.tensor([index]))])
    _, gradient = alone.loss_and_gradient()  # of weight w, 1/N apart
    parts = []
    for rows in influence.packed_gradients(output):
        vectors = influence.solve(rows.T).value
        parts.append(vectors.T @ gradient / len(term.points))
    return torch.cat(parts)


def speed(u: Tensor, v: Tensor) -> Tensor:
    """Return the length of the velocity."""
    return (u**2 + v**2).sqrt()


def fields(sizes: Sizes) -> list[Row]:
    """Return rows of one point on a field, and of several quantities at once."""
    _measure.say("channel")
    problem, influence = channel(sizes)
    first = next(iter(problem.terms))
    places = problem.draw(first, sizes.targets, seed=1, method="random")
    u = wh.Output(places, "u")
    point = wh.TrainingPoints({first: [3]})

    # A minute or so: once is enough.
    by_target, reference = _measure.once(lambda: by_targets(influence, u, 3))
    field = influence.attribute(u, point).values[:, 0]
    largest = float(reference.abs().max())
    difference = float(abs(field - reference.numpy()).max()) / largest
    timings = _measure.paired(
        {"one solve": lambda: influence.attribute(u, point)}, sizes.repeats
    )
    one = timings["one solve"]

    several = [*(wh.Output(places, name) for name in "uvp"), wh.Output(places, speed)]
    timings = _measure.paired(
        {
            "one call": lambda: influence.attribute(several),
            "a call for each": lambda: [influence.attribute(q) for q in several],
        },
        sizes.repeats,
    )
    together, apart = timings["one call"], timings["a call for each"]
    size = influence.objective.parameters.size
    n_points = influence.objective.n_points
    return [
        Row(
            f"one training point on {sizes.targets} targets ({size} parameters, "
            f"{n_points} points), over a solve for each target",
            one.median / by_target,
            "x",
            f"{one}; by targets {by_target:.3g} s; they differ by {difference:.1e} of the largest",
            most=ONE_POINT,
        ),
        Row(
            f"{n_points} training points on u, v, p and speed at {sizes.targets} places in "
            "one call, over four calls",
            together.median / apart.median,
            "x",
            f"{together}; four calls {apart}",
            most=SEVERAL,
        ),
    ]


def own(sizes: Sizes) -> list[Row]:
    """Return the row of self-influence against the matrix."""
    _measure.say("burgers")
    problem = pinn.zoo.load("burgers", "hard")
    points = problem.sample({"pde": sizes.own_points}, seed=0)
    objective = problem.objective(pinn.MLP([2, 32, 32, 32, 1], seed=0), points)
    influence = wh.Influence(objective)
    influence.state()
    timings = _measure.paired(
        {
            "self_influence": influence.self_influence,
            "matrix": lambda: influence.attribute(wh.Loss()),
        },
        sizes.repeats,
    )
    itself, matrix = timings["self_influence"], timings["matrix"]
    return [
        Row(
            f"self-influence of {sizes.own_points} points ({objective.parameters.size} "
            "parameters), over the matrix",
            itself.median / matrix.median,
            "x",
            f"{itself}; matrix {matrix}",
            most=SELF,
        )
    ]


def main() -> None:
    """Measure and print."""
    given = _measure.parser(__doc__).parse_args()
    sizes = QUICK if given.quick else Sizes()
    # What is timed is not whether the networks are trained to their ends.
    warnings.simplefilter("ignore", wh.FarFromMinimum)
    _measure.run(given, lambda: [*fields(sizes), *own(sizes)])


if __name__ == "__main__":
    main()
