"""Which points to train on next: scores of candidates, selections, resamplers."""

from whence.pinn.sampling.resamplers import R3, Resample, Resampler
from whence.pinn.sampling.scores import (
    ErrorInfluenceScore,
    GradDotScore,
    InfluenceScore,
    LeverageScore,
    LossGradScore,
    OutputGradScore,
    PinnacleScore,
    RandomScore,
    ResidualScore,
    SavedScore,
    Score,
)
from whence.pinn.sampling.selections import (
    Determinant,
    KMeansPlusPlus,
    Proportional,
    Selection,
    TopK,
)
from whence.pinn.sampling.weighted_points import WeightedPoints

__all__ = [
    "R3",
    "Determinant",
    "ErrorInfluenceScore",
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
    "Resampler",
    "ResidualScore",
    "SavedScore",
    "Score",
    "Selection",
    "TopK",
    "WeightedPoints",
]
