"""Names that users give, and the nearest valid ones; without torch, so that help needs none."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

MAX_LISTED = 60
"""Names that are all listed; of more some are."""
FIRST_LISTED = 10
"""How many of those, before the last."""
MAX_LETTERS = 200
"""Of what was named; the rest of a longer text is cut off."""
LIKENESS = 0.4
"""Share of letters in common from which a name is suggested, as difflib counts them."""


def nearest(name: str, names: Iterable[object]) -> str:
    """Return ``" (did you mean 'x'?)"`` for the closest known name, or an empty string.

    Examples
    --------
    >>> from whence._names import nearest
    >>> nearest("Burger", ["burgers", "wave"]), nearest("qqq", ["burgers", "wave"])
    (" (did you mean 'burgers'?)", '')
    """
    # Compared in lower case, named as they are.
    known = {}
    for entry in names:
        written = str(entry)
        known[written.lower()] = written

    wanted = str(name).lower()
    matches = difflib.get_close_matches(wanted, known, n=1, cutoff=LIKENESS)
    if not matches:
        return ""

    closest = known[matches[0]]
    return f" (did you mean {closest!r}?)"


def one_of(what: str, given: object, names: Iterable[object]) -> None:
    """Check that something given is one of the names that are known.

    Parameters
    ----------
    what:
        What it names, in words.
    given:
        What was given.
    names:
        All that are known.

    Raises
    ------
    ValueError
        If it is none of them; the message has the nearest, and lists all.
    """
    # Many names that are made when asked for know what is one of them without all being made.
    is_sequence = isinstance(names, Sequence) and not isinstance(names, str)
    if is_sequence and given in names:
        return
    known = list(names)
    if given in known:
        return

    guess = nearest(str(given), known)
    shown = repr(given)
    if len(shown) > MAX_LETTERS:
        shown = shown[:MAX_LETTERS] + " …"
    raise ValueError(f"unknown {what} {shown}{guess}: choose {listed_names(known)}")


def listed_names(names: Sequence[object]) -> str:
    """Return names with commas between; of very many the first ones and the last.

    Examples
    --------
    >>> from whence._names import listed_names
    >>> listed_names(["add", "remove"])
    "'add', 'remove'"
    """
    shown = [repr(name) for name in names]
    if len(shown) > MAX_LISTED:
        shown = [*shown[:FIRST_LISTED], "…", shown[-1]]
    return ", ".join(shown)
