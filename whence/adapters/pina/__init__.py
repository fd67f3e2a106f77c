"""PINA solvers: attribution, refinement that reaches the loss, weighting and optimizers, as they are."""

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
