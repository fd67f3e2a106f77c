"""Random combinations of rows against the dense curvature."""

import numpy as np
import pytest
import torch
from layer_blocks import inverse
from torch import nn

import whence as wh
from whence.curvature.kronecker import EKFAC
from whence.curvature.operators import GaussNewtonMatrix
from whence.curvature.sampled_rows import SampledRows, leading_columns
from whence.curvature.solvers import Damping
from whence.jacobian import Jacobian


def classifier(n=6, classes=4, loss=None, confidence=1.0):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, classes)).double()
    model[-1].weight.data.mul_(confidence)
    x = torch.randn(n, 3, dtype=torch.float64)
    y = torch.arange(n) % classes
    return wh.Objective.supervised(model, (x, y), loss or wh.CrossEntropy())


def normal_matrix(rows):
    parts = [block.dense() for block, _ in rows.blocks()]
    table = torch.cat(parts)
    return (table.T @ table).numpy()


def relative_error(found, expected):
    return np.linalg.norm(found - expected) / np.linalg.norm(expected)


# Errors of means of s samples fall as 1/√s.
@pytest.mark.parametrize(("count", "most"), [(100, 0.3), (10_000, 0.03)])
def test_squares_of_many_outputs_are_those_of_all_in_the_mean(count, most, monkeypatch):
    monkeypatch.setattr("whence.jacobian.MANY_OUTPUTS", 2)
    root = Jacobian(classifier(), scaled=True)
    expected = normal_matrix(root)
    found = normal_matrix(SampledRows(root, count))
    assert 1e-6 < relative_error(found, expected) < most


@pytest.mark.parametrize("count", [1, 2])
def test_squares_are_those_of_all_rows_in_the_mean(count, monkeypatch):
    root = Jacobian(classifier(), scaled=True)
    expected = normal_matrix(root)
    draws = []
    for seed in range(500):
        monkeypatch.setattr("whence.curvature.sampled_rows.SEED", seed)
        draws.append(normal_matrix(SampledRows(root, count)))
    error = relative_error(np.mean(draws, axis=0), expected)
    each = np.mean([relative_error(draw, expected) for draw in draws])
    assert 1e-6 < error < 0.1 * each


@pytest.mark.parametrize("count", [3, 4, 9])
def test_rows_that_are_no_more_are_all_kept(count):
    """Of four classes the curvature of the loss has rank three."""
    root = Jacobian(classifier(), scaled=True)
    found = normal_matrix(SampledRows(root, count))
    np.testing.assert_allclose(found, normal_matrix(root), rtol=0, atol=1e-12)


# Squares of the smallest are below the smallest normal number of single precision.
@pytest.mark.parametrize("size", [1e-20, 1e-6, 1.0, 1e12])
@pytest.mark.parametrize("count", [1, 2, 5])
def test_leading_columns_are_near_those_of_eigenvectors(size, count):
    torch.manual_seed(2)
    root = size * torch.randn(50, 6, 6)
    root[0] = 0.0
    root[1, :, 2:] = 0.0  # of rank two
    leading, left = leading_columns(root, count)

    exact = (root.double() / size) @ (root.double() / size).mT
    whole = torch.cat([leading, left], dim=2).double() / size
    np.testing.assert_allclose(whole @ whole.mT, exact, rtol=0, atol=1e-4)
    largest = torch.linalg.eigvalsh(exact)[:, -1]
    first = whole[:, :, 0].square().sum(dim=1)
    assert (first <= largest * (1 + 1e-5)).all()
    assert (first >= 0.9 * largest).all()
    if count > 1:
        assert left[1].abs().max() < 1e-5 * size


def test_leading_rows_lose_less_than_combinations_alone(monkeypatch):
    """Of a confident classifier two rows are nearly all."""
    made = classifier(n=100, confidence=20.0)
    expected = normal_matrix(Jacobian(made, scaled=True))

    def error(count):
        errors = []
        for seed in range(10):
            monkeypatch.setattr("whence.curvature.sampled_rows.SEED", seed)
            rows = SampledRows(Jacobian(made, scaled=True), count)
            errors.append(relative_error(normal_matrix(rows), expected))
        return np.mean(errors)

    leading = error(2)
    assert leading < 0.5 * error(1)
    monkeypatch.setattr("whence.jacobian.MANY_OUTPUTS", 2)
    assert leading < 0.7 * error(2)


def test_many_outputs_of_any_loss_are_combined_alike(monkeypatch):
    class Weighed(wh.CrossEntropy):
        root_product = None

    monkeypatch.setattr("whence.jacobian.MANY_OUTPUTS", 2)
    plain = SampledRows(Jacobian(classifier(), scaled=True), 3)
    other = SampledRows(Jacobian(classifier(loss=Weighed()), scaled=True), 3)
    np.testing.assert_allclose(normal_matrix(other), normal_matrix(plain), atol=1e-14)


def test_every_pass_draws_the_same():
    rows = SampledRows(Jacobian(classifier(), scaled=True), 2)
    assert (normal_matrix(rows) == normal_matrix(rows)).all()


def test_points_of_one_row_have_no_choice():
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 1)).double()
    x = torch.randn(9, 3, dtype=torch.float64)
    made = wh.Objective.supervised(model, (x, x[:, :1]), wh.Squared())
    operator = GaussNewtonMatrix(made)
    expected = inverse(EKFAC().factor(operator, Damping(0.1, relative=False)))
    sampled = EKFAC(mc_samples=1).factor(operator, Damping(0.1, relative=False))
    np.testing.assert_allclose(inverse(sampled), expected, rtol=1e-9, atol=1e-12)


def test_factors_of_more_samples_are_nearer_to_those_of_all_rows():
    operator = GaussNewtonMatrix(classifier(n=20))
    damping = Damping(0.1)
    expected = inverse(EKFAC().factor(operator, damping))
    errors = []
    for count in (1, 2, 3):
        state = EKFAC(mc_samples=count).factor(operator, damping)
        errors.append(relative_error(inverse(state), expected))
    assert errors[2] < 1e-6 < errors[1] < errors[0]


def test_the_damping_is_relative_to_the_largest_eigenvalue_as_factored():
    operator = GaussNewtonMatrix(classifier(n=20))
    largest = np.linalg.eigvalsh(operator.dense().numpy())[-1]
    state = EKFAC(mc_samples=3).factor(operator, Damping(0.1))
    assert state.spectrum.damping == pytest.approx(0.1 * largest, rel=1e-6)


def test_no_samples_are_refused():
    with pytest.raises(ValueError, match="mc_samples"):
        EKFAC(mc_samples=0)
