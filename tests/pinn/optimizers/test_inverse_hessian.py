"""Updates of the inverse Hessian against the formulas that they are derived from."""

import pytest
import torch

from whence.pinn.optimizers import inverse_hessian
from whence.pinn.optimizers.inverse_hessian import (
    Change,
    Curvatures,
    InverseHessian,
    plain_bfgs,
    self_scaled_bfgs,
    self_scaled_broyden,
)

CHOICES = [plain_bfgs, self_scaled_bfgs, self_scaled_broyden]


def problem(seed=0, size=7, length=0.4):
    """H, a step −αHg, its y from another curvature, and the new gradient."""
    generator = torch.Generator().manual_seed(seed)

    def positive():
        root = torch.randn(size, size, generator=generator, dtype=torch.float64)
        return root @ root.T + 0.1 * torch.eye(size, dtype=torch.float64)

    H = positive()
    gradient = torch.randn(size, generator=generator, dtype=torch.float64)
    s = -length * H @ gradient
    return H, gradient, s, positive() @ s


def updated(H, gradient, s, y, choose):
    """H₊ and H₊g₊, by the class."""
    inverse = InverseHessian(H)
    after = gradient + y
    sBs = float(s @ torch.linalg.solve(H, s))
    product = inverse.update(s, y, H @ y, sBs, after, H @ after, choose)
    return inverse, product


def in_words(H, s, y, choose):
    """H₊ as the inverse of B₊, by the formula of the family."""
    B = torch.linalg.inv(H)
    ys, sBs, yHy = float(y @ s), float(s @ B @ s), float(y @ H @ y)
    change = choose(Curvatures(ys, yHy, sBs), len(s))
    a = yHy * sBs / ys**2 - 1
    theta = (1 - change.phi) / (1 + a * change.phi)
    Bs = B @ s
    w = sBs**0.5 * (y / ys - Bs / sBs)
    scaled = B - torch.outer(Bs, Bs) / sBs + theta * torch.outer(w, w)
    return torch.linalg.inv(change.tau * scaled + torch.outer(y, y) / ys)


@pytest.mark.parametrize("choose", CHOICES)
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("length", [1e-3, 0.4, 30.0])
def test_an_update_is_the_inverse_of_that_of_the_hessian(choose, seed, length):
    H, gradient, s, y = problem(seed, length=length)
    inverse, product = updated(H, gradient, s, y, choose)
    after = inverse.lend()
    torch.testing.assert_close(after, in_words(H, s, y, choose), rtol=1e-7, atol=1e-9)
    torch.testing.assert_close(product, after @ (gradient + y), rtol=1e-10, atol=1e-10)
    assert float((after - after.T).abs().max()) < 1e-12 * float(after.abs().max())
    assert float(torch.linalg.eigvalsh(after).min()) > 0


@pytest.mark.parametrize("choose", CHOICES)
def test_the_secant_condition_holds_after_each_of_many_updates(choose):
    """H₊y = s, over steps on a quadratic, each from what the last one left."""
    _, gradient, s, _ = problem(size=9)
    curvature = problem(seed=5, size=9)[0]
    inverse = InverseHessian()
    product = gradient
    for step in range(12):
        s = -0.3 * product
        y = curvature @ s
        after = gradient + y
        sBs = -0.3 * float(s @ gradient)
        times = inverse.times(after)
        product = inverse.update(s, y, times - product, sBs, after, times, choose)
        gradient = after
        error = float((inverse.times(y) - s).norm() / s.norm())
        assert error < 1e-12, step


def test_bfgs_is_that_of_the_textbook():
    H, gradient, s, y = problem()
    left = torch.eye(7, dtype=torch.float64) - torch.outer(s, y) / (y @ s)
    expected = left @ H @ left.T + torch.outer(s, s) / (y @ s)
    inverse, _ = updated(H, gradient, s, y, plain_bfgs)
    torch.testing.assert_close(inverse.lend(), expected, rtol=1e-12, atol=1e-12)


def test_where_the_curvature_is_as_expected_broyden_is_bfgs():
    """b = 1 asks for no scaling, and for ϑ = 0."""
    for h in (1.0, 1.5, 40.0):
        change = self_scaled_broyden(Curvatures(ys=2.0, yHy=2.0 * h, sBs=2.0), 50)
        assert change == Change(tau=1.0, phi=1.0)
    H, gradient, s, y = problem()
    fixed, _ = updated(H, gradient, s, y, lambda *_: Change(1.0, 1.0))
    bfgs, _ = updated(H, gradient, s, y, plain_bfgs)
    assert torch.equal(fixed.lend(), bfgs.lend())


@pytest.mark.parametrize("choose", CHOICES)
def test_scaling_never_enlarges_the_hessian(choose):
    for b in (1e-6, 0.3, 1.0, 2.0, 1e6):
        for excess in (1e-12, 1e-3, 1.0, 1e6):
            h = (1 + excess) / b
            for size in (1, 2, 1000):
                change = choose(Curvatures(1.0, h, b), size)
                assert 0 < change.tau <= 1 or choose is self_scaled_broyden
                # The term v vᵀ must leave H₊ positive definite: 1 + ϑa > 0.
                assert change.phi > -1 / excess


def test_a_step_without_positive_curvature_changes_nothing():
    H, gradient, s, y = problem()
    for bad in (-y, torch.zeros_like(y), y * float("nan")):
        inverse, _ = updated(H, gradient, s, bad, plain_bfgs)
        assert torch.equal(inverse.lend(), H)
        fresh, _ = updated(H, gradient, s, y, plain_bfgs)
        assert not torch.equal(fresh.lend(), H)


def test_what_was_lent_stays_as_it_is():
    H, gradient, s, y = problem()
    before = H.clone()
    inverse, product = updated(H, gradient, s, y, plain_bfgs)
    assert torch.equal(H, before)
    lent = inverse.lend()
    kept = lent.clone()
    after = gradient + y
    for _ in range(2):
        product = inverse.update(s, y, lent @ y, 1.0, after, product, self_scaled_bfgs)
    assert torch.equal(lent, kept)
    assert not torch.equal(inverse.lend(), kept)


def test_negative_eigenvalues_are_raised_and_the_others_kept():
    root = torch.linalg.qr(problem(seed=3)[0])[0]
    values = torch.tensor([-1e-3, -1e-20, 1e-3, 1.0, 2.0, 3.0, 1e6]).double()
    matrix = (root * values) @ root.T
    before = matrix.clone()
    inverse = InverseHessian(matrix)
    assert inverse.mend()
    assert torch.equal(matrix, before)
    mended = torch.linalg.eigvalsh(inverse.lend())
    assert float(mended[:2].abs().max()) < 1e-7
    torch.testing.assert_close(mended[2:], values[2:], rtol=1e-6, atol=1e-9)
    assert not InverseHessian().mend()


def test_a_large_matrix_is_not_mended(monkeypatch):
    monkeypatch.setattr(inverse_hessian, "MAX_MENDED", 6)
    assert not InverseHessian(problem()[0]).mend()
