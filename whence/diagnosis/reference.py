"""Trusted values that a solution is compared with: its problem's own, or those of a table."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from whence import _checks
from whence.arrays import DataFrameLike
from whence.objective import Objective
from whence.pinn.pde.data import Column, Data
from whence.pinn.pde.problem import Problem
from whence.pinn.pde.tables import read_table
from whence.points import locations

N_INSIDE = 600
"""Points over the domain at which a known solution is trusted."""
N_TRAINED = 300
"""Points of each equation that are trusted too."""
N_ON_PART = 60
"""Points of each condition at which it is trusted too."""
REFERENCE_SEED = 30_000
"""Seeds of these points begin here, apart from those of training and of fresh points."""
MAX_ROWS = 2000
"""Rows of a table that are used."""
NAME = "trusted_values"
"""Name of the term that they make."""

ReferenceLike = DataFrameLike | str | Path
"""A data frame, or a CSV or Parquet file."""


@dataclass(frozen=True, eq=False)
class Reference:
    """Trusted values of some outputs.

    Parameters
    ----------
    points:
        Where, (n, d), float64.
    outputs:
        Names of the outputs that are known.
    values:
        Their values, (n, outputs), float64.
    source:
        What messages call them.
    """

    points: Tensor
    outputs: tuple[str, ...]
    values: Tensor
    source: str

    @classmethod
    def of_solution(
        cls, problem: Problem, objective: Objective, seed: int
    ) -> Reference:
        """Return the values of a problem's own solution, within and where conditions hold.

        Some of the points that equations were trained on are among them, as these may crowd where
        the solution is steep.
        """
        apart = REFERENCE_SEED + seed
        inside = problem.domain.sample(N_INSIDE, "random", apart)
        places = [inside]
        for name in problem.equations:
            if name in objective.terms:
                trained = objective.term(name).some_points(N_TRAINED, seed)
                places.append(locations(trained).detach().cpu().double())

        # Where conditions hold, so that a wrong one shows.
        for name in problem.terms:
            if name in problem.equations or name in problem.given_terms:
                continue
            n = N_ON_PART
            room = problem.room(name)
            if room is not None:
                n = min(room, n)
            places.append(problem.draw(name, n, apart, "random"))

        # What an ansatz fixes shows at the boundary alone.
        if problem.ansatz is not None:
            for part in problem.domain.boundary:
                places.append(part.sample(N_ON_PART, "random", apart))

        # Equations that share their points would give each of them twice.
        points = torch.cat(places).unique(dim=0)
        values = torch.as_tensor(problem.reference(points))
        trusted = cls(
            points,
            tuple(problem.outputs),
            values,
            "the known solution",
        )
        return trusted.finite()

    @classmethod
    def of_table(cls, problem: Problem, reference: ReferenceLike) -> Reference:
        """Return the values of a table with a column for each coordinate and some outputs.

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        TypeError
            If it is no table.
        ValueError
            If a column is missing or no row lies in the domain.
        """
        # What messages call it: the file, where there is one.
        source = "the reference"
        table: object = reference
        if isinstance(reference, (str, Path)):
            source = Path(reference).name
            table = read_table("the reference", Path(reference))
        if not isinstance(table, DataFrameLike):
            raise TypeError(
                "the reference must be a table with a column for each coordinate, or a path to "
                f"one, got {_checks.describe(reference)}"
            )

        names = [str(name) for name in table.columns]
        outputs = [name for name in problem.outputs if name in names]
        # A table need not know every output, but where its rows are.
        missing = [name for name in problem.coordinates if name not in names]
        if missing or not outputs:
            raise ValueError(
                f"{source} needs the columns {', '.join(problem.coordinates)} and at least one of "
                f"{', '.join(problem.outputs)}, got {', '.join(names) or 'none'}: name them so in "
                "its first row"
            )

        # Coordinates first, then outputs, in the problem's order.
        wanted = [*problem.coordinates, *outputs]
        columns = [names.index(name) for name in wanted]
        numbers = np.asarray(table.to_numpy())
        numbers = numbers[:MAX_ROWS, columns].astype(float)
        rows = torch.from_numpy(numbers)

        d = len(problem.coordinates)
        trusted = cls(
            rows[:, :d],
            tuple(outputs),
            rows[:, d:],
            source,
        )
        # Gaps of a measurement series are left out; points outside of the domain are an error.
        trusted = trusted.finite()
        problem.check_points(None, trusted.points)
        return trusted

    def finite(self) -> Reference:
        """Return the rows whose numbers are all finite; none at all is an error."""
        table = torch.cat([self.points, self.values], dim=1)
        is_whole = torch.isfinite(table).all(dim=1)
        if not bool(is_whole.any()):
            raise ValueError(
                f"{self.source} has no row whose numbers are all finite: give at least one"
            )
        return Reference(
            self.points[is_whole],
            self.outputs,
            self.values[is_whole],
            self.source,
        )

    def data(self) -> Data:
        """Return the values as measurements, which make a term of the loss."""
        # Without errors of their own all rows weigh the same.
        columns: dict[str, Column] = {}
        for k, name in enumerate(self.outputs):
            columns[name] = self.values[:, k]
        return Data(NAME, self.points, sigma=None, of=None, equals=None, **columns)
