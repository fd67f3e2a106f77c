"""Checks of attributions that need no truth."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from torch import nn

from whence.evaluation import (
    model_randomization,
    top_k_cardinality,
    with_random_parameters,
)


def test_the_cardinality_counts_different_samples() -> None:
    scores = np.random.default_rng(0).normal(size=(7, 30))
    expected = set()
    for row in scores:
        expected |= set(np.argsort(row)[-3:].tolist())
    assert top_k_cardinality(scores, k=3) == len(expected) / 21


def test_one_order_for_all_targets_has_the_least_cardinality() -> None:
    assert top_k_cardinality(np.tile(np.arange(9.0), (4, 1)), k=2) == 2 / 8


@pytest.mark.parametrize(
    ("scores", "k", "said"),
    [
        (np.zeros((2, 3)), 4, "above the number of samples, 3"),
        (np.zeros((2, 3)), 0, "k"),
        ([[np.nan, 1.0]], 1, "finite"),
        (np.zeros((1, 2, 3)), 1, r"\(1, 2, 3\)"),
    ],
)
def test_what_has_no_cardinality_is_said(scores: object, k: int, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        top_k_cardinality(scores, k=k)  # type: ignore[arg-type]


def test_randomization_is_the_correlation_of_ranks() -> None:
    generator = np.random.default_rng(1)
    first = generator.normal(size=(3, 40))
    second = first + generator.normal(size=(3, 40))
    similar = model_randomization(first, second)
    for value, a, b in zip(similar.values, first, second, strict=True):
        assert value == pytest.approx(spearmanr(a, b).statistic)
    assert similar.attrs["mean"] == pytest.approx(similar.values.mean())


def test_targets_that_do_not_vary_are_left_out_of_the_mean() -> None:
    similar = model_randomization([[1.0, 2.0], [1.0, 1.0]], [[3.0, 4.0], [1.0, 2.0]])
    assert np.isnan(similar.values[1])
    assert similar.attrs["mean"] == 1.0


def test_attributions_of_other_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(1, 2\) and \(1, 3\)"):
        model_randomization([[1.0, 2.0]], [[1.0, 2.0, 3.0]])


class WithTable(nn.Module):
    """A model with parameters of its own, one of them a single number."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(5 + torch.randn(50, 4))
        self.scale = nn.Parameter(torch.tensor(2.0))
        self.norm = nn.BatchNorm1d(4)
        self.head = nn.Linear(4, 2)


def test_all_parameters_are_drawn_again_and_the_model_stays() -> None:
    torch.manual_seed(0)
    model = WithTable()
    model.norm(3 + torch.randn(20, 4))  # moves the running statistics
    with torch.no_grad():
        model.norm.weight += 1
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    drawn = with_random_parameters(model, seed=3)

    assert torch.equal(torch.get_rng_state(), state)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])
    for name, parameter in drawn.named_parameters():
        if name != "norm.bias":  # of zeros, as before
            assert not torch.equal(parameter, before[name]), name
    assert torch.equal(drawn.norm.running_mean, torch.zeros(4))
    assert float((drawn.table - 5).abs().mean()) < 2

    again = with_random_parameters(model, seed=3)
    for name, value in drawn.state_dict().items():
        assert torch.equal(value, again.state_dict()[name])
