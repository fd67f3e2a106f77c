"""Quasi-Newton methods with a dense inverse Hessian: BFGS and its self-scaled kin."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from whence import _checks
from whence.catalogue import OPTIMIZERS
from whence.objective import Objective
from whence.parameters import Parameters
from whence.pinn.optimizers.fingerprint import fingerprint_of
from whence.pinn.optimizers.inverse_hessian import (
    Change,
    Curvatures,
    InverseHessian,
    plain_bfgs,
    self_scaled_bfgs,
    self_scaled_broyden,
)
from whence.pinn.optimizers.stepper import (
    OptimizerState,
    Progress,
    Stepper,
    check_state,
    describe_failure,
    is_finite,
)
from whence.pinn.optimizers.wolfe import Trial, strong_wolfe

MAX_PARAMETERS = 20_000
"""Parameters of which H, held up to three times, still fits a usual memory."""
MIN_GAIN = 1e-6
"""Share of the loss between two stalls below which the stage ends."""

MIN_LENGTH = 0.1
"""Least length of a step to try first."""

MET = 0.1
"""How far the curvature along a step may be from the expected one to count as met."""
CAUTION = 0.85
"""Share of the length expected to be best that a step tries first."""

OnResample = Literal["keep", "restart"]


@dataclass(frozen=True)
class QuasiNewton:
    """What the quasi-Newton methods with a dense inverse Hessian share.

    A step is ``−αHg`` with α by a strong Wolfe line search (Nocedal & Wright, ch. 3 and 6). H takes
    8 P² bytes in float64, three times that while a run can go back, and once that in each
    checkpoint: 8 MB and 200 MB for 1000 and 5000 parameters. More than 20,000 are refused.

    A trial at which the loss is not finite shortens the step. A step that lowers no loss restarts
    H; a second time, with less than a millionth gained between, the stage ends, and is a failure
    where no trial was finite.

    Parameters
    ----------
    iterations:
        Steps of this stage.
    on_resample:
        ``"keep"`` keeps H over a change of points or weights, ``"restart"`` starts over.
    c1, c2:
        Constants of the Wolfe conditions, ``0 < c1 < c2 < 1``.
    """

    iterations: int
    on_resample: OnResample = "keep"
    c1: float = 1e-4
    c2: float = 0.9

    chunk: ClassVar[int] = 20
    log_every: ClassVar[int] = 100
    by_gradient: ClassVar[bool] = True
    name: ClassVar[str]
    """What messages call the method."""

    def __post_init__(self) -> None:
        _checks.count("iterations", self.iterations)
        _checks.one_of("on_resample", self.on_resample, ("keep", "restart"))
        c1 = _checks.number("c1", self.c1)
        c2 = _checks.number("c2", self.c2)
        if not 0 < c1 < c2 < 1:
            raise ValueError(
                f"c1 and c2 must be numbers with 0 < c1 < c2 < 1, got {c1!r} and {c2!r}"
            )

    def choose(self, curvatures: Curvatures, size: int) -> Change:
        """Return which update to make after a step, of P parameters."""
        raise NotImplementedError

    def start(self, parameters: Parameters) -> Stepper:
        """Return a stepper for these parameters; too many of them are a ``ValueError``."""
        size = parameters.size
        if size > MAX_PARAMETERS:
            gigabytes = size**2 * parameters.dtype.itemsize / 1e9
            raise ValueError(
                f"{self.name} holds a matrix of {size} x {size} entries for the network's {size} "
                f"parameters, {gigabytes:.1f} GB, of at most {MAX_PARAMETERS} parameters: use "
                "pinn.LBFGS, which needs no matrix, or a smaller network"
            )

        return QuasiNewtonStepper(self, parameters)


@OPTIMIZERS.named("bfgs")
@dataclass(frozen=True)
class BFGS(QuasiNewton):
    """BFGS with a dense inverse Hessian and a strong Wolfe line search (Nocedal & Wright, ch. 6).

    Where the network is small it needs fewer steps than :class:`LBFGS`, as nothing is forgotten.
    Options, memory, failures and stalls are those of :class:`QuasiNewton`.

    Examples
    --------
    >>> from whence import pinn
    >>> pinn.BFGS(1000).on_resample
    'keep'
    """

    name: ClassVar[str] = "BFGS"

    def choose(self, curvatures: Curvatures, size: int) -> Change:
        """Return BFGS."""
        return plain_bfgs(curvatures, size)


@OPTIMIZERS.named("ssbfgs")
@dataclass(frozen=True)
class SSBFGS(QuasiNewton):
    """Self-scaled BFGS (Al-Baali 1998; arXiv 2405.04230 for PINNs), with a dense inverse Hessian.

    Before each update the inverse Hessian is enlarged where it was too small along the step.
    Options, memory, failures and stalls are those of :class:`QuasiNewton`.

    Examples
    --------
    >>> from whence import pinn
    >>> pinn.SSBFGS(1000, on_resample="restart").iterations
    1000
    """

    name: ClassVar[str] = "SSBFGS"

    def choose(self, curvatures: Curvatures, size: int) -> Change:
        """Return self-scaled BFGS."""
        return self_scaled_bfgs(curvatures, size)


@OPTIMIZERS.named("ssbroyden")
@dataclass(frozen=True)
class SSBroyden(QuasiNewton):
    """Self-scaled Broyden with a dense inverse Hessian and a strong Wolfe line search.

    H (P, P) is updated by the member of Broyden's family, and with the
    scaling, of Al-Baali (1998) as Urbán, Stefanou & Pons train PINNs by it (arXiv 2405.04230,
    2501.16371): from the same points it comes to losses orders of magnitude below :class:`LBFGS`.
    Options, memory, failures and stalls are those of :class:`QuasiNewton`.

    Examples
    --------
    >>> from whence import pinn
    >>> pinn.SSBroyden(5000).c2
    0.9
    """

    name: ClassVar[str] = "SSBroyden"

    def choose(self, curvatures: Curvatures, size: int) -> Change:
        """Return the self-scaled member of Broyden's family."""
        return self_scaled_broyden(curvatures, size)


class QuasiNewtonStepper:
    """A quasi-Newton method at work; its state is H, and L, g and Hg at the present θ."""

    def __init__(self, options: QuasiNewton, parameters: Parameters) -> None:
        self._options = options
        self._parameters = parameters
        self._inverse = InverseHessian()
        # Nothing is measured before the first step.
        nothing = parameters.vector()[:0]
        self._theta = nothing
        self._gradient = nothing
        self._product = nothing
        self._loss = math.nan
        self._fingerprint: str | None = None
        self._length = 1.0
        """What a step tries first, once H is more than the identity."""
        self._was_met = False
        self._stalled_at: float | None = None
        self._bad: Trial | None = None
        """The first trial of the last search, if none was finite."""

    def advance(self, objective: Objective, iterations: int) -> Progress:
        """Take steps; where none lowers the loss, H is restarted, and then the stage ended."""
        before = self._parameters.vector()
        self._follow(objective, before)
        if not is_finite(self._loss, self._gradient):
            failure = describe_failure(objective, self._loss, before)
            return Progress(0, self._loss, finished=True, failure=failure)

        for done in range(iterations):
            trial = self._search(objective)
            if trial is None:
                return self._stall(objective, done, before)

            self._accept(trial)

        return Progress(iterations, self._loss)

    def _follow(self, objective: Objective, theta: Tensor) -> None:
        """Measure loss and gradient if θ, points or weights are not those last seen."""
        fingerprint = fingerprint_of(objective)
        is_same = fingerprint == self._fingerprint
        if is_same and torch.equal(theta, self._theta):
            return

        if not is_same:
            # The next pair (s, y) has both gradients on the new points, so that H may stay.
            if self._options.on_resample == "restart":
                self._restart()
            self._stalled_at = None
            self._fingerprint = fingerprint

        self._theta = theta
        self._loss, self._gradient = objective.loss_and_gradient()
        self._product = self._inverse.times(self._gradient)

    def _restart(self) -> None:
        """Forget H."""
        self._inverse = InverseHessian()
        self._length = 1.0
        self._was_met = False

    def _search(self, objective: Objective) -> Trial | None:
        """Return a point on the line along −Hg that lowers the loss, and go there."""
        self._bad = None
        slope = -float(self._gradient @ self._product)
        # Rounding can make H indefinite, once its eigenvalues differ by sixteen orders.
        if 0 < slope < math.inf and self._inverse.mend():
            self._product = self._inverse.times(self._gradient)
            slope = -float(self._gradient @ self._product)

        # At a minimum the gradient vanishes.
        if not slope < 0:
            return None

        direction = -self._product
        trials: list[Trial] = []

        def evaluate(length: float) -> Trial:
            theta = torch.add(self._theta, direction, alpha=length)
            self._parameters.assign(theta)
            loss, gradient = objective.loss_and_gradient()
            slope = float(gradient @ direction)
            trial = Trial(length, loss, slope, theta, gradient)
            trials.append(trial)
            return trial

        # A step along −Hg has its length in H. One along the gradient has not: it is cut, so that
        # the entries of θ move by no more than 1 together.
        length = self._length
        if self._inverse.is_identity:
            length = min(1.0, 1.0 / float(self._gradient.abs().sum()))

        start = Trial(0.0, self._loss, slope, self._theta, self._gradient)
        options = self._options
        trial = strong_wolfe(evaluate, start, length, options.c1, options.c2)
        # Where some were finite, that the first went too far is no reason for a failure.
        if not any(t.is_finite for t in trials):
            self._bad = trials[0]

        # The last trial need not be the one that was taken.
        self._parameters.assign(self._theta if trial is None else trial.theta)
        return trial

    def _accept(self, trial: Trial) -> None:
        """Update H by the step to a trial, and stand there."""
        step = trial.theta - self._theta
        change = trial.gradient - self._gradient
        product = self._inverse.times(trial.gradient)  # the one product with H
        # Bs = −αg, as s = −αHg.
        sBs = -trial.length * float(step @ self._gradient)
        if not self._inverse.is_identity:
            self._expect(sBs, float(change @ step))

        self._product = self._inverse.update(
            s=step,
            y=change,
            Hy=product - self._product,
            sBs=sBs,
            gradient=trial.gradient,
            product=product,
            choose=self._options.choose,
        )
        self._theta = trial.theta
        self._gradient = trial.gradient
        self._loss = trial.loss

    def _expect(self, sBs: float, ys: float) -> None:
        """Choose the length to try first at the next step."""
        if not ys > 0:
            return

        # By the slopes at both ends of a step, the loss is least along it at the length
        # b = sᵀBs/(yᵀs). H of the scaled methods is rather too large, with b about a half: there a
        # first length of 1 costs another evaluation at every second step.
        b = sBs / ys
        is_met = abs(b - 1.0) < MET
        # Near a minimum b tends to 1, and steps of length 1 converge superlinearly.
        if is_met and self._was_met:
            self._length = 1.0
        else:
            # Too short costs less than too long, which is evaluated in vain.
            target = min(max(CAUTION * b, MIN_LENGTH), 1.0)
            self._length = math.sqrt(self._length * target)
        self._was_met = is_met

    def _stall(self, objective: Objective, done: int, before: Tensor) -> Progress:
        """Restart H; end the stage if little was gained since that was done last."""
        name = self._options.name
        progress = Progress(done, self._loss)
        is_again = False
        if self._stalled_at is not None:
            is_again = self._loss >= (1 - MIN_GAIN) * self._stalled_at

        self._stalled_at = self._loss
        self._restart()
        self._product = self._gradient
        bad = self._bad

        if is_again and bad is not None:
            progress.finished = True
            progress.failure = describe_failure(objective, bad.loss, bad.theta)
            self._parameters.assign(before)
            return progress

        if is_again:
            progress.finished = True
            progress.messages.append(
                f"{name} cannot lower the loss of {self._loss:.3e} any further: its stage ends"
            )
            return progress

        why = "found no step that lowers the loss"
        if bad is not None:
            why = "went too far: " + describe_failure(objective, bad.loss, bad.theta)
        progress.messages.append(
            f"{name} stalled at a loss of {self._loss:.3e}, as it {why}; inverse Hessian restarted"
        )
        return progress

    def state(self) -> OptimizerState:
        """Return H, and what was last measured."""
        tensors = {
            "theta": self._theta,
            "gradient": self._gradient,
            "product": self._product,
        }
        matrix = self._inverse.lend()
        if matrix is not None:
            tensors["inverse_hessian"] = matrix

        numbers = {
            "loss": self._loss,
            "length": self._length,
            "was_met": self._was_met,
            "stalled_at": self._stalled_at,
            "seen": self._fingerprint,
        }
        if self._fingerprint is None:
            return OptimizerState()
        return OptimizerState(tensors, numbers)

    def restore(self, state: OptimizerState) -> None:
        """Take up what :meth:`state` returned."""
        check_state(state, self._parameters.size, square=("inverse_hessian",))
        if not state.tensors:
            return

        tensors = state.tensors
        numbers = state.numbers
        self._theta = tensors["theta"]
        self._gradient = tensors["gradient"]
        self._product = tensors["product"]
        self._inverse = InverseHessian(tensors.get("inverse_hessian"))
        self._loss = float(numbers["loss"])
        self._length = float(numbers["length"])
        self._was_met = bool(numbers["was_met"])
        self._stalled_at = numbers["stalled_at"]
        self._fingerprint = numbers["seen"]
