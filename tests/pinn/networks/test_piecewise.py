"""Pieces side by side: which answers where, and the features that are placed in each."""

from __future__ import annotations

import pytest
import torch

from whence import pinn
from whence.pinn.networks.placement import steep_density


def test_the_piece_between_two_edges_answers() -> None:
    network = pinn.Piecewise([2, 5, 1], edges=[-0.5, 0.25], column=0, seed=3)
    points = torch.tensor(
        [[-0.9, 0.1], [-0.5, 0.2], [0.0, 0.3], [0.25, 0.4], [0.9, 0.5]],
        dtype=torch.float64,
    )
    wanted = [0, 1, 1, 2, 2]
    for k, point in zip(wanted, points, strict=True):
        assert torch.equal(network(point[None]), network.pieces[k](point[None]))


def test_derivatives_are_those_of_the_piece() -> None:
    problem = pinn.zoo.load("burgers")
    network = pinn.Piecewise([2, 5, 1], edges=[0.5], seed=3)
    points = torch.tensor([[0.3, 0.2], [-0.4, 0.8]], dtype=torch.float64)
    names = ("u", "u_t", "u_xx")
    found = problem.evaluate(network, points, names)
    for k in (0, 1):
        wanted = problem.evaluate(network.pieces[k], points[k : k + 1], names)
        torch.testing.assert_close(found[k : k + 1], wanted)


def test_rows_of_j_are_zero_at_other_pieces() -> None:
    problem = pinn.zoo.load("burgers")
    network = pinn.Piecewise([2, 4, 1], edges=[0.5], seed=3)
    points = torch.tensor([[0.3, 0.2], [-0.4, 0.8]], dtype=torch.float64)
    objective = problem.objective(network, {"pde": points})
    import whence as wh

    rows = wh.Jacobian(objective).dense()
    half = rows.shape[1] // 2
    assert float(rows[0, half:].abs().max()) == 0
    assert float(rows[1, :half].abs().max()) == 0
    assert float(rows.abs().max()) > 0
    # The same, whether a block's points are of one piece or of both.
    for k in (0, 1):
        alone = problem.objective(network, {"pde": points[k : k + 1]})
        found = wh.Jacobian(alone).dense()
        torch.testing.assert_close(found, rows[k : k + 1], rtol=1e-12, atol=1e-15)
        norms = wh.Jacobian(alone).row_norms()
        assert float(norms) == pytest.approx(float(rows[k].norm()))


def test_wrong_edges_and_pieces_are_refused() -> None:
    with pytest.raises(ValueError, match="must rise"):
        pinn.Piecewise([2, 4, 1], edges=[0.5, 0.5])
    with pytest.raises(ValueError, match="1 pieces have 0 edges"):
        pinn.Piecewise.of([pinn.MLP([1, 1])], [0.5])
    with pytest.raises(ValueError, match="did you mean 'mlp'"):
        pinn.Piecewise([2, 4, 1], kind="mlpp")
    with pytest.raises(TypeError, match="Sequential, which is not in the catalogue"):
        pinn.Piecewise.of([torch.nn.Sequential()], []).options()


# --- placement ----------------------------------------------------------------------------------


def front(n: int = 4000) -> tuple[torch.Tensor, torch.Tensor]:
    """Places in the box, and the gradient along x of a front at x = 0.3 of width 1/40."""
    generator = torch.Generator().manual_seed(0)
    places = 2 * torch.rand(n, 2, generator=generator, dtype=torch.float64) - 1
    gradients = 20 / torch.cosh(40 * (places[:, :1] - 0.3)) ** 2
    return places, gradients


def test_features_crowd_at_a_front_at_every_scale() -> None:
    places, gradients = front()
    placement = pinn.Placement()
    generator = torch.Generator().manual_seed(1)
    rows = placement.rows(gradients, 400, generator)
    weight, bias = placement.features(places[rows], gradients[rows], 4.0, 1, generator)
    near = (places[rows, 0] - 0.3).abs() < 0.05
    # One place in twenty lies there.
    assert float(near.double().mean()) > 0.4
    slopes = weight[:, 0].abs()
    assert float(slopes.min()) >= 1 - 1e-12
    assert float(slopes[~near].max()) < 60
    assert float(slopes[near].max()) > 60
    assert float(slopes.max()) <= placement.steepness * 20
    assert float(weight[:, 1].abs().max()) <= placement.drift
    # Each feature's own plane is within its reach of its place.
    distance = (weight[:, 0] * places[rows, 0] + bias).abs()
    assert float(distance.max()) <= placement.reach + 1e-9


def test_points_crowd_at_a_front_and_none_comes_twice() -> None:
    places, gradients = front()
    generator = torch.Generator().manual_seed(1)
    half = torch.ones(2, dtype=torch.float64)
    points = pinn.Placement().points(places, gradients, 3000, half, 1, generator)
    assert len(points.unique(dim=0)) == 3000
    near = (points[:, 0] - 0.3).abs() < 0.05
    assert float(near.double().mean()) > 0.4
    assert bool(torch.isin(points[:, 1], places[:, 1]).all())


def test_where_nothing_is_steep_features_are_spread_evenly() -> None:
    places, gradients = front()
    density = steep_density(torch.zeros_like(gradients), 0.5, 1.0)
    assert density.tolist() == [1.0] * len(places)
    assert float(steep_density(gradients, 0.0, 1.0).std()) == 0


def test_points_see_farther_from_a_front_than_features_crowd() -> None:
    places, gradients = front(40_000)
    placement = pinn.Placement()
    generator = torch.Generator().manual_seed(1)
    rows = placement.rows(gradients, 4000, generator)
    half = torch.ones(2, dtype=torch.float64)
    points = placement.points(places, gradients, 4000, half, 1, generator)

    def inner_share(x: torch.Tensor) -> float:
        """Of those near the front, how many lie within its half width."""
        distance = (x - 0.3).abs()
        return float((distance < 1 / 80).sum() / (distance < 0.1).sum())

    assert inner_share(points[:, 0]) < 0.8 * inner_share(places[rows, 0])


@pytest.mark.parametrize(
    "name", ["power", "point_power", "steepness", "reach", "drift"]
)
def test_wrong_placements_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=name):
        pinn.Placement(**{name: 0.0})
    for share in ("share", "point_share"):
        with pytest.raises(ValueError, match=share):
            pinn.Placement(**{share: 1.5})
