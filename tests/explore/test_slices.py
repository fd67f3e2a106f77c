"""Places of lines and planes: where they are, and what lies outside of the domain is blank."""

import numpy as np
import pytest
from explorers import ode, space

from whence import pinn
from whence.explore.slices import LINE_RESOLUTION, PLANE_RESOLUTION, Slice


@pytest.mark.parametrize(
    ("problem", "expected"),
    [
        (ode, (0, None, (0.5,))),
        # Time goes across where there is one coordinate of space.
        (lambda: pinn.zoo.load("burgers"), (1, 0, (0.0, 0.5))),
        (lambda: pinn.zoo.load("poisson_disk"), (0, 1, (0.0, 0.0))),
        # Space fills the plane where it can.
        (space, (0, 1, (0.5, 1.0, 2.0))),
        (lambda: pinn.zoo.load("poisson_5d"), (0, 1, (0.5,) * 5)),
    ],
)
def test_the_first_slice(problem, expected):
    cut = Slice.of(problem())
    assert (cut.across, cut.up, cut.through) == expected


def test_places_of_a_plane():
    """Row k is at the k-th height, the held coordinate stays, wherever the axes are."""
    grid = Slice(2, 0, (0.3, 1.5, 0.7)).grid(space(), 5)
    assert grid.inside.shape == (5, 5)
    assert grid.inside.all()
    places = grid.places.reshape(5, 5, 3)
    np.testing.assert_allclose(places[1, :, 2], np.linspace(0, 4, 5))
    np.testing.assert_allclose(places[:, 3, 0], np.linspace(0, 1, 5))
    assert (places[..., 1] == 1.5).all()


def test_places_of_a_line():
    grid = Slice(1, None, (0.3, 1.5, 0.7)).grid(space(), 9)
    assert grid.inside.shape == (9,)
    np.testing.assert_allclose(grid.places[:, 1], np.linspace(0, 2, 9))
    assert (grid.places[:, [0, 2]] == [0.3, 0.7]).all()


def test_how_many_places():
    cut = Slice.of(pinn.zoo.load("burgers"))
    problem = pinn.zoo.load("burgers")
    assert cut.grid(problem).inside.shape == (PLANE_RESOLUTION, PLANE_RESOLUTION)
    assert Slice.of(ode()).grid(ode()).inside.shape == (LINE_RESOLUTION,)


def test_outside_is_blank():
    disk = pinn.zoo.load("poisson_disk")
    grid = Slice.of(disk).grid(disk, 21)
    assert 0.6 < grid.inside.mean() < 0.9
    assert (np.hypot(*grid.places.T) <= 1 + 1e-12).all()
    table = grid.filled(grid.places[:, 1])
    assert np.isnan(table[0, 0])
    assert np.array_equal(np.isfinite(table), grid.inside)
    assert table[-1, 10] == 1
    assert table[10, 10] == 0


def test_a_line_beside_the_domain_is_blank():
    grid = Slice(0, 1, (0.5, 0.5, 9.0)).grid(space(), 4)
    assert not grid.inside.any()
    assert np.isnan(grid.filled(np.zeros(0))).all()


@pytest.mark.parametrize(
    ("cut", "said"),
    [
        (Slice(0, 0, (0.0, 0.0, 0.0)), r"different coordinates, 0 to 2, got \[0, 0\]"),
        (Slice(0, 3, (0.0, 0.0, 0.0)), r"got \[0, 3\]"),
        (Slice(-1, None, (0.0, 0.0, 0.0)), r"got \[-1\]"),
        (Slice(0, 1, (0.0, 0.0)), r"a point of 3 coordinates \(x, y, t\), got 2"),
    ],
)
def test_slices_that_are_none(cut, said):
    with pytest.raises(ValueError, match=said):
        cut.grid(space(), 3)
