"""Cholesky done twice keeps what the rounding of the kernel loses."""

import pytest
import torch
from matrices import Kernel, random

from whence.curvature.cholesky import factor_in_place
from whence.curvature.kernel_factor import BLOCK, KernelFactor


def graded(rows, columns, decades):
    """Rows whose singular values fall evenly over some decades."""
    left, _ = torch.linalg.qr(random(rows, rows))
    right, _ = torch.linalg.qr(random(columns, rows, seed=1))
    values = torch.logspace(0, -decades, rows, dtype=torch.float64)
    return left @ (values[:, None] * right.T)


def factored(rows, damping):
    kernel = Kernel(rows)
    shifted = kernel.gram + damping * torch.eye(len(rows)).to(rows)
    first, is_factored = factor_in_place(shifted)
    assert is_factored
    return KernelFactor(kernel, first, damping)


def images_by_svd(rows, damping, vectors):
    """``(JJᵀ + λI)⁻¹JV = U Σ/(Σ² + λ) WᵀV``, of which no number is squared but Σ."""
    left, values, right = torch.linalg.svd(rows, full_matrices=False)
    gains = values / (values.square() + damping)
    return left @ (gains[:, None] * (right @ vectors))


def distance(found, expected):
    return float((found - expected).norm() / expected.norm())


@pytest.mark.parametrize("shape", [(60, 100), (BLOCK + 50, BLOCK + 80)])
@pytest.mark.parametrize("damping", [1e-3, 1e-8, 1e-12])
def test_images_are_exact_far_below_the_rounding_of_the_kernel(shape, damping):
    rows = graded(*shape, decades=9)
    vectors = random(shape[1], 7, seed=2)
    expected = images_by_svd(rows, damping, vectors)

    found = factored(rows, damping).solve_images(vectors)
    # Errors grow with λ^−½.
    bound = 1e-14 / damping**0.5
    assert distance(found, expected) < bound

    if damping == 1e-12:
        # One Cholesky factor alone has lost six digits more.
        gram = rows @ rows.T + damping * torch.eye(len(rows), dtype=rows.dtype)
        once = torch.cholesky_solve(rows @ vectors, torch.linalg.cholesky(gram))
        assert distance(once, expected) > 100 * bound


@pytest.mark.parametrize("damping", [1e-3, 1e-10])
def test_rows_solved_are_images_of_targets_too(damping):
    rows = graded(60, 100, decades=6)
    vectors = random(100, 7, seed=2)
    factor = factored(rows, damping)

    basis, coefficients = factor.solve_rows()
    by_rows = (vectors.T @ basis) @ coefficients
    assert distance(by_rows.T, factor.solve_images(vectors)) < 1e-9


def test_a_matrix_is_factored_in_its_place():
    rows = random(30, 30)
    matrix = rows @ rows.T
    expected = torch.linalg.cholesky(matrix)
    factor, is_factored = factor_in_place(matrix)
    assert is_factored
    assert factor.data_ptr() == matrix.data_ptr()
    assert torch.allclose(factor, expected)

    _, is_factored = factor_in_place(-torch.eye(3))
    assert not is_factored
