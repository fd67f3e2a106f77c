"""Residual-based attention: updates by hand, what concentrates, what points carry along."""

import math

import pytest
import torch

from whence import pinn

RESIDUALS = torch.tensor([0.5, -1.0, 0.0, 4.0], dtype=torch.float64)


def updated(weighting, times, residuals=RESIDUALS):
    for _ in range(times):
        weights = weighting.update({"pde": residuals})
    return weights["pde"]


def test_two_updates_by_hand():
    """The k-th slope is (k + 2)^(|r|/4 − 1): of |r| = 4 it is 1."""
    first = [2 ** (0.125 - 1), 2 ** (0.25 - 1), 2**-1, 1.0]
    second = [3 ** (0.125 - 1), 3 ** (0.25 - 1), 3**-1, 1.0]
    expected = []
    for one, other in zip(first, second, strict=True):
        size = 0.9 * 1.0 + 0.2 * one
        size = 0.9 * size + 0.2 * other
        expected.append(size**2)

    weighting = pinn.ResidualBasedAttention(lr=0.2, decay=0.9)
    found = updated(weighting, 2)
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))


def points_that_count(weights):
    """(Σ m)²/Σ m²: n where all weigh the same, 1 where one has all the weight."""
    return float(weights.sum() ** 2 / weights.square().sum())


def test_weights_concentrate_where_residuals_are_large():
    residuals = torch.linspace(0, 1, 200, dtype=torch.float64)
    counts = {}
    for sharpness in (1.0, 0.2):
        weighting = pinn.ResidualBasedAttention(0.1, decay=0.9, sharpness=sharpness)
        early = updated(weighting, 20, residuals)
        late = updated(weighting, 400, residuals)
        assert bool((late.diff() > 0).all())
        assert points_that_count(late) < points_that_count(early) < len(residuals)
        counts[sharpness] = points_that_count(late)

    assert counts[0.2] < counts[1.0] / 3
    quadratic = pinn.ResidualBasedAttention(0.1, decay=0.9, potential="quadratic")
    # λ tends to |r|/max|r|, m to its square: (Σ r²)²/Σ r⁴ is about 5n/9.
    spread = points_that_count(updated(quadratic, 400, residuals))
    assert spread == pytest.approx(5 / 9 * 200, rel=0.02)


@pytest.mark.parametrize("potential", ["exponential", "quadratic"])
def test_lambda_stays_below_its_limit_and_points_met_exactly_are_equal(potential):
    weighting = pinn.ResidualBasedAttention(0.2, decay=0.9, potential=potential)
    weights = updated(weighting, 500)
    assert float(weights.max()) == pytest.approx((0.2 / 0.1) ** 2)

    met = pinn.ResidualBasedAttention(0.2, decay=0.9, potential=potential)
    weights = updated(met, 3, torch.zeros(5))
    assert len(weights.unique()) == 1
    assert float(weights[0]) > 0


def test_components_of_a_point_count_together():
    weighting = pinn.ResidualBasedAttention(0.5, decay=0.5, potential="quadratic")
    residuals = torch.tensor([[3.0, 4.0], [0.0, 10.0]])
    weights = weighting.update({"pde": residuals})["pde"]
    torch.testing.assert_close(weights, torch.tensor([0.75**2, 1.0]))


def test_new_points_take_over_the_nearest_lambda():
    weighting = pinn.ResidualBasedAttention(0.5, decay=0.5)
    points = torch.tensor([[0.0], [1.0], [2.0], [3.0]])
    first = weighting.update({"pde": RESIDUALS}, points={"pde": points})["pde"]

    weighting.update_every = 5  # so that nothing but the points changes
    moved = torch.tensor([[2.9], [-1.0], [1.2]])
    found = weighting.update({"pde": RESIDUALS[:3]}, points={"pde": moved})["pde"]
    assert torch.equal(found, first[[3, 0, 1]])


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"lr": 0.0}, ValueError, "lr must be a positive number"),
        ({"decay": 1.5}, ValueError, "decay must be at most 1"),
        ({"potential": "expo"}, ValueError, "did you mean 'exponential'"),
        ({"sharpness": math.nan}, ValueError, "sharpness must be a positive number"),
        ({"terms": "pde"}, TypeError, "such as"),
    ],
)
def test_options_are_checked(options, error, message):
    with pytest.raises(error, match=message):
        pinn.ResidualBasedAttention(**options)
