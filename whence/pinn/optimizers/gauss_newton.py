"""Gauss–Newton with Levenberg–Marquardt damping, primal or dual by size."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import ClassVar, Literal, get_args

from torch import Tensor

from whence import _checks
from whence.catalogue import LATER, OPTIMIZERS
from whence.damped_systems import Step, System
from whence.jacobian import Jacobian
from whence.levenberg_marquardt import (
    FORMS,
    Form,
    damping_by_ratio,
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
    check_state,
    describe_failure,
)
from whence.sketches import Sketch

DampingRule = Literal["thresholds", "ratio"]
DAMPING_RULES = get_args(DampingRule)

MAX_STALLS = 2
"""Stalls in a row after which a further one ends the stage."""
MAX_BEND = 0.75
"""Largest ``2‖δ₂‖/‖δ₁‖`` of a step with acceleration, as Transtrum & Sethna choose it."""


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
    acceleration:
        Whether a step δ₁ is bent along the geodesic of the residuals, by
        ``δ₂ = −½ (JᵀJ + μI)⁻¹ Jᵀ ρ″`` with ρ″ their second derivative along δ₁. A step with
        ``2‖δ₂‖ > 0.75 ‖δ₁‖`` is taken back as one that raises the loss (Transtrum & Sethna,
        arXiv 1201.5885). It costs two evaluations of the residuals and a product with J.
    momentum:
        Share m in [0, 1) of the step before towards which a step is damped:
        ``argmin ‖Jδ + ρ‖² + μ‖δ − m δ_before‖²`` (SPRING: Goldshlager et al., arXiv 2401.10190;
        for PINNs arXiv 2604.05230). Where that step raises the loss, one without is tried.
    damping_rule:
        ``"thresholds"`` as above, or ``"ratio"``: μ changes by a power of ``decrease`` or
        ``increase``, such that the share gained of the promise tends to ``target_ratio``
        (after DSGNAR, arXiv 2607.02194).
    target_ratio:
        That share, in (0, 1).
    sketch_rows, sketch_columns:
        m and k, None for none: J is replaced by ``S J Ω`` with a count sketch S of m rows and a
        randomized cosine transform Ω of k columns, new in every step (arXiv 2607.02194). Memory
        is ``m k`` numbers, whatever the number of points. See :mod:`whence.sketches`.
    seed:
        Seed of the sketches.

    Raises
    ------
    ValueError
        If an option is out of range, or a form is asked for of a sketched system, which has one.

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
    acceleration: bool = field(default=False, metadata=LATER)
    momentum: float = field(default=0.0, metadata=LATER)
    damping_rule: DampingRule = field(default="thresholds", metadata=LATER)
    target_ratio: float = field(default=0.5, metadata=LATER)
    sketch_rows: int | None = field(default=None, metadata=LATER)
    sketch_columns: int | None = field(default=None, metadata=LATER)
    seed: int = field(default=0, metadata=LATER)

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
        _checks.boolean("acceleration", self.acceleration)
        if not 0 <= _checks.number("momentum", self.momentum) < 1:
            raise ValueError(
                f"momentum must be a number in [0, 1), got {self.momentum!r}"
            )
        _checks.one_of("damping_rule", self.damping_rule, DAMPING_RULES)
        if not 0 < _checks.number("target_ratio", self.target_ratio) < 1:
            raise ValueError(
                f"target_ratio must be a number in (0, 1), got {self.target_ratio!r}"
            )
        self._check_sketch()

    def _check_sketch(self) -> None:
        """Raise ``ValueError`` unless the options of a sketch fit together."""
        _checks.seed("seed", self.seed)
        for name in ("sketch_rows", "sketch_columns"):
            size = getattr(self, name)
            if size is None:
                continue

            _checks.count(name, size)
            if self.form != "auto":
                raise ValueError(
                    f"form is {self.form!r}, but {name} is given: a sketched system is always "
                    "solved by the triangle of its sketch; leave form at 'auto'"
                )

    def sketch(self, step: int) -> Sketch | None:
        """Return what is drawn at a step, None if nothing is sketched."""
        if self.sketch_rows is None and self.sketch_columns is None:
            return None
        return Sketch(self.sketch_rows, self.sketch_columns, (self.seed, step))

    def start(self, parameters: Parameters) -> Stepper:
        """Return a stepper for these parameters."""
        return GaussNewtonStepper(self, parameters)


class GaussNewtonStepper:
    """Gauss–Newton at work; its state is μ, the stalls in a row, the last step and their number."""

    def __init__(self, options: GaussNewton, parameters: Parameters) -> None:
        self._options = options
        self._parameters = parameters
        # None: by the options' relative damping, at the next step.
        self._mu: float | None = None
        self._stalls = 0
        self._steps = 0
        """Systems made so far, each with a sketch of its own."""
        self._last: Tensor | None = None
        """The step before, kept where there is momentum."""
        self.accepted: Step | None = None
        """The last step taken, None where the last try found none."""

    def advance(self, objective: Objective, iterations: int) -> Progress:
        """Take steps that lower the loss; at one that is not finite all are taken back."""
        before = self._parameters.vector()
        loss = math.nan

        for done in range(iterations):
            loss = float(objective.loss())
            system = None
            if math.isfinite(loss):
                sketch = self._options.sketch(self._steps)
                system = system_of(objective, self._options.form, sketch=sketch)
                self._steps += 1

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
        self._last = None
        self.accepted = None
        self._stalls += 1
        message = f"Gauss–Newton found no step that lowers the loss of {loss:.3e}"
        return Progress(iterations, loss, [message], finished=self._stalls > MAX_STALLS)

    def _step(self, objective: Objective, system: System, loss: float) -> float | None:
        """Take the first step that lowers the loss and return the new one, or None."""
        theta = self._parameters.vector()
        # Relative to the mean of the kernel's diagonal, so that it has the units of K.
        first = self._mu or self._options.damping * system.mean_diagonal

        for step in self._trial_steps(system, first):
            delta = self._bent(objective, system, step)
            if delta is None:
                continue

            trial = theta + delta
            tensors = self._parameters.substituted(trial)
            new = float(objective.loss(tensors).detach())

            # A promise that rounding made negative says nothing about the gain.
            if math.isfinite(new) and new < loss and step.promised > 0:
                self._parameters.assign(trial)
                self.accepted = step
                self._mu = self._next_damping(step, gained=loss - new)
                if self._options.momentum:
                    self._last = delta
                return new

        return None

    def _trial_steps(self, system: System, first: float) -> Iterator[Step]:
        """Yield a step with momentum, if there is any, and then steps of rising damping."""
        # Damped towards a multiple of the last step, a step does not vanish as μ rises: that no
        # step lowers the loss would never show.
        if self._last is not None:
            ahead = self._options.momentum * self._last
            step = system.solve(first, ahead)
            if step is not None:
                yield step

        yield from trial_steps(system, first, self._options.increase)

    def _bent(self, objective: Objective, system: System, step: Step) -> Tensor | None:
        """Return δ₁ + δ₂, or None where δ₂ is too large for its model; δ₁ without acceleration."""
        if not self._options.acceleration:
            return step.delta

        jacobian = Jacobian(objective, scaled=True)
        second = jacobian.second_derivative(step.delta)
        bend = system.bend(step.damping, second)
        # A NaN is too large, too: residuals may not be finite that far from θ.
        if bend is None or not 2 * bend.norm() <= MAX_BEND * step.delta.norm():
            return None
        return step.delta + bend

    def _next_damping(self, step: Step, gained: float) -> float:
        """Return μ for the next step by the rule of the options."""
        options = self._options
        if options.damping_rule == "ratio":
            return damping_by_ratio(
                step,
                gained,
                options.target_ratio,
                options.decrease,
                options.increase,
            )
        return next_damping(step, gained, options.decrease, options.increase)

    def state(self) -> OptimizerState:
        """Return μ, the number of stalls and of steps, and the last step if it is needed."""
        tensors = {}
        if self._last is not None:
            tensors["last_step"] = self._last
        numbers = {"mu": self._mu, "stalled": self._stalls, "steps": self._steps}
        return OptimizerState(tensors, numbers)

    def restore(self, state: OptimizerState) -> None:
        """Take up what :meth:`state` returned."""
        check_state(state, self._parameters.size)
        self._mu = state.numbers.get("mu")
        self._stalls = int(state.numbers["stalled"])
        # Of runs from before there were sketches.
        self._steps = int(state.numbers.get("steps", 0))
        self._last = state.tensors.get("last_step")
