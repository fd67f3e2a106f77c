"""Physics-informed networks: domains, equations, training, resampling."""

from typing import Any

from whence.catalogue import (
    NETWORKS,
    OPTIMIZERS,
    RESAMPLERS,
    SCORES,
    SELECTIONS,
    WEIGHTINGS,
    find_class,
)
from whence.pinn import helpers as helpers
from whence.pinn import zoo as zoo
from whence.pinn.geometry import Difference as Difference
from whence.pinn.geometry import Disk as Disk
from whence.pinn.geometry import Domain as Domain
from whence.pinn.geometry import Interval as Interval
from whence.pinn.geometry import Product as Product
from whence.pinn.geometry import Rectangle as Rectangle
from whence.pinn.networks import MLP as MLP
from whence.pinn.networks import Fourier as Fourier
from whence.pinn.optimizers import LBFGS as LBFGS
from whence.pinn.optimizers import Adam as Adam
from whence.pinn.optimizers import GaussNewton as GaussNewton
from whence.pinn.pde import Condition as Condition
from whence.pinn.pde import Dirichlet as Dirichlet
from whence.pinn.pde import Initial as Initial
from whence.pinn.pde import Neumann as Neumann
from whence.pinn.pde import Periodic as Periodic
from whence.pinn.pde import Problem as Problem
from whence.pinn.pde import Robin as Robin
from whence.pinn.pde import Solution as Solution
from whence.pinn.sampling import R3 as R3
from whence.pinn.sampling import GradDotScore as GradDotScore
from whence.pinn.sampling import InfluenceScore as InfluenceScore
from whence.pinn.sampling import KMeansPlusPlus as KMeansPlusPlus
from whence.pinn.sampling import LeverageScore as LeverageScore
from whence.pinn.sampling import LossGradScore as LossGradScore
from whence.pinn.sampling import OutputGradScore as OutputGradScore
from whence.pinn.sampling import PinnacleScore as PinnacleScore
from whence.pinn.sampling import Proportional as Proportional
from whence.pinn.sampling import RandomScore as RandomScore
from whence.pinn.sampling import Resample as Resample
from whence.pinn.sampling import ResidualScore as ResidualScore
from whence.pinn.sampling import SavedScore as SavedScore
from whence.pinn.sampling import TopK as TopK
from whence.pinn.training import Observer as Observer
from whence.pinn.training import Recipe as Recipe
from whence.pinn.training import Result as Result
from whence.pinn.training import RunFolder as RunFolder
from whence.pinn.training import Spectra as Spectra
from whence.pinn.training import Stop as Stop
from whence.pinn.training import growing_recipe as growing_recipe
from whence.pinn.training import load_network as load_network
from whence.pinn.training import load_points as load_points
from whence.pinn.training import load_run as load_run
from whence.pinn.training import load_weights as load_weights
from whence.pinn.training import train as train
from whence.pinn.weighting import Causal as Causal
from whence.pinn.weighting import Fixed as Fixed
from whence.pinn.weighting import GradientNorm as GradientNorm
from whence.pinn.weighting import LearningRateAnnealing as LearningRateAnnealing
from whence.pinn.weighting import Linear as Linear
from whence.pinn.weighting import NeuralTangentKernel as NeuralTangentKernel
from whence.pinn.weighting import ReLoBRaLo as ReLoBRaLo
from whence.pinn.weighting import SelfAdaptive as SelfAdaptive
from whence.pinn.weighting import SoftAdapt as SoftAdapt
from whence.pinn.weighting import Weighting as Weighting

KINDS = (NETWORKS, OPTIMIZERS, RESAMPLERS, SCORES, SELECTIONS, WEIGHTINGS)
"""Catalogues whose classes are names of this module, also those that other packages add."""


def __getattr__(name: str) -> Any:
    """Find a class that is only in the catalogue (PEP 562)."""
    if name[:1].isupper():  # as classes are, and modules are not
        entry = find_class(name, KINDS)
        if entry is not None:
            return entry
    raise AttributeError(f"module 'whence.pinn' has no attribute {name!r}")
