"""Retrieval, brittleness and tail patches against scikit-learn and by hand."""

import numpy as np
import oracles
import pytest
import torch
from sklearn.metrics import average_precision_score, roc_auc_score

import whence as wh
from whence.evaluation import (
    brittleness,
    datamodel,
    linear_datamodeling_score,
    random_subsets,
    retrieval,
    tail_patch,
    top_k_cardinality,
)


def test_retrieval_is_what_scikit_learn_says():
    rng = np.random.default_rng(0)
    scores = rng.standard_normal((4, 30)).round(1)
    relevant = rng.random((4, 30)) < 0.3
    found = retrieval(scores, relevant, k=5)  # with ties
    for target in range(4):
        row = scores[target]
        assert found.auc[target] == pytest.approx(roc_auc_score(relevant[target], row))
        expected = average_precision_score(relevant[target], row)
        assert found.average_precision[target] == pytest.approx(expected)
    assert (
        retrieval(np.ones((1, 4)), np.array([True, False, True, False]), k=1).auc == 0.5
    )
    nothing = retrieval(scores[:2], np.zeros(30, dtype=bool) | (np.arange(30) < 0), k=3)
    assert np.isnan(nothing.auc).all()


def test_bad_calls():
    with pytest.raises(ValueError, match="booleans"):
        retrieval(np.ones((2, 3)), np.ones(3))
    with pytest.raises(ValueError, match="above the number"):
        retrieval(np.ones((2, 3)), np.array([True, False, True]), k=4)
    for shape in ((0, 3), (2, 3, 4)):
        with pytest.raises(ValueError, match="attribution must be numbers"):
            retrieval(np.ones(shape), np.ones(shape, dtype=bool), k=1)
    with pytest.raises(ValueError, match="leaves none"):
        brittleness(np.ones((1, 3)), lambda kept, target: 0, [3], [0])
    with pytest.raises(ValueError, match="a prediction for each"):
        brittleness(np.ones((1, 3)), lambda kept, target: 0, [1], [0, 1])


def test_numbers_that_are_not_finite():
    """A rank of what is not finite means nothing: no measure takes it for a number."""
    effects = np.array([[1.0, 2.0, 3.0], [1.0, np.nan, np.inf]])
    message = r"must be finite: 2 of 6 numbers are not, the first at \(1, 1\)"
    with pytest.raises(ValueError, match="attribution " + message):
        retrieval(effects, np.array([True, False, True]), k=1)
    with pytest.raises(ValueError, match="attribution " + message):
        brittleness(effects, lambda kept, target: pytest.fail("trained"), [1], [0, 0])
    with pytest.raises(ValueError, match="attribution " + message):
        top_k_cardinality(effects, k=1)

    subsets = random_subsets(3, 8)
    actual = np.ones((8, 2))
    with pytest.raises(ValueError, match="attribution " + message):
        linear_datamodeling_score(effects, subsets, actual)

    # A training that diverged.
    actual[5, 1] = np.nan
    message = r"actual must be finite: 1 of 16 numbers is not, at place \(5, 1\)"
    with pytest.raises(ValueError, match=message):
        linear_datamodeling_score(np.ones((2, 3)), subsets, actual)
    with pytest.raises(ValueError, match=message):
        datamodel(subsets, actual)


def test_the_most_helpful_samples_are_left_out():
    seen = []

    def train(kept, target):
        seen.append((target, kept.tolist()))
        return len(kept)

    flips = brittleness([[0.0, 3.0, 1.0], [5.0, -1.0, 2.0]], train, [1, 2], [2, 1])
    assert seen == [(0, [0, 2]), (0, [0]), (1, [1, 2]), (1, [1])]
    assert flips.values.tolist() == [[0, 1], [1, 0]]
    assert flips.attrs["shares"] == [0.5, 0.5]


def test_a_tail_patch_is_predicted_by_gradient_products():
    """To first order the step lowers the target by η (1/k) Σ ∇f·∇ℓ, N/k times grad_dot."""
    torch.manual_seed(0)
    model = torch.nn.Linear(3, 2).double()
    x, y = torch.randn(10, 3).double(), torch.arange(10) % 2
    objective = wh.Objective.supervised(model, (x, y), wh.CrossEntropy())
    quantity = wh.Loss((x[:3], y[:3]))
    products = wh.GradDot(objective).attribute(quantity)
    lowered = tail_patch(objective, quantity, products, k=2, rate=1e-6)
    strongest = np.sort(products.values, axis=1)[:, -2:]
    oracles.close(lowered.values, 1e-6 * 10 * strongest.mean(axis=1), 1e-5)
    with pytest.raises(ValueError, match="shape"):
        tail_patch(objective, quantity, products[:2])
    with pytest.raises(ValueError, match="attribution must be finite: 30 of 30"):
        tail_patch(objective, quantity, np.full((3, 10), np.nan))


def test_the_interval_of_a_score():
    rng = np.random.default_rng(0)
    subsets = random_subsets(20, 60)
    effects = rng.standard_normal((5, 20))
    actual = -(subsets @ effects.T) + 2.0 * rng.standard_normal((60, 5))
    score = linear_datamodeling_score(effects, subsets, actual)
    low, mean, high = (score.attrs[name] for name in ("low", "mean", "high"))
    assert low < mean < high
    assert 0.02 < high - low < 0.5
