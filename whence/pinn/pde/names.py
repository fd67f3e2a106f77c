"""Names of fields in equations: outputs, derivatives of them, coordinates, and symbols."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from whence import _checks
from whence.jets import MultiIndex


@dataclass(frozen=True)
class Name:
    """A parsed name: a derivative of output ``output``, coordinate ``coordinate``, or a symbol."""

    output: int | None
    index: MultiIndex = ()
    coordinate: int | None = None
    symbol: str | None = None


def parse(
    name: str,
    coordinates: Sequence[str],
    outputs: Sequence[str],
    symbols: Sequence[str] = (),
) -> Name:
    """Return what ``name`` stands for; symbols stand for themselves, as unknown numbers do.

    Raises
    ------
    ValueError
        If it is neither a coordinate, nor an output, nor a derivative of one; the message
        names the nearest valid one.

    Examples
    --------
    >>> from whence.pinn.pde.names import parse
    >>> parse("u_xt", ("x", "t"), ("u",))
    Name(output=0, index=(0, 1), coordinate=None, symbol=None)
    """
    name = str(name)  # anything may be asked for, and is then named in the error
    if name in coordinates:
        return Name(None, coordinate=tuple(coordinates).index(name))
    if name in outputs:
        return Name(tuple(outputs).index(name))
    if name in symbols:
        return Name(None, symbol=name)

    for position, output in enumerate(outputs):
        index = derivative_of(name, output, coordinates)
        if index:
            # Sorted, as derivatives commute: u_xt and u_tx are one field.
            return Name(position, tuple(sorted(index)))

    # Up to second order, to find the nearest among.
    examples = [*outputs, *coordinates, *symbols]
    for output in outputs:
        for a in coordinates:
            examples.append(f"{output}_{a}")
            examples += [f"{output}_{a}{b}" for b in coordinates]

    others = f", {', '.join(symbols)}" if symbols else ""
    raise ValueError(
        f"unknown name {name!r}{_checks.nearest(name, examples)}: expected a coordinate "
        f"({', '.join(coordinates)}), an output ({', '.join(outputs)}){others} or a derivative "
        f"such as {outputs[0]}_{coordinates[0]}"
    )


def derivative_of(
    name: str, output: str, coordinates: Sequence[str]
) -> tuple[int, ...] | None:
    """Return along which coordinates ``name`` differentiates ``output``; None if it does not."""
    if not name.startswith(output + "_"):
        return None
    return _coordinates(name[len(output) + 1 :], coordinates) or None


def _coordinates(text: str, coordinates: Sequence[str]) -> tuple[int, ...] | None:
    """Split ``text`` into coordinate names, backtracking where one is a prefix of another."""
    if not text:
        return ()

    # With coordinates "x" and "xi" the text "xi" may be split in two ways: try all.
    for position, coordinate in enumerate(coordinates):
        if text.startswith(coordinate):
            rest = _coordinates(text[len(coordinate) :], coordinates)
            if rest is not None:
                return (position, *rest)

    return None
