"""Files of the page, and its server beside other programs, in a real browser.

``make test-browser`` installs what these need where that can be; elsewhere they are passed over.
"""

import shutil
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ET

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
    wait_for_place,
    wait_for_text,
)
from explorers import line_run, served, small_run
from trainings import go

import whence as wh
from whence import pinn
from whence.explore import Session
from whence.explore.answers import Answers
from whence.explore.notebook import page_of_attribution
from whence.explore.report import report_of_runs
from whence.pinn.training.run_folder import RunFolder

pytestmark = [
    needs_chromium,
    pytest.mark.filterwarnings("ignore::whence.attribution.quality.FarFromMinimum"),
]
WHENCE = [sys.executable, "-m", "whence.cli"]


def written(path, page):
    path.write_text(page, encoding="utf-8")
    return path.as_uri()


def influences(page):
    return [
        float(row[-1]) for row in rows_of(downloaded(page, "[data-csv=influence]"))[1:]
    ]


def assert_rounded(values, expected):
    limit = 2.0**-15 * np.abs(expected).max()
    np.testing.assert_allclose(values, expected, rtol=0, atol=limit)


# --- files ---


@pytest.fixture(scope="module")
def report(result, tmp_path_factory):
    page = report_of_runs(Answers(Session(result)), targets=9, of=("u", "u_x"))
    return written(tmp_path_factory.mktemp("reports") / "report.html", page)


def test_a_report_asks_nobody(browser, report):
    with opened(browser, report, ready=READY) as page:
        page.mouse.click(*middle(page, "field-map", 0.3, 0.3))
        page.locator("#strongest tbody button").first.click()
        page.locator("#view").select_option("smooth")
        downloaded(page, "[data-svg=share]")
        others = [
            url
            for url in page.requests
            if url.partition("#")[0] != report
            and not url.startswith(("data:", "blob:"))
        ]
        assert others == []
        assert page.locator("#problem").is_hidden()
        assert "a report" in text_of(page, "summary")
        assert page.locator("#retrain").is_hidden()


def test_a_click_is_answered_by_the_nearest_target(browser, report, result):
    with opened(browser, report, ready=READY) as page:
        before = page.evaluate("document.body.dataset.shown")
        page.mouse.click(*middle(page, "field-map", 0.3, 0.6))
        wait_for_place(page, other_than=before)
        _, at = shown_place(page)
        # Of 9 along x and t.
        nearest = [round(4 * (at[0] + 1)) / 4 - 1, round(8 * at[1]) / 8]
        assert nearest == [0.25, 0.25]
        assert_rounded(influences(page), Session(result).influence_at(nearest).values)
        wait_for_text(page, "value", "u at x = 0.25, t = 0.25 is ")
        assert "at x = 0.25, t = 0.25" in text_of(page, "influence-caption")
        page.locator("#of").select_option("u_x")
        wait_for_text(page, "influence-caption", "change of u_x at x = 0.25")
        expected = Session(result).influence_at(nearest, "u_x").values
        assert_rounded(influences(page), expected)


def test_a_point_of_a_report_everywhere(browser, tmp_path):
    """Across goes x, which is the first coordinate: rows and columns are not exchanged."""
    plane = pinn.Problem(
        domain=pinn.Interval("x", 0, 1) * pinn.Interval("y", 0, 2),
        outputs=("u",),
        equations={"pde": lambda u, u_x, u_y: u_x + 3 * u_y - u},
    )
    network = pinn.MLP([2, 8, 1], seed=0)
    steps = [pinn.GaussNewton(3)]
    result = pinn.train(plane, network, points=60, schedule=steps, progress=False)
    # As many targets as places of a field, which is none the less a field.
    file = written(
        tmp_path / "report.html", report_of_runs(Answers(Session(result)), targets=7)
    )
    with opened(browser, f"{file}#point=3", ready=READY) as page:
        wait_for_text(page, "field-caption", "What removing the point of pde")
        rows = np.array(rows_of(downloaded(page, "[data-csv=field]"))[1:], dtype=float)
        assert len(rows) == 49
        expected = Session(result).influence_of("pde", 3, "u", rows[:, :2]).values
        np.testing.assert_allclose(
            rows[:, 2], expected, rtol=0, atol=1e-3 * np.abs(expected).max()
        )
        assert downloaded(page, "[data-svg=field]").count("<image") == 1


def test_a_region_of_a_report(browser, report):
    with opened(browser, report, ready=READY) as page:
        draw_region(page, said="Their influences add up to")
        assert "needs the run itself" in text_of(page, "region")
        assert page.locator("#retrain").is_hidden()


def test_reports_of_a_line_and_of_two_runs(browser, result, tmp_path):
    line = line_run()
    file = written(tmp_path / "line.html", report_of_runs(Answers(Session(line))))
    with opened(browser, file, ready=READY) as page:
        values = [
            float(row[1]) for row in rows_of(downloaded(page, "[data-csv=field]"))[1:]
        ]
        expected = line.solution(np.linspace(0, 1, 401)[:, None])[:, 0]
        np.testing.assert_allclose(values, expected, atol=1e-6)
        page.locator("#strongest tbody button").first.click()
        wait_for_text(page, "field-caption", "What removing")
        assert page.locator("#problem").is_hidden()

    runs = [Answers(Session(run)) for run in (result, small_run(seed=3))]
    file = written(tmp_path / "two.html", report_of_runs(*runs, targets=5))
    with opened(browser, file, ready=READY) as page:
        assert page.locator("#field-map-difference").is_visible()
        assert page.locator("#strongest-1 tbody tr").count() == 10


def test_a_report_of_many_points_is_soon_there(browser, tmp_path):
    result = pinn.train(
        pinn.zoo.load("burgers"), pinn.MLP([2, 8, 1], seed=0), points=2000,
        schedule=[pinn.GaussNewton(2)], progress=False,
    )  # fmt: skip
    file = written(tmp_path / "report.html", report_of_runs(Answers(Session(result))))
    start = time.perf_counter()
    with opened(browser, file, ready=READY):
        seconds = time.perf_counter() - start
        size = (tmp_path / "report.html").stat().st_size / 2**20
        print(f"report of 2000 points, {size:.1f} MB: ready after {seconds:.2f} s")
        assert seconds <= 10


# --- attributions ---

PLACES = [[0.5, 0.25], [-0.3, 0.8], [0.0, 0.5]]


@pytest.fixture(scope="module")
def table(result):
    return wh.Influence(result.objective).attribute(wh.Output(PLACES, "u"))


def test_a_page_of_an_attribution(browser, table, tmp_path):
    table.explore().save(tmp_path / "page.html")
    file = (tmp_path / "page.html").as_uri()
    with opened(browser, f"{file}#at=-0.2,0.7", ready=READY) as page:
        assert_rounded(influences(page), table.values[1])
        assert "at x = −0.3, t = 0.8" in text_of(page, "influence-caption")
        assert page.locator("#field-label").is_hidden()
        # Targets are listed where they are.
        rows = rows_of(downloaded(page, "[data-csv=field]"))
        assert rows[0] == ["x", "t", "value"]
        np.testing.assert_allclose(np.array(rows[1:], dtype=float)[:, :2], PLACES)
        page.locator("#strongest tbody button").first.click()
        wait_for_text(page, "field-caption", "What removing the point of")
        values = np.array(
            rows_of(downloaded(page, "[data-csv=field]"))[1:], dtype=float
        )
        strongest = np.abs(table.values[1]).argmax()
        limit = 2.0**-15 * np.abs(table.values).max()
        expected = table.values[:, strongest]
        np.testing.assert_allclose(values[:, 2], expected, rtol=0, atol=limit)


def test_an_attribution_over_one_coordinate_is_within_its_frame(browser, tmp_path):
    result = line_run()
    targets = wh.Output(np.linspace(0, 1, 7)[:, None])
    table = wh.Influence(result.objective).attribute(targets)
    table = table.copy(data=1000 * table.values)
    page_of_attribution(table, "line").save(tmp_path / "page.html")
    with opened(browser, (tmp_path / "page.html").as_uri(), ready=READY) as page:
        svg = downloaded(page, "[data-svg=field]")
        circles = list(ET.fromstring(svg).iter(f"{SVG}circle"))
        _, top, _, height = map(
            float,
            page.locator("#field-map canvas").get_attribute("data-box").split(","),
        )
        assert len(circles) == 7
        heights = [float(circle.get("cy")) for circle in circles]
        assert all(top <= place <= top + height for place in heights)
        assert np.ptp(heights) > 0.8 * height


def test_in_a_notebook(browser, table, tmp_path):
    shown = table.explore()._repr_html_()
    file = written(tmp_path / "notebook.html", f"<!doctype html><p>before</p>{shown}")
    with opened(browser, file, ready="iframe") as page:
        frame = page.frame_locator("iframe")
        frame.locator("body[data-ready]").wait_for(timeout=60_000)
        assert frame.locator("#strongest tbody tr").count() == 10
        before = frame.locator("#influence-caption").inner_text()
        canvas = frame.locator("#field-map canvas")
        left, top, width, height = map(
            float, canvas.get_attribute("data-box").split(",")
        )
        # The last of the targets: the first is explained already. t goes across, x up.
        x, t = table["target_x"].values, table["target_t"].values
        across = (t[-1] - t.min()) / np.ptp(t)
        up = (x[-1] - x.min()) / np.ptp(x)
        place = {"x": left + across * width, "y": top + (1 - up) * height}
        canvas.click(position=place)
        inner = page.frames[1]
        inner.wait_for_function(
            "before => document.getElementById('influence-caption').innerText !== before",
            arg=before,
        )
        assert page.url == file
        assert frame.locator("#problem").is_hidden()


# --- training ---


@pytest.fixture(scope="module")
def renewed(tmp_path_factory):
    """A run whose points were renewed, and whose spectra were taken."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    return go(folder, observers=[pinn.Spectra(every=20)])


def test_points_at_an_iteration(browser, renewed):
    record = renewed.points
    came, left = record["pde:entered"], record["pde:left"]
    with served(renewed) as explorer:
        with opened(browser, explorer.address, ready=READY) as page:
            last = int(page.locator("#iteration").get_attribute("max"))
            assert last == renewed.summary["iterations"]
            for iteration in (0, 15, 35):
                page.locator("#iteration").fill(str(iteration))
                there = (came <= iteration) & ((left < 0) | (left > iteration))
                wait_for_text(
                    page, "rounds-caption",
                    f"The {there.sum()} training points at iteration {iteration}",
                )  # fmt: skip
                page.wait_for_timeout(100)
                circles = downloaded(page, "[data-svg=rounds]").count("<circle")
                assert circles == there.sum()
                newest = came[there].max()
                if newest:
                    fresh = (came[there] == newest).sum()
                    said = f"the newest {fresh} came at {newest}."
                    assert said in text_of(page, "rounds-caption")
                assert f"iteration={iteration}" in page.url
            assert came.max() > 0
            address = page.url
            caption = text_of(page, "rounds-caption")
        with opened(browser, address, ready=READY) as page:
            assert text_of(page, "rounds-caption") == caption
            assert page.locator("#iteration").input_value() == "35"
            assert text_of(page, "iteration-said") == "35"
            assert "at iteration" in text_of(page, "spectra-caption")
            # At the last one the address has no iteration.
            page.locator("#iteration").fill(str(last))
            page.wait_for_function("() => !location.hash.includes('iteration')")


def test_a_run_that_is_removed_meanwhile(browser, tmp_path):
    saved = small_run(out=tmp_path / "run")
    with (
        served(saved) as explorer,
        opened(browser, explorer.address, ready=READY) as page,
    ):
        shutil.rmtree(tmp_path / "run")
        before = page.evaluate("document.body.dataset.shown")
        page.mouse.click(*middle(page, "field-map", 0.3, 0.6))
        wait_for_place(page, other_than=before)
        at = shown_place(page)[1]
        expected = Session(saved).influence_at(at).values
        limit = 1e-9 * np.abs(expected).max()
        np.testing.assert_allclose(influences(page), expected, rtol=0, atol=limit)
        draw_region(page)
        page.locator("#retrain").click()
        page.wait_for_selector("#problem:not([hidden])")
        assert "holds no whence run" in text_of(page, "problem")
        # It does not look as if it were still at it, and may be tried again.
        assert text_of(page, "retrained") == ""
        assert page.locator("#retrain").is_visible()
        assert page.locator("#problem").is_visible()


def test_a_run_that_is_being_trained(browser, tmp_path):
    """A checkpoint is written every 20 seconds."""
    run = tmp_path / "run"
    steps = ["--schedule", "adam:1000000", "--resampler", "none", "--quiet"]
    sizes = ["--points", "pde=50", "--layers", "2", "8", "1", "--threads", "1"]
    command = [*WHENCE, "train", "burgers", *steps, *sizes, "--out", str(run)]
    training = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    server = None
    try:
        wait_for_checkpoint(run, training)
        began = time.perf_counter()
        server = subprocess.Popen(
            [*WHENCE, "explore", str(run), "--no-browser", "--port", "0"],
            stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        address = server.stdout.readline().split()[1]
        print(f"whence explore: its address after {time.perf_counter() - began:.1f} s")
        with opened(browser, address, ready=READY) as page:
            assert "not finished: as its last checkpoint has it" in text_of(
                page, "summary"
            )
            before = page.evaluate("document.body.dataset.shown")
            page.mouse.click(*middle(page, "field-map", 0.3, 0.6))
            wait_for_place(page, other_than=before)
            assert page.locator("#strongest tbody tr").count() == 10
            assert page.locator("#problem").is_hidden()
        assert training.poll() is None

        # It ends as any other, having gone on meanwhile.
        training.send_signal(signal.SIGINT)
        training.wait(timeout=120)
        assert training.returncode in (0, 130)
        assert RunFolder(run).summary()["stopped_by"] == "interrupted"
    finally:
        for process in (training, server):
            if process is not None:
                process.kill()
                process.wait()


def wait_for_checkpoint(run, training):
    """Wait until a run has the checkpoint that is written while it is trained."""
    end = time.monotonic() + 180
    while not RunFolder(run).is_started():
        assert training.poll() is None
        assert time.monotonic() < end
        time.sleep(0.5)


# --- keys ---


def test_all_is_reached_by_tab(browser, explorer):
    with opened(browser, explorer.address, ready=READY) as page:
        page.evaluate("document.body.focus()")
        reached = []
        for _ in range(80):
            page.keyboard.press("Tab")
            reached.append(
                page.evaluate(
                    """() => {
                        const { id, tagName, parentElement, dataset } = document.activeElement;
                        if (tagName === "CANVAS") return parentElement.id;
                        if (document.activeElement.closest(".strongest")) return "strongest";
                        return id || Object.entries(dataset).flat().join("-");
                    }"""
                )
            )
        wanted = [
            "field", "of", "field-map", "term", "view", "scale", "clip", "influence-map",
            "lasso", "strongest", "history", "iteration", "csv-field", "svg-influence",
        ]  # fmt: skip
        assert [name for name in wanted if name not in reached] == []
        assert reached.count("strongest") >= 10
        # In the order in which they are seen.
        places = [
            reached.index(name) for name in ("field", "field-map", "influence-map")
        ]
        assert places == sorted(places)


def test_a_strongest_point_is_chosen_by_a_key(browser, explorer):
    with opened(browser, explorer.address, ready=READY) as page:
        page.locator("#strongest tbody button").nth(1).focus()
        page.keyboard.press("Enter")
        wait_for_text(page, "field-caption", "What removing")
        page.locator("#whole").focus()
        page.keyboard.press("Enter")
        wait_for_text(page, "field-caption", "u of the network")
