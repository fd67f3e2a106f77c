"""Optimizers of a training schedule: Adam, L-BFGS, Gauss–Newton."""

from whence.pinn.optimizers.adam import Adam
from whence.pinn.optimizers.gauss_newton import GaussNewton
from whence.pinn.optimizers.lbfgs import LBFGS
from whence.pinn.optimizers.stepper import (
    Optimizer,
    OptimizerState,
    Progress,
    Stepper,
    check_schedule,
)
from whence.pinn.optimizers.varpro import VarPro

__all__ = [
    "LBFGS",
    "Adam",
    "GaussNewton",
    "Optimizer",
    "OptimizerState",
    "Progress",
    "Stepper",
    "VarPro",
    "check_schedule",
]
