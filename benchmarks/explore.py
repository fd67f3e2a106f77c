"""From a click to the new map, measured in the browser.

``python -m benchmarks.explore`` (after ``make test-browser``, which installs what it needs): the
explorer of a run with 2241 parameters and many training points, clicked at places all over the
domain; the time is that from the pointer's event to the frame with the new map. And what a region
of 1000 points takes, its exact group effect included.
"""

from __future__ import annotations

import shutil
import time

import numpy as np

from benchmarks import _measure
from benchmarks._measure import Row
from whence import pinn
from whence.explore import Session
from whence.explore.answers import Answers
from whence.explore.run_questions import RunQuestions
from whence.explore.server import Explorer

CLICKS = 60
POINTS = {10_000: (0.060, 0.150), 100_000: (0.400, None)}
"""Bars of median and 95th percentile in seconds, by the number of training points."""
MAX_REGION = 1.0
REGION = 1000

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
  const before = document.body.dataset.shown;
  const frame = () => new Promise(requestAnimationFrame);
  canvas.setPointerCapture = () => {};
  const start = performance.now();
  canvas.dispatchEvent(new PointerEvent("pointerdown", place));
  while (document.body.dataset.shown === before) await frame();
  // Drawn in the frame after the numbers are there.
  await frame();
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
        seconds = [page.evaluate(CLICK, place) for place in places]
        browser.close()
    return np.array(seconds[3:])


def region_seconds(session: Session) -> float:
    """Return the time of a region's exact effect, once gradients are there."""
    session.influence_at([0.1, 0.5])
    start = time.perf_counter()
    session.region(np.arange(REGION), [0.1, 0.5])
    return time.perf_counter() - start


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
        return rows

    _measure.run(given, measured)


if __name__ == "__main__":
    main()
