"""The flow around a cylinder: its reference, and the numbers that engineers ask for."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

import whence as wh
from whence import pinn
from whence.pinn.zoo import _cylinder_flow, navier_stokes, navier_stokes_dimensional
from whence.pinn.zoo._triangles import TriangleFields

PROBLEM = pinn.zoo.load("navier_stokes")


def reference(points: torch.Tensor) -> np.ndarray:
    """The reference solution at points (n, 2): (n, 3)."""
    return np.stack(navier_stokes.solution(*points.numpy().T), axis=1)


def test_the_reference_meets_every_condition() -> None:
    for term, column in {"noslip_u": 0, "noslip_v": 1, "inflow_v": 1}.items():
        values = reference(PROBLEM.draw(term, 200, 0))[:, column]
        assert np.abs(values).max() < 1e-5, term
    points = PROBLEM.draw("inflow_u", 100, 0)
    expected = navier_stokes.FLOW.inflow(points[:, 1]).numpy()
    assert np.abs(reference(points)[:, 0] - expected).max() < 1e-3


def test_what_flows_in_flows_out() -> None:
    y = np.linspace(0, _cylinder_flow.WIDTH, 4001)
    for x in (0.0, 5.0, 12.0, 22.0):
        u, _, _ = navier_stokes.solution(np.full_like(y, x), y)
        # The mean speed of the inflow is one.
        assert np.trapezoid(u, y) == pytest.approx(_cylinder_flow.WIDTH, rel=1e-3)


def test_the_reference_has_the_published_difference_of_pressures() -> None:
    x = y = _cylinder_flow.CENTER
    ends = np.array([x - 0.5, x + 0.5])
    _, _, p = navier_stokes.solution(ends, np.array([y, y]))
    assert p[0] - p[1] == pytest.approx(0.11752016697 / 0.04, rel=1e-3)


def test_the_script_that_made_it_found_drag_and_lift() -> None:
    with np.load(_cylinder_flow.FILE, allow_pickle=False) as data:
        drag, lift, difference = data["numbers"]
    assert drag == pytest.approx(5.57953523384, rel=1e-3)
    assert lift == pytest.approx(0.010618948146, rel=1e-3)
    assert difference == pytest.approx(0.11752016697 / 0.04, rel=1e-3)


def test_the_reference_solves_the_equations() -> None:
    """Central differences between the cylinder and the walls, where the flow is smooth."""
    rng = np.random.default_rng(0)
    x = rng.uniform(4, 12, 300)
    y = rng.uniform(0.5, 3.5, 300)
    h = 0.2

    def at(dx: float = 0.0, dy: float = 0.0) -> np.ndarray:
        return np.stack(navier_stokes.solution(x + dx, y + dy))

    now = at()
    by_x = (at(dx=h) - at(dx=-h)) / (2 * h)
    by_y = (at(dy=h) - at(dy=-h)) / (2 * h)
    laplacian = (at(dx=h) + at(dx=-h) + at(dy=h) + at(dy=-h) - 4 * now) / h**2
    u, v, _ = now
    for k, pressure in ((0, by_x[2]), (1, by_y[2])):
        carried = u * by_x[k] + v * by_y[k]
        residual = carried + pressure - laplacian[k] / navier_stokes.REYNOLDS
        assert np.abs(residual).mean() < 0.1 * np.abs(carried).mean() + 2e-3
    assert np.abs(by_x[0] + by_y[1]).mean() < 0.05 * np.abs(by_x[0]).mean() + 2e-3


class Polynomials(nn.Module):
    """u = a x² + b y, v = c x y, p = d x + e y."""

    def __init__(self, *numbers: float) -> None:
        super().__init__()
        self.numbers = nn.Parameter(torch.tensor(numbers, dtype=torch.float64))

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        a, b, c, d, e = self.numbers
        x = z[..., 0]
        y = z[..., 1]
        return torch.stack([a * x**2 + b * y, c * x * y, d * x + e * y], dim=-1)


def test_forces_are_integrals_along_the_cylinder() -> None:
    a, b, c, d, e = 0.7, 0.4, -0.3, 1.1, -0.6
    network = Polynomials(a, b, c, d, e)
    objective = PROBLEM.objective(
        network, PROBLEM.sample(dict.fromkeys(PROBLEM.terms, 4))
    )
    area = math.pi * 0.25
    # By the divergence theorem ∮ p n = ∫ ∇p, and ∮ ∂u/∂n = ∫ Δu.
    drag = navier_stokes.drag().values(objective)
    assert float(drag) == pytest.approx(2 * area * (2 * a / 20 - d), rel=1e-12)
    lift = navier_stokes.lift().values(objective)
    assert float(lift) == pytest.approx(2 * area * (0 - e), rel=1e-12)
    drop = navier_stokes.pressure_drop().values(objective)
    assert float(drop) == pytest.approx(-d, rel=1e-12)


def test_drag_is_attributed_to_the_points_of_every_term() -> None:
    network = pinn.MLP([2, 8, 3], bounds=[[0, 0], [22, 4.1]], seed=0)
    objective = PROBLEM.objective(
        network, PROBLEM.sample(dict.fromkeys(PROBLEM.terms, 6))
    )
    attribution = wh.Influence(objective).attribute(navier_stokes.drag())
    assert attribution.values.shape == (1, 6 * len(PROBLEM.terms))
    assert np.isfinite(attribution.values).all()


def test_quadratic_triangles_are_exact_for_squares() -> None:
    # Two triangles of the unit square, with the middles of their sides.
    places = np.array(
        [
            [0, 0],
            [1, 0],
            [1, 1],
            [0, 1],
            [0.5, 0],
            [1, 0.5],
            [0.5, 0.5],
            [0.5, 1],
            [0, 0.5],
        ]
    )
    triangles = np.array([[0, 1, 2, 4, 5, 6], [0, 2, 3, 6, 7, 8]])

    def square(z: np.ndarray) -> np.ndarray:
        x, y = z.T
        return np.stack([x**2 - 3 * x * y + y, 2 * y**2 - x], axis=1)

    points = np.random.default_rng(0).uniform(0, 1, (50, 2))
    fields = TriangleFields(places, triangles, square(places))
    np.testing.assert_allclose(fields.at(points), square(points), atol=1e-13)


# --- units, features and variants ----------------------------------------------------------------


def test_units_change_nothing_but_the_numbers() -> None:
    flow = navier_stokes_dimensional.FLOW
    problem = pinn.zoo.load("navier_stokes_dimensional")
    points = PROBLEM.sample(dict.fromkeys(PROBLEM.terms, 5))
    small = {name: flow.diameter * rows for name, rows in points.items()}
    a = np.array([0.7, 0.4, -0.3, 1.1, -0.6])
    # u = U û(x/D), p = U² p̂(x/D).
    d, speed = flow.diameter, flow.speed
    scales = np.array(
        [speed / d**2, speed / d, speed / d**2, speed**2 / d, speed**2 / d]
    )
    without = PROBLEM.objective(
        Polynomials(*a), points, navier_stokes.recipe().weights
    ).loss()
    units = problem.objective(
        Polynomials(*(a * scales)), small, navier_stokes_dimensional.recipe().weights
    ).loss()
    assert float(units) == pytest.approx(float(without), rel=1e-12)

    for name in ("drag", "lift"):
        coefficient = getattr(navier_stokes, name)().values(
            PROBLEM.objective(Polynomials(*a), points)
        )
        in_units = getattr(navier_stokes_dimensional, name)().values(
            problem.objective(Polynomials(*(a * scales)), small)
        )
        assert float(in_units) == pytest.approx(float(coefficient), rel=1e-12)


def test_the_reference_in_units_is_that_of_the_benchmark() -> None:
    ends = np.array([0.15, 0.25])
    _, _, p = navier_stokes_dimensional.solution(ends, np.full(2, 0.2))
    assert p[0] - p[1] == pytest.approx(0.11752016697, rel=1e-3)


def test_features_are_dense_around_the_cylinder() -> None:
    network = navier_stokes.FLOW.features(0, n=400)
    linear, square = network.hidden.weight.detach().split(2, dim=1)
    centers = linear / (-2 * square)
    box = torch.tensor([22.0, 4.1], dtype=torch.float64) / 2
    distances = (box * (centers + 1) - 2).norm(dim=1) - 0.5
    assert float((distances < 1.5).double().mean()) > 0.4
    # They go a little into the cylinder, whose edge they serve from both sides.
    assert bool((distances > -0.13).all())


@pytest.mark.parametrize("variant", list(pinn.zoo.variants("navier_stokes")))
def test_variants_differ_where_they_say(variant: str) -> None:
    problem = pinn.zoo.load("navier_stokes", variant=variant)
    points = PROBLEM.sample(dict.fromkeys(PROBLEM.terms, 40), seed=3)
    network = pinn.MLP([2, 8, 3], bounds=[[0, 0], [22, 4.1]], seed=0)
    own = PROBLEM.objective(network, points).losses()
    points = {**points, **moved(problem)}
    losses = problem.objective(network, points).losses()
    differing = {
        name for name in own if not torch.allclose(losses[name], own[name], atol=0)
    }
    expected = {
        "good": set(),
        "bad": set(),
        "broken": {"momentum_x"},
        "wrong_viscosity": {"momentum_x", "momentum_y"},
        "wrong_sign": {"momentum_y"},
        "missing_wall": {"noslip_u", "noslip_v"},
        "swapped_boundary": {"inflow_u", "inflow_v", "outflow_u", "outflow_v"},
    }[variant]
    assert differing == expected
    assert problem.solution is not None


def moved(problem: pinn.Problem) -> dict[str, torch.Tensor]:
    """Points of the conditions that hold elsewhere than in the problem as it is."""
    names = [c.name for c in problem.conditions]
    changed = {}
    for name in names:
        try:
            problem.check_points(name, PROBLEM.draw(name, 40, 3))
        except ValueError:
            changed[name] = problem.draw(name, 40, 3)
    return changed
