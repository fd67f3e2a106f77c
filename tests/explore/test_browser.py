"""The page in a real browser: what a person does, and what is then to be seen.

``make test-browser`` installs what these need where that can be; elsewhere they are passed over.
"""

import dataclasses
import subprocess
import sys

import numpy as np
import pytest
from browsing import (
    SIZES,
    middle,
    needs_chromium,
    opened,
    shown_place,
    wait_for_place,
)
from explorers import served, small_run

import whence as wh
from whence.explore import Session

pytestmark = needs_chromium


@pytest.fixture
def page(browser, explorer):
    with opened(browser, explorer.address) as page:
        yield page


def test_nothing_comes_from_elsewhere(page, explorer):
    assert page.requests
    assert all(url.startswith(explorer.address) for url in page.requests)


def test_a_click_explains_that_place(page, result):
    before = page.evaluate("document.body.dataset.shown")
    page.mouse.click(*middle(page, "field-map", 0.25, 0.75))
    wait_for_place(page, other_than=before)
    of, at = shown_place(page)
    # x goes up from −1 to 1, t across.
    assert of == "u"
    assert at == pytest.approx([0.5, 0.25], abs=0.02)
    row = Session(result).influence_at(at)
    strongest = row.top(1, by="size")
    first = page.locator("#strongest tbody tr").first
    assert str(strongest["term"].values[0]) in first.inner_text()
    share = page.locator("#share-caption").inner_text()
    sizes = np.sort(np.abs(row.values))[::-1]
    assert f"carry {round(100 * sizes[:25].sum() / sizes.sum())} %" in share
    page.wait_for_function(
        "() => document.getElementById('value').textContent.startsWith('u at x')"
    )


def test_a_drag_follows_the_pointer_and_the_address_keeps_the_view(page, browser):
    before = page.evaluate("document.body.dataset.shown")
    page.mouse.move(*middle(page, "field-map", 0.2, 0.2))
    page.mouse.down()
    for k in range(8):
        page.mouse.move(*middle(page, "field-map", 0.2 + 0.05 * k, 0.2))
    page.mouse.up()
    wait_for_place(page, other_than=before)
    page.wait_for_function(
        "() => Math.abs(document.body.dataset.shown.split(',')[1] - 0.55) < 0.02"
    )
    _, at = shown_place(page)
    with opened(browser, page.url) as again:
        assert shown_place(again)[1] == pytest.approx(at)


def test_keys_move_the_place(page):
    before = page.evaluate("document.body.dataset.shown")
    page.locator("#field-map canvas").focus()
    page.keyboard.press("ArrowRight")
    wait_for_place(page, other_than=before)
    assert shown_place(page)[1] == pytest.approx([0.0, 0.5 + 1 / 60], abs=1e-6)


def test_a_point_over_the_whole_domain_and_back(page, result):
    page.locator("#strongest tbody button").first.click()
    page.wait_for_selector("#whole:not([hidden])")
    page.wait_for_function(
        "() => document.getElementById('field-caption').textContent.startsWith('What removing')"
    )
    assert "point=" in page.url
    page.locator("#whole").click()
    page.wait_for_function(
        "() => document.getElementById('field-caption').textContent.startsWith('u of the network')"
    )
    assert "point=" not in page.url


def test_a_region_is_removed_exactly(page, result):
    page.locator("#lasso").check()
    corners = [(0.2, 0.3), (0.6, 0.3), (0.6, 0.7), (0.2, 0.7)]
    page.mouse.move(*middle(page, "influence-map", *corners[0]))
    page.mouse.down()
    for corner in corners[1:]:
        page.mouse.move(*middle(page, "influence-map", *corner), steps=5)
    page.mouse.up()
    page.wait_for_function(
        "() => document.getElementById('region').textContent.includes('Removing all')"
    )
    text = page.locator("#region").inner_text()

    # The map has 3 % of room around the domain.
    def place(share, low, high):
        room = 0.03 * (high - low)
        return low - room + share * (high - low + 2 * room)

    row = Session(result).influence_at(shown_place(page)[1])
    t, x = row.t.values, row.x.values
    inside = (t > place(0.2, 0, 1)) & (t < place(0.6, 0, 1))
    inside &= (x > place(0.3, -1, 1)) & (x < place(0.7, -1, 1))
    counted = int(text.split("The region's ")[1].split()[0])
    assert abs(counted - inside.sum()) <= 2


def test_hovering_a_point_describes_it(page, result):
    objective = result.objective
    x, t = objective.locations("pde")[7].tolist()
    up = (x + 1 + 0.06) / (2 + 0.12)
    across = (t + 0.03) / 1.06
    page.mouse.move(*middle(page, "influence-map", across, up))
    page.wait_for_selector("#influence-map .tip:not([hidden])")
    text = page.locator("#influence-map .tip").inner_text()
    assert "influence" in text
    assert "rank" in text
    assert "in training since iteration 0" in text


def test_exports(page, session):
    with page.expect_download() as download:
        page.locator("[data-csv=influence]").click()
    lines = download.value.path().read_text().splitlines()
    assert lines[0] == "term,index,x,t,influence"
    row = session.influence_at(shown_place(page)[1])
    values = [float(line.split(",")[-1]) for line in lines[1:]]
    np.testing.assert_allclose(
        values, row.values, rtol=0, atol=1e-12 * np.abs(row.values).max()
    )
    with page.expect_download() as download:
        page.locator("[data-png=field]").click()
    assert download.value.path().read_bytes().startswith(b"\x89PNG")


def test_what_is_explained_can_be_changed(page, result):
    before = page.evaluate("document.body.dataset.shown")
    page.locator("#of").select_option("u_x")
    wait_for_place(page, other_than=before)
    assert shown_place(page)[0] == "u_x"
    page.locator("#term").select_option("initial_u")
    assert "of 20 points" in page.locator("#share-caption").inner_text()
    page.locator("#scale").select_option("log")
    assert "scale=log" in page.url


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_is_wider_than_the_window(browser, explorer, size, scheme):
    with opened(browser, explorer.address, size, color_scheme=scheme) as page:
        width = page.evaluate("document.documentElement.scrollWidth")
        assert width <= SIZES[size][0]


def test_a_server_that_is_killed_is_said(browser, tmp_path):
    zoo = [sys.executable, "-m", "whence.cli"]
    steps = ["--schedule", "gauss_newton:2", "--resampler", "none", "--quiet"]
    run = str(tmp_path / "run")
    subprocess.run(
        [*zoo, "train", "burgers", *steps, "--points", "pde=50", "--out", run],
        check=True,
    )
    command = [*zoo, "explore", run, "--no-browser", "--port", "0"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        address = server.stdout.readline().split()[1]
        with opened(browser, address) as page:
            server.kill()
            server.wait()
            page.mouse.click(*middle(page, "field-map", 0.3, 0.3))
            page.wait_for_selector("#problem:not([hidden])")
            assert "still running" in page.locator("#problem").inner_text()
    finally:
        server.kill()
        server.wait()


def test_hostile_names_are_text(browser):
    """Names of terms are the user's: none of them becomes part of the page."""
    hostile = "<img src=x onerror=document.title='taken'>"
    result = small_run()
    terms = [
        dataclasses.replace(term, name=hostile if name == "initial_u" else name)
        for name, term in result.objective.terms.items()
    ]
    objective = wh.Objective(result.network, terms, space=result.objective.space)
    renamed = dataclasses.replace(result, objective=objective)
    with served(renamed) as explorer, opened(browser, explorer.address) as page:
        assert hostile in page.locator("#term").inner_text()
        page.locator("#term").select_option(hostile)
        assert hostile in page.locator("#strongest tbody").inner_text()
        assert page.locator("img").count() == 0
        assert "taken" not in page.title()
