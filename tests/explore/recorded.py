"""What a page has with it, read back."""

import base64
import json
import re

import numpy as np

KINDS = {"f8": "<f8", "f4": "<f4", "i4": "<i4", "i2": "<i2"}


def read(page):
    """Return what a report has of its runs."""
    found = re.search(
        r'<script type="application/json" id="report">(.*?)</script>', page, re.DOTALL
    )
    return json.loads(found[1])


def numbers(table):
    """Return the numbers of a table, as the page makes them."""
    data = np.frombuffer(base64.b64decode(table["data"]), KINDS[table["kind"]])
    values = data.astype(float).reshape(table["shape"])
    if "unit" in table:
        values = values * numbers(table["unit"])[:, None]
    return values
