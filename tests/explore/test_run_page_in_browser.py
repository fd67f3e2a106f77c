"""More of the page of a run in a real browser: two runs, slices, formulas, regions, training.

``make test-browser`` installs what these need where that can be; elsewhere they are passed over.
"""

import xml.etree.ElementTree as ET
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest
from browsing import (
    READY,
    SVG,
    downloaded,
    draw_region,
    middle,
    needs_chromium,
    opened,
    rows_of,
    shown_place,
    text_of,
    texts_of,
    wait_for_place,
    wait_for_text,
)
from explorers import line_run, served, small_run, space_run

from whence.explore import Session
from whence.explore.answers import Answers

pytestmark = [
    needs_chromium,
    pytest.mark.filterwarnings("ignore::whence.attribution.quality.FarFromMinimum"),
]


def asked_for(page, name):
    """Return the parameters of the questions of one kind that the page has asked."""
    return [
        {key: values[-1] for key, values in parse_qs(urlsplit(url).query).items()}
        for url in page.requests
        if urlsplit(url).path.endswith(f"/api/{name}")
    ]


@pytest.fixture
def page(browser, explorer):
    with opened(browser, explorer.address, ready=READY) as page:
        yield page


# --- two runs ---


@pytest.fixture(scope="module")
def other():
    return small_run(seed=3)


@pytest.fixture(scope="module")
def both(result, other):
    with served(result, other) as explorer:
        yield explorer


@pytest.fixture
def compared(browser, both):
    with opened(browser, both.address, ready=READY) as page:
        yield page


def test_both_runs_are_asked_for_the_same_target(compared, result, other):
    before = compared.evaluate("document.body.dataset.shown")
    compared.mouse.click(*middle(compared, "field-map-1", 0.3, 0.6))
    wait_for_place(compared, other_than=before)
    _, at = shown_place(compared)
    for number, run in enumerate((result, other)):
        asked = [q for q in asked_for(compared, "influence") if q["run"] == str(number)]
        assert [float(x) for x in asked[-1]["at"].split(",")] == at
        suffix = f"-{number}" if number else ""
        rows = rows_of(downloaded(compared, f"[data-csv='influence{suffix}']"))[1:]
        row = Session(run).influence_at(at)
        np.testing.assert_allclose(
            [float(line[-1]) for line in rows], row.values, rtol=1e-9, atol=1e-14
        )
        # The strongest of each run are in a table of its own.
        strongest = row.top(1, by="size")
        first = compared.locator(f"#strongest{suffix} tbody tr").first.inner_text()
        assert str(strongest["term"].values[0]) in first
        assert compared.locator(f"#strongest{suffix} tbody tr").count() == 10


@pytest.mark.parametrize("name", ["field", "influence"])
def test_both_runs_have_the_same_colors(compared, name):
    """The last three texts of a map are those of its colour bar."""
    first = texts_of(downloaded(compared, f"[data-svg='{name}']"))[-3:]
    second = texts_of(downloaded(compared, f"[data-svg='{name}-1']"))[-3:]
    assert first == second
    assert len(set(first)) > 1


def test_the_difference_is_second_minus_first(compared, result, other):
    rows = rows_of(downloaded(compared, "[data-csv='field-difference']"))
    assert rows[0] == ["t", "x", "value"]
    fields = [
        Answers(Session(run), resolution=21).field("u") for run in (result, other)
    ]
    expected = fields[1] - fields[0]
    values = np.array([float(row[-1]) for row in rows[1:]]).reshape(21, 21)
    np.testing.assert_allclose(values, expected, rtol=1e-9, atol=1e-12)
    assert np.abs(expected).max() > 1e-3
    assert [float(value) for value in rows[-1][:2]] == [1, 1]
    # Its colours go as far as it does.
    high = texts_of(downloaded(compared, "[data-svg='field-difference']"))[-3]
    assert float(high) == pytest.approx(np.abs(expected).max(), rel=5e-3)
    for name in ("field", "influence"):
        assert compared.locator(f"#{name}-map-difference").is_visible()


def test_a_point_of_the_second_run(compared, other):
    compared.locator("#strongest-1 tbody button").first.click()
    wait_for_text(compared, "field-caption", "What removing")
    asked = asked_for(compared, "point")[-1]
    assert asked["run"] == "1"
    assert "run=1" in compared.url
    assert compared.locator("#field-map-difference").is_hidden()


# --- one coordinate, and three ---


@pytest.fixture(scope="module")
def line():
    return line_run()


def test_a_line(browser, line):
    with (
        served(line) as explorer,
        opened(browser, explorer.address, ready=READY) as page,
    ):
        before = page.evaluate("document.body.dataset.shown")
        page.mouse.click(*middle(page, "field-map", 0.25, 0.9))
        wait_for_place(page, other_than=before)
        _, at = shown_place(page)
        assert at == pytest.approx([0.25], abs=0.01)
        wait_for_text(page, "value", f"u at x = {format(at[0], '.3g')}")

        # What is drawn is the solution, from the left to the right.
        svg = downloaded(page, "[data-svg=field]")
        curves = [path.get("d") for path in ET.fromstring(svg).iter(f"{SVG}path")]
        curve = max(curves, key=len)
        places = np.array([pair.split() for pair in curve[1:].split("L")], dtype=float)
        assert len(places) == 21
        expected = line.solution(np.linspace(0, 1, 21)[:, None])[:, 0]
        share = (expected - expected.min()) / np.ptp(expected)
        drawn = (places[:, 1].max() - places[:, 1]) / np.ptp(places[:, 1])
        np.testing.assert_allclose(drawn, share, atol=0.01)
        rows = rows_of(downloaded(page, "[data-csv=field]"))
        assert rows[0] == ["x", "value"]
        np.testing.assert_allclose([float(row[1]) for row in rows[1:]], expected)

        # A smooth field has no place where a point's height is its influence.
        assert page.locator("#view").is_hidden()
        assert page.locator("#rounds-panel").is_hidden()
        before = page.evaluate("document.body.dataset.shown")
        page.locator("#field-map canvas").focus()
        page.keyboard.press("ArrowRight")
        wait_for_place(page, other_than=before)
        assert shown_place(page)[1][0] == pytest.approx(at[0] + 1 / 60)


@pytest.fixture
def sliced(browser):
    with (
        served(space_run()) as explorer,
        opened(browser, explorer.address, ready=READY) as page,
    ):
        yield page


def wait_for_field(page, **wanted):
    """Wait until a field was asked for on a slice, and return the question."""
    for _ in range(100):
        (*_, last) = asked_for(page, "field")
        if all(last[name] == value for name, value in wanted.items()):
            return last
        page.wait_for_timeout(100)
    pytest.fail(f"asked was {last}")


def test_a_slider_moves_the_slice(sliced):
    assert wait_for_field(sliced, axes="0,1")["through"] == "0.5,1,2"
    before = rows_of(downloaded(sliced, "[data-csv=field]"))
    # Time is held: a quarter of its range, 0 to 4.
    sliced.locator("#slice-2").fill("50")
    wait_for_field(sliced, axes="0,1", through="0.5,1,1")
    sliced.wait_for_function("() => document.body.dataset.shown === 'u@0.5,1,1'")
    assert sliced.locator("#slices output").inner_text() == "1"
    sliced.wait_for_timeout(200)
    assert rows_of(downloaded(sliced, "[data-csv=field]")) != before
    assert "at=0.5%2C1%2C1" in sliced.url


def test_a_region_is_not_carried_to_other_axes(sliced):
    draw_region(sliced)
    sliced.locator("#axis-up").select_option("t")
    sliced.wait_for_selector("#region-panel", state="hidden")
    svg = ET.fromstring(downloaded(sliced, "[data-svg=influence]"))
    dashed = [path.get("stroke-dasharray") for path in svg.iter(f"{SVG}path")]
    assert set(dashed) <= {"none", None}


def test_axes_change_places(sliced):
    across, up = sliced.locator("#axis-across"), sliced.locator("#axis-up")
    across.select_option("y")
    assert (across.input_value(), up.input_value()) == ("1", "0")
    wait_for_field(sliced, axes="1,0")
    # Whoever uses keys is still there.
    assert sliced.evaluate("document.activeElement.id") == "axis-across"
    up.select_option("t")
    wait_for_field(sliced, axes="1,2")
    assert sliced.locator("#slice-0").is_visible()
    assert sliced.locator("#slice-2").count() == 0
    sliced.wait_for_timeout(200)
    svg = downloaded(sliced, "[data-svg=influence]")
    assert {"y", "t"} < set(texts_of(svg))
    assert {"y", "t"} < set(texts_of(downloaded(sliced, "[data-svg=rounds]")))
    assert "axes=1%2C2" in sliced.url


def test_near_the_slice_only(sliced):
    assert "of 120 points" in text_of(sliced, "share-caption")
    sliced.locator("#near").check()
    sliced.wait_for_function(
        "() => !document.getElementById('share-caption').textContent.includes('of 120 points')"
    )
    counted = int(text_of(sliced, "share-caption").split(" of ")[1].split()[0])
    points = rows_of(downloaded(sliced, "[data-csv=influence]"))[1:]
    near = sum(abs(float(row[4]) - 2) <= 0.4 for row in points)
    assert counted == near
    assert 0 < near < 120


# --- what is shown ---


def test_a_formula(page, result):
    page.locator("#field").fill("u_xx + 2*sin(u)")
    page.locator("#field").press("Enter")
    wait_for_text(page, "field-caption", "u_xx + 2*sin(u) of the network")
    values = [
        float(row[-1]) for row in rows_of(downloaded(page, "[data-csv=field]"))[1:]
    ]
    expected = Answers(Session(result), resolution=21).field("u_xx + 2*sin(u)")
    np.testing.assert_allclose(values, expected.ravel(), rtol=1e-9, atol=1e-12)


def test_a_wrong_formula_is_said_and_the_page_goes_on(page):
    page.locator("#field").fill("u_xx + open(u)")
    page.locator("#field").press("Enter")
    page.wait_for_selector("#problem:not([hidden])")
    assert "is no formula of names" in text_of(page, "problem")
    before = page.evaluate("document.body.dataset.shown")
    page.mouse.click(*middle(page, "field-map", 0.7, 0.3))
    wait_for_place(page, other_than=before)
    wait_for_text(page, "value", "u at x = −0.4")
    # It is still wrong, though what was clicked is answered.
    assert page.locator("#problem").is_visible()
    page.locator("#field").fill("u_x")
    page.locator("#field").press("Enter")
    page.wait_for_selector("#problem", state="hidden")
    wait_for_text(page, "field-caption", "u_x of the network")


def test_an_address_with_a_wrong_formula(browser, explorer):
    address = f"{explorer.address}#field=nonsense"
    with opened(browser, address, ready=READY) as page:
        page.wait_for_selector("#problem:not([hidden])")
        assert "nonsense" in text_of(page, "problem")
        assert page.locator("#strongest tbody tr").count() == 10


def test_smooth(page, result):
    page.locator("#view").select_option("smooth")
    assert "view=smooth" in page.url
    wait_for_text(page, "influence-caption", "smoothed sum by area")
    svg = ET.fromstring(downloaded(page, "[data-svg=influence]"))
    assert len(list(svg.iter(f"{SVG}image"))) == 1
    assert not list(svg.iter(f"{SVG}circle"))


def test_svg(page, result):
    field = ET.fromstring(downloaded(page, "[data-svg=field]"))
    assert len(list(field.iter(f"{SVG}image"))) == 1
    said = [part.text for part in field.iter(f"{SVG}text")]
    assert {"x", "t", "0", "1", "−1"} <= set(said)
    influence = ET.fromstring(downloaded(page, "[data-svg=influence]"))
    assert {"x", "t"} <= {part.text for part in influence.iter(f"{SVG}text")}
    assert len(list(influence.iter(f"{SVG}circle"))) == result.objective.n_points
    for name in ("share", "history"):
        figure = ET.fromstring(downloaded(page, f"[data-svg={name}]"))
        assert list(figure.iter(f"{SVG}text"))
        assert list(figure.iter(f"{SVG}polyline"))


def test_tables(page, result):
    session = Session(result)
    sizes = np.sort(np.abs(session.influence_at([0.0, 0.5]).values))[::-1]
    rows = rows_of(downloaded(page, "[data-csv=share]"))
    assert rows[0] == ["run", "points", "share"]
    shares = [float(row[2]) for row in rows[1:]]
    np.testing.assert_allclose(shares, sizes.cumsum() / sizes.sum(), rtol=1e-9)
    assert rows[-1][:2] == ["burgers", "250"]

    rows = rows_of(downloaded(page, "[data-csv=history]"))
    column = rows[0].index("loss")
    losses = [float(row[column]) for row in rows[1:]]
    assert losses == pytest.approx([row["loss"] for row in result.history])

    figure = downloaded(page, "[data-svg=terms]")
    texts = [text.text for text in ET.fromstring(figure).iter(f"{SVG}text")]
    assert set(result.objective.terms) <= set(texts)
    with page.expect_download() as download:
        page.locator("[data-png=terms]").click()
    assert download.value.path().read_bytes().startswith(b"\x89PNG")
    rows = rows_of(downloaded(page, "[data-csv=terms]"))
    terms = list(result.objective.terms)
    assert rows[0] == ["loss_of", *terms]
    assert [row[0] for row in rows[1:]] == terms
    table = np.array([row[1:] for row in rows[1:]], dtype=float)
    np.testing.assert_allclose(table, session.between_terms().values, rtol=1e-9)


# --- regions ---


def test_escape_clears_a_region(page):
    draw_region(page)
    lines = len(
        ET.fromstring(downloaded(page, "[data-svg=influence]")).findall(f".//{SVG}path")
    )
    page.keyboard.press("Escape")
    assert page.locator("#region-panel").is_hidden()
    svg = ET.fromstring(downloaded(page, "[data-svg=influence]"))
    assert len(svg.findall(f".//{SVG}path")) == lines - 1


def test_a_region_is_asked_for_again_at_another_place(page):
    draw_region(page)
    before = text_of(page, "region")
    page.mouse.click(*middle(page, "field-map", 0.9, 0.2))
    page.wait_for_function(
        "before => !['', before].includes(document.getElementById('region').textContent)",
        arg=before,
    )
    wait_for_text(page, "region", "Removing all")


def test_a_check_by_retraining(browser, tmp_path):
    saved = small_run(out=tmp_path / "run")
    with (
        served(saved) as explorer,
        opened(browser, explorer.address, ready=READY) as page,
    ):
        draw_region(page)
        predicted = text_of(page, "region").split("here by ")[1].split()[0]
        page.locator("#retrain").click()
        wait_for_text(page, "retrained", "Measured by training on")
        said = text_of(page, "retrained")
        assert f"predicted were {predicted}." in said
        assert "u changes by " in said
        # What was measured is no copy of what was predicted, and a number.
        measured = said.split("changes by ")[1].split(",")[0]
        assert np.isfinite(float(measured.replace("−", "-")))
        assert measured != predicted
