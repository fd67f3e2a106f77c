"""How L(θ), ∇L(θ) and what weightings ask of the terms are computed.

An objective has an evaluator: :class:`Eager` unless another is given. :class:`Remembering` keeps
the terms' gradients for the parameters and points at which they were made, so that a weighting
and the step that follows make them once; :class:`whence.compilation.Compiled` does the same by
compiled code. All go through the points in blocks, so memory does not grow with their number.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from whence.linearization import linearize
from whence.parameters import Parameters
from whence.points import (
    MAX_EVALUATED,
    Points,
    blocks,
    evaluated_at_once,
    linearized_at_once,
)
from whence.shared_pass import SharedPass, passes_of
from whence.term import Term

Terms = Mapping[str, Term]
LossAndGradient = tuple[Tensor, Tensor]
"""A term's loss ``(1/N) Σ_i m_i ℓ(z_i)`` and its gradient (P,), without the term's weight."""


class Evaluator(Protocol):
    """Computes losses and gradients of weighted terms at the network's parameters."""

    def loss_and_gradient(
        self, parameters: Parameters, terms: Terms
    ) -> tuple[float, Tensor]:
        """Return L(θ) and ∇L(θ), shape (P,)."""

    def term_losses(self, parameters: Parameters, terms: Terms) -> dict[str, float]:
        """Return ``L_k = (1/N_k) Σ_i m_i ℓ_k(z_i)`` of each term, without its weight w_k."""

    def term_gradients(
        self, parameters: Parameters, terms: Terms
    ) -> dict[str, LossAndGradient]:
        """Return ``L_k`` and ``∇L_k`` (P,) of each term, without its weight w_k."""

    def traces(self, parameters: Parameters, terms: Terms) -> dict[str, float]:
        """Return ``Tr K_kk = Σ_i ‖∇r_k(z_i)‖²`` of each term."""


class Eager:
    """Computes everything when it is asked for, by PyTorch as it is."""

    def loss_and_gradient(
        self, parameters: Parameters, terms: Terms
    ) -> tuple[float, Tensor]:
        """Return L(θ) and ∇L(θ), shape (P,): a backward pass for every few thousand points."""
        return self.sum_of_terms(parameters, terms)

    def sum_of_terms(
        self, parameters: Parameters, terms: Terms
    ) -> tuple[float, Tensor]:
        """Return L(θ) and ∇L(θ) (P,) by one pass for all terms at the same points."""
        loss, gradient = _sum_over(_portions(terms), parameters)
        return float(loss), gradient

    def term_losses(self, parameters: Parameters, terms: Terms) -> dict[str, float]:
        """Return ``L_k = (1/N_k) Σ_i m_i ℓ_k(z_i)`` of each term, without its weight w_k."""
        tensors = parameters.tensors()
        totals = dict.fromkeys(terms, 0.0)

        for shared in passes_of(terms.values()):
            size = evaluated_at_once(shared.points, tensors)
            for block in blocks(shared.points, size):
                with torch.no_grad():
                    residuals = shared.residuals(tensors, block.points)  # r, (n, m)
                for term, residual in zip(shared.terms, residuals, strict=True):
                    values = term.value(residual, block.points)  # ℓ, (n,)
                    weights = term.total_weights
                    if weights is not None:
                        values = values * weights[block.part]
                    totals[term.name] += float(values.sum())

        # 1/N of the whole term, not of the block.
        return {name: total / len(terms[name].points) for name, total in totals.items()}

    def term_gradients(
        self, parameters: Parameters, terms: Terms
    ) -> dict[str, LossAndGradient]:
        """Return ``L_k`` and ``∇L_k`` (P,) of each term, without its weight w_k."""
        gradients = {}
        for name, term in terms.items():
            gradients[name] = self.term_gradient(parameters, term)
        return gradients

    def term_gradient(self, parameters: Parameters, term: Term) -> LossAndGradient:
        """Return ``L_k`` and ``∇L_k`` (P,) of one term."""
        portions = _portions({term.name: unweighted(term)})
        return _sum_over(portions, parameters)

    def traces(self, parameters: Parameters, terms: Terms) -> dict[str, float]:
        """Return ``Tr K_kk = Σ_i ‖∇r_k(z_i)‖²`` of each term."""
        traces = {}
        for name, term in terms.items():
            size = linearized_at_once(term.points, parameters.size)
            total = 0.0
            for block in blocks(term.points, size):
                linear = linearize(term.residual, parameters, block.points)
                # Σ_i ‖J_i‖_F², a component of the residual at a time.
                for cotangent in unit_cotangents(linear.value):
                    total += float(linear.squared_norms(cotangent).sum())

            traces[name] = total

        return traces


class Remembering(Eager):
    """As :class:`Eager`, by the gradients of single terms, which are kept for the last θ."""

    def __init__(self) -> None:
        self._theta: Tensor | None = None
        self._states: dict[str, _TermState] = {}
        self._gradients: dict[str, LossAndGradient] = {}

    def loss_and_gradient(
        self, parameters: Parameters, terms: Terms
    ) -> tuple[float, Tensor]:
        """Return L(θ) and ∇L(θ), shape (P,), as the weighted sum of those of the terms.

        Where terms share a pass and none of their gradients is known, it is one backward pass.
        """
        is_shared = len(passes_of(terms.values())) < len(terms)
        if is_shared and not self._known(parameters, terms):
            return self.sum_of_terms(parameters, terms)

        loss = 0.0
        gradient = parameters.vector().zero_()
        term_gradients = self.term_gradients(parameters, terms)

        # ∇L = Σ_k w_k ∇L_k, added in place: what is kept stays as it is.
        for name, (term_loss, term_gradient) in term_gradients.items():
            weight = terms[name].weight
            gradient.add_(term_gradient, alpha=weight)
            loss += weight * float(term_loss)

        return loss, gradient

    def term_losses(self, parameters: Parameters, terms: Terms) -> dict[str, float]:
        """Return ``L_k``, from the gradients that the next step will need anyway."""
        gradients = self.term_gradients(parameters, terms)
        return {name: float(loss) for name, (loss, _) in gradients.items()}

    def term_gradients(
        self, parameters: Parameters, terms: Terms
    ) -> dict[str, LossAndGradient]:
        """Return ``L_k`` and ``∇L_k`` of each term; later calls do not change them."""
        known = self._known(parameters, terms)
        for name, term in terms.items():
            if name not in known:
                self._states[name] = _TermState.of(term)
                self._gradients[name] = self.term_gradient(parameters, term)

        return {name: self._gradients[name] for name in terms}

    def _known(self, parameters: Parameters, terms: Terms) -> set[str]:
        """Return the terms whose gradients are known; those of another θ are forgotten."""
        theta = parameters.vector()
        # By value: the parameters are changed in place, and may have been put back.
        if self._theta is None or not torch.equal(theta, self._theta):
            self._theta = theta
            self._states = {}
            self._gradients = {}

        known = set()
        for name, term in terms.items():
            state = self._states.get(name)
            if state is not None and state.is_same(_TermState.of(term)):
                known.add(name)
        return known


@dataclass(frozen=True, eq=False)
class _TermState:
    """What a term's loss depends on apart from θ and the term's weight."""

    parts: tuple[object, ...]
    versions: tuple[int, ...]
    """How often the tensors among the parts have been changed in place."""

    @classmethod
    def of(cls, term: Term) -> _TermState:
        """Return the state of a term now."""
        parts = (
            term.points,
            term.point_weights,
            term.base_weights,
            term.residual,
            term.loss,
        )
        versions = [part._version for part in parts if isinstance(part, Tensor)]
        return cls(parts, tuple(versions))

    def is_same(self, other: _TermState) -> bool:
        """Whether nothing changed: by identity, as to compare points would cost a pass."""
        if self.versions != other.versions:
            return False
        pairs = zip(self.parts, other.parts, strict=True)
        return all(mine is theirs for mine, theirs in pairs)


def term_state(term: Term) -> _TermState:
    """Return what a term's loss depends on; ``is_same`` tells whether anything changed."""
    return _TermState.of(term)


def unweighted(term: Term) -> Term:
    """Return the same term with the weight 1; weights of its points stay."""
    return replace(term, weight=1.0)


def unit_cotangents(value: Tensor) -> Iterator[Tensor]:
    """Yield for each column of ``value`` (n, m) the cotangent that picks it, (n, m)."""
    for k in range(value.shape[1]):
        cotangent = torch.zeros_like(value)
        cotangent[:, k] = 1.0
        yield cotangent


Portion = list[tuple[SharedPass, Points, list[float | Tensor]]]
"""Some points of some passes, with the factor in front of each point's loss for each term."""


def _sum_over(portions: Iterable[Portion], parameters: Parameters) -> LossAndGradient:
    """Return the sum of weighted losses over portions and its gradient."""
    live = parameters.live()
    chosen = [live[name] for name in parameters.names]
    total: Tensor | None = None
    gradient: Tensor | None = None

    for portion in portions:
        with torch.enable_grad():
            losses = []
            for shared, points, scales in portion:
                residuals = shared.residuals(live, points)
                for term, residual, scale in zip(
                    shared.terms, residuals, scales, strict=True
                ):
                    value = term.value(residual, points)  # ℓ, (n,)
                    losses.append(_scaled_sum(value, scale))

            loss = torch.stack(losses).sum()

        # What no residual reaches, such as the last bias under ∂/∂x, has the gradient zero.
        grads = torch.autograd.grad(
            loss, chosen, allow_unused=True, materialize_grads=True
        )
        # Of embeddings with sparse gradients they are sparse.
        dense = [grad.to_dense() if grad.is_sparse else grad for grad in grads]
        flat = torch.cat([grad.reshape(-1) for grad in dense])  # (P,)
        loss = loss.detach()

        total = loss if total is None else total + loss
        gradient = flat if gradient is None else gradient + flat

    assert total is not None
    assert gradient is not None
    return total, gradient


def _scaled_sum(values: Tensor, scale: float | Tensor) -> Tensor:
    if isinstance(scale, Tensor):
        return (values * scale).sum()
    # One number for all points: multiplied once, after the sum.
    return values.sum() * scale


def _portions(terms: Terms) -> Iterator[Portion]:
    """Yield the terms' points in portions of at most as many as are evaluated at once.

    Small terms share a portion, and so a backward pass; terms at the same points share the pass
    through the network, in which these count once.
    """
    sizes = [evaluated_at_once(term.points) for term in terms.values()]
    most = min(MAX_EVALUATED, *sizes)

    portion: Portion = []
    room = most

    for shared in passes_of(terms.values()):
        start = 0
        n = len(shared.points)
        # A term that does not fit fills up the portion, and goes on in the next.
        while n - start > room:
            if room:
                portion.append(_piece(shared, slice(start, start + room)))
            yield portion
            portion = []
            start += room
            room = most

        portion.append(_piece(shared, slice(start, n)))
        room -= n - start

    yield portion


def _piece(
    shared: SharedPass, part: slice
) -> tuple[SharedPass, Points, list[float | Tensor]]:
    """Return a part of the points with the scales of each term's losses there."""
    scales = [term.scales(part) for term in shared.terms]
    return shared, shared.points[part], scales
