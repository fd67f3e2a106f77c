"""The explorer's page as one file: scripts, styles and answers in it, nothing from elsewhere."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Sequence
from importlib import resources

import numpy as np

from whence._files import JsonObject

POLICY = (
    "default-src 'none'; script-src 'unsafe-inline' data:; style-src 'unsafe-inline'; "
    "img-src data: blob:"
)
"""A report asks nobody for anything."""
STEPS = 2**15 - 1
"""Whole numbers of 16 bits on either side of zero."""


def page_of(recorded: Sequence[JsonObject]) -> str:
    """Return the page with what it shows in it.

    Scripts are handed over as an import map of ``data:`` addresses, styles and answers within the
    page: nothing is read from anywhere else.
    """
    folder = resources.files("whence.explore") / "page"
    files = {file.name: file.read_text() for file in folder.iterdir()}
    modules = {
        name: module_address(source)
        for name, source in files.items()
        if name.endswith(".js")
    }
    head = [
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">',
        f"<style>{files['style.css']}</style>",
        f'<script type="importmap">{json.dumps({"imports": modules})}</script>',
        f'<script type="application/json" id="report">{script_text(recorded)}</script>',
        '<script type="module">import "main.js";</script>',
    ]
    page = files["run.html"]
    page = re.sub(r' *<link rel="stylesheet".*\n', "", page)
    return re.sub(
        r' *<script type="module".*\n', lambda _: "\n".join(head) + "\n", page
    )


def module_address(source: str) -> str:
    """Return a module as an address; what it imports goes by the bare name in the import map."""
    bare = re.sub(r'(from )"\./', r'\1"', source)
    return f"data:text/javascript;base64,{base64.b64encode(bare.encode()).decode()}"


def script_text(value: object) -> str:
    """Return a value as JSON that no name in it can end the script of."""
    return json.dumps(value, allow_nan=False).replace("<", "\\u003c")


# --- tables ---


def table(values: np.ndarray, kind: str = "f8") -> JsonObject:
    """Return numbers as JSON can hold them, of a kind that the page reads: f8, f4 or i4."""
    array = np.ascontiguousarray(values, dtype=f"<{kind}")
    data = base64.b64encode(array.tobytes()).decode()
    return {"kind": kind, "shape": list(values.shape), "data": data}


def rounded_table(rows: np.ndarray) -> JsonObject:
    """Return rows of numbers in 16 bits of each row's largest size."""
    units = np.abs(rows).max(axis=1, initial=0.0) / STEPS
    safe = np.where(units > 0, units, 1.0)
    steps = np.rint(rows / safe[:, None])
    return {**table(steps, "i2"), "unit": table(units)}
