"""Optimisers of a training schedule: Adam, L-BFGS, Gauss–Newton.

Each is a frozen dataclass of options; ``start(parameters)`` returns the stepper that holds its
state. A stepper reads the objective anew at every step, so new points count from the next one.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Protocol

import torch
from torch import Tensor

from whence import _checks
from whence.jacobian import Jacobian, self_product
from whence.ntk import TangentKernel
from whence.objective import Objective
from whence.parameters import Parameters


@dataclass
class Progress:
    """What a stepper did.

    ``iterations`` may be fewer than asked for; ``finished`` says that no further step helps.
    """

    iterations: int
    loss: float
    messages: list[str] = field(default_factory=list)
    finished: bool = False


@dataclass
class OptimizerState:
    """All that a stepper needs to go on as if it had never stopped."""

    tensors: dict[str, Tensor] = field(default_factory=dict)
    numbers: dict[str, Any] = field(default_factory=dict)


class Stepper(Protocol):
    """An optimiser at work on some parameters."""

    def advance(self, objective: Objective, iterations: int) -> Progress:
        """Take up to ``iterations`` steps on the objective, changing the network in place."""

    def state(self) -> OptimizerState:
        """Return the state to save."""

    def restore(self, state: OptimizerState) -> None:
        """Take up a saved state."""


class Optimizer(Protocol):
    """One stage of a schedule."""

    chunk: ClassVar[int]
    """Iterations between two looks at the clock and the keyboard."""
    log_every: ClassVar[int]
    """Iterations between two rows of the history."""

    @property
    def iterations(self) -> int:
        """Steps of this stage."""

    def start(self, parameters: Parameters) -> Stepper:
        """Return a stepper for these parameters."""


def _gradient(objective: Objective) -> tuple[float, Tensor]:
    """Return L(θ) and ∇L(θ) by one backward pass."""
    parameters = objective.parameters
    live = parameters.live()
    chosen = [live[name] for name in parameters.names]
    loss = objective.loss(live)
    grads = torch.autograd.grad(loss, chosen, allow_unused=True)
    filled = [torch.zeros_like(p) if g is None else g for p, g in zip(chosen, grads, strict=True)]
    return float(loss.detach()), torch.cat([g.reshape(-1) for g in filled])


def _fingerprint(objective: Objective) -> str:
    """Return a digest of points and weights, by which a change shows, also after a restart."""
    digest = hashlib.sha256()
    for name, term in objective.terms.items():
        digest.update(f"{name} {term.weight!r} {tuple(term.points.shape)}".encode())
        digest.update(term.points.detach().cpu().contiguous().numpy().tobytes())
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
        self._optimizer = torch.optim.Adam([self._theta], lr=options.lr, betas=options.betas)
        self._parameters = parameters
        self._good: Tensor | None = None
        """The last parameters at which the loss was finite."""

    def advance(self, objective: Objective, iterations: int) -> Progress:
        loss = math.nan
        for done in range(iterations):
            theta = self._parameters.vector()
            self._theta.data.copy_(theta)
            loss, self._theta.grad = _gradient(objective)
            if not math.isfinite(loss):
                return Progress(done, loss, [self._back(loss)], finished=True)
            self._good = theta
            self._optimizer.step()
            self._parameters.assign(self._theta.detach())
        return Progress(iterations, loss)

    def _back(self, loss: float) -> str:
        if self._good is None:
            return f"the loss is {loss}: Adam cannot step from here"
        self._parameters.assign(self._good)
        return f"the loss is {loss}: Adam stops, back before the step that made it so"

    def state(self) -> OptimizerState:
        moments = self._optimizer.state.get(self._theta, {})
        tensors = {name: value.clone() for name, value in moments.items()}
        return OptimizerState(tensors if self._good is None else {**tensors, "good": self._good})

    def restore(self, state: OptimizerState) -> None:
        moments = dict(state.tensors)
        self._good = moments.pop("good", None)
        if moments:
            self._optimizer.state[self._theta] = moments


@dataclass(frozen=True)
class LBFGS:
    """L-BFGS with a strong Wolfe line search (Nocedal & Wright, ch. 7), ``torch.optim.LBFGS``.

    A loss that is not finite restores the last good parameters and restarts the memory, as does
    a stalled line search; both are said. Two stalls with nothing gained between end the stage.

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

    def __post_init__(self) -> None:
        _checks.count("iterations", self.iterations)
        _checks.count("history", self.history)
        _checks.positive("lr", self.lr)

    def start(self, parameters: Parameters) -> Stepper:
        """Return a stepper for these parameters."""
        return _LBFGSStepper(self, parameters)


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
            held["prev_loss"], held["prev_flat_grad"] = _gradient(objective)
        self._seen = now

    def advance(self, objective: Objective, iterations: int) -> Progress:
        before = self._parameters.vector()
        self._theta.data.copy_(before)
        self._renew(objective)
        group = self._optimizer.param_groups[0]
        group["max_iter"], group["max_eval"] = iterations, 25 * iterations

        def closure() -> Tensor:
            self._parameters.assign(self._theta.detach())
            loss, self._theta.grad = _gradient(objective)
            return torch.tensor(loss, dtype=torch.float64)

        start = float(self._optimizer.step(closure))
        after = self._theta.detach().clone()
        self._parameters.assign(after)
        loss = float(objective.loss())
        if not (math.isfinite(loss) and bool(torch.isfinite(after).all())):
            self._parameters.assign(before)
            self._restart()
            said = [f"L-BFGS met a loss of {loss}: back to the last good state, memory restarted"]
            return self._after(Progress(iterations, start, said), gained=False)
        if not loss < start:
            self._restart()
            said = [f"L-BFGS stalled at a loss of {loss:.3e}: memory restarted"]
            return self._after(Progress(iterations, loss, said), gained=False)
        return self._after(Progress(iterations, loss), gained=True)

    def _after(self, progress: Progress, *, gained: bool) -> Progress:
        if not gained and self._stalled:
            progress.finished = True
            progress.messages.append("L-BFGS cannot lower the loss any further: its stage ends")
        self._stalled = not gained
        return progress

    def state(self) -> OptimizerState:
        held = self._optimizer.state[self._theta]
        tensors = {name: held[name] for name in self._TENSORS if held.get(name) is not None}
        for name in self._LISTS:
            if held.get(name):
                tensors[name] = torch.stack(list(held[name]))
        numbers: dict[str, Any] = {name: held[name] for name in self._COUNTS if name in held}
        # torch keeps some of these as numbers at first and as tensors of one entry later.
        numbers |= {n: float(held[n]) for n in self._SCALARS if held.get(n) is not None}
        return OptimizerState(tensors, {**numbers, "stalled": self._stalled, "seen": self._seen})

    def restore(self, state: OptimizerState) -> None:
        held = self._optimizer.state[self._theta]
        self._stalled, self._seen = bool(state.numbers["stalled"]), state.numbers.get("seen")
        held |= {n: v for n, v in state.numbers.items() if n not in ("stalled", "seen")}
        for name, tensor in state.tensors.items():
            held[name] = list(tensor.unbind(0)) if name in self._LISTS else tensor


@dataclass(frozen=True)
class GaussNewton:
    """Gauss–Newton with Levenberg–Marquardt damping, primal or dual by size.

    A step is ``−(JᵀJ + μI)⁻¹Jᵀρ = −Jᵀ(JJᵀ + μI)⁻¹ρ`` with J and ρ scaled so that ``JᵀJ`` is the
    Gauss–Newton matrix and ``Jᵀρ = ∇L``. A step that raises the loss is taken back and tried
    again with more damping; a step that achieves at least half of what the model promises lowers
    it (Marquardt 1963; the dual form, Müller & Zeinhofer, arXiv 2302.13163 and 2505.21404).

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

    def __post_init__(self) -> None:
        _checks.count("iterations", self.iterations)
        _checks.positive("damping", self.damping)
        _checks.positive("decrease", self.decrease)
        _checks.positive("increase", self.increase)
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
        loss = math.nan
        for done in range(iterations):
            loss, gained = self._step(objective)
            if not math.isfinite(loss):
                said = [f"the loss is {loss}: Gauss–Newton cannot step from here"]
                return Progress(done, loss, said, finished=True)
            self._stalled = 0 if gained else self._stalled + 1
            if not gained:
                # The damping that failed on these points says little about the next ones.
                self._mu = None
                said = [f"Gauss–Newton found no step that lowers the loss of {loss:.3e}"]
                return Progress(done + 1, loss, said, finished=self._stalled > 2)
        return Progress(iterations, loss)

    def _step(self, objective: Objective) -> tuple[float, bool]:
        """Take one accepted step; return the loss and whether it fell."""
        system = self._system(objective)
        theta = self._parameters.vector()
        loss = float(objective.loss())
        mu = self._mu or self._options.damping * system.mean_diagonal
        grow = self._options.increase
        for _ in range(self.TRIES):
            found = system.solve(mu)
            if found is not None:
                delta, promised = found
                new = float(objective.loss(self._parameters.substituted(theta + delta)).detach())
                if math.isfinite(new) and new < loss and promised > 0:
                    self._parameters.assign(theta + delta)
                    self._mu = self._adapted(mu, (loss - new) / promised)
                    return new, True
            mu, grow = mu * grow, 2 * grow
        return loss, False

    def _system(self, objective: Objective) -> _DualSystem | _PrimalSystem:
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


def _solved(matrix: Tensor, mu: float, right: Tensor) -> Tensor | None:
    """Return ``(matrix + μI)⁻¹ right``, or None where that is not positive definite."""
    shifted = matrix.clone()
    shifted.diagonal().add_(mu)
    factor, info = torch.linalg.cholesky_ex(shifted)
    return None if int(info) else torch.cholesky_solve(right.unsqueeze(1), factor).squeeze(1)
