"""Problems of every construct that are solved, against answers that are known otherwise."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from whence import pinn


def solved(
    problem: pinn.Problem,
    points: object,
    steps: int = 40,
    layers: tuple[int, ...] = (12,),
) -> pinn.Result:
    d = problem.domain.dimension
    network = pinn.MLP([d, *layers, len(problem.outputs)], seed=0)
    return pinn.train(
        problem,
        network,
        points=points,
        schedule=pinn.GaussNewton(steps),
        progress=False,
        validation=50,
    )


def test_slopes_of_unequal_errors_give_weighted_least_squares() -> None:
    """u″ = −s with measured slopes: u′ = b − s x, two numbers in closed form."""
    x = np.array([0.1, 0.3, 0.45, 0.6, 0.8, 0.95])
    sigma = np.array([1, 1, 10, 1, 10, 1]) * 0.02
    slopes = 1 - 2 * x + np.array([0.01, -0.02, 0.25, 0.015, -0.3, 0.01])
    design = np.stack([np.ones(6), -x], axis=1) / sigma[:, None]
    best = np.linalg.lstsq(design, slopes / sigma, rcond=None)[0][1]

    problem = pinn.Problem(
        domain=pinn.Interval("x", 0, 1),
        outputs=("u",),
        equations={"pde": lambda u_xx, s: u_xx + s},
        conditions=[
            pinn.Dirichlet(u=0.0, on="x_min"),
            pinn.Data("slopes", x[:, None], u_x=slopes, sigma=sigma),
        ],
        unknowns={"s": 0.0},
    )
    result = solved(problem, {"pde": 20, "dirichlet_u": 1}, steps=40)
    assert float(result.unknowns["s"]) == pytest.approx(best, abs=2e-3)


def test_a_value_at_the_end_enters_an_equation() -> None:
    """y′ = −y(1) with y(0) = 1 has y = 1 − t/2."""
    problem = pinn.Problem(
        domain=pinn.Interval("t", 0, 1),
        outputs=("y",),
        equations={"ode": lambda y_t, end: y_t + end},
        derived={"end": pinn.At("y", t=1.0)},
        ansatz=lambda t, y: 1 + t * y,
    )
    result = solved(problem, 20)
    assert result.solution([[1.0]])[0, 0] == pytest.approx(0.5, abs=1e-5)


def test_a_delay() -> None:
    """y′(t) = −y(t − 1), y = 1 before 0: 1 − t until 1, then 1 − t + (t − 1)²/2."""
    problem = pinn.Problem(
        domain=pinn.Interval("t", 0, 2),
        outputs=("y",),
        equations={
            "ode": lambda t, y_t, past: y_t + torch.where(t < 1, torch.ones_like(t), past)
        },
        derived={"past": pinn.At("y", t=lambda t: t - 1)},
        ansatz=lambda t, y: 1 + t * y,
    )  # fmt: skip
    result = solved(problem, 60, steps=80)
    times = np.array([0.5, 1.0, 1.5, 2.0])
    truth = 1 - times + np.where(times > 1, (times - 1) ** 2 / 2, 0)
    found = result.solution(times[:, None])[:, 0]
    assert np.abs(found - truth).max() < 5e-3


def test_a_memory() -> None:
    """y′ = 1 − ∫₀ᵗ y, y(0) = 0 has y = sin t."""
    problem = pinn.Problem(
        domain=pinn.Interval("t", 0, 3),
        outputs=("y",),
        equations={"ode": lambda y_t, memory: y_t - 1 + memory},
        derived={"memory": pinn.Integrated("y", over={"t": (0, "t")}, nodes=12)},
        ansatz=lambda t, y: t * y,
    )
    result = solved(problem, 30, steps=70)
    times = np.linspace(0, 3, 7)
    found = result.solution(times[:, None])[:, 0]
    assert np.abs(found - np.sin(times)).max() < 1e-4


def test_a_fractional_derivative() -> None:
    """D^½ y = 2 t^1.5/Γ(2.5) has y = t²."""
    problem = pinn.Problem(
        domain=pinn.Interval("t", 0, 1),
        outputs=("y",),
        equations={"ode": lambda half, t: half - 2 * t**1.5 / math.gamma(2.5)},
        derived={"half": pinn.CaputoDerivative("y", along="t", order=0.5, nodes=16)},
        ansatz=lambda t, y: t * y,
    )
    result = solved(problem, 30, steps=60)
    times = np.linspace(0, 1, 6)
    found = result.solution(times[:, None])[:, 0]
    assert np.abs(found - times**2).max() < 1e-4


def test_a_density_integrates_to_one() -> None:
    problem = pinn.Problem(
        domain=pinn.Interval("x", -4, 4),
        outputs=("u",),
        equations={"pde": lambda x, u, u_x, u_xx: u + x * u_x + u_xx / 2},
        conditions=[
            pinn.Dirichlet(u=0.0, on="x"),
            pinn.Integral("one", over="x", of="u", equals=1.0),
        ],
    )
    network = pinn.MLP([1, 20, 1], bounds=[[-4.0], [4.0]], seed=0, scale_to=(-4, 4))
    result = pinn.train(
        problem,
        network,
        points={"pde": 60, "dirichlet_u": 2},
        schedule=pinn.GaussNewton(60),
        progress=False,
        validation=50,
    )
    x = np.linspace(-4, 4, 41)
    truth = np.exp(-(x**2)) / math.sqrt(math.pi)
    found = result.solution(x[:, None])[:, 0]
    assert np.linalg.norm(found - truth) < 1e-3 * np.linalg.norm(truth)


def test_heat_through_two_materials() -> None:
    """Conductivities 1 and 3 in series: a(½) = 3/4 of the drop lies in the first."""
    problem = pinn.Problem(
        domain=pinn.Interval("x", 0, 1),
        outputs=("a", "b"),
        equations={
            "left": pinn.Equation(lambda a_xx: a_xx, where=lambda x: x < 0.5),
            "right": pinn.Equation(lambda b_xx: 3 * b_xx, where=lambda x: x > 0.5),
        },
        conditions=[
            pinn.Condition(
                "joint",
                on={"x": 0.5},
                residual=lambda a, b, a_x, b_x: (a - b, a_x - 3 * b_x),
            ),
            pinn.Dirichlet(a=0.0, on="x_min"),
            pinn.Dirichlet(b=1.0, on="x_max"),
        ],
    )
    points = {"left": 15, "right": 15, "joint": 1, "dirichlet_a": 1, "dirichlet_b": 1}
    result = solved(problem, points)
    values = result.solution([[0.5], [0.25], [0.75]], "a", "b")
    assert values[0] == pytest.approx([0.75, 0.75], abs=1e-4)
    assert values[1, 0] == pytest.approx(0.375, abs=1e-4)
    assert values[2, 1] == pytest.approx(0.875, abs=1e-4)


def test_a_wave_of_any_phase() -> None:
    """h″ = −k² h with h(1) = e^{ik} h(0), h(0) = 1: h = e^{ikx}, as two outputs."""
    k = 0.7
    problem = pinn.Problem(
        domain=pinn.Interval("x", 0, 1),
        outputs=("u", "v"),
        equations={"pde": lambda u, v, u_xx, v_xx: (u_xx + k**2 * u, v_xx + k**2 * v)},
        conditions=[
            pinn.Condition(
                "phase",
                on="x_min",
                residual=lambda u, v, u_end, v_end: (
                    u_end - math.cos(k) * u + math.sin(k) * v,
                    v_end - math.sin(k) * u - math.cos(k) * v,
                ),
            ),
            pinn.Condition("one", on="x_min", residual=lambda u, v: (u - 1, v)),
        ],
        derived={"u_end": pinn.At("u", x=1.0), "v_end": pinn.At("v", x=1.0)},
    )
    result = solved(problem, {"pde": 20, "phase": 1, "one": 1})
    assert result.solution([[0.5]])[0] == pytest.approx(
        [math.cos(k / 2), math.sin(k / 2)], abs=1e-4
    )


def test_a_beam_clamped_softly() -> None:
    """u″″ = −1, clamped at both ends: u(½) = −1/384."""
    problem = pinn.Problem(
        domain=pinn.Interval("x", 0, 1),
        outputs=("u",),
        equations={"beam": lambda u_xxxx: u_xxxx + 1.0},
        conditions=[pinn.Dirichlet(u=0.0, on="x"), pinn.Neumann(u=0.0, on="x")],
    )
    points = {"beam": 20, "dirichlet_u": 2, "neumann_u": 2}
    result = solved(problem, points, steps=80)
    assert result.solution([[0.5]])[0, 0] == pytest.approx(-1 / 384, rel=1e-2)


def test_the_mean_over_a_disk_at_each_time() -> None:
    """Integrals run over a factor of the domain that is no box, or any region of it."""
    disk = pinn.Disk(("x", "y"), (0, 0), 2.0)
    problem = pinn.Problem(
        domain=disk * pinn.Interval("t", 0, 1),
        outputs=("u",),
        equations={"pde": lambda u_t, mean, half: u_t - mean + half},
        derived={
            "mean": pinn.Average("t"),
            "half": pinn.Integrated(lambda x, t: x**2 * t, over=disk, nodes=20_000),
        },
    )
    network = pinn.MLP([3, 4, 1], seed=0)
    fields = problem.fields(network)(("mean", "half"))
    at = torch.tensor([[0.1, 0.2, 0.7]], dtype=torch.float64)
    mean, half = fields(dict(network.named_parameters()), at)[0].tolist()
    assert mean == pytest.approx(0.7, rel=1e-9)
    # ∫ x² over a disk of radius R is πR⁴/4.
    assert half == pytest.approx(0.7 * math.pi * 2**4 / 4, rel=1e-3)
