"""Vector calculus in equations, see :mod:`whence.pinn.pde.helpers`."""

from whence.pinn.pde.helpers import (
    Field,
    Vector,
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
