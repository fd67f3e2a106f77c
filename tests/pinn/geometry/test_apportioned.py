"""Shares of points by part of the boundary: counts, evenness within a part, errors."""

import pytest
import torch

from whence import pinn
from whence.pinn.geometry.apportioned import apportioned

XY = ("x", "y")
CHANNEL = pinn.Rectangle(XY, (0, 0), (22, 4)) - pinn.Disk(XY, (2, 2), 0.5, "cylinder")
WALLS = ("y", "cylinder")


def problem(on=WALLS, domain=CHANNEL, **options):
    return pinn.Problem(
        domain=domain,
        outputs=("u",),
        equations={"pde": lambda u_xx, u_yy: u_xx + u_yy},
        conditions=[pinn.Dirichlet(u=0.0, on=on, name="noslip", **options)],
    )


def on_part(points, name, domain=CHANNEL):
    return int(domain.part(name).contains(points).sum())


def test_without_shares_points_go_by_length():
    points = problem().draw("noslip", 120)
    assert on_part(points, "cylinder") == round(120 * 3.1416 / (44 + 3.1416))


@pytest.mark.parametrize("seed", [None, 4])
@pytest.mark.parametrize("method", ["hammersley", "random", "sobol"])
def test_shares_of_a_condition_hold_wherever_points_are_drawn(seed, method):
    made = problem(shares={"cylinder": 0.5, "y_min": 0.2})
    points = made.draw("noslip", 100, seed, method)
    assert points.shape == (100, 2)
    counts = [on_part(points, n) for n in ("cylinder", "y_min", "y_max")]
    assert counts == [50, 20, 30]
    if seed is not None:
        assert torch.equal(points, made.draw("noslip", 100, seed, method))
        assert not torch.equal(points, made.draw("noslip", 100, seed + 1, method))
    # Validation points and candidates of resampling are drawn so too.
    objective = made.objective(pinn.MLP([2, 4, 1], seed=0), {"noslip": points})
    assert on_part(objective.draw("noslip", 10, seed=1), "cylinder") == 5


def test_within_a_part_points_are_spread_evenly():
    points = problem(shares={"cylinder": 0.9}).draw("noslip", 400)
    ring = points[CHANNEL.part("cylinder").contains(points)] - 2.0
    angle = torch.atan2(ring[:, 1], ring[:, 0]).sort().values
    # 360 points on the circle: no gap is more than two and a half times the mean one.
    assert float(angle.diff().max()) < 2.5 * 2 * torch.pi / 360
    rest = points[~CHANNEL.part("cylinder").contains(points)]
    assert abs(on_part(rest, "y_min") - 20) <= 1


def test_the_surface_itself_is_the_same():
    plain, shared = CHANNEL.part(WALLS), problem(shares={"y": 0.3})
    part = shared._functions["noslip"].part
    assert (part.name, part.measure, part.size) == (plain.name, plain.measure, None)
    points = plain.sample(30)
    assert torch.equal(part.normals(points), plain.normals(points))
    assert bool(part.contains(points).all())


def test_counts_by_part():
    counts = {"pde": 20, "noslip": {"cylinder": 60, "y_min": 7, "y_max": 61}}
    points = problem().sample(counts, seed=0)["noslip"]
    found = [on_part(points, name) for name in ("cylinder", "y_min", "y_max")]
    assert found == [60, 7, 61]
    assert (
        len(problem().sample({"pde": 9, "noslip": {"y": 4, "cylinder": 3}})["noslip"])
        == 7
    )


def test_parts_in_time_and_chosen_by_a_function():
    domain = CHANNEL * pinn.Interval("t", 0, 1)
    made = problem(lambda y: (y == 0) | (y > 1.9), domain, shares={"y_min": 0.25})
    points = made.draw("noslip", 80, seed=0)
    assert on_part(points, "y_min", domain) == 20


def test_a_run_takes_counts_by_part(tmp_path):
    options = {
        "points": {"pde": 10, "noslip": {"cylinder": 6, "y": 4}},
        "schedule": [pinn.GaussNewton(2)],
        "validation": 10,
        "progress": False,
        "out": tmp_path / "run",
    }
    result = pinn.train(problem(), pinn.MLP([2, 4, 1], seed=0), **options)
    assert on_part(result.objective.locations("noslip"), "cylinder") == 6
    assert result.objective.term("noslip").source == "drawn"
    again = pinn.train(problem(), pinn.MLP([2, 4, 1], seed=0), **options, resume=True)
    assert again.summary["loss"] == result.summary["loss"]


@pytest.mark.parametrize(
    ("by_name", "message"),
    [
        ({"sphere": 0.5}, "cylinder"),
        ({"x_min": 0.5}, "'x_min' is no part of walls"),
        ({"cylinder": 0.5, "y": 0.6}, "add up to 1, got 1.1"),
        ({"cylinder": 0.5, "y_min": 0.5}, "no points for 'y_max'"),
        ({"y": 0.5, "y_min": 0.2}, "has a share already"),
        ({"cylinder": 0.0}, "above 0"),
    ],
)
def test_errors_of_shares(by_name, message):
    with pytest.raises(ValueError, match=message):
        apportioned("walls", CHANNEL, WALLS, by_name)


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ({"pde": {"y": 3}, "noslip": 5}, "'pde' has no parts of the boundary"),
        ({"pde": 3, "noslip": {"cylinder": 5}}, "no points for 'y_min', 'y_max'"),
        ({"pde": 3, "noslip": {"y": 0, "cylinder": 5}}, "number of points"),
        ({"pde": 3, "noslip": {}}, "give one number"),
    ],
)
def test_errors_of_counts(counts, message):
    with pytest.raises(ValueError, match=message):
        problem().sample(counts)


def test_shares_need_parts():
    with pytest.raises(TypeError, match="by part"):
        problem(shares=0.5)
    with pytest.raises(ValueError, match="no parts"):
        pinn.Condition("start", None, lambda u: u, shares={"x": 1.0})
