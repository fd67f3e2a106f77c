"""Equations of fourth order: rows of J beside ``torch.func``, jets beside their own arithmetic.

``python -m benchmarks.higher_order``: the Jacobian of a residual with u_xxxx by jets, and by
``vmap(jacrev)`` of nested forward mode, as one would write it with ``torch.func``. Then the
residual itself against a lower bound: the same matrix products on as many channels, tanh, and the
fewest multiplications that its recurrences take, as bare operations. Last the clamped
Euler–Bernoulli beam by Gauss–Newton, with jets and with nested differentiation, and a step of Adam
on the Kuramoto–Sivashinsky equation, eager and compiled.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.func import functional_call, jacrev, jvp, vmap

from benchmarks import _measure
from benchmarks._measure import Row, Timing
from whence import pinn
from whence.compilation import Compiled
from whence.jets import layout
from whence.layout import Layout
from whence.linearization import linearize
from whence.parameters import Parameters
from whence.pinn.pde.fields import FieldMap
from whence.points import Pointwise

FEW, MANY, VERY_MANY = 30, 1000, 10_000
FEW_BAR, MANY_BAR, BOUND_BAR = 1.0, 2.0, 1.3
BEAM_STEPS = 110
NETWORKS = {
    "u_xxxx": ([1, 20, 20, 1], ("x",), ("u_xxxx",)),
    "u_t + u_xxxx": ([2, 32, 32, 1], ("x", "t"), ("u_t", "u_xxxx")),
}


@dataclass(frozen=True)
class Sizes:
    """Points, steps and repeats."""

    few: int = FEW
    many: int = MANY
    very_many: int = VERY_MANY
    steps: int = BEAM_STEPS
    adam_steps: int = 50
    repeats: int = 15
    step_repeats: int = 5
    beam_repeats: int = 2


QUICK = Sizes(5, 20, 50, 2, 2, repeats=2, step_repeats=2)


# --- rows of J -----------------------------------------------------------------------------------


def by_whence(
    network: pinn.MLP, coordinates: tuple[str, ...], wanted: tuple[str, ...], at: Tensor
) -> Callable[[], Tensor]:
    """Return what makes the rows of J of the sum of some derivatives, (n, P)."""
    fields = FieldMap(network, coordinates, ("u",))(wanted)
    parameters = Parameters(network)
    ones = torch.ones(len(at), len(wanted), dtype=at.dtype)
    return lambda: linearize(fields, parameters, at).rows(ones)


def by_torch_func(
    network: pinn.MLP, coordinates: tuple[str, ...], wanted: tuple[str, ...], at: Tensor
) -> Callable[[], Tensor]:
    """Return what makes the same rows by reverse mode over nested forward mode, vectorised."""
    tensors = {name: p.detach() for name, p in network.named_parameters()}

    def derivative(tensors: dict[str, Tensor], point: Tensor, name: str) -> Tensor:
        def value(z: Tensor) -> Tensor:
            output: Tensor = functional_call(network, tensors, (z.unsqueeze(0),))
            return output[0, 0]

        nested = value
        for letter in name.removeprefix("u_"):
            direction = torch.zeros_like(point)
            direction[coordinates.index(letter)] = 1.0
            nested = along(nested, direction)
        return nested(point)

    def residual(tensors: dict[str, Tensor], point: Tensor) -> Tensor:
        return sum(derivative(tensors, point, name) for name in wanted)

    gradient = vmap(jacrev(residual), in_dims=(None, 0))

    def rows() -> Tensor:
        parts = gradient(tensors, at)
        return torch.cat([part.flatten(1) for part in parts.values()], dim=1)

    return rows


def along(
    function: Callable[[Tensor], Tensor], direction: Tensor
) -> Callable[[Tensor], Tensor]:
    """Return a function's derivative along a direction."""
    return lambda z: jvp(function, (z,), (direction,))[1]


def jacobian_rows(sizes: Sizes) -> list[Row]:
    """Compare rows of J."""
    rows = []
    for what, (layers, coordinates, wanted) in NETWORKS.items():
        for n, bar in ((sizes.few, FEW_BAR), (sizes.many, MANY_BAR)):
            network = pinn.MLP(layers, seed=0)
            at = points(n, len(coordinates))
            ours = by_whence(network, coordinates, wanted, at)
            theirs = by_torch_func(network, coordinates, wanted, at)
            expected = theirs()
            error = float((ours() - expected).abs().max() / expected.abs().max())
            assert error < 1e-10, error
            timings = _measure.paired(
                {"whence": ours, "torch.func": theirs}, sizes.repeats
            )
            rows.append(
                faster(
                    f"J of {what}, {layers}, {n} points: faster than torch.func",
                    timings["whence"],
                    timings["torch.func"],
                    bar,
                    f"; largest relative difference {error:.1e}",
                )
            )
    return rows


def faster(what: str, ours: Timing, theirs: Timing, bar: float, note: str = "") -> Row:
    """Return a row of how many times as fast as something else we are."""
    ratio = theirs.median / ours.median
    return Row(what, ratio, "x", f"{ours} against {theirs}{note}", least=bar)


def points(n: int, coordinates: int) -> Tensor:
    """Return the same random points in the unit cube each time, (n, coordinates)."""
    generator = torch.Generator().manual_seed(0)
    return torch.rand(n, coordinates, generator=generator, dtype=torch.float64)


# --- the residual against its arithmetic ---------------------------------------------------------


def multiplications(channels: Layout) -> int:
    """Return the fewest products of two channels that carry a jet through tanh.

    With ``w = 1 − y²``: those of ``y_{β+i} = Σ_γ C(β, γ) w_γ u_{β−γ+i}``, and of w's channels
    that it takes, where each pair of factors of y² counts once.
    """
    of_values = sum(map(len, channels.compositions.chains))
    of_slopes = sum(
        1 + len(channels.squares[channel]) for channel in channels.compositions.inner
    )
    return of_values + of_slopes


def bare_arithmetic(
    network: pinn.MLP, channels: Layout, n: int
) -> Callable[[], object]:
    """Return what does the residual's matrix products and multiplications, and nothing else.

    Every layer makes one tensor of all channels, and its activation another one.
    """
    weights = [p.detach() for p in network.parameters() if p.ndim == 2]
    c = len(channels)
    n_products = multiplications(channels)
    inputs = torch.rand(c, n, weights[0].shape[1], dtype=torch.float64)

    def run() -> None:
        y = inputs
        for k, weight in enumerate(weights):
            u = torch.nn.functional.linear(y, weight)
            if k == len(weights) - 1:
                return
            y = torch.empty_like(u)
            sources = u.unbind(0)
            results = y.unbind(0)
            torch.tanh(sources[0], out=results[0])
            for j in range(c - 1):
                torch.mul(sources[0], sources[j], out=results[1 + j])
            for j in range(n_products - c + 1):
                place = results[1 + j % (c - 1)]
                a, b = sources[j % c], sources[(j // c) % c]
                torch.addcmul(place, a, b, value=0.5, out=place)

    return run


def residual(fields: Pointwise, tensors: dict[str, Tensor], at: Tensor) -> Tensor:
    """Return the wanted derivatives, without a graph."""
    with torch.no_grad():
        return fields(tensors, at)


def bound_rows(sizes: Sizes) -> list[Row]:
    """Compare the residual with the arithmetic that it needs."""
    rows = []
    for what, (layers, coordinates, wanted) in NETWORKS.items():
        network = pinn.MLP(layers, seed=0)
        indices = [
            tuple(map(coordinates.index, name.removeprefix("u_"))) for name in wanted
        ]
        channels = layout(indices)
        fields = FieldMap(network, coordinates, ("u",))(wanted)
        tensors = dict(network.named_parameters())
        for n, bar in (
            (sizes.few, None),
            (sizes.many, BOUND_BAR),
            (sizes.very_many, BOUND_BAR),
        ):
            at = points(n, len(coordinates))

            contestants = {
                "jets": functools.partial(residual, fields, tensors, at),
                "bare": bare_arithmetic(network, channels, n),
            }
            timings = _measure.paired(contestants, 4 * sizes.repeats)
            ratio = timings["jets"].median / timings["bare"].median
            rows.append(
                Row(
                    f"residual {what}, {layers}, {n} points: over its bare arithmetic",
                    ratio,
                    "x",
                    f"{timings['jets']} against {timings['bare']}: products with the weights on "
                    f"{len(channels)} channels, tanh and {multiplications(channels)} "
                    "multiplications a layer",
                    most=bar,
                )
            )
    return rows


# --- training ------------------------------------------------------------------------------------


def beams() -> dict[str, pinn.Problem]:
    """Return the clamped beam under a constant load, u = u′ = 0 at both ends, in two ways."""
    bare = pinn.Problem(
        domain=pinn.Interval("x", 0, 1),
        outputs=("u",),
        equations={"beam": lambda u_xxxx: u_xxxx + 1.0},
        solution=lambda x: -(x**2) * (1 - x) ** 2 / 24,
    )
    ends = [pinn.Dirichlet(u=0.0, on="x"), pinn.Neumann(u=0.0, on="x")]
    return {
        "hard": replace(bare, ansatz=lambda x, u: x**2 * (1 - x) ** 2 * u),
        "soft": replace(bare, conditions=ends),
    }


def beam_rows(sizes: Sizes) -> list[Row]:
    """Time a Gauss–Newton step on the clamped beam, by jets and by nested differentiation."""
    rows = []
    counts = {"hard": {"beam": 30}, "soft": {"beam": 30, "dirichlet_u": 2}}
    counts["soft"]["neumann_u"] = 2
    for name, problem in beams().items():
        errors = {}

        def train(derivatives: str, name=name, problem=problem, errors=errors) -> None:
            result = pinn.train(
                replace(problem, derivatives=derivatives),
                pinn.MLP([1, 20, 20, 1], seed=0),
                points=counts[name],
                schedule=[pinn.GaussNewton(sizes.steps)],
                progress=False,
                validation=200,
            )
            errors[derivatives] = result.summary["relative_l2"]

        ways = ("jets", "autograd")
        timings = _measure.paired(
            {way: lambda way=way: train(way) for way in ways}, sizes.beam_repeats
        )
        steps = {way: timings[way].per(sizes.steps) for way in ways}
        note = f"; relative L2 error {errors['jets']:.1e}, {errors['autograd']:.1e}"
        rows.append(
            faster(
                f"Gauss–Newton step, beam, {name}: faster than nested autograd",
                steps["jets"],
                steps["autograd"],
                1.0,
                note,
            )
        )
    return rows


def adam_row(sizes: Sizes) -> Row:
    """Time a step of Adam on u_t + u u_x + u_xx + u_xxxx = 0, eager and compiled."""
    problem = pinn.Problem(
        domain=pinn.Interval("x", 0, 1) * pinn.Interval("t", 0, 1),
        outputs=("u",),
        equations={
            "waves": lambda u, u_t, u_x, u_xx, u_xxxx: u_t + u * u_x + u_xx + u_xxxx
        },
    )
    at = problem.sample(sizes.many, seed=0)

    def steps(is_compiled: bool) -> Callable[[], object]:
        objective = problem.objective(pinn.MLP([2, 32, 32, 1], seed=0), at)
        if is_compiled:
            objective = objective.with_evaluator(Compiled(objective))
        stepper = pinn.Adam(10**9, lr=1e-3).start(objective.parameters)
        return lambda: stepper.advance(objective, sizes.adam_steps)

    contestants = {"compiled": steps(True), "eager": steps(False)}
    timings = _measure.paired(contestants, sizes.step_repeats)
    each = {name: timing.per(sizes.adam_steps) for name, timing in timings.items()}
    what = f"Adam step, Kuramoto–Sivashinsky, {sizes.many} points, compiled: faster than eager"
    return faster(what, each["compiled"], each["eager"], 1.0)


def measure(sizes: Sizes) -> list[Row]:
    """Measure everything."""
    return [
        *jacobian_rows(sizes),
        *bound_rows(sizes),
        *beam_rows(sizes),
        adam_row(sizes),
    ]


def main() -> None:
    """Measure and print."""
    given = _measure.parser(__doc__).parse_args()
    _measure.run(given, lambda: measure(QUICK if given.quick else Sizes()))


if __name__ == "__main__":
    main()
