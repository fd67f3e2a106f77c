"""Models that cannot be explained as they are, each named with what to do; how many fit at once."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader

import whence as wh
from whence.model_checks import samples_at_once
from whence.samples import Samples
from whence.supervised import ModelFunction

X, Y = torch.randn(6, 3), torch.arange(6) % 2


class Through(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.a, self.function = nn.Linear(3, 2), function

    def forward(self, x, **others):
        return self.function(self, x, **others)


def written(m, x):
    x += 1.0
    return m.a(x)


def clamped(m, x):
    return m.a(F.relu(x, inplace=True))


def dropped(m, x):
    return F.dropout(m.a(x))


def noisy(m, x):
    return m.a(x + torch.randn_like(x))


CASES = {
    "adds to its input": (written, r"changes its input number 0 in place.*x\.clone"),
    "rectifies its input": (clamped, "inplace=True on the input itself"),
    "drops in evaluation mode": (dropped, r"training=self\.training"),
    "noise": (noisy, "draws random numbers"),
    "centers the batch": (
        lambda m, x: m.a(x - x.mean(0)),
        "couples the points of a batch",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_models_that_are_refused(name):
    torch.manual_seed(0)
    function, message = CASES[name]
    inputs = X.clone()
    with pytest.raises(ValueError, match=message):
        wh.Objective.supervised(Through(function), (inputs, Y), nn.CrossEntropyLoss())


def test_noise_is_seen_at_a_single_sample():
    """Dropout may draw the same twice."""
    torch.manual_seed(0)
    with pytest.raises(ValueError, match=r"draws random numbers.*from call to call"):
        wh.Objective.supervised(Through(noisy), (X[:1], Y[:1]), nn.CrossEntropyLoss())


def test_an_input_by_name_is_named():
    def forward(m, x, mask):
        mask.zero_()
        return m.a(x)

    data = {"x": X, "mask": torch.ones(6), "labels": Y}
    with pytest.raises(ValueError, match="changes its input 'mask'"):
        wh.Objective.supervised(Through(forward), data, nn.CrossEntropyLoss())


def test_graphs_go_dense():
    class Graph:
        edge_index = torch.zeros(2, 3)

    class Graphs:
        def __len__(self):
            return 2

        def __getitem__(self, i):
            return Graph()

    model = Through(lambda m, x: m.a(x))
    with pytest.raises((TypeError, ValueError), match=r"to_dense_batch|collate_fn"):
        wh.Objective.supervised(model, Graphs(), nn.CrossEntropyLoss())
    loader = DataLoader(Graphs(), batch_size=2, collate_fn=lambda items: items[0])
    for data in (loader, [Graph(), Graph()]):
        with pytest.raises(TypeError, match="graphs go padded and dense"):
            wh.Objective.supervised(model, data, nn.CrossEntropyLoss())


def test_padding_has_no_second_derivative():
    """The Hessian of a model with padding is symmetric, and nothing at the row of padding."""
    torch.manual_seed(0)
    ids = torch.randint(0, 5, (6, 4))
    ids[:, 2:] = 0
    model = nn.Sequential(nn.Embedding(5, 3, padding_idx=0), nn.Tanh(), nn.Flatten(),
                          nn.Linear(12, 2)).double()  # fmt: skip
    objective = wh.Objective.supervised(model, (ids, Y), nn.CrossEntropyLoss())
    matrix = wh.Hessian(objective).dense()
    torch.testing.assert_close(matrix, matrix.T)
    assert not matrix[:, :3].any()
    assert matrix[:, 3:15].any()


def test_fewer_samples_at_once_where_layers_are_large(monkeypatch):
    model = nn.Sequential(nn.Linear(3, 1000), nn.Tanh(), nn.Linear(1000, 2))
    function, samples = ModelFunction(model), Samples(X, Y)
    tensors = dict(model.named_parameters())
    assert samples_at_once(function, tensors, samples) is None
    # A sample has 2 · 1000 numbers of layers, 2 of the last one and 2 of the output.
    monkeypatch.setattr("whence.model_checks.MAX_LAYER_BYTES", 3 * 4 * 2004)
    assert samples_at_once(function, tensors, samples) == 3
    objective = wh.Objective.supervised(model, (X, Y), nn.CrossEntropyLoss())
    assert objective.term("data").points.batch_size == 3
    whole = wh.Objective.supervised(model, (X, Y), nn.CrossEntropyLoss(), batch_size=6)
    torch.testing.assert_close(objective.loss(), whole.loss())
