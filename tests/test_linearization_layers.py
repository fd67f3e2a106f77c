"""The layers of ordinary classifiers through ``linearize``, against a loop of plain gradients."""

import oracles
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call

from whence import layers, linearization
from whence.jacobian import Rows
from whence.linearization import linearize
from whence.parameter_calls import RowsCall
from whence.parameters import Parameters
from whence.recorder import record
from whence.samples import Samples

LAYERS, FUNCTION, REVERSE = (
    linearization.LayerLinearization,
    linearization.FunctionLinearization,
    linearization.ReverseLinearization,
)
N = 5


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def plain_rows(network, parameters, points, cotangent):
    """One backward pass through the module itself for each point."""
    found = []
    chosen = [dict(network.named_parameters())[name] for name in parameters.names]
    for i in range(len(points)):
        value = network(points[i : i + 1])
        grads = torch.autograd.grad((value * cotangent[i]).sum(), chosen, materialize_grads=True,
                                    allow_unused=True)  # fmt: skip
        found.append(torch.cat([grad.reshape(-1) for grad in grads]))
    return torch.stack(found)


def agrees(network, points, path=LAYERS, select=None):
    """Check every product; of the selected parameters at least one has a derivative."""
    network = network.double().eval()
    points = points.double() if points.is_floating_point() else points
    parameters = Parameters(network, select)
    found = linearize(
        lambda t, z: functional_call(network, t, (z,)), parameters, points
    )
    assert type(found) is path
    oracles.close(found.value, network(points).detach(), 1e-12)
    cotangent = torch.randn(found.value.shape, dtype=torch.float64)
    expected = plain_rows(network, parameters, points, cotangent)
    assert expected.abs().max() > 1e-3
    n = len(points)
    weights = {k: torch.randn(n, k, dtype=torch.float64) for k in (1, 4)}
    vectors = {k: torch.randn(parameters.size, k, dtype=torch.float64) for k in (1, 4)}
    oracles.close(found.rows(cotangent), expected, 1e-10)
    oracles.close(
        found.rows(cotangent, out=torch.full_like(expected, 7.0)), expected, 1e-10
    )
    oracles.close(found.rmatvec(cotangent), expected.sum(0), 1e-10)
    for k in (1, 4):
        oracles.close(found.matvec(vectors[k], cotangent), expected @ vectors[k], 1e-10)
        oracles.close(
            found.rmatmat(weights[k], cotangent), expected.T @ weights[k], 1e-10
        )
    if path is LAYERS:
        whole = torch.zeros_like(expected)
        for factor in Rows(found, [cotangent]).factors():
            whole[:, factor.columns] += factor.rows()
        oracles.close(whole, expected, 1e-10)
        check_uses(found, parameters, cotangent, expected)
    return expected


def check_uses(found, parameters, cotangent, expected):
    part, slices = slice(1, 3), parameters.slices
    whole = torch.zeros_like(expected[part])
    for use in found.uses(cotangent):
        if use.weight:
            rows = use.weight_rows(part)
            whole[:, slices[use.weight]] += rows
            if use.outer:
                left, right, _ = use.at(part)
                assert left.shape[1] == use.channels
                oracles.close((left.mT @ right).flatten(1), rows, 1e-10)
        if use.bias:
            whole[:, slices[use.bias]] += use.bias_rows(part)
    oracles.close(whole, expected[part], 1e-10)


class Block(nn.Module):
    """Two convolutions, with a shortcut added in place."""

    def __init__(self, inputs, outputs, stride=1):
        super().__init__()
        self.first = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.norm = nn.BatchNorm2d(outputs)
        self.second = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.again = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.short = nn.Sequential()
        if inputs != outputs:
            self.short = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False),
                nn.BatchNorm2d(outputs),
            )

    def forward(self, x):
        out = self.again(self.second(self.relu(self.norm(self.first(x)))))
        out += self.short(x)
        return self.relu(out)


class ResNet(nn.Module):
    def __init__(self, widths=(4, 6)):
        super().__init__()
        first, second = widths
        self.stem = nn.Conv2d(1, first, 3, padding=1, bias=False)
        self.norm, self.relu = nn.BatchNorm2d(first), nn.ReLU(inplace=True)
        self.pool = nn.MaxPool2d(3, 1, 1)
        self.blocks = nn.Sequential(Block(first, first), Block(first, second, 2))
        self.head = nn.Linear(second, 10)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_()
                module.running_var.uniform_(0.5, 2.0)
                nn.init.normal_(module.weight, 1.0, 0.2)
                nn.init.normal_(module.bias)

    def forward(self, x):
        x = self.pool(self.relu(self.norm(self.stem(x))))
        return self.head(self.blocks(x).mean((2, 3)))


DIGITS = (N, 1, 8, 8)


@pytest.mark.parametrize(
    "select",
    [
        None,
        "blocks.1.*",
        "*norm*",
        "*again.bias",
        ["stem.weight", "head.*"],
        "blocks.0.norm.weight",
    ],
)
def test_a_residual_network_with_batch_normalization(select):
    agrees(ResNet(), torch.randn(DIGITS), select=select)


def test_a_residual_network_of_the_size_of_the_benchmark():
    """Its rows of points cut to the cache, and in float32."""
    network = ResNet((16, 32))
    agrees(network, torch.randn(7, 1, 8, 8))
    network, points = network.float(), torch.randn(7, 1, 8, 8)
    found = linearize(
        lambda t, z: functional_call(network, t, (z,)), Parameters(network), points
    )
    cotangent = torch.randn(7, 10)
    assert found.rows(cotangent).dtype == torch.float32
    expected = plain_rows(network, Parameters(network), points, cotangent)
    oracles.close(found.rows(cotangent), expected, 1e-5)


@pytest.mark.parametrize("bytes_at_once", [8, 8 * 3000])
def test_blocks_of_points_leave_no_trace(bytes_at_once, monkeypatch):
    monkeypatch.setattr(layers, "BLOCK_BYTES", bytes_at_once)
    agrees(ResNet(), torch.randn(DIGITS))


class Through(nn.Module):
    """Modules, and what ``forward`` does with them."""

    def __init__(self, forward, **parts):
        super().__init__()
        for name, part in parts.items():
            setattr(self, name, part)
        self._forward = forward

    def forward(self, x):
        return self._forward(self, x)


def between(norm, width=6, shape=None):
    """A normalization with random scale and shift between two linear layers."""
    for parameter in norm.parameters():
        nn.init.normal_(parameter)
    for name, buffer in norm.named_buffers():
        if "running" in name:
            buffer.uniform_(0.5, 2.0)
    reshape = [nn.Unflatten(1, shape)] if shape else []
    parts = [nn.Linear(3, width), nn.Tanh(), *reshape, norm, nn.Tanh(), nn.Flatten()]
    return nn.Sequential(*parts, nn.Linear(width, 2))


NORMS = {
    "batch, features": lambda a: between(nn.BatchNorm1d(6, affine=a)),
    "batch, one axis": lambda a: between(nn.BatchNorm1d(2, affine=a), 6, (2, 3)),
    "batch, two axes": lambda a: between(nn.BatchNorm2d(2, affine=a), 12, (2, 2, 3)),
    "batch, three axes": lambda a: between(
        nn.BatchNorm3d(2, affine=a), 12, (2, 2, 3, 1)
    ),
    "layer": lambda a: between(nn.LayerNorm(6, elementwise_affine=a)),
    "layer, positions": lambda a: between(
        nn.LayerNorm(4, elementwise_affine=a), 12, (3, 4)
    ),
    "layer, two axes": lambda a: between(
        nn.LayerNorm((3, 4), elementwise_affine=a), 12, (3, 4)
    ),
    "layer, two of three": lambda a: between(
        nn.LayerNorm((3, 2), elementwise_affine=a), 12, (2, 3, 2)
    ),
    "group": lambda a: between(nn.GroupNorm(2, 4, affine=a), 12, (4, 3)),
    "group, features": lambda a: between(nn.GroupNorm(2, 6, affine=a)),
    "group, two axes": lambda a: between(nn.GroupNorm(2, 4, affine=a), 16, (4, 2, 2)),
    "instance": lambda a: between(nn.InstanceNorm1d(2, affine=a), 6, (2, 3)),
    "instance, running": lambda a: between(
        nn.InstanceNorm1d(2, affine=a, track_running_stats=True), 6, (2, 3)
    ),
    "root mean square": lambda a: between(
        nn.RMSNorm(4, elementwise_affine=a), 12, (3, 4)
    ),
}


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("name", NORMS)
def test_normalization(name, affine):
    network, points = NORMS[name](affine), torch.randn(N, 3)
    agrees(network, points)
    if affine:
        place = next(
            n for n, m in network.named_children() if "Norm" in type(m).__name__
        )
        agrees(network, points, select=f"{place}.*")
        agrees(network, points, select=f"{place}.weight")


def test_normalization_of_the_points_themselves():
    agrees(
        nn.Sequential(nn.LayerNorm(3), nn.Tanh(), nn.Linear(3, 2)), torch.randn(N, 3)
    )
    agrees(nn.Sequential(nn.BatchNorm1d(3), nn.ReLU(inplace=True)), torch.randn(N, 3))


def test_a_scale_without_shift_and_a_shift_without_scale():
    part = {
        "scale": nn.Parameter(torch.randn(3)),
        "shift": nn.Parameter(torch.randn(3)),
    }
    agrees(
        Through(lambda m, x: F.layer_norm(x, (3,), m.scale), **part), torch.randn(N, 3)
    )
    agrees(
        Through(lambda m, x: F.layer_norm(x, (3,), bias=m.shift), **part),
        torch.randn(N, 3),
    )
    both = Through(lambda m, x: F.layer_norm(x, (3,), m.scale, m.scale), **part)
    agrees(both, torch.randn(N, 3), select="scale")


def test_statistics_from_a_selected_parameter():
    network = Through(
        lambda m, x: F.batch_norm(x, m.mean, torch.ones_like(x[0]), m.scale),
        mean=nn.Parameter(torch.randn(3)),
        scale=nn.Parameter(torch.randn(3)),
    )
    network, points = network.double(), torch.randn(N, 3).double()
    function = lambda t, z: functional_call(network, t, (z,))  # noqa: E731
    found = linearize(function, Parameters(network), points)
    assert type(found.calls[-1]) is RowsCall
    assert found.calls[-1].weight == "mean"


@pytest.mark.parametrize("frozen", [True, False])
@pytest.mark.parametrize("tracked", [True, False])
def test_statistics_of_the_batch_are_an_error(tracked, frozen):
    network = between(
        nn.BatchNorm2d(2, track_running_stats=tracked), 12, (2, 2, 3)
    ).double()
    network[3].requires_grad_(not frozen)
    network.train(tracked)
    with pytest.raises(ValueError, match=r"mixes the points.*network\.eval\(\)"):
        linearize(
            lambda t, z: functional_call(network, t, (z,)),
            Parameters(network),
            torch.randn(N, 3).double(),
        )


# --- embeddings ---

TOKENS = torch.tensor(
    [[0, 1, 1, 4], [2, 2, 2, 2], [0, 0, 3, 5], [6, 1, 0, 3], [5, 5, 6, 4]]
)


def sentences(embedding):
    return Through(
        lambda m, x: m.head(torch.tanh(m.table(x)).mean(1)),
        table=embedding, head=nn.Linear(3, 2),
    )  # fmt: skip


@pytest.mark.parametrize("padding", [None, 0, -1])
def test_embedding(padding):
    network = sentences(nn.Embedding(7, 3, padding_idx=padding))
    nn.init.normal_(network.table.weight)
    agrees(network, TOKENS)
    rows = agrees(network, TOKENS, select="table.*").view(N, 7, 3)
    assert bool(rows[1, 2].abs().min() > 0)
    assert bool((rows[1, [0, 1, 3, 4, 5, 6]] == 0).all())
    assert bool((rows[:, -1] == 0).all()) == (padding == -1)
    agrees(network, TOKENS, select="head.*")


def test_one_index_for_each_point():
    network = nn.Sequential(nn.Embedding(7, 3), nn.Tanh(), nn.Linear(3, 2))
    agrees(network, TOKENS[:, 0])


def test_an_embedding_used_twice():
    network = Through(
        lambda m, x: m.head(torch.tanh(m.table(x[:, :2]) * m.table(x[:, 2:])).mean(1)),
        table=nn.Embedding(7, 3),
        head=nn.Linear(3, 2),
    )
    agrees(network, TOKENS)


def test_padding_counted_from_the_end():
    network = Through(
        lambda m, x: F.embedding(x, m.table, padding_idx=-1).tanh().mean(1),
        table=nn.Parameter(torch.randn(7, 3)),
    )
    rows = agrees(network, TOKENS).view(N, 7, 3)
    assert bool((rows[:, -1] == 0).all())


def test_an_embedding_tied_to_a_linear_layer():
    """As in language models, one matrix for words in and words out."""
    network = Through(
        lambda m, x: m.head(torch.tanh(m.table(x)).mean(1)),
        table=nn.Embedding(7, 3, padding_idx=0), head=nn.Linear(3, 7),
    )  # fmt: skip
    nn.init.normal_(network.table.weight)
    network.head.weight = network.table.weight
    agrees(network, TOKENS)


@pytest.mark.parametrize(
    "options", [{"max_norm": 0.5}, {"scale_grad_by_freq": True}, {"sparse": True}]
)
def test_embeddings_of_other_gradients_stay_general(options):
    network = sentences(nn.Embedding(7, 3, **options)).double()

    def function(tensors, z):
        return functional_call(network, tensors, (z,))

    agrees(network, TOKENS, select="head.*")
    _, recorder = record(function, Parameters(network), TOKENS)
    assert not recorder.layers_alone
    assert recorder.outside == {"table.weight"}


def test_positions_of_a_table_shared_by_all_points():
    network = Through(
        lambda m, x: m.head((m.table(x) + m.place(torch.arange(4))).tanh().mean(1)),
        table=nn.Embedding(7, 3), place=nn.Embedding(4, 3), head=nn.Linear(3, 2),
    )  # fmt: skip
    agrees(network, TOKENS)
    agrees(network, TOKENS, select=["table.*", "head.*"])


def test_samples_of_tokens():
    network = sentences(nn.Embedding(7, 3)).double()
    parameters, samples = Parameters(network), Samples(TOKENS)
    cotangent = torch.randn(N, 2, dtype=torch.float64)
    expected = plain_rows(network, parameters, TOKENS, cotangent)
    for wrap, path in ((lambda w: w, LAYERS), (lambda w: 1.0 * w, FUNCTION)):

        def function(tensors, part, wrap=wrap):
            tensors = {**tensors, "table.weight": wrap(tensors["table.weight"])}
            return functional_call(network, tensors, part.inputs)

        found = linearize(function, parameters, samples)
        assert type(found) is path
        oracles.close(found.rows(cotangent), expected, 1e-10)


# --- convolutions ---


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(4, 4, 3, padding=1, groups=4),
        nn.Conv2d(4, 8, (3, 2), stride=(1, 2), groups=4, bias=False),
        nn.Conv2d(4, 6, 2, groups=2, dilation=2),
        nn.Conv2d(4, 2, 3, padding="same"),
        nn.Conv2d(4, 2, (2, 4), padding="same", dilation=(3, 1)),
        nn.Conv2d(4, 4, 2, padding="same", groups=2),
        nn.Conv2d(4, 2, 2, padding="valid"),
        nn.Conv2d(4, 2, 3, padding="same", padding_mode="reflect"),
    ],
)
def test_groups_and_padding_by_name(layer):
    network = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.Tanh(), layer, nn.Tanh(), nn.Flatten()
    )
    agrees(network, torch.randn(DIGITS))


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv1d(4, 8, 3, groups=4),
        nn.Conv1d(4, 2, 4, padding="same"),
        nn.Conv1d(4, 2, 2),
    ],
)
def test_groups_and_padding_by_name_in_one_dimension(layer):
    network = nn.Sequential(
        nn.Conv1d(3, 4, 2), nn.ReLU(inplace=True), layer, nn.Flatten()
    )
    agrees(network, torch.randn(N, 3, 9))


# --- several uses, none, and writing in place ---


def test_weights_used_through_several_calls_add_up():
    norm, conv = nn.BatchNorm2d(2), nn.Conv2d(2, 2, 3, padding=1, groups=2)
    nn.init.normal_(norm.weight)
    network = Through(
        lambda m, x: m.norm(m.conv(m.norm(m.conv(torch.tanh(m.norm(x)))))).flatten(1),
        norm=norm, conv=conv,
    )  # fmt: skip
    agrees(network, torch.randn(N, 2, 4, 4))


def test_a_shift_shared_with_a_linear_layer():
    network = nn.Sequential(
        nn.Linear(3, 4), nn.LayerNorm(4), nn.Tanh(), nn.Linear(4, 4)
    )
    network[1].bias = network[3].bias
    agrees(network, torch.randn(N, 3))


def test_parameters_without_use():
    network = Through(
        lambda m, x: m.used(x), used=between(nn.LayerNorm(6)), table=nn.Embedding(3, 2),
        norm=nn.BatchNorm1d(4), conv=nn.Conv2d(1, 1, 2),
    )  # fmt: skip
    agrees(network, torch.randn(N, 3))
    dead = Through(
        lambda m, x: m.used(x) + 0 * m.norm(x).detach().sum(), used=nn.Linear(3, 2),
        norm=nn.LayerNorm(3),
    )  # fmt: skip
    agrees(dead, torch.randn(N, 3))


IN_PLACE = {
    "activation": lambda m, x: m.b(torch.relu_(m.a(x))),
    "sum": lambda m, x: m.b(m.a(x).add_(m.c(x)).tanh_()),
    "first layer": lambda m, x: m.a(x).mul_(2.0).sigmoid_(),
    "into a part": lambda m, x: _doubled(m.b(torch.tanh(m.a(x)))),
    "norm": lambda m, x: m.b(F.leaky_relu_(m.norm(m.a(x)), 0.1)),
}


def _doubled(h):
    h[:, 1] *= 2.0
    return h


@pytest.mark.parametrize("name", IN_PLACE)
def test_writing_in_place_after_a_layer(name):
    parts = {"a": nn.Linear(3, 4), "b": nn.Linear(4, 4), "c": nn.Linear(3, 4)}
    agrees(Through(IN_PLACE[name], norm=nn.LayerNorm(4), **parts), torch.randn(N, 3))


def test_writing_in_place_into_a_view_stays_general():
    """The output of a linear layer with positions is a view, whose graph is made anew."""
    network = Through(
        lambda m, x: torch.relu_(m.b(torch.tanh(m.a(x)))).flatten(1),
        a=nn.Linear(3, 4), b=nn.Linear(4, 4),
    )  # fmt: skip
    agrees(network, torch.randn(N, 2, 3), FUNCTION)


# --- what has no rule of its own ---


class Attention(nn.Module):
    def __init__(self, weights=True):
        super().__init__()
        self.embed, self.norm = nn.Linear(3, 4), nn.LayerNorm(4)
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)
        self.head, self.weights = nn.Linear(4, 2), weights

    def forward(self, x):
        h = self.norm(self.embed(x))
        h = h + self.attention(h, h, h, need_weights=self.weights)[0]
        return self.head(h.mean(1))


@pytest.mark.parametrize("weights", [True, False])
@pytest.mark.filterwarnings("ignore:There is a performance drop")
def test_attention(weights):
    agrees(Attention(weights), torch.randn(N, 4, 3))
    agrees(
        Attention(weights), torch.randn(N, 4, 3), select=["embed.*", "norm.*", "head.*"]
    )


@pytest.mark.filterwarnings("ignore:There is a performance drop")
def test_a_transformer():
    layer = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True)
    network = Through(
        lambda m, x: m.head(m.layer(x).mean(1)), layer=layer, head=nn.Linear(4, 2)
    )
    agrees(network, torch.randn(N, 5, 4))
    agrees(
        network, torch.randn(N, 5, 4), select=["layer.linear*", "layer.norm*", "head.*"]
    )


def test_attention_of_linear_layers_is_quick():
    def forward(m, x):
        q, k, v = m.qkv(m.norm(x)).chunk(3, dim=-1)
        return m.head((x + m.out(F.scaled_dot_product_attention(q, k, v))).mean(1))

    network = Through(
        forward, norm=nn.LayerNorm(4), qkv=nn.Linear(4, 12), out=nn.Linear(4, 4),
        head=nn.Linear(4, 2),
    )  # fmt: skip
    agrees(network, torch.randn(N, 5, 4))


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_recurrent_layers(kind):
    network = Through(
        lambda m, x: m.head(m.cell(m.embed(x))[0][:, -1]),
        embed=nn.Linear(3, 4), cell=kind(4, 3, batch_first=True), head=nn.Linear(3, 2),
    )  # fmt: skip
    agrees(network, torch.randn(N, 6, 3))
    agrees(network, torch.randn(N, 6, 3), select=["embed.*", "head.*"])


@pytest.mark.parametrize(
    "pool", [nn.MaxPool2d(2), nn.AvgPool2d(2), nn.AdaptiveMaxPool2d(3)]
)
def test_pooling(pool):
    network = nn.Sequential(
        nn.Conv2d(1, 3, 3), nn.ReLU(inplace=True), pool, nn.Flatten()
    )
    agrees(network, torch.randn(DIGITS))
