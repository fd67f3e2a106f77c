"""``whence catalogue``: list everything that has a name."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Annotated

import tyro

from whence._names import one_of
from whence.catalogue import KINDS
from whence.cli.flags import default_words, flags_of


@dataclasses.dataclass(frozen=True)
class Options:
    """List everything that has a name, with what it is; other packages can add to it."""

    kind: Annotated[tyro.conf.Positional[str | None], default_words("all", "KIND")] = (
        None
    )
    """Which kind."""
    markdown: bool = False
    """As Markdown tables."""


def run(options: Options, arguments: Sequence[str]) -> int:
    """Print the catalogue; return the exit code."""
    kinds = list(KINDS)
    if options.kind is not None:
        one_of("kind", options.kind, KINDS)
        kinds = [options.kind]

    lines = markdown(kinds) if options.markdown else text(kinds)
    print("\n".join(lines))
    return 0


def text(kinds: list[str]) -> Iterator[str]:
    """Yield the lines of plain text."""
    for kind in kinds:
        catalogue = KINDS[kind]
        yield f"{kind}:"
        for name in catalogue:
            # 24 columns fit the longest name.
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
            entry = catalogue[name]
            class_name = getattr(entry, "__name__", name)
            summary = catalogue.summary(name).replace("|", "\\|")  # else a new column
            yield f"| `{name}` | `{class_name}` | {summary} | {options_of_entry(entry)} |"

        yield ""


def options_of_entry(entry: object) -> str:
    """Return the names of an entry's options, and of the variants of a problem."""
    options = [f"`{flag.name}`" for flag in flags_of(entry)]
    # A problem is a module, which lists its variants; what they are `whence problems` says.
    variants = [f"`{name}`" for name in getattr(entry, "VARIANTS", ())]
    if variants:
        options.append(f"`variant`: {', '.join(variants)}")
    return ", ".join(options)
