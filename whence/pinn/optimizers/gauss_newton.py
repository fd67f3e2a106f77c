"""Gauss–Newton with Levenberg–Marquardt damping, primal or dual by size."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from whence import _checks
from whence.catalogue import OPTIMIZERS
from whence.levenberg_marquardt import (
    FORMS,
    Form,
    System,
    next_damping,
    system_of,
    trial_steps,
)
from whence.objective import Objective
from whence.parameters import Parameters
from whence.pinn.optimizers.stepper import (
    OptimizerState,
    Progress,
    Stepper,
    describe_failure,
)

MAX_STALLS = 2
"""Stalls in a row after which a further one ends the stage."""


@OPTIMIZERS.named("gauss_newton")
@dataclass(frozen=True)
class GaussNewton:
    """Gauss–Newton with Levenberg–Marquardt damping, primal or dual by size.

    A step is ``−(JᵀJ + μI)⁻¹Jᵀρ = −Jᵀ(JJᵀ + μI)⁻¹ρ`` with J and ρ scaled so that ``JᵀJ`` is the
    Gauss–Newton matrix and ``Jᵀρ = ∇L``. A step that raises the loss is taken back and tried
    again with more damping; a step that achieves at least half of what the model promises lowers
    it (Marquardt 1963; the dual form, Müller & Zeinhofer, arXiv 2302.13163 and 2505.21404).
    A trial step at which the loss is not finite is one that raises it.

    Parameters
    ----------
    iterations:
        Steps of this stage.
    damping:
        First μ, relative to the mean diagonal entry of ``JJᵀ``.
    decrease, increase:
        Factors by which μ changes.
    form:
        ``"auto"`` takes the smaller system; ``"primal"`` or ``"dual"`` forces one.
        ``"triangular"`` goes through ``J = QR``, which costs more and loses no digits to the
        square of J.

    Examples
    --------
    >>> from whence import pinn
    >>> pinn.GaussNewton(200).damping
    0.001
    """

    iterations: int
    damping: float = 1e-3
    decrease: float = 3.0
    increase: float = 2.0
    form: Form = "auto"

    chunk: ClassVar[int] = 1
    log_every: ClassVar[int] = 5
    by_gradient: ClassVar[bool] = False

    def __post_init__(self) -> None:
        _checks.count("iterations", self.iterations)
        _checks.positive("damping", self.damping)
        for name in ("decrease", "increase"):
            factor = getattr(self, name)
            if not _checks.number(name, factor) > 1:
                raise ValueError(f"{name} must be a number above 1, got {factor!r}")
        _checks.one_of("form", self.form, FORMS)

    def start(self, parameters: Parameters) -> Stepper:
        """Return a stepper for these parameters."""
        return GaussNewtonStepper(self, parameters)


class GaussNewtonStepper:
    """Gauss–Newton at work; its state is μ and the number of stalls in a row."""

    def __init__(self, options: GaussNewton, parameters: Parameters) -> None:
        self._options = options
        self._parameters = parameters
        # None: by the options' relative damping, at the next step.
        self._mu: float | None = None
        self._stalls = 0

    def advance(self, objective: Objective, iterations: int) -> Progress:
        """Take steps that lower the loss; at one that is not finite all are taken back."""
        before = self._parameters.vector()
        loss = math.nan

        for done in range(iterations):
            loss = float(objective.loss())
            system = None
            if math.isfinite(loss):
                system = system_of(objective, self._options.form)

            # The loss may be finite where its derivatives are not, as that of √u at 0.
            if system is None or not math.isfinite(system.mean_diagonal):
                theta = self._parameters.vector()
                failure = describe_failure(objective, loss, theta)
                self._parameters.assign(before)
                return Progress(done, loss, finished=True, failure=failure)

            lower = self._step(objective, system, loss)
            if lower is None:
                return self._stall(done + 1, loss)

            loss = lower
            self._stalls = 0

        return Progress(iterations, loss)

    def _stall(self, iterations: int, loss: float) -> Progress:
        """Say that no step lowered the loss; the stage ends if that happens again and again."""
        # The damping that failed on these points says little about the next ones.
        self._mu = None
        self._stalls += 1
        message = f"Gauss–Newton found no step that lowers the loss of {loss:.3e}"
        return Progress(iterations, loss, [message], finished=self._stalls > MAX_STALLS)

    def _step(self, objective: Objective, system: System, loss: float) -> float | None:
        """Take the first step that lowers the loss and return the new one, or None."""
        options = self._options
        theta = self._parameters.vector()
        # Relative to the mean of the kernel's diagonal, so that it has the units of K.
        first = self._mu or options.damping * system.mean_diagonal

        for step in trial_steps(system, first, options.increase):
            trial = theta + step.delta
            tensors = self._parameters.substituted(trial)
            new = float(objective.loss(tensors).detach())

            # A promise that rounding made negative says nothing about the gain.
            if math.isfinite(new) and new < loss and step.promised > 0:
                self._parameters.assign(trial)
                gained = loss - new
                self._mu = next_damping(
                    step, gained, options.decrease, options.increase
                )
                return new

        return None

    def state(self) -> OptimizerState:
        """Return μ and the number of stalls."""
        return OptimizerState(numbers={"mu": self._mu, "stalled": self._stalls})

    def restore(self, state: OptimizerState) -> None:
        """Take up μ and the number of stalls."""
        self._mu = state.numbers.get("mu")
        self._stalls = int(state.numbers["stalled"])
