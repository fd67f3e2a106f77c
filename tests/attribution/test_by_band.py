"""Reductions and self-influence by workers: to the last bit what one process makes of it."""

import numpy as np
import pytest
from many_points import N, objective, targets

import whence as wh
from whence.attribution import reductions
from whence.attribution.bands import Band, around, bands, within
from whence.attribution.tiles import gathered

pytestmark = pytest.mark.usefixtures("narrow")


def equal(found, expected):
    assert found.dims == expected.dims
    assert found.equals(expected)


def test_extremes_by_workers(many, client):
    expected = reductions.top(many, targets(), k=4, effect="add")
    found = reductions.top(many, targets(), k=4, effect="add", client=client)
    assert found.equals(expected)
    assert found.attrs == expected.attrs
    whole = many.attribute(targets(), effect="add").values
    assert np.array_equal(found.highest[:, 0], whole.max(axis=1))
    assert np.array_equal(found.lowest_point[:, 0], whole.argmin(axis=1))


@pytest.mark.parametrize(
    "how",
    [("mean", "target", None), ("sum", "point", "term"), ("mean_abs", "point", None)],
)
def test_means_and_sums_by_workers(many, how, client):
    kind, over, by = how
    expected = reductions.reduced(many, targets(), kind, over, by)
    found = reductions.reduced(many, targets(), kind, over, by, client=client)
    if many.name == "empirical":  # without workers it has all points in one tile
        np.testing.assert_allclose(found, expected, rtol=1e-12)
    else:
        equal(found, expected)
    if by:
        whole = many.attribute(targets())
        first = whole.values[:, whole.term.values == "pde"].sum(axis=1)
        np.testing.assert_allclose(found.sel(term="pde"), first, rtol=1e-9, atol=1e-12)


def test_self_influence_by_workers(many, client):
    # Of several bands; one by one where each point is a pass through the network.
    step = 200 if many.name == "empirical" else 2
    few = wh.TrainingPoints({"pde": np.arange(0, N, step), "dirichlet_u": [1, 0]})
    equal(many.self_influence(few, client=client), many.self_influence(few))


def test_where_points_are_solved_for_together(client):
    influence = wh.Influence(objective("hard", n=20))
    equal(influence.self_influence(client=client), influence.self_influence())
    expected = reductions.top(influence, targets(), k=2)
    assert reductions.top(influence, targets(), k=2, client=client).equals(expected)


def test_what_is_no_client(many):
    for reduce in (reductions.top, reductions.reduced):
        with pytest.raises(TypeError, match=r"must be a dask\.distributed\.Client"):
            reduce(many, targets(), client=1)
    with pytest.raises(TypeError, match=r"must be a dask\.distributed\.Client"):
        many.self_influence(client="tcp://127.0.0.1:1")


@pytest.mark.parametrize("width", [1, 7, 999, 1000, 1001, 1024, 5000])
def test_bands_of_any_width_make_the_matrix(width):
    method = wh.GradCos(objective(n=2049))
    prepared = method.prepare_points(None)
    whole = method.attribute(targets(2)).values
    n = whole.shape[1]
    everything = list(bands(n, width))
    assert everything[-1].stop == n
    # A few of those that are many.
    for band in everything[:: max(1, len(everything) // 20)] + everything[-1:]:
        near, first = around(prepared, band, method.block_size)
        tiles = within(method.tiles(targets(2), near), band, first)
        rows = list(gathered(tiles, len(band)))
        values = np.concatenate([tile.values.numpy() for tile in rows])
        assert np.array_equal(values, whole[:, band.start : band.stop])


def test_a_band_has_its_points_and_no_more_than_their_blocks():
    method = wh.GradDot(objective())
    near, first = around(
        method.prepare_points(None), Band(2400, 2510), method.block_size
    )
    assert first == 2000
    assert {name: len(points) for name, points in near.by_term.items()} == {
        "pde": 500,
        "initial_u": 30,
    }
