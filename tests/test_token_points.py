"""Tokens as points: the same loss and curvature, and effects that add up to those of texts."""

import numpy as np
import pytest
import torch
from torch import nn

import whence as wh
from whence.token_points import TokenPoints

TIME, WORDS = 5, 6


class Language(nn.Module):
    def __init__(self):
        super().__init__()
        self.words, self.cell = nn.Embedding(WORDS, 3), nn.GRU(3, 4, batch_first=True)
        self.head = nn.Linear(4, WORDS)

    def forward(self, input_ids):
        return self.head(self.cell(self.words(input_ids))[0])


@pytest.fixture
def batch():
    torch.manual_seed(0)
    ids = torch.randint(0, WORDS, (4, TIME))
    labels = ids.clone()
    labels[0, 3:] = labels[2, 2:] = -100
    return {"input_ids": ids, "labels": labels}


@pytest.fixture
def model():
    torch.manual_seed(1)
    return Language().double()


def test_tokens_add_up_to_texts(batch, model):
    texts = wh.Objective.supervised(model, batch, wh.NextToken())
    points = TokenPoints(batch)
    tokens = wh.Objective.supervised(model, points, wh.NextToken())
    assert len(points) == 2 + 4 + 1 + 4
    torch.testing.assert_close(tokens.loss(), texts.loss())
    matrices = [wh.GaussNewtonMatrix(o).dense() for o in (tokens, texts)]
    torch.testing.assert_close(*matrices)

    tests = wh.Loss({name: rows[:2] for name, rows in batch.items()})
    for method in (wh.GradDot, lambda o: wh.Influence(o, damping=1e-2)):
        # A test text's loss is scaled by the data of each objective: by texts over tokens.
        by_token = method(tokens).attribute(tests).values
        by_text = method(texts).attribute(tests).values * 11 / 4
        sums = np.stack(
            [by_token[:, points.spans[:, 0] == k].sum(1) for k in range(4)], 1
        )
        np.testing.assert_allclose(sums, by_text, rtol=1e-8)


def test_spans(batch, model):
    points = TokenPoints(batch, spans=[(0, 1, 3), (3, 2, 4)])
    item = points[1]
    assert item["labels"].tolist() == [
        -100,
        -100,
        *batch["labels"][3, 2:4].tolist(),
        -100,
    ]
    assert torch.equal(item["input_ids"], batch["input_ids"][3])
    objective = wh.Objective.supervised(model, points, wh.NextToken())
    assert wh.GradDot(objective).self_influence().shape == (2,)


def test_the_first_token_where_labels_stay(batch):
    assert len(TokenPoints(batch, is_shifted=False)) == 3 + 5 + 2 + 5


@pytest.mark.parametrize(
    "span", [(4, 0, 2), (0, 3, 2), (0, 0, 6), (0, 3, 5), (0, 0, 1)]
)
def test_spans_that_are_none(span, batch):
    with pytest.raises(ValueError, match="one of which counts at least"):
        TokenPoints(batch, spans=[span])


def test_labels_that_are_none(batch):
    with pytest.raises(TypeError, match="need one target"):
        TokenPoints({"input_ids": batch["input_ids"]})
    with pytest.raises(ValueError, match=r"labels of shape \(texts, tokens\)"):
        TokenPoints({**batch, "labels": batch["labels"][:, 0]})
