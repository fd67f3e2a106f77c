"""Weights of the terms of a loss: given, or renewed from kernel, gradients, losses or points."""

from whence.pinn.weighting.given import Fixed, Linear
from whence.pinn.weighting.gradients import (
    GradientNorm,
    LearningRateAnnealing,
    NeuralTangentKernel,
)
from whence.pinn.weighting.losses import ReLoBRaLo, SoftAdapt
from whence.pinn.weighting.points import Causal, SelfAdaptive
from whence.pinn.weighting.weighting import Weighting

__all__ = [
    "Causal",
    "Fixed",
    "GradientNorm",
    "LearningRateAnnealing",
    "Linear",
    "NeuralTangentKernel",
    "ReLoBRaLo",
    "SelfAdaptive",
    "SoftAdapt",
    "Weighting",
]
