"""Losses and gradients by code compiled once for blocks of a fixed number of points.

Each term's loss and gradient, those of terms at the same points together, are traced into one graph
(through the jets, which vanish in it) and compiled by TorchInductor. Blocks are filled up with
points of weight zero: new points, and more of them, need no new compilation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor

from whence.evaluator import LossAndGradient, Remembering, Terms, term_state, unweighted
from whence.linearization import LayerLinearization, linearize, squared_norms
from whence.objective import Objective
from whence.parameters import Parameters
from whence.points import are_samples, blocks, locations
from whence.shared_pass import SharedPass, passes_of
from whence.term import Term

MAX_BLOCK = 500
"""Points of a compiled block, of a term of many points."""
MIN_BLOCK = 125
"""Points of a compiled block, of a term of few points, which may become many."""

# What a step costs and compilation saves, on two cores (docs/speed.md).
STEP_SECONDS = 3e-3
"""Seconds of an eager step whatever its size."""
POINT_SECONDS = 1.8e-9
"""Seconds of an eager step for each point and parameter."""
SHARE_SAVED = 0.6
"""Share of an eager step that compilation saves."""
COMPILATION_SECONDS = 6.0
"""Seconds to compile a term."""

Arguments = tuple[Tensor, Tensor, Tensor]
"""θ (P,), points (n, d) and their weights (n, K) in each of K terms."""
PointsAndScales = tuple[Tensor, Tensor]
Names = tuple[str, ...]
"""The terms of a pass."""
Function = Callable[..., tuple[Tensor, ...]]


class NotCompiled(RuntimeError):
    """Why an objective's gradient cannot be compiled."""


class Compiled(Remembering):
    """The evaluator of an objective, and of all that differ from it by points and weights only.

    What is compiled is compared with the eager gradient, at other parameters, before it is used.

    Parameters
    ----------
    objective:
        Whose terms to compile.
    by_term:
        Whether gradients of single terms will be asked for, as weightings do: each of the terms at
        the same points is then compiled by itself too.

    Raises
    ------
    NotCompiled
        If there is no compiler, a residual cannot be traced (it branches on values, say), draws
        random numbers, changes a buffer, or gives another result compiled.
    """

    def __init__(self, objective: Objective, by_term: bool = False) -> None:
        super().__init__()
        passes = passes_to_compile(objective, by_term)
        self._blocks = _compile_all(_GradientBlock, passes, objective.parameters)
        self._trace_blocks: dict[Names, _TraceBlock] | None = None

    def compile_traces(self, objective: Objective) -> None:
        """Compile the traces too; they are eager without, or if that is a ``NotCompiled``."""
        for term in objective.terms.values():
            # The traces are sums over layers, which must be known.
            linear = linearize(term.residual, objective.parameters, term.points[:2])
            if not isinstance(linear, LayerLinearization) or not linear.is_plain:
                raise NotCompiled(
                    "parameters are used elsewhere than in layers of known kinds"
                )

        passes = [SharedPass((term,)) for term in objective.terms.values()]
        self._trace_blocks = _compile_all(_TraceBlock, passes, objective.parameters)

    def traces(self, parameters: Parameters, terms: Terms) -> dict[str, float]:
        """Return ``Tr K_kk = Σ_i ‖∇r_k(z_i)‖²`` of each term."""
        if self._trace_blocks is None:
            return super().traces(parameters, terms)

        theta = parameters.vector()
        traces = {}
        for name, term in terms.items():
            block = self._trace_blocks[(name,)]
            total = 0.0
            alike = replace(term, weight=1.0, point_weights=None, base_weights=None)
            alone = SharedPass((alike,))
            # Blocks weigh a point by 1/N: times N each counts once.
            for points, weights in block.filled(alone):
                (trace,) = block.function(theta, points, weights)
                total += float(trace) * len(term.points)
            traces[name] = total

        return traces

    def sum_of_terms(
        self, parameters: Parameters, terms: Terms
    ) -> tuple[float, Tensor]:
        """Return L(θ) and ∇L(θ) (P,) by one pass for all terms at the same points."""
        loss = parameters.vector().new_zeros(())
        gradient = torch.zeros_like(parameters.vector())
        for shared in passes_of(terms.values()):
            of_pass, gradient_of_pass = self._sum_of_pass(parameters, shared)
            loss += of_pass
            gradient += gradient_of_pass

        return float(loss), gradient

    def term_gradient(self, parameters: Parameters, term: Term) -> LossAndGradient:
        """Return ``L_k`` and ``∇L_k`` (P,) of one term."""
        return self._sum_of_pass(parameters, SharedPass((unweighted(term),)))

    def _sum_of_pass(
        self, parameters: Parameters, shared: SharedPass
    ) -> LossAndGradient:
        """Return the weighted loss of the terms of a pass and its gradient (P,)."""
        theta = parameters.vector()
        loss = theta.new_zeros(())
        gradient = torch.zeros_like(theta)

        names = tuple(term.name for term in shared.terms)
        if names not in self._blocks:
            # Terms that shared their points and do no longer, or the other way round.
            block = _GradientBlock(shared, parameters)
            block.compile()
            self._blocks[names] = block

        block = self._blocks[names]
        for points, weights in block.filled(shared):
            # Blocks weigh a point by w m_i/N: their sums are those of the terms.
            block_gradient, block_loss = block.function(theta, points, weights)
            gradient += block_gradient
            loss += block_loss

        return loss, gradient


def passes_to_compile(objective: Objective, by_term: bool) -> list[SharedPass]:
    """Return the passes of which :class:`Compiled` compiles the gradient."""
    terms = list(objective.terms.values())
    passes = passes_of(terms)
    if by_term and len(passes) < len(terms):
        passes += [SharedPass((term,)) for term in terms]
    return passes


class _Block:
    """A function of the terms of a pass, compiled for a fixed number of weighted points."""

    results: ClassVar[tuple[str, ...]]
    """What the function returns, in words."""

    def __init__(self, shared: SharedPass, parameters: Parameters) -> None:
        self._name = ", ".join(term.name for term in shared.terms)
        if are_samples(shared.points):
            raise NotCompiled(f"term {self._name!r} has samples, not points")

        # Blocks of equal size, rounded up: as few points as possible are filled in.
        n = len(shared.points)
        n_blocks = -(-n // MAX_BLOCK)
        self.size = max(MIN_BLOCK, -(-n // n_blocks))
        self._terms = shared.terms
        self._filled_of: list[Any] = []
        self._filled_weights: list[float] = []
        self._filled: list[PointsAndScales] = []

        self._eager = self._make(shared, parameters)
        # The last block, which has points of weight zero if any has.
        last_points, last_weights = self.filled(shared)[-1]
        self._arguments = parameters.vector(), last_points, last_weights
        self._graph = traced(self._name, self._eager, self._arguments)
        self.function: Any = None

    def _make(self, shared: SharedPass, parameters: Parameters) -> Function:
        """Return the function of θ, points and their weights to compile."""
        raise NotImplementedError

    def compile(self) -> None:
        """Compile the traced graph and compare it with the eager function."""
        self.function = compiled(self._name, self._graph, self._arguments)
        self._check_agrees()

    def _check_agrees(self) -> None:
        """Raise unless both agree at other parameters and points than those traced."""
        theta, points, weights = self._arguments
        # What was traced as a constant by mistake has another value here.
        elsewhere = theta * 1.01, points.flip(0), weights.flip(0)
        pairs = zip(self.function(*elsewhere), self._eager(*elsewhere), strict=True)

        # Compiled code sums in another order: 2e-11 in float64, at most 1e-3 in float32.
        allowed = min(1e5 * torch.finfo(theta.dtype).eps, 1e-3)

        for what, (ours, theirs) in zip(self.results, pairs, strict=True):
            scale = theirs.abs().max().clamp_min(torch.finfo(theirs.dtype).tiny)
            difference = (ours - theirs).detach().abs().max()
            error = float(difference / scale.detach())
            if not error <= allowed:
                raise NotCompiled(
                    f"the compiled {what} of term {self._name!r} differs from the eager one by "
                    f"{error:.1e}"
                )

    def filled(self, shared: SharedPass) -> list[PointsAndScales]:
        """Return the points in blocks with their weights, kept while they are the same."""
        for term, compiled_term in zip(shared.terms, self._terms, strict=True):
            is_same = term.residual is compiled_term.residual
            if not is_same or term.loss != compiled_term.loss:
                raise ValueError(f"term {term.name!r} is not the one that was compiled")

        states = [term_state(term) for term in shared.terms]
        weights = [term.weight for term in shared.terms]
        is_known = bool(self._filled) and weights == self._filled_weights
        for state, known in zip(states, self._filled_of, strict=False):
            is_known = is_known and state.is_same(known)

        if not is_known:
            self._filled = list(self._fill(shared))
            self._filled_of = states
            self._filled_weights = weights
        return self._filled

    def _fill(self, shared: SharedPass) -> Iterator[PointsAndScales]:
        for block in blocks(shared.points, self.size):
            points = locations(block.points)
            missing = self.size - len(points)
            weights = points.new_zeros(self.size, len(shared.terms))
            for k, term in enumerate(shared.terms):
                weights[: len(points), k] = term.scales(block.part)
            # Copies of the first point, of weight zero.
            fill = points[:1].expand(missing, -1)
            yield torch.cat([points, fill]), weights


class _GradientBlock(_Block):
    results = ("gradient", "loss")

    def _make(self, shared: SharedPass, parameters: Parameters) -> Function:
        def loss(theta: Tensor, points: Tensor, weights: Tensor) -> Tensor:
            residuals = shared.residuals(parameters.substituted(theta), points)
            total = weights.new_zeros(())
            for k, (term, residual) in enumerate(
                zip(shared.terms, residuals, strict=True)
            ):
                values = term.loss.value(residual)  # (n, m) to (n,)
                total = total + (values * weights[:, k]).sum()
            return total

        return torch.func.grad_and_value(loss)


class _TraceBlock(_Block):
    results = ("trace",)

    def _make(self, shared: SharedPass, parameters: Parameters) -> Function:
        function = shared.function

        def trace(theta: Tensor, points: Tensor, weights: Tensor) -> tuple[Tensor]:
            # ‖∇r(z_i)‖² of each point, (n,).
            norms = squared_norms(function, parameters, theta, points)
            return ((norms * weights[:, 0]).sum(),)

        return trace


BlockKind = TypeVar("BlockKind", bound=_Block)


def _compile_all(
    kind: type[BlockKind], passes: Sequence[SharedPass], parameters: Parameters
) -> dict[Names, BlockKind]:
    """Return the compiled blocks of every pass, by the names of its terms."""
    made: dict[Names, BlockKind] = {}
    for shared in passes:
        names = tuple(term.name for term in shared.terms)
        if names not in made:
            made[names] = kind(shared, parameters)
    # Only once all are traced, which is quick and may fail: compiling takes long.
    for block in made.values():
        block.compile()
    return made


def traced(name: str, function: Function, arguments: Arguments) -> torch.fx.GraphModule:
    """Return the graph of ``function``; one that draws random numbers is ``NotCompiled``."""
    from torch.fx.experimental.proxy_tensor import make_fx  # slow to import

    try:
        with torch.no_grad():
            # A lambda, as make_fx reads a signature that functions of torch.func lack.
            graph = make_fx(lambda *inputs: function(*inputs))(*arguments)
    except Exception as error:  # user code is traced: anything may be raised
        reason = _first_line(error)
        if "tracing tensor" in reason:
            reason = (
                "it depends on the values of its points, as normals and branches do"
            )
        raise NotCompiled(f"term {name!r} cannot be traced: {reason}") from error

    for node in graph.graph.nodes:
        if torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ()):
            raise NotCompiled(f"the network draws random numbers ({node.target})")
    return graph


def compiled(name: str, graph: torch.fx.GraphModule, arguments: Arguments) -> Function:
    """Return the graph compiled for arguments of these shapes."""
    import torch._inductor  # slow to import

    options = {"triton.cudagraphs": True} if arguments[0].is_cuda else {}
    try:
        with torch.no_grad():
            function = torch._inductor.compile(graph, list(arguments), options=options)
            function(*arguments)  # some errors of the compiler show only now
    except Exception as error:  # a compiler is run: anything may be raised
        raise NotCompiled(
            f"term {name!r} cannot be compiled: {_first_line(error)}"
        ) from error

    return torch.no_grad()(function)


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


@dataclass(frozen=True)
class Work:
    """What training will evaluate: how many gradients, of how many points and parameters."""

    gradients: int
    points: int
    parameters: int
    terms: int

    def pays_for_compilation(self) -> bool:
        """Whether compiling saves more time than it takes; by size alone, so it repeats."""
        step = STEP_SECONDS + POINT_SECONDS * self.points * self.parameters
        saved = self.gradients * step * SHARE_SAVED
        # Twice, so that a guess that is off by two costs nothing.
        return saved > 2 * COMPILATION_SECONDS * self.terms
