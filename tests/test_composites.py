"""Functions of torch taken apart into linear layers: the numbers of torch itself."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from whence.composites import COMPOSITES


class Apart(TorchFunctionMode):
    """Takes functions apart, and counts how often that was done and linear layers were called."""

    taken = linear = 0

    def __torch_function__(self, func, types, args=(), kwargs=None):
        self.linear += func is F.linear
        composite = COMPOSITES.get(getattr(func, "__name__", ""))
        if composite is not None:
            with self:
                result = composite(*args, **(kwargs or {}))
            if result is not None:
                self.taken += 1
                return result
        return func(*args, **(kwargs or {}))


def agrees(module, *inputs, linear, **keywords):
    module = module.double().eval()
    expected = module(*inputs, **keywords)
    with Apart() as mode:
        result = module(*inputs, **keywords)
    assert mode.taken == 1
    assert mode.linear == linear
    pairs = zip(pytree.tree_leaves(result), pytree.tree_leaves(expected), strict=True)
    for ours, torchs in pairs:
        torch.testing.assert_close(ours, torchs, rtol=1e-12, atol=1e-14)


@pytest.fixture
def x():
    torch.manual_seed(0)
    return torch.randn(3, 5, 4, dtype=torch.float64)


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
@pytest.mark.parametrize("bias", [True, False])
def test_recurrent_layers(kind, bias, x):
    # The input once, the state at each of five times.
    agrees(kind(4, 6, batch_first=True, bias=bias), x, linear=6)
    agrees(kind(4, 6, bias=bias), x, linear=4)
    both = kind(4, 6, num_layers=2, bidirectional=True, bias=bias)
    agrees(both, x, linear=4 * 4)
    agrees(kind(4, 6, bias=bias), x[:, 0], linear=4)  # without an axis of samples


@pytest.mark.parametrize("bias", [True, False])
def test_a_projected_state(bias, x):
    agrees(nn.LSTM(4, 6, proj_size=3, bias=bias), x, linear=7)


def test_rectified_sums(x):
    agrees(nn.RNN(4, 6, nonlinearity="relu"), x, linear=4)


@pytest.mark.parametrize(
    "cell", [nn.LSTMCell(4, 6), nn.GRUCell(4, 6), nn.RNNCell(4, 6, nonlinearity="relu")]
)
def test_cells(cell, x):
    agrees(cell, x[:, 0], linear=2)


def test_packed_sequences_and_dropout_are_left_to_torch(x):
    packed = nn.utils.rnn.pack_padded_sequence(x, [5, 4, 2], batch_first=True)
    for module, given in (
        (nn.LSTM(4, 6).double(), packed),
        (nn.GRU(4, 6).double(), packed),
        (nn.GRU(4, 6, num_layers=2, dropout=0.5).double(), x),
    ):
        with Apart() as mode:
            module(given)
        assert mode.taken == 0


def test_attention(x):
    mask = torch.tensor([[False] * 5, [False] * 3 + [True] * 2, [False] * 5])
    module = nn.MultiheadAttention(4, 2, batch_first=True)
    agrees(module, x, x, x, key_padding_mask=mask, linear=2)
    agrees(module, x, x, x, key_padding_mask=mask, need_weights=False, linear=2)
    z = torch.randn(3, 4, 4, dtype=torch.float64)
    agrees(module, x, z, z, linear=3)
    apart = nn.MultiheadAttention(
        4, 2, kdim=4, vdim=3, add_bias_kv=True, batch_first=True
    )
    agrees(apart, x, z, z[..., :3], linear=4)


@pytest.mark.parametrize("mode", ["sum", "mean"])
@pytest.mark.parametrize("padding", [None, 0, -1])
def test_bags(mode, padding):
    torch.manual_seed(0)
    ids = torch.tensor([[1, 2, 0, 0], [3, 5, 1, 2], [0, 0, 0, 0]])
    agrees(nn.EmbeddingBag(6, 3, mode=mode, padding_idx=padding), ids, linear=0)


def test_weighted_bags():
    torch.manual_seed(0)
    ids, weights = torch.tensor([[1, 2], [3, 5]]), torch.rand(2, 2).double()
    bag = nn.EmbeddingBag(6, 3, mode="sum")
    agrees(bag, ids, per_sample_weights=weights, linear=0)


def test_bags_of_other_kinds_are_left_to_torch():
    ids = torch.tensor([1, 2, 4, 5])
    with Apart() as mode:
        nn.EmbeddingBag(6, 3)(ids, torch.tensor([0, 1]))
        nn.EmbeddingBag(6, 3, mode="max")(ids.view(2, 2))
    assert mode.taken == 0
