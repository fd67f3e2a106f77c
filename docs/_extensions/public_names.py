"""Every public name of whence, with the module that users take it from.

A name is public where it stands in a module's ``__all__``, where the catalogue has it, and where a
page of the documentation, the README or an example imports it.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).parent.parent.parent

MODULES = (
    "whence",
    "whence.pinn",
    "whence.pinn.helpers",
    "whence.plots",
    "whence.evaluation",
    "whence.explore",
)
"""Modules whose ``__all__`` is what they offer, in the order in which a class is looked for."""

OTHER_LIBRARIES = ("whence.adapters", "whence.compat")
"""Packages whose modules are imported one by one, as each may need another library."""

ALSO = (
    "whence.pinn.zoo.describe",
    "whence.pinn.zoo.load",
    "whence.pinn.zoo.names",
    "whence.pinn.zoo.variants",
    "whence.attribution.method.Method",
    "whence.attribution.result.Attribution",
    "whence.attribution.storage.read_zarr",
    "whence.components.split_components",
    "whence.diagnosis.indicators.measure",
    "whence.pinn.geometry.charts.Chart",
    "whence.pinn.sampling.resamplers.base.Resampler",
    "whence.pinn.training.recipe.Marching",
    "whence.studies.comparison.Comparison",
    "whence.studies.results.Results",
    "whence.studies.study.Study",
)
"""Names that no list has and no page imports, though pages or docstrings speak of them."""

IMPORT = re.compile(r"^from (whence[\w.]*) import ([\w, ]+)$", flags=re.M)


def public_names() -> list[str]:
    """Return all public names, dotted, each object once."""
    names: list[str] = []
    seen: set[int] = set()
    for name in _candidates():
        thing = found_object(name)
        is_documented = inspect.isclass(thing) or inspect.isroutine(thing)
        # The catalogue has what other packages add, too.
        is_ours = getattr(thing, "__module__", "").startswith("whence.")
        if is_documented and is_ours and id(thing) not in seen:
            seen.add(id(thing))
            names.append(name)
    return names


def found_object(name: str) -> object:
    """Return the object that a dotted name means."""
    module, _, attribute = name.rpartition(".")
    return getattr(importlib.import_module(module), attribute)


def canonical(name: str) -> str:
    """Return where the object of a public name is defined, dotted."""
    thing = found_object(name)
    return f"{thing.__module__}.{thing.__qualname__}"


def modules_for_others() -> list[ModuleType]:
    """Return the modules for other libraries that offer something; these must be installed."""
    modules = []
    for package in OTHER_LIBRARIES:
        path = importlib.import_module(package).__path__
        for found in pkgutil.iter_modules(path):
            module = importlib.import_module(f"{package}.{found.name}")
            if hasattr(module, "__all__"):
                modules.append(module)
    return modules


def _candidates() -> Iterator[str]:
    for module in MODULES:
        for name in importlib.import_module(module).__all__:
            yield f"{module}.{name}"

    for module in modules_for_others():
        for name in module.__all__:
            yield f"{module.__name__}.{name}"

    yield from ALSO
    yield from _imported()
    yield from _catalogued()


def _catalogued() -> Iterator[str]:
    from whence.catalogue import KINDS  # whence is found by conf.py's path

    for catalogue in KINDS.values():
        for entry in catalogue.values():
            # Problems are modules, which the catalogue's page lists.
            if inspect.isclass(entry) or inspect.isroutine(entry):
                yield f"{entry.__module__}.{entry.__qualname__}"


def _imported() -> Iterator[str]:
    pages = [
        ROOT / "README.md",
        *sorted((ROOT / "docs").glob("*.md")),
        *sorted((ROOT / "examples").rglob("*.py")),
    ]
    for page in pages:
        for module, names in IMPORT.findall(page.read_text()):
            for name in names.split(","):
                yield f"{module}.{name.strip()}"
