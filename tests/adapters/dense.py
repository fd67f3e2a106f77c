"""Influences written out: dense, from gradients that ``torch.autograd`` takes one by one."""

import torch


def dense_influence(parameters, residuals, weights, outputs, relative_damping):
    """Return ``(w/N) ∇fᵀ (A + λI)⁻¹ ∇ℓ``, λ relative to the largest eigenvalue of A."""

    def gradient(value):
        parts = torch.autograd.grad(
            value, parameters, retain_graph=True, allow_unused=True,
            materialize_grads=True,
        )  # fmt: skip
        return torch.cat([part.reshape(-1) for part in parts])

    curvature = 0
    loss_gradients = []
    for name, residual in residuals.items():
        scale = weights[name] / len(residual)
        for point in residual:
            total = 0
            for r in point.reshape(-1):
                row = gradient(r)
                curvature = curvature + 2 * scale * torch.outer(row, row)
                total = total + 2 * r.detach() * row
            loss_gradients.append(scale * total)

    damping = relative_damping * torch.linalg.eigvalsh(curvature)[-1]
    damped = curvature + damping * torch.eye(len(curvature))
    targets = torch.stack([gradient(value) for value in outputs])
    return targets @ torch.linalg.solve(damped, torch.stack(loss_gradients).T)


def assert_same(value, reference, tolerance):
    value = torch.as_tensor(value)
    scale = reference.abs().max()
    assert scale > 0
    error = float((value - reference).abs().max() / scale)
    assert error < tolerance, error
