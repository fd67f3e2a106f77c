"""Say which training points a trained network's answers come from.

The public names of the core; physics-informed networks live in :mod:`whence.pinn`.
"""

from whence.attribution.influence import Influence
from whence.attribution.quantities import Derivative, Functional, Loss, Output, Quantity, Residual
from whence.curvature.operators import GaussNewton, Hessian
from whence.curvature.solvers import Damping, Exact, Solution
from whence.jacobian import Jacobian
from whence.linearization import linearize
from whence.objective import Objective, Squared, Term
from whence.parameters import Parameters

__version__ = "0.1.0"

__all__ = [
    "Damping",
    "Derivative",
    "Exact",
    "Functional",
    "GaussNewton",
    "Hessian",
    "Influence",
    "Jacobian",
    "Loss",
    "Objective",
    "Output",
    "Parameters",
    "Quantity",
    "Residual",
    "Solution",
    "Squared",
    "Term",
    "linearize",
]
