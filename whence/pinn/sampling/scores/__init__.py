"""Scores of candidate points: which to train on next.

A new one is one module in this folder (or of another package, by the entry point
``whence.scores``) with a class under ``@SCORES.named("name")``.
"""

from whence.pinn.sampling.scores.base import Candidates, EmbeddedScore, Score
from whence.pinn.sampling.scores.error_influence import ErrorInfluenceScore
from whence.pinn.sampling.scores.gradients import (
    GradDotScore,
    LossGradScore,
    OutputGradScore,
)
from whence.pinn.sampling.scores.influence import InfluenceScore
from whence.pinn.sampling.scores.leverage import LeverageScore
from whence.pinn.sampling.scores.pinnacle import PinnacleScore
from whence.pinn.sampling.scores.random import RandomScore
from whence.pinn.sampling.scores.residual import ResidualScore
from whence.pinn.sampling.scores.saved import SavedScore

__all__ = [
    "Candidates",
    "EmbeddedScore",
    "ErrorInfluenceScore",
    "GradDotScore",
    "InfluenceScore",
    "LeverageScore",
    "LossGradScore",
    "OutputGradScore",
    "PinnacleScore",
    "RandomScore",
    "ResidualScore",
    "SavedScore",
    "Score",
]
