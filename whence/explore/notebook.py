"""An attribution as the explorer's page, in a notebook or as a file."""

from __future__ import annotations

import html
from pathlib import Path

import numpy as np
import xarray as xr

from whence._files import JsonObject, PathLike, make_folder, write_atomically
from whence.explore.single_file import page_of, rounded_table, table
from whence.explore.stored import StoredAnswers

HEIGHT = 900
"""Pixels of the page in a notebook."""
MAX_INFLUENCES = 20_000_000
"""Influences that a page has room for: two bytes each, and a third more as text."""


class Page:
    """A page that shows itself in Jupyter, and can be saved.

    Parameters
    ----------
    text:
        The whole page.

    Examples
    --------
    >>> from whence.explore.notebook import Page
    >>> Page("<!doctype html><p>1 &lt; 2")._repr_html_()[:23]
    '<iframe title="whence" '
    """

    def __init__(self, text: str) -> None:
        self.text = text

    def save(self, path: PathLike) -> None:
        """Write the page as a file, which any browser opens."""
        file = Path(path)
        make_folder(file.parent)
        write_atomically(file, self.text.encode())

    def _repr_html_(self) -> str:
        """Return the page in a frame of its own, as notebooks show it."""
        look = f"width: 100%; height: {HEIGHT}px; border: 0"
        content = html.escape(self.text, quote=True)
        return f'<iframe title="whence" style="{look}" srcdoc="{content}"></iframe>'


def page_of_attribution(attribution: xr.DataArray, name: str) -> Page:
    """Return the page of an attribution: a click on a target lights up its sources.

    Raises
    ------
    ValueError
        If there are no coordinates to show points at, or more influences than a page has room
        for.

    Examples
    --------
    >>> from whence.attribution.result import Attribution
    >>> from whence.explore.notebook import page_of_attribution
    >>> coords = {"x": ("point", [0.0, 1.0]), "t": ("point", [0.5, 0.5]),
    ...           "term": ("point", ["pde", "pde"]),
    ...           "target_x": ("target", [0.2]), "target_t": ("target", [0.4])}
    >>> table = Attribution([[3.0, -1.0]], coords, ("target", "point"))
    >>> page_of_attribution(table, "mine").text[:15]
    '<!doctype html>'
    """
    if attribution.size > MAX_INFLUENCES:
        raise ValueError(
            f"a page has room for {MAX_INFLUENCES:,} influences, this attribution has "
            f"{attribution.size:,}: select some targets with isel, or run whence explore on its "
            "file, which reads what is asked for"
        )
    return Page(page_of([_recorded(StoredAnswers(attribution, name))]))


def _recorded(stored: StoredAnswers) -> JsonObject:
    """Return all that the page shows of an attribution."""
    influence = {
        name: rounded_table(np.asarray(stored.attribution.isel(target=rows).values))
        for name, rows in stored.rows.items()
    }
    middle = stored.targets()[:, 0].tolist()
    words = {name: stored.answer(name, middle)["quality"] for name in stored.rows}
    return {
        "run": stored.run(),
        "points": table(stored.points()),
        "targets": table(stored.targets()),
        "target_grid": None,
        "target_rows": None,
        "influence": influence,
        "values": {},
        "quality": words,
        "field_grid": [],
        "fields": {},
        "terms": None,
        "rounds": None,
        "history": {},
        "spectra": {},
        "findings": {"text": "", "indicators": []},
    }
