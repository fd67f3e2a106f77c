"""The Poisson problem on a disk: where features and points go, and what the recipe reaches."""

import dataclasses
import math

import pytest
import torch

from whence import cli, pinn
from whence.pinn.settings.soft import PoorlyTrained, WellTrained
from whence.pinn.zoo import poisson_disk


def train(constraints, recipe):
    return pinn.train(
        pinn.zoo.load("poisson_disk", constraints),
        recipe.network(0),
        points=recipe.points,
        pinned=recipe.pinned,
        weights=recipe.weights,
        schedule=recipe.schedule,
        progress=False,
    )


@pytest.mark.parametrize("constraints", ["hard", "soft"])
def test_the_recipe_is_far_below_the_bar(constraints):
    result = train(constraints, pinn.zoo.recipe("poisson_disk", constraints))
    assert result.summary["relative_l2"] < 1e-9  # the bar is 1e-4
    # Within the source, of which random points see next to nothing.
    points = poisson_disk.crowded(500, reach=1.0, turn=1.0)[0]
    assert result.solution.error(points).abs().max() < 1e-9


def test_the_center_is_always_a_training_point():
    problem = pinn.zoo.load("poisson_disk", "soft")
    ways = [
        pinn.zoo.recipe("poisson_disk", "soft"),
        poisson_disk.own_network_recipe("soft"),
        WellTrained().recipe(problem),
        PoorlyTrained().recipe(problem),
    ]
    for recipe in ways:
        assert (torch.as_tensor(recipe.pinned["pde"]) == 0).all(1).sum() == 1


def test_a_run_by_flags_keeps_the_center(tmp_path):
    out = tmp_path / "run"
    words = ["--constraints", "soft", "--points", "pde=9", "dirichlet_u=5", "--quiet"]
    words += ["--schedule", "gauss_newton:2", "--out", str(out)]
    assert cli.main(["train", "poisson_disk", *words]) == 0
    points = pinn.load_run(out).points
    is_center = (points["pde"] == 0).all(axis=1)
    assert is_center.sum() == 1
    assert points["pde:pinned"][is_center].all()


def test_pinned_points_and_slabs_exclude_each_other():
    recipe = pinn.zoo.recipe("burgers")
    with pytest.raises(ValueError, match="slabs takes no pinned points"):
        dataclasses.replace(recipe, pinned={"pde": [[0.0, 0.5]]})


def test_places_are_as_dense_as_the_solution_changes():
    places, distance = poisson_disk.crowded(4000, reach=1.0)
    radius = places.norm(dim=1)
    # Of density n/(π growth (r² + σ²)) the number within R is n log(1 + R²/σ²)/growth.
    growth = math.log1p(1 / 0.02**2)
    for within in (0.01, 0.05, 0.3, 0.9):
        expected = 4000 * math.log1p((within / 0.02) ** 2) / growth
        assert int((radius < within).sum()) == pytest.approx(expected, abs=2)
    assert float(radius.max()) < 1

    # The nearest other place is about as far as a square of that area is wide.
    apart = torch.cdist(places, places)
    apart.fill_diagonal_(math.inf)
    nearest = apart.min(dim=1).values / distance
    assert float(nearest.min()) > 0.5
    assert float(nearest.max()) < 1.2


def test_a_broken_disk_has_another_solution():
    broken = pinn.zoo.load("poisson_disk", "hard", "broken")
    good = pinn.zoo.load("poisson_disk")
    recipe = pinn.zoo.recipe("poisson_disk", "hard", "broken")
    assert recipe.network is not None
    points = good.domain.sample(50, "random", seed=0)
    network = good.network(seed=0)
    fields = good.evaluate(network, points, ("u_yy",))[:, 0]
    tensors = dict(network.named_parameters())
    residuals = [
        p.residual(network, "pde")(tensors, points)[:, 0] for p in (broken, good)
    ]
    torch.testing.assert_close(residuals[0] - residuals[1], fields)
