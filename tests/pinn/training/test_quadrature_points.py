"""Points of quadrature rules: exact for polynomials, and losses that are integrals."""

import math

import numpy as np
import pytest
import torch

from whence import pinn
from whence.catalogue import SAMPLINGS
from whence.pinn.geometry.quadrature_points import quadrature_weights

BOX = pinn.Box(("x", "y", "t"), (0, -1, 1), (2, 1, 4))
RULES = ("gauss_legendre", "gauss_legendre_panels")


@pytest.mark.parametrize("dimension", [1, 2, 3])
@pytest.mark.parametrize("name", RULES)
def test_means_over_the_cube_are_exact_up_to_the_degree(name, dimension):
    sampling = SAMPLINGS[name]()
    points = sampling.points(9**dimension, dimension, None)
    weights = sampling.weights(9**dimension, dimension)
    k = 9 if name == "gauss_legendre" else 4
    assert weights.mean() == pytest.approx(1, abs=1e-14)
    for degree in range(2 * k):
        mean = (weights * (points**degree).prod(axis=1)).mean()
        assert mean == pytest.approx((1 / (degree + 1)) ** dimension, rel=1e-12)
    # One degree above it is not: the test can fail.
    beyond = (weights * (points ** (2 * k)).prod(axis=1)).mean()
    assert abs(beyond * (2 * k + 1) ** dimension - 1) > 1e-12


def test_panels_follow_a_kink_that_a_single_rule_does_not():
    errors = {}
    for name in RULES:
        sampling = SAMPLINGS[name]()
        x, w = sampling.points(32, 1, None)[:, 0], sampling.weights(32, 1)
        errors[name] = abs((w * np.abs(x - 0.25)).mean() - 0.3125)
    assert errors["gauss_legendre_panels"] < 1e-14 < 1e-6 < errors["gauss_legendre"]


@pytest.mark.parametrize("on", ["x_min", "y", ("x_min", "y", "t_max")])
def test_means_over_sides_are_by_their_measure(on):
    part = BOX.part(on)
    points = part.sample(300, "gauss_legendre")
    weights = quadrature_weights("side", BOX, part, 300, "gauss_legendre")
    assert weights.shape == (len(points),)
    x, y, t = points.unbind(1)
    found = float((weights * (1 + x**2 * (1 + y**4) + t**3)).mean()) * part.measure
    # ∫ over each side by hand, of 1 + x²(1 + y⁴) + t³.
    cubes = (4**4 - 1) / 4
    of_x_min = 2 * (3 + cubes)
    of_y = 2 * (2 * 3 + 8 / 3 * 2 * 3 + 2 * cubes)
    of_t_max = 4 * (1 + 64) + 8 / 3 * (2 + 2 / 5)
    total = {"x_min": of_x_min, "y": of_y}.get(on, of_x_min + of_y + of_t_max)
    assert found == pytest.approx(total, rel=1e-12)


def problem():
    return pinn.Problem(
        domain=pinn.Rectangle(("x", "t"), (0, 0), (2, 3)),
        outputs=("u",),
        equations={"pde": lambda u, x, t: 0 * u + x**2 - 3 * t + 1},
        conditions=[pinn.Dirichlet(u=lambda t: -(t**2), on="x")],
        ansatz=lambda u: 0 * u,
    )


def go(**options):
    chosen = {"points": {"pde": 30, "dirichlet_u": 11}, "sampling": "gauss_legendre"}
    chosen |= {"schedule": [pinn.Adam(2)], "validation": 10, "progress": False}
    return pinn.train(problem(), pinn.MLP([2, 3, 1], seed=0), **(chosen | options))


def test_the_loss_is_the_integral():
    result = go(weights={"pde": 6.0, "dirichlet_u": 6.0})
    losses = result.objective.term_losses()
    # ∫∫ (x² − 3t + 1)² over [0, 2] × [0, 3]
    #   = ∫∫ x⁴ + 9t² + 1 − 6x²t + 2x² − 6t = 96/5 + 162 + 6 − 72 + 16 − 54.
    integral = 96 / 5 + 162 + 6 - 72 + 16 - 54
    assert abs(6 * losses["pde"] - integral) < 1e-12 * integral
    # ∫ t⁴ at both ends of x.
    assert abs(6 * losses["dirichlet_u"] - 2 * 3**5 / 5) < 1e-12 * 100
    total, _ = result.objective.loss_and_gradient()
    assert total == pytest.approx(integral + 2 * 3**5 / 5, rel=1e-13)
    assert float(result.objective.loss()) == pytest.approx(total, rel=1e-13)


def test_weights_of_points_stay_under_a_weighting_and_on_disk(tmp_path):
    options = {"weighting": pinn.ReLoBRaLo(update_every=1), "out": tmp_path / "run"}
    result = go(**options, schedule=[pinn.Adam(6)])
    term = result.objective.term("pde")
    assert term.point_weights is None
    assert float(term.base_weights.mean()) == pytest.approx(1)
    assert len(set(term.base_weights.tolist())) > 1

    loaded = pinn.load_run(tmp_path / "run", problem(), pinn.MLP([2, 3, 1]))
    assert torch.equal(loaded.objective.term("pde").base_weights, term.base_weights)
    again = go(**options, schedule=[pinn.Adam(6)], resume=True)
    assert torch.equal(again.objective.term("pde").base_weights, term.base_weights)
    started = go(points=None, start=tmp_path / "run")
    assert torch.equal(started.objective.term("pde").base_weights, term.base_weights)


def test_points_with_weights_of_ones_own():
    nodes = torch.tensor([[0.0, 0.0], [1.0, 1.0], [2.0, 3.0]], dtype=torch.float64)
    weights = [0.5, 2.0, 0.5]
    points = {"pde": pinn.WeightedPoints(nodes, weights), "dirichlet_u": 4}
    result = go(points=points, sampling="hammersley")
    x, t = nodes.unbind(1)
    expected = (torch.tensor(weights) * (x**2 - 3 * t + 1) ** 2).mean()
    assert result.objective.term_losses()["pde"] == pytest.approx(float(expected))
    assert result.objective.term("pde").source == "given"
    assert result.objective.term("dirichlet_u").base_weights is None


def test_both_weights_multiply():
    objective = go().objective
    factors = torch.linspace(1, 2, 25, dtype=torch.float64)
    weighed = objective.with_weights({"pde": factors})
    expected = factors * objective.term("pde").base_weights / 25
    found = weighed.term("pde").scales(slice(None))
    assert torch.allclose(found, expected, rtol=1e-14)
    rows = torch.tensor([3, 5])
    part = weighed.term("pde").part(rows)
    assert torch.allclose(part.total_weights, 25 * expected[rows])
    assert math.isclose(weighed.term("pde").mean_weight, float(expected.sum()))


def disk():
    return pinn.Problem(
        pinn.Disk(("x", "y"), (0, 0), 1), ("u",), {"pde": lambda u_x: u_x}
    )


def cut():
    return pinn.Problem(
        domain=pinn.Rectangle(("x", "t"), (0, 0), (1, 1)),
        outputs=("u",),
        equations={"pde": lambda u_x: u_x},
        conditions=[pinn.Dirichlet(u=0.0, on=lambda x, t: (x == 0) & (t < 0.4))],
    )


@pytest.mark.parametrize(
    ("made", "points", "message"),
    [
        (disk, 16, "products of intervals"),
        (cut, {"pde": 16, "dirichlet_u": 4}, "is cut"),
    ],
)
def test_no_rule_where_there_is_no_box(made, points, message):
    with pytest.raises(ValueError, match=message):
        pinn.train(
            made(),
            pinn.MLP([2, 3, 1], seed=0),
            points=points,
            sampling="gauss_legendre",
            schedule=[pinn.Adam(1)],
            progress=False,
        )


def test_what_would_lose_the_weights_is_an_error():
    resample = pinn.Resample(pinn.ResidualScore(), n=2, candidates=10)
    with pytest.raises(ValueError, match="have weights"):
        go(resample=resample)
    with pytest.raises(ValueError, match="have weights"):
        go(resample=pinn.R3())
    with pytest.raises(ValueError, match="weights of their own"):
        go(pinned={"pde": [[0.0, 0.0]]})
    with pytest.raises(ValueError, match="shape"):
        pinn.WeightedPoints([[0.0], [1.0]], [1.0])
