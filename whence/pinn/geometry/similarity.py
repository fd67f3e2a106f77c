"""Rotations, reflections, shifts and scalings: the maps that keep even points even."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import SupportsFloat

import numpy as np

from whence import _checks
from whence.pinn.geometry.samplings.base import Array


@dataclass(frozen=True, eq=False)
class Similarity:
    """The map x ↦ s·Q x + b, with Q orthogonal and s > 0.

    Its Jacobian determinant is ±sᵈ everywhere, so that uniform points stay uniform.

    Examples
    --------
    >>> turn = Similarity(rotation(90.0, 2), 2.0, np.array([1.0, 0.0]))
    >>> turn.forward(np.array([[1.0, 0.0]])).round(12)
    array([[1., 2.]])
    """

    matrix: Array
    factor: float
    shift: Array

    @property
    def is_turning(self) -> bool:
        """Whether any direction changes."""
        return not np.array_equal(self.matrix, np.eye(len(self.matrix)))

    def forward(self, points: Array) -> Array:
        """Return the images (n, d) of points (n, d)."""
        return np.asarray(self.factor * self.turn(points) + self.shift)

    def back(self, points: Array) -> Array:
        """Return the points (n, d) whose images are given."""
        # Q⁻¹ = Qᵀ, whose product with rows from the right is that with Q.
        centered = (points - self.shift) / self.factor
        if not self.is_turning:
            return np.asarray(centered)
        return np.asarray(centered @ self.matrix)

    def turn(self, directions: Array) -> Array:
        """Return the images of directions (n, d), of the same length."""
        # Left out where nothing turns: coordinates stay what they are to the last bit.
        if not self.is_turning:
            return directions
        return np.asarray(directions @ self.matrix.T)


def permutation(order: Sequence[int]) -> Similarity:
    """Return the map that puts column k of a point into column ``order[k]``."""
    d = len(order)
    matrix = np.zeros((d, d))
    matrix[list(order), range(d)] = 1.0
    return Similarity(matrix, 1.0, np.zeros(d))


def rotation(angle: object, dimension: int) -> Array:
    """Return the orthogonal matrix of a turn: an angle in degrees, or the matrix itself.

    Raises
    ------
    ValueError
        For an angle where the dimension is not two, or a matrix that is not orthogonal.
    """
    matrix = np.asarray(angle, dtype=float)
    if matrix.ndim == 0:
        degrees = _checks.number("angle", float(matrix))
        if dimension != 2:
            raise ValueError(
                f"an angle turns two coordinates, got one for {dimension}: give an orthogonal "
                f"matrix of shape ({dimension}, {dimension}), and turn a shape before it is "
                f"multiplied by time"
            )
        return plane_rotation(degrees)

    if matrix.shape != (dimension, dimension):
        raise ValueError(
            f"the matrix of a rotation must have shape ({dimension}, {dimension}), got "
            f"{matrix.shape}"
        )

    # ‖QᵀQ − 1‖, zero for what keeps lengths. A NaN is no rotation either.
    error = np.abs(matrix.T @ matrix - np.eye(dimension)).max()
    if not error <= 1e-6:
        raise ValueError(
            f"the matrix of a rotation must be orthogonal, but QᵀQ is up to {error:g} off one"
        )
    if error > 1e-12:
        # Given in single precision: the nearest orthogonal matrix, from Q = UΣVᵀ.
        left, _, right = np.linalg.svd(matrix)
        return np.asarray(left @ right)

    return matrix


def plane_rotation(degrees: float) -> Array:
    """Return the matrix of a turn of the plane, from the first coordinate to the second."""
    # Quarter turns are exact, which the cosine of π/2 is not.
    quarters, rest = divmod(degrees, 90.0)
    angle = math.radians(rest)
    turn = np.array(
        [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]
    )
    quarter = np.array([[0.0, -1.0], [1.0, 0.0]])
    return np.asarray(np.linalg.matrix_power(quarter, int(quarters) % 4) @ turn)


def vector(what: str, values: object, names: Sequence[str]) -> Array:
    """Return one finite number per coordinate as an array (d,)."""
    # Arrays and tensors as lists of numbers.
    values = getattr(values, "tolist", lambda: values)()
    entries: list[SupportsFloat] = []
    if isinstance(values, Sequence) and not isinstance(values, str):
        entries = list(values)
    if len(entries) != len(names):
        raise ValueError(
            f"{what} must have {len(names)} entries, one for each of "
            f"{', '.join(names)}, got {values!r}"
        )

    numbers = []
    for name, value in zip(names, entries, strict=True):
        numbers.append(_checks.number(f"{what} {name!r}", value))
    return np.array(numbers)
