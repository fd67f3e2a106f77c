"""What one asks of an attribution first: extremes, sums by term, a figure."""

import subprocess
import sys

import numpy as np
import pytest
import torch
import xarray as xr
from matplotlib.figure import Figure

import whence as wh
from whence import pinn
from whence.attribution.result import Attribution, smallest
from whence.attribution.storage import read_zarr

VALUES = np.array([[0.5, -3.0, 2.0, 0.5, -1.0], [1.0, 0.0, -4.0, 0.25, 3.0]])
TERMS = ["pde", "pde", "data", "pde", "data"]


def attribution(values=VALUES):
    points = np.arange(5.0)
    array = Attribution(
        values,
        coords={
            "x": ("point", points / 10),
            "t": ("point", -points),
            "term": ("point", np.array(TERMS, dtype=object)),
            "index": ("point", [0, 1, 0, 2, 1]),
            "quantity": ("target", ["u", "v"]),
            "target_x": ("target", [0.1, 0.2]),
        },
        dims=("target", "point"),
        name="influence",
        attrs={"method": "influence", "sign": "of removal"},
    )
    return array.set_xindex("term")


@pytest.fixture(name="burgers", scope="module")
def _burgers():
    problem = pinn.zoo.load("burgers", "soft")
    points = problem.sample({"pde": 20, "initial_u": 6, "dirichlet_u": 4}, seed=0)
    objective = problem.objective(problem.network(seed=0), points)
    return problem, wh.GradDot(objective).attribute(
        wh.Output(torch.tensor([[0.1, 0.5], [0.2, 0.4]]).double())
    )


# --- extremes -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ask", "places"),
    [
        (lambda a: a.top(3), [2, 0, 3]),
        (lambda a: a.top(3, by="size"), [1, 2, 4]),
        (lambda a: a.bottom(2), [1, 4]),
        (lambda a: a.top(99), [2, 0, 3, 4, 1]),
    ],
)
@pytest.mark.parametrize("squeeze", [True, False])
def test_extremes_of_one_target(ask, places, squeeze):
    row = attribution().isel(target=0 if squeeze else [0])
    extremes = ask(row)
    assert isinstance(extremes, Attribution)
    assert extremes.dims == ("point",)
    assert extremes.values.tolist() == VALUES[0, places].tolist()
    assert extremes["x"].values.tolist() == [place / 10 for place in places]
    assert extremes["term"].values.tolist() == [TERMS[place] for place in places]
    assert extremes["index"].values.tolist() == [[0, 1, 0, 2, 1][p] for p in places]
    assert extremes.attrs == row.attrs
    assert extremes.sel(term="pde").size == sum(TERMS[p] == "pde" for p in places)


@pytest.mark.parametrize("turned", [False, True])
def test_extremes_of_several_targets(turned):
    table = attribution()
    if turned:
        table = table.transpose("point", "target")
    top = table.top(2)
    assert top.dims == ("target", "rank")
    assert top.values.tolist() == [[2.0, 0.5], [3.0, 1.0]]
    assert top["x"].values.tolist() == [[0.2, 0.0], [0.4, 0.0]]
    assert top["term"].values.tolist() == [["data", "pde"], ["data", "pde"]]
    assert top["index"].values.tolist() == [[0, 0], [1, 0]]
    assert top["quantity"].values.tolist() == ["u", "v"]
    assert table.top(1, by="size").values.tolist() == [[-3.0], [-4.0]]
    assert table.bottom(1).values.tolist() == [[-3.0], [-4.0]]


def test_extremes_of_a_real_attribution(burgers):
    _, table = burgers
    row = table.isel(target=1)
    assert row.top(4).values.tolist() == sorted(row.values.tolist())[:-5:-1]
    assert row.bottom(4).values.tolist() == sorted(row.values.tolist())[:4]
    for extremes in (row.top(4), table.top(4).isel(target=1)):
        for value, x, t in zip(
            extremes.values, extremes["x"].values, extremes["t"].values, strict=True
        ):
            (same,) = np.flatnonzero((row["x"] == x) & (row["t"] == t))
            assert row.values[same] == value
    assert str(row.top().quality())


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda a: a.top(0), ValueError, "k must be a positive integer, got 0"),
        (lambda a: a.bottom(-1), ValueError, "k must be a positive integer, got -1"),
        (lambda a: a.top(by="sise"), ValueError, "did you mean 'size'"),
        (lambda a: a.isel(point=0).top(), ValueError, "the dimensions .target, point."),
        (lambda a: a.isel(point=0).by_term(), ValueError, "the dimensions"),
        (
            lambda a: a.expand_dims("feature").top(),
            ValueError,
            "select the rest with isel",
        ),
        (lambda a: a.drop_vars("term").by_term(), ValueError, "no coordinate 'term'"),
        (lambda a: a.isel(point=0).by_place(), ValueError, "the dimensions"),
        (lambda a: a.drop_vars(["x", "t"]).by_place(), ValueError, "no coordinates"),
    ],
)
def test_what_cannot_be_asked(call, error, message):
    with pytest.raises(error, match=message):
        call(attribution())


# --- sums ---------------------------------------------------------------------------------------


def test_sums_by_term():
    sums = attribution().by_term()
    assert isinstance(sums, Attribution)
    assert sums.dims == ("target", "term")
    assert sums["term"].values.tolist() == ["pde", "data"]
    assert sums.values.tolist() == [[-2.0, 1.0], [1.25, -1.0]]
    assert sums["quantity"].values.tolist() == ["u", "v"]
    assert sums.attrs["method"] == "influence"
    assert sums.attrs["reduction"] == "sum over the points of each term"
    assert sums.sel(term="data").values.tolist() == [1.0, -1.0]
    row = attribution().isel(target=1).by_term()
    assert (row.dims, row.values.tolist()) == (("term",), [1.25, -1.0])
    assert attribution().sel(term="pde").by_term().values.tolist() == [[-2.0], [1.25]]


def test_sums_of_a_real_attribution(burgers):
    _, table = burgers
    sums = table.by_term()
    assert sums["term"].values.tolist() == list(dict.fromkeys(table["term"].values))
    np.testing.assert_allclose(sums.sum("term"), table.sum("point"), rtol=1e-12)


def test_sums_by_place():
    table = attribution().assign_coords(
        x=("point", [0.3, 0.1, 0.3, 0.3, 0.1]), t=("point", [1.0, 0.0, 1.0, 2.0, -0.0])
    )
    places = table.by_place()
    assert isinstance(places, Attribution)
    assert places.dims == ("target", "point")
    # Points 0 and 2, 1 and 4 (-0.0 is 0.0), and 3 alone, in the order in which they come.
    assert places.values.tolist() == [[2.5, -4.0, 0.5], [-3.0, 3.0, 0.25]]
    assert places["x"].values.tolist() == [0.3, 0.1, 0.3]
    assert places["t"].values.tolist() == [1.0, 0.0, 2.0]
    assert places["term"].values.tolist() == ["pde + data", "pde + data", "pde"]
    assert "index" not in places.coords
    assert places["quantity"].values.tolist() == ["u", "v"]
    assert places.attrs["reduction"] == "sum over the points at each place"
    assert places.sel(term="pde + data").values.tolist() == [[2.5, -4.0], [-3.0, 3.0]]
    xr.testing.assert_identical(places.by_place(), places)
    assert places.top(1)["x"].values.tolist() == [[0.3], [0.1]]
    xr.testing.assert_identical(table.transpose("point", "target").by_place(), places)
    row = table.isel(target=0).sel(term="pde").by_place()
    assert (row.dims, row.values.tolist()) == (("point",), [0.5, -3.0, 0.5])


def test_places_of_a_real_attribution():
    """Two equations at the same points: each place has the sum of two entries."""
    problem = pinn.Problem(
        domain=pinn.Rectangle(("x", "y"), (0, 0), (1, 1)),
        outputs=("u", "v"),
        equations={
            "mass": lambda u_x, v_y: u_x + v_y,
            "curl": lambda u_y, v_x: u_y - v_x,
        },
        conditions=[pinn.Dirichlet(u=0.0, on="x")],
    )
    points = problem.sample({"mass": 12, "curl": 12, "dirichlet_u": 5}, seed=0)
    objective = problem.objective(pinn.MLP([2, 4, 2], seed=0), points)
    table = wh.GradDot(objective).attribute(wh.Output([[0.1, 0.5], [0.2, 0.4]], "u"))
    places = table.by_place()
    joined = table.sel(term="mass").values + table.sel(term="curl").values
    assert places["term"].values.tolist() == ["mass + curl"] * 12 + ["dirichlet_u"] * 5
    assert np.array_equal(places.sel(term="mass + curl").values, joined)
    assert np.array_equal(places.sel(term="dirichlet_u"), table.sel(term="dirichlet_u"))
    assert np.array_equal(places["y"], table["y"][[*range(12), *range(24, 29)]])
    assert isinstance(places.isel(target=0).plot(problem=problem), Figure)


# --- figures ------------------------------------------------------------------------------------


def texts(figure):
    return " ".join(text.get_text() for text in figure.findobj(match=_is_text))


def _is_text(artist):
    return hasattr(artist, "get_text")


def test_points_of_two_coordinates_are_a_map(burgers):
    problem, table = burgers
    for options in ({}, {"problem": problem}, {"term": "pde"}):
        figure = table.isel(target=0).plot(**options)
        assert isinstance(figure, Figure)
        assert figure.axes[0].get_xlabel() == "t"
        assert figure.axes[0].get_ylabel() == "x"
        assert "Influence of each point" in texts(figure)
    with pytest.raises(ValueError, match=r"2 targets: select one"):
        table.plot()
    assert isinstance(table.isel(target=[0]).plot(), Figure)


def test_samples_are_histograms_by_label_or_bars():
    x = torch.rand(12, 3, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(12) % 2
    model = torch.nn.Linear(3, 2)
    table = wh.GradDot(model, (x, labels), wh.CrossEntropy()).attribute(wh.Loss())
    figure = table.plot(names=["cat", "dog"])
    assert [axes.get_ylabel().split("\n")[0] for axes in figure.axes] == ["cat", "dog"]

    many = torch.rand(12, 2)
    regression = wh.GradDot(model, (x, many), wh.Squared()).attribute(wh.Loss())
    figure = regression.isel(target=0).plot(k=5)
    (axes,) = figure.axes
    names = [label.get_text() for label in axes.get_yticklabels()]
    sizes = np.abs(regression.values[0])
    assert names == [str(i) for i in np.argsort(-sizes, kind="stable")[:5]]
    widths = [abs(bar.get_width()) for bar in axes.patches]
    np.testing.assert_allclose(widths, np.sort(sizes)[:-6:-1], rtol=1e-6)
    assert "5 strongest of 12 points" in texts(figure)


def test_points_of_one_coordinate_are_bars():
    row = attribution().isel(target=0).drop_vars("t")
    (axes,) = row.plot(k=2).axes
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert names == ["pde (x=0.1)", "data (x=0.2)"]
    with pytest.raises(ValueError, match="k must be a positive integer"):
        row.plot(k=0)


def test_the_plots_of_xarray_are_at_hand(burgers):
    import matplotlib.pyplot as plt

    _, table = burgers
    row = table.isel(target=0).rename("influence")
    assert row.plot.line(x="x") is not None
    dataset = row.reset_coords(["x", "t"])
    assert dataset.plot.scatter(x="t", y="x", hue="influence") is not None
    assert table.plot.imshow() is not None
    plt.close("all")


def test_an_attribution_loads_no_matplotlib():
    code = (
        "import sys, whence.attribution.result as r; "
        "r.Attribution([[1.0]], dims=('target', 'point')).top(); "
        "print('matplotlib' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "False"


# --- on disk ------------------------------------------------------------------------------------


def test_what_is_read_from_disk_answers_too_and_reads_late(tmp_path):
    data = torch.rand(6, 3), torch.arange(6) % 2
    method = wh.GradDot(torch.nn.Linear(3, 2), data, wh.CrossEntropy())
    written = method.attribute(wh.Loss(), out=tmp_path / "a.zarr")
    assert isinstance(written, Attribution)
    stored = read_zarr(tmp_path / "a.zarr")
    assert not isinstance(stored.variable._data, np.ndarray)
    xr.testing.assert_identical(stored.top(2), written.top(2))
    assert stored.by_term().sizes == {"target": 6, "term": 1}


@pytest.mark.parametrize("k", [1, 3, 50, 99, 100, 200])
def test_the_smallest_come_as_in_a_stable_sort(k):
    generator = np.random.default_rng(k)
    for share in (0.0, 0.3, 1.0):
        keys = generator.integers(0, 9, 100).astype(float)  # many are equal
        keys[generator.random(100) < share] = np.nan
        expected = np.argsort(keys, kind="stable")[:k]
        assert smallest(keys, k).tolist() == expected.tolist()


def test_rows_are_read_some_at_a_time(tmp_path, monkeypatch):
    values = np.random.default_rng(0).standard_normal((7, 20))
    terms = ("point", ["a"] * 12 + ["b"] * 8)
    whole = Attribution(values, {"term": terms}, ("target", "point"))
    expected = whole.top(3), whole.bottom(2), whole.by_term()
    monkeypatch.setattr("whence.attribution.result.MAX_ROW_BYTES", 2 * 20 * 8)
    assert [len(rows) for rows in whole._rows()] == [2, 2, 2, 1]
    found = whole.top(3), whole.bottom(2), whole.by_term()
    assert all(a.equals(b) for a, b in zip(found, expected, strict=True))
    assert whole.top(3, by="size").values.shape == (7, 3)
    turned = whole.transpose("point", "target")
    assert turned.by_term().equals(expected[2])
