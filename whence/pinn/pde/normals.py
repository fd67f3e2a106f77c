"""Outward normals of a boundary, under torch's transforms too."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from whence.pinn.geometry.boundary import Part


class _Normals(torch.autograd.Function):
    """Normals as constants of the points, found by NumPy also inside ``vmap``."""

    @staticmethod
    def forward(points: Tensor, part: Part, tolerance: float) -> Tensor:
        return part.normals(points, tolerance)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.mark_non_differentiable(output)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, None, None]:
        return None, None, None

    @staticmethod
    def vmap(
        info: Any,
        in_dims: tuple[Any, ...],
        points: Tensor,
        part: Part,
        tolerance: float,
    ) -> tuple[Tensor, int]:
        # (batch, n, d) or (batch, d) as rows (·, d): a normal depends on its own point alone.
        batch = points.movedim(in_dims[0], 0)
        rows = batch.reshape(-1, batch.shape[-1])
        flat = normals_at(part, rows, tolerance)
        return flat.reshape(batch.shape), 0


def normals_at(part: Part, points: Tensor, tolerance: float) -> Tensor:
    """Return ``part.normals(points, tolerance)``, shape (n, d), under torch's transforms too."""
    normals: Tensor = _Normals.apply(points, part, tolerance)  # type: ignore[no-untyped-call]
    return normals
