"""Jets above second order, against nested ``torch.func`` and closed forms."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.func import jvp, vmap

from whence import jets, ladders, layout, taylor
from whence.jets import Jet

POINTS = 0.2 + 0.7 * torch.rand(
    4, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64
)
W = torch.tensor([[0.3, -0.8], [1.1, 0.4], [-0.6, 0.9]], dtype=torch.float64)
B = torch.tensor([0.2, -0.5, 0.1], dtype=torch.float64)
ORDERS = {
    "u_xxx": (0, 0, 0),
    "u_xxt": (0, 0, 1),
    "u_xxxx": (0, 0, 0, 0),
    "u_xxtt": (0, 0, 1, 1),
    "u_xxxxt": (0, 0, 0, 0, 1),
    "u_xxxxxx": (0,) * 6,
    "u_xxxttt": (0, 0, 0, 1, 1, 1),
}
SEVEN = tuple(ORDERS.values())
UP_TO_FIVE = [index for index in ORDERS.values() if len(index) < 6]
FOURTH = layout.layout([ORDERS["u_xxxx"], ORDERS["u_xxtt"], (1,) * 4])


def nested(function, index):
    """A function of points (n, 2) differentiated along each coordinate in turn."""
    if not index:
        return function
    inner = nested(function, index[1:])

    def derivative(points):
        direction = torch.zeros_like(points)
        direction[:, index[0]] = 1.0
        return jvp(inner, (points,), (direction,))[1]

    return derivative


def check(function, indices=SEVEN, points=POINTS, tolerance=1e-10):
    found = function(jets.seed(points, jets.layout(indices)))
    assert isinstance(found, Jet)
    for index in indices:
        expected = nested(function, index)(points)
        error = (found.derivative(index) - expected).abs().max()
        assert error <= tolerance * expected.abs().max().clamp_min(1.0), index


def inner(z):
    """A function of both coordinates with derivatives of every order."""
    return 1.2 + 0.3 * torch.sin(z[:, 0] + 2 * z[:, 1]) + 0.4 * z[:, 0] * z[:, 1]


FUNCTIONS = {
    **{n: getattr(torch, n) for n in taylor.RULES if hasattr(torch, n)},
    **{n: getattr(F, n) for n in ("silu", "gelu", "softplus")},
    **{f"power {n}": lambda z, n=n: z**n for n in (-2, 0, 1, 2, 3, 7, 0.5, 2.5)},
    "exponent": lambda z: 1.7**z,
    "power of jets": lambda z: z ** torch.sin(z),
}


def test_every_rule_is_tested():
    assert set(taylor.RULES) == set(ladders.RULES)
    assert set(taylor.RULES) <= set(FUNCTIONS)


@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_functions(name):
    check(lambda z: FUNCTIONS[name](inner(z)), UP_TO_FIVE)
    # Of an affine function, whose channels above the first are left out.
    sixth = [ORDERS["u_xxxttt"]]
    check(lambda z: FUNCTIONS[name](1.5 + z @ W.T[:, :2] / 2), sixth, POINTS[:2])


@pytest.mark.parametrize(
    "function",
    [
        lambda z: inner(z) * torch.exp(z[:, 1]),
        lambda z: z[:, :1] * inner(z).unsqueeze(1) * z,  # (n, 1) · (n, 1) · (n, 2)
        lambda z: z.unsqueeze(1) * torch.sin(z).unsqueeze(2),  # (n, 1, 2) · (n, 2, 1)
        lambda z: z[:, 0] ** 2 * (1 - z[:, 0]) ** 2 * z[:, 1] ** 3,
        lambda z: inner(z) / (2 + z[:, 0] * z[:, 1]),
        lambda z: 3.0 / inner(z) - z[:, 0] + torch.tanh(z[:, 1]),
        lambda z: z + torch.sin(z),
        lambda z: z + 1.0,
        lambda z: torch.cat([z, torch.cos(z), torch.ones(len(z), 1).double()], dim=1),
        lambda z: torch.stack([z[:, 0], inner(z)]).sum(0),
        lambda z: F.linear(torch.tanh(F.linear(z, W, B)), W.T, B[:2]),
        lambda z: z[:, 0, None, None] * W,
    ],
)
def test_products_sums_and_shapes(function):
    check(function, UP_TO_FIVE)


def test_sixth_order():
    check(
        lambda z: torch.tanh(inner(z)) * torch.sin(z[:, 1]) / (1 + z[:, 0]),
        points=POINTS[:1],
    )


def test_closed_forms():
    """∂ˣᵃ∂ᵗᵇ of sin(2x − 3t), e^(x − t/2) and x⁵t³ at orders three to six."""
    x, t = POINTS.unbind(1)
    z = jets.seed(POINTS, jets.layout(ORDERS.values()))
    wave = torch.sin(2 * z[:, 0] - 3 * z[:, 1])
    growth = torch.exp(z[:, 0] - 0.5 * z[:, 1])
    monomial = z[:, 0] ** 5 * z[:, 1] ** 3
    for index in ORDERS.values():
        a, b = index.count(0), index.count(1)
        phase = 2 * x - 3 * t + (a + b) * math.pi / 2
        pairs = [
            (wave, 2**a * (-3) ** b * torch.sin(phase)),
            (growth, (-0.5) ** b * torch.exp(x - 0.5 * t)),
            (
                monomial,
                (math.perm(5, a) * math.perm(3, b)) * x ** max(5 - a, 0) * t ** (3 - b),
            ),
        ]
        for jet, expected in pairs:
            error = (jet.derivative(index) - expected).abs().max()
            assert error <= 1e-13 * expected.abs().max().clamp_min(1.0)


@pytest.mark.parametrize("order", [8, 12])
def test_high_orders_of_one_coordinate(order):
    """The derivatives of 1/(1 − x) are k!/(1 − x)ᵏ⁺¹, those of log(1 − x) one order behind."""
    x = torch.tensor([[-0.5], [0.0], [0.3]], dtype=torch.float64)
    z = jets.seed(x, jets.layout([(0,) * order]))
    for k in range(1, order + 1):
        expected = math.factorial(k) / (1 - x) ** (k + 1)
        found = (1 / (1 - z)).derivative((0,) * k)
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)
        found = (1 - z).log().derivative((0,) * k)
        torch.testing.assert_close(
            found, -math.factorial(k - 1) / (1 - x) ** k, rtol=1e-12, atol=0
        )


@pytest.mark.parametrize("name", ["tanh", "sigmoid", "reciprocal", "exp", "sin", "cos"])
def test_recurrences_are_the_formula_of_faa_di_bruno(name):
    data = 0.3 + torch.rand(len(FOURTH), 5, 3).double()
    for channels in (len(FOURTH), FOURTH.n_affine):
        u = data[:channels].unbind(0)
        request = taylor.Request.anywhere(FOURTH, all_slopes=True)
        ours = taylor.RULES[name](u, request)
        theirs = taylor.by_ladder(ladders.RULES[name])(u, request)
        for found, expected in zip(ours, theirs, strict=True):
            torch.testing.assert_close(
                torch.stack(found), torch.stack(expected), rtol=1e-11, atol=1e-11
            )


CARRIES = {**taylor.RULES, "power": taylor.power(2.5), "cube": taylor.power(3.0)}


def composed(carry, data):
    request = taylor.Request.anywhere(FOURTH, all_slopes=False)
    return torch.stack(carry(data.unbind(0), request)[0])


@pytest.mark.parametrize("channels", [len(FOURTH), FOURTH.n_affine])
@pytest.mark.parametrize("name", sorted(CARRIES))
def test_the_fused_rule_and_its_derivatives_are_the_composed_ones(name, channels):
    carry = CARRIES[name]
    generator = torch.Generator().manual_seed(1)
    data = 0.4 + torch.rand(channels, 5, 3, generator=generator, dtype=torch.float64)
    weights = torch.randn(len(FOURTH), 5, 3, generator=generator, dtype=torch.float64)
    results, kinds = [], []
    for function in (taylor.apply, lambda c, d, _: composed(c, d)):
        u = data.clone().requires_grad_()
        out = function(carry, u, FOURTH)
        (plain,) = torch.autograd.grad(out, u, weights, retain_graph=True)
        (first,) = torch.autograd.grad(out, u, weights, create_graph=True)
        (second,) = torch.autograd.grad((first**2).sum(), u)
        results.append([t.detach() for t in (out, plain, first, second)])
        kinds.append(type(out.grad_fn).__name__)
    assert kinds == ["_CompositionBackward", "StackBackward0"]
    for ours, theirs in zip(*results, strict=True):
        scale = theirs.abs().max()
        assert float((ours - theirs).abs().max()) <= 1e-12 * float(scale)
    # Without a gradient the slope is not made, and the values are the same.
    with torch.no_grad():
        out = taylor.apply(carry, data, FOURTH)
    assert (out - results[0][0]).abs().max() <= 1e-15 * out.abs().max()


def test_the_fused_product_and_its_derivatives_are_the_composed_ones():
    a = torch.randn(len(FOURTH), 5, 3).double()
    b = torch.randn(len(FOURTH), 1, 3).double()
    weights = torch.randn(len(FOURTH), 5, 3).double()

    def by_hand(a, b):
        parts = [sum(n * a[i] * b[j] for n, i, j in terms) for terms in FOURTH.products]
        return torch.stack(parts)

    results = []
    for function in (lambda a, b: (Jet(a, FOURTH) * Jet(b, FOURTH)).data, by_hand):
        inputs = [a.clone().requires_grad_(), b.clone().requires_grad_()]
        out = function(*inputs)
        plain = torch.autograd.grad(out, inputs, weights, retain_graph=True)
        first = torch.autograd.grad(out**2, inputs, weights, create_graph=True)
        second = torch.autograd.grad(sum((f**2).sum() for f in first), inputs)
        results.append([out, *plain, *first, *second])
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


def test_vmap_and_forward_mode_take_the_composed_rules():
    def value(points):
        z = jets.seed(points, jets.layout([(0, 0, 1, 1)]))
        u = torch.tanh(z @ W.T).sum(-1) * torch.sin(z[..., 0])
        return u.derivative((0, 0, 1, 1))

    each = vmap(lambda p: value(p.unsqueeze(0))[0])(POINTS)
    torch.testing.assert_close(each, value(POINTS), rtol=1e-13, atol=1e-13)
    along_t = torch.tensor([0.0, 1.0]).double().expand_as(POINTS)
    tangent = jvp(value, (POINTS,), (along_t,))[1]
    z = jets.seed(POINTS, jets.layout([(0, 0, 1, 1, 1)]))
    expected = torch.tanh(z @ W.T).sum(-1) * torch.sin(z[:, 0])
    torch.testing.assert_close(tangent, expected.derivative((0, 0, 1, 1, 1)))


def test_channels_that_vanish_are_left_out_until_they_do_not():
    z = jets.seed(POINTS, FOURTH)
    affine = F.linear(2 * z + 1, W, B)[:, :2] + z
    assert len(z.data) == len(affine.data) == 3
    assert torch.equal(affine.derivative((0, 0, 1, 1)), torch.zeros(4, 2).double())
    assert len((affine * z).data) == len(torch.sin(affine).data) == len(FOURTH)


def test_derivatives_too_many_to_carry_are_said():
    with pytest.raises(jets.UnsupportedOperation, match="at most 128 derivatives"):
        jets.layout([tuple(range(8))])


UNARY = [torch.tanh, torch.sin, torch.exp, torch.sigmoid, torch.atan, F.silu, F.gelu]


@st.composite
def expressions(draw, depth=3):
    """A random smooth function of points (n, 2), of shape (n,), of moderate size."""
    if depth == 0 or draw(st.integers(0, 4)) == 0:
        a, b = draw(st.floats(-1, 1)), draw(st.floats(-1, 1))
        return lambda z: a * z[:, 0] + b * z[:, 1] + 0.1
    f = draw(expressions(depth=depth - 1))
    kind = draw(st.sampled_from(("apply", "product", "quotient")))
    if kind == "apply":
        function = draw(st.sampled_from(UNARY))
        return lambda z: function(f(z))
    g = draw(expressions(depth=depth - 1))
    if kind == "product":
        return lambda z: f(z) * g(z)
    return lambda z: f(z) / (2 + torch.sin(g(z)))


@settings(max_examples=12, deadline=None, derandomize=True)
@given(expressions())
def test_random_compositions(function):
    check(function, [(0, 0, 0), (0, 0, 1, 1), (0, 0, 0, 1)], points=POINTS[:2])
