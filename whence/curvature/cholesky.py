"""Cholesky factors of matrices as large as memory allows: without copies of them."""

from __future__ import annotations

import torch
from torch import Tensor


def factor_in_place(matrix: Tensor) -> tuple[Tensor, bool]:
    """Return the lower Cholesky factor of a symmetric matrix, in its place, and whether it is one.

    Examples
    --------
    >>> import torch
    >>> from whence.curvature.cholesky import factor_in_place
    >>> factor_in_place(torch.tensor([[4.0, 2.0], [2.0, 5.0]]))
    (tensor([[2., 0.],
            [1., 2.]]), True)
    """
    info = torch.zeros((), dtype=torch.int32, device=matrix.device)

    # LAPACK wants columns one after another: rows would be copied to such, and back.
    by_columns = matrix.mT
    factor, info = torch.linalg.cholesky_ex(by_columns, out=(by_columns, info))
    return factor, not bool(info)


def solve_factored(factor: Tensor, right: Tensor) -> Tensor:
    """Return ``(LLᵀ)⁻¹ B`` without the copy of L that ``torch.cholesky_solve`` makes.

    Examples
    --------
    >>> import torch
    >>> from whence.curvature.cholesky import solve_factored
    >>> factor = torch.tensor([[2.0, 0.0], [1.0, 2.0]])
    >>> solve_factored(factor, torch.tensor([[8.0], [12.0]]))
    tensor([[1.],
            [2.]])
    """
    inner = torch.linalg.solve_triangular(factor, right, upper=False)
    return torch.linalg.solve_triangular(factor.mT, inner, upper=True)
