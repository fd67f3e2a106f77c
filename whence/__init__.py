"""Say which training points a trained network's answers come from.

The public names of the core; physics-informed networks live in :mod:`whence.pinn`. A name's module
is imported when it is first used, so the command line can show its help without torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from whence import pinn
    from whence.attribution.empirical import EmpiricalInfluence
    from whence.attribution.gradients import GradCos, GradDot, TracIn
    from whence.attribution.groups import (
        cooks_distance,
        group_influence,
        leverage,
        without,
    )
    from whence.attribution.influence import Influence
    from whence.attribution.quality import FarFromMinimum, quality
    from whence.attribution.quantities import (
        Derivative,
        Functional,
        Loss,
        Output,
        Quantity,
        Residual,
    )
    from whence.attribution.refitting import damping_from_refits, leave_one_out, refit
    from whence.curvature.automatic import Automatic
    from whence.curvature.conjugate_gradient import ConjugateGradient
    from whence.curvature.datainf import DataInf
    from whence.curvature.exact import Exact
    from whence.curvature.kronecker import EKFAC
    from whence.curvature.lissa import LiSSA
    from whence.curvature.lowrank import Arnoldi, Nystrom
    from whence.curvature.operators import GaussNewtonMatrix, Hessian
    from whence.curvature.sketched import Sketched
    from whence.curvature.solvers import Damping, Solution
    from whence.jacobian import Jacobian
    from whence.linearization import linearize
    from whence.losses import Absolute, BinaryCrossEntropy, CrossEntropy, Squared
    from whence.objective import Objective, Term
    from whence.parameters import Parameters

__version__ = "0.1.0"

_HOMES = {
    "attribution.empirical": ("EmpiricalInfluence",),
    "attribution.gradients": ("GradCos", "GradDot", "TracIn"),
    "attribution.groups": ("cooks_distance", "group_influence", "leverage", "without"),
    "attribution.influence": ("Influence",),
    "attribution.refitting": ("damping_from_refits", "leave_one_out", "refit"),
    "attribution.quality": ("FarFromMinimum", "quality"),
    "attribution.quantities": (
        "Derivative",
        "Functional",
        "Loss",
        "Output",
        "Quantity",
        "Residual",
    ),
    "curvature.automatic": ("Automatic",),
    "curvature.datainf": ("DataInf",),
    "curvature.kronecker": ("EKFAC",),
    "curvature.exact": ("Exact",),
    "curvature.conjugate_gradient": ("ConjugateGradient",),
    "curvature.lissa": ("LiSSA",),
    "curvature.lowrank": ("Arnoldi", "Nystrom"),
    "curvature.operators": ("GaussNewtonMatrix", "Hessian"),
    "curvature.sketched": ("Sketched",),
    "curvature.solvers": ("Damping", "Solution"),
    "jacobian": ("Jacobian",),
    "linearization": ("linearize",),
    "losses": ("Absolute", "BinaryCrossEntropy", "CrossEntropy", "Squared"),
    "objective": ("Objective", "Term"),
    "parameters": ("Parameters",),
}

__all__ = [
    "EKFAC",
    "Absolute",
    "Arnoldi",
    "Automatic",
    "BinaryCrossEntropy",
    "ConjugateGradient",
    "CrossEntropy",
    "Damping",
    "DataInf",
    "Derivative",
    "EmpiricalInfluence",
    "Exact",
    "FarFromMinimum",
    "Functional",
    "GaussNewtonMatrix",
    "GradCos",
    "GradDot",
    "Hessian",
    "Influence",
    "Jacobian",
    "LiSSA",
    "Loss",
    "Nystrom",
    "Objective",
    "Output",
    "Parameters",
    "Quantity",
    "Residual",
    "Sketched",
    "Solution",
    "Squared",
    "Term",
    "TracIn",
    "cooks_distance",
    "damping_from_refits",
    "group_influence",
    "leave_one_out",
    "leverage",
    "linearize",
    "pinn",
    "quality",
    "refit",
    "without",
]


def __getattr__(name: str) -> Any:
    """Import the module of a public name at its first use (PEP 562)."""
    if name == "pinn":
        return import_module("whence.pinn")
    for home, names in _HOMES.items():
        if name in names:
            value = globals()[name] = getattr(import_module(f"whence.{home}"), name)
            return value
    raise AttributeError(f"module 'whence' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
