"""Dense curvature of linear layers, block by block, against automatic differentiation."""

import oracles
import pytest
import torch
from torch import nn

import whence as wh
from whence.curvature import layerwise

N = 7


class Branches(nn.Module):
    """Layers that meet again, one without bias, a fixed normalization and an unused layer."""

    def __init__(self):
        super().__init__()
        self.a = nn.Linear(4, 6)
        self.b = nn.Linear(6, 6, bias=False)
        self.c = nn.Linear(4, 6)
        self.norm = nn.LayerNorm(6, elementwise_affine=False)
        self.d = nn.Linear(6, 3)
        self.unused = nn.Linear(2, 2)

    def forward(self, x):
        h = torch.tanh(self.a(x))
        product = self.b(h) * self.c(x)
        return self.d(self.norm(torch.tanh(product) + h))


class Tied(nn.Module):
    """A layer that is used twice."""

    def __init__(self):
        super().__init__()
        self.a = nn.Linear(4, 4)
        self.b = nn.Linear(4, 3)

    def forward(self, x):
        once = torch.tanh(self.a(x))
        return self.b(torch.tanh(self.a(once)))


def plain():
    return nn.Sequential(
        nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 4), nn.Softplus(), nn.Linear(4, 3)
    )


def supervised(network, loss, select=None, n=N):
    torch.manual_seed(0)
    network = network().double()
    x = torch.randn(n, 4, dtype=torch.float64)
    if loss == "classes":
        y = torch.arange(n) % 3
        given_loss = wh.CrossEntropy()
    else:
        y = torch.randn(n, 3, dtype=torch.float64)
        given_loss = wh.Squared()
    return wh.Objective.supervised(network, (x, y), given_loss, parameters=select)


def hessian_by_autograd(objective):
    parameters = objective.parameters

    def loss(theta):
        return objective.loss(parameters.substituted(theta))

    return torch.autograd.functional.hessian(loss, parameters.vector()).numpy()


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
    objective = supervised(network, loss, select)
    hessian = layerwise.hessian(objective)
    assert hessian is not None
    oracles.close(hessian, hessian_by_autograd(objective), 1e-12)

    jacobian = wh.Jacobian(objective, scaled=True)
    rows = jacobian.dense()
    gauss_newton = layerwise.gauss_newton(jacobian)
    assert gauss_newton is not None
    oracles.close(gauss_newton, (rows.T @ rows).numpy(), 1e-12)


def test_several_terms():
    first = supervised(plain, "classes")
    second = supervised(plain, "classes", n=4).terms["data"]
    more = wh.Term(
        "more", second.residual, second.points, weight=0.3, loss=wh.CrossEntropy()
    )
    both = wh.Objective(first.network, [first.terms["data"], more])
    oracles.close(wh.Hessian(both).dense(), hessian_by_autograd(both), 1e-12)


def test_networks_with_other_layers_go_another_way():
    objective = supervised(Tied, "classes")
    assert layerwise.hessian(objective) is None
    assert layerwise.gauss_newton(wh.Jacobian(objective, scaled=True)) is None
    expected = hessian_by_autograd(objective)
    oracles.close(wh.Hessian(objective).dense(), expected, 1e-12)


def test_one_row_for_each_point_is_left_to_rows():
    objective = oracles.burgers_hard().objective
    assert layerwise.gauss_newton(wh.Jacobian(objective, scaled=True)) is None
