"""L(θ) and ∇L(θ) at once: eagerly, or by code compiled once for blocks of a fixed size.

Both go through the points in blocks, so memory does not grow with their number. Compiled blocks
are filled up with points of weight zero: new points, and more of them, need no new compilation.
Where weights change with the gradients of terms, :class:`TermGradients` makes those once for both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor

from whence.jacobian import Jacobian
from whence.linearization import LayerLinearization, linearize, squared_norms
from whence.objective import BLOCK_POINTS, Objective, Points, Term, at_once
from whence.parameters import Parameters

COMPILED_POINTS, LEAST_COMPILED = 500, 125
"""Points of a compiled block: of many points at most, of a few (which may become many) at least."""
# Seconds of an eager step (fixed, by point and parameter), what share of it compilation saves and
# what it costs for each term, on two cores (docs/speed.md).
EAGER_STEP, EAGER_POINT, SAVED, COMPILATION = 3e-3, 1.8e-9, 0.6, 6.0


def loss_and_gradient(objective: Objective) -> tuple[float, Tensor]:
    """Return L(θ) and ∇L(θ), shape (P,), at the network's parameters.

    By a backward pass for every few thousand points, or as ``objective.evaluation`` does it.

    Examples
    --------
    >>> from whence import pinn
    >>> from whence.gradient import loss_and_gradient
    >>> problem = pinn.zoo.load("burgers")
    >>> objective = problem.objective(problem.network(seed=0), problem.sample(50, seed=0))
    >>> loss, gradient = loss_and_gradient(objective)
    >>> loss == float(objective.loss()), gradient.shape
    (True, torch.Size([2241]))
    """
    if objective.evaluation is not None:
        return objective.evaluation(objective)
    loss, gradient = _summed(objective, _pieces(objective))
    return float(loss), gradient


def term_gradients(objective: Objective) -> dict[str, tuple[Tensor, Tensor]]:
    """Return ``L_k = (1/N_k) Σ_i m_i ℓ_k(z_i)`` and ∇L_k (P,) of each term, without its weight w_k.

    ``objective.evaluation`` remembers them if it is :class:`TermGradients`: the step that follows
    at the same parameters, whatever the weights are by then, costs nothing more.

    Examples
    --------
    >>> from whence import pinn
    >>> from whence.gradient import loss_and_gradient, term_gradients
    >>> problem = pinn.zoo.load("burgers", "soft")
    >>> points = problem.sample({"pde": 20, "initial_u": 5, "dirichlet_u": 5}, seed=0)
    >>> objective = problem.objective(problem.network(seed=0), points, {"initial_u": 3.0})
    >>> parts = term_gradients(objective)
    >>> total = sum(objective.term(name).weight * gradient for name, (_, gradient) in parts.items())
    >>> total.allclose(loss_and_gradient(objective)[1])
    True
    """
    held = objective.evaluation
    return (held if isinstance(held, TermGradients) else TermGradients()).parts(
        objective
    )


def _summed(
    objective: Objective, pieces: Iterable[list[tuple[Term, Points, float | Tensor]]]
) -> tuple[Tensor, Tensor]:
    """Return the sum of weighted losses over pieces and its gradient, a backward pass for each."""
    parameters = objective.parameters
    live = parameters.live()
    chosen = [live[name] for name in parameters.names]
    total, gradient = None, None
    for piece in pieces:
        with torch.enable_grad():
            loss = torch.stack([_part_of_loss(live, *part) for part in piece]).sum()
        grads = torch.autograd.grad(
            loss, chosen, allow_unused=True, materialize_grads=True
        )
        flat, loss = torch.cat([g.reshape(-1) for g in grads]), loss.detach()
        total, gradient = (
            loss if total is None else total + loss,
            flat if gradient is None else gradient + flat,
        )
    assert total is not None
    assert gradient is not None
    return total, gradient


def _part_of_loss(
    live: dict[str, Tensor], term: Term, points: Points, scale: float | Tensor
) -> Tensor:
    value = term.value(term.residual(live, points), points)
    return (value * scale).sum() if isinstance(scale, Tensor) else value.sum() * scale


def _pieces(
    objective: Objective,
) -> Iterator[list[tuple[Term, Points, float | Tensor]]]:
    """Yield the terms' points in lists of at most as many points as are evaluated at once."""
    held: list[tuple[Term, Points, float | Tensor]] = []
    most = min(at_once(term.points, BLOCK_POINTS) for term in objective.terms.values())
    room = most
    for term in objective.terms.values():
        start, n = 0, len(term.points)
        while n - start > room:
            part = slice(start, start + room)
            yield (
                [*held, (term, term.points[part], term.scales(part))] if room else held
            )
            held, start, room = [], part.stop, most
        rest = slice(start, n)
        held.append((term, term.points[rest], term.scales(rest)))
        room -= n - start
    yield held


Part = tuple[Tensor, Tensor]
"""A term's loss and its gradient (P,), both without the term's weight."""


class TermGradients:
    """L(θ) and ∇L(θ) from those of the terms, which are remembered for the last θ and points."""

    def __init__(self) -> None:
        self._theta: Tensor | None = None
        self._held: dict[str, tuple[Any, Part]] = {}

    def __call__(self, objective: Objective) -> tuple[float, Tensor]:
        """Return L(θ) and ∇L(θ), shape (P,)."""
        loss, gradient = 0.0, objective.parameters.vector().zero_()
        for name, (value, part) in self.parts(objective).items():
            weight = objective.terms[name].weight
            gradient.add_(part, alpha=weight)
            loss += weight * float(value)
        return loss, gradient

    def parts(self, objective: Objective) -> dict[str, Part]:
        """Return ``L_k`` and ``∇L_k`` of each term; later calls do not change them."""
        theta = objective.parameters.vector()
        if self._theta is None or not torch.equal(theta, self._theta):
            self._theta, self._held = theta, {}
        for name, term in objective.terms.items():
            seen = self._held.get(name)
            if seen is None or not _same(seen[0], _state(term)):
                self._held[name] = _state(term), self._term(objective, term, theta)
        return {name: self._held[name][1] for name in objective.terms}

    def traces(self, objective: Objective) -> dict[str, float]:
        """Return ``Tr K_kk = Σ_i ‖∇r_k(z_i)‖²`` of each term."""
        return Jacobian(objective).traces()

    def _term(self, objective: Objective, term: Term, theta: Tensor) -> Part:
        alone = objective._with_terms([replace(term, weight=1.0)])
        return _summed(alone, _pieces(alone))


def _state(term: Term) -> tuple[Any, ...]:
    """Return what a term's loss hangs on apart from θ; compare with :func:`_same`."""
    tensors = term.points, term.point_weights
    versions = [held._version for held in tensors if isinstance(held, Tensor)]
    return (*tensors, term.residual, term.loss, versions)


def _same(one: tuple[Any, ...], other: tuple[Any, ...]) -> bool:
    return (
        all(a is b for a, b in zip(one[:4], other[:4], strict=True))
        and one[4] == other[4]
    )


class NotCompiled(RuntimeError):
    """Why an objective's gradient cannot be compiled."""


class CompiledGradient(TermGradients):
    """L(θ) and ∇L(θ) of an objective and of all that differ from it by points and weights only.

    Each term's loss and gradient are traced into one graph and compiled by TorchInductor for a
    block of points; what is compiled is compared with the eager gradient before it is used.

    Parameters
    ----------
    objective:
        Whose terms to compile.

    Raises
    ------
    NotCompiled
        If there is no compiler, a residual cannot be traced (it branches on values, say), draws
        random numbers, changes a buffer, or gives another result compiled.
    """

    def __init__(self, objective: Objective) -> None:
        super().__init__()
        self._blocks = _all(_GradientBlock, objective)
        self._traces: dict[str, _TraceBlock] | None = None

    def compile_traces(self, objective: Objective) -> None:
        """Compile the traces too; they are eager without, or if that is a ``NotCompiled``."""
        known = (
            linearize(t.residual, objective.parameters, t.points[:2])
            for t in _terms(objective)
        )
        if not all(isinstance(one, LayerLinearization) for one in known):
            raise NotCompiled(
                "parameters are used elsewhere than in layers of known kinds"
            )
        self._traces = _all(_TraceBlock, objective)

    def traces(self, objective: Objective) -> dict[str, float]:
        """Return ``Tr K_kk = Σ_i ‖∇r_k(z_i)‖²`` of each term."""
        if self._traces is None:
            return super().traces(objective)
        theta, found = objective.parameters.vector(), {}
        for name, term in objective.terms.items():
            block, total = self._traces[name], 0.0
            # With w = N and no weights of points each has the factor 1.
            for points, weights in block.filled(replace(term, point_weights=None)):
                total += float(block.function(theta, points, weights)[0]) * len(
                    term.points
                )
            found[name] = total
        return found

    def _term(self, objective: Objective, term: Term, theta: Tensor) -> Part:
        loss, gradient = theta.new_zeros(()), torch.zeros_like(theta)
        block = self._blocks[term.name]
        for points, weights in block.filled(term):
            part, value = block.function(theta, points, weights)
            gradient += part
            loss += value
        return loss, gradient


Filled = list[tuple[Tensor, Tensor]]


def _terms(objective: Objective) -> list[Term]:
    return list(objective.terms.values())


def _all(kind: type[Block], objective: Objective) -> dict[str, Block]:
    """Return compiled blocks of every term."""
    blocks = {term.name: kind(term, objective.parameters) for term in _terms(objective)}
    for block in blocks.values():  # once all are traced, as compiling takes long
        block.compile()
    return blocks


class _Block:
    """A function of one term, compiled for a fixed number of weighted points."""

    results: ClassVar[tuple[str, ...]]
    """What the function returns, in words."""

    def __init__(self, term: Term, parameters: Parameters) -> None:
        if not isinstance(term.points, Tensor):
            raise NotCompiled(f"term {term.name!r} has samples, not points")
        n = len(term.points)
        self.size = max(LEAST_COMPILED, -(-n // -(-n // COMPILED_POINTS)))
        self._residual, self._loss = term.residual, term.loss
        self._seen: tuple[Any, ...] | None = None
        self._filled: Filled = []
        self._name = term.name
        self._eager = self._made(term, parameters)
        self._arguments = parameters.vector(), *self.filled(term)[-1]
        self._graph = _traced(term.name, self._eager, self._arguments)
        self.function: Any = None

    def _made(
        self, term: Term, parameters: Parameters
    ) -> Callable[..., tuple[Tensor, ...]]:
        """Return the function of θ, points and their weights to compile."""
        raise NotImplementedError

    def compile(self) -> None:
        """Compile the traced graph and compare it with the eager function."""
        theta, points, weights = self._arguments
        self.function = _compiled(self._name, self._graph, self._arguments)
        other = theta * 1.01, points.flip(0), weights.flip(0)
        _compare(self._name, self.results, self.function, self._eager, other)

    def filled(self, term: Term) -> Filled:
        """Return the term's points in blocks with their weights, kept while they are the same."""
        if term.residual is not self._residual or term.loss != self._loss:
            raise ValueError(f"term {term.name!r} is not the one that was compiled")
        now = _state(term)
        if self._seen is None or not _same(self._seen, now):
            self._filled, self._seen = list(self._split(term)), now
        return self._filled

    def _split(self, term: Term) -> Iterator[tuple[Tensor, Tensor]]:
        for points, scale in replace(term, weight=1.0).parts(self.size):
            missing = self.size - len(points)
            weights = points.new_zeros(self.size)
            weights[: len(points)] = scale
            yield torch.cat([points, points[:1].expand(missing, -1)]), weights


class _GradientBlock(_Block):
    results = ("gradient", "loss")

    def _made(
        self, term: Term, parameters: Parameters
    ) -> Callable[..., tuple[Tensor, ...]]:
        def loss(theta: Tensor, points: Tensor, weights: Tensor) -> Tensor:
            residual = term.residual(parameters.substituted(theta), points)
            return (term.loss.value(residual) * weights).sum()

        return torch.func.grad_and_value(loss)


class _TraceBlock(_Block):
    results = ("trace",)

    def _made(
        self, term: Term, parameters: Parameters
    ) -> Callable[..., tuple[Tensor, ...]]:
        def trace(theta: Tensor, points: Tensor, weights: Tensor) -> tuple[Tensor]:
            norms = squared_norms(term.residual, parameters, theta, points)
            return ((norms * weights).sum(),)

        return trace


Block = TypeVar("Block", bound=_Block)
Arguments = tuple[Tensor, Tensor, Tensor]


def _traced(name: str, function: Callable[..., Any], arguments: Arguments) -> Any:
    """Return the graph of ``function``."""
    from torch.fx.experimental.proxy_tensor import make_fx

    try:
        with torch.no_grad():
            graph = make_fx(lambda *given: function(*given))(*arguments)
    except Exception as error:  # user code is traced: anything may be raised
        reason = _first_line(error)
        if "tracing tensor" in reason:
            reason = (
                "it depends on the values of its points, as normals and branches do"
            )
        raise NotCompiled(f"term {name!r} cannot be traced: {reason}") from error
    _check_repeatable(graph)
    return graph


def _compiled(name: str, graph: Any, arguments: Arguments) -> Any:
    """Return the graph compiled for arguments of these shapes."""
    import torch._inductor

    options = {"triton.cudagraphs": True} if arguments[0].is_cuda else {}
    try:
        with torch.no_grad():
            compiled = torch._inductor.compile(graph, list(arguments), options=options)
            compiled(*arguments)
    except Exception as error:  # a compiler is run: anything may be raised
        raise NotCompiled(
            f"term {name!r} cannot be compiled: {_first_line(error)}"
        ) from error
    return torch.no_grad()(compiled)


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def _check_repeatable(graph: torch.fx.GraphModule) -> None:
    for node in graph.graph.nodes:
        tags = getattr(node.target, "tags", ())
        if torch.Tag.nondeterministic_seeded in tags:
            raise NotCompiled(f"the network draws random numbers ({node.target})")


def _compare(
    name: str, results: tuple[str, ...], compiled: Any, eager: Any, arguments: Arguments
) -> None:
    """Raise unless both agree at other parameters and points than those traced."""
    allowed = min(1e5 * torch.finfo(arguments[0].dtype).eps, 1e-3)
    given = compiled(*arguments), eager(*arguments)
    for what, ours, theirs in zip(results, *given, strict=True):
        error = _relative(ours.detach(), theirs.detach())
        if not error <= allowed:
            raise NotCompiled(
                f"the compiled {what} of term {name!r} differs from the eager one by {error:.1e}"
            )


def _relative(ours: Tensor, theirs: Tensor) -> float:
    scale = theirs.abs().max()
    return float(
        (ours - theirs).abs().max() / scale.clamp_min(torch.finfo(scale.dtype).tiny)
    )


@dataclass(frozen=True)
class Work:
    """What training will evaluate: how many gradients, of how many points and parameters."""

    gradients: int
    points: int
    parameters: int
    terms: int

    def pays_for_compilation(self) -> bool:
        """Tell whether compiling saves more time than it takes; by size alone, so it repeats."""
        step = EAGER_STEP + EAGER_POINT * self.points * self.parameters
        return self.gradients * step * SAVED > 2 * COMPILATION * self.terms
