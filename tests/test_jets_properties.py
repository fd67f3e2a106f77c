"""Jets through random compositions of operations, against nested ``torch.func`` derivatives."""

import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.func import jacrev, vmap

from whence import jets
from whence.jets import Jet

SECOND = ((0, 0), (0, 1), (1, 1))
NUMBERS = st.floats(-2, 2).filter(lambda v: abs(v) > 1e-3)

UNARY = {
    name: getattr(torch, name)
    for name in ("tanh", "sin", "cos", "sigmoid", "erf", "atan")
}
UNARY |= {name: getattr(F, name) for name in ("silu", "gelu", "softplus")}
UNARY |= {
    "square": torch.square,
    "exp": lambda a: torch.exp(torch.sin(a)),
    "log": lambda a: torch.log(2 + torch.cos(a)),
    "sqrt": lambda a: torch.sqrt(1.5 + torch.sin(a)),
    "reciprocal": lambda a: torch.reciprocal(3 + torch.cos(a)),
    "cube": lambda a: torch.tanh(a) ** 3,
    "negative": lambda a: -a,
    "sinh": lambda a: torch.sinh(torch.sin(a)),
    "cosh": lambda a: torch.cosh(torch.sin(a)),
}
BINARY = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: torch.tanh(a) * b,
    "/": lambda a, b: a / (2 + torch.sin(b)),
}


def linear(weights):
    """A layer on two values, summed back to one through ``cat`` and a slice."""
    matrix = torch.tensor(weights, dtype=torch.float64).view(2, 2)

    def apply(a, b):
        both = torch.cat([a.unsqueeze(-1), b.unsqueeze(-1)], dim=-1)
        out = F.linear(both, matrix, matrix[0])
        return out[..., 0] * torch.sin(out[..., 1])

    return apply


def compositions(values):
    """Strategies of functions of z (..., 2), built from functions ``values``."""
    unary = st.builds(
        lambda f, a: lambda z: f(a(z)), st.sampled_from([*UNARY.values()]), values
    )
    layers = st.lists(NUMBERS, min_size=4, max_size=4).map(linear)
    joined = st.one_of(st.sampled_from([*BINARY.values()]), layers)
    binary = st.builds(lambda f, a, b: lambda z: f(a(z), b(z)), joined, values, values)
    scaled = st.builds(lambda a, c: lambda z: c * a(z) + c, values, NUMBERS)
    return st.one_of(unary, binary, scaled)


COORDINATES = st.sampled_from([lambda z: z[..., 0], lambda z: z[..., 1]])
FUNCTIONS = st.recursive(COORDINATES, compositions, max_leaves=6)
POINTS = st.lists(
    st.tuples(st.floats(-2, 2), st.floats(-2, 2)), min_size=1, max_size=3
).map(lambda rows: torch.tensor(rows, dtype=torch.float64))


@settings(deadline=None, max_examples=80)
@given(FUNCTIONS, POINTS, st.sets(st.sampled_from(SECOND), min_size=1))
def test_random_compositions_have_exact_derivatives(function, points, wanted):
    found = function(jets.seed(points, jets.layout(wanted)))
    assert isinstance(found, Jet)
    gradient = jacrev(function)
    slopes, curvature = vmap(gradient)(points), vmap(jacrev(gradient))(points)
    expected = {(): vmap(function)(points)}
    expected |= {(i,): slopes[:, i] for i in (0, 1)}
    expected |= {(i, j): curvature[:, i, j] for i, j in SECOND}
    largest = max(1.0, *(float(values.abs().max()) for values in expected.values()))
    assert set(wanted) <= set(found.layout.indices)
    for index in found.layout.indices:
        error = float((found.derivative(index) - expected[index]).abs().max())
        assert error <= 1e-10 * largest, (index, error)
