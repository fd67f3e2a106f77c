"""Networks for PINNs."""

from whence.pinn.networks.activations import ACTIVATIONS
from whence.pinn.networks.fourier import Fourier
from whence.pinn.networks.mlp import MLP
from whence.pinn.networks.piecewise import Piecewise
from whence.pinn.networks.placement import Placement
from whence.pinn.networks.random_features import RandomFeatures

__all__ = ["ACTIVATIONS", "MLP", "Fourier", "Piecewise", "Placement", "RandomFeatures"]
