"""What the pages for newcomers show must run, and print what they say."""

import re
from pathlib import Path

import matplotlib as mpl
import pytest
import torch

DOCS = Path(__file__).parent.parent / "docs"


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch, tmp_path):
    """Pages write where they are run: a second time files would be there."""
    monkeypatch.chdir(tmp_path)


def blocks_of(page):
    """The python blocks of a page, and what it says of some that they print."""
    text = (DOCS / page).read_text()
    python = re.findall(r"```python\n(.*?)```", text, flags=re.S)
    printed = re.findall(r"```python\n[^`]*```\n\n```\n(.*?)```", text, flags=re.S)
    return python, printed


def run_blocks(page, is_chosen=lambda block: True):
    """Run a page's blocks one after the other, or some of them; return their names."""
    scope: dict[str, object] = {"__name__": page}
    blocks = [block for block in blocks_of(page)[0] if is_chosen(block)]
    assert blocks
    for block in blocks:
        exec(compile(block, page, "exec"), scope)
    return scope


def run_page(page, capsys):
    """Run all of a page's blocks; return their names and what they print."""
    return run_blocks(page), capsys.readouterr().out


def test_getting_started(capsys, tmp_path):
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


LIBRARIES = {"coming_from_deepxde.md": "deepxde", "coming_from_pina.md": "pina"}


def test_the_problem_of_deepxde_in_whence(capsys):
    scope = run_blocks("coming_from_deepxde.md", lambda block: "deepxde" not in block)
    assert scope["result"].summary["loss"] < 1e-3


def test_the_problem_of_pina_in_whence(capsys):
    scope = run_blocks("coming_from_pina.md", lambda block: "from pina" not in block)
    assert scope["result"].summary["loss"] < 1e-3


@pytest.mark.parametrize("page", LIBRARIES)
def test_models_of_other_libraries_are_taken_as_they_are(page, capsys, monkeypatch):
    monkeypatch.setenv("DDE_BACKEND", "pytorch")
    pytest.importorskip(LIBRARIES[page])
    # Both set the default of torch's numbers for the whole process.
    default = torch.get_default_dtype()
    try:
        scope = run_blocks(page, lambda block: f"adapters.{LIBRARIES[page]}" in block)
    finally:
        torch.set_default_dtype(default)
    assert scope["row"].attrs["predicted_decrease"] < 0.5
    assert {"right", "dirichlet", "D", "pde"} & set(scope["row"]["term"].values)


def test_replays_of_ones_own_loop():
    scope = run_blocks("replay.md")
    assert scope["effects"].shape == (10, 200)
    assert len(scope["run"]) == 20


def test_an_index_of_passages():
    scope = run_blocks("language.md")
    strongest = scope["table"].isel(target=0).values.argmax()
    assert (scope["spans"][strongest] == scope["spans"][0]).all()
    assert scope["encode"](scope["texts"][0])["input"].shape == (1, 16)
