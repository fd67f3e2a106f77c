"""Optimizers of a training schedule: Adam, SOAP, L-BFGS, BFGS and its kin, Gauss–Newton, NNCG."""

from whence.pinn.optimizers.adam import Adam
from whence.pinn.optimizers.gauss_newton import GaussNewton
from whence.pinn.optimizers.lbfgs import LBFGS
from whence.pinn.optimizers.nncg import NNCG
from whence.pinn.optimizers.quasi_newton import BFGS, SSBFGS, SSBroyden
from whence.pinn.optimizers.soap import SOAP
from whence.pinn.optimizers.stepper import (
    Optimizer,
    OptimizerState,
    Progress,
    Stepper,
    check_schedule,
)
from whence.pinn.optimizers.varpro import VarPro

__all__ = [
    "BFGS",
    "LBFGS",
    "NNCG",
    "SOAP",
    "SSBFGS",
    "Adam",
    "GaussNewton",
    "Optimizer",
    "OptimizerState",
    "Progress",
    "SSBroyden",
    "Stepper",
    "VarPro",
    "check_schedule",
]
