"""Physics-informed networks: domains, equations, training, resampling."""

from whence.pinn import zoo
from whence.pinn.conditions import Condition, Dirichlet, Initial, Neumann, Periodic, Robin
from whence.pinn.domain import Difference, Disk, Domain, Interval, Product, Rectangle
from whence.pinn.networks import MLP, Fourier
from whence.pinn.optimizers import LBFGS, Adam, GaussNewton
from whence.pinn.problem import Problem
from whence.pinn.runs import RunFolder
from whence.pinn.sampling import (
    GradDotScore,
    InfluenceScore,
    LossGradScore,
    OutputGradScore,
    Proportional,
    RandomScore,
    Resample,
    ResidualScore,
    SavedScore,
    TopK,
)
from whence.pinn.training import Result, load_network, load_points, train

__all__ = [
    "LBFGS",
    "MLP",
    "Adam",
    "Condition",
    "Difference",
    "Dirichlet",
    "Disk",
    "Domain",
    "Fourier",
    "GaussNewton",
    "GradDotScore",
    "InfluenceScore",
    "Initial",
    "Interval",
    "LossGradScore",
    "Neumann",
    "OutputGradScore",
    "Periodic",
    "Problem",
    "Product",
    "Proportional",
    "RandomScore",
    "Rectangle",
    "Resample",
    "ResidualScore",
    "Result",
    "Robin",
    "RunFolder",
    "SavedScore",
    "TopK",
    "load_network",
    "load_points",
    "train",
    "zoo",
]
