"""Models that couple the samples of a batch are refused; those that do not are not."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import whence as wh

COUPLED = {
    "mean": lambda z: z - z.mean(0),
    "variance": lambda z: z / z.std(0),
    "softmax": lambda z: z.softmax(0),
    "cumulative sum": lambda z: z.cumsum(0),
    "flip": lambda z: z.flip(0),
    "roll": lambda z: z.roll(1, 0),
    "largest": lambda z: z / z.abs().max(),
    "normalization": lambda z: F.batch_norm(z, None, None, training=True),
    "weakly": lambda z: z + 0.01 * z.mean(0),
    "last": lambda z: z - z[-1:],
}
APART = {
    "softmax": lambda z: z.softmax(1),
    "layer norm": lambda z: F.layer_norm(z, (3,)),
    "large": lambda z: 1e6 * z + 1e6,
    "cancelling": lambda z: (z + 1e3) - 1e3,
    "constant": lambda z: 0 * z,
}


class Ending(nn.Module):
    def __init__(self, end):
        super().__init__()
        torch.manual_seed(0)
        self.end = end
        self.body = nn.Sequential(nn.Linear(2, 40), nn.Tanh(), nn.Linear(40, 3))

    def forward(self, x):
        return self.end(self.body(x))


def made(end, dtype, n=7):
    x = torch.randn(n, 2, dtype=dtype, generator=torch.Generator().manual_seed(1))
    data = x, torch.arange(n) % 3
    return wh.Objective.supervised(Ending(end).to(dtype), data, nn.CrossEntropyLoss())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", COUPLED)
@pytest.mark.parametrize("n", [2, 7, 1500])
def test_coupled_models_are_refused(name, dtype, n):
    with pytest.raises(
        ValueError, match=r"couples the points of a batch|samples alone"
    ):
        made(COUPLED[name], dtype, n)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", APART)
def test_no_false_alarms(name, dtype):
    for n in (1, 2, 1500):
        made(APART[name], dtype, n)


def test_no_false_alarm_of_a_deep_network_in_single_precision():
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 16, 3, padding=1)]
    for _ in range(12):
        layers += [nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1)]
    model = nn.Sequential(*layers, nn.Flatten(), nn.Linear(16 * 64, 5))
    x = torch.randn(40, 3, 8, 8)
    wh.Objective.supervised(model, (x, torch.arange(40) % 5), nn.CrossEntropyLoss())


@pytest.mark.parametrize("layer", [nn.BatchNorm1d, nn.BatchNorm2d])
def test_batch_normalization_without_running_statistics_is_named(layer):
    torch.manual_seed(0)
    shape = (3,) if layer is nn.BatchNorm1d else (3, 4, 4)
    body = nn.Linear(3, 3) if len(shape) == 1 else nn.Conv2d(3, 3, 1)
    data = torch.randn(8, *shape), torch.arange(8) % 3

    def model(tracked):
        norm = layer(3, track_running_stats=tracked)
        return nn.Sequential(body, norm, nn.Flatten(), nn.LazyLinear(3))

    for tracked in (True, False):
        network = model(tracked)
        network.eval()(data[0])
        if tracked:
            wh.Objective.supervised(network, data, nn.CrossEntropyLoss())
            continue
        with pytest.raises(ValueError, match=r"running statistics \('1'\)"):
            wh.Objective.supervised(network, data, nn.CrossEntropyLoss())
