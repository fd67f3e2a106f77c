"""Figures of influence by term: panels, scales and numbers, and what they refuse."""

import warnings

import numpy as np
import pytest
import xarray as xr
from matplotlib.figure import Figure

from whence import pinn, plots
from whence.attribution.labels import SIGN
from whence.plots.influence_fields import interior_terms
from whence.plots.plane import Plane
from whence.plots.smoothing import WIDTH, smoothed

TERMS = ("continuity", "momentum_x", "momentum_y", "noslip_u", "noslip_v", "inflow_u",
         "inflow_v", "outflow_u", "outflow_v")  # fmt: skip


@pytest.fixture(name="channel", scope="module")
def _channel():
    return pinn.zoo.load("navier_stokes")


@pytest.fixture(name="table", scope="module")
def _table(channel):
    """Made-up influences of nine terms on three targets in a channel."""
    counts = dict.fromkeys(channel.terms, 12) | dict.fromkeys(TERMS[:3], 40)
    points = channel.sample(counts, seed=0)
    rows = np.concatenate([points[name].numpy() for name in TERMS])
    n = len(rows)
    rng = np.random.default_rng(0)
    return xr.DataArray(
        rng.normal(size=(3, n)) * 10.0 ** rng.uniform(-6, 0, size=n),
        {
            "x": ("point", rows[:, 0]),
            "y": ("point", rows[:, 1]),
            "term": ("point", np.repeat(TERMS, [len(points[t]) for t in TERMS])),
            "index": ("point", np.concatenate([np.arange(len(points[t])) for t in TERMS])),
            "quantity": ("target", ["u"] * 3),
            "target_x": ("target", [3.0, 4.0, 5.0]),
            "target_y": ("target", [2.0, 2.5, 1.5]),
        },
        ("target", "point"),
        attrs={"effect": "remove", "sign": SIGN["remove"], "quantity": "u"},
    )  # fmt: skip


def drawn(figure: Figure):
    """Draw it without a warning, as of a panel that has no room."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure.draw_without_rendering()
    return figure


def panels(figure):
    return [axes for axes in figure.axes if axes.get_title()]


def check_channel(figure, n):
    """Panels of one scale in x and y, none on another, no legend, all on the figure."""
    drawn(figure)
    shown = panels(figure)
    assert len(shown) == n
    boxes = []
    for axes in shown:
        assert axes.get_legend() is None
        assert axes.get_aspect() == 1.0
        box = axes.get_window_extent()
        assert box.width / box.height == pytest.approx(
            22 * 1.06 / (4.1 * 1.06), rel=0.02
        )
        # Wide enough to be read: four inches or more.
        assert box.width / figure.dpi > 4
        boxes.append(axes.get_tightbbox())
    assert not figure.legends
    for k, box in enumerate(boxes):
        assert box.x1 <= figure.bbox.x1 + 1
        for other in boxes[:k]:
            is_apart = box.x0 >= other.x1 or other.x0 >= box.x1
            # Marks on the edge of a panel stand a few pixels over it.
            assert is_apart or box.y0 >= other.y1 - 4 or other.y0 >= box.y1 - 4


def test_a_panel_for_each_term_of_a_channel(table, channel):
    row = table.isel(target=0)
    figure = plots.influence_by_term(row, channel)
    check_channel(figure, 9)
    for axes, name in zip(panels(figure), TERMS, strict=True):
        of_term = row.values[row["term"].values == name]
        (points,) = [c for c in axes.collections if len(c.get_offsets()) in (12, 40)]
        assert len(points.get_offsets()) == len(of_term)
        share = abs(of_term).sum() / abs(row.values).sum()
        number = f"{100 * share:.3g} %" if share >= 1e-3 else "< 0.1 %"
        assert axes.get_title() == f"{name}: {len(of_term)} points, {number}"
        # The star of the target.
        (star,) = [line for line in axes.lines if line.get_marker() == "*"]
        assert (star.get_xdata()[0], star.get_ydata()[0]) == (3.0, 2.0)
    few = plots.influence_by_term(row, channel, terms=["noslip_u", "continuity"])
    titles = [axes.get_title().split(":")[0] for axes in panels(few)]
    assert titles == ["noslip_u", "continuity"]
    check_channel(few, 2)
    boxes = [axes.get_window_extent() for axes in panels(few)]
    assert boxes[0].x0 == boxes[1].x0  # above each other


def test_means_of_sizes_over_many_targets(table, channel):
    figure = plots.mean_influence(table, channel)
    check_channel(figure, 9)
    (bar,) = [axes for axes in figure.axes if not axes.get_title()]
    means = abs(table.values).mean(axis=0)
    assert bar.get_xlim()[1] == pytest.approx(means.max())
    assert bar.get_xlabel() == "mean |influence| on u"
    (frame,) = panels(figure)[0].patches
    assert frame.get_bbox().extents.tolist() == [3.0, 1.5, 5.0, 2.5]
    (caption,) = [t.get_text() for t in figure.texts if "green frame" in t.get_text()]
    assert "3 targets" in caption


def test_runs_share_one_scale(table, channel):
    row = table.isel(target=0)
    runs = {"good": row, "broken": 100 * row, "bad": 10 * row}
    figure = plots.compared_influence(runs, channel)
    # Three runs of a channel stand above each other, term by term.
    check_channel(figure, 9)
    assert len({round(axes.get_window_extent().x0) for axes in panels(figure)}) == 1
    shares = {t: abs(row.values[row["term"].values == t]).sum() for t in TERMS}
    strongest = sorted(TERMS, key=lambda name: -shares[name])[:3]
    titles = [axes.get_title() for axes in panels(figure)]
    assert [title.split(",")[0] for title in titles] == ["good", "broken", "bad"] * 3
    assert {title.split(": ")[0].split(", ")[1] for title in titles} == set(strongest)
    (bar,) = [axes for axes in figure.axes if not axes.get_title()]
    shown = np.isin(row["term"].values, strongest)
    assert bar.get_xlim()[1] == pytest.approx(100 * abs(row.values[shown]).max())

    many = plots.compared_influence({"a": table, "b": table}, channel, ["inflow_u"])
    check_channel(many, 2)
    with pytest.raises(ValueError, match="two runs or more"):
        plots.compared_influence({"a": table}, channel)
    with pytest.raises(ValueError, match="on one target each, or on many each"):
        plots.compared_influence({"a": table, "b": row}, channel)
    with pytest.raises(ValueError, match="did you mean 'noslip_u'"):
        plots.compared_influence({"a": row, "b": row}, channel, ["noslip_uu"])


def test_smoothed_fields_stand_beside_their_points(table, channel):
    row = table.isel(target=0)
    figure = plots.smoothed_influence(row, channel)
    check_channel(figure, 6)
    titles = [axes.get_title() for axes in panels(figure)]
    assert titles[1::2] == [f"{name}: smoothed" for name in TERMS[:3]]
    assert interior_terms(row, channel) == list(TERMS[:3])
    only = row.isel(point=row["term"].values == "inflow_u")
    with pytest.raises(ValueError, match="no term has 20 points or more within"):
        plots.smoothed_influence(only, channel)


def test_smoothing_against_sums_by_hand(channel):
    plane = Plane.of(channel.coordinates, channel.time)
    grid = plane.grid(channel, 21)
    points = channel.draw("continuity", 30, seed=0).numpy()
    values = np.sin(points[:, 0])
    row = xr.DataArray(
        values, {"x": ("point", points[:, 0]), "y": ("point", points[:, 1])}, "point"
    )
    field = smoothed(row, channel, plane, grid)
    assert np.array_equal(np.isnan(field), ~grid.inside)
    h = WIDTH * np.sqrt(22 * 4.1 * grid.inside.mean() / 30)
    for i, j in ((0, 0), (10, 15), (20, 3)):
        z = np.array([grid.horizontal[j], grid.vertical[i]])
        kernel = np.exp(-((points - z) ** 2).sum(axis=1) / (2 * h**2))
        assert field[i, j] == pytest.approx((kernel @ values) / kernel.sum(), rel=1e-12)


def test_what_one_point_does_to_fields(channel):
    x, y = np.meshgrid(np.linspace(0, 22, 12), np.linspace(0, 4.1, 5))
    places = np.stack([x.ravel(), y.ravel()], axis=1)
    places = places[channel.domain.contains(places)]
    n = len(places)
    both = np.concatenate([places, places])
    values = np.concatenate([both[:n, 0], -both[n:, 1]])[:, None]
    column = xr.DataArray(
        values,
        {
            "target_x": ("target", both[:, 0]),
            "target_y": ("target", both[:, 1]),
            "quantity": ("target", ["u"] * n + ["p"] * n),
            "x": ("point", [3.0]),
            "y": ("point", [4.1]),
            "term": ("point", ["noslip_u"]),
        },
        ("target", "point"),
    )
    figure = plots.influence_field(column, channel)
    check_channel(figure, 2)
    for axes, expected in zip(panels(figure), (x, -y), strict=True):
        mesh = next(c for c in axes.collections if hasattr(c, "get_coordinates"))
        shown = np.ma.filled(mesh.get_array(), np.nan).reshape(5, 12)
        inside = np.isfinite(shown)
        assert inside.sum() == n
        np.testing.assert_array_equal(shown[inside], expected[inside])
    assert "point of noslip_u at (x=3, y=4.1)" in figure.get_suptitle()
    assert (
        plots.describe_point(column)
        .splitlines()[0]
        .endswith("the most at (x=22, y=0).")
    )
    with pytest.raises(ValueError, match="of one training point"):
        plots.influence_field(column.isel(point=[0, 0]), channel)


def terms_table(signed, sizes, losses, names):
    signed, sizes = np.array(signed), np.array(sizes)
    both = ("quantity", "term")
    return xr.Dataset(
        {
            "influence": (both, signed),
            "magnitude": (both, sizes),
            "share": (both, sizes / sizes.sum(1, keepdims=True)),
            "loss_share": ("term", np.array(losses)),
        },
        {"quantity": names, "term": ["pde", "wall"]},
    )


def test_terms_on_terms_as_a_heat_map():
    table = terms_table([[3, -1], [0, -8]], [[3.0, 1], [2, 8]], [0.9, 0.1], ["a", "b"])
    figure = drawn(plots.term_matrix(table))
    (image,) = figure.axes[0].images
    # By the magnitude of all points on the same quantity.
    np.testing.assert_allclose(image.get_array(), [[0.75, -0.25], [0, -0.8]])
    assert image.get_clim() == (-0.8, 0.8)
    assert [t.get_text() for t in figure.axes[0].texts] == ["75", "25", "20", "80"]
    with pytest.raises(ValueError, match=r"what wh\.term_matrix returns"):
        plots.term_matrix(table["share"])


@pytest.mark.parametrize(
    ("names", "labels", "second"),
    [
        (["loss pde", "u"], ["loss", "influence on u"], [20, 80]),
        (["loss pde", "loss wall"], ["loss", "influence on losses"], [47.5, 52.5]),
    ],
)
def test_shares_as_bars(names, labels, second):
    table = terms_table([[3, -1], [0, -8]], [[3.0, 1], [2, 8]], [0.9, 0.1], names)
    figure = drawn(plots.term_shares(table))
    (axes,) = figure.axes
    assert [t.get_text() for t in axes.get_legend().get_texts()] == labels
    bars = [[bar.get_width() for bar in bars] for bars in axes.containers]
    np.testing.assert_allclose(bars, [[90, 10], second])
    lines = plots.describe_terms(table).splitlines()
    assert lines[1].split() == ["the", "loss", "90", "10"]


def leave_one_out_pair():
    terms = ["pde"] * 4 + ["wall"] * 2
    coords = {"term": ("point", terms), "index": ("point", [0, 1, 2, 3, 0, 1])}
    predicted = xr.DataArray([1.0, -2.0, 3.0, 0.1, 5.0, -4.0], coords, "point")
    chosen = [4, 2, 0, 1]
    true = 2 * predicted[chosen].copy()
    true.attrs = {"stability": -0.001}
    return predicted, true, chosen


def test_predictions_against_retraining():
    predicted, true, chosen = leave_one_out_pair()
    figure = drawn(plots.leave_one_out(predicted, true))
    assert "Spearman 1.00" in figure.get_suptitle()
    (axes,) = figure.axes
    pairs = np.concatenate([c.get_offsets() for c in axes.collections])
    expected = {(2 * v, v) for v in predicted.values[chosen]}
    assert {tuple(map(float, pair)) for pair in pairs} == expected
    texts = [text.get_text().replace("\n", " ") for text in figure.texts]
    assert any("Spearman of 0.00" in text for text in texts)

    wrong = true.copy(data=-true.values)
    assert "Spearman -1.00" in plots.leave_one_out(predicted, wrong).get_suptitle()


def test_what_cannot_be_compared_with_retraining():
    predicted, true, _ = leave_one_out_pair()
    with pytest.raises(
        ValueError, match="point 0 of wall was left out but not predicted"
    ):
        plots.leave_one_out(predicted[:4], true)
    with pytest.raises(ValueError, match="need the coordinates term and index"):
        plots.leave_one_out(predicted.drop_vars("index"), true)
    two = xr.concat([true, true], "target")
    with pytest.raises(ValueError, match="1 targets, retrained of 2"):
        plots.leave_one_out(predicted, two)


def test_many_answers_in_words(table):
    text = plots.describe_targets(table)
    means = abs(table.values).mean(axis=0)
    terms = table["term"].values
    strongest = int(means.argmax())
    assert text.startswith("Influence on u at 3 targets: ")
    assert f"the strongest point, of {terms[strongest]}, is at (x=" in text
    assert plots.describe_targets(0 * table).startswith(
        "No point has any influence on u"
    )
    row = table.isel(target=0)
    assert plots.describe_targets(row) == plots.describe_influence(row)
