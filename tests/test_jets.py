import itertools
import logging
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.func import jacrev

from whence import jets
from whence.jets import Jet, UnsupportedOperation
from whence.pinn.networks import ACTIVATIONS, MLP, Fourier
from whence.pinn.pde import fields
from whence.pinn.pde.fields import FieldMap

FULL = [(0, 0), (0, 1), (1, 1)]
POINTS = 0.2 + 0.7 * torch.rand(
    5, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64
)
W = torch.tensor([[0.3, -0.8], [1.1, 0.4], [-0.6, 0.9]], dtype=torch.float64)
B = torch.tensor([0.2, -0.5, 0.1], dtype=torch.float64)
V = torch.tensor([0.7, 1.3], dtype=torch.float64)


def nested(function, z, index):
    """The derivative of a function of one point, by reverse mode over reverse mode."""
    at = function
    for coordinate in index:
        at = (lambda f, k: lambda p: jacrev(f)(p)[..., k])(at, coordinate)
    return at(z)


def check(function, points=POINTS, requested=FULL, tolerance=1e-12):
    """Compare every channel of a jet with nested autograd, point by point."""
    lay = jets.layout(requested)
    found = function(jets.seed(points, lay))
    assert isinstance(found, Jet)
    assert found.shape == function(points).shape
    for index in lay.indices:
        each = [
            nested(lambda p: function(p.unsqueeze(0)).squeeze(0), z, index)
            for z in points
        ]
        expected = torch.stack(each)
        error = (found.derivative(index) - expected).abs().max()
        assert error <= tolerance * max(1.0, float(expected.abs().max())), (
            index,
            float(error),
        )


UNARY = {
    **{
        n: getattr(torch, n)
        for n in ("tanh", "exp", "square", "sin", "cos", "sigmoid", "erf")
    },
    **{
        n: getattr(torch, n)
        for n in ("reciprocal", "log", "sqrt", "sinh", "cosh", "atan")
    },
    **{n: getattr(torch, n) for n in ("arctan", "neg", "negative")},
    **{n: getattr(F, n) for n in ("silu", "gelu", "softplus")},
    "__neg__": lambda x: -x,
    "__pow__": lambda x: x**3,
}
BINARY = {
    "add": lambda a, b: torch.add(a, b, alpha=2.5),
    "sub": lambda a, b: torch.sub(a, b, alpha=-1.5),
    "subtract": torch.subtract,
    "rsub": torch.rsub,
    "mul": torch.mul,
    "multiply": torch.multiply,
    "div": torch.div,
    "divide": torch.divide,
    "true_divide": torch.true_divide,
    "pow": torch.pow,
    "__add__": lambda a, b: a + b,
    "__radd__": lambda a, b: b + a,
    "__sub__": lambda a, b: a - b,
    "__rsub__": lambda a, b: b - a,
    "__mul__": lambda a, b: a * b,
    "__rmul__": lambda a, b: b * a,
    "__truediv__": lambda a, b: a / b,
    "__rtruediv__": lambda a, b: b / a,
}
SHAPED = {
    "cat": lambda z: torch.cat(
        [z, torch.sin(z), torch.ones(len(z), 1).double()], dim=-1
    ),
    "concat": lambda z: torch.concat([z, z * z], 1),
    "concatenate": lambda z: torch.concatenate([z, z * z], axis=1),
    "stack": lambda z: torch.stack([z[:, 0] * z[:, 1], z[:, 0] ** 2], dim=-1),
    "linear": lambda z: F.linear(torch.sin(z), W, B),
    "matmul": lambda z: torch.matmul(torch.sin(z), W.T),
    "mm": lambda z: torch.mm(torch.sin(z), W.T),
    "ones_like": lambda z: torch.sin(z) * (z + torch.ones_like(z)),
    "__matmul__": lambda z: torch.sin(z) @ W.T,
    "__getitem__": lambda z: torch.exp(z)[..., 1:] * z[:, 0, None] * z[:, [1, 0]],
    "unbind": lambda z: torch.stack([a * b for a, b in [z.unbind(-1)]], 1),
    "unsqueeze": lambda z: torch.sin(z).unsqueeze(1).unsqueeze(-1),
    "squeeze": lambda z: torch.sin(z).unsqueeze(1).squeeze(1),
    "reshape": lambda z: (torch.sin(z) @ torch.eye(2).double()).reshape(-1, 2, 1),
    "view": lambda z: torch.sin(z).view(z.shape[0], 1, 2),
    "sum": lambda z: torch.sin(z).sum(-1, keepdim=True) * z.sum(dim=1, keepdim=True),
    "__rpow__": lambda z: 1.7**z * V**z,
    # Which holds is known without the jet; a constant in either place has no derivatives.
    "where": lambda z: (
        torch.where(
            torch.tensor([True, False]),
            torch.sin(z) * z[:, :1],
            torch.where(torch.tensor([True, False]), 2.0, torch.exp(z)),
        )
        + torch.where(torch.tensor([False, True]), z * z, V)
    ),
}


@pytest.mark.parametrize("name", sorted(UNARY))
def test_functions_of_one_jet(name):
    check(lambda z: UNARY[name](z @ W.T[:, :2] + 2 * z[:, :1] * z[:, 1:] + 1.0))


@pytest.mark.parametrize("name", sorted(BINARY))
def test_functions_of_two_jets_a_tensor_and_a_number(name):
    f = BINARY[name]
    check(lambda z: f(z[:, 0] * z[:, 1] + 1, torch.sin(z[:, 0]) + z[:, 1]))
    if name != "pow":
        check(lambda z: f(z * z, V))
        check(lambda z: f(V, z * z))
    check(lambda z: f(torch.sin(z), 3.0))
    if not name.startswith("__"):
        return
    check(lambda z: f(2.0, torch.sin(z)))


@pytest.mark.parametrize("name", sorted(SHAPED))
def test_functions_that_change_shape(name):
    check(SHAPED[name])


def test_every_rule_is_tested():
    assert set(jets._RULES) <= {*UNARY, *BINARY, *SHAPED}


@pytest.mark.parametrize("n", [-2, -1, 0, 1, 2, 3, 5, 0.5, 2.5])
def test_powers(n):
    check(lambda z: (z[:, 0] * z[:, 1] + z[:, 1]) ** n)


@pytest.mark.parametrize("n", [0, 1, 2, 3])
def test_powers_at_zero(n):
    check(lambda z: z**n, points=torch.tensor([[0.0, 0.5]]).double())


def test_softplus_above_the_threshold_is_what_torch_differentiates():
    check(
        lambda z: F.softplus(40 * z),
        points=torch.tensor([[0.1, 0.9], [0.55, 0.45]]).double(),
    )


@pytest.mark.parametrize("beta", [0.5, 1, 3])
def test_softplus_as_its_module_calls_it(beta):
    check(lambda z: nn.Softplus(beta)(z[:, 0] * z[:, 1]))


@pytest.mark.parametrize("x", [-30.0, -3.0, 0.0, 3.0, 30.0])
@pytest.mark.parametrize("name", ["tanh", "sigmoid", "silu", "gelu", "erf"])
def test_activations_far_out(name, x):
    check(lambda z: UNARY[name](z * x), points=torch.tensor([[1.0, 0.7]]).double())


@pytest.mark.parametrize(
    "function",
    [
        lambda z: z[:, :1] * torch.ones(len(z), 3).double() + torch.arange(3.0),
        lambda z: torch.arange(3.0).double() - z[:, :1],
        lambda z: z[:, 0].unsqueeze(1) + z,  # (n, 1) + (n, 2)
        lambda z: z.unsqueeze(1) * (z + 1).unsqueeze(2),  # (n, 1, 2) · (n, 2, 1)
        lambda z: (z.sum(1) * V.sum()).unsqueeze(1) * z,
        lambda z: z[:, 0][:, None, None] * W,  # more axes than the jet
        lambda z: W[:, 0] ** 2 / z[:, :1],
        lambda z: (z[:, 0] + 1) / torch.tensor(3.0),
        lambda z: np.float64(2.0) * z + np.float64(1.0),
    ],
)
def test_broadcasting(function):
    check(function)


@pytest.mark.parametrize(
    ("requested", "channels"),
    [
        ([()], 1),
        ([(0,)], 2),
        ([(1,), (0,)], 3),
        ([(1, 0)], 4),
        ([(1, 1)], 3),
        (FULL, 6),
    ],
)
def test_layout_is_closed_and_no_larger(requested, channels):
    lay = jets.layout(requested)
    assert len(lay) == channels
    check(lambda z: torch.tanh(z @ W.T) * torch.exp(z[:, :1]), requested=requested)


def test_first_and_second_derivatives_of_the_coordinates_themselves():
    jet = jets.seed(POINTS, jets.layout(FULL))
    assert torch.equal(jet.value, POINTS)
    assert torch.equal(
        jet.derivative((1,)), torch.tensor([0.0, 1.0]).double().expand(5, 2)
    )
    assert not jet.derivative((0, 1)).any()


@pytest.mark.parametrize(
    "function",
    [
        torch.relu,
        lambda z: z == 0,
        lambda z: z != 0,
        lambda z: z < 0.5,
        lambda z: z >= 0.5,
        lambda z: 1.0 if z.sum(1) else 2.0,
        abs,
        lambda z: z // 2,
        lambda z: z % 2,
        float,
        lambda z: z.item(),
        lambda z: z.sum(),
        lambda z: torch.sum(z, dim=(0, 1)),
        lambda z: torch.sum(z, axis=1),
        torch.squeeze,
        lambda z: z.mean(1),
        lambda z: z.T,
        lambda z: F.gelu(z, approximate="tanh"),
        lambda z: F.softplus(z, threshold=5.0),
        lambda z: F.silu(z, inplace=True),
        lambda z: z ** torch.tensor(2.0),
        lambda z: torch.div(z, 2, rounding_mode="floor"),
        lambda z: V @ z,
        lambda z: W.double() @ z,
        lambda z: F.linear(W, z),
        lambda z: z.unsqueeze(0)[torch.tensor([0]), :, torch.tensor([1])],
        lambda z: z.__setitem__(0, 1.0),
        lambda z: z + jets.seed(POINTS, jets.layout([(0,)])),
        lambda z: z.add_(1),
    ],
)
def test_what_jets_do_not_carry_is_said(function):
    with pytest.raises(UnsupportedOperation):
        function(jets.seed(POINTS, jets.layout(FULL)))


# --- properties --------------------------------------------------------------------------------

SMOOTH = (
    "tanh",
    "sin",
    "cos",
    "sigmoid",
    "silu",
    "gelu",
    "erf",
    "atan",
    "softplus",
    "square",
)
NUMBER = st.floats(-1.5, 1.5)


@st.composite
def expressions(draw, depth=3):
    """A random smooth function of a (n, 2) tensor, of shape (n,)."""
    if depth == 0 or draw(st.integers(0, 4)) == 0:
        a, b, c = draw(NUMBER), draw(NUMBER), draw(NUMBER)
        return lambda z: a * z[:, 0] + b * z[:, 1] + c
    inner = draw(expressions(depth=depth - 1))
    kind = draw(st.sampled_from(("apply", "add", "mul", "sub", "div")))
    if kind == "apply":
        function = UNARY[draw(st.sampled_from(SMOOTH))]
        return lambda z: function(inner(z))
    other = draw(expressions(depth=depth - 1))
    if kind == "div":
        return lambda z: inner(z) / (2 + torch.sin(other(z)))
    return lambda z: BINARY[kind](inner(z), other(z))


@settings(max_examples=25, deadline=None, derandomize=True)
@given(expressions())
def test_products_and_compositions(function):
    check(function, points=POINTS[:2], tolerance=1e-11)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(expressions(depth=2), expressions(depth=2))
def test_product_commutes_and_leibniz(f, g):
    z = jets.seed(POINTS, jets.layout(FULL))
    one, other = f(z) * g(z), g(z) * f(z)
    torch.testing.assert_close(one.data, other.data, rtol=1e-13, atol=1e-13)
    a, b = f(z).data, g(z).data
    for c, (i, j) in enumerate([(1, 1), (1, 2), (2, 2)], start=3):
        expected = a[c] * b[0] + a[i] * b[j] + a[j] * b[i] + a[0] * b[c]
        torch.testing.assert_close(one.data[c], expected, rtol=1e-12, atol=1e-12)


# --- networks and transforms -------------------------------------------------------------------

NAMES = ("u", "v", "u_x", "u_t", "v_x", "u_xx", "u_xt", "v_tt", "t")


def both_ways(network, names=NAMES, ansatz=None, outputs=("u", "v"), points=POINTS):
    tables = []
    for derivatives in ("jets", "autograd"):
        pointwise = FieldMap(network, ("x", "t"), outputs, ansatz, derivatives)(names)
        tables.append(pointwise(dict(network.named_parameters()), points))
    return tables


@pytest.mark.parametrize("fourier", [None, Fourier(3)])
@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
def test_networks_by_jets_and_by_nested_autograd(activation, fourier):
    network = MLP(
        [2, 8, 8, 2], activation, bounds=[[-1, 0], [2, 3]], fourier=fourier, seed=1
    )
    found, expected = both_ways(network)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(found[:, 8], POINTS[:, 1])


def test_bias_reaches_the_value_alone():
    linear = nn.Linear(2, 2).double()
    found, expected = both_ways(linear)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-15)
    torch.testing.assert_close(found[:, 2], linear.weight[0, 0].expand(5))


def test_ansatz_of_two_outputs():
    def ansatz(x, t, u, v):
        return -torch.sin(math.pi * x) + (1 - x**2) * t * u, torch.exp(-t) * v * u

    found, expected = both_ways(MLP([2, 6, 2], seed=0), ansatz=ansatz)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


class Relu3(nn.Module):
    """A network with an operation jets have no rule for."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(2, 4).double(), nn.Linear(4, 2).double()

    def forward(self, x):
        return self.b(torch.relu(self.a(x)) ** 3)


def test_unsupported_operation_falls_back_exactly_with_one_log_line(caplog):
    torch.manual_seed(0)
    fields.log_once.cache_clear()
    network = Relu3()
    with caplog.at_level(logging.INFO, logger="whence"):
        found, expected = both_ways(network)
        both_ways(network)
    assert torch.equal(found, expected)
    assert [r.message for r in caplog.records if "relu" in r.message] == [
        "derivatives by nested autograd, exact but slower: jets have no rule for "
        "_VariableFunctionsClass.relu"
    ]
    u = lambda z: network(z)[0]  # noqa: E731
    exact = torch.stack([torch.autograd.functional.hessian(u, z)[0, 1] for z in POINTS])
    torch.testing.assert_close(found[:, 6], exact, rtol=1e-12, atol=1e-12)


class Learned(nn.Module):
    """tanh(ax)ᵖ with a learned p: the exponent must keep its gradient."""

    def __init__(self):
        super().__init__()
        self.a, self.p = (
            nn.Linear(2, 1).double(),
            nn.Parameter(torch.tensor(2.5).double()),
        )

    def forward(self, x):
        return torch.exp(self.a(x)) ** self.p


def test_a_learned_exponent_keeps_its_gradient():
    network = Learned()
    tables = both_ways(network, ("u_xx",), outputs=("u",))
    gradients = [torch.autograd.grad(t.sum(), network.p)[0] for t in tables]
    torch.testing.assert_close(*gradients)
    assert float(gradients[0]) != 0


@pytest.fixture(name="pointwise")
def _pointwise():
    network = MLP([2, 6, 1], "gelu", bounds=[[-1, 0], [1, 1]], seed=0)
    tensors = {n: p.detach() for n, p in network.named_parameters()}
    return tensors, FieldMap(network, ("x", "t"), ("u",))(("u", "u_t", "u_xx", "u_xt"))


def test_under_vmap(pointwise):
    tensors, function = pointwise
    each = torch.func.vmap(lambda z: function(tensors, z.unsqueeze(0)).squeeze(0))(
        POINTS
    )
    torch.testing.assert_close(each, function(tensors, POINTS), rtol=1e-13, atol=1e-13)


def test_under_jvp_by_parameters_and_by_points(pointwise):
    tensors, function = pointwise
    direction = {n: torch.ones_like(t) for n, t in tensors.items()}
    _, tangent = torch.func.jvp(lambda t: function(t, POINTS), (tensors,), (direction,))
    rows = torch.func.jacrev(lambda t: function(t, POINTS))(tensors)
    expected = sum(r.flatten(2).sum(2) for r in rows.values())
    torch.testing.assert_close(tangent, expected, rtol=1e-12, atol=1e-12)

    along_t = torch.tensor([0.0, 1.0]).double().expand_as(POINTS)
    _, tangent = torch.func.jvp(lambda z: function(tensors, z), (POINTS,), (along_t,))
    torch.testing.assert_close(tangent[:, 0], function(tensors, POINTS)[:, 1])


def test_iteration_and_repr():
    jet = jets.seed(POINTS, jets.layout([(0,)]))
    assert [tuple(row.shape) for row in jet] == [(2,)] * 5
    assert (len(jet), jet.ndim, jet.size(1), jet.dtype) == (5, 2, 2, torch.float64)
    assert repr(jet) == "Jet(shape=(5, 2), derivatives=((), (0,)))"
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = jet.nonsense


def test_order_of_a_mixed_index_does_not_matter():
    lay = jets.layout([(1, 0)])
    jet = torch.sin(jets.seed(POINTS, lay)[:, 0] * jets.seed(POINTS, lay)[:, 1])
    for a, b in itertools.permutations((0, 1)):
        assert torch.equal(jet.derivative((a, b)), jet.derivative((b, a)))
