"""Networks for PINNs."""

from whence.pinn.networks.activations import ACTIVATIONS
from whence.pinn.networks.fourier import Fourier
from whence.pinn.networks.mlp import MLP

__all__ = ["ACTIVATIONS", "MLP", "Fourier"]
