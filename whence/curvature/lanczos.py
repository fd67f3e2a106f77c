"""Eigenvalues at the ends of a symmetric operator's spectrum, from products alone.

Lanczos's iteration, by ARPACK; how it works stands beside the call. What is not Lanczos is not
here: the random sketch of :class:`whence.Nystrom` is one product with many vectors.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from whence.curvature.failures import check_finite

Product = Callable[[Tensor], Tensor]
"""``v ↦ A v``, (n,) to (n,)."""

Eigenpairs = tuple[Tensor, Tensor]
"""Eigenvectors (n, k) and eigenvalues (k,)."""


def largest_eigenvalue(
    product: Product, size: int, like: Tensor, tolerance: float = 0.0
) -> float:
    """Return the largest eigenvalue of a symmetric operator.

    Parameters
    ----------
    product:
        ``v ↦ A v``.
    size:
        n, the length of v.
    like:
        A tensor of the dtype and on the device of v.
    tolerance:
        Relative to the eigenvalue; zero for all digits.

    Raises
    ------
    ValueError
        If a product is not finite.

    Examples
    --------
    >>> import torch
    >>> from whence.curvature.lanczos import largest_eigenvalue
    >>> diagonal = torch.linspace(-5.0, 4.0, 100, dtype=torch.float64)
    >>> round(largest_eigenvalue(lambda v: diagonal * v, 100, diagonal), 9)
    4.0
    """
    operator = _Operator(product, size, like)
    values, _ = _lanczos(operator, 1, "LA", tolerance, vectors=False)
    return float(values[0])


def smallest_eigenvalue(
    product: Product, size: int, like: Tensor, largest: float, tolerance: float
) -> float:
    """Return the smallest eigenvalue of a symmetric operator whose largest is known.

    Parameters
    ----------
    product, size, like:
        As in :func:`largest_eigenvalue`.
    largest:
        That eigenvalue.
    tolerance:
        Relative to the width of the spectrum, from the smallest to the largest eigenvalue.

    Examples
    --------
    >>> import torch
    >>> from whence.curvature.lanczos import smallest_eigenvalue
    >>> diagonal = torch.linspace(-5.0, 4.0, 100, dtype=torch.float64)
    >>> round(smallest_eigenvalue(lambda v: diagonal * v, 100, diagonal, 4.0, 1e-12), 9)
    -5.0
    """

    # The smallest eigenvalue of A is the largest one of largest·I − A, taken from it: an end of
    # the spectrum to which others may crowd is found to a share of the whole width.
    def flipped(vector: Tensor) -> Tensor:
        return largest * vector - product(vector)

    width = largest_eigenvalue(flipped, size, like, tolerance)
    return largest - width


def largest_eigenvalues(
    product: Product, size: int, like: Tensor, count: int, tolerance: float = 0.0
) -> Tensor:
    """Return the ``count`` largest eigenvalues (count,) of a symmetric operator, falling."""
    operator = _Operator(product, size, like)
    values, _ = _lanczos(operator, count, "LA", tolerance, vectors=False)
    return torch.as_tensor(values).to(like)


def dominant_eigenpairs(
    product: Product, size: int, like: Tensor, count: int
) -> Eigenpairs:
    """Return the ``count`` eigenpairs of largest magnitude, that first, to all digits.

    Eigenvectors are (n, count), one a column.
    """
    operator = _Operator(product, size, like)
    values, basis = _lanczos(operator, count, "LM", 0.0, vectors=True)
    return torch.as_tensor(basis).to(like), torch.as_tensor(values).to(like)


class _Operator:
    """``v ↦ A v`` for NumPy, which remembers whether all its products were zero."""

    def __init__(self, product: Product, size: int, like: Tensor) -> None:
        self._product = product
        self._like = like
        self.size = size
        self.is_zero = True

    def __call__(self, vector: np.ndarray) -> np.ndarray:
        like = self._like
        column = torch.as_tensor(vector.ravel(), dtype=like.dtype, device=like.device)
        image = self._product(column)

        image = image.cpu().double()
        check_finite(image)

        array: np.ndarray = image.numpy()
        self.is_zero = self.is_zero and not array.any()
        return array

    def dense(self) -> np.ndarray:
        """Return A, (n, n), column by column."""
        columns = [self(unit) for unit in np.eye(self.size)]
        return np.stack(columns, axis=1)


def _lanczos(
    operator: _Operator,
    count: int,
    which: Literal["LA", "LM"],
    tolerance: float,
    *,
    vectors: bool,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the first ``count`` eigenvalues and, if asked for, eigenvectors (n, count).

    The order is falling: of eigenvalues for "LA", of their magnitudes for "LM".
    """
    # Slow to import.
    from scipy.sparse.linalg import ArpackError, LinearOperator, eigsh

    size = operator.size
    if count + 1 >= size:
        # ARPACK needs k < m ≤ n for the m vectors of its basis.
        values, basis = np.linalg.eigh(operator.dense())
        return _first(values, basis, count, which)

    # Lanczos builds an orthonormal basis v_1 … v_m of the Krylov space of A and a start v_1.
    #
    # 1. Three terms. A v_i lies in the span of v_1 … v_{i+1}, so v_iᵀ A v_j = (A v_i)ᵀ v_j is zero
    #    for i < j − 1, and of all earlier vectors A v_j meets the last two only:
    #        A v_j = β_{j−1} v_{j−1} + α_j v_j + β_j v_{j+1}.
    # 2. Ritz values. After m steps that is A V = V T + β_m v_{m+1} e_mᵀ, with V = [v_1 … v_m]
    #    (n, m) and T tridiagonal (m, m). If T s = θ s with ‖s‖ = 1, the Ritz pair (θ, V s) has
    #    the residual
    #        A V s − θ V s = β_m s_m v_{m+1},
    #    whose norm β_m |s_m| bounds the distance of θ to an eigenvalue, without another product.
    #    The ends of the spectrum converge first.
    # 3. Full reorthogonalization. In floating point the three terms lose orthogonality as soon as a
    #    Ritz value has converged, and copies of it appear. Each new vector is therefore made
    #    orthogonal to all of V.
    # 4. Implicit restarts. V is kept at m columns: m − k steps of shifted QR on T, with the
    #    unwanted Ritz values as shifts, leave the basis that a start without their eigenvectors
    #    would have after k steps (Sorensen 1992, doi 10.1137/0613025).
    #
    # ARPACK does 1–4. How this differs from a plain call of SciPy:
    #
    # 1. The start is fixed, so that the same operator gives the same bits.
    # 2. Operators too small for ARPACK are made dense, and for the zero operator, which it refuses,
    #    the answer is given.
    # 3. A product that is not finite is an error at once.
    # 4. A may take tensors of any dtype on any device; V is in double precision, on the CPU.
    start = np.random.default_rng(0).standard_normal(size)
    linear = LinearOperator((size, size), matvec=operator, dtype=np.float64)
    try:
        answer = eigsh(
            linear,
            k=count,
            which=which,
            v0=start,
            tol=tolerance,
            return_eigenvectors=vectors,
        )
    except ArpackError:
        # A v_1 = 0 leaves it without a second vector.
        if not operator.is_zero:
            raise
        return np.zeros(count), np.eye(size, count)

    # Without eigenvectors the basis has no rows.
    if not vectors:
        return _first(answer, np.empty((0, count)), count, which)
    values, basis = answer
    return _first(values, basis, count, which)


def _first(
    values: np.ndarray, basis: np.ndarray, count: int, which: Literal["LA", "LM"]
) -> tuple[np.ndarray, np.ndarray]:
    """Return the first ``count`` eigenvalues, in falling order, and their columns of ``basis``."""
    keys = values
    if which == "LM":
        keys = np.abs(values)

    order = np.argsort(-keys)[:count]
    return values[order], basis[:, order]
