"""The gallery's examples are pages; ``make docs`` runs them all, here the shortest are run."""

import re
import runpy
from pathlib import Path

import matplotlib as mpl
import pytest

FOLDER = Path(__file__).parent.parent / "examples"
EXAMPLES = sorted(FOLDER.glob("*/plot_*.py"))
SHORTEST = {
    "trust/plot_groups.py": "largest error of the exact effect: ",
    "supervised/plot_regression.py": "after refitting ",
}


def name_of(path):
    return str(path.relative_to(FOLDER))


def test_there_is_a_gallery_and_every_section_has_a_heading():
    assert len(EXAMPLES) >= 20
    assert len({path.name for path in EXAMPLES}) == len(EXAMPLES)
    for section in {path.parent for path in EXAMPLES}:
        assert (section / "GALLERY_HEADER.rst").is_file()


@pytest.mark.parametrize("path", EXAMPLES, ids=name_of)
def test_an_example_begins_with_a_title_and_what_it_is_about(path):
    """A file without them is left out of the gallery, or ends sphinx's build."""
    opening = re.match(r'"""\n(.+)\n(=+)\n\n(.+?)"""', path.read_text(), flags=re.S)
    assert opening is not None
    title, line, text = opening.groups()
    assert len(title) == len(line)
    assert len(text) > 60
    assert "\n# %%\n" in path.read_text()


@pytest.mark.parametrize("name", SHORTEST)
def test_the_shortest_examples_run(name, capsys, monkeypatch, tmp_path):
    pytest.importorskip("sklearn")
    monkeypatch.chdir(tmp_path)
    mpl.use("agg")
    runpy.run_path(str(FOLDER / name), run_name="__main__")
    assert SHORTEST[name] in capsys.readouterr().out
    assert not list(tmp_path.iterdir())


def test_group_effects_of_the_gallery_are_exact(capsys, monkeypatch):
    mpl.use("agg")
    runpy.run_path(str(FOLDER / "trust/plot_groups.py"))
    error = re.search(r"exact effect: (\S+)", capsys.readouterr().out)[1]
    assert float(error) < 1e-12
