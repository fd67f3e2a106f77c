"""``whence catalogue``: list everything that has a name."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Annotated, Any

import tyro

from whence._names import one_of
from whence.catalogue import KINDS, Catalogue
from whence.cli.flags import flags_of, told


@dataclasses.dataclass(frozen=True)
class Options:
    """List everything that has a name, with what it is; other packages can add to it."""

    kind: Annotated[tyro.conf.Positional[str | None], told("all")] = None
    """Which kind."""
    markdown: bool = False
    """As Markdown tables."""


def run(options: Options, arguments: Any) -> int:
    """Print the catalogue; return the exit code."""
    if options.kind is not None:
        one_of("kind", options.kind, KINDS)
    kinds = [options.kind] if options.kind else list(KINDS)
    lines = markdown(kinds) if options.markdown else text(kinds)
    print("\n".join(lines))
    return 0


def text(kinds: list[str]) -> Iterator[str]:
    """Yield the lines of plain text."""
    for kind in kinds:
        catalogue = KINDS[kind]
        yield f"{kind}:"
        for name in catalogue:
            yield f"  {name:24s} {catalogue.summary(name)}"


def markdown(kinds: list[str]) -> Iterator[str]:
    """Yield the lines of Markdown tables, one for each kind."""
    for kind in kinds:
        catalogue = KINDS[kind]
        yield f"## {kind.capitalize()}"
        yield ""
        yield f"Entry points: `{catalogue.group}`."
        yield ""
        yield "| name | class | what | options |"
        yield "| --- | --- | --- | --- |"
        for name in catalogue:
            summary = catalogue.summary(name).replace("|", "\\|")
            cells = (f"`{name}`", _class_name(catalogue, name), summary)
            yield f"| {' | '.join(cells)} | {_options(catalogue, name)} |"
        yield ""


def _class_name(catalogue: Catalogue[Any], name: str) -> str:
    entry = catalogue[name]
    if isinstance(entry, type):
        return f"`{entry.__name__}`"
    return f"`{getattr(entry, '__name__', name)}`"


def _options(catalogue: Catalogue[Any], name: str) -> str:
    names = [f"`{flag.name}`" for flag in flags_of(catalogue[name])]
    return ", ".join(names)
