"""Conditions of DeepXDE as formulas, each where its points are.

What DeepXDE calls a condition's error is written here as a function of one point: boundary values,
normals and partners of periodic points are NumPy functions of it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import deepxde as dde
import numpy as np
import torch
from deepxde.icbc import BC, boundary_conditions, initial_conditions
from torch import Tensor

from whence.adapters.formulas import Residual, remembered


@dataclass(frozen=True, eq=False)
class ConvertedCondition:
    """A condition of DeepXDE: what its points are made of, and its residual there.

    Parameters
    ----------
    residual:
        Function of inputs, outputs, and points with what they carry.
    rows:
        The training points (N, d + q), those of DeepXDE with what they carry.
    carried:
        Names of what they carry.
    partner:
        Where the residual is to be subtracted, as a function of points; None for nowhere.
    """

    residual: Residual
    rows: np.ndarray
    carried: tuple[str, ...] = ()
    partner: Callable[[Tensor], Tensor] | None = None


def converted(condition: BC, points: np.ndarray) -> ConvertedCondition:
    """Return a condition as a formula; ``points`` (N, d) are its training points in DeepXDE.

    Raises
    ------
    TypeError
        If there is no formula for the condition's class.
    """
    # The very class: one derived from it may have an error of its own.
    convert = _CONVERSIONS.get(type(condition))
    if convert is None:
        known = ", ".join(kind.__name__ for kind in _CONVERSIONS)
        raise TypeError(
            f"conditions of class {type(condition).__name__} have no formula as yet: expected one "
            f"of {known}. An OperatorBC or PointSetOperatorBC takes any function of inputs and "
            "outputs"
        )
    return convert(condition, points)


def _column(outputs: Any, component: int) -> Any:
    return outputs[:, component : component + 1]


def _prescribed(condition: Any) -> Callable[[Tensor], Tensor]:
    """Return the values (n, 1) that a condition compares with, at any points."""
    # DeepXDE remembers values by the address of an array, which another may have later.
    function = condition.func.__wrapped__
    return remembered(function)


def dirichlet(condition: BC, points: np.ndarray) -> ConvertedCondition:
    """Return ``y − f(x)``, of values at the boundary or the start."""
    prescribed = _prescribed(condition)

    def residual(inputs: Any, outputs: Any, rows: Tensor) -> Tensor:
        return _column(outputs, condition.component) - prescribed(rows)

    return ConvertedCondition(residual, points)


def _normal_derivative(condition: Any) -> Residual:
    """Return ``∂y/∂n`` (n, 1)."""
    normals = remembered(condition.geom.boundary_normal)

    def derivative(inputs: Any, outputs: Any, rows: Tensor) -> Tensor:
        normal = normals(rows)  # (n, d)
        total = torch.zeros_like(normal[:, :1])
        for j in range(rows.shape[1]):
            slope = dde.grad.jacobian(outputs, inputs, i=condition.component, j=j)
            total = total + slope * normal[:, j : j + 1]
        return total

    return derivative


def neumann(condition: BC, points: np.ndarray) -> ConvertedCondition:
    """Return ``∂y/∂n − f(x)``."""
    prescribed = _prescribed(condition)
    derivative = _normal_derivative(condition)

    def residual(inputs: Any, outputs: Any, rows: Tensor) -> Tensor:
        return derivative(inputs, outputs, rows) - prescribed(rows)

    return ConvertedCondition(residual, points)


def robin(condition: BC, points: np.ndarray) -> ConvertedCondition:
    """Return ``∂y/∂n − f(x, y)``."""
    derivative = _normal_derivative(condition)

    def residual(inputs: Any, outputs: Any, rows: Tensor) -> Tensor:
        # The user's function takes the points as an array.
        prescribed = condition.func(_array(rows), outputs)
        return derivative(inputs, outputs, rows) - prescribed

    return ConvertedCondition(residual, points)


def periodic(condition: BC, points: np.ndarray) -> ConvertedCondition:
    """Return the value, or the slope, to be subtracted at the other side."""

    def at_partner(at: np.ndarray) -> np.ndarray:
        return condition.geom.periodic_point(at, condition.component_x)

    def residual(inputs: Any, outputs: Any, rows: Tensor) -> Tensor:
        if condition.derivative_order == 0:
            return _column(outputs, condition.component)
        return dde.grad.jacobian(
            outputs, inputs, i=condition.component, j=condition.component_x
        )

    # DeepXDE has the points of one side first, then those of the other.
    n_pairs = len(points) // 2
    return ConvertedCondition(
        residual, points[:n_pairs], partner=remembered(at_partner)
    )


def operator(condition: BC, points: np.ndarray) -> ConvertedCondition:
    """Return any function of inputs and outputs."""

    def residual(inputs: Any, outputs: Any, rows: Tensor) -> Tensor:
        return condition.func(inputs, outputs, _array(rows))

    return ConvertedCondition(residual, points)


def _measured(condition: Any) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return all points of a condition with the values measured there, and these values' names."""
    points = condition.points
    values = condition.values.detach().cpu().numpy().astype(points.dtype)
    # One number for all points, or a row of values for each.
    n_columns = values.shape[1] if values.ndim == 2 else 1
    table = np.broadcast_to(values, (len(points), n_columns))
    names = ["value"]
    if table.shape[1] > 1:
        names = [f"value_{k}" for k in range(table.shape[1])]
    return np.hstack([points, table]), tuple(names)


def point_set(condition: BC, points: np.ndarray) -> ConvertedCondition:
    """Return ``y − f`` with values f that belong to the points."""
    rows, names = _measured(condition)
    components = condition.component
    if not isinstance(components, list):
        components = [components]

    def residual(inputs: Any, outputs: Any, rows: Tensor) -> Tensor:
        columns = [outputs[:, k] + 0 for k in components]
        return torch.stack(columns, dim=1) - rows[:, -len(names) :]

    return ConvertedCondition(residual, rows, names)


def point_set_operator(condition: BC, points: np.ndarray) -> ConvertedCondition:
    """Return a function of inputs and outputs minus values that belong to the points."""
    rows, names = _measured(condition)

    def residual(inputs: Any, outputs: Any, rows: Tensor) -> Tensor:
        values = condition.func(inputs, outputs, _array(rows[:, : inputs.shape[1]]))
        return values - rows[:, -1:]

    return ConvertedCondition(residual, rows, names)


def _array(points: Tensor) -> np.ndarray:
    return points.detach().cpu().numpy()


_CONVERSIONS: dict[type, Callable[[Any, np.ndarray], ConvertedCondition]] = {
    boundary_conditions.DirichletBC: dirichlet,
    initial_conditions.IC: dirichlet,
    boundary_conditions.NeumannBC: neumann,
    boundary_conditions.RobinBC: robin,
    boundary_conditions.PeriodicBC: periodic,
    boundary_conditions.OperatorBC: operator,
    boundary_conditions.PointSetBC: point_set,
    boundary_conditions.PointSetOperatorBC: point_set_operator,
}

NAMES = {
    boundary_conditions.DirichletBC: "dirichlet",
    initial_conditions.IC: "initial",
    boundary_conditions.NeumannBC: "neumann",
    boundary_conditions.RobinBC: "robin",
    boundary_conditions.PeriodicBC: "periodic",
    boundary_conditions.OperatorBC: "operator",
    boundary_conditions.PointSetBC: "measured",
    boundary_conditions.PointSetOperatorBC: "measured_operator",
}
"""What terms of the conditions are called."""
