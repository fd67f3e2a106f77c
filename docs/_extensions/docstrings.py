"""Whether docstrings of public names say what numpydoc asks for, in the form that whence has.

Types stand in annotations, so that a parameter's line ends in a colon without one, and parameters
that belong together share a line. A short function may name its parameters in its sentences; where
there is a section ``Parameters``, it has all of them and no others.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator

from numpydoc.docscrape import NumpyDocString
from public_names import found_object

UNTYPED = re.compile(r"^([*\w, ]+):$", flags=re.M)
"""A line of a section that names parameters, without their type."""


def complaints(name: str) -> Iterator[str]:
    """Yield what is wrong with the docstring of a public name."""
    thing = found_object(name)
    text = inspect.getdoc(thing)
    if not text:
        yield f"{name} has no docstring"
        return

    parsed = NumpyDocString(UNTYPED.sub(r"\1", text))
    summary = " ".join(parsed["Summary"])
    if not summary:
        yield f"the docstring of {name} does not begin with what it is in one line"
    elif not summary.endswith((".", ":")):
        yield f"the first line of the docstring of {name} is not a sentence"

    documented = set()
    for parameter in parsed["Parameters"]:
        for part in parameter.name.split(","):
            documented.add(part.strip(" *"))
    if not documented:
        return

    parameters = set(inspect.signature(thing).parameters)
    for unknown in sorted(documented - parameters):
        yield f"the docstring of {name} has a parameter {unknown!r} that there is not"
    for missing in sorted(parameters - documented):
        yield f"the docstring of {name} says nothing of its parameter {missing!r}"
