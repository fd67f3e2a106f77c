"""Eigenvalues at the ends of a symmetric operator's spectrum, from products alone.

Lanczos's iteration builds an orthonormal basis of the Krylov space of A and a start v₁, ‖v₁‖ = 1.

1. *Three terms.* ``A v_i`` lies in the span of ``v_1 … v_{i+1}``. So ``v_iᵀ A v_j = (A v_i)ᵀ v_j``
   is zero for ``i < j − 1``, and of all earlier vectors ``A v_j`` meets the last two only:
   ``A v_j = β_{j−1} v_{j−1} + α_j v_j + β_j v_{j+1}``.
2. *Ritz values.* After m steps that is ``A V = V T + β_m v_{m+1} e_mᵀ`` with ``V = [v_1 … v_m]``
   (n, m) and T tridiagonal (m, m). With ``T s = θ s``, ‖s‖ = 1, the Ritz pair ``(θ, V s)`` has
   the residual ``A V s − θ V s = β_m s_m v_{m+1}``. Its norm ``β_m |s_m|`` bounds the distance
   of θ to an eigenvalue, and takes no product to know. The ends of the spectrum converge first.
3. *Full reorthogonalization.* In floating point the three terms lose orthogonality as soon as a
   Ritz value has converged, and copies of it appear. Each new vector is therefore made orthogonal
   to all of V.
4. *Implicit restarts.* V is kept at m columns: m − k steps of shifted QR on T, the unwanted Ritz
   values as shifts, leave the Krylov space that a start without their eigenvectors would have had
   after k steps (Sorensen 1992, doi 10.1137/0613025).

ARPACK does 1–4 (:func:`scipy.sparse.linalg.eigsh`). What is different here:

1. the start is fixed, so that the same operator gives the same bits;
2. operators too small for ARPACK are made dense, and for the zero operator, which it refuses, the
   answer is given;
3. a product that is not finite is an error at once;
4. vectors are tensors of any dtype on any device; the basis is in double precision on the CPU.

Not Lanczos, and elsewhere: the random sketch of :class:`whence.Nystrom`, one product with many
vectors.
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
    _, values = _eigsh(product, size, like, 1, "LA", tolerance, vectors=False)
    return float(values[0])


def largest_eigenvalues(
    product: Product, size: int, like: Tensor, count: int, tolerance: float = 0.0
) -> Tensor:
    """Return the ``count`` largest eigenvalues (count,) of a symmetric operator, falling."""
    _, values = _eigsh(product, size, like, count, "LA", tolerance, vectors=False)
    return torch.as_tensor(values).to(like)


def dominant_eigenpairs(
    product: Product, size: int, like: Tensor, count: int
) -> Eigenpairs:
    """Return the ``count`` eigenpairs of largest magnitude, that first, to all digits.

    Eigenvectors are (n, count), one a column.
    """
    vectors, values = _eigsh(product, size, like, count, "LM", 0.0, vectors=True)
    return torch.as_tensor(vectors).to(like), torch.as_tensor(values).to(like)


def _eigsh(
    product: Product,
    size: int,
    like: Tensor,
    count: int,
    which: Literal["LA", "LM"],
    tolerance: float,
    *,
    vectors: bool,
) -> tuple[np.ndarray, np.ndarray]:
    """Return eigenvectors (n, k) and eigenvalues (k,): "LA" the largest, "LM" in magnitude.

    Without ``vectors`` the eigenvectors may be missing: (n, 0).
    """
    # Slow to import.
    from scipy.sparse.linalg import ArpackError, LinearOperator, eigsh

    is_zero = True

    def multiply(vector: np.ndarray) -> np.ndarray:
        nonlocal is_zero
        column = torch.as_tensor(vector.ravel(), dtype=like.dtype, device=like.device)
        image = product(column).cpu().double()
        check_finite(image)

        array: np.ndarray = image.numpy()
        is_zero = is_zero and not array.any()
        return array

    # ARPACK needs k < m ≤ n for its m basis vectors, and is of no use near that.
    if count + 1 >= size:
        columns = [multiply(column) for column in np.eye(size)]
        found, basis = np.linalg.eigh(np.stack(columns, axis=1))
        return _first(basis, found, count, which)

    linear = LinearOperator((size, size), matvec=multiply, dtype=np.float64)
    start = np.random.default_rng(0).standard_normal(size)
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
        if not is_zero:
            raise
        return np.eye(size, count), np.zeros(count)

    if vectors:
        found, basis = answer
    else:
        found = answer
        basis = np.empty((size, 0))
    return _first(basis, found, count, which)


def _first(
    basis: np.ndarray, values: np.ndarray, count: int, which: Literal["LA", "LM"]
) -> tuple[np.ndarray, np.ndarray]:
    """Return the ``count`` first pairs in falling order, of values or of magnitudes."""
    falling = -np.abs(values) if which == "LM" else -values
    order = np.argsort(falling)[:count]
    if basis.shape[1] == 0:
        return basis, values[order]
    return basis[:, order], values[order]
