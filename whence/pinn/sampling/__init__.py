"""Which points to train on next: scores of candidates, selections, resampling."""

from whence.pinn.sampling.kernel import LeverageScore, PinnacleScore
from whence.pinn.sampling.resampling import R3, Resample
from whence.pinn.sampling.scores import (
    GradDotScore,
    InfluenceScore,
    LossGradScore,
    OutputGradScore,
    RandomScore,
    ResidualScore,
    SavedScore,
    Score,
)
from whence.pinn.sampling.selection import KMeansPlusPlus, Proportional, Selection, TopK

__all__ = [
    "R3",
    "GradDotScore",
    "InfluenceScore",
    "KMeansPlusPlus",
    "LeverageScore",
    "LossGradScore",
    "OutputGradScore",
    "PinnacleScore",
    "Proportional",
    "RandomScore",
    "Resample",
    "ResidualScore",
    "SavedScore",
    "Score",
    "Selection",
    "TopK",
]
