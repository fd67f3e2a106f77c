"""Networks for PINNs."""

from whence.pinn.networks.activations import ACTIVATIONS
from whence.pinn.networks.fourier import Fourier
from whence.pinn.networks.mlp import MLP
from whence.pinn.networks.modified_mlp import ModifiedMLP
from whence.pinn.networks.periodic import PeriodicNetwork
from whence.pinn.networks.piecewise import Piecewise
from whence.pinn.networks.pirate_net import PirateNet
from whence.pinn.networks.placement import Placement
from whence.pinn.networks.radial_features import RadialFeatures
from whence.pinn.networks.random_features import RandomFeatures
from whence.pinn.networks.separable import Separable
from whence.pinn.networks.siren import SIREN
from whence.pinn.networks.stages import Stages

__all__ = [
    "ACTIVATIONS",
    "MLP",
    "SIREN",
    "Fourier",
    "ModifiedMLP",
    "PeriodicNetwork",
    "Piecewise",
    "PirateNet",
    "Placement",
    "RadialFeatures",
    "RandomFeatures",
    "Separable",
    "Stages",
]
