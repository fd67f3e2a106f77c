"""A session with a supervised model has the numbers of the attribution, one question at a time."""

import numpy as np
import pytest
import torch
from explorers import small_run
from sample_models import MODELS, N_TEST, N_TRAINING, influence_of, session_of
from torch import nn

import whence as wh
from whence.evaluation.bad_data import suspects
from whence.explore import SampleSession
from whence.explore.sample_groups import Groups
from whence.explore.sample_inputs import InputView
from whence.samples import Samples

# Some of these models are not trained.
pytestmark = pytest.mark.filterwarnings("ignore::whence.FarFromMinimum")


def assert_close(ours, expected):
    size = np.abs(expected).max()
    assert size > 0
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-12 * size)


@pytest.mark.parametrize("name", MODELS)
def test_rows_are_those_of_the_attribution(name):
    influence, test = influence_of(name)
    session = SampleSession(influence, test)
    table = influence_of(name)[0].attribute(wh.Loss(test))
    for i in (0, 7, N_TEST - 1):
        row = session.influence_at(i)
        assert_close(row.values, table.values[i])
        assert int(row.target_index) == i
        assert row.attrs["sign"] == table.attrs["sign"]
        for label in {"label", "index"} & set(row.coords):
            assert np.array_equal(row[label].values, table[label].values)


def test_rows_too_where_gradients_do_not_fit():
    """With so little memory the solver is another one: its own numbers are asked for."""
    influence, test = influence_of("values", memory_budget=5000)
    session = SampleSession(influence, test)
    n_bytes = 8 * N_TRAINING * influence.objective.parameters.size
    assert n_bytes > influence.memory_budget
    one = wh.Loss(test[0][5:6], test[1][5:6])
    assert_close(session.influence_at(5).values, influence.attribute(one).values[0])


@pytest.mark.parametrize("number", [-1, N_TEST, 1.5])
def test_there_is_no_such_test_sample(number):
    with pytest.raises(ValueError, match="test sample"):
        session_of("values").influence_at(number)


def test_a_physics_informed_network_has_a_session_of_its_own():
    influence = wh.Influence(small_run().objective)
    with pytest.raises(TypeError, match=r"whence\.explore\.Session"):
        SampleSession(influence, (torch.zeros(2, 2), torch.zeros(2, 1)))


@pytest.mark.parametrize("reduce", ["mean", "sum"])
def test_classes_on_classes(reduce):
    influence, test = influence_of("images")
    session = SampleSession(influence, test, classes=["a", "b", "c", "never"])
    ours = session.by_class(reduce)
    assert ours.test_label.values.tolist() == ["a", "b", "c", "never"]

    table = influence.attribute(wh.Loss(test))
    of_tests, of_training = table.target_label.values, table.label.values
    for row in range(3):
        for column in range(3):
            block = table.values[of_tests == row][:, of_training == column]
            sums = block.mean(axis=0)
            expected = sums.mean() if reduce == "mean" else sums.sum()
            scale = np.abs(table.values).max()
            assert ours.values[row, column] == pytest.approx(
                expected, abs=1e-11 * scale
            )
    # A class without samples has no influence, rather than none.
    assert np.isnan(ours.values[3]).all()
    assert np.isnan(ours.values[:, 3]).all()


def test_the_reduction_is_one_of_two():
    with pytest.raises(ValueError, match="choose 'mean', 'sum'"):
        session_of("images").by_class("median")


def test_many_classes_are_those_of_the_most_test_samples():
    y = torch.arange(200) % 40
    x = torch.randn(200, 3, generator=torch.Generator().manual_seed(0)).double()
    torch.manual_seed(0)
    influence = wh.Influence(
        nn.Linear(3, 40).double(), (x, y), nn.CrossEntropyLoss(), damping=1e-2
    )
    of_tests = torch.cat([torch.arange(5, 40), torch.tensor([20, 21])])
    session = SampleSession(influence, (x[: len(of_tests)], of_tests))
    shown = session.shown_groups()
    assert len(shown) == 30
    assert {20, 21} <= set(shown)
    assert session.by_class().shape == session.confusion().shape == (30, 30)


def test_confusion():
    session = session_of("images")
    x, y = MODELS["images"]()[3]
    with torch.no_grad():
        predicted = session.influence.objective.network(x).argmax(dim=1)
    expected = np.zeros((3, 3), dtype=int)
    for label, prediction in zip(y.tolist(), predicted.tolist(), strict=True):
        expected[label, prediction] += 1
    counts = session.confusion().values
    assert np.array_equal(counts, expected)
    # Some are right and some are wrong, so that a transposed matrix would differ.
    assert not np.array_equal(counts, counts.T)


def test_a_regression_has_ranges_and_predictions():
    session = session_of("values")
    assert session.target_kind == "value"
    assert len(session.groups) == 8
    counts = np.bincount(session.training_groups())
    assert counts.sum() == N_TRAINING
    assert counts.min() >= 6
    x, _ = MODELS["values"]()[3]
    with torch.no_grad():
        expected = session.influence.objective.network(x)[:, 0].numpy()
    np.testing.assert_allclose(session.test_outcomes["predicted"], expected)
    with pytest.raises(ValueError, match="needs a classifier"):
        session.confusion()
    assert session.by_class().shape == (8, 8)


def test_binary_labels_are_classes():
    session = session_of("binary", classes=["no", "yes"])
    assert session.target_kind == "label"
    assert session.groups.names == ("no", "yes")
    assert session.confusion().values.sum() == N_TEST


def test_targets_of_several_numbers_are_one_group():
    session = session_of("pairs")
    assert session.target_kind == "none"
    assert session.groups.names == ("all samples",)
    assert (session.training_groups() == 0).all()


def test_labels_that_the_loss_ignores_are_of_no_class():
    model, data, _, test = MODELS["images"]()
    data[1][4] = -100
    influence = wh.Influence(model, data, nn.CrossEntropyLoss(), damping=1e-3)
    session = SampleSession(influence, test)
    assert session.groups.names == ("0", "1", "2")
    assert session.training_groups()[4] == -1
    sums = session.by_class("sum").sum("training_label")
    table = influence.attribute(wh.Loss(test))
    expected = table.values[test[1].numpy() == 0].mean(axis=0).sum()
    assert float(sums[0]) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("by", ["self_influence", "validation", "loss"])
def test_suspects(by):
    influence, test = influence_of("images")
    session = SampleSession(influence, test)
    ranked = session.suspects(by)
    validation = test if by == "validation" else None
    expected = suspects(influence, by, validation=validation)
    np.testing.assert_allclose(ranked.suspicion, expected.suspicion, rtol=1e-10)
    assert np.array_equal(ranked["rank"], expected["rank"])
    assert session.suspects(by) is ranked


def test_inputs_by_their_looks():
    def kind(tensor):
        return InputView.of(Samples(tensor)).kind

    assert kind(torch.rand(3, 3, 8, 8)) == "image"
    assert kind(torch.rand(3, 8, 8)) == "image"
    assert kind(torch.randint(0, 255, (3, 8, 8), dtype=torch.uint8)) == "image"
    assert kind(torch.rand(3, 12)) == "row"
    assert kind(torch.randint(0, 9, (3, 500))) == "tokens"
    assert kind(torch.rand(3, 5, 8, 8)) == "other"
    assert kind(torch.rand(3, 500)) == "other"
    # Of several inputs the first that can be shown.
    several = InputView.of(Samples((torch.rand(3, 500), torch.rand(3, 2))))
    assert (several.kind, several.place) == ("row", 1)


def test_numbers_that_stand_for_large_inputs():
    large = torch.rand(2, 3, 50, 100)
    view = InputView.of(Samples(large))
    assert view.size(32) == (16, 32)
    pixels = view.numbers(Samples(large), 10).reshape(2, 3, 5, 10)
    expected = large[1, 2, :10, 10:20].mean()
    assert pixels[1, 2, 0, 1] == pytest.approx(float(expected), rel=1e-5)

    other = torch.arange(1000.0).reshape(2, 500)
    numbers = InputView.of(Samples(other)).numbers(Samples(other), 32)
    assert numbers[1].tolist() == [749.5, 500.0, 999.0]


def test_ranges_hold_all_values():
    values = np.array([0.0] * 50 + [1.0, 2.0, 3.0])
    groups = Groups.of_values(values)
    places = groups.places(values)
    assert places.min() == 0
    assert places.max() == len(groups) - 1
    assert groups.places([-9.0, 99.0]).tolist() == [0, len(groups) - 1]
    assert Groups.of_values([2.0, 2.0]).names == ("2",)
