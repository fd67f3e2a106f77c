"""Every kind of model of the benchmark: gradients by a plain loop, and torch's own loss."""

import warnings

import pytest
import torch

import whence as wh
from benchmarks._kinds import CAUSAL, KINDS
from benchmarks.model_kinds import looped, rows_of

OF_TRANSFORMERS = {
    *CAUSAL,
    "GPT-2, its own loss",
    "BERT, sequences",
    "BERT, tokens",
    "T5",
    "ViT",
}
BY_FUNCTION = {"low-rank adapters, merged": 2, "T5": 2}
"""Kinds with parameters that no layer has, and how many."""


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.filterwarnings("ignore:There is a performance drop")
def test_gradients_are_those_of_a_loop(name):
    if name in OF_TRANSFORMERS:
        pytest.importorskip("transformers")
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="transformers")
        kind = KINDS[name](name)
    objective = wh.Objective.supervised(
        kind.model, kind.data, kind.loss, parameters=kind.parameters
    )
    rows, route = rows_of(objective)
    others = BY_FUNCTION.get(name)
    assert route == ("layers" if others is None else f"layers, {others} by torch.func")

    expected = looped(kind, objective)
    assert (rows - expected).abs().max() <= 1e-10 * expected.abs().max()
    torch.testing.assert_close(
        objective.loss().detach(), kind.whole_loss().detach(), rtol=1e-12, atol=0
    )
    # The mean of the samples' gradients is the whole loss's; some layers compute in float32.
    _, gradient = objective.loss_and_gradient()
    assert (gradient - rows.mean(0)).abs().max() <= 1e-6 * gradient.abs().max()
