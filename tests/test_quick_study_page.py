"""docs/quick_study.md against the committed runs of the quick studies."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(name="quick_study")
def _quick_study(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    from benchmarks import quick_study

    return quick_study


def test_the_page_has_the_tables_of_the_committed_runs(quick_study):
    page = (ROOT / "docs" / "quick_study.md").read_text()
    block = re.search(r"<!-- quick study -->\n(.*?)\n<!-- /quick study -->", page, re.S)
    assert block is not None
    assert block.group(1) == quick_study.tables()


def test_readme_has_the_means_beside_the_published_ones(quick_study):
    readme = (ROOT / "README.md").read_text()
    block = re.search(
        r"<!-- quick study -->\n(.*?)\n<!-- /quick study -->", readme, re.S
    )
    assert block is not None
    assert block.group(1) == quick_study.beside()


def test_every_method_has_the_same_runs(quick_study):
    for update in quick_study.present():
        runs = quick_study.kept(update)
        assert not runs.duplicated(["problem", "method", "seed"]).any()
        assert set(runs.groupby(["problem", "method"]).size()) == {5}
        assert set(quick_study.METHODS) <= set(runs["method"])
