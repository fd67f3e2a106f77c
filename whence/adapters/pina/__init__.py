"""PINA solvers as they are: attribution, refinement that reaches the loss, weights, optimizers."""

from whence.adapters.pina.callbacks import (
    PointsReachLoss,
    Refinement,
    TermWeighting,
    UseOptimizer,
)
from whence.adapters.pina.solver import from_solver

__all__ = [
    "PointsReachLoss",
    "Refinement",
    "TermWeighting",
    "UseOptimizer",
    "from_solver",
]
