"""Convolutions through ``linearize``: their rows and products against plain derivatives."""

import oracles
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call, jacrev, vmap

from whence import layers, linearization
from whence.jacobian import Jacobian, Rows
from whence.linearization import linearize
from whence.ntk import TangentKernel
from whence.objective import Objective
from whence.parameters import Parameters
from whence.term import Term

LAYERS, FUNCTION = (
    linearization.LayerLinearization,
    linearization.FunctionLinearization,
)
N = 5


def random(*shape, seed=0):
    return torch.randn(
        shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def of_network(network):
    return lambda tensors, z: functional_call(network, tensors, (z,))


def agrees(network, path=LAYERS, function=None, points=None, select=None):
    """Check every product against ``jacrev`` at one point at a time."""
    network = network.double()
    points = random(N, 36) if points is None else points
    function = function or of_network(network)
    parameters = Parameters(network, select)
    rows = vmap(
        lambda z: jacrev(
            lambda t: function(parameters.substituted(t), z.unsqueeze(0))[0]
        )(parameters.vector())
    )(points).detach()
    found = linearize(function, parameters, points)
    assert type(found) is path
    cotangent, vectors, weights = (
        random(*rows.shape[:2]),
        random(parameters.size, 3),
        random(N, 2),
    )
    expected = torch.einsum("nmp,nm->np", rows, cotangent)
    oracles.close(found.rows(cotangent), expected, 1e-12)
    oracles.close(
        found.rows(cotangent, out=torch.full_like(expected, 7.0)), expected, 1e-12
    )
    oracles.close(found.matvec(vectors, cotangent), expected @ vectors, 1e-12)
    oracles.close(found.rmatvec(cotangent), expected.sum(0), 1e-12)
    oracles.close(found.rmatmat(weights, cotangent), expected.T @ weights, 1e-12)
    if path is LAYERS:
        whole = torch.zeros_like(expected)
        for factor in Rows(found, [cotangent]).factors():
            whole[:, factor.columns] += factor.rows()
        oracles.close(whole, expected, 1e-12)
        # All points at once, and one at a time.
        for numbers in (linearization.LAYER_NUMBERS, 1):
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(linearization, "LAYER_NUMBERS", numbers)
                product = found.matmat(vectors, cotangent)
            oracles.close(product, expected @ vectors, 1e-12)
    return rows


def image(*layers, channels=1):
    """Layers behind points of 36 numbers as images."""
    size = {1: (1, 6, 6), 4: (4, 3, 3)}[channels]
    return nn.Sequential(nn.Unflatten(1, size), *layers, nn.Flatten())


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"padding": 1},
        {"padding": (1, 2), "stride": (2, 1)},
        {"dilation": 2},
        {"dilation": (1, 2), "padding": 2, "stride": 2},
        {"bias": False},
        {"padding": 1, "padding_mode": "circular"},
        {"padding": 1, "padding_mode": "replicate", "stride": (1, 3)},
    ],
)
@pytest.mark.parametrize("kernel", [3, (1, 2)])
def test_two_dimensions(kernel, options):
    agrees(image(nn.Conv2d(1, 4, kernel, **options), nn.Tanh(), nn.Conv2d(4, 2, 2)))


def test_a_kernel_of_one_and_one_of_the_whole_image():
    agrees(image(nn.Conv2d(4, 3, 1), nn.Tanh(), nn.Conv2d(3, 2, 3), channels=4))


@pytest.mark.parametrize("options", [{}, {"padding": 2, "stride": 3}, {"dilation": 2}])
def test_one_dimension(options):
    network = nn.Sequential(
        nn.Unflatten(1, (3, 12)),
        nn.Conv1d(3, 4, 3, **options),
        nn.Tanh(),
        nn.Conv1d(4, 2, 2),
    )
    agrees(nn.Sequential(network, nn.Flatten()))


class Residual(nn.Module):
    """Convolutions, normalization with fixed statistics, pooling and a shortcut."""

    def __init__(self):
        super().__init__()
        self.first, self.second = (
            nn.Conv2d(1, 4, 3, padding=1),
            nn.Conv2d(4, 4, 3, padding=1),
        )
        self.norm = nn.BatchNorm2d(4)
        self.norm.running_mean.normal_()
        self.norm.running_var.uniform_(0.5, 2.0)
        self.relu = nn.ReLU(inplace=True)
        self.pool, self.mean = nn.MaxPool2d(2), nn.AdaptiveAvgPool2d(2)
        self.head = nn.Linear(16, 3)
        self.eval()

    def forward(self, x):
        hidden = self.pool(self.relu(self.norm(self.first(x.unflatten(1, (1, 6, 6))))))
        hidden = hidden + torch.tanh(self.second(hidden))
        return self.head(self.mean(hidden).flatten(1))


def test_a_small_residual_network():
    agrees(Residual(), select=lambda name, _: not name.startswith("norm"))
    agrees(Residual())
    frozen = Residual()
    frozen.norm.requires_grad_(False)
    agrees(frozen)
    agrees(Residual(), select="second.weight")
    agrees(Residual(), select="*.bias")
    agrees(Residual(), select="first.bias")


def test_a_convolution_used_twice_and_an_activation_in_place():
    conv = nn.Conv2d(1, 1, 3, padding=1)
    agrees(
        image(
            conv, nn.ReLU(inplace=True), conv, nn.ELU(inplace=True), nn.Conv2d(1, 2, 2)
        )
    )
    tied = image(
        nn.Conv2d(1, 2, 3), nn.Tanh(), nn.Conv2d(2, 2, 3), nn.Tanh(), nn.Conv2d(2, 2, 1)
    )
    tied[5].bias = tied[3].bias
    agrees(tied)


def test_called_by_names():
    class Named(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.head = nn.Conv2d(1, 2, 3), nn.Linear(16, 2)

        def forward(self, x):
            x = x.unflatten(1, (1, 6, 6))
            x = F.conv2d(
                input=x,
                weight=self.conv.weight,
                bias=self.conv.bias,
                padding=1,
                stride=2,
            )
            x = F.avg_pool2d(torch.tanh(x), 1).flatten(1)
            return F.linear(
                input=x[:, :16], weight=self.head.weight, bias=self.head.bias
            )

    agrees(Named())


def of_axes(axes, *layers):
    """Layers behind points as lines of 36, images of 6 × 6 or volumes of 2 × 3 × 6 numbers."""
    size = {1: (36,), 2: (6, 6), 3: (2, 3, 6)}[axes]
    return nn.Sequential(nn.Unflatten(1, (1, *size)), *layers, nn.Flatten())


@pytest.mark.parametrize(
    "options",
    [{}, {"padding": 1, "stride": (1, 2, 2)}, {"padding": 1, "bias": False}],
)
def test_three_dimensions(options):
    agrees(
        of_axes(3, nn.Conv3d(1, 3, 2, **options), nn.Tanh(), nn.Conv3d(3, 2, (1, 2, 1)))
    )
    agrees(of_axes(3, nn.Conv3d(1, 4, 2), nn.Conv3d(4, 2, (1, 1, 2), groups=2)))


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"padding": 1, "bias": False},
        {"stride": 2, "output_padding": 1},
        {"stride": 2, "dilation": 3, "output_padding": 2, "padding": 1},
        {"dilation": 2, "groups": 2},
    ],
)
def test_transposed_convolutions(axes, options):
    kind = getattr(nn, f"ConvTranspose{axes}d")
    before = getattr(nn, f"Conv{axes}d")(1, 2, 1)
    network = of_axes(axes, before, nn.Tanh(), kind(2, 2, 2, **options))
    agrees(network)


def test_a_transposed_convolution():
    agrees(image(nn.ConvTranspose2d(4, 2, 2), channels=4))


def test_one_image_at_a_time_stays_general():
    """The points are the channels of a single image."""
    network = nn.Conv2d(1, 1, 1)

    def function(tensors, z):
        images = [functional_call(network, tensors, (p.view(1, 6, 6),)) for p in z]
        return torch.stack(images).flatten(1)

    agrees(network, FUNCTION, function)


def test_a_kernel_from_other_parameters_stays_general():
    class Dynamic(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(1, 2, 3)

        def forward(self, x):
            return F.conv2d(x.unflatten(1, (1, 6, 6)), 2 * self.conv.weight).flatten(1)

    agrees(Dynamic(), FUNCTION, select="conv.weight")


def test_input_derivatives_of_a_convolution_stay_general():
    network = image(nn.Conv2d(1, 2, 3), nn.Tanh()).double()
    head = torch.func.jacfwd

    def function(tensors, z):
        f = lambda p: functional_call(network, tensors, (p.unsqueeze(0),))[0]  # noqa: E731
        return vmap(lambda p: head(f)(p)[:, 0])(z)

    agrees(network, FUNCTION, function)


@pytest.mark.parametrize("scaled", [False, True])
def test_the_jacobian_of_an_objective(scaled, monkeypatch):
    monkeypatch.setattr(
        layers, "BLOCK_BYTES", 8 * 500
    )  # patches of two images at a time
    network = Residual().double()
    points = random(11, 36)
    chosen = lambda name, _: not name.startswith("norm")  # noqa: E731
    parameters = Parameters(network, chosen)
    function = of_network(network)
    objective = Objective(network, [Term("data", function, points)], select=chosen)
    expected = vmap(
        lambda z: jacrev(
            lambda t: function(parameters.substituted(t), z.unsqueeze(0))[0]
        )(parameters.vector())
    )(points).flatten(0, 1)
    expected = expected * (2 / 11) ** 0.5 if scaled else expected
    found = Jacobian(objective, scaled=scaled, chunk=4)
    u, v = random(33), random(parameters.size)
    oracles.close(found.dense(), expected, 1e-12)
    oracles.close(found.matvec(v), expected @ v, 1e-12)
    oracles.close(found.rmatvec(u), expected.T @ u, 1e-12)
    oracles.close(
        found.normal_product(v.unsqueeze(1)).squeeze(1),
        expected.T @ (expected @ v),
        1e-12,
    )
    kernel = TangentKernel(objective, scaled=scaled)
    oracles.close(kernel.gram, expected @ expected.T, 1e-12)
    oracles.close(kernel.dense(), expected, 1e-12)


def test_float32_and_uses():
    network = image(nn.Conv2d(1, 2, 3, padding=1)).float()
    points = random(N, 36).float()
    found = linearize(of_network(network), Parameters(network), points)
    assert found.layers == [("1.weight", "1.bias", True)]
    cotangent = torch.ones(N, 72)
    assert found.rows(cotangent).dtype == torch.float32
    (use,) = found.uses(cotangent)
    left, right, reached = use.at(slice(1, 3))
    assert (use.channels, left.shape, right.shape) == (36, (2, 36, 2), (2, 36, 9))
    assert reached.shape == (36, 1)
    rows = (left.mT @ right).flatten(1)
    oracles.close(rows, found.rows(cotangent)[1:3, :18], 1e-5)
