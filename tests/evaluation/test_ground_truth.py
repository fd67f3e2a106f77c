"""Scores of methods by what really happens, on least squares where both are known."""

import numpy as np
import pytest
import torch
from torch.func import functional_call

from whence.attribution.gradients import GradDot
from whence.attribution.influence import Influence
from whence.attribution.quantities import Output
from whence.evaluation import lds_scores, leave_one_out_scores
from whence.evaluation.ground_truth import left_out
from whence.evaluation.ranks import spearman_rows
from whence.objective import Objective
from whence.refits import refit
from whence.space import Space
from whence.term import Term


@pytest.fixture(scope="module")
def fit():
    """A linear fit of two terms at its minimum, and its rows and right sides."""
    generator = torch.Generator().manual_seed(0)
    network = torch.nn.Linear(3, 1, bias=False).double()

    def residual(tensors, z):
        return functional_call(network, tensors, (z[:, :3],)) - z[:, 3:]

    def fields(names):
        return lambda tensors, z: functional_call(network, tensors, (z[:, :3],))

    terms = []
    for name, n, weight in (("a", 30, 1.0), ("b", 12, 3.0)):
        z = torch.randn(n, 4, generator=generator).double()
        terms.append(Term(name, residual, z, weight=weight))
    objective = Objective(network, terms, space=Space(evaluate=fields))
    objective.parameters.assign(refit(objective, tolerance=1e-14).theta)
    return objective


def solved(objective, keep):
    """The least-squares solution on some of the points, by term as booleans."""
    rows = []
    right = []
    for name, term in objective.terms.items():
        z = term.points.numpy()
        # Points that stay keep their weight w/N.
        scale = np.sqrt(term.weight / len(z)) * keep[name]
        rows.append(scale[:, None] * z[:, :3])
        right.append(scale * z[:, 3])
    return np.linalg.lstsq(np.vstack(rows), np.concatenate(right), rcond=None)[0]


def everything(objective):
    return {name: np.ones(len(term.points)) for name, term in objective.terms.items()}


TARGETS = torch.randn(5, 4, generator=torch.Generator().manual_seed(1)).double()


def test_scores_are_correlations_with_closed_forms(fit):
    methods = {"influence": Influence(fit), "grad-dot": GradDot(fit)}
    points = {"a": [0, 4, 9, 20, 25], "b": [1, 2, 3, 11]}
    numbers = leave_one_out_scores(methods, Output(TARGETS), points, progress=False)
    whole = solved(fit, everything(fit))
    expected = []
    for name, indices in points.items():
        for index in indices:
            keep = everything(fit)
            keep[name][index] = 0
            expected.append(TARGETS[:, :3].numpy() @ (solved(fit, keep) - whole))
    actual = np.stack(expected, axis=1)
    np.testing.assert_allclose(numbers.actual, actual, atol=1e-9)
    for name, method in methods.items():
        columns = [0, 4, 9, 20, 25, 31, 32, 33, 41]
        predicted = method.attribute(Output(TARGETS)).values[:, columns]
        np.testing.assert_allclose(numbers.predicted.sel(predictor=name), predicted)
        score = spearman_rows(actual, predicted)
        np.testing.assert_allclose(numbers.score.sel(predictor=name), score)
    assert float(numbers.score.sel(predictor="influence").mean()) > 0.9
    assert numbers.attrs["stability"] == pytest.approx(1.0)


def test_lds_is_of_retraining_on_the_subsets(fit):
    methods = {"influence": Influence(fit), "grad-dot": GradDot(fit)}
    numbers = lds_scores(
        methods, Output(TARGETS), subsets=15, share=0.8, progress=False
    )
    assert numbers.score.shape == (2, 5)
    means = numbers.score.mean("target").values
    assert means[0] > 0.85
    assert means[1] < means[0]


def test_a_subset_is_split_among_the_terms(fit):
    mask = np.ones(42, dtype=bool)
    mask[[3, 31]] = False
    parts = left_out(fit, mask)
    assert {name: part.nonzero()[:, 0].tolist() for name, part in parts.items()} == {
        "a": [3],
        "b": [1],
    }
    mask[31] = True
    assert list(left_out(fit, mask)) == ["a"]


def test_methods_must_explain_one_objective(fit):
    other = fit.with_weights({"a": 2.0})
    with pytest.raises(ValueError, match="'second' has another"):
        leave_one_out_scores(
            {"first": Influence(fit), "second": Influence(other)},
            Output(TARGETS),
            {"a": [0]},
        )
    with pytest.raises(ValueError, match="give methods by name"):
        lds_scores({}, Output(TARGETS))
