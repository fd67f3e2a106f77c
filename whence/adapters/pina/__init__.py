"""PINA solvers: attribution, refinement that reaches the loss, and weighting, as they are."""

from whence.adapters.pina.solver import from_solver

__all__ = ["from_solver"]
