"""Plans of functions: made once, kept for all chunks, and made again where one does not fit."""

import pytest
import torch
from torch import nn
from torch.func import functional_call

from whence import recording
from whence.parameters import Parameters
from whence.recorder import record


class Language(nn.Module):
    """A table of positions that all samples share, and a layer of all tokens' rows."""

    def __init__(self):
        super().__init__()
        self.places, self.head = nn.Embedding(9, 3), nn.Linear(3, 2)

    def forward(self, x):
        h = x.unsqueeze(-1) + self.places(torch.arange(x.shape[1]))
        return self.head(h.flatten(0, 1)).view(len(x), -1)


@pytest.fixture
def counted(monkeypatch):
    """How often a function is run."""
    runs = []

    def counting(*given):
        runs.append(len(given[2]))
        return record(*given)

    monkeypatch.setattr(recording, "record", counting)
    return runs


def made():
    torch.manual_seed(0)
    network = Language().double()
    return lambda t, z: functional_call(network, t, (z,)), Parameters(network)


def test_a_plan_is_made_once(counted):
    function, parameters = made()
    x = torch.randn(5, 4, dtype=torch.float64)
    first = recording.recorded(function, parameters, x)
    # At several points and at one, and again with the table repeated.
    assert counted == [5, 1, 5, 1]
    assert not first.outside
    assert not first.is_plain

    counted.clear()
    for chunk in (x, x[:1], x[1:4]):
        assert len(recording.recorded(function, parameters, chunk).calls) == 2
    assert counted == [5, 1, 3]


def test_another_length_makes_another_plan(counted):
    function, parameters = made()
    recording.recorded(function, parameters, torch.randn(5, 4, dtype=torch.float64))
    counted.clear()
    longer = torch.randn(5, 7, dtype=torch.float64)
    assert not recording.recorded(function, parameters, longer).outside
    # As it was repeated before, without that, at one point, and as it is repeated now.
    assert counted == [5, 5, 1, 5, 1]
    counted.clear()
    recording.recorded(function, parameters, longer[:2])
    assert counted == [2]


def test_a_single_point_is_taken_twice(counted):
    function, parameters = made()
    alone = recording.recorded(
        function, parameters, torch.randn(1, 4, dtype=torch.float64)
    )
    assert not alone.outside
    assert counted == [1, 1, 2, 2, 1, 1]
    assert alone.value.shape == (1, 8)


def test_calls_have_points_in_front():
    function, parameters = made()
    x = torch.randn(5, 4, dtype=torch.float64)
    by_name = {c.weight: c for c in recording.recorded(function, parameters, x).calls}
    assert by_name["head.weight"].source.shape == (5, 4, 3)
    assert by_name["places.weight"].source.shape == (5, 4)
