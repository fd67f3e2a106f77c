"""What every resampler is, and the row numbers that resamplers share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from whence import _checks
from whence.objective import Objective


@runtime_checkable
class Resampler(Protocol):
    """Renews training points between steps; see :class:`whence.pinn.Resample`."""

    @property
    def every(self) -> int:
        """Iterations between two rounds."""

    def check(self, objective: Objective) -> None:
        """Raise ``ValueError`` if the objective's points could not be renewed."""

    def update_points(
        self, objective: Objective, round: int, seed: int
    ) -> dict[str, Tensor]:
        """Return the renewed points by term; terms left out keep theirs.

        ``round`` and ``seed`` together determine every random draw, so that a run can be repeated
        and resumed.
        """


def renewable_terms(
    objective: Objective, names: Sequence[str] | None
) -> tuple[str, ...]:
    """Return the terms whose points can be renewed: those named, or all with points drawn.

    Raises
    ------
    ValueError
        If the points of a named term are fixed, as measurements are, or no term has points drawn.
    """
    for name in names or ():
        if objective.term(name).source == "fixed":
            raise ValueError(
                f"the points of term {name!r} are part of it, as measurements are: they cannot be "
                "renewed"
            )
    if names:
        return tuple(names)

    drawn = [n for n, term in objective.terms.items() if term.source == "drawn"]
    if not drawn:
        raise ValueError(
            "the points of every term were given: name those to renew, such as "
            f"terms=({next(iter(objective.terms))!r},)"
        )
    return tuple(drawn)


def new_rows(pool: Tensor, present: Tensor) -> Tensor:
    """Return the row numbers of candidates that are not present, each different one once."""
    # The present ones stand first, so that a candidate equal to one of them is the repetition.
    is_repeated = _checks.repeated(torch.cat([present, pool]))
    is_new = ~is_repeated[len(present) :]
    return torch.nonzero(is_new)[:, 0]
