"""Parameters in sums, products, views and shared tables: rows by layers, against a plain loop."""

import oracles
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call

from whence.curvature.kronecker import EKFAC
from whence.curvature.operators import GaussNewtonMatrix
from whence.curvature.solvers import Damping
from whence.linearization import LayerLinearization, linearize
from whence.objective import Objective
from whence.parameters import Parameters
from whence.term import Term

N, T, E = 5, 3, 4


class Network(nn.Module):
    """A function of a linear layer, parameters of some shapes, and the input (n, T, E)."""

    def __init__(self, function, **shapes):
        super().__init__()
        self.function = function
        self.a = nn.Linear(E, E)
        for name, shape in shapes.items():
            setattr(self, name, nn.Parameter(torch.randn(shape)))

    def forward(self, x):
        value = self.function(self, torch.tanh(self.a(x)), x)
        return value.reshape(len(x), -1)


def positions(m, h, x):
    return F.embedding(torch.arange(T), m.w)


# What is done with parameters w, v: of which shapes, and which of them have no rule.
USES = {
    "sum": (lambda m, h, x: h + m.w, {"w": (E,)}),
    "sum, turned round": (lambda m, h, x: m.w + h, {"w": (T, E)}),
    "positions": (lambda m, h, x: h + m.w[:, :T], {"w": (1, 7, E)}),
    "some positions": (lambda m, h, x: h + m.w[2 : 2 + T], {"w": (7, E)}),
    "a single number": (lambda m, h, x: h * m.w, {"w": ()}),
    "number and sum": (lambda m, h, x: 2.0 * m.w + h, {"w": (E,)}),
    "difference": (lambda m, h, x: h - m.w, {"w": (E,)}),
    "difference, turned round": (lambda m, h, x: m.w - h, {"w": (T, 1)}),
    "product": (lambda m, h, x: h * m.w, {"w": (T, 1)}),
    "product, turned round": (lambda m, h, x: m.w * h, {"w": (1, 1, E)}),
    "another view": (lambda m, h, x: m.w.view(1, 1, E) * h, {"w": (E,)}),
    "two parameters": (lambda m, h, x: m.w * m.v * h, {"w": (E,), "v": (E,)}),
    "the same twice": (lambda m, h, x: m.w * m.w * h + m.w, {"w": (E,)}),
    "a token": (lambda m, h, x: torch.cat([m.w.expand(len(x), -1, -1), h], 1), {"w": (1, 1, E)}),
    "a token, repeated": (lambda m, h, x: torch.cat([m.w.repeat(len(x), 1, 1), h], 1),
                          {"w": (1, 1, E)}),
    "matrix product": (lambda m, h, x: h @ m.w, {"w": (E, 2)}),
    "matrix product of rows": (lambda m, h, x: h.flatten(0, 1) @ m.w, {"w": (E, 2)}),
    "transposed": (lambda m, h, x: h @ m.w.T, {"w": (2, E)}),
    "transposed, mT": (lambda m, h, x: torch.matmul(h, m.w.mT), {"w": (2, E)}),
    "linear, transposed": (lambda m, h, x: F.linear(h, m.w.t()), {"w": (E, 2)}),
    "sum and product": (
        lambda m, h, x: torch.addmm(m.v, h.reshape(-1, E), m.w), {"w": (E, 2), "v": (2,)}),
    "packed": (lambda m, h, x: F.linear(h, m.w[E:], m.v[E:]) * F.linear(x, *[
        p.split([E, 2 * E])[0] for p in (m.w, m.v)]).sum(-1, keepdim=True),
        {"w": (3 * E, E), "v": (3 * E,)}),
    "chunks": (lambda m, h, x: F.linear(x, m.w.chunk(2)[1]) * h, {"w": (2 * E, E)}),
    "table of positions": (lambda m, h, x: h + positions(m, h, x), {"w": (7, E)}),
    "table of positions, an axis more": (
        lambda m, h, x: h + F.embedding(torch.arange(T)[None], m.w), {"w": (7, E)}),
    "table of positions in a batch of one": (
        lambda m, h, x: h + positions(m, h, x)[None] * positions(m, h, x).unsqueeze(0),
        {"w": (7, E)}),
    "positions through a layer": (
        lambda m, h, x: h + m.a(positions(m, h, x)), {"w": (7, E)}),
    "rows by number": (lambda m, h, x: h + m.w[(x[..., 0] > 0).long()], {"w": (2, E)}),
    "rows by number, from the end": (
        lambda m, h, x: h + m.w[-1 - (x[..., 0] > 0).long()], {"w": (2, E)}),
    "time in front": (
        lambda m, h, x: F.linear(h.transpose(0, 1), m.w, m.v).transpose(0, 1),
        {"w": (2, E), "v": (2,)}),
    "rows of times": (
        lambda m, h, x: F.linear(h.transpose(0, 1).reshape(-1, E), m.w, m.v)
        .view(T, -1, 2).transpose(0, 1), {"w": (2, E), "v": (2,)}),
    "norm of rows": (
        lambda m, h, x: F.layer_norm(h.flatten(0, 1), (E,), m.w, m.v), {"w": (E,), "v": (E,)}),
    "root mean square": (
        lambda m, h, x: m.w * (h * (h.square().mean(-1, keepdim=True) + 1e-6).rsqrt()),
        {"w": (E,)}),
    "cast to itself": (lambda m, h, x: h * m.w.to(torch.float64), {"w": (E,)}),
}  # fmt: skip
WITHOUT_RULE = {
    "function": (lambda m, h, x: h * m.w.exp(), {"w": (E,)}, ["w"]),
    "derived weight": (lambda m, h, x: F.linear(h, m.w @ m.v), {"w": (3, 2), "v": (2, E)},
                       ["v", "w"]),
    "quotient": (lambda m, h, x: h / m.w, {"w": (E,)}, ["w"]),
    "part of a bias in a function": (
        lambda m, h, x: h * m.w[:E] + m.w[E:].sin(), {"w": (2 * E,)}, ["w"]),
    "shared table by heads": (
        lambda m, h, x: h + positions(m, h, x).permute(1, 0).unsqueeze(0).mT, {"w": (T, E)},
        ["w"]),
    "written in place": (lambda m, h, x: (h * m.w).mul_(2.0) + 0 * m.w.detach(), {"w": (E,)},
                         ["w"]),
}  # fmt: skip


def agrees(function, shapes):
    """Compare every product with those of rows by one backward pass for each point."""
    torch.manual_seed(0)
    network = Network(function, **shapes).double()
    points = torch.randn(N, T, E, dtype=torch.float64).flatten(1)
    parameters = Parameters(network)

    def residual(tensors, z):
        return functional_call(network, tensors, (z.unflatten(1, (T, E)),))

    linear = linearize(residual, parameters, points)
    assert type(linear) is LayerLinearization
    cotangent = torch.randn(linear.value.shape, dtype=torch.float64)
    expected = []
    for z, u in zip(points, cotangent, strict=True):
        value = network(z.view(1, T, E))[0]
        grads = torch.autograd.grad((value * u).sum(), list(network.parameters()),
                                    allow_unused=True, materialize_grads=True)  # fmt: skip
        expected.append(torch.cat([grad.flatten() for grad in grads]))
    expected = torch.stack(expected)
    assert expected.abs().amax(0).min() >= 0
    oracles.close(linear.rows(cotangent), expected, 1e-12)
    oracles.close(linear.rmatvec(cotangent), expected.sum(0), 1e-12)
    oracles.close(linear.squared_norms(cotangent), expected.square().sum(1), 1e-12)
    for k in (1, 3):
        vectors = torch.randn(parameters.size, k, dtype=torch.float64)
        weights = torch.randn(N, k, dtype=torch.float64)
        oracles.close(linear.matvec(vectors, cotangent), expected @ vectors, 1e-12)
        oracles.close(linear.rmatmat(weights, cotangent), expected.T @ weights, 1e-12)

    # A part of the points alone, by what is remembered of the function.
    again = linearize(residual, parameters, points[:1])
    oracles.close(again.rows(cotangent[:1]), expected[:1], 1e-12)

    # Of small layers EKFAC has whole blocks, which its own products must agree with.
    objective = Objective(network, [Term("data", residual, points)])
    EKFAC().factor(GaussNewtonMatrix(objective), Damping(1e-2))
    return linear


@pytest.mark.parametrize("name", USES)
def test_uses_with_a_rule(name):
    assert agrees(*USES[name]).others == ()


@pytest.mark.parametrize("name", WITHOUT_RULE)
def test_uses_without_a_rule(name):
    function, shapes, others = WITHOUT_RULE[name]
    assert sorted(agrees(function, shapes).others) == others


def test_few_parameters_with_a_rule_are_not_worth_it():
    torch.manual_seed(0)
    network = Network(lambda m, h, x: h * m.w.exp().sum(), w=(9, E, E)).double()
    points = torch.randn(N, T, E, dtype=torch.float64)
    function = lambda t, z: functional_call(network, t, (z,))  # noqa: E731
    assert (
        type(linearize(function, Parameters(network), points)) is not LayerLinearization
    )
