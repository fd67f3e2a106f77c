"""What holds for every domain and sampler, on domains drawn at random."""

import math

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from whence.catalogue import SAMPLINGS
from whence.pinn.geometry.domain import Disk, Interval, Rectangle
from whence.pinn.geometry.samplings import unit_points

# Quadratures choose their own number of points, for boxes: tests of their own have them.
SPREAD = [m for m in SAMPLINGS if not hasattr(SAMPLINGS[m], "weights")]

XY = ("x", "y")
EACH = settings(deadline=None, max_examples=40)
LOW, LENGTH, SEED = st.floats(-50, 50), st.floats(0.1, 50), st.integers(0, 2**32 - 1)
COUNT, METHOD = st.integers(1, 40), st.sampled_from(SPREAD)


@st.composite
def intervals(draw, name="t"):
    low = draw(LOW)
    return Interval(name, low, low + draw(LENGTH))


@st.composite
def rectangles(draw):
    low = draw(LOW), draw(LOW)
    return Rectangle(XY, low, (low[0] + draw(LENGTH), low[1] + draw(LENGTH)))


@st.composite
def disks(draw):
    return Disk(XY, (draw(LOW), draw(LOW)), draw(LENGTH))


@st.composite
def drilled(draw):
    """A rectangle without a disk that may reach over its edges."""
    box = draw(rectangles())
    low, high = box.bounds
    center = [
        a + draw(st.floats(0, 1)) * (b - a) for a, b in zip(low, high, strict=True)
    ]
    radius = draw(st.floats(0.05, 0.45)) * float(min(high - low))
    return box - Disk(XY, center, radius, "hole")


FLAT = st.one_of(intervals("x"), rectangles(), disks(), drilled())
DOMAINS = st.one_of(FLAT, st.builds(lambda a, b: a * b, FLAT, intervals()))


@EACH
@given(DOMAINS, COUNT, METHOD, SEED)
def test_samples_lie_inside_as_many_as_asked_for_and_repeat(domain, n, method, seed):
    if method == "grid":  # a coarse grid may have no centre outside a hole
        n = max(n, 30)
    points = domain.sample(n, method, seed)
    assert points.dtype == torch.float64
    assert len(points) <= n if method == "grid" else len(points) == n
    assert bool(domain.contains(points).all())
    low, high = torch.from_numpy(domain.bounds)
    assert bool((points >= low - 1e-9).all())
    assert bool((points <= high + 1e-9).all())
    assert torch.equal(points, domain.sample(n, method, seed))


@EACH
@given(
    DOMAINS,
    st.integers(1, 200),
    st.sampled_from(("hammersley", "sobol", "halton")),
    SEED,
)
def test_sequences_never_repeat_a_point(domain, n, method, seed):
    assert len(domain.sample(n, method, seed).unique(dim=0)) == n


@EACH
@given(DOMAINS, METHOD, SEED)
def test_parts_bound_the_domain_with_outward_unit_normals(domain, method, seed):
    parts = domain.boundary
    assert parts
    for part in parts:
        points = part.sample(20, "hammersley" if method == "grid" else method, seed)
        assert bool(part.contains(points).all())
        assert bool(domain.contains(points).all())
        normals = part.normals(points)
        torch.testing.assert_close(
            normals.norm(dim=1), torch.ones(20, dtype=torch.float64)
        )
        assert not bool(domain.contains(points + 1e-6 * normals).any())
        inwards = domain.contains(points - 1e-6 * normals)
        others = [other.contains(points, 1e-4) for other in parts if other is not part]
        assert bool((inwards | sum(others, torch.zeros(20, dtype=torch.bool))).all())


@EACH
@given(FLAT, intervals(), COUNT, SEED)
def test_a_product_holds_what_both_factors_hold(left, right, n, seed):
    both = left * right
    assert both.coordinates == (*left.coordinates, *right.coordinates)
    assert np.array_equal(both.bounds, np.hstack([left.bounds, right.bounds]))
    assert math.isclose(both.measure, left.measure * right.measure)
    around = torch.from_numpy(
        np.random.default_rng(seed).uniform(-1.5, 1.5, (n, both.dimension))
    )
    middle, half = both.bounds.mean(axis=0), np.diff(both.bounds, axis=0)[0] / 2
    points = around * torch.from_numpy(half) + torch.from_numpy(middle)
    split = left.dimension
    expected = left.contains(points[:, :split]) & right.contains(points[:, split:])
    assert torch.equal(both.contains(points), expected)


@EACH
@given(drilled(), SEED)
def test_a_difference_is_the_outer_without_the_inner(domain, seed):
    points = domain.outer.sample(200, "random", seed)
    hole = domain.hole.contains(points)
    clear = domain.hole.contains(points, 1e-6) == domain.hole.contains(points, -1e-6)
    assert torch.equal(domain.contains(points)[clear], ~hole[clear])
    whole, cut = domain.outer.measure, domain.hole.measure
    assert 0 < domain.measure <= whole
    assert (
        domain.measure >= 0.99 * whole - cut
    )  # estimated by points where the disk reaches over


@EACH
@given(st.integers(1, 300), st.integers(1, 4), METHOD, SEED)
def test_unit_points_lie_in_the_half_open_cube(n, dimension, method, seed):
    points = unit_points(n, dimension, method, seed)
    assert points.shape[1] == dimension
    assert len(points) <= n if method == "grid" else len(points) == n
    assert float(points.min()) >= 0
    assert float(points.max()) < 1
    assert np.array_equal(points, unit_points(n, dimension, method, seed))
    if method == "grid":
        assert len(points) > n / 2**dimension


@EACH
@given(DOMAINS, st.lists(st.floats(-1, 2), min_size=3, max_size=3))
def test_contains_agrees_with_the_bounds(domain, shares):
    low, high = domain.bounds
    point = low + np.asarray(shares[: domain.dimension]) * (high - low)
    # Farther off than the tolerance, which is relative to the extent.
    near = 1e-8 * float(np.linalg.norm(high - low))
    assume(not ((point >= low - near) & (point <= high + near)).all())
    assert not bool(domain.contains(torch.from_numpy(point[None]))[0])


@EACH
@given(rectangles(), st.sampled_from(["x", "y", "x_min", "y_max"]), COUNT, SEED)
def test_ends_are_known_by_name_and_by_function(box, name, n, seed):
    part = box.part(name)
    points = part.sample(n, "random", seed)
    column = XY.index(name[0])
    ends = (
        box.bounds[:, column]
        if name in XY
        else box.bounds[[int(name.endswith("max"))], column]
    )
    assert set(points[:, column].tolist()) <= set(ends.tolist())
    with pytest.raises(ValueError, match="farther than"):
        part.normals(box.sample(1))
