"""Physics-informed networks: domains, equations, training, resampling.

The public names are those that ``__init__.pyi`` lists.
"""

from __future__ import annotations

from typing import Any

import lazy_loader

from whence.catalogue import (
    NETWORKS,
    OPTIMIZERS,
    RESAMPLERS,
    SCORES,
    SELECTIONS,
    WEIGHTINGS,
    find_class,
)

_find_public, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

KINDS = (NETWORKS, OPTIMIZERS, RESAMPLERS, SCORES, SELECTIONS, WEIGHTINGS)
"""Catalogues whose classes are names of this module, also those that other packages add."""


def __getattr__(name: str) -> Any:
    """Return a public name, or a class that another package adds to the catalogue (PEP 562)."""
    if name in __all__:
        return _find_public(name)
    if name[:1].isupper():  # as classes are, and modules are not
        entry = find_class(name, KINDS)
        if entry is not None:
            return entry
    raise AttributeError(f"module 'whence.pinn' has no attribute {name!r}")
