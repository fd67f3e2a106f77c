"""An attribution as a page: in a notebook, or as a file."""

import html
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from recorded import numbers, read

import whence as wh
from whence.attribution.result import Attribution
from whence.explore import notebook
from whence.explore.notebook import HEIGHT, Page

PLACES = [[0.5, 0.25], [-0.3, 0.8], [0.0, 0.5]]


@pytest.fixture(scope="module")
def table(result):
    return wh.Influence(result.objective).attribute(wh.Output(PLACES, "u"))


def test_numbers(table):
    (run,) = read(table.explore().text)
    (name,) = run["run"]["answers"]
    off = np.abs(numbers(run["influence"][name]) - table.values)
    assert (off <= 2.0**-15 * np.abs(table.values).max(axis=1, keepdims=True)).all()
    np.testing.assert_array_equal(numbers(run["targets"]).T, PLACES)
    assert run["run"]["n_points"] == table.sizes["point"]
    assert "Solver exact" in run["quality"][name]


def test_losses_of_terms(result):
    losses = wh.Influence(result.objective).attribute(wh.TermLoss("pde", "initial_u"))
    (run,) = read(losses.explore().text)
    assert len(run["influence"]) == 2
    assert numbers(run["targets"]).shape == (2, 1)


class Frames(HTMLParser):
    """The frames of a page, and all that is outside of them."""

    def __init__(self):
        super().__init__()
        self.frames = []
        self.others = []

    def handle_starttag(self, tag, attributes):
        if tag == "iframe":
            self.frames.append(dict(attributes))
        else:
            self.others.append(tag)

    def handle_data(self, data):
        self.others.append(data)


def test_in_a_notebook(table):
    page = table.explore()
    parser = Frames()
    parser.feed(page._repr_html_())
    (frame,) = parser.frames
    assert not parser.others
    assert frame["srcdoc"] == page.text
    assert f"height: {HEIGHT}px" in frame["style"]


def test_text_is_escaped():
    text = """<p title="a" id='b'>&amp; </iframe>"""
    shown = Page(text)._repr_html_()
    inner = re.search(r'srcdoc="(.*)"></iframe>$', shown)[1]
    assert not set("<>\"'") & set(inner)
    assert html.unescape(inner) == text


def test_as_a_file(table, tmp_path):
    page = table.explore()
    page.save(tmp_path / "new" / "page.html")
    page.save(str(tmp_path / "again.html"))
    for name in ("new/page.html", "again.html"):
        assert (tmp_path / name).read_text(encoding="utf-8") == page.text


def test_what_is_too_large(table, monkeypatch):
    monkeypatch.setattr(notebook, "MAX_INFLUENCES", table.size - 1)
    with pytest.raises(ValueError, match=r"room for 749 influences.* has 750: select"):
        table.explore()
    table.isel(target=[0, 1]).explore()


def test_a_name_that_is_markup(table):
    named = table.copy()
    named.attrs["quantity"] = "</script><img src=x>"
    coords = {name: ("point", table[name].values) for name in ("x", "t", "term")}
    named = Attribution(
        table.values[:1], coords, ("target", "point"), attrs=named.attrs
    )
    page = named.explore()
    assert "</script><img" not in page.text
    (run,) = read(page.text)
    assert run["run"]["answers"] == ["</script><img src=x> (0)"]
