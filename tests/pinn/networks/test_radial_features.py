"""Gaussians that stay: values, derivatives, what they are drawn as, and where they are placed."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from whence import pinn

BOUNDS = [[-1.0, 2.0, 0.0], [3.0, 5.0, 1.0]]


def centers_and_slopes(network: pinn.RadialFeatures) -> tuple[torch.Tensor, ...]:
    """Return centers and slopes (features, inputs), read from the hidden layer."""
    linear, square = network.hidden.weight.chunk(2, dim=1)
    return linear / (-2 * square), (-2 * square).sqrt()


def test_values_and_derivatives_are_those_of_gaussians() -> None:
    network = pinn.RadialFeatures([3, 7, 1], 3.0, bounds=BOUNDS, seed=1)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        network.last.weight.normal_(generator=generator)
        network.last.bias.fill_(0.3)
    domain = pinn.Box(("x", "y", "t"), BOUNDS[0], BOUNDS[1])
    problem = pinn.Problem(
        domain=domain, outputs=("u",), equations={"pde": lambda u: u}
    )
    points = domain.sample(20, "random", 0)

    centers, slopes = centers_and_slopes(network)
    scaled = network.scaled(points)
    away = scaled[:, None, :] - centers
    gaussians = torch.exp(-0.5 * ((slopes * away) ** 2).sum(dim=2))
    weights = network.last.weight[0]
    half = 2.0  # of x
    by_x = -(slopes[:, 0] ** 2) * away[:, :, 0] / half
    # ∂²/∂x² of a Gaussian g is (g′/g)² g − a²/half² g.
    by_xx = by_x**2 - slopes[:, 0] ** 2 / half**2

    values = problem.evaluate(network, points, ("u", "u_x", "u_xx"))
    expected = torch.stack(
        [
            gaussians @ weights + 0.3,
            (by_x * gaussians) @ weights,
            (by_xx * gaussians) @ weights,
        ],
        dim=1,
    )
    torch.testing.assert_close(values, expected.detach(), rtol=1e-12, atol=1e-12)


def test_they_are_drawn_in_the_box_and_a_little_beyond() -> None:
    network = pinn.RadialFeatures([2, 2000, 1], 5.0, seed=0)
    centers, slopes = centers_and_slopes(network)
    assert 1.15 < float(centers.abs().max()) <= 1.2 + 1e-12
    assert float(slopes.min()) >= 3.0 - 1e-12
    assert float(slopes.max()) <= 5.0 + 1e-12
    assert torch.equal(slopes[:, 0], slopes[:, 1])
    assert [name for name, p in network.named_parameters() if p.requires_grad] == [
        "last.weight",
        "last.bias",
    ]


def test_equal_seeds_draw_equal_features() -> None:
    first = pinn.RadialFeatures([2, 10, 1], seed=3)
    assert torch.equal(
        first.hidden.weight, pinn.RadialFeatures([2, 10, 1], seed=3).hidden.weight
    )
    again = pinn.RadialFeatures.from_options(first.options())
    again.load_state_dict(first.state_dict())
    x = torch.rand(5, 2, dtype=torch.float64)
    assert torch.equal(first(x), again(x))


def test_they_are_placed_at_points_and_flat_along_time() -> None:
    network = pinn.RadialFeatures([2, 50, 1], 8.0, bounds=[[-1, 0], [1, 1]], seed=0)
    points = torch.rand(50, 2, dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    network.place(pinn.Placement(), points, torch.ones(50, 1), 1, generator)
    centers, slopes = centers_and_slopes(network)
    torch.testing.assert_close(centers[:, 0], network.scaled(points)[:, 0])
    assert 4.8 - 1e-12 <= float(slopes[:, 0].min()) <= float(slopes[:, 0].max()) <= 8
    assert float(slopes[:, 1].max()) < 1


def test_a_hump_in_the_plane_takes_fewer_of_them_than_ridges() -> None:
    def exact(x, y):
        return torch.exp(-20 * (x**2 + y**2))

    def equation(x, y, u_xx, u_yy):
        square = x**2 + y**2
        return u_xx + u_yy - (1600 * square - 80) * exact(x, y)

    problem = pinn.Problem(
        domain=pinn.Rectangle(("x", "y"), (-1, -1), (1, 1)),
        outputs=("u",),
        equations={"pde": equation},
        conditions=(pinn.Dirichlet(u=exact, on=("x", "y")),),
        solution=lambda x, y: np.exp(-20 * (x**2 + y**2)),
    )
    errors = {}
    for kind in ("radial", "tanh"):
        recipe = pinn.features_recipe(
            problem, features=300, scale=8.0, points=1500, activation=kind
        )
        result = pinn.train(
            problem,
            recipe.network(0),
            points=recipe.points,
            schedule=recipe.schedule,
            weights=recipe.weights,
            progress=False,
        )
        errors[kind] = result.summary["relative_l2"]
    assert errors["radial"] < 1e-3
    assert errors["radial"] < 0.1 * errors["tanh"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"layers": [2, 8, 8, 1]}, "three widths"),
        ({"layers": [2, 8, 1], "scale": 0.0}, "scale must be a positive number"),
    ],
)
def test_wrong_options_are_refused(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pinn.RadialFeatures(**arguments)
