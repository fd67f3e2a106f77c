"""Lanczos's iteration against dense eigenvalues, and where ARPACK alone would give none."""

import numpy as np
import oracles
import pytest
import torch
from matrices import random, symmetric
from scipy import linalg
from scipy.sparse.linalg import ArpackNoConvergence

from whence.curvature.lanczos import (
    dominant_eigenpairs,
    largest_eigenvalue,
    largest_eigenvalues,
)

SPECTRA = {
    "even": np.linspace(0.1, 3.0, 60),
    "falling fast": 10.0 ** -np.arange(0, 15, 0.25),
    "of both signs": np.linspace(-5.0, 3.0, 60),
    "below zero": np.linspace(-5.0, -1.0, 60),
    "of low rank": np.concatenate([[7.0, 3.0, 1.0], np.zeros(57)]),
    "nearly equal": 1.0 + 1e-9 * np.arange(60),
}


def product_of(matrix):
    return lambda vector: matrix @ vector


@pytest.fixture(name="spectrum", params=SPECTRA)
def _spectrum(request):
    return SPECTRA[request.param]


def test_the_largest_of_any_spectrum(spectrum):
    matrix = symmetric(spectrum.tolist())
    scale = np.abs(spectrum).max()
    largest = largest_eigenvalue(product_of(matrix), 60, matrix)
    assert largest == pytest.approx(spectrum.max(), rel=1e-12, abs=1e-13 * scale)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_several_of_the_largest_fall(spectrum, count):
    matrix = symmetric(spectrum.tolist())
    scale = np.abs(spectrum).max()
    values = largest_eigenvalues(product_of(matrix), 60, matrix, count)
    expected = np.sort(spectrum)[::-1][:count]
    np.testing.assert_allclose(values, expected, rtol=1e-12, atol=1e-13 * scale)


@pytest.mark.parametrize("count", [1, 3, 20])
@pytest.mark.parametrize("name", ["even", "falling fast", "of both signs"])
def test_pairs_of_largest_magnitude(name, count):
    spectrum = SPECTRA[name]
    matrix = symmetric(spectrum.tolist())
    vectors, values = dominant_eigenpairs(product_of(matrix), 60, matrix, count)

    expected = spectrum[np.argsort(-np.abs(spectrum))][:count]
    np.testing.assert_allclose(values, expected, rtol=1e-9)
    oracles.close(matrix @ vectors, vectors * values, 1e-12)


def test_vectors_stay_orthonormal_long_after_the_first_has_converged():
    """Three terms alone lose that, and give copies of the largest eigenvalues."""
    spectrum = np.concatenate([[1e8, 1e6, 1e4], np.linspace(0.0, 1.0, 297)])
    matrix = symmetric(spectrum.tolist())
    vectors, values = dominant_eigenpairs(product_of(matrix), 300, matrix, 40)
    oracles.close(vectors.T @ vectors, np.eye(40), 1e-12)
    expected = np.sort(spectrum)[::-1][:40]
    np.testing.assert_allclose(values, expected, rtol=1e-12, atol=1e-13 * 1e8)


@pytest.mark.parametrize("size", [1, 2, 3, 4, 20])
def test_operators_of_any_size(size):
    matrix = symmetric(np.linspace(0.0, 3.0, size + 1)[1:].tolist())
    first = largest_eigenvalue(product_of(matrix), size, matrix)
    second = largest_eigenvalue(product_of(matrix), size, matrix)
    assert first == pytest.approx(3.0, rel=1e-10)
    assert first == second


@pytest.mark.parametrize("count", [1, 3, 4, 5])
def test_as_many_as_there_are(count):
    spectrum = np.array([-4.0, 3.0, -2.0, 1.0, 0.5])
    matrix = symmetric(spectrum.tolist())
    values = largest_eigenvalues(product_of(matrix), 5, matrix, count)
    np.testing.assert_allclose(values, np.sort(spectrum)[::-1][:count], rtol=1e-12)

    vectors, values = dominant_eigenpairs(product_of(matrix), 5, matrix, count)
    np.testing.assert_allclose(values, spectrum[:count], rtol=1e-12)
    oracles.close(matrix @ vectors, vectors * values, 1e-12)


@pytest.mark.parametrize("size", [1, 2, 30])
def test_the_zero_operator(size):
    zero = torch.zeros(size, size, dtype=torch.float64)
    assert largest_eigenvalue(product_of(zero), size, zero) == 0.0

    vectors, values = dominant_eigenpairs(product_of(zero), size, zero, 1)
    assert vectors.shape == (size, 1)
    assert float(vectors.norm()) == 1.0
    assert values.tolist() == [0.0]


@pytest.mark.parametrize("size", [2, 30])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_products_that_are_not_finite(size, value):
    matrix = torch.eye(size, dtype=torch.float64)
    matrix[1, 1] = value
    with pytest.raises(ValueError, match="not finite"):
        largest_eigenvalue(product_of(matrix), size, matrix)
    with pytest.raises(ValueError, match="not finite"):
        dominant_eigenpairs(product_of(matrix), size, matrix, 1)


def test_an_iteration_that_does_not_end_is_not_taken_for_the_zero_operator(monkeypatch):
    def refused(linear, v0, **options):
        linear.matvec(v0)
        raise ArpackNoConvergence("no convergence", np.empty(0), np.empty(0))

    monkeypatch.setattr("scipy.sparse.linalg.eigsh", refused)
    matrix = symmetric(SPECTRA["even"].tolist())
    with pytest.raises(ArpackNoConvergence):
        largest_eigenvalue(product_of(matrix), 60, matrix)


@pytest.mark.parametrize("size", [40, 300])
def test_single_precision(size):
    root = random(size, size).float()
    matrix = root @ root.T
    exact = linalg.eigvalsh(matrix.double().numpy())
    largest = largest_eigenvalue(product_of(matrix), size, matrix)
    assert largest == pytest.approx(exact[-1], rel=1e-5)

    vectors, values = dominant_eigenpairs(product_of(matrix), size, matrix, 4)
    assert vectors.dtype is values.dtype is torch.float32
    np.testing.assert_allclose(values, exact[:-5:-1], rtol=1e-5)


def test_a_tolerance_saves_products():
    matrix = symmetric(np.linspace(0.0, 1.0, 400).tolist())
    products = []

    def counted(vector):
        products.append(vector)
        return matrix @ vector

    exact = largest_eigenvalue(counted, 400, matrix)
    in_full = len(products)
    near = largest_eigenvalue(counted, 400, matrix, tolerance=1e-3)
    assert len(products) - in_full < 0.8 * in_full
    assert near == pytest.approx(exact, rel=1e-3)
