"""Equations, conditions, measurements, unknowns, and the problems that they make."""

from whence.pinn.pde.conditions import (
    Condition,
    Dirichlet,
    Initial,
    Neumann,
    Periodic,
    Robin,
)
from whence.pinn.pde.data import Data
from whence.pinn.pde.derived import At, Average, CaputoDerivative, Integrated
from whence.pinn.pde.equation import Equation
from whence.pinn.pde.integrals import Integral
from whence.pinn.pde.problem import Problem
from whence.pinn.pde.solution import Solution
from whence.pinn.pde.unknowns import Field, Unknown

__all__ = [
    "At",
    "Average",
    "CaputoDerivative",
    "Condition",
    "Data",
    "Dirichlet",
    "Equation",
    "Field",
    "Initial",
    "Integral",
    "Integrated",
    "Neumann",
    "Periodic",
    "Problem",
    "Robin",
    "Solution",
    "Unknown",
]
