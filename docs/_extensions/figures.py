"""Pictures of the gallery: every figure that a block of an example makes, whoever made it.

whence's plots return a :class:`matplotlib.figure.Figure` of their own, which ``matplotlib.pyplot``
does not know and sphinx-gallery's own scraper therefore does not see.
"""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import torch
from matplotlib.figure import Figure
from sphinx_gallery.scrapers import figure_rst

DPI = 130

_shown: set[int] = set()


def scrape(block: Any, block_vars: dict[str, Any], gallery_conf: dict[str, Any]) -> str:
    """Save the figures that are new among an example's variables; return what shows them."""
    scope = block_vars["example_globals"]
    figures = [value for value in scope.values() if isinstance(value, Figure)]
    figures += [plt.figure(number) for number in plt.get_fignums()]

    paths = []
    for figure in figures:
        if id(figure) in _shown:
            continue
        _shown.add(id(figure))
        path = next(block_vars["image_path_iterator"])
        figure.savefig(path, dpi=DPI, bbox_inches="tight")
        paths.append(path)

    plt.close("all")
    torch.set_default_dtype(torch.float32)  # DeepXDE sets another one
    return figure_rst(paths, gallery_conf["src_dir"])


def reset(gallery_conf: dict[str, Any], path: str) -> None:
    """Forget the figures of the example before; set what no example may inherit."""
    _shown.clear()
    plt.close("all")
    torch.set_default_dtype(torch.float32)  # DeepXDE sets another one
