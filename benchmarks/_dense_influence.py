"""Influences written out: dense, from gradients that ``torch.autograd`` takes one by one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor


def dense_influence(
    parameters: Sequence[Tensor],
    residuals: Mapping[str, Tensor],
    weights: Mapping[str, float],
    outputs: Iterable[Tensor],
    relative_damping: float,
) -> Tensor:
    """Return ``(w/N) ∇fᵀ (A + λI)⁻¹ ∇ℓ`` for each output f (scalars) and each point, in order.

    Residuals (N, m) by term and outputs are tensors of one graph of the parameters; λ is relative
    to the largest eigenvalue of A, the Gauss-Newton matrix.
    """

    def gradient(value: Tensor) -> Tensor:
        parts = torch.autograd.grad(
            value, parameters, retain_graph=True, allow_unused=True,
            materialize_grads=True,
        )  # fmt: skip
        return torch.cat([part.reshape(-1) for part in parts])

    # ℓ = Σ_m r_m² of each point: ∇ℓ = Σ_m 2 r_m ∇r_m, and A = Σ_k w/N Σ_i Σ_m 2 ∇r_m ∇r_mᵀ.
    loss_gradients = []
    roots = []
    for name, residual in residuals.items():
        scale = weights[name] / len(residual)
        for point in residual:
            total = torch.zeros(())
            for r in point.reshape(-1):
                row = gradient(r)
                roots.append((2 * scale) ** 0.5 * row)
                total = total + 2 * r.detach() * row
            loss_gradients.append(scale * total)

    effects = torch.stack(loss_gradients).T  # (P, N)
    targets = torch.stack([gradient(value) for value in outputs])

    # (A + λI)⁻¹ x = x/λ + V (1/(s² + λ) − 1/λ) Vᵀx, where A = GᵀG and G = U s Vᵀ.
    _, s, vh = torch.linalg.svd(torch.stack(roots), full_matrices=False)
    damping = relative_damping * s.square().max()
    inner = (1 / (s.square() + damping) - 1 / damping)[:, None] * (vh @ effects)
    return targets @ (effects / damping + vh.T @ inner)


def relative_error(value: Tensor, reference: Tensor) -> float:
    """Return the largest difference by the largest entry of the reference."""
    return float((value - reference).abs().max() / reference.abs().max())
