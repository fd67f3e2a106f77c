"""Cholesky factors of ``JJᵀ + λI`` for a λ that may be far below the kernel's rounding."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property

import torch
from torch import Tensor

from whence.curvature.cholesky import factor_in_place, solve_factored
from whence.curvature.failures import undamped
from whence.curvature.lanczos import largest_eigenvalue
from whence.curvature.solvers import Damping
from whence.ntk import TangentKernel
from whence.symmetric_products import add_self_product, mirror, self_product

BLOCK = 1024
"""Columns of ``L⁻¹`` that are made at once."""


class KernelFactor:
    """``JJᵀ + λI = L S Lᵀ``: Cholesky done twice, as in Cholesky QR.

    The Cholesky factor L of the kernel carries its rounding, relative to λ; of ``L⁻¹J``, whose rows
    are nearly orthonormal, the same once more has none to speak of (Yamamoto et al. 2015, doi
    10.1007/s11075-014-9941-x). So errors grow with λ^−½, not with λ^−1.

    Solutions are products with ``W = L⁻¹J``, made once: of the rounding of ``JV`` itself,
    ``(JJᵀ + λI)⁻¹`` would make much.

    Parameters
    ----------
    kernel:
        J and its products.
    first:
        L, (R, R).
    damping:
        λ.

    Examples
    --------
    >>> import torch
    >>> from whence import pinn
    >>> from whence.curvature.kernel_factor import KernelFactor
    >>> from whence.ntk import TangentKernel
    >>> problem = pinn.zoo.load("wave")
    >>> kernel = TangentKernel(problem.objective(problem.network(seed=0), problem.sample(8)))
    >>> damped = kernel.gram + 1e-3 * torch.eye(8)
    >>> factor = KernelFactor(kernel, torch.linalg.cholesky(damped), 1e-3)
    >>> images = factor.solve_images(kernel.dense().T)
    >>> torch.allclose(damped @ images, kernel.gram)
    True
    """

    def __init__(self, kernel: TangentKernel, first: Tensor, damping: float) -> None:
        self._kernel = kernel
        self._first = first
        self._damping = damping

    def solve_images(self, vectors: Tensor) -> Tensor:
        """Return ``(JJᵀ + λI)⁻¹JV``: (P, K) to (R, K)."""
        # L⁻ᵀ S⁻¹ L⁻¹ J V = L⁻ᵀ S⁻¹ W V
        inner = solve_factored(self._second, self._white @ vectors)
        return torch.linalg.solve_triangular(self._first.mT, inner, upper=True)

    def solve_rows(self) -> tuple[Tensor, Tensor]:
        """Return ``Jᵀ(JJᵀ + λI)⁻¹`` as a basis (P, R) and coefficients (R, R)."""
        first = self._first
        eye = torch.eye(len(first), dtype=first.dtype, device=first.device)
        inverse = torch.linalg.solve_triangular(first, eye, upper=False)

        # Jᵀ L⁻ᵀ S⁻¹ L⁻¹ = Wᵀ (S⁻¹ L⁻¹)
        coefficients = solve_factored(self._second, inverse)
        return self._white.T, coefficients

    @cached_property
    def _white(self) -> Tensor:
        """``W = L⁻¹J``, (R, P)."""
        rows = self._kernel.dense()
        return torch.linalg.solve_triangular(self._first, rows, upper=False)

    @cached_property
    def _second(self) -> Tensor:
        """The Cholesky factor of S, (R, R)."""
        # S = L⁻¹(JJᵀ + λI)L⁻ᵀ = WWᵀ + λNNᵀ with N = L⁻¹: the identity but for L's rounding
        second = self_product(self._white)
        for start, inverse in self._inverse_columns():
            part = second[start:, start:]
            add_self_product(part, self._damping**0.5 * inverse.T)

        mirror(second)
        factor, _ = factor_in_place(second)
        return factor

    def _inverse_columns(self) -> Iterator[tuple[int, Tensor]]:
        """Yield columns of ``L⁻¹`` from their first nonzero row on, and which row that is."""
        size = len(self._first)
        for start in range(0, size, BLOCK):
            below = self._first[start:, start:]
            eye = torch.eye(
                size - start,
                min(BLOCK, size - start),
                dtype=below.dtype,
                device=below.device,
            )
            yield start, torch.linalg.solve_triangular(below, eye, upper=False)


def resolved_for_kernel(
    damping: Damping, gram: Tensor, largest: float | None = None
) -> tuple[float, float]:
    """Return the absolute λ of ``K + λI`` and K's largest eigenvalue, found unless it is known.

    Raises
    ------
    SingularSystem
        If λ is zero: K has rows that say the same.
    """
    if largest is None:
        largest = largest_eigenvalue(lambda v: gram @ v, len(gram), gram)

    absolute = damping.resolve(largest)
    if absolute == 0:
        raise undamped(
            "the dual form",
            "without it, directions that no training point constrains have no answer",
        )
    return absolute, largest
