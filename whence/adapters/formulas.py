"""Residuals as other libraries write them, as functions of the network's parameters and points.

A *formula* takes tensors of inputs (n, d) and outputs (n, m), differentiates one by the other, and
returns a residual. Where every derivative is one of an output, it is evaluated from named fields
(:mod:`whence.adapters.columns`), in one pass and with rows of the Jacobian by layers; where an
expression is differentiated, by autograd as it stands, point by point, exactly and slower.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.func import functional_call

from whence.adapters.columns import (
    AskedFields,
    Columns,
    DifferentiatesExpression,
    KnownFields,
)
from whence.adapters.variables import WithVariables
from whence.pinn.pde.fields import FieldMap
from whence.points import Points, Pointwise, locations
from whence.shared_pass import FieldFunction, note_fields

logger = logging.getLogger("whence")

Residual = Callable[[Any, Any, Tensor], Tensor]
"""``residual(inputs, outputs, rows)``: (n, m) or (n,), where rows are points with what they carry.

Inputs and outputs are tensors, or what stands for them."""
N_TRIED = 8
"""Points at which a formula is tried to see which fields it takes."""


@dataclass(frozen=True, eq=False)
class Formula:
    """A residual of a foreign library, and how errors name it.

    Parameters
    ----------
    what:
        ``"term 'pde'"``, say.
    function:
        The residual.
    leaf:
        Makes the library's own tensor of the coordinates, where it differentiates by that.
    """

    what: str
    function: Residual
    leaf: Callable[[Tensor], Tensor] | None = None

    def __call__(
        self, inputs: Tensor | Columns, outputs: Tensor | Columns, rows: Tensor
    ) -> Tensor:
        """Return the residual, (n, m)."""
        value: object = self.function(inputs, outputs, rows)
        if isinstance(value, Columns):
            value = value.tensor
        n = len(rows)
        if isinstance(value, Tensor) and value.shape == (n,):
            value = value.unsqueeze(1)
        if not isinstance(value, Tensor) or value.ndim != 2 or len(value) != n:
            shape = tuple(value.shape) if isinstance(value, Tensor) else type(value)
            raise ValueError(
                f"{self.what} must give a tensor of shape ({n}, m) for {n} points, got {shape}"
            )
        return value


def pointwise(
    formula: Formula, field_map: FieldMap, model: WithVariables, rows: Tensor
) -> Pointwise:
    """Return a formula as a function of parameters and points.

    Parameters
    ----------
    formula:
        The residual.
    field_map:
        The fields of ``model``.
    model:
        The network with trainable numbers of the formula.
    rows:
        Points (n, d + q) with what they carry, at which it is tried.

    Raises
    ------
    ValueError
        If the formula fails, or gives another shape than (n, m).
    """
    tried = rows[:N_TRIED]
    names = field_names(formula, field_map, model, tried)
    if names is None:
        function = by_autograd(formula, field_map, model)
        check_runs(formula.what, function, model, tried)
        return function

    carries = rows.shape[1] > len(field_map.coordinates)
    return by_fields(formula, field_map, model, names, carries)


def field_names(
    formula: Formula, field_map: FieldMap, model: WithVariables, rows: Tensor
) -> tuple[str, ...] | None:
    """Return the fields that a formula takes; None if it differentiates expressions."""
    if any(value.numel() != 1 for value in model.tensors):
        return None  # a tensor of several entries is no field

    tensors = {name: p.detach() for name, p in model.named_parameters()}
    places = rows[:, : len(field_map.coordinates)]
    fields = AskedFields(field_map, places, tensors)
    columns = {}
    for name in model.names:
        columns[name] = field_map.evaluate(tensors, places, (name,))[name]

    try:
        with model.substituted(columns):
            _evaluate(formula, fields, rows)
    except DifferentiatesExpression as reason:
        logger.info(
            "%s differentiates %s: it goes through autograd point by point, which is exact and "
            "slower",
            formula.what,
            reason,
        )
        return None
    except Exception as reason:  # foreign code, which may need a tensor after all
        logger.info(
            "%s takes tensors alone (%s: %s): it goes through autograd point by point, which is "
            "exact and slower",
            formula.what,
            type(reason).__name__,
            reason,
        )
        return None

    taken = [name for name in fields.names if name not in field_map.coordinates]
    return (*taken, *model.names)


def check_runs(
    what: str, function: Pointwise, model: WithVariables, rows: Tensor
) -> None:
    """Raise ``ValueError`` if a residual fails as its library would have it."""
    tensors = {name: p.detach() for name, p in model.named_parameters()}
    try:
        function(tensors, rows)
    except ValueError:
        raise
    except Exception as error:
        line = (str(error).splitlines() or [""])[0]
        raise ValueError(f"{what} fails: {type(error).__name__}: {line}") from error


def _evaluate(formula: Formula, fields: KnownFields, rows: Tensor) -> Tensor:
    inputs = Columns(fields, fields.coordinates)
    outputs = Columns(fields, fields.outputs)
    return formula(inputs, outputs, rows)


def by_fields(
    formula: Formula,
    field_map: FieldMap,
    model: WithVariables,
    names: tuple[str, ...],
    carries: bool,
) -> Pointwise:
    """Return a formula as a function of named fields, which one pass gives.

    ``carries`` tells whether points are more than coordinates.
    """
    d = len(field_map.coordinates)

    def of_fields(fields: Mapping[str, Tensor], rows: Tensor) -> Tensor:
        known = KnownFields(field_map, rows[:, :d], fields)
        if not model.names:
            return _evaluate(formula, known, rows)
        with model.substituted({name: fields[name] for name in model.names}):
            return _evaluate(formula, known, rows)

    def at(tensors: Mapping[str, Tensor], points: Points) -> Tensor:
        rows = locations(points)
        fields = field_map.evaluate(tensors, rows[:, :d], names)
        return of_fields(fields, rows)

    at.__qualname__ = formula.what
    if not carries:
        # Terms of the same map share a pass where their points are the same.
        note_fields(at, FieldFunction(formula.what, field_map, names, of_fields))
    return at


def by_autograd(
    formula: Formula, field_map: FieldMap, model: WithVariables
) -> Pointwise:
    """Return a formula that differentiates the network itself, by ``torch.autograd``."""
    d = len(field_map.coordinates)

    def at(tensors: Mapping[str, Tensor], points: Points) -> Tensor:
        rows = locations(points)
        # Losses are evaluated without a graph, which this one needs for its derivatives.
        with torch.enable_grad(), model.substituted(model.variables_of(tensors)):
            inputs = rows[:, :d].detach().clone()
            if formula.leaf is not None:
                inputs = formula.leaf(inputs)
            inputs.requires_grad_()
            outputs = functional_call(model, dict(tensors), (inputs,))
            value = formula(inputs, outputs, rows)
        return value if torch.is_grad_enabled() else value.detach()

    at.__qualname__ = formula.what
    return at


def remembered(
    function: Callable[[np.ndarray], object], n_kept: int = 8
) -> Callable[[Tensor], Tensor]:
    """Return a NumPy function of points (n, d) as one of tensors, remembered for the last ones.

    Boundary values and normals are asked for at the same points in each step.

    Examples
    --------
    >>> import torch
    >>> square = remembered(lambda x: x**2)
    >>> square(torch.tensor([[3.0]]))
    tensor([[9.]])
    """

    @functools.lru_cache(maxsize=n_kept)
    def values(raw: bytes, shape: tuple[int, ...], dtype: str) -> Tensor:
        # A copy, as a function may write to what it is given.
        points = np.frombuffer(raw, dtype).reshape(shape).copy()
        value = function(points)
        return value if isinstance(value, Tensor) else torch.as_tensor(value)

    def at(points: Tensor) -> Tensor:
        array = points.detach().cpu().numpy()
        value = values(array.tobytes(), array.shape, array.dtype.str)
        return value.to(points)

    return at
