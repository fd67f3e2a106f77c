"""Every shape, type and name check and its wording."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor


def nearest(name: str, names: Iterable[str]) -> str:
    """Return ``" (did you mean 'x'?)"`` for the closest known name, or an empty string."""
    found = difflib.get_close_matches(str(name), [str(n) for n in names], n=1, cutoff=0.4)
    return f" (did you mean {found[0]!r}?)" if found else ""


def one_of(what: str, given: object, names: Iterable[str]) -> None:
    """Raise ``ValueError`` unless ``given`` is one of ``names``; name the nearest."""
    known = list(names)
    if given not in known:
        listed = ", ".join(repr(n) for n in known)
        raise ValueError(f"unknown {what} {given!r}{nearest(str(given), known)}: choose {listed}")


def positive(what: str, value: float, *, zero: bool = False) -> None:
    """Raise ``ValueError`` unless ``value`` is a finite number above zero (or zero too)."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not math.isfinite(value) or value < 0 or (value == 0 and not zero):
        bound = "zero or a positive number" if zero else "a positive number"
        raise ValueError(f"{what} must be {bound}, got {value!r}")


def count(what: str, value: int, *, zero: bool = False) -> None:
    """Raise ``ValueError`` unless ``value`` is a positive integer (or zero too)."""
    if isinstance(value, bool) or not isinstance(value, int) or value < (0 if zero else 1):
        bound = "a non-negative integer" if zero else "a positive integer"
        raise ValueError(f"{what} must be {bound}, got {value!r}")


def points(what: str, given: object, columns: int) -> Tensor:
    """Return ``given`` if it is a finite, non-empty float tensor of shape (n, columns)."""
    if not isinstance(given, Tensor):
        raise TypeError(f"{what} must be a torch.Tensor of shape (n, {columns}), got {type(given)}")
    if given.ndim != 2 or given.shape[1] != columns or given.shape[0] == 0:
        raise ValueError(
            f"{what} must have shape (n, {columns}) with n > 0, got {tuple(given.shape)}"
        )
    if not given.dtype.is_floating_point:
        raise TypeError(f"{what} must be of a floating-point dtype, got {given.dtype}")
    bad = ~torch.isfinite(given).all(dim=1)
    if bool(bad.any()):
        raise ValueError(
            f"{what} must be finite: {int(bad.sum())} of {len(given)} rows are not, "
            f"the first is row {int(bad.nonzero()[0])}"
        )
    return given


def pointwise(value: Tensor, one: Tensor, n: int) -> None:
    """Raise ``ValueError`` unless a function gave (n, m) at n points and (1, m) at one."""
    if value.ndim != 2 or value.shape[0] != n or one.shape != (1, value.shape[1]):
        raise ValueError(
            f"a pointwise function must return shape (n, m), each row from its own point alone, "
            f"got {tuple(value.shape)} at {n} points and {tuple(one.shape)} at one point "
            "(a column (n, 1) and a vector (n,) broadcast to (n, n))"
        )


def number(what: str, value: Any) -> float:
    """Return ``value`` as a float if it is a finite real number."""
    if isinstance(value, (bool, str)) or not math.isfinite(value):
        raise ValueError(f"{what} must be a finite number, got {value!r}")
    return float(value)


def pair(what: str, values: Sequence[Any]) -> tuple[Any, Any]:
    """Return ``values`` as a tuple if there are two, one for each of two coordinates."""
    given = tuple(values)
    if len(given) != 2:
        raise ValueError(f"{what} must have two entries, one for each coordinate, got {values!r}")
    return given[0], given[1]


def identifiers(what: str, names: Iterable[str]) -> None:
    """Raise ``ValueError`` unless all ``names`` can be names of a function's arguments."""
    for name in names:
        if not isinstance(name, str) or not name.isidentifier():
            raise ValueError(
                f"the name of a {what} must be a Python identifier, since functions take it "
                f"for an argument, got {name!r}"
            )
