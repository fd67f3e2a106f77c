"""Dense curvature of linear layers, block by block, against automatic differentiation."""

import oracles
import pytest
import torch
from torch import nn

import whence as wh
from whence.curvature import layerwise

N = 7


class Branches(nn.Module):
    """Layers that meet again, one without bias, a fixed normalisation and an unused layer."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = (
            nn.Linear(4, 6),
            nn.Linear(6, 6, bias=False),
            nn.Linear(4, 6),
        )
        self.norm = nn.LayerNorm(6, elementwise_affine=False)
        self.d, self.unused = nn.Linear(6, 3), nn.Linear(2, 2)

    def forward(self, x):
        h = torch.tanh(self.a(x))
        return self.d(self.norm(torch.tanh(self.b(h) * self.c(x)) + h))


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Linear(4, 4)
        self.b = nn.Linear(4, 3)

    def forward(self, x):
        return self.b(torch.tanh(self.a(torch.tanh(self.a(x)))))


def plain():
    return nn.Sequential(
        nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 4), nn.Softplus(), nn.Linear(4, 3)
    )


def objective(network, loss, select=None, n=N):
    torch.manual_seed(0)
    network = network().double()
    x = torch.randn(n, 4, dtype=torch.float64)
    y = (
        torch.arange(n) % 3
        if loss == "classes"
        else torch.randn(n, 3, dtype=torch.float64)
    )
    given = wh.CrossEntropy() if loss == "classes" else wh.Squared()
    return wh.Objective.supervised(network, (x, y), given, parameters=select)


CASES = [
    (plain, None),
    (Branches, None),
    (Branches, ("a.weight", "b.*", "d.bias")),
    (Branches, "c.*"),
    (plain, "4.*"),
    (plain, "*.bias"),
]


@pytest.mark.parametrize("chunk", [2, 1000])
@pytest.mark.parametrize("loss", ["classes", "numbers"])
@pytest.mark.parametrize(("network", "select"), CASES)
def test_against_automatic_differentiation(network, select, loss, chunk, monkeypatch):
    monkeypatch.setattr("whence.points.MAX_LINEARIZED", chunk)
    monkeypatch.setattr(layerwise, "BLOCK_NUMBERS", 100)
    found = objective(network, loss, select)
    theta = found.parameters.vector()
    exact = torch.autograd.functional.hessian(
        lambda t: found.loss(found.parameters.substituted(t)), theta
    )
    hessian = layerwise.hessian(found)
    assert hessian is not None
    oracles.close(hessian, exact.numpy(), 1e-12)
    jacobian = wh.Jacobian(found, scaled=True)
    rows = jacobian.dense()
    gauss_newton = layerwise.gauss_newton(jacobian)
    assert gauss_newton is not None
    oracles.close(gauss_newton, (rows.T @ rows).numpy(), 1e-12)


def test_several_terms():
    first, second = objective(plain, "classes"), objective(plain, "classes", n=4)
    terms = [first.terms["data"], wh.Term("more", second.terms["data"].residual,
             second.terms["data"].points, weight=0.3, loss=wh.CrossEntropy())]  # fmt: skip
    both = wh.Objective(first.network, terms)
    exact = torch.autograd.functional.hessian(
        lambda t: both.loss(both.parameters.substituted(t)), both.parameters.vector()
    )
    oracles.close(wh.Hessian(both).dense(), exact.numpy(), 1e-12)


def test_networks_with_other_layers_go_another_way():
    found = objective(Tied, "classes")
    assert layerwise.hessian(found) is None
    assert layerwise.gauss_newton(wh.Jacobian(found, scaled=True)) is None
    exact = torch.autograd.functional.hessian(
        lambda t: found.loss(found.parameters.substituted(t)), found.parameters.vector()
    )
    oracles.close(wh.Hessian(found).dense(), exact.numpy(), 1e-12)


def test_one_row_for_each_point_is_left_to_rows():
    jacobian = oracles.burgers_hard().objective
    assert layerwise.gauss_newton(wh.Jacobian(jacobian, scaled=True)) is None
