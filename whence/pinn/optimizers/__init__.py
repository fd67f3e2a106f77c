"""Optimizers of a training schedule: Adam, L-BFGS, BFGS and its kin, Gauss–Newton."""

from whence.pinn.optimizers.adam import Adam
from whence.pinn.optimizers.gauss_newton import GaussNewton
from whence.pinn.optimizers.lbfgs import LBFGS
from whence.pinn.optimizers.quasi_newton import BFGS, SSBFGS, SSBroyden
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
