"""NysNewton-CG: quadratics in one step, few products where the preconditioner fits."""

from types import SimpleNamespace

import pytest
import torch

import whence as wh
from whence import pinn
from whence.curvature.lowrank import nystrom
from whence.pinn.optimizers.nncg import NystromInverse, conjugate_gradients


def linear(n=30, d=8):
    """A linear least-squares objective, whose loss is a quadratic of θ."""
    torch.manual_seed(0)
    network = torch.nn.Linear(d, 1, bias=False, dtype=torch.float64)
    rows = torch.randn(n, d + 1, dtype=torch.float64)
    rows[:, :d] *= torch.logspace(0, -2, d, dtype=torch.float64)

    def residual(tensors, z):
        value = torch.func.functional_call(network, tensors, (z[:, :d],))
        return value - z[:, d:]

    return wh.Objective(network, [wh.Term("data", residual, rows)]), rows


def test_a_quadratic_is_solved_by_one_step():
    objective, rows = linear()
    options = pinn.NNCG(1, damping=1e-13, rtol=1e-12)
    options.start(objective.parameters).advance(objective, 1)
    best = torch.linalg.lstsq(rows[:, :-1], rows[:, -1]).solution
    torch.testing.assert_close(
        objective.parameters.vector(), best, rtol=1e-7, atol=1e-9
    )


def test_the_preconditioner_saves_products():
    """Ten eigenvalues over nine orders above a flat rest: r = 12 leaves a condition near one."""
    torch.manual_seed(0)
    size = 120
    basis, _ = torch.linalg.qr(torch.randn(size, size, dtype=torch.float64))
    values = torch.full((size,), 1e-6, dtype=torch.float64)
    values[:10] = torch.logspace(3, -6, 10, dtype=torch.float64)
    A = basis @ torch.diag(values) @ basis.T
    right = torch.randn(size, dtype=torch.float64)
    system = A + 1e-5 * torch.eye(size, dtype=torch.float64)

    operator = SimpleNamespace(size=size, like=lambda: right, matmat=A.matmul)
    vectors, held = nystrom(operator, 12, seed=0)
    inverse = NystromInverse(vectors, held, 1e-5)
    exact = torch.linalg.solve(system, right)
    counts = {}
    for name, precondition in (("nystrom", inverse.times), ("none", lambda v: v)):
        solution, counts[name] = conjugate_gradients(
            system.mv, precondition, right, 1e-10, 1000
        )
        torch.testing.assert_close(solution, exact, rtol=1e-4, atol=1e-3)
    assert counts["nystrom"] <= 15
    assert counts["none"] > 2 * counts["nystrom"]


def test_the_inverse_is_the_formula():
    torch.manual_seed(0)
    vectors, _ = torch.linalg.qr(torch.randn(7, 3, dtype=torch.float64))
    values = torch.tensor([5.0, 2.0, 0.5], dtype=torch.float64)
    v = torch.randn(7, dtype=torch.float64)
    inside = vectors @ torch.diag(1 / (values + 0.1)) @ vectors.T
    outside = torch.eye(7, dtype=torch.float64) - vectors @ vectors.T
    actual = NystromInverse(vectors, values, 0.1).times(v)
    torch.testing.assert_close(actual, (inside + outside / 0.6) @ v)


def test_conjugate_gradients_end_at_negative_curvature():
    A = torch.diag(torch.tensor([1.0, -2.0], dtype=torch.float64))
    down = torch.tensor([0.0, 1.0], dtype=torch.float64)
    direction, count = conjugate_gradients(A.mv, lambda v: v, down, 1e-8, 10)
    assert count == 1
    assert torch.equal(direction, down)
    both = torch.tensor([1.0, 0.4], dtype=torch.float64)
    direction, count = conjugate_gradients(A.mv, lambda v: v, both, 1e-8, 10)
    assert count == 2
    assert float(direction @ both) > 0


def test_the_true_hessian_is_used():
    """The loss is r² with r = θ² + 1 at θ = 0.5: H = 2r·r″ + 2r′² differs from Gauss–Newton's."""
    network = torch.nn.Linear(1, 1, bias=False, dtype=torch.float64)

    def residual(tensors, z):
        return torch.func.functional_call(network, tensors, (z,)) ** 2 + 1

    points = torch.ones(1, 1, dtype=torch.float64)
    objective = wh.Objective(network, [wh.Term("data", residual, points)])
    objective.parameters.assign(torch.tensor([0.5], dtype=torch.float64))
    options = pinn.NNCG(1, damping=1e-12)
    options.start(objective.parameters).advance(objective, 1)
    # L = (θ² + 1)²: L′ = 4θ³ + 4θ = 2.5, L″ = 12θ² + 4 = 7.
    assert float(objective.parameters.vector()) == pytest.approx(0.5 - 2.5 / 7)


@pytest.mark.parametrize("name", ["iterations", "rank", "damping", "rtol", "armijo"])
def test_wrong_options_are_refused(name):
    with pytest.raises(ValueError, match=name):
        pinn.NNCG(**({"iterations": 5} | {name: 0}))
