"""Weights from the terms' gradients and their neural tangent kernels."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from whence import _checks
from whence.pinn.weighting.measured import Measured
from whence.pinn.weighting.weighting import (
    Weighting,
    Weights,
    averaged,
    check_names,
    check_share,
)


def _over(total: float, value: float) -> float:
    return total / value if value else math.inf


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
        Share α of the former weights, a float in [0, 1].
    update_every:
        Steps between two updates.
    estimate:
        ``"trace"``, ``"mean_trace"`` or ``"gradient_norm"``.

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

    @property
    def reads_traces(self) -> bool:
        """Whether traces of the kernel are asked for, which may be worth compiling."""
        return self.estimate != "gradient_norm"

    def _check_options(self) -> None:
        check_share("alpha", self.alpha)
        _checks.one_of(
            "estimate", self.estimate, ("trace", "mean_trace", "gradient_norm")
        )

    def _renewed(self, terms: Measured) -> Weights:
        if self.estimate == "gradient_norm":
            sizes = {name: float(g.norm()) for name, g in terms.gradients().items()}
            total = sum(sizes.values())
            now = {
                name: size / total if total else math.inf
                for name, size in sizes.items()
            }
        else:
            traces = terms.traces()
            if self.estimate == "mean_trace":
                counts = terms.counts()
                traces = {name: trace / counts[name] for name, trace in traces.items()}
            total = sum(traces.values())
            now = {name: _over(total, trace) for name, trace in traces.items()}
        return averaged(self.alpha, self.weights, now)


@dataclass(eq=False)
class GradientNorm(Weighting):
    """Weights that make the gradients of all terms equally long.

    ``λ_k = mean_j ‖∇L_j‖ / (‖∇L_k‖ + 1e-5 · mean_j ‖∇L_j‖)``, averaged over time by ``w_k ←
    momentum·w_k + (1 − momentum)·λ_k`` (jaxpi, Wang et al., arXiv 2308.08468, section 5.2).

    Parameters
    ----------
    momentum:
        Share of the former weights, a float in [0, 1].
    update_every:
        Steps between two updates.
    """

    momentum: float = 0.9
    update_every: int = 100

    def _check_options(self) -> None:
        check_share("momentum", self.momentum)

    def _renewed(self, terms: Measured) -> Weights:
        sizes = {name: float(g.norm()) for name, g in terms.gradients().items()}
        mean = sum(sizes.values()) / len(sizes)
        now = {name: _over(mean, size + 1e-5 * mean) for name, size in sizes.items()}
        return averaged(self.momentum, self.weights, now)


@dataclass(eq=False)
class LearningRateAnnealing(Weighting):
    """Weights that bring other terms' gradients to the size of the largest of one term's.

    ``λ_k = max|∇L_ref| / mean|∇L_k|``, entries of the gradients by size, and ``w_k ← (1 − α)·w_k +
    α·λ_k``; the reference term weighs 1 (Wang, Teng & Perdikaris 2021, doi 10.1137/20M1318043,
    algorithm 1).

    Parameters
    ----------
    alpha:
        Share of the new weights, a float in [0, 1].
    update_every:
        Steps between two updates.
    reference:
        The term to be equal to; by default the first, an equation's.
    """

    alpha: float = 0.1
    update_every: int = 10
    reference: str | None = None

    def _check_options(self) -> None:
        check_share("alpha", self.alpha)

    def _check_terms(self, terms: Measured) -> None:
        if self.reference is not None:
            check_names("reference", [self.reference], terms.names)

    def _renewed(self, terms: Measured) -> Weights:
        gradients = {name: g.abs() for name, g in terms.gradients().items()}
        reference = self.reference or terms.names[0]
        largest = float(gradients[reference].max())
        now = {name: _over(largest, float(g.mean())) for name, g in gradients.items()}
        return averaged(1 - self.alpha, self.weights, now) | {reference: 1.0}
