"""Variable projection: the last layer solved exactly, the hidden layers moved by Gauss–Newton."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from whence import _checks
from whence.catalogue import OPTIMIZERS
from whence.objective import Objective
from whence.parameters import Parameters
from whence.pinn.optimizers.stepper import (
    OptimizerState,
    Progress,
    Stepper,
    describe_failure,
)
from whence.pinn.pde.unknowns import Model
from whence.triangular import ROWS_PER_FACTOR, Triangle

MAX_PARAMETERS = 10_000
"""Trained parameters above which the factor of J is too large, and too slow, to be made."""
MAX_TRIALS = 12
"""Dampings, or lengths of a step, that are tried for one step."""
MAX_PROJECTIONS = 3
"""Most solves of the last layer after a step of the hidden ones; one does for linear equations."""
SETTLED = 0.5
"""Share of the loss above which a further solve of the last layer gains nothing."""
GOOD_GAIN = 0.5
"""Share of the promised decrease above which the damping falls."""


@OPTIMIZERS.named("varpro")
@dataclass(frozen=True)
class VarPro:
    """Variable projection: the last layer is solved exactly, hidden layers by Gauss–Newton.

    The outputs are linear in the last layer, and so are the residuals of linear equations: its best
    weights are a linear least-squares problem, solved here by ``J = QR`` with nothing squared, so
    that ten digits and more are reached where the features allow it. Of nonlinear equations each
    solve is a Gauss–Newton step with a line search. Hidden layers, where they train, move by a
    damped Gauss–Newton step on what the last layer cannot fit (Golub & Pereyra, SIAM J. Numer.
    Anal. 10, 1973; Kaufman, BIT 15, 1975), after which the last layer is solved again. Where they
    do not train (:class:`whence.pinn.RandomFeatures`) the stage ends when solving once more gains
    nothing, after two steps if the equations are linear; a step that the line search cut does not
    end it.

    Parameters
    ----------
    iterations:
        Steps of this stage.
    damping:
        First damping of the hidden layers, relative to the mean diagonal entry of ``JJᵀ``.
    decrease, increase:
        Factors by which it changes.
    ridge:
        Least weight of the last layer's own norm, relative to its columns: what rounding makes of
        directions that no residual sees is kept out.

    Raises
    ------
    ValueError
        If a number is out of range; at the start of the stage, if the network has no linear layer.

    Examples
    --------
    >>> from whence import pinn
    >>> network = pinn.RandomFeatures([2, 200, 1], bounds=[[-1, 0], [1, 1]], seed=0)
    >>> result = pinn.train(pinn.zoo.load("diffusion"), network, points=800,
    ...                     schedule=pinn.VarPro(5), progress=False)
    >>> result.summary["relative_l2"] < 1e-7
    True
    """

    iterations: int
    damping: float = 1e-3
    decrease: float = 3.0
    increase: float = 2.0
    ridge: float = 1e-13

    chunk: ClassVar[int] = 1
    log_every: ClassVar[int] = 1
    by_gradient: ClassVar[bool] = False

    def __post_init__(self) -> None:
        _checks.count("iterations", self.iterations)
        _checks.positive("damping", self.damping)
        _checks.positive("ridge", self.ridge)
        for name in ("decrease", "increase"):
            factor = getattr(self, name)
            if not _checks.number(name, factor) > 1:
                raise ValueError(f"{name} must be a number above 1, got {factor!r}")

    def start(self, parameters: Parameters) -> Stepper:
        """Return a stepper for these parameters."""
        return VarProStepper(self, parameters)


def last_layer(module: nn.Module) -> tuple[str, ...]:
    """Return the names of the parameters of a network's last linear layer.

    Examples
    --------
    >>> from whence import pinn
    >>> from whence.pinn.optimizers.varpro import last_layer
    >>> last_layer(pinn.MLP([2, 8, 1], seed=0))
    ('linears.1.weight', 'linears.1.bias')
    """
    names: tuple[str, ...] = ()
    for name, layer in module.named_modules():
        # Unknown functions of a problem multiply the solution, in which it is not linear.
        is_unknown = isinstance(module, Model) and name.startswith("fields.")
        if isinstance(layer, nn.Linear) and not is_unknown:
            names = tuple(f"{name}.{own}" for own, _ in layer.named_parameters())
    if not names:
        raise ValueError(
            "VarPro solves the network's last linear layer (torch.nn.Linear), but "
            f"{type(module).__name__} has none: use pinn.GaussNewton"
        )
    return tuple(name.removeprefix(".") for name in names)


@dataclass(frozen=True, eq=False)
class _Left:
    """The loss of an objective at parameters (P,)."""

    objective: Objective
    theta: Tensor
    loss: float

    def is_of(self, objective: Objective, theta: Tensor) -> bool:
        """Whether it is that of an objective, which is frozen, at these parameters."""
        return self.objective is objective and torch.equal(self.theta, theta)


class VarProStepper:
    """Variable projection at work; its state is the damping of the hidden layers."""

    def __init__(self, options: VarPro, parameters: Parameters) -> None:
        self._options = options
        self._parameters = parameters
        # None: by the options' relative damping, at the next step.
        self._mu: float | None = None
        # The loss that the last call ended with, which the next begins with: not state, as it is
        # computed again wherever anything has changed.
        self._left: _Left | None = None

        last = set(last_layer(parameters.module))
        if parameters.size > MAX_PARAMETERS:
            gigabytes = 8 * (1 + ROWS_PER_FACTOR) * parameters.size**2 / 1e9
            raise ValueError(
                f"VarPro factors J, which takes {gigabytes:.0f} GB for {parameters.size} trained "
                f"parameters: train at most {MAX_PARAMETERS}, such as the last layer alone "
                "(pinn.RandomFeatures), or use pinn.GaussNewton"
            )
        is_last = torch.zeros(parameters.size, dtype=torch.bool)
        for name, part in parameters.slices.items():
            is_last[part] = name in last
        if not bool(is_last.any()):
            raise ValueError(
                "VarPro solves the network's last linear layer, which is not among the trained "
                f"parameters: {', '.join(parameters.names)}"
            )
        self._last = sorted(last)
        self._in_last = is_last.nonzero()[:, 0]
        self._in_hidden = (~is_last).nonzero()[:, 0]
        self._order = torch.cat([self._in_last, self._in_hidden])

    def advance(self, objective: Objective, iterations: int) -> Progress:
        """Take steps that lower the loss; at one that is not finite all are taken back."""
        before = self._parameters.vector()
        left = self._left
        if left is not None and left.is_of(objective, before):
            loss = left.loss
        else:
            loss = float(objective.loss())

        for done in range(iterations):
            if not math.isfinite(loss):
                failure = describe_failure(objective, loss, self._parameters.vector())
                self._parameters.assign(before)
                return Progress(done, loss, finished=True, failure=failure)

            lower = self._step(objective, loss)
            if lower is None:
                message = f"VarPro found no step that lowers the loss of {loss:.3e}"
                messages = [message] if len(self._in_hidden) else []
                return Progress(done + 1, loss, messages, finished=True)
            loss = lower

        self._left = _Left(objective, self._parameters.vector(), loss)
        return Progress(iterations, loss)

    def _step(self, objective: Objective, loss: float) -> float | None:
        """Take one step and return the new loss, None if none was found that gains anything."""
        if not len(self._in_hidden):
            lower, length = self._solve_last(objective, loss)
            # A step that had to be cut gains little of what is there: the next may gain more.
            is_cut = length < 1 and lower < loss
            return lower if is_cut or lower < SETTLED * loss else None

        # At its best the last layer leaves a residual that only hidden layers can lower.
        projected = self._projected(objective, loss)
        moved = self._move_hidden(objective, projected)
        if moved is not None:
            return moved
        return projected if projected < SETTLED * loss else None

    # --- the last layer ---

    def _projected(self, objective: Objective, loss: float) -> float:
        """Solve the last layer until that gains nothing; return the loss."""
        for _ in range(MAX_PROJECTIONS):
            lower, _ = self._solve_last(objective, loss)
            if lower > SETTLED * loss:
                return lower
            loss = lower
        return loss

    def _solve_last(self, objective: Objective, loss: float) -> tuple[float, float]:
        """Move the last layer by its least-squares step or a part of it; return loss and part."""
        last = Objective(
            objective.network,
            objective.terms.values(),
            select=self._last,
            space=objective.space,
        )
        theta = last.parameters.vector()
        delta = Triangle.of_objective(last).least_squares(self._options.ridge)

        # The residuals of linear equations take the whole step; of others a part may be best.
        length = 1.0
        for _ in range(MAX_TRIALS):
            last.parameters.assign(theta + length * delta)
            lower = float(objective.loss())
            if lower < loss:
                return lower, length
            length /= 2

        last.parameters.assign(theta)
        return loss, 0.0

    # --- the hidden layers ---

    def _move_hidden(self, objective: Objective, loss: float) -> float | None:
        """Move hidden layers, and the last one with them; return the new loss, None for no step."""
        options = self._options
        theta = self._parameters.vector()
        triangle = Triangle.of_objective(objective, self._order)
        blocks = _Blocks(triangle, len(self._in_last), options.ridge)
        mu = self._mu
        if mu is None:
            mu = options.damping * blocks.mean_diagonal
        growth = options.increase

        for _ in range(MAX_TRIALS):
            delta, promised = blocks.step(mu)
            trial = theta.clone()
            trial[self._order] += delta
            self._parameters.assign(trial)
            lower = float(objective.loss())

            # Compared where the last layer is at its best again: that is the projected function.
            if math.isfinite(lower):
                lower = self._projected(objective, lower)
            if lower < loss:
                is_good = loss - lower > GOOD_GAIN * promised
                self._mu = mu / options.decrease if is_good else mu
                return lower

            mu *= growth
            growth *= 2

        self._parameters.assign(theta)
        self._mu = None
        return None

    def state(self) -> OptimizerState:
        """Return the damping."""
        return OptimizerState(numbers={"mu": self._mu})

    def restore(self, state: OptimizerState) -> None:
        """Take up the damping."""
        self._mu = state.numbers["mu"]


class _Blocks:
    """The triangle of ``[J_c J_h]``, the last layer's columns first: ``[R_cc R_ch; 0 R_hh]``.

    ``R_hh`` is what of J_h lies outside the range of J_c: the Jacobian of the projected function in
    Kaufman's approximation. With δ_h damped by μ and δ_c free the step is
    ``δ_h = argmin ‖R_hh δ_h + z_h‖² + μ‖δ_h‖²``, then ``R_cc δ_c = −(z_c + R_ch δ_h)``.
    """

    def __init__(self, triangle: Triangle, n_last: int, ridge: float) -> None:
        factor = triangle.factor
        right = triangle.right
        self._ridge = ridge
        self._coupling = factor[:n_last, n_last:]
        self._last = Triangle(
            factor[:n_last, :n_last], right[:n_last], 0.0, triangle.n_rows
        )
        self._hidden = Triangle(
            factor[n_last:, n_last:], right[n_last:], 0.0, triangle.n_rows
        )
        self.mean_diagonal = float(factor.square().sum()) / triangle.n_rows

    def step(self, damping: float) -> tuple[Tensor, float]:
        """Return the step in the order of the columns, (P,), and the decrease it promises."""
        hidden = self._hidden
        of_hidden = hidden.damped(damping)
        right = self._last.right + self._coupling @ of_hidden
        last = Triangle(self._last.factor, right, 0.0, self._last.n_rows)
        of_last = last.least_squares(self._ridge)

        # ½‖z_h‖² − ½‖R_hh δ_h + z_h‖² as a product, which loses no digits.
        image = hidden.factor @ of_hidden
        promised = -0.5 * float(image @ (image + 2 * hidden.right))
        return torch.cat([of_last, of_hidden]), promised
