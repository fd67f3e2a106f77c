"""Vector calculus in equations, see :mod:`whence.pinn.pde.helpers`."""

from whence.pinn.pde.field_algebra import Field, Vector
from whence.pinn.pde.helpers import (
    advect,
    curl,
    div,
    dt,
    field_equation,
    grad,
    laplacian,
    vector,
)

__all__ = [
    "Field",
    "Vector",
    "advect",
    "curl",
    "div",
    "dt",
    "field_equation",
    "grad",
    "laplacian",
    "vector",
]
