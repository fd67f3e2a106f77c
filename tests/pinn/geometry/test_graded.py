"""Points whose distance follows a function of where they are."""

import numpy as np
import pytest
import torch
from scipy.spatial import KDTree

from whence import pinn

SQUARE = pinn.Rectangle(("x", "y"), (0, 0), (1, 1))
HOLE = pinn.Disk(("x", "y"), (0.5, 0.5), 0.25)


def nearest(points):
    """The distance of each point to the next."""
    return KDTree(points).query(points, k=2)[0][:, 1]


def test_equal_spacing_leaves_neither_gaps_nor_pairs():
    points, distances = pinn.graded(SQUARE, 400, lambda z: torch.ones(len(z)))
    # n squares of side h fill the unit square.
    assert distances.numpy() == pytest.approx(np.full(400, 0.05), rel=0.02)
    apart = nearest(points)
    assert apart.min() > 0.5 * 0.05
    grid = SQUARE.sample(10_000, "grid").numpy()
    gap = KDTree(points).query(grid)[0].max()
    assert gap < 1.2 * 0.05


def test_points_are_as_dense_as_the_spacing_says():
    points, distances = pinn.graded(SQUARE, 2000, lambda z: 0.5 + z[:, 0])
    # ∫ 1/(0.5 + x)² = 1/0.5 − 1/1.5; up to x = 0.5 it is 1/0.5 − 1/1.
    expected = (2 - 1) / (2 - 2 / 3)
    share = float((points[:, 0] < 0.5).double().mean())
    assert share == pytest.approx(expected, abs=0.03)
    ratio = nearest(points) / distances.numpy()
    assert 0.6 < np.quantile(ratio, 0.05) < np.quantile(ratio, 0.95) < 1.15


def test_all_points_lie_in_the_domain():
    domain = SQUARE - HOLE
    points, _ = pinn.graded(domain, 50, lambda z: 0.05 + z[:, 1])
    assert bool(domain.contains(points).all())
    assert len(torch.unique(points, dim=0)) == 50


def test_equal_seeds_give_equal_points():
    def of(seed):
        return pinn.graded(SQUARE, 8, lambda z: 1 + z[:, 0], seed=seed)[0]

    first = of(1)
    assert torch.equal(first, of(1))
    assert not torch.equal(first, of(2))


def test_a_spacing_must_be_positive_and_of_each_point():
    with pytest.raises(ValueError, match="positive everywhere"):
        pinn.graded(SQUARE, 10, lambda z: z[:, 0] - 0.5)
    with pytest.raises(ValueError, match="a number for each"):
        pinn.graded(SQUARE, 10, lambda z: z)
    with pytest.raises(ValueError, match="n must"):
        pinn.graded(SQUARE, 0, lambda z: z[:, 0] + 1)
