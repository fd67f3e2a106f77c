"""The reverse check."""

import numpy as np
import oracles
import pytest
import torch

import whence as wh
from whence.evaluation.reverse import reverse_check


@pytest.fixture(name="objective")
def _objective():
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Linear(3, 8), torch.nn.Tanh(), torch.nn.Linear(8, 2)
    )
    data = torch.randn(40, 3, dtype=torch.float64), torch.arange(40) % 2
    return wh.Objective.supervised(model.double(), data, wh.CrossEntropy())


TARGET = torch.tensor([[0.3, -0.2, 1.0]], dtype=torch.float64), torch.tensor([1])


@pytest.mark.parametrize("method", [wh.Influence, wh.GradDot, wh.GradCos])
def test_symmetric_methods_agree_with_their_reverse(objective, method):
    found = reverse_check(method(objective), TARGET, share=0.1)
    assert found.sizes["point"] == 8
    oracles.close(found.reverse, found.influence.values, 1e-8)
    assert found.attrs["rank_correlation"] == pytest.approx(1.0)
    row = method(objective).attribute(wh.Loss(*TARGET)).values[0]
    order = np.argsort(-row)
    assert found.index.values.tolist() == [*order[:4], *order[-4:]]


def test_values_of_another_source_are_checked_by_the_method(objective):
    """A wrong sign shows at once: what is said to help is found to harm."""
    method = wh.GradDot(objective)
    values = method.attribute(wh.Loss(*TARGET)).values[0]
    expected = reverse_check(method, TARGET, share=0.1)
    for same in (values, values[None], torch.as_tensor(values), values.tolist()):
        found = reverse_check(method, TARGET, share=0.1, values=same)
        oracles.close(found.influence, expected.influence.values, 1e-15)
        oracles.close(found.reverse, expected.reverse.values, 1e-15)
        assert found["index"].values.tolist() == expected["index"].values.tolist()

    turned = reverse_check(method, TARGET, share=0.1, values=-values)
    assert turned.attrs["rank_correlation"] == pytest.approx(-1.0)


def test_attributions_of_another_method_keep_their_labels(objective):
    row = wh.GradCos(objective).attribute(wh.Loss(*TARGET))
    found = reverse_check(wh.GradDot(objective), TARGET, share=0.1, values=row)
    assert (found.attrs["method"], found.attrs["reverse_method"]) == (
        "grad_cos",
        "grad_dot",
    )
    reverse = wh.GradDot(objective).attribute(wh.Loss(*TARGET)).values[0]
    oracles.close(found.reverse, reverse[found["index"].values], 1e-12)
    assert 0 < found.attrs["rank_correlation"] < 1


def test_influences_of_adding_have_reverse_ones_of_adding(objective):
    method = wh.GradDot(objective)
    added = method.attribute(wh.Loss(*TARGET), effect="add")
    found = reverse_check(method, TARGET, share=0.1, values=added)
    removed = reverse_check(method, TARGET, share=0.1)
    oracles.close(found.influence, -removed.influence.values, 1e-15)
    oracles.close(found.reverse, -removed.reverse.values, 1e-15)


def test_finite_steps_are_not_symmetric(objective):
    near = reverse_check(
        wh.EmpiricalInfluence(objective, radius=1e-4), TARGET, share=0.2
    )
    far = reverse_check(wh.EmpiricalInfluence(objective, radius=2.0), TARGET, share=0.2)
    assert near.attrs["rank_correlation"] > 0.999
    assert not np.allclose(far.reverse, far.influence, rtol=0.05)


def test_points_of_a_pinn():
    case = oracles.burgers_soft()
    target = {"pde": oracles.target_points(case)[:1]}
    found = reverse_check(wh.Influence(case.objective, damping=1e-3), target, share=0.2)
    terms = case.objective.terms
    scales = np.array([terms[t].scale for t in found.term.values])
    oracles.close(
        found.reverse / terms["pde"].scale, found.influence.values / scales, 1e-6
    )


def test_bad_calls(objective):
    with pytest.raises(ValueError, match=r"share must lie in \(0, 0.5\]"):
        reverse_check(wh.GradDot(objective), TARGET, share=0.6)
    two = torch.zeros(2, 3, dtype=torch.float64), torch.tensor([0, 1])
    with pytest.raises(ValueError, match="one target at a time, got 2"):
        reverse_check(wh.GradDot(objective), two)
    values = np.zeros(40)
    with pytest.raises(
        ValueError, match=r"each of the 40 training .* got shape \(39,\)"
    ):
        reverse_check(wh.GradDot(objective), TARGET, values=values[1:])
    with pytest.raises(
        ValueError, match="must be finite: 1 of 40 numbers is not, at place 39"
    ):
        reverse_check(wh.GradDot(objective), TARGET, values=[*values[1:], np.nan])
    with pytest.raises(TypeError, match="as numbers"):
        reverse_check(wh.GradDot(objective), TARGET, values=["a"] * 40)
    part = wh.GradDot(objective).attribute(wh.Loss(*TARGET), wh.TrainingPoints([3]))
    with pytest.raises(ValueError, match="all training points in their order"):
        reverse_check(wh.GradDot(objective), TARGET, values=part)
