"""The pages by axe-core: nothing that is serious for those who see or hear them otherwise."""

from pathlib import Path

import pytest
from browsing import READY, needs_chromium, opened
from explorers import line_run, served, small_run, space_run
from sample_models import MODELS, served_samples, session_of

AXE = Path(__file__).parents[2] / ".ci/page/node_modules/axe-core/axe.min.js"
pytestmark = [
    needs_chromium,
    pytest.mark.skipif(
        not AXE.is_file(), reason="no axe-core: make lint-page installs it"
    ),
    pytest.mark.filterwarnings("ignore::whence.attribution.quality.FarFromMinimum"),
]
LOOKS = [("wide", "light"), ("wide", "dark"), ("phone", "light"), ("phone", "dark")]


def faults(page):
    """Return what axe finds that is serious, with where it is."""
    # As the page's policy lets no script of others in, it is evaluated by the browser's tools.
    page.evaluate(AXE.read_text(encoding="utf-8"))
    found = page.evaluate("axe.run()")
    assert len(found["passes"]) > 10
    return [
        f"{fault['id']}: {node['target']} {node['failureSummary']}"
        for fault in found["violations"]
        if fault["impact"] in ("serious", "critical")
        for node in fault["nodes"]
    ]


@pytest.mark.parametrize(("size", "scheme"), LOOKS)
def test_a_run(browser, explorer, size, scheme):
    look = {"size": size, "color_scheme": scheme, "ready": READY}
    with opened(browser, explorer.address, **look) as page:
        assert faults(page) == []
        # A wrong formula, a chosen point, a choice of a term.
        page.locator("#field").fill("open(u)")
        page.locator("#field").press("Enter")
        page.wait_for_selector("#problem:not([hidden])")
        page.locator("#strongest tbody button").first.click()
        page.wait_for_selector("#whole:not([hidden])")
        assert faults(page) == []


@pytest.mark.parametrize(("size", "scheme"), LOOKS)
def test_two_runs(browser, result, size, scheme):
    look = {"size": size, "color_scheme": scheme, "ready": READY}
    with (
        served(result, result) as explorer,
        opened(browser, explorer.address, **look) as page,
    ):
        assert faults(page) == []


@pytest.mark.parametrize("make", [line_run, space_run])
def test_other_numbers_of_coordinates(browser, make):
    with (
        served(make()) as explorer,
        opened(browser, explorer.address, ready=READY) as page,
    ):
        assert faults(page) == []


def test_findings(browser, tmp_path):
    run = small_run(out=tmp_path / "run")
    (run.path / "diagnosis.md").write_text("# Findings\n\n" + "far from it " * 60)
    with (
        served(run) as explorer,
        opened(browser, explorer.address, ready=READY) as page,
    ):
        assert page.locator("#findings").is_visible()
        assert faults(page) == []


@pytest.mark.parametrize("name", MODELS)
def test_samples(browser, name):
    with served_samples(session_of(name)) as explorer:
        for size, scheme in LOOKS[:3]:
            look = {"size": size, "color_scheme": scheme, "ready": READY}
            with opened(browser, explorer.address, **look) as page:
                assert faults(page) == [], (size, scheme)


def test_what_is_serious_is_found(browser, explorer):
    """The check itself: an element without a name, and text that is hard to read."""
    with opened(browser, explorer.address, ready=READY) as page:
        page.evaluate(
            """() => {
                document.querySelector("main").append(document.createElement("select"));
                document.getElementById("summary").style.color = "#dddddd";
            }"""
        )
        found = " ".join(faults(page))
        assert "select-name" in found
        assert "color-contrast" in found
