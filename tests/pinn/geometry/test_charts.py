import tracemalloc
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import qmc

from whence.catalogue import SAMPLINGS
from whence.pinn.geometry.charts import Chart, box, mixture, product, shares, table
from whence.pinn.geometry.samplings import unit_points
from whence.pinn.geometry.samplings.base import MAX_DRAWN, sampling_of, unit_blocks

# Quadratures choose their own number of points, for boxes: tests of their own have them.
SPREAD = [m for m in SAMPLINGS if not hasattr(SAMPLINGS[m], "weights")]

SEEDED = [m for m in SPREAD if m != "grid"]


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(1, 300),
    dimension=st.integers(0, 4),
    method=st.sampled_from(SPREAD),
    seed=st.none() | st.integers(0, 2**32),
)
def test_points_are_in_the_unit_cube(n, dimension, method, seed):
    points = unit_points(n, dimension, method, seed)
    assert points.dtype == np.float64
    assert points.shape[1] == dimension
    assert len(points) <= n if method == "grid" else len(points) == n
    assert ((points >= 0) & (points < 1)).all()


@pytest.mark.parametrize("method", SEEDED)
def test_seeds_repeat_and_differ(method):
    first, again, other = (unit_points(50, 2, method, seed) for seed in (3, 3, 4))
    assert np.array_equal(first, again)
    assert not np.allclose(first, other)


@pytest.mark.parametrize("method", SPREAD)
def test_points_drawn_in_blocks_are_those_drawn_at_once(method):
    n = 2 * MAX_DRAWN + 5
    at_once = unit_points(n, 3, method, seed=3)
    parts = list(unit_blocks(n, 3, method, seed=3))
    assert max(len(part) for part in parts) == MAX_DRAWN
    assert np.array_equal(np.concatenate(parts), at_once)


@pytest.mark.parametrize("method", ["hammersley", "halton", "random"])
def test_blocks_of_any_size_follow_each_other(method):
    sampling = sampling_of(method)
    parts = list(sampling.blocks(100, 2, 7, size=33))
    assert [len(part) for part in parts] == [33, 33, 33, 1]
    assert np.array_equal(np.concatenate(parts), sampling.points(100, 2, 7))


@pytest.mark.parametrize("method", ["hammersley", "random"])
def test_rejected_points_leave_the_same_ones_in_blocks(method):
    n = 2 * MAX_DRAWN + 5
    left = box(np.zeros(2), np.ones(2)).restricted(lambda p: p.sum(axis=1) < 1.2)
    proposed = n
    kept = np.zeros((0, 2))
    while len(kept) < n:
        kept = unit_points(proposed, 2, method, seed=1)
        kept = kept[kept.sum(axis=1) < 1.2]
        proposed += int(np.ceil((n - len(kept)) * proposed / len(kept)))

    rows = np.arange(n)
    if method == "hammersley":
        rows = rows * len(kept) // n
    assert np.array_equal(left.sample(n, method, seed=1), kept[rows])


def test_drawing_holds_little_beside_its_points():
    square = box(np.zeros(2), np.ones(2))
    square.sample(10, seed=0)  # libraries are loaded before
    tracemalloc.start()
    points = square.sample(1_000_000, seed=0)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1.3 * points.nbytes


def test_global_random_state_is_left_alone():
    np.random.seed(0)
    before = np.random.get_state()[1].copy()
    for method in SPREAD:
        unit_points(10, 2, method)
    assert np.array_equal(before, np.random.get_state()[1])


def test_hammersley_is_the_textbook_set():
    points = unit_points(8, 3)
    assert np.allclose(points[:, 0], (np.arange(8) + 0.5) / 8)
    assert np.allclose(
        points[:, 1], [1 / 2, 1 / 4, 3 / 4, 1 / 8, 5 / 8, 3 / 8, 7 / 8, 1 / 16]
    )
    assert np.allclose(points[:4, 2], [1 / 3, 2 / 3, 1 / 9, 4 / 9])
    shifted = unit_points(8, 3, seed=1)
    shift = (shifted - points) % 1
    assert np.allclose(shift, shift[0])


@pytest.mark.parametrize(
    "method", ["hammersley", "sobol", "halton", "latin_hypercube", "grid"]
)
def test_low_discrepancy_beats_random(method):
    random = np.mean(
        [qmc.discrepancy(unit_points(256, 2, "random", s)) for s in range(5)]
    )
    assert qmc.discrepancy(unit_points(256, 2, method, 0)) < random / 1.5


def test_sobol_of_any_length_is_a_prefix_and_does_not_warn():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        short, long = unit_points(100, 3, "sobol", 0), unit_points(128, 3, "sobol", 0)
    assert np.array_equal(short, long[:100])


@settings(max_examples=80, deadline=None)
@given(n=st.integers(1, 2000), dimension=st.integers(1, 5))
def test_grid_is_near_isotropic_and_cannot_be_larger(n, dimension):
    points = unit_points(n, dimension, "grid")
    counts = [len(np.unique(points[:, k])) for k in range(dimension)]
    assert max(counts) - min(counts) <= 1
    assert np.prod(counts) == len(points) <= n
    more = sorted(counts)
    more[0] += 1
    assert np.prod(more) > n
    assert np.allclose(points.mean(axis=0), 0.5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 2), "n must be a positive integer, got 0"),
        ((5, -1), "dimension must be a non-negative integer"),
        ((5, 2, "hamersley"), "did you mean 'hammersley'"),
        ((5, 2, "sobol", -1), "seed must be a non-negative integer"),
    ],
)
def test_unit_points_says_what_is_wrong(arguments, message):
    with pytest.raises(ValueError, match=message):
        unit_points(*arguments)


@pytest.mark.parametrize("method", SPREAD)
@pytest.mark.parametrize("share", [0.9, 0.3, 0.01])
def test_rejection_returns_exactly_n_even_points(method, share):
    chart = Chart(2, 2, lambda u: u, keep=lambda p: p[:, 0] < share)
    points = chart.sample(200, method, 0)
    assert len(points) <= 200 if method == "grid" else len(points) == 200
    assert len(points) > 60
    assert (points[:, 0] < share).all()
    assert points.mean(axis=0) == pytest.approx([share / 2, 0.5], rel=0.15)


def test_rejection_spreads_hammersley_over_all_of_the_set():
    chart = Chart(2, 2, lambda u: u, keep=lambda p: np.hypot(*(p - 0.5).T) > 0.3)
    points = chart.sample(101)
    assert points[:, 0].max() > 0.97
    assert points[:, 0].min() < 0.03


def test_rejection_of_everything_ends():
    with pytest.raises(ValueError, match="only 0 of"):
        Chart(1, 1, lambda u: u, keep=lambda p: p[:, 0] < 0).sample(5)
    with pytest.raises(ValueError, match="grid of 1 cells"):
        Chart(1, 1, lambda u: u, keep=lambda p: p[:, 0] < 0.4).sample(1, "grid")


def test_product_rejects_by_factor():
    left = Chart(1, 1, lambda u: u, keep=lambda p: p[:, 0] < 0.5)
    point = Chart(0, 1, lambda u: np.full((len(u), 1), 7.0))
    points = product([left, point, left]).sample(64, "sobol", 0)
    assert points.shape == (64, 3)
    assert (points[:, [0, 2]] < 0.5).all()
    assert (points[:, 1] == 7).all()


@pytest.mark.parametrize("method", SPREAD)
def test_a_mixture_is_as_dense_in_every_set(method):
    """Also where one of the sets rejects most of what it proposes."""
    rare = box(np.array([5.0]), np.array([6.0])).restricted(lambda p: p[:, 0] < 5.2)
    sets = [box(np.zeros(1), np.ones(1)), rare, box(np.array([7.0]), np.array([9.0]))]
    points = mixture(sets).sample(3200, method, seed=0)[:, 0]
    counts = np.histogram(points, [0, 1, 5.2, 6, 9])[0] / len(points)
    assert counts == pytest.approx(np.array([1, 0.2, 0, 2]) / 3.2, abs=0.03)


def test_rows_of_a_table_are_drawn_once():
    rows = np.arange(100.0)[:, None]
    chart = table(rows, size=2.0).restricted(lambda p: p[:, 0] < 60)
    assert (chart.count, chart.size) == (60, pytest.approx(1.2))
    for method in SEEDED:
        assert len(np.unique(chart.sample(60, method, seed=1))) == 60
    assert np.diff(chart.sample(20)[:, 0]) == pytest.approx(3)
    with pytest.raises(ValueError, match="has 60 points, too few to draw 61"):
        chart.sample(61)


@given(
    n=st.integers(1, 500),
    measures=st.lists(st.floats(1e-6, 1e3), min_size=1, max_size=8),
)
def test_shares_add_up(n, measures):
    split = shares(n, measures)
    assert sum(split) == n
    assert min(split) >= (1 if n >= len(measures) else 0)
    exact = n * np.array(measures) / sum(measures)
    if (exact >= 1).all():
        assert np.abs(split - exact).max() < 1
