"""The linear datamodeling score, on fits whose answer is known."""

import numpy as np
import pytest
import torch

import whence as wh
from whence.evaluation.lds import linear_datamodeling_score, random_subsets, retrained


def test_subsets():
    masks = random_subsets(11, 40, share=0.3, seed=1)
    assert masks.shape == (40, 11)
    assert (masks.sum(1) == 3).all()
    assert len({mask.tobytes() for mask in masks}) > 30
    assert (masks == random_subsets(11, 40, share=0.3, seed=1)).all()
    for share in (0, 1, 0.01):
        with pytest.raises(ValueError, match="some of 11 samples in and some out"):
            random_subsets(11, 2, share=share)


def test_seeds_are_averaged_and_differ():
    seen = []

    def train(chosen, seed):
        seen.append((tuple(chosen), seed))
        return [float(seed), 1.0]

    found = retrained(
        train, np.array([[True, False, True], [False, True, True]]), seeds=3
    )
    assert [s for _, s in seen] == [0, 1, 2, 3, 4, 5]
    assert seen[0][0] == (0, 2)
    assert found.tolist() == [[1.0, 1.0], [4.0, 1.0]]


def test_influences_of_a_mean_predict_it_exactly():
    """A mean's change is linear in what is left out, if all subsets have one size."""
    rng = np.random.default_rng(0)
    y = rng.standard_normal(30)
    masks = random_subsets(30, 50)
    actual = np.array([[y[mask].mean()] for mask in masks])
    model = torch.nn.Linear(1, 1, bias=False, dtype=torch.float64)
    torch.nn.init.constant_(model.weight, float(y.mean()))
    x = torch.ones(30, 1, dtype=torch.float64)
    objective = wh.Objective.supervised(
        model, (x, torch.as_tensor(y)[:, None]), wh.Squared()
    )
    effects = wh.Influence(objective, damping=0.0).attribute(wh.Output(x[:1]))
    score = linear_datamodeling_score(effects, masks, actual)
    assert score.attrs["mean"] == pytest.approx(1.0)
    assert linear_datamodeling_score(-effects, masks, actual).attrs[
        "mean"
    ] == pytest.approx(-1.0)
    shuffled = rng.permutation(effects.values, axis=1)
    assert abs(linear_datamodeling_score(shuffled, masks, actual).attrs["mean"]) < 0.6


def test_targets_that_do_not_vary_have_no_score():
    masks = random_subsets(6, 5)
    effects = np.random.default_rng(0).standard_normal((2, 6))
    actual = np.stack([np.arange(5.0), np.ones(5)], axis=1)
    found = linear_datamodeling_score(effects, masks, actual)
    assert np.isfinite(found.values).tolist() == [True, False]
    assert found.attrs["mean"] == float(found[0])
    with pytest.raises(ValueError, match="no target varies"):
        linear_datamodeling_score(effects, masks, np.ones((5, 2)))


def test_what_does_not_fit():
    masks = random_subsets(6, 5)
    with pytest.raises(ValueError, match="shapes do not fit"):
        linear_datamodeling_score(np.ones((2, 7)), masks, np.ones((5, 2)))
    with pytest.raises(ValueError, match="booleans"):
        linear_datamodeling_score(np.ones((2, 6)), masks.astype(int), np.ones((5, 2)))
    data = torch.rand(6, 2), torch.rand(6, 1)
    objective = wh.Objective.supervised(torch.nn.Linear(2, 1), data, wh.Squared())
    added = wh.GradDot(objective).attribute(wh.Loss(), effect="add")
    with pytest.raises(ValueError, match="effect='remove'"):
        linear_datamodeling_score(added, masks, np.ones((5, 6)))
