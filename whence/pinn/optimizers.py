"""Optimisers of a training schedule: Adam, L-BFGS, Gauss–Newton.

Each is a frozen dataclass of options; ``start(parameters)`` returns the stepper that holds its
state. A stepper reads the objective anew at every step, so new points count from the next one.
One that cannot go on, since the loss or its gradient is not finite, takes its steps back and says
which term and which points are the cause.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Protocol

import torch
from torch import Tensor

from whence import _checks
from whence.gradient import loss_and_gradient
from whence.jacobian import Jacobian, self_product
from whence.ntk import TangentKernel
from whence.objective import Objective
from whence.parameters import Parameters
from whence.pinn.diagnosis import where_not_finite


@dataclass
class Progress:
    """What a stepper did.

    ``iterations`` may be fewer than asked for; ``loss`` is that after them, None where it was not
    evaluated; ``finished`` says that no further step helps.
    ``failure`` says where the loss is not finite, if that is why; the parameters are then those
    from before these steps.
    """

    iterations: int
    loss: float | None
    messages: list[str] = field(default_factory=list)
    finished: bool = False
    failure: str | None = None


@dataclass
class OptimizerState:
    """All that a stepper needs to go on as if it had never stopped.

    Later steps must not change its tensors in place.
    """

    tensors: dict[str, Tensor] = field(default_factory=dict)
    numbers: dict[str, Any] = field(default_factory=dict)


class Stepper(Protocol):
    """An optimiser at work on some parameters."""

    def advance(self, objective: Objective, iterations: int) -> Progress:
        """Take up to ``iterations`` steps on the objective, changing the network in place."""

    def state(self) -> OptimizerState:
        """Return the state to save."""

    def restore(self, state: OptimizerState) -> None:
        """Take up a saved state; one of another network is a ``ValueError``."""


class Optimizer(Protocol):
    """One stage of a schedule."""

    chunk: ClassVar[int]
    """Iterations between two looks at the clock and the keyboard."""
    log_every: ClassVar[int]
    """Iterations between two rows of the history."""
    by_gradient: ClassVar[bool]
    """Whether a step costs about one evaluation of the loss and its gradient."""

    @property
    def iterations(self) -> int:
        """Steps of this stage."""

    def start(self, parameters: Parameters) -> Stepper:
        """Return a stepper for these parameters."""


def _is_finite(loss: float, gradient: Tensor) -> bool:
    return math.isfinite(loss) and bool(torch.isfinite(gradient).all())


def _failure(objective: Objective, loss: float, theta: Tensor) -> str:
    but = ", but its gradient is not finite" if math.isfinite(loss) else ""
    return f"the loss is {loss}{but}: {where_not_finite(objective, theta)}"


def _check_state(state: OptimizerState, size: int) -> None:
    """Raise ``ValueError`` unless every tensor is one number or one per parameter."""
    for name, tensor in state.tensors.items():
        if tensor.ndim and tensor.shape != (size,):
            raise ValueError(
                f"the optimiser's {name!r} has shape {tuple(tensor.shape)}, not ({size},)"
            )


def _fingerprint(objective: Objective) -> str:
    """Return a digest of points and weights, by which a change shows, also after a restart."""
    digest = hashlib.sha256()
    for name, term in objective.terms.items():
        digest.update(f"{name} {term.weight!r} {tuple(term.points.shape)}".encode())
        for held in (term.points, term.point_weights):
            if held is not None:
                digest.update(held.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


@dataclass(frozen=True)
class Adam:
    """Adam (Kingma & Ba, arXiv 1412.6980) on the whole objective, through ``torch.optim.Adam``.

    Parameters
    ----------
    iterations:
        Steps of this stage.
    lr:
        Learning rate.
    betas:
        Decay of the first and second moment.

    Examples
    --------
    >>> from whence import pinn
    >>> pinn.Adam(1000, lr=1e-3).iterations
    1000
    """

    iterations: int
    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    chunk: ClassVar[int] = 20
    log_every: ClassVar[int] = 100
    by_gradient: ClassVar[bool] = True

    def __post_init__(self) -> None:
        _checks.count("iterations", self.iterations)
        _checks.positive("lr", self.lr)
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas must be two numbers in [0, 1), got {self.betas!r}")

    def start(self, parameters: Parameters) -> Stepper:
        """Return a stepper for these parameters."""
        return _AdamStepper(self, parameters)


class _AdamStepper:
    def __init__(self, options: Adam, parameters: Parameters) -> None:
        self._theta = torch.nn.Parameter(parameters.vector())
        self._optimizer = torch.optim.Adam(
            [self._theta], lr=options.lr, betas=options.betas
        )
        self._parameters = parameters

    def advance(self, objective: Objective, iterations: int) -> Progress:
        before = self._parameters.vector()
        for done in range(iterations):
            theta = self._parameters.vector()
            self._theta.data.copy_(theta)
            loss, gradient = loss_and_gradient(objective)
            if not _is_finite(loss, gradient):
                failure = _failure(objective, loss, theta)
                self._parameters.assign(before)
                return Progress(done, loss, finished=True, failure=failure)
            self._theta.grad = gradient
            self._optimizer.step()
            self._parameters.assign(self._theta.detach())
        return Progress(iterations, None)

    def state(self) -> OptimizerState:
        moments = self._optimizer.state.get(self._theta, {})
        return OptimizerState({name: value.clone() for name, value in moments.items()})

    def restore(self, state: OptimizerState) -> None:
        _check_state(state, self._parameters.size)
        if state.tensors:
            moments = {name: value.clone() for name, value in state.tensors.items()}
            self._optimizer.state[self._theta] = moments


@dataclass(frozen=True)
class LBFGS:
    """L-BFGS with a strong Wolfe line search (Nocedal & Wright, ch. 7), ``torch.optim.LBFGS``.

    A line search that ends where the loss is not finite is taken back and the memory restarted,
    as is that of one which stalls; both are said. Two stalls with nothing gained between end the
    stage, and a loss that is then still not finite is a failure.

    Parameters
    ----------
    iterations:
        Steps of this stage.
    history:
        Pairs kept.
    lr:
        First trial step.

    Examples
    --------
    >>> from whence import pinn
    >>> pinn.LBFGS(1000).history
    100
    """

    iterations: int
    history: int = 100
    lr: float = 1.0
    chunk: ClassVar[int] = 20
    log_every: ClassVar[int] = 100
    by_gradient: ClassVar[bool] = True

    def __post_init__(self) -> None:
        _checks.count("iterations", self.iterations)
        _checks.count("history", self.history)
        _checks.positive("lr", self.lr)

    def start(self, parameters: Parameters) -> Stepper:
        """Return a stepper for these parameters."""
        return _LBFGSStepper(self, parameters)


class _NotFiniteAtStart(Exception):
    """No step can start where the loss or its gradient is not finite."""


class _LBFGSStepper:
    _LISTS = ("old_dirs", "old_stps", "ro")
    _TENSORS = ("d", "prev_flat_grad")
    _COUNTS = ("func_evals", "n_iter")
    _SCALARS = ("t", "prev_loss", "H_diag")

    def __init__(self, options: LBFGS, parameters: Parameters) -> None:
        self._options = options
        self._parameters = parameters
        self._theta = torch.nn.Parameter(parameters.vector())
        self._seen: str | None = None
        self._stalled = False
        self._restart()

    def _restart(self) -> None:
        self._optimizer = torch.optim.LBFGS(
            [self._theta],
            lr=self._options.lr,
            history_size=self._options.history,
            tolerance_grad=0.0,
            tolerance_change=0.0,
            line_search_fn="strong_wolfe",
        )

    def _renew(self, objective: Objective) -> None:
        """Keep the memory over a change of points: measure the next pair on the new ones."""
        held, now = self._optimizer.state[self._theta], _fingerprint(objective)
        if self._seen not in (None, now) and held.get("prev_flat_grad") is not None:
            held["prev_loss"], held["prev_flat_grad"] = loss_and_gradient(objective)
        self._seen = now

    def advance(self, objective: Objective, iterations: int) -> Progress:
        before = self._parameters.vector()
        self._theta.data.copy_(before)
        self._renew(objective)
        held = self._optimizer.state[self._theta]
        begun = held.get("n_iter", 0)
        try:
            start, first_bad = self._step(objective, iterations)
        except _NotFiniteAtStart as error:
            self._parameters.assign(before)
            return Progress(0, math.nan, finished=True, failure=str(error))
        done = held["n_iter"] - begun  # torch may end early
        after = self._theta.detach().clone()
        self._parameters.assign(after)
        loss = float(objective.loss())
        if not (math.isfinite(loss) and bool(torch.isfinite(after).all())):
            failure = _failure(
                objective, loss, after if first_bad is None else first_bad
            )
            self._parameters.assign(before)
            return self._taken_back(Progress(done, start), failure)
        if not loss < start:
            self._restart()
            said = [f"L-BFGS stalled at a loss of {loss:.3e}: memory restarted"]
            return self._after(Progress(done, loss, said), gained=False)
        return self._after(Progress(done, loss), gained=True)

    def _step(
        self, objective: Objective, iterations: int
    ) -> tuple[float, Tensor | None]:
        """Let torch take steps; return the first loss and the first bad parameters it tried."""
        group = self._optimizer.param_groups[0]
        group["max_iter"], group["max_eval"] = iterations, 25 * iterations
        evaluated, bad = False, None

        def closure() -> Tensor:
            nonlocal evaluated, bad
            theta = self._theta.detach()
            self._parameters.assign(theta)
            loss, gradient = loss_and_gradient(objective)
            if bad is None and not _is_finite(loss, gradient):
                if not evaluated:
                    raise _NotFiniteAtStart(_failure(objective, loss, theta))
                bad = theta.clone()
            self._theta.grad, evaluated = gradient, True
            return torch.tensor(loss, dtype=torch.float64)

        return float(self._optimizer.step(closure)), bad

    def _taken_back(self, progress: Progress, failure: str) -> Progress:
        if self._stalled:
            progress.finished, progress.failure = True, failure
            return progress
        self._restart()
        progress.messages.append(f"L-BFGS went too far, memory restarted: {failure}")
        return self._after(progress, gained=False)

    def _after(self, progress: Progress, *, gained: bool) -> Progress:
        if not gained and self._stalled:
            progress.finished = True
            progress.messages.append(
                "L-BFGS cannot lower the loss any further: its stage ends"
            )
        self._stalled = not gained
        return progress

    def state(self) -> OptimizerState:
        held = self._optimizer.state[self._theta]
        tensors = {n: held[n].clone() for n in self._TENSORS if held.get(n) is not None}
        for name in self._LISTS:
            # torch adds to and drops from these lists, but leaves what is in them alone.
            tensors |= {
                f"{name}/{k}": tensor for k, tensor in enumerate(held.get(name) or ())
            }
        numbers: dict[str, Any] = {
            name: held[name] for name in self._COUNTS if name in held
        }
        # torch keeps some of these as numbers at first and as tensors of one entry later.
        numbers |= {n: float(held[n]) for n in self._SCALARS if held.get(n) is not None}
        return OptimizerState(
            tensors, {**numbers, "stalled": self._stalled, "seen": self._seen}
        )

    def restore(self, state: OptimizerState) -> None:
        _check_state(state, self._parameters.size)
        held = self._optimizer.state[self._theta]
        self._stalled, self._seen = (
            bool(state.numbers["stalled"]),
            state.numbers.get("seen"),
        )
        held |= {n: v for n, v in state.numbers.items() if n not in ("stalled", "seen")}
        held |= {
            n: state.tensors[n].clone() for n in self._TENSORS if n in state.tensors
        }
        if (
            "n_iter" in state.numbers
        ):  # after a first step alone, torch's lists are empty
            held |= {name: _numbered(state.tensors, name) for name in self._LISTS}


def _numbered(tensors: Mapping[str, Tensor], name: str) -> list[Tensor]:
    """Return name/0, name/1, … in that order."""
    count = sum(held.startswith(f"{name}/") for held in tensors)
    return [tensors[f"{name}/{k}"] for k in range(count)]


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
    form: Literal["auto", "primal", "dual"] = "auto"
    chunk: ClassVar[int] = 1
    log_every: ClassVar[int] = 5
    by_gradient: ClassVar[bool] = False

    def __post_init__(self) -> None:
        _checks.count("iterations", self.iterations)
        _checks.positive("damping", self.damping)
        for name in ("decrease", "increase"):
            if not getattr(self, name) > 1 or not math.isfinite(getattr(self, name)):
                raise ValueError(
                    f"{name} must be a number above 1, got {getattr(self, name)!r}"
                )
        _checks.one_of("form", self.form, ("auto", "primal", "dual"))

    def start(self, parameters: Parameters) -> Stepper:
        """Return a stepper for these parameters."""
        return _GaussNewtonStepper(self, parameters)


class _GaussNewtonStepper:
    TRIES = 20
    GOOD, POOR = 0.5, 0.1
    """Gain ratios above which damping falls, and below which it rises."""

    def __init__(self, options: GaussNewton, parameters: Parameters) -> None:
        self._options = options
        self._parameters = parameters
        self._mu: float | None = None
        self._stalled = 0

    def advance(self, objective: Objective, iterations: int) -> Progress:
        before, loss = self._parameters.vector(), math.nan
        for done in range(iterations):
            loss = float(objective.loss())
            system = self._system(objective) if math.isfinite(loss) else None
            if system is None or not math.isfinite(system.mean_diagonal):
                failure = _failure(objective, loss, self._parameters.vector())
                self._parameters.assign(before)
                return Progress(done, loss, finished=True, failure=failure)
            loss, gained = self._step(objective, system, loss)
            self._stalled = 0 if gained else self._stalled + 1
            if not gained:
                # The damping that failed on these points says little about the next ones.
                self._mu = None
                said = [
                    f"Gauss–Newton found no step that lowers the loss of {loss:.3e}"
                ]
                return Progress(done + 1, loss, said, finished=self._stalled > 2)
        return Progress(iterations, loss)

    def _step(
        self, objective: Objective, system: _System, loss: float
    ) -> tuple[float, bool]:
        """Take one accepted step; return the loss and whether it fell."""
        theta = self._parameters.vector()
        mu = self._mu or self._options.damping * system.mean_diagonal
        grow = self._options.increase
        for _ in range(self.TRIES):
            found = system.solve(mu)
            if found is not None:
                delta, promised = found
                new = float(
                    objective.loss(self._parameters.substituted(theta + delta)).detach()
                )
                if math.isfinite(new) and new < loss and promised > 0:
                    self._parameters.assign(theta + delta)
                    self._mu = self._adapted(mu, (loss - new) / promised)
                    return new, True
            mu, grow = mu * grow, 2 * grow
        return loss, False

    def _system(self, objective: Objective) -> _System:
        form = self._options.form
        if form == "auto":
            rows, columns = Jacobian(objective).shape
            form = "dual" if rows <= columns else "primal"
        return _DualSystem(objective) if form == "dual" else _PrimalSystem(objective)

    def _adapted(self, mu: float, gain: float) -> float:
        if gain > self.GOOD:
            return mu / self._options.decrease
        return mu * self._options.increase if gain < self.POOR else mu

    def state(self) -> OptimizerState:
        return OptimizerState(numbers={"mu": self._mu, "stalled": self._stalled})

    def restore(self, state: OptimizerState) -> None:
        self._mu = state.numbers.get("mu")
        self._stalled = int(state.numbers["stalled"])


class _DualSystem:
    """``δ = −Jᵀy`` with ``(JJᵀ + μI) y = ρ``, so that the linear model leaves ``ρ + Jδ = μy``."""

    def __init__(self, objective: Objective) -> None:
        self._kernel = TangentKernel(objective)
        self.mean_diagonal = float(self._kernel.gram.diagonal().mean())

    def solve(self, mu: float) -> tuple[Tensor, float] | None:
        """Return the step and the decrease of L that it promises, None where it has none."""
        right = self._kernel.right
        weights = _solved(self._kernel.gram, mu, right)
        if weights is None:
            return None
        left = mu * weights
        promised = 0.5 * float((right - left) @ (right + left))
        return -self._kernel.rmatvec(weights), promised


class _PrimalSystem:
    """``δ = −(JᵀJ + μI)⁻¹ Jᵀρ``."""

    def __init__(self, objective: Objective) -> None:
        self._rows, self._right = Jacobian(objective, scaled=True).system()
        self._matrix = self_product(self._rows.T)
        self._gradient = self._rows.T @ self._right
        self.mean_diagonal = float(self._matrix.trace()) / len(self._rows)

    def solve(self, mu: float) -> tuple[Tensor, float] | None:
        """Return the step and the decrease of L that it promises, None where it has none."""
        delta = _solved(self._matrix, mu, -self._gradient)
        if delta is None:
            return None
        moved = self._rows @ delta
        return delta, -0.5 * float(moved @ (2 * self._right + moved))


_System = _DualSystem | _PrimalSystem


def _solved(matrix: Tensor, mu: float, right: Tensor) -> Tensor | None:
    """Return ``(matrix + μI)⁻¹ right``, or None where that is not positive definite."""
    shifted = matrix.clone()
    shifted.diagonal().add_(mu)
    factor, info = torch.linalg.cholesky_ex(shifted)
    return (
        None
        if int(info)
        else torch.cholesky_solve(right.unsqueeze(1), factor).squeeze(1)
    )
