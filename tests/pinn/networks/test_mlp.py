import copy
import itertools
import math
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from whence.pinn.networks import ACTIVATIONS, MLP, Fourier


def inputs(n=7, d=2, dtype=torch.float64):
    return torch.rand(n, d, generator=torch.Generator().manual_seed(0), dtype=dtype)


@settings(max_examples=30, deadline=None)
@given(
    layers=st.lists(st.integers(1, 9), min_size=2, max_size=5),
    activation=st.sampled_from(sorted(ACTIVATIONS)),
    features=st.none() | st.integers(1, 5),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    bounded=st.booleans(),
)
def test_shape_dtype_and_parameter_count(layers, activation, features, dtype, bounded):
    bounds = [[0.0] * layers[0], [2.0] * layers[0]] if bounded else None
    fourier = None if features is None else Fourier(features)
    network = MLP(layers, activation, bounds, fourier, seed=0, dtype=dtype)
    y = network(inputs(5, layers[0], dtype))
    assert y.shape == (5, layers[-1])
    assert y.dtype == dtype
    widths = [2 * features, *layers[1:]] if features else layers
    expected = sum(a * b + b for a, b in itertools.pairwise(widths))
    assert sum(p.numel() for p in network.parameters()) == expected
    assert network.layers == tuple(layers)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_network_is_what_it_says(activation):
    bounds = torch.tensor([[-1.0, 0.0], [3.0, 0.5]])
    network = MLP(
        [2, 6, 5, 3], activation, bounds, Fourier(4, 0.7), seed=1, scale_to=(0, 2)
    )
    x = inputs()
    scaled = 2 * (x - bounds[0]) / (bounds[1] - bounds[0])
    angles = scaled @ network.frequencies.T
    layers = [torch.cat([angles.sin(), angles.cos()], dim=1)]
    for k, linear in enumerate(network.linears):
        y = layers[-1] @ linear.weight.T + linear.bias
        layers.append(ACTIVATIONS[activation](y) if k < 2 else y)
    assert torch.allclose(network(x), layers[-1], rtol=1e-13)


def test_initialisation_is_glorot_normal():
    network = MLP([100, 300, 100], seed=0)
    for linear in network.linears:
        assert linear.weight.std().item() == pytest.approx(math.sqrt(2 / 400), rel=0.02)
        assert abs(linear.weight.mean().item()) < 2e-3
        assert not linear.bias.any()
    scale = float(MLP([50, 1], fourier=Fourier(200, 3.0), seed=0).frequencies.std())
    assert scale == pytest.approx(2 * math.pi * 3, rel=0.03)


def test_seed_decides_the_parameters_and_leaves_the_global_state():
    state = torch.get_rng_state()
    first, again, other = (
        MLP([2, 8, 1], fourier=Fourier(3), seed=s) for s in (5, 5, 6)
    )
    single = MLP([2, 8, 1], fourier=Fourier(3), seed=5, dtype=torch.float32)
    assert torch.equal(state, torch.get_rng_state())
    x = inputs()
    assert torch.equal(first(x), again(x))
    assert not torch.allclose(first(x), other(x))
    assert torch.allclose(first(x).float(), single(x.float()), atol=1e-5)


def test_without_a_seed_the_global_state_decides():
    torch.manual_seed(0)
    first, second = MLP([2, 4, 1]), MLP([2, 4, 1])
    torch.manual_seed(0)
    assert torch.equal(MLP([2, 4, 1])(inputs()), first(inputs()))
    assert not torch.equal(first(inputs()), second(inputs()))


def test_bounds_are_scaled_to_the_range():
    bounds = np.array([[-1.0, 10.0], [1.0, 30.0]])
    corners = torch.from_numpy(bounds)
    for scale_to in ((-1.0, 1.0), (0.0, 1.0)):
        network = MLP([2, 2], bounds=bounds, seed=0, scale_to=scale_to)
        with torch.no_grad():
            network.linears[0].weight.copy_(torch.eye(2))
        assert torch.allclose(
            network(corners), torch.tensor(scale_to).double()[:, None]
        )
        assert torch.equal(network.bounds, corners)


def test_state_carries_buffers_and_nothing_else_trains():
    network = MLP([2, 4, 1], bounds=[[0, 0], [1, 2]], fourier=Fourier(3), seed=0)
    other = MLP([2, 4, 1], bounds=[[5, 5], [6, 7]], fourier=Fourier(3), seed=1)
    assert {"slope", "offset", "frequencies"} <= set(network.state_dict())
    assert all("linears" in name for name, _ in network.named_parameters())
    other.load_state_dict(network.state_dict())
    for clone in (other, copy.deepcopy(network), pickle.loads(pickle.dumps(network))):
        assert torch.equal(clone(inputs()), network(inputs()))


class Spy:
    """Records the functions called on it, as a carrier of derivatives would receive them."""

    def __init__(self, value, seen):
        self.value, self.seen = value, seen

    @property
    def shape(self):
        return self.value.shape

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        def plain(a):
            if isinstance(a, cls):
                spies.append(a)
                return a.value
            return [plain(b) for b in a] if isinstance(a, (list, tuple)) else a

        spies = []
        args = [plain(a) for a in args]
        result = function(*args, **{k: plain(v) for k, v in (kwargs or {}).items()})
        spies[0].seen.add(function.__name__)
        return cls(result, spies[0].seen)

    def __mul__(self, other):
        return torch.mul(self, other)

    def __add__(self, other):
        return torch.add(self, other)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_forward_uses_few_functions(activation):
    network = MLP([2, 4, 1], activation, [[0, 0], [1, 2]], Fourier(3), seed=0)
    seen = set()
    y = network(Spy(inputs(), seen))
    assert torch.equal(y.value, network(inputs()))
    assert seen == {"mul", "add", "linear", "sin", "cos", "cat", activation}


def test_derivatives_exist_under_transforms():
    network = MLP([2, 8, 1], "gelu", [[0, 0], [1, 2]], Fourier(3), seed=0)
    x = inputs()
    rows = torch.func.vmap(torch.func.jacrev(network))(x)
    x.requires_grad_()
    (whole,) = torch.autograd.grad(network(x).sum(), x)
    assert torch.allclose(rows[:, 0], whole)


def test_repr_says_what_differs_from_the_defaults():
    assert repr(MLP([2, 3, 1])) == "MLP([2, 3, 1], activation='tanh', parameters=13)"
    network = MLP(
        (1, 2),
        "sin",
        [[0], [1]],
        Fourier(2, 0.5),
        dtype=torch.float32,
        scale_to=(0, 1),
    )
    assert repr(network) == (
        "MLP([1, 2], activation='sin', bounds=[[0.0], [1.0]], scale_to=(0.0, 1.0), "
        "fourier=Fourier(features=2, scale=0.5), dtype=torch.float32, parameters=10)"
    )
    assert (network.activation, network.scale_to) == ("sin", (0.0, 1.0))
    assert network.fourier == Fourier(2, 0.5)
    assert isinstance(network, nn.Module)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MLP([2]), r"at least two widths.*got \[2\]"),
        (lambda: MLP(3), "at least two widths.*got 3"),
        (lambda: MLP([2, 0, 1]), r"layers\[1\] must be a positive integer, got 0"),
        (lambda: MLP([2, 2.0]), r"layers\[1\] must be a positive integer, got 2.0"),
        (
            lambda: MLP([2, 1], "tanhh"),
            "unknown activation 'tanhh' .did you mean 'tanh'",
        ),
        (lambda: MLP([2, 1], bounds=[[0], [1]]), r"shape \(2, 2\).*got \(2, 1\)"),
        (
            lambda: MLP([2, 1], bounds=[[0, 3], [1, 2]]),
            r"low < high: input 1 has \[3.0, 2.0\]",
        ),
        (lambda: MLP([1, 1], bounds=[[0], [math.nan]]), "must be finite"),
        (lambda: MLP([1, 1], scale_to=(1, 0)), r"scale_to must be .*got \(1, 0\)"),
        (lambda: MLP([1, 1], scale_to=(0, 1, 2)), "two finite numbers"),
        (
            lambda: MLP([1, 1], dtype=torch.int64),
            "floating-point torch.dtype, got torch.int64",
        ),
        (lambda: MLP([1, 1], seed=-1), "seed must be a non-negative integer, got -1"),
        (lambda: Fourier(0), "features must be a positive integer, got 0"),
        (lambda: Fourier(3, scale=0.0), "scale must be a positive number"),
        (
            lambda: MLP([2, 1])(torch.zeros(4, 1).double()),
            r"shape \(n, 2\), got \(4, 1\)",
        ),
    ],
)
def test_mistakes_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_fourier_must_be_its_own_class():
    with pytest.raises(TypeError, match="fourier must be a Fourier or None, got 64"):
        MLP([1, 1], fourier=64)
