"""The flags of ``whence influence`` that say what to explain of a run."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import tyro

from whence import _checks
from whence.cli.flags import default_words

ONE_OR_FILE = "[FLOAT ...]|FILE"


@dataclasses.dataclass(frozen=True)
class RunOptions:
    """Flags that say what to explain, all but two of a run alone."""

    run: tyro.conf.Positional[Path]
    """Run folder, as `whence train` leaves it, or a Python file that names model, data and loss."""
    of: Annotated[
        tuple[str, ...],
        default_words("first output of a run, loss of a file", "[NAME ...]"),
    ] = ()
    """What to explain, several at once: outputs and derivatives (u, u_x, u_xt), losses of terms by
    name, of all equations or conditions, or the total, functionals of the problem (drag), or
    quantities (`whence catalogue quantities`) such as loss; of a file one, for its test data."""
    at: Annotated[
        tuple[str, ...], default_words("where the error is largest", ONE_OR_FILE)
    ] = ()
    """Coordinates of the point to explain, in the problem's order, or a file of points (CSV, npz,
    Parquet, zarr) with a column for each; of a run alone."""
    region: Annotated[
        tuple[str, ...], default_words("none", "[FLOAT ...]|[PART ...]")
    ] = ()
    """Explain answers on a grid in a box, lowest and highest value of each coordinate, on parts of
    the boundary by name, or on the whole `domain`; of a run alone."""
    targets: Annotated[int | None, default_words("400, 15000 with --point", "INT")] = (
        None
    )
    """About how many points of a region."""
    from_: Annotated[
        tuple[str, ...],
        tyro.conf.arg(
            name="from",
            metavar="[TERM ...]",
            help_behavior_hint="(default: all terms)",
        ),
    ] = ()
    """Terms, or equations or conditions, whose training points are asked for; of a run alone."""
    point: Annotated[
        tuple[str, ...], default_words("none", "TERM:INDEX|TERM FLOAT ...")
    ] = ()
    """Draw what this training point does to --of over the domain: its term and index, or its term
    and coordinates near it; of a run alone."""
    summary: bool = False
    """What all points of each term do to the loss of each term and to the solution; of a run."""
    leave_out: Annotated[int | None, default_words("none", "INT")] = None
    """Train again without each of so many points, and draw that beside what was predicted; of a
    run alone."""


def given_flags(options: RunOptions) -> list[str]:
    """Return the flags that were given and that a Python file has no use for."""
    flags = []
    for field in dataclasses.fields(RunOptions):
        # A file has these two as well.
        if field.name in ("run", "of"):
            continue
        if getattr(options, field.name) != field.default:
            flags.append(flag_of_field(field.name))
    return flags


def flag_of_field(name: str) -> str:
    """Return how a field is written: ``--leave-out``."""
    # A keyword of Python, such as from, has an underscore behind it.
    return "--" + name.strip("_").replace("_", "-")


def named_terms(options: RunOptions) -> list[str]:
    """Return the names on the command line that may be those of terms."""
    # Components of a term are split off for these alone.
    names = [*options.of, *options.from_]
    # The first word of a point is its term, with its index behind a colon.
    for word in options.point[:1]:
        term, _, _ = word.partition(":")
        names.append(term)
    return names


ALONE = {
    "summary": ("at", "from_", "point", "leave_out"),
    "point": ("at", "from_", "leave_out"),
    "leave_out": ("from_",),
}
"""Flags that mean nothing beside another."""


def check_together(options: RunOptions) -> None:
    """Raise ``ValueError`` for flags that mean nothing beside each other."""
    flags = given_flags(options)
    for name, others in ALONE.items():
        flag = flag_of_field(name)
        for other in map(flag_of_field, others):
            # Ignoring one of them would answer another question than was asked.
            if flag in flags and other in flags:
                raise ValueError(
                    f"{other} does nothing with {flag}: leave one of them out"
                )

    if options.targets is not None:
        _checks.count("--targets", options.targets)
        # These two are of the whole domain unless said otherwise.
        is_region = options.region or options.summary or options.point
        if not is_region:
            raise ValueError(
                "--targets is how many points of a region: add --region, or leave it out"
            )
    if options.leave_out is not None:
        _checks.count("--leave-out", options.leave_out)
