"""Every shape, type and name check and its wording."""

from __future__ import annotations

import inspect
import itertools
import keyword
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, SupportsFloat, TypeVar

import numpy as np
import torch
from torch import Tensor

from whence._names import nearest as nearest
from whence._names import one_of as one_of

T = TypeVar("T")
Array = np.ndarray[Any, np.dtype[Any]]
MAX_SEED = 2**63 - 1
"""Largest seed of torch's generators."""


MAX_COMPARED = 2**15
"""Rows of which numbers to compare them by are made at once."""
MIXING_FACTOR = np.uint64(0x9E3779B97F4A7C15)
"""Odd number near 2⁶⁴ over the golden ratio, which mixes bits (Knuth, vol. 3, section 6.4)."""
MAX_DESCRIBED = 200
"""Letters by which a message shows what was given."""
MAX_ENTRIES = 5
"""Entries of a container that a message shows."""


def describe(given: object) -> str:
    """Return what was passed in one short line: arrays by their shape, modules by their class."""
    if isinstance(given, torch.nn.Module):
        return f"a {type(given).__name__}"
    shape = getattr(given, "shape", None)
    if isinstance(shape, tuple):  # tensors, arrays, data frames
        return f"{type(given).__name__} of shape {tuple(shape)}"
    if isinstance(given, dict):
        entries = [f"{key!r}: {describe(given[key])}" for key in first_few(given)]
        return _shortened("{" + _joined(entries, len(given)) + "}")
    if isinstance(given, (list, tuple)):
        entries = [describe(entry) for entry in first_few(given)]
        opening, closing = "[]" if isinstance(given, list) else "()"
        comma = "," if isinstance(given, tuple) and len(given) == 1 else ""
        return _shortened(opening + _joined(entries, len(given)) + comma + closing)
    return _shortened(repr(given))


def counted(n: int, noun: str) -> str:
    """Return ``1 seed`` or ``2 seeds``."""
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def first_few(entries: Iterable[T]) -> list[T]:
    """Return the first entries of what may be long."""
    return list(itertools.islice(entries, MAX_ENTRIES))


def _joined(entries: Sequence[str], n: int) -> str:
    shown = ", ".join(entries)
    return f"{shown}, … {n} in all" if n > len(entries) else shown


def _shortened(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= MAX_DESCRIBED else line[:MAX_DESCRIBED] + " …"


def shape_of(value: object) -> object:
    """Return the shape of a tensor or array, or the kind of anything else, for messages."""
    shape = getattr(value, "shape", None)
    if shape is None:
        return type(value).__name__
    return tuple(shape)


def positive(what: str, value: object, *, zero: bool = False) -> None:
    """Raise ``ValueError`` unless ``value`` is a finite number above zero (or zero too)."""
    # A bool is an int in Python, and never meant as a number here.
    is_in_range = False
    if isinstance(value, (int, float, np.number)) and not isinstance(value, bool):
        is_in_range = is_finite(value) and float(value) >= 0
    if not is_in_range or (value == 0 and not zero):
        bound = "zero or a positive number" if zero else "a positive number"
        raise ValueError(f"{what} must be {bound}, got {describe(value)}")


def is_finite(value: SupportsFloat) -> bool:
    """Whether a number is finite, integers beyond all floats being not."""
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def boolean(what: str, value: object) -> None:
    """Raise ``TypeError`` unless ``value`` is True or False."""
    if not isinstance(value, bool):
        raise TypeError(f"{what} must be True or False, got {describe(value)}")


def count(what: str, value: object, *, zero: bool = False) -> None:
    """Raise ``ValueError`` unless ``value`` is a positive integer (or zero too)."""
    least = 0 if zero else 1
    # NumPy's integers too, which are none of Python's.
    is_in_range = False
    if isinstance(value, (int, np.integer)) and not isinstance(value, bool):
        is_in_range = int(value) >= least
    if not is_in_range:
        bound = "a non-negative integer" if zero else "a positive integer"
        raise ValueError(f"{what} must be {bound}, got {describe(value)}")


def seed(what: str, value: int) -> None:
    """Raise ``ValueError`` unless ``value`` is an integer that generators take."""
    count(what, value, zero=True)
    if value > MAX_SEED:
        raise ValueError(f"{what} must be at most {MAX_SEED}, got {value!r}")


def points(what: str, given: object, columns: int | str) -> Tensor:
    """Return ``given`` if it is a finite, non-empty float tensor of shape (n, columns).

    ``columns`` is their number, or a letter where any number will do.
    """
    if not isinstance(given, Tensor):
        raise TypeError(
            f"{what} must be a torch.Tensor of shape (n, {columns}), got {describe(given)}"
        )

    # What follows is defined for plain tables of ordinary numbers alone.
    if given.layout != torch.strided or given.is_nested:
        layout = "nested" if given.is_nested else str(given.layout)
        raise TypeError(
            f"{what} must be a plain (strided) tensor, got {layout}: pass points.to_dense()"
        )
    if given.dtype.itemsize < 2:
        raise TypeError(
            f"{what} must be of a dtype of 16 bits or more, got {given.dtype}"
        )

    is_table = given.ndim == 2 and given.numel() > 0
    if is_table and isinstance(columns, int):
        is_table = given.shape[1] == columns
    if not is_table:
        raise ValueError(
            f"{what} must have shape (n, {columns}) with n > 0, got {tuple(given.shape)}"
        )
    if not given.dtype.is_floating_point:
        raise TypeError(f"{what} must be of a floating-point dtype, got {given.dtype}")

    # NaN and infinity are found by the least and the largest number, without another table.
    least, largest = given.detach().aminmax()
    if not bool(torch.isfinite(least) & torch.isfinite(largest)):
        bad = ~torch.isfinite(given).all(dim=1)  # rows, (n,)
        raise ValueError(
            f"{what} must be finite: {int(bad.sum())} of {len(given)} rows are not, "
            f"the first is row {int(bad.nonzero()[0])}"
        )

    return given


def weights(what: str, given: object, n: int) -> None:
    """Raise ``ValueError`` unless ``given`` holds n finite numbers that are not negative."""
    if not isinstance(given, Tensor) or given.shape != (n,):
        raise ValueError(
            f"{what} must be a tensor of shape ({n},), got {describe(given)}"
        )

    bad = ~(torch.isfinite(given) & (given >= 0))
    if bool(bad.any()):
        raise ValueError(
            f"{what} must be finite and not negative: {int(bad.sum())} of {n} are not, the first "
            f"is number {int(bad.nonzero()[0])}"
        )


def names(what: str, given: object) -> None:
    """Raise unless ``given`` is None or a tuple of different names."""
    if given is None:
        return
    if not isinstance(given, (tuple, list)) or not given:
        example = f"({given!r},)" if isinstance(given, str) else "('pde',)"
        raise TypeError(
            f"{what} must be a tuple of names, such as {example}, got {given!r}"
        )

    if len(set(given)) < len(given):
        raise ValueError(f"{what} must be different names, got {given!r}")


def repeated(rows: Tensor) -> Tensor:
    """Return which rows equal an earlier one, as booleans of shape (n,)."""
    # Adding zero makes a negative zero positive, so that equal numbers have equal bytes.
    numbers = rows.detach().cpu().double().numpy() + 0.0
    table = np.ascontiguousarray(numbers)

    # Each row as one value of d·8 bytes: unique() then sorts n values, not n·d numbers.
    row_type = np.dtype((np.void, table.dtype.itemsize * table.shape[1]))
    keys = table.view(row_type)[:, 0]
    _, first_places = np.unique(keys, return_index=True)

    again = torch.ones(len(table), dtype=torch.bool)
    again[torch.from_numpy(first_places)] = False
    return again


def may_repeat(rows: Tensor) -> bool:
    """Whether two rows may be equal: False is certain, and True hardly ever a mistake.

    Rows are compared by numbers of 64 bits made of them, which take less memory than the rows.
    """
    keys = np.zeros(len(rows), dtype=np.uint64)
    for start in range(0, len(rows), MAX_COMPARED):
        part = slice(start, start + MAX_COMPARED)
        # Adding zero makes a negative zero positive, so that equal numbers have equal bits.
        numbers = rows[part].detach().cpu().double().numpy() + 0.0
        bits = np.ascontiguousarray(numbers).view(np.uint64)
        for column in bits.T:
            # An odd factor loses no bit, modulo 2⁶⁴; the shift brings high bits down again.
            keys[part] = (keys[part] ^ column) * MIXING_FACTOR
            keys[part] ^= keys[part] >> np.uint64(32)

    keys.sort()
    return bool((keys[1:] == keys[:-1]).any())


def distinct(what: str, points: Tensor) -> None:
    """Raise ``ValueError`` if two of the points are the same."""
    if not may_repeat(points):
        return
    again = repeated(points)
    if not bool(again.any()):
        return

    row = int(again.nonzero()[0])
    equal = (points == points[row]).all(dim=1)
    first = int(equal.nonzero()[0])
    raise ValueError(
        f"{what} must differ: {int(again.sum())} of {len(points)} repeat an earlier one, the "
        f"first is row {row}, equal to row {first}: {points[row].tolist()}; give each point "
        "once (measurements that repeat a place: pinn.Data)"
    )


def pointwise(value: Tensor, one: Tensor, n: int) -> None:
    """Raise ``ValueError`` unless a function gave (n, m) at n points and (1, m) at one."""
    # Two numbers of points tell a function of each row from one that mixes them.
    if value.ndim != 2 or value.shape[0] != n or one.shape != (1, value.shape[1]):
        raise ValueError(
            f"a pointwise function must return shape (n, m), each row from its own point alone, "
            f"got {tuple(value.shape)} at {n} points and {tuple(one.shape)} at one point "
            "(a column (n, 1) and a vector (n,) broadcast to (n, n))"
        )


def number(what: str, value: SupportsFloat) -> float:
    """Return ``value`` as a float if it is a finite real number."""
    if not isinstance(value, (bool, str, bytes)):
        try:
            converted = float(value)
        except (TypeError, ValueError, OverflowError):
            converted = math.nan
        if math.isfinite(converted):
            return converted

    raise ValueError(f"{what} must be a finite number, got {describe(value)}")


def finite(what: str, values: Array) -> None:
    """Raise ``ValueError`` unless all numbers are finite: ranks and means hide those that are not.

    Examples
    --------
    >>> import numpy as np
    >>> from whence import _checks
    >>> _checks.finite("actual", np.array([[1.0, 2.0], [np.nan, 3.0]]))
    Traceback (most recent call last):
        ...
    ValueError: actual must be finite: 1 of 4 numbers is not, at place (1, 0)
    """
    is_bad = ~np.isfinite(values)
    n_bad = int(is_bad.sum())
    if not n_bad:
        return

    first = tuple(int(index) for index in np.argwhere(is_bad)[0])
    place = first[0] if len(first) == 1 else first
    where = (
        f"is not, at place {place}" if n_bad == 1 else f"are not, the first at {place}"
    )
    raise ValueError(f"{what} must be finite: {n_bad} of {values.size} numbers {where}")


def pair(what: str, values: Sequence[T], each: str = "coordinate") -> tuple[T, T]:
    """Return ``values`` as a tuple if there are two, one for each coordinate (or other)."""
    entries = tuple(values) if isinstance(values, Iterable) else ()
    if len(entries) != 2:
        raise ValueError(
            f"{what} must have two entries, one for each {each}, got {values!r}"
        )

    return entries[0], entries[1]


def betas(values: Sequence[float]) -> None:
    """Raise ``ValueError`` unless these are two decays of moments, each in [0, 1)."""
    for beta in pair("betas", values, "moment"):
        if not 0 <= number("betas", beta) < 1:
            raise ValueError(f"betas must be two numbers in [0, 1), got {values!r}")


def identifiers(what: str, names: Iterable[str]) -> None:
    """Raise ``ValueError`` unless all ``names`` can be names of a function's arguments."""
    for name in names:
        is_name = isinstance(name, str) and name.isidentifier()
        if not is_name or keyword.iskeyword(name):
            raise ValueError(
                f"the name of a {what} must be a Python identifier and no keyword, since functions "
                f"take it for an argument, got {name!r}"
            )


def arguments(what: str, function: Callable[..., object]) -> tuple[str, ...]:
    """Return the names of a function's arguments, those with a default left out.

    Raises
    ------
    TypeError
        If it cannot be called.
    ValueError
        If the names cannot be read, or an argument cannot be given by position.
    """
    if not callable(function):
        raise TypeError(
            f"{what} must be a function whose argument names say what it takes, such as "
            f"lambda u, u_x: u_x - u, got {function!r}"
        )

    try:
        parameters = inspect.signature(function).parameters.values()
    except ValueError:
        label = getattr(function, "__name__", repr(function))
        raise ValueError(
            f"{what} has no argument names to read: wrap it, such as lambda u: {label}(u)"
        ) from None

    names = []
    for parameter in parameters:
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            raise ValueError(
                f"{what} takes {parameter}: name each argument instead, such as u, u_x"
            )
        # A default binds a constant to a lambda, as in lambda u_xx, nu=0.01: nu * u_xx.
        if parameter.default is not parameter.empty:
            continue
        if parameter.kind is parameter.KEYWORD_ONLY:
            raise ValueError(
                f"{what} takes {parameter.name!r} by keyword only: leave out the * before it"
            )

        names.append(parameter.name)

    return tuple(names)
