"""Names that users give, and the nearest valid ones; without torch, so that help needs none."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

MAX_LISTED = 60
FIRST_LISTED = 10
MAX_LETTERS = 200


def nearest(name: str, names: Iterable[object]) -> str:
    """Return ``" (did you mean 'x'?)"`` for the closest known name, or an empty string."""
    # Compared in lower case, named as they are.
    known = {str(entry).lower(): str(entry) for entry in names}
    wanted = str(name).lower()
    matches = difflib.get_close_matches(wanted, known, n=1, cutoff=0.4)

    if not matches:
        return ""

    return f" (did you mean {known[matches[0]]!r}?)"


def one_of(what: str, given: object, names: Iterable[object]) -> None:
    """Raise ``ValueError`` unless ``given`` is one of ``names``; name the nearest."""
    # Many names that are made when asked for know what is one of them without all being made.
    if isinstance(names, Sequence) and not isinstance(names, str) and given in names:
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
    """Return names with commas between; of very many the first ones and the last."""
    shown = [repr(name) for name in names]
    if len(shown) > MAX_LISTED:
        shown = [*shown[:FIRST_LISTED], "…", shown[-1]]
    return ", ".join(shown)
