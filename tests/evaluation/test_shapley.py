"""Values of samples against sums over all subsets, written out."""

import itertools
import math

import numpy as np
import oracles
import pytest
import torch
from scipy import special

from whence.evaluation import (
    beta_shapley,
    data_oob,
    detection,
    knn_shapley,
    linear_datamodeling_score,
    random_subsets,
)
from whence.evaluation.beta_shapley import size_weights


def by_all_subsets(utility, n, weight):
    """Return Σ_S weight(|S|) (U(S ∪ i) − U(S)) over all subsets S without i."""
    values = []
    for i in range(n):
        others = [k for k in range(n) if k != i]
        total = 0.0
        for size in range(n):
            for subset in itertools.combinations(others, size):
                gained = utility([*subset, i]) - utility(list(subset))
                total = total + weight(size) * gained
        values.append(total)
    return np.stack(values, axis=-1)


def shapley_weight(n):
    return lambda size: 1 / (n * math.comb(n - 1, size))


@pytest.mark.parametrize("neighbors", [1, 3, 10])
def test_values_of_neighbours_are_those_of_all_subsets(neighbors):
    rng = np.random.default_rng(0)
    n = 7
    x, y = rng.standard_normal((n, 2)), rng.integers(0, 2, n)
    test_x, test_y = rng.standard_normal((3, 2)), rng.integers(0, 2, 3)

    def utility(subset):
        votes = []
        for point, label in zip(test_x, test_y, strict=True):
            nearest = sorted(subset, key=lambda k: np.linalg.norm(x[k] - point))
            agree = [y[k] == label for k in nearest[:neighbors]]
            votes.append(sum(agree) / neighbors)
        return np.array(votes)

    values = knn_shapley((x, y), (test_x, test_y), neighbors=neighbors)
    oracles.close(values.values, by_all_subsets(utility, n, shapley_weight(n)), 1e-12)
    oracles.close(values.sum("point").values, utility(range(n)), 1e-12)
    assert values.dims == ("target", "point")
    assert "nearest neighbours" in str(values.quality())


def test_values_of_neighbours_find_wrong_labels():
    rng = np.random.default_rng(1)
    y = np.repeat([0, 1, 2], 30)
    x = rng.standard_normal((90, 4)) + 3.0 * np.eye(4)[y]
    test_y = np.repeat([0, 1, 2], 10)
    test_x = rng.standard_normal((30, 4)) + 3.0 * np.eye(4)[test_y]
    bad = np.zeros(90, dtype=bool)
    bad[rng.choice(90, 9, replace=False)] = True
    labels = np.where(bad, (y + 1) % 3, y)
    values = knn_shapley(
        (torch.as_tensor(x), torch.as_tensor(labels)), (test_x, test_y), neighbors=5
    )
    found = detection(-values.mean("target"), bad)
    assert found.attrs["average_precision"] > 0.9


def test_features_that_do_not_fit_are_named():
    x, y = np.zeros((4, 2)), np.zeros(4, dtype=int)
    with pytest.raises(ValueError, match="as many features"):
        knn_shapley((x, y), (x[:, :1], y))
    with pytest.raises(ValueError, match="a label for each"):
        knn_shapley((x, y[:2]), (x, y))
    with pytest.raises(ValueError, match="must be classes"):
        knn_shapley((x, y), (x, y + 0.5))
    with pytest.raises(ValueError, match="must be finite"):
        knn_shapley((x * np.nan, y), (x, y))
    with pytest.raises(ValueError, match="features and labels"):
        knn_shapley(x, (x, y))


def quadratic(n, outputs=2):
    """Return targets of subsets in which samples interact."""
    rng = np.random.default_rng(2)
    single = rng.standard_normal((outputs, n))
    pairs = rng.standard_normal((outputs, n, n)) / n

    def train(chosen, seed):
        of_pairs = pairs[:, chosen][:, :, chosen].sum((1, 2))
        return -single[:, chosen].sum(1) - of_pairs

    return train


@pytest.mark.parametrize(("alpha", "beta"), [(1.0, 1.0), (4.0, 1.0), (1.0, 3.0)])
def test_values_by_orders_come_near_those_of_all_subsets(alpha, beta):
    n = 6
    train = quadratic(n)

    def weight(size):
        # (1/n) w(j) of Kwon & Zou, w(j) = n B(j + β − 1, n − j + α)/B(α, β), j = size + 1
        mixed = special.beta(size + beta, n - size - 1 + alpha)
        return mixed / special.beta(alpha, beta)

    expected = by_all_subsets(lambda s: -train(np.array(s, dtype=int), 0), n, weight)
    values = beta_shapley(train, n, alpha=alpha, beta=beta, permutations=4000)
    error = np.abs(values.values - expected).max()
    assert error < 0.05 * np.abs(expected).max()
    # What it says of its own error is about what that is.
    size = np.sqrt(np.mean(expected**2))
    actual = np.sqrt(np.mean((values.values - expected) ** 2)) / size
    assert (
        values.attrs["sampling_error"] / 3 < actual < 3 * values.attrs["sampling_error"]
    )


def test_weights_of_sizes_have_the_mean_one():
    for alpha, beta in ((1, 1), (16, 1), (0.5, 2)):
        assert size_weights(500, alpha, beta).mean() == pytest.approx(1.0)
    few = size_weights(500, 16, 1)
    assert few[0] > few[100] > few[400]


def test_orders_end_where_nothing_changes_any_more():
    calls = []

    def train(chosen, seed):
        calls.append(len(chosen))
        return [1.0 if len(chosen) < 3 else 0.0]

    values = beta_shapley(train, 20, permutations=300, tolerance=0.01)
    assert max(calls[2:]) == 3
    assert float(values.sum()) == pytest.approx(1.0)
    with pytest.raises(ValueError, match="empty="):
        beta_shapley(lambda chosen, seed: [np.nan], 3)
    with pytest.raises(ValueError, match=r"\(2,\)"):
        beta_shapley(lambda chosen, seed: [1.0], 3, empty=[1.0, 2.0])
    given = beta_shapley(
        lambda chosen, seed: [chosen.sum() / len(chosen)], 3, empty=[9.0]
    )
    assert np.isfinite(given.values).all()


def test_values_predict_retraining_as_other_effects_do():
    n = 8
    train = quadratic(n)
    subsets = random_subsets(n, 40, 0.75, seed=1)
    actual = np.stack([train(np.flatnonzero(subset), 0) for subset in subsets])
    values = beta_shapley(train, n, permutations=200)
    score = linear_datamodeling_score(values, subsets, actual)
    assert score.attrs["mean"] > 0.8
    assert "200 orders" in str(values.quality())


def test_scores_out_of_bag_are_means_over_bags():
    rng = np.random.default_rng(3)
    x, y = rng.standard_normal((12, 2)), rng.integers(0, 2, 12)
    bags = []

    def nearest(indices, seed):
        bags.append(indices)
        distances = np.linalg.norm(x[:, None] - x[indices][None], axis=2)
        return y[indices][distances.argmin(1)]

    values = data_oob(nearest, (x, y), bags=30, seed=5)
    expected = []
    for i in range(12):
        of_sample = []
        for bag in list(bags)[:30]:
            if i not in bag:
                of_sample.append(nearest(bag, 0)[i] == y[i])
        expected.append(np.mean(of_sample))
    oracles.close(values.values, np.array(expected), 1e-12)
    assert values.dims == ("point",)
    with pytest.raises(ValueError, match="effects of removal"):
        linear_datamodeling_score(values, np.ones((2, 12), dtype=bool), np.ones((2, 1)))


def test_estimators_are_bagged_and_find_wrong_labels():
    neighbors = pytest.importorskip("sklearn.neighbors")
    linear_model = pytest.importorskip("sklearn.linear_model")
    rng = np.random.default_rng(4)
    y = np.repeat([0, 1], 40)
    x = rng.standard_normal((80, 2)) + 4.0 * y[:, None]
    bad = np.zeros(80, dtype=bool)
    bad[[3, 20, 50, 61]] = True
    labels = np.where(bad, 1 - y, y)
    estimator = neighbors.KNeighborsClassifier(3)
    values = data_oob(estimator, (x, labels), bags=40)
    assert not hasattr(estimator, "classes_")  # what was given is not fitted
    assert detection(-values, bad).attrs["average_precision"] > 0.95
    assert "40 bags" in str(values.quality())

    targets = x[:, 0] + np.where(bad, 5.0, 0.0)
    squared = data_oob(linear_model.LinearRegression(), (x, targets), bags=40)
    assert set(np.argsort(squared.values)[:4]) == set(np.flatnonzero(bad))


def test_what_cannot_be_bagged_is_named():
    x, y = np.zeros((4, 2)), np.zeros(4, dtype=int)
    with pytest.raises(TypeError, match="fit and predict"):
        data_oob(3, (x, y))
    with pytest.raises(TypeError, match="fit and predict"):
        data_oob(dict, (x, y))
    with pytest.raises(ValueError, match="a prediction for each of 4"):
        data_oob(lambda indices, seed: y[:2], (x, y))
    with pytest.raises(ValueError, match="a label for each"):
        data_oob(lambda indices, seed: y, (x, y[:2]))
    with pytest.raises(ValueError, match="scoring"):
        data_oob(lambda indices, seed: y, (x, y), scoring="auc")
