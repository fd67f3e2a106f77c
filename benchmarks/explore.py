"""From a click to the new map, measured in the browser.

``python -m benchmarks.explore`` (after ``make test-browser``, which installs what it needs): the
explorer of a run with 2241 parameters and many training points, clicked at places all over the
domain; the time is that from the pointer's event to the end of the frame with the new map. What a
region of 1000 points takes, its exact group effect included. How long ``whence explore`` takes to
give its address. And how large a report of a run of 2000 points is, and how soon it opens.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks import _measure
from benchmarks._measure import Row
from whence import pinn
from whence.explore import Session
from whence.explore.answers import Answers
from whence.explore.report import report_of_runs
from whence.explore.run_questions import RunQuestions
from whence.explore.server import Explorer

CLICKS = 60
PAUSE = 200
"""Milliseconds between two clicks, as a quick hand makes them."""
POINTS = {10_000: (0.060, 0.150), 100_000: (0.400, None)}
"""Bars of median and 95th percentile in seconds, by the number of training points."""
MAX_REGION = 1.0
REGION = 1000
REPORT_POINTS = 2000
MAX_REPORT, MAX_OPENING = 8.0, 2.0
"""MB of a report, and seconds until it is there."""
MAX_START = 5.0

CLICK = """
async ([across, up]) => {
  const canvas = document.querySelector("#field-map canvas");
  const corner = canvas.getBoundingClientRect();
  const [left, top, width, height] = canvas.dataset.box.split(",").map(Number);
  const place = {
    clientX: corner.left + left + across * width,
    clientY: corner.top + top + (1 - up) * height,
    pointerId: 1, bubbles: true,
  };
  const shown = new Promise((resolve) => {
    const observer = new MutationObserver(() => { observer.disconnect(); resolve(); });
    observer.observe(document.body, { attributeFilter: ["data-drawn"] });
  });
  canvas.setPointerCapture = () => {};
  const start = performance.now();
  canvas.dispatchEvent(new PointerEvent("pointerdown", place));
  await shown;
  // What a frame's callback posts is received after that frame is painted.
  await new Promise((resolve) => requestAnimationFrame(() => {
    const channel = new MessageChannel();
    channel.port1.onmessage = resolve;
    channel.port2.postMessage(null);
  }));
  const seconds = (performance.now() - start) / 1000;
  window.dispatchEvent(new PointerEvent("pointerup", place));
  return seconds;
}
"""


def explored(n_points: int) -> Session:
    """Return a session with a run of 2241 parameters."""
    result = pinn.train(
        pinn.zoo.load("diffusion"),
        pinn.MLP([2, 32, 32, 32, 1], seed=0),
        points={"pde": n_points},
        schedule=[pinn.Adam(100)],
        progress=False,
    )
    return Session(result)


def clicks(session: Session, n: int) -> np.ndarray:
    """Return the seconds of n clicks, after three that do not count."""
    from playwright.sync_api import sync_playwright

    places = np.random.default_rng(0).uniform(0.05, 0.95, (n + 3, 2)).tolist()
    with (
        Explorer(RunQuestions(Answers(session)), port=0) as explorer,
        sync_playwright() as tools,
    ):
        explorer.start()
        browser = tools.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.goto(explorer.address)
        page.wait_for_selector("body[data-shown]", timeout=600_000)
        page.wait_for_timeout(2000)
        seconds = []
        for place in places:
            seconds.append(page.evaluate(CLICK, place))
            page.wait_for_timeout(PAUSE)
        browser.close()
    return np.array(seconds[3:])


def region_seconds(session: Session) -> float:
    """Return the time of a region's exact effect, once gradients are there."""
    session.influence_at([0.1, 0.5])
    start = time.perf_counter()
    session.region(np.arange(REGION), [0.1, 0.5])
    return time.perf_counter() - start


def start_seconds(run: Path) -> float:
    """Return the time from the command to the explorer's address."""
    command = [sys.executable, "-m", "whence.cli", "explore", str(run), "--no-browser"]
    start = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        address = server.stdout.readline()
        seconds = time.perf_counter() - start
        server.send_signal(signal.SIGINT)
    assert "http" in address, address
    return seconds


def opening_seconds(report: Path) -> tuple[float, list[str]]:
    """Return the time until a report is there, and what it asked anybody for."""
    from playwright.sync_api import sync_playwright

    asked: list[str] = []
    with sync_playwright() as tools:
        browser = tools.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.on("request", lambda request: asked.append(request.url))
        start = time.perf_counter()
        page.goto(report.as_uri())
        page.wait_for_selector("body[data-shown]")
        seconds = time.perf_counter() - start
        browser.close()
    others = [url for url in asked if not url.startswith(("data:", "blob:"))]
    return seconds, others[1:]


def report_rows() -> list[Row]:
    """Return what a report of a run comes to, and what the explorer's start takes."""
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        result = pinn.train(
            pinn.zoo.load("burgers", "soft"),
            pinn.MLP([2, 32, 32, 32, 1], seed=0),
            points={"pde": 1600, "initial_u": 200, "dirichlet_u": 200},
            schedule=[pinn.GaussNewton(30)],
            out=run,
            progress=False,
        )
        file = run / "report.html"
        file.write_text(report_of_runs(Answers(Session(result))))
        seconds, others = opening_seconds(file)
        what = f"report of {REPORT_POINTS} points"
        size = file.stat().st_size / 1e6
        detail = f"{len(others)} requests to others"
        return [
            Row(f"{what}: size", size, "MB", "", most=MAX_REPORT),
            Row(f"{what}: opens", seconds, "s", detail, most=MAX_OPENING),
            Row("whence explore: start", start_seconds(run), "s", "", most=MAX_START),
        ]


def main() -> None:
    """Measure and print."""
    parser = _measure.parser(__doc__)
    given = parser.parse_args()

    def measured() -> list[Row]:
        rows = []
        for n_points, (median, late) in POINTS.items():
            count, n = (n_points // 100, 5) if given.quick else (n_points, CLICKS)
            session = explored(count)
            seconds = clicks(session, n)
            detail = f"{n} clicks, {seconds.min():.3f} to {seconds.max():.3f} s"
            what = f"{count} points: click to map"
            rows.append(
                Row(
                    f"{what}, median",
                    float(np.median(seconds)),
                    "s",
                    detail,
                    most=median,
                )
            )
            if late is not None:
                rows.append(
                    Row(
                        f"{what}, 95 %",
                        float(np.quantile(seconds, 0.95)),
                        "s",
                        detail,
                        most=late,
                    )
                )
                what = f"{count} points: region of {min(REGION, count)}"
                if count >= REGION:
                    rows.append(
                        Row(what, region_seconds(session), "s", "", most=MAX_REGION)
                    )
        return [*rows, *report_rows()]

    _measure.run(given, measured)


if __name__ == "__main__":
    main()
