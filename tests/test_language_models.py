"""Causal language models as transformers has them: batches by name, next tokens, their own loss."""

import dataclasses

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader

import whence as wh
from whence.classification import NextToken
from whence.losses import PerSample

N, TIME, WORDS = 6, 5, 7
LENGTHS = torch.tensor([5, 3, 4, 5, 2, 4])


@dataclasses.dataclass
class Returned:
    logits: torch.Tensor
    loss: torch.Tensor | None = None


class Language(nn.Module):
    """A small causal model: tied embeddings, places, attention; ``own`` is its own loss."""

    def __init__(self, own=None):
        super().__init__()
        self.words, self.places = nn.Embedding(WORDS, 4), nn.Embedding(8, 4)
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)
        self.head = nn.Linear(4, WORDS, bias=False)
        self.head.weight = self.words.weight
        self.own = own

    def forward(self, input_ids, attention_mask=None, labels=None):
        places = torch.arange(input_ids.shape[1])
        h = self.words(input_ids) + self.places(places)[None]
        causal = torch.ones(len(places), len(places)).triu(1).bool()
        pad = None if attention_mask is None else attention_mask == 0
        a, _ = self.attention(h, h, h, attn_mask=causal, key_padding_mask=pad)
        logits = self.head(h + a)
        loss = None if labels is None else self.own(logits, labels)
        return Returned(logits, loss)


def next_token(logits, labels, **options):
    return F.cross_entropy(
        logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), **options
    )


@pytest.fixture
def batch():
    torch.manual_seed(0)
    ids = torch.randint(1, WORDS, (N, TIME))
    mask = (torch.arange(TIME) < LENGTHS[:, None]).long()
    return {
        "input_ids": ids * mask,
        "attention_mask": mask,
        "labels": ids.masked_fill(mask == 0, -100),
    }


def model(own=None):
    torch.manual_seed(1)
    return Language(own).double()


def expected_rows(network, batch, share, own=next_token):
    rows = []
    for i in range(N):
        alone = {name: part[i : i + 1] for name, part in batch.items()}
        labels = alone.pop("labels")
        loss = share[i] * own(network(**alone).logits, labels)
        parts = torch.autograd.grad(loss, list(network.parameters()))
        rows.append(torch.cat([part.flatten() for part in parts]))
    return torch.stack(rows)


def shares(batch):
    counts = (batch["labels"][:, 1:] != -100).sum(1).double()
    return counts * N / counts.sum()


def close(objective, rows, tests):
    found = wh.GradDot(objective).attribute(tests).values
    expected = rows[:2] @ rows.T / N
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-10, atol=1e-14)


def test_next_tokens(batch):
    network = model()
    objective = wh.Objective.supervised(network, batch, wh.NextToken())
    inputs = {k: v for k, v in batch.items() if k != "labels"}
    expected = next_token(network(**inputs).logits, batch["labels"])
    torch.testing.assert_close(objective.loss().detach(), expected.detach())
    rows = expected_rows(network, batch, shares(batch))
    tests = {name: part[:2] for name, part in batch.items()}
    close(objective, rows, wh.Loss(tests))

    matrix = wh.GaussNewtonMatrix(objective).dense()
    scaled = wh.Jacobian(objective, scaled=True).dense()
    torch.testing.assert_close(matrix, scaled.T @ scaled)
    del tests["labels"]
    logits = wh.GradDot(objective).attribute(wh.Output(tests, "output_9"))
    assert logits.sizes["target"] == 2


def test_batches_by_name_in_every_form(batch):
    network = model()
    expected = wh.Objective.supervised(network, batch, wh.NextToken()).loss().detach()
    items = [{k: v[i] for k, v in batch.items()} for i in range(N)]
    as_lists = [{k: v.tolist() for k, v in item.items()} for item in items]
    inputs = {k: v for k, v in batch.items() if k != "labels"}
    for data in (
        items,
        as_lists,
        DataLoader(items, batch_size=4),
        (inputs, batch["labels"]),
        {k: v.numpy() for k, v in batch.items()},
    ):
        objective = wh.Objective.supervised(network, data, wh.NextToken())
        torch.testing.assert_close(objective.loss().detach(), expected)
        same = wh.GradDot(objective).attribute(wh.Loss(data)).values
        assert same.shape == (N, N)


def test_closed_forms_of_next_tokens(batch):
    torch.manual_seed(0)
    logits = torch.randn(N, TIME * WORDS, dtype=torch.float64)
    labels = batch["labels"]
    loss = NextToken(positions=TIME, label_smoothing=0.1, scale=0.5)

    def function(z, y):
        values = F.cross_entropy(
            z[:, :-1].flatten(0, 1),
            y[:, 1:].flatten(),
            label_smoothing=0.1,
            reduction="none",
        )
        return 0.5 * values.view(N, -1).sum(1)

    same = PerSample(function, (TIME, WORDS))
    torch.testing.assert_close(loss.value(logits, labels), same.value(logits, labels))
    gradient = loss.gradient(logits, labels)
    torch.testing.assert_close(gradient, same.gradient(logits, labels))
    curvature = same.curvature(logits, labels)
    root = loss.curvature_root(logits, labels)
    torch.testing.assert_close(root @ root.mT, curvature)
    vectors = torch.randn_like(logits)
    image = loss.curvature_product(logits, labels)(vectors)
    torch.testing.assert_close(image, (curvature @ vectors.unsqueeze(2)).squeeze(2))
    whitened = loss.whitened_gradient(logits, labels).unsqueeze(2)
    torch.testing.assert_close((root @ whitened).squeeze(2), gradient)


def test_classes_on_the_last_axis(batch):
    network = model()
    tagged = {**batch, "labels": torch.randint(0, WORDS, (N, TIME))}
    tagged["labels"][0, 2:] = -100
    inputs = {k: v for k, v in tagged.items() if k != "labels"}
    goal = tagged["labels"].flatten()
    weight = torch.rand(WORDS).double()
    for loss in (
        nn.CrossEntropyLoss(),
        F.cross_entropy,
        nn.CrossEntropyLoss(weight=weight),
    ):
        objective = wh.Objective.supervised(network, tagged, loss)
        assert objective.term("data").loss.axis == -1
        expected = loss(network(**inputs).logits.flatten(0, 1), goal)
        torch.testing.assert_close(objective.loss().detach(), expected.detach())

    def tensor(**inputs):
        return network(**inputs).logits

    class Plain(nn.Module):
        def __init__(self):
            super().__init__()
            self.network = network

        def forward(self, input_ids, attention_mask):
            return self.network(input_ids, attention_mask).logits

    objective = wh.Objective.supervised(Plain(), tagged, wh.CrossEntropy(axis=-1))
    expected = F.cross_entropy(tensor(**inputs).flatten(0, 1), goal)
    torch.testing.assert_close(objective.loss().detach(), expected.detach())


# --- the model's own loss ------------------------------------------------------------------------


@pytest.mark.parametrize("own", [next_token, "classes"])
def test_own_losses_with_formulas(own, batch):
    if own == "classes":
        own = lambda z, y: F.cross_entropy(z.flatten(0, 1), y.flatten())  # noqa: E731
    network = model(own)
    objective = wh.Objective.supervised(network, batch)
    assert objective.term("data").loss.is_convex
    torch.testing.assert_close(
        objective.loss().detach(), network(**batch).loss.detach()
    )


@pytest.mark.parametrize("counted", ["tokens", "samples"])
def test_own_losses_without_formulas(counted, batch):
    """Of a loss that is not known its values are taken sample by sample."""

    def own(logits, labels):
        if counted == "tokens":
            return next_token(logits, labels, label_smoothing=0.2)
        return logits.logsumexp(-1).square().mean()

    network = model(own)
    objective = wh.Objective.supervised(network, batch)
    torch.testing.assert_close(
        objective.loss().detach(), network(**batch).loss.detach()
    )
    share = shares(batch) if counted == "tokens" else torch.ones(N).double()
    rows = expected_rows(network, batch, share, own)
    close(objective, rows, wh.Loss({name: part[:2] for name, part in batch.items()}))
    assert not objective.term("data").loss.is_convex


def test_own_losses_that_cannot_be_taken_are_named(batch):
    def balanced(logits, labels):
        return next_token(logits, labels) + logits.mean((0, 1)).square().sum()

    with pytest.raises(ValueError, match="own loss of several samples is no mean"):
        wh.Objective.supervised(model(balanced), batch)
    with pytest.raises(TypeError, match="takes none of labels"):
        wh.Objective.supervised(nn.Linear(3, 2), (torch.rand(4, 3), torch.rand(4, 2)))
    with pytest.raises(TypeError, match="without a number called loss"):
        wh.Objective.supervised(model(lambda z, y: None), batch)


# --- what is refused -----------------------------------------------------------------------------


def test_labels_that_are_the_tokens_themselves(batch):
    with pytest.raises(
        ValueError, match=r"use wh\.NextToken\(\), which moves them by one"
    ):
        wh.Objective.supervised(model(), batch, nn.CrossEntropyLoss())


def test_batches_by_name_need_a_target(batch):
    del batch["labels"]
    with pytest.raises(
        TypeError, match=r"need one target, called labels, .* has only input_ids"
    ):
        wh.Objective.supervised(model(), batch, wh.NextToken())


def test_sequences_longer_than_the_context():
    ids = torch.randint(0, WORDS, (N, 9))
    data = {"input_ids": ids, "labels": ids}
    with pytest.raises(
        ValueError, match=r"9 of each sample, are longer than .* context of 8"
    ):
        wh.Objective.supervised(model(), data, wh.NextToken())

    class Config:
        max_position_embeddings = 4

    network = model()
    network.config = Config()
    data = {"input_ids": ids[:, :6], "labels": ids[:, :6]}
    with pytest.raises(ValueError, match="longer than the context of 4 that Language"):
        wh.Objective.supervised(network, data, wh.NextToken())


@pytest.mark.parametrize("place", [0, N - 1])
def test_tokens_that_are_in_no_vocabulary(place, batch, monkeypatch):
    """In the samples that are tried, and in others."""
    monkeypatch.setattr("whence.samples.ROWS_AT_ONCE", 2)
    batch["input_ids"][place, 0] = WORDS
    with pytest.raises(
        ValueError, match=r"'words' has 7 rows .* row 7: tokens must lie in 0"
    ):
        wh.Objective.supervised(model(), batch, wh.NextToken())
