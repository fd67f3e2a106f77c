"""Weights from the terms' gradients and their neural tangent kernels."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from whence import _checks
from whence.catalogue import LATER, WEIGHTINGS
from whence.pinn.weighting.base import (
    Weighting,
    Weights,
    check_names,
    check_share,
    smoothed,
)
from whence.pinn.weighting.term_statistics import TermStatistics

ESTIMATES = ("trace", "mean_trace", "gradient_norm")
STABILIZER = 1e-5
"""Share of the mean gradient norm that is added to each, as in jaxpi."""


@WEIGHTINGS.named("ntk")
@dataclass(eq=False)
class NeuralTangentKernel(Weighting):
    """Weights from the neural tangent kernel ``K = J Jᵀ``, so that all terms train equally fast.

    ``w_k ← α·w_k + (1 − α)·λ_k``, from w = 1. With ``estimate="trace"``

        ``λ_k = Σ_j Tr K_jj / Tr K_kk``,  ``Tr K_kk = Σ_i ‖∇r_k(z_i)‖²``

    (Wang, Yu & Perdikaris 2022, doi 10.1016/j.jcp.2021.110768, eq. 6.5), exactly and without the
    rows of J. ``"mean_trace"`` takes ``Tr K_kk / N_k`` for ``Tr K_kk``, so that a term with few
    points weighs no more for it (as jaxpi does, arXiv 2308.08468). ``"gradient_norm"`` is
    ``λ_k = ‖∇L_k‖ / Σ_j ‖∇L_j‖``, what PINA ships under this name: it points the other way, as
    terms with large gradients weigh more.

    Parameters
    ----------
    alpha:
        Smoothing factor α in [0, 1]: weight given to the previous weights.
    update_every:
        Steps between two updates.
    estimate:
        ``"trace"``, ``"mean_trace"`` or ``"gradient_norm"``.
    once:
        Whether the first update's λ_k, unsmoothed, are the weights throughout. With
        ``"mean_trace"`` they scale the equations: ``w_k`` is in proportion to one over the mean of
        ``‖∇r_k‖²`` over the residuals of term k, so that all are of one size in the parameters.

    Examples
    --------
    >>> import torch
    >>> from whence import pinn
    >>> theta = torch.tensor([1.0, 2.0], requires_grad=True)
    >>> residuals = {"pde": 3 * theta, "initial": theta[:1]}     # traces 9 + 9 and 1
    >>> pinn.NeuralTangentKernel(alpha=0.0).update(residuals, [theta])["initial"]
    19.0
    """

    alpha: float = 0.5
    update_every: int = 1
    estimate: Literal["trace", "mean_trace", "gradient_norm"] = "trace"
    once: bool = field(default=False, metadata=LATER)

    @property
    def reads_traces(self) -> bool:
        """Whether traces of the kernel are asked for, which may be worth compiling."""
        return self.estimate != "gradient_norm"

    def check_options(self) -> None:
        """Raise ``ValueError`` for an option that is wrong."""
        check_share("alpha", self.alpha)
        _checks.one_of("estimate", self.estimate, ESTIMATES)
        _checks.boolean("once", self.once)

    def renew_weights(self, terms: TermStatistics) -> Weights:
        """Return smoothed weights from the present estimate, or those of the first one."""
        if self.once and self.weights:
            return self.weights

        if self.estimate == "gradient_norm":
            new = self._by_gradients(terms)
        else:
            new = self._by_traces(terms)

        # What is never renewed has no past to be mixed with, such as weights of 1.
        alpha = 0.0 if self.once else self.alpha
        return smoothed(alpha, self.weights, new)

    def _by_gradients(self, terms: TermStatistics) -> dict[str, float]:
        """Return ``λ_k = ‖∇L_k‖ / Σ_j ‖∇L_j‖``."""
        norms = gradient_norms(terms)
        total = sum(norms.values())
        return {name: _ratio(norm, total) for name, norm in norms.items()}

    def _by_traces(self, terms: TermStatistics) -> dict[str, float]:
        """Return ``λ_k = Σ_j Tr K_jj / Tr K_kk``, of mean traces if those are chosen."""
        traces = terms.traces()
        if self.estimate == "mean_trace":
            counts = terms.counts()
            traces = {name: trace / counts[name] for name, trace in traces.items()}

        total = sum(traces.values())
        return {name: _ratio(total, trace) for name, trace in traces.items()}


@WEIGHTINGS.named("gradient_norm")
@dataclass(eq=False)
class GradientNorm(Weighting):
    """Weights that make the gradients of all terms equally long.

    ``λ_k = mean_j ‖∇L_j‖ / (‖∇L_k‖ + 1e-5 · mean_j ‖∇L_j‖)``, averaged over time by ``w_k ←
    momentum·w_k + (1 − momentum)·λ_k`` (jaxpi, Wang et al., arXiv 2308.08468, section 5.2).

    Parameters
    ----------
    momentum:
        Smoothing factor in [0, 1]: weight given to the previous weights.
    update_every:
        Steps between two updates.
    """

    momentum: float = 0.9
    update_every: int = 100

    def check_options(self) -> None:
        """Raise ``ValueError`` for an option that is wrong."""
        check_share("momentum", self.momentum)

    def renew_weights(self, terms: TermStatistics) -> Weights:
        """Return smoothed weights from the present gradients."""
        norms = gradient_norms(terms)
        mean = sum(norms.values()) / len(norms)

        # λ_k = mean_j ‖∇L_j‖ / (‖∇L_k‖ + 1e-5·mean_j ‖∇L_j‖), at most 1e5.
        new = {}
        for name, norm in norms.items():
            new[name] = _ratio(mean, norm + STABILIZER * mean)
        return smoothed(self.momentum, self.weights, new)


@WEIGHTINGS.named("learning_rate_annealing")
@dataclass(eq=False)
class LearningRateAnnealing(Weighting):
    """Weights that bring other terms' gradients to the size of the largest of one term's.

    ``λ_k = max|∇L_ref| / mean|∇L_k|``, entries of the gradients by size, and ``w_k ← (1 − α)·w_k +
    α·λ_k``; the reference term weighs 1 (Wang, Teng & Perdikaris 2021, doi 10.1137/20M1318043,
    algorithm 1).

    Parameters
    ----------
    alpha:
        Smoothing factor α in [0, 1]: weight given to the *new* weights, as in the paper.
    update_every:
        Steps between two updates.
    reference:
        The term to be equal to; by default the first, an equation's.
    """

    alpha: float = 0.1
    update_every: int = 10
    reference: str | None = None

    def check_options(self) -> None:
        """Raise ``ValueError`` for an option that is wrong."""
        check_share("alpha", self.alpha)
        if self.reference is not None and not isinstance(self.reference, str):
            raise TypeError(
                f"reference must be the name of a term, got {self.reference!r}"
            )

    def check_terms(self, terms: TermStatistics) -> None:
        """Raise ``ValueError`` if there is no such reference."""
        if self.reference is not None:
            check_names("reference", [self.reference], terms.names)

    def renew_weights(self, terms: TermStatistics) -> Weights:
        """Return smoothed weights from the present gradients."""
        sizes = {name: gradient.abs() for name, gradient in terms.gradients().items()}
        reference = self.reference or terms.names[0]
        largest = float(sizes[reference].max())  # max|∇L_ref|

        new = {}
        for name, size in sizes.items():
            new[name] = _ratio(largest, float(size.mean()))  # over mean|∇L_k|

        # α is the share of the new weights here, that of the previous ones elsewhere.
        weights = smoothed(1 - self.alpha, self.weights, new)
        weights[reference] = 1.0
        return weights


def gradient_norms(terms: TermStatistics) -> dict[str, float]:
    """Return ``‖∇L_k‖`` of each term."""
    norms = {}
    for name, gradient in terms.gradients().items():
        norms[name] = float(gradient.norm())
    return norms


def _ratio(numerator: float, denominator: float) -> float:
    """Return the ratio, infinite where the denominator vanishes."""
    if denominator == 0:
        return math.inf
    return numerator / denominator
