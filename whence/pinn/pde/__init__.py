"""Equations, conditions and the problems that they make."""

from whence.pinn.pde.conditions import (
    Condition,
    Dirichlet,
    Initial,
    Neumann,
    Periodic,
    Robin,
)
from whence.pinn.pde.problem import Problem
from whence.pinn.pde.solution import Solution

__all__ = [
    "Condition",
    "Dirichlet",
    "Initial",
    "Neumann",
    "Periodic",
    "Problem",
    "Robin",
    "Solution",
]
