"""What the pages for newcomers show must run, and print what they say."""

import re
from pathlib import Path

import matplotlib as mpl
import pytest

DOCS = Path(__file__).parent.parent / "docs"


def blocks_of(page):
    """The python blocks of a page, and what it says of some that they print."""
    text = (DOCS / page).read_text()
    python = re.findall(r"```python\n(.*?)```", text, flags=re.S)
    printed = re.findall(r"```python\n[^`]*```\n\n```\n(.*?)```", text, flags=re.S)
    return python, printed


def run_page(page, capsys):
    """Run a page's blocks one after the other; return their names and what they print."""
    scope: dict[str, object] = {}
    python, _ = blocks_of(page)
    assert python
    for block in python:
        exec(compile(block, page, "exec"), scope)
    return scope, capsys.readouterr().out


def test_getting_started(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    mpl.use("agg")
    scope, printed = run_page("getting_started.md", capsys)
    assert scope["result"].summary["relative_l2"] < 3e-4
    assert "Nothing speaks against it." in printed
    assert "no finding." in printed
    # The ten labels that were made wrong come first, as the page says.
    assert set(scope["table"]["index"].values[:10]) == set(range(10))
    assert {path.name for path in tmp_path.iterdir()} == {"influence.png"}


def test_sign_and_scale_prints_what_it_shows(capsys):
    _, printed = run_page("sign_and_scale.md", capsys)
    _, (shown,) = blocks_of("sign_and_scale.md")
    assert printed == shown


@pytest.mark.parametrize("page", ["coming_from_deepxde.md", "coming_from_pina.md"])
def test_pages_for_users_of_other_libraries_run(page, capsys):
    scope, _ = run_page(page, capsys)
    assert scope["result"].summary["loss"] < 1e-3
