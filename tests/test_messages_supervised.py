"""What is said of data that do not suit a model: short, and with what to do; sparse embeddings."""

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

import whence as wh
from whence import _checks

X, Y = (
    torch.randn(6, 3, generator=torch.Generator().manual_seed(0)),
    torch.arange(6) % 2,
)
MODEL = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
LOSS = nn.CrossEntropyLoss()


class Named(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Linear(3, 2)

    def forward(self, x, scale=1.0, *, shift=0.0):
        return self.a(x) * scale + shift


@pytest.mark.parametrize(
    ("model", "data", "error", "words"),
    [
        (MODEL, (X, Y, torch.randn(6, 4)), TypeError,
         ("2 inputs, besides the target, which is the last of a tuple", "forward takes (input")),
        (MODEL, ({"x": X}, Y), TypeError, ("inputs named x", "forward takes")),
        (Named(), ({"x": X, "foo": X}, Y), TypeError, ("inputs named x, foo", "shift=0.0")),
        (Named(), (X, X, X, Y), TypeError, ("3 inputs",)),
        (MODEL, (Y, X), ValueError, ("the model fails on inputs (Tensor of shape (6,),)", "int64")),
        (MODEL, (torch.randn(6, 9), Y), ValueError, ("(Tensor of shape (6, 9),)", "mat1 and mat2")),
    ],
)  # fmt: skip
def test_inputs_that_the_model_does_not_take(model, data, error, words):
    with pytest.raises(error) as caught:
        wh.Objective.supervised(model, data, LOSS)
    for word in words:
        assert word in str(caught.value)


def test_defaults_and_keywords_are_taken():
    for data in ((X, torch.rand(6, 1), Y), ({"x": X, "shift": torch.rand(6, 1)}, Y)):
        objective = wh.Objective.supervised(Named(), data, LOSS)
        assert wh.GradDot(objective).self_influence().shape == (6,)


TEXTS = [torch.arange(1, 2 + k % 3) for k in range(300)]


class Texts(torch.utils.data.Dataset):
    def __len__(self):
        return len(TEXTS)

    def __getitem__(self, i):
        return TEXTS[i] if i < 256 else torch.cat([TEXTS[i], TEXTS[i]]), i % 3


def padded(items):
    texts = nn.utils.rnn.pad_sequence([t for t, _ in items], batch_first=True)
    return texts, torch.tensor([y for _, y in items])


class Bag(nn.Module):
    def __init__(self, kind, sparse):
        super().__init__()
        torch.manual_seed(0)
        kinds = {"bag": nn.EmbeddingBag, "embedding": nn.Embedding}
        self.e = kinds[kind](9, 4, sparse=sparse, padding_idx=0)
        self.l = nn.Linear(4, 3)

    def forward(self, text):
        h = self.e(text)
        return self.l(h if h.ndim == 2 else h.mean(1))


def test_texts_of_different_lengths():
    with pytest.raises(ValueError, match="collate_fn that pads them to one length"):
        wh.Objective.supervised(Bag("bag", False), Texts(), LOSS)
    loader = DataLoader(Texts(), batch_size=5, collate_fn=padded)
    with pytest.raises(ValueError, match="not each batch to its own"):
        wh.Objective.supervised(Bag("bag", False), loader, LOSS)
    flat = torch.cat(TEXTS), torch.arange(300), torch.arange(300) % 3
    with pytest.raises(ValueError, match="sequences of different lengths go padded"):
        wh.Objective.supervised(Bag("bag", False), flat, LOSS)


@pytest.mark.parametrize("kind", ["bag", "embedding"])
@pytest.mark.parametrize("curvature", [None, "hessian"])
def test_sparse_embeddings_are_as_dense_ones(kind, curvature):
    text = torch.randint(0, 9, (8, 5), generator=torch.Generator().manual_seed(0))
    data = text, torch.arange(8) % 3
    found = []
    for sparse in (False, True):
        model = Bag(kind, sparse).double()
        objective = wh.Objective.supervised(model, data, LOSS)
        influence = wh.Influence(objective, damping=0.5, curvature=curvature)
        if (kind, curvature) == ("bag", "hessian"):
            with pytest.raises(ValueError, match="without second derivatives"):
                influence.attribute(wh.Loss())
            return
        found.append(torch.as_tensor(influence.attribute(wh.Loss()).values))
        assert objective.loss_and_gradient()[1].layout == torch.strided
        assert model.e.sparse is sparse
    torch.testing.assert_close(*found)


def test_sparse_gradients_of_a_residual_of_ones_own():
    table = nn.Embedding(4, 1, sparse=True)
    z = torch.tensor([[0.0], [2.0]])

    def residual(tensors, points):
        return torch.func.functional_call(table, tensors, (points[:, 0].long(),))

    objective = wh.Objective(table, wh.Term("data", residual, z))
    _, gradient = objective.loss_and_gradient()
    expected = torch.zeros(4)
    expected[[0, 2]] = table.weight.detach()[[0, 2], 0]
    torch.testing.assert_close(gradient, expected)


def test_messages_are_short():
    wide = nn.Linear(3, 1500)
    objective = wh.Objective.supervised(wide, (X, Y), LOSS)
    rows = torch.randn(500, 3)
    for call in (
        lambda: wh.Output(X, "outpt_3").values(objective),
        lambda: wh.Objective.supervised(MODEL, (X, Y), [rows, rows]),
        lambda: wh.Influence(objective, damping=rows),
        lambda: wh.GradDot(objective).attribute([rows] * 9),
        lambda: wh.GradDot([MODEL, rows]),
        lambda: wh.GradDot(objective, memory_budget=rows),
    ):
        with pytest.raises((TypeError, ValueError)) as caught:
            call()
        assert len(str(caught.value)) < 500
        assert "\n" not in str(caught.value)

    described = _checks.describe({"a": [rows] * 9, "b": (MODEL,)})
    assert described == (
        "{'a': [" + ", ".join(["Tensor of shape (500, 3)"] * 5) + ", … 9 in all], "
        "'b': (a Sequential,)}"
    )
