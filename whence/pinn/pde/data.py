"""Measurements as a term of the loss: values of fields at given points, each with its own error."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from whence import _checks
from whence.arrays import ArrayLike, DataFrameLike, to_locations, to_tensor
from whence.pinn.pde.place import Place
from whence.pinn.pde.tables import read_table
from whence.pinn.pde.term_function import TermFunction

Column = float | str | ArrayLike
"""Numbers by row, one number for all, or the name of a column of the table of points."""

MEASURED = "measured_"
"""What precedes a field's name in the name of the column of its measured values."""
FACTOR = "factor_"
"""The same for what the difference of a row is multiplied by."""


@dataclass(frozen=True, eq=False, init=False)
class Data:
    """Measured values of fields at given points: a term ``mean_i ((u(z_i) − u_i) σ̄/σ_i)²``.

    Each row is a measurement of its own, two at one place are two rows. Errors σ_i weigh rows
    against each other, with 1/σ̄² the mean of 1/σ_i²: where all are the same, the term is the mean
    squared difference in the units of the field. Several sets of one problem whose errors are all
    given weigh each row by 1/σ² whatever set it is in. The points are never resampled, and the term
    is validated where it was measured, at rows held out if ``pinn.train(hold_out=)`` says so.

    Parameters
    ----------
    name:
        The term's name.
    points:
        Where: (N, d) in any kind of array; or a table with columns called as the coordinates, a
        data frame or a path to a Parquet, CSV or zarr file.
    sigma:
        Standard deviation of the measurements: a number, numbers by row (N,), a column's name, or
        one of these by field.
    of, equals:
        Any expression of fields, as a function by argument name, and its measured values.
    values:
        Measured values by field or derivative: ``u=...``, ``u_x=...``; numbers by row, or a
        column's name. Several fields make several components.

    Raises
    ------
    TypeError
        If nothing is measured, or something is no numbers.
    ValueError
        If numbers are not finite, not as many as points, or an error is not positive.

    Examples
    --------
    >>> from whence import pinn
    >>> sensors = pinn.Data("sensors", [[0.2], [0.2], [0.7]], u=[1.0, 1.1, 3.0], sigma=0.05)
    >>> len(sensors), sensors.fields
    (3, ('u',))
    """

    name: str
    table: Any = field(repr=False)
    measured: Mapping[str, Column] = field(repr=False)
    sigma: Column | Mapping[str, Column] | None = field(repr=False)
    of: Callable[..., Tensor] | None = None

    def __init__(
        self,
        name: str,
        points: ArrayLike | str | Path,
        *,
        sigma: Column | Mapping[str, Column] | None = None,
        of: Callable[..., Tensor] | None = None,
        equals: Column | None = None,
        **values: Column,
    ) -> None:
        if (of is None) != (equals is None):
            raise TypeError(
                f"data {name!r} need of= and equals= together: an expression and its values"
            )
        if of is not None and values:
            raise TypeError(
                f"data {name!r} measure either an expression (of=) or fields "
                f"({', '.join(values)}): make two sets of them"
            )

        measured = dict(values)
        if equals is not None:
            measured = {"value": equals}
        if not measured:
            raise TypeError(
                f"data {name!r} measure nothing: give values by field, such as u=[...]"
            )

        table = points
        if isinstance(points, (str, Path)):
            table = read_table(f"data {name!r}", Path(points))
        self._set(name=name, table=table, measured=measured, sigma=sigma, of=of)
        if isinstance(sigma, Mapping):
            for of_field in sigma:
                _checks.one_of(f"measured field of data {name!r}", of_field, measured)
        _checks.positive(f"the number of points of data {name!r}", len(self))

    def _set(self, **attributes: object) -> None:
        # The dataclass is frozen for all but its own making.
        for name, value in attributes.items():
            object.__setattr__(self, name, value)

    def __len__(self) -> int:
        return len(self.table)

    @property
    def fields(self) -> tuple[str, ...]:
        """Names of what was measured."""
        return tuple(self.measured)

    @property
    def has_errors(self) -> bool:
        """Whether the standard deviation of every measurement is known."""
        if isinstance(self.sigma, Mapping):
            return set(self.sigma) == set(self.measured)
        return self.sigma is not None

    def values(self) -> Tensor:
        """Return the measured values, (N, fields), float64."""
        columns = []
        for name, column in self.measured.items():
            columns.append(self._column(f"the values of {name}", column))
        return torch.stack(columns, dim=1)

    def errors(self) -> Tensor:
        """Return the standard deviations, (N, fields), float64; 1 where none is given."""
        columns = []
        for name in self.measured:
            sigma = self.sigma
            if isinstance(sigma, Mapping):
                sigma = sigma.get(name)
            column = self._column(f"sigma of {name}", 1.0 if sigma is None else sigma)
            if not bool((column > 0).all()):
                row = int((~(column > 0)).nonzero()[0])
                raise ValueError(
                    f"sigma of data {self.name!r} must be positive, got {float(column[row])} in "
                    f"row {row}"
                )
            columns.append(column)
        return torch.stack(columns, dim=1)

    @property
    def reference(self) -> float:
        """σ̄, where 1/σ̄² is the mean of 1/σ² over all measurements."""
        n_measured = len(self) * len(self.fields)
        return (self.information() / n_measured) ** -0.5

    def information(self) -> float:
        """Return ``Σ 1/σ²`` over all measurements: what the set weighs beside others."""
        return float((self.errors() ** -2).sum())

    def term_function(self, place: Place) -> TermFunction:
        """Return the term on a problem's domain; what means nothing there is an error."""
        what = f"data {self.name!r}"
        points = to_locations(f"the points of {what}", self.table, place.coordinates)
        values = self.values().to(points)
        errors = self.errors().to(points)
        # σ̄/σ, where the mean of (σ̄/σ)² is 1.
        factors = self.reference / errors

        # What is the same in all rows need not be carried by each.
        is_even = bool((factors == factors[0]).all())
        measured = tuple(MEASURED + name for name in self.measured)
        carried = measured
        rows = [points, values]
        if not is_even:
            carried = measured + tuple(FACTOR + name for name in self.measured)
            rows.append(factors)

        left, names = self._left(what)
        n_fields = len(self.measured)
        n_left = len(names)
        even_factors = factors[0].tolist()

        def residual(*arguments: Tensor) -> tuple[Tensor, ...]:
            fitted = left(*arguments[:n_left])
            observed = arguments[n_left : n_left + n_fields]
            scales: Any = even_factors
            if not is_even:
                scales = arguments[n_left + n_fields :]
            triples = zip(fitted, observed, scales, strict=True)
            return tuple((fit - value) * scale for fit, value, scale in triples)

        return TermFunction(
            what,
            residual,
            (*names, *carried),
            place,
            carried=carried,
            rows=torch.cat(rows, dim=1),
        )

    def _left(
        self, what: str
    ) -> tuple[Callable[..., tuple[Tensor, ...]], tuple[str, ...]]:
        """Return what was measured as a function of fields, and the names of these."""
        of = self.of
        if of is None:

            def fields(*arguments: Tensor) -> tuple[Tensor, ...]:
                return arguments

            return fields, self.fields

        def expression(*arguments: Tensor) -> tuple[Tensor, ...]:
            return (of(*arguments),)

        return expression, _checks.arguments(f"the expression of {what}", of)

    def _column(self, what: str, column: Column) -> Tensor:
        """Return numbers by row, (N,) float64, from all that they may be given as."""
        label = f"{what} of data {self.name!r}"
        n = len(self)
        numbers: object = column
        if isinstance(column, str):
            numbers = self._named_column(label, column)
        if isinstance(numbers, (int, float, np.number)):
            return torch.full((n,), _checks.number(label, numbers), dtype=torch.float64)

        if isinstance(numbers, (list, tuple)):
            numbers = np.asarray(numbers)
        if hasattr(numbers, "to_numpy"):  # a column of a data frame
            numbers = np.asarray(numbers.to_numpy())
        tensor = to_tensor(label, numbers)
        if not isinstance(tensor, Tensor):
            raise TypeError(
                f"{label} must be {n} numbers, one for each point, got "
                f"{_checks.describe(column)}"
            )
        if tensor.shape == (n, 1):
            tensor = tensor[:, 0]
        if tensor.shape != (n,):
            raise ValueError(
                f"{label} must be {n} numbers, one for each point, got shape "
                f"{tuple(tensor.shape)}"
            )

        is_bad = ~torch.isfinite(tensor)
        if bool(is_bad.any()):
            raise ValueError(
                f"{label} must be finite: {int(is_bad.sum())} of {n} are not, the first is row "
                f"{int(is_bad.nonzero()[0])}; leave out rows that were not measured"
            )
        return tensor.double().cpu()

    def _named_column(self, label: str, column: str) -> np.ndarray:
        """Return a column of the table of points by its name."""
        if not isinstance(self.table, DataFrameLike):
            raise TypeError(
                f"{label} name a column, {column!r}, but the points are no table: give numbers"
            )
        names = [str(name) for name in self.table.columns]
        _checks.one_of(f"column for {label}", column, names)
        return np.asarray(self.table.to_numpy()[:, names.index(column)], dtype=float)


def data_weights(data: Sequence[Data]) -> dict[str, float]:
    """Return the weights of several sets of measurements, whose rows then weigh 1/σ² each.

    A set's term is ``w/N Σ_i (σ̄ d_i/σ_i)²``, so that w must go as ``N/σ̄²``, the sum of 1/σ². The
    weights add up to one, as if all were one set. Sets whose errors are not all given weigh 1.
    """
    with_errors = [each for each in data if each.has_errors]
    if len(with_errors) < 2:
        return {}

    information = {}
    for each in with_errors:
        # A term sums over the fields of a row: per field, as σ̄ is a mean over fields too.
        information[each.name] = each.information() / len(each.fields)
    total = sum(information.values())
    return {name: value / total for name, value in information.items()}
