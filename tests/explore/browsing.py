"""A page in a real browser, for the tests of what is done there and seen."""

import csv
import io
import shutil
import xml.etree.ElementTree as ET
from contextlib import contextmanager

import pytest

pytest.importorskip(
    "playwright.sync_api", reason="no playwright: make test-browser installs it"
)
CHROMIUM = shutil.which("chromium")
needs_chromium = pytest.mark.skipif(
    CHROMIUM is None, reason="no chromium: make test-browser installs it"
)
SVG = "{http://www.w3.org/2000/svg}"
SHOWN = "body[data-shown]"
READY = "body[data-ready]"
SIZES = {"wide": (1280, 900), "phone": (390, 844)}


@contextmanager
def opened(browser, address, size="wide", ready=SHOWN, **options):
    """Yield the page when its first answer is there; anything wrong that it says is an error."""
    width, height = SIZES[size]
    context = browser.new_context(
        viewport={"width": width, "height": height}, accept_downloads=True, **options
    )
    page = context.new_page()
    faults = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    requests = []
    page.on("request", lambda request: requests.append(request.url))
    page.goto(address)
    page.wait_for_selector(ready, timeout=60_000)
    page.requests = requests
    yield page
    assert not faults
    context.close()


def middle(page, name, across=0.5, up=0.5):
    """Return pixels of a place of a map, as shares of its frame."""
    canvas = page.locator(f"#{name} canvas")
    place = canvas.bounding_box()
    box = canvas.get_attribute("data-box").split(",")
    left, top, width, height = (float(length) for length in box)
    x = place["x"] + left + across * width
    return x, place["y"] + top + (1 - up) * height


def shown_place(page):
    """Return the place that is explained, in the problem's order, by the address."""
    of, at = page.evaluate("document.body.dataset.shown").split("@")
    return of, [float(value) for value in at.split(",")]


def wait_for_place(page, *, other_than):
    page.wait_for_function(
        "before => document.body.dataset.shown !== before", arg=other_than
    )


def downloaded(page, selector):
    """Return the text of a file that a button saves."""
    with page.expect_download() as download:
        page.locator(selector).click()
    return download.value.path().read_text(encoding="utf-8")


def text_of(page, name):
    return page.locator(f"#{name}").inner_text()


def wait_for_text(page, name, part):
    """Wait until a part of the page says something."""
    page.wait_for_function(
        "([name, part]) => document.getElementById(name).textContent.includes(part)",
        arg=[name, part],
    )


def rows_of(text):
    return list(csv.reader(io.StringIO(text)))


def texts_of(svg):
    return [part.text for part in ET.fromstring(svg).iter(f"{SVG}text")]


def draw_region(
    page, corners=((0.2, 0.3), (0.6, 0.3), (0.6, 0.7), (0.2, 0.7)), said="Removing all"
):
    """Draw a line around points and wait for what is said of them."""
    page.locator("#lasso").check()
    page.mouse.move(*middle(page, "influence-map", *corners[0]))
    page.mouse.down()
    for corner in corners[1:]:
        page.mouse.move(*middle(page, "influence-map", *corner), steps=5)
    page.mouse.up()
    wait_for_text(page, "region", said)
