"""Quantities of interest: what an attribution explains.

A quantity has T targets. It knows their values, their gradients with respect to θ and their
labels. A new one is one module in this folder (or of another package, by the entry point
``whence.quantities``) with a class under ``@QUANTITIES.named("name")``.
"""

from whence.attribution.quantities.base import (
    AtPoints,
    Linearized,
    Multiplied,
    Quantity,
    aggregate_gradient,
    check_quantity,
)
from whence.attribution.quantities.derivative import Derivative
from whence.attribution.quantities.functional import Functional
from whence.attribution.quantities.loss import Loss
from whence.attribution.quantities.output import Output
from whence.attribution.quantities.residual import Residual
from whence.attribution.quantities.term_loss import TermLoss
from whence.attribution.quantities.unknown_value import UnknownValue

__all__ = [
    "AtPoints",
    "Derivative",
    "Functional",
    "Linearized",
    "Loss",
    "Multiplied",
    "Output",
    "Quantity",
    "Residual",
    "TermLoss",
    "UnknownValue",
    "aggregate_gradient",
    "check_quantity",
]
