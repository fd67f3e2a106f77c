"""Command lines as options: a parser of the flags that were given, of all of them where that fails.

tyro makes a parser for each command line again. Of all flags that classes of the catalogue have,
that takes longer than many a command.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import io
import re
import sys
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

import tyro

from whence._names import one_of

CONFIG = (tyro.conf.FlagCreatePairsOff,)

T = TypeVar("T")


def parsed(options: type[T], command: str, arguments: Sequence[str]) -> T:
    """Return a command's options; an unknown choice is a ``ValueError`` that names the nearest."""
    narrow = narrowed(options, arguments)
    if narrow is not options:
        # Help and errors are about all flags, so that these are left to the whole parser.
        with _nothing_printed(), contextlib.suppress(SystemExit):
            return widened(options, _parsed_by(narrow, command, arguments))

    message = io.StringIO()
    try:
        # Held back until it is known whether we can say it better.
        with contextlib.redirect_stderr(message):
            return _parsed_by(options, command, arguments)
    except SystemExit:
        check_choice(message.getvalue())
        sys.stderr.write(message.getvalue())
        raise


def _parsed_by(options: type[T], command: str, arguments: Sequence[str]) -> T:
    return tyro.cli(
        options, prog=f"whence {command}", args=list(arguments), config=CONFIG
    )


@contextlib.contextmanager
def _nothing_printed() -> Iterator[None]:
    with (
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        yield


def narrowed(options: type[T], arguments: Sequence[str]) -> type[T]:
    """Return options without the groups of flags that no argument names, themselves if none has.

    Examples
    --------
    >>> import dataclasses
    >>> from whence.cli.parsing import narrowed
    >>> from whence.cli.train import Options
    >>> narrow = narrowed(Options, ["burgers", "--resample.every", "100"])
    >>> [field.name for field in dataclasses.fields(narrow)][-1]
    'resample'
    >>> len(dataclasses.fields(narrow)) < len(dataclasses.fields(Options))
    True
    """
    # A hyphen is as good as an underscore, and a value may follow behind "=".
    named = {word.partition(".")[0].replace("_", "-") for word in arguments}
    groups = group_fields(options)
    kept = tuple(name for name in groups if "--" + name.replace("_", "-") in named)
    if len(kept) == len(groups):
        return options
    narrow: type[T] = _with_groups_of(options, kept)  # type: ignore[arg-type]
    return narrow


def group_fields(options: type) -> tuple[str, ...]:
    """Return the fields of options that are groups of flags, as ``with_groups`` makes them."""
    names = []
    for field in dataclasses.fields(options):
        default: Any = field.default_factory
        if dataclasses.is_dataclass(default):
            names.append(field.name)
    return tuple(names)


@functools.cache
def _with_groups_of(options: Any, names: tuple[str, ...]) -> Any:
    """Return options with these groups of flags alone, beside the command's own flags."""
    hints = options.__annotations__
    fields: list[Any] = []
    for field in dataclasses.fields(options):
        if field.name in names:
            default: Any = dataclasses.field(default_factory=field.default_factory)
            fields.append((field.name, hints[field.name], default))

    made = dataclasses.make_dataclass(
        options.__name__, fields, bases=options.__bases__, frozen=True
    )
    made.__doc__ = options.__doc__
    return made


def widened(options: type[T], narrow: T) -> T:
    """Return options with the values of narrow ones; no flag of the other groups was given."""
    values = {}
    for field in dataclasses.fields(narrow):  # type: ignore[arg-type]
        values[field.name] = getattr(narrow, field.name)
    return options(**values)


def check_choice(message: str) -> None:
    """Raise ``ValueError`` if a message of tyro is about an unknown choice."""
    # Tyro lists the choices but suggests none, and has no public way to say it otherwise.
    text = " ".join(message.replace("│", " ").split())
    pattern = (
        r"invalid choice '(.*?)' for argument '(.*?)'\. Expected one of \((.*?),?\)\."
    )
    match = re.search(pattern, text)
    if match is None:
        return

    value, argument, choices = match.groups()
    names = [name for name in re.findall(r"'(.*?)'", choices) if name != "None"]
    one_of(f"value of {argument}", value, names)
