"""Selections: which of the scored candidates to take.

A new one is one module in this folder (or of another package, by the entry point
``whence.selections``) with a class under ``@SELECTIONS.named("name")``.
"""

from whence.pinn.sampling.selections.base import Selection
from whence.pinn.sampling.selections.determinant import Determinant
from whence.pinn.sampling.selections.k_means import KMeansPlusPlus
from whence.pinn.sampling.selections.proportional import Proportional
from whence.pinn.sampling.selections.top_k import TopK

__all__ = ["Determinant", "KMeansPlusPlus", "Proportional", "Selection", "TopK"]
