"""Say which training points a trained network's answers come from.

The public names of the core, which ``__init__.pyi`` lists; physics-informed networks live in
:mod:`whence.pinn`. A name's module is imported when it is first used, so the command line can
show its help without torch.
"""

from __future__ import annotations

from typing import Any

import lazy_loader

__version__ = "0.1.0"

_find_public, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)


def __getattr__(name: str) -> Any:
    """Return a public name, or a class that another package adds to the catalogue (PEP 562)."""
    if name in __all__:
        return _find_public(name)
    if name[:1].isupper():  # as classes are, and modules are not
        from whence.catalogue import (  # slow, as it looks at every package installed
            METHODS,
            QUANTITIES,
            SOLVERS,
            find_class,
        )

        entry = find_class(name, (METHODS, QUANTITIES, SOLVERS))
        if entry is not None:
            return entry
    raise AttributeError(f"module 'whence' has no attribute {name!r}")
