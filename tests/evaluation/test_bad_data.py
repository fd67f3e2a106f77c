"""Suspects among training samples, and how well a ranking of them does."""

import numpy as np
import oracles
import pytest
import torch
from torch import nn

import whence as wh
from whence import pinn
from whence.evaluation.bad_data import detection, label_report, suspects


@pytest.fixture(scope="module", name="case")
def _case():
    """Two clouds of points, a tenth of them under the wrong label, and clean ones beside them."""
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(200) % 2
    x = torch.randn(200, 2, generator=generator) + 6.0 * (y[:, None] - 0.5)
    bad = torch.zeros(200, dtype=torch.bool)
    bad[::10], bad[1::20] = True, True
    model = nn.Linear(2, 2)
    torch.nn.init.zeros_(model.weight)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    given = torch.where(bad, 1 - y, y)
    for _ in range(200):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), given).backward()
        optimizer.step()
    clean = torch.randn(50, 2, generator=generator) + 6.0 * (
        torch.arange(50)[:, None] % 2 - 0.5
    )
    return model, (x, given), (clean, torch.arange(50) % 2), bad.numpy()


@pytest.mark.parametrize("method", [wh.Influence, wh.GradDot, wh.EmpiricalInfluence])
@pytest.mark.parametrize("by", ["self_influence", "validation", "loss"])
def test_wrong_labels_come_first(case, method, by):
    model, data, clean, bad = case
    made = method(wh.Objective.supervised(model, data, wh.CrossEntropy()))
    found = suspects(made, by, validation=clean if by == "validation" else None)
    assert detection(found, bad).attrs["average_precision"] > 0.9
    order = np.argsort(-found.suspicion.values)
    assert found["rank"].values[order].tolist() == list(range(200))
    output = model(data[0]).detach()
    assert found.predicted.values.tolist() == output.argmax(1).tolist()
    oracles.close(
        found.probability, output.softmax(1)[torch.arange(200), data[1]].numpy(), 1e-6
    )
    losses = nn.functional.cross_entropy(output, data[1], reduction="none")
    oracles.close(found.loss, losses.numpy(), 1e-5)
    assert found.label.values.tolist() == data[1].tolist()


def test_suspicion_by_validation_is_the_fall_of_its_mean_loss(case):
    model, data, clean, _ = case
    method = wh.Influence(wh.Objective.supervised(model, data, wh.CrossEntropy()))
    found = suspects(method, validation=clean)
    assert found.attrs["by"] == "validation"
    expected = -method.attribute(wh.Loss(*clean)).mean("target")
    oracles.close(found.suspicion, expected.values, 1e-4)


def test_binary_models_and_regressions(case):
    _, (x, y), _, _ = case
    model = nn.Linear(2, 1)
    found = suspects(
        wh.GradDot(
            wh.Objective.supervised(model, (x, y[:, None]), wh.BinaryCrossEntropy())
        )
    )
    one = model(x).detach().sigmoid()[:, 0]
    assert found.predicted.values.tolist() == (one > 0.5).long().tolist()
    oracles.close(found.probability, torch.where(y == 1, one, 1 - one).numpy(), 1e-6)
    real = wh.Objective.supervised(model, (x, torch.randn(200, 1)), nn.MSELoss())
    assert set(suspects(wh.GradDot(real)).data_vars) == {"suspicion", "rank", "loss"}


def test_what_has_no_suspects(case):
    model, data, clean, _ = case
    method = wh.GradDot(wh.Objective.supervised(model, data, wh.CrossEntropy()))
    with pytest.raises(ValueError, match=r"needs validation=\(inputs, targets\)"):
        suspects(method, "validation")
    with pytest.raises(ValueError, match="takes none"):
        suspects(method, "loss", validation=clean)
    with pytest.raises(ValueError, match="did you mean 'validation'"):
        suspects(method, "validate")
    problem = pinn.zoo.load("burgers")
    objective = problem.objective(problem.network(seed=0), problem.sample(10, seed=0))
    with pytest.raises(TypeError, match="suspects are samples of supervised data"):
        suspects(wh.GradDot(objective))


def test_average_precision_by_hand():
    found = detection([5.0, 4.0, 3.0, 2.0, 1.0], [True, False, True, False, False])
    assert found.attrs["average_precision"] == pytest.approx((1 + 2 / 3) / 2)
    assert found.attrs["share"] == 0.4
    assert found.attrs["found_in_share"] == 0.5
    assert found.looked.values.tolist() == [1, 2, 3, 4, 5]
    assert found.recall.values.tolist() == [0.5, 0.5, 1, 1, 1]


def test_equal_suspicions_count_together():
    """Whatever the order in which they are given."""
    for order in ([0, 1, 2, 3], [3, 2, 1, 0]):
        score, bad = (
            np.array([1.0, 1.0, 1.0, 0.0])[order],
            np.array([1, 0, 0, 1], bool)[order],
        )
        found = detection(score, bad)
        assert found.precision.values.tolist() == pytest.approx([1 / 3, 1 / 2])
        assert found.attrs["average_precision"] == pytest.approx(0.5 / 3 + 0.5 / 2)


def test_a_random_ranking_finds_about_the_share():
    rng = np.random.default_rng(0)
    values = [
        detection(rng.random(2000), rng.random(2000) < 0.1).attrs["average_precision"]
        for _ in range(20)
    ]
    assert np.mean(values) == pytest.approx(0.1, abs=0.01)


def test_agreement_with_scikit_learn():
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(1)
    score, bad = rng.integers(0, 30, 300).astype(float), rng.random(300) < 0.2
    found = detection(score, bad).attrs["average_precision"]
    assert found == pytest.approx(
        metrics.average_precision_score(bad, score), abs=1e-12
    )


@pytest.mark.parametrize(
    ("score", "bad", "error", "message"),
    [
        ([1.0, 2.0], [True], ValueError, "one entry for each of 2 samples"),
        ([1.0, np.nan], [True, False], ValueError, "finite: 1 of 2 numbers is not"),
        ([1.0, 2.0], [1, 0], TypeError, "must be booleans"),
        (
            [1.0, 2.0],
            [True, True],
            ValueError,
            "some samples must be bad and some good",
        ),
        ([[1.0, 2.0]], [[True, False]], ValueError, "finite number for each sample"),
    ],
)
def test_bad_rankings(score, bad, error, message):
    with pytest.raises(error, match=message):
        detection(score, bad)


def test_report_by_label():
    score, bad = np.arange(6.0), np.array([True, False, False, True, True, False])
    found = label_report(score, bad, ["a", "a", "b", "b", "b", "c"])
    assert found.label.values.tolist() == ["a", "b", "c"]
    np.testing.assert_equal(found.corrupted.values, [0.0, 3.5, np.nan])
    np.testing.assert_equal(found.clean.values, [1.0, 2.0, 5.0])
    assert found.n_corrupted.values.tolist() == [1, 2, 0]
    assert found.n_clean.values.tolist() == [1, 1, 1]
    with pytest.raises(ValueError, match="give each sample's label"):
        label_report(score, bad)
