"""Physics-informed networks: domains, equations, training, resampling."""

from whence.pinn import zoo
from whence.pinn.conditions import (
    Condition,
    Dirichlet,
    Initial,
    Neumann,
    Periodic,
    Robin,
)
from whence.pinn.domain import Difference, Disk, Domain, Interval, Product, Rectangle
from whence.pinn.networks import MLP, Fourier
from whence.pinn.optimizers import LBFGS, Adam, GaussNewton
from whence.pinn.problem import Problem
from whence.pinn.runs import RunFolder
from whence.pinn.sampling import (
    R3,
    GradDotScore,
    InfluenceScore,
    KMeansPlusPlus,
    LeverageScore,
    LossGradScore,
    OutputGradScore,
    PinnacleScore,
    Proportional,
    RandomScore,
    Resample,
    ResidualScore,
    SavedScore,
    TopK,
)
from whence.pinn.spectra import Spectra
from whence.pinn.training import Result, load_network, load_points, load_weights, train
from whence.pinn.weighting import (
    Causal,
    Fixed,
    GradientNorm,
    LearningRateAnnealing,
    Linear,
    NeuralTangentKernel,
    ReLoBRaLo,
    SelfAdaptive,
    SoftAdapt,
)

__all__ = [
    "LBFGS",
    "MLP",
    "R3",
    "Adam",
    "Causal",
    "Condition",
    "Difference",
    "Dirichlet",
    "Disk",
    "Domain",
    "Fixed",
    "Fourier",
    "GaussNewton",
    "GradDotScore",
    "GradientNorm",
    "InfluenceScore",
    "Initial",
    "Interval",
    "KMeansPlusPlus",
    "LearningRateAnnealing",
    "LeverageScore",
    "Linear",
    "LossGradScore",
    "Neumann",
    "NeuralTangentKernel",
    "OutputGradScore",
    "Periodic",
    "PinnacleScore",
    "Problem",
    "Product",
    "Proportional",
    "RandomScore",
    "ReLoBRaLo",
    "Rectangle",
    "Resample",
    "ResidualScore",
    "Result",
    "Robin",
    "RunFolder",
    "SavedScore",
    "SelfAdaptive",
    "SoftAdapt",
    "Spectra",
    "TopK",
    "load_network",
    "load_points",
    "load_weights",
    "train",
    "zoo",
]
