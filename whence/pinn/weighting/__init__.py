"""Weights of the terms of a loss: given, or renewed from kernel, gradients, losses or points.

A new one is one module in this folder (or of another package, by the entry point
``whence.weightings``) with a subclass of :class:`Weighting` under ``@WEIGHTINGS.named("name")``.
"""

from whence.pinn.weighting.attention import ResidualBasedAttention
from whence.pinn.weighting.base import Weighting, Weights
from whence.pinn.weighting.fixed import Fixed, Linear
from whence.pinn.weighting.gradients import (
    GradientNorm,
    LearningRateAnnealing,
    NeuralTangentKernel,
)
from whence.pinn.weighting.losses import ReLoBRaLo, SoftAdapt
from whence.pinn.weighting.points import Causal, SelfAdaptive
from whence.pinn.weighting.term_statistics import TermStatistics

__all__ = [
    "Causal",
    "Fixed",
    "GradientNorm",
    "LearningRateAnnealing",
    "Linear",
    "NeuralTangentKernel",
    "ReLoBRaLo",
    "ResidualBasedAttention",
    "SelfAdaptive",
    "SoftAdapt",
    "TermStatistics",
    "Weighting",
    "Weights",
]
