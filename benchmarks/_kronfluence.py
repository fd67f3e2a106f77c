"""kronfluence's EK-FAC on a classifier, called as its documentation does."""

from __future__ import annotations

import tempfile
import warnings
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import TensorDataset

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of its dependencies
    from kronfluence.analyzer import Analyzer, prepare_model
    from kronfluence.arguments import FactorArguments, ScoreArguments
    from kronfluence.task import Task

Data = tuple[Tensor, Tensor]


class Classification(Task):
    """Cross-entropy, summed as it asks for; labels drawn from the model make the true Fisher.

    Parameters
    ----------
    layers:
        Names of those that it is to track; None for all.
    """

    def __init__(self, layers: list[str] | None = None) -> None:
        super().__init__()
        self._layers = layers

    def get_influence_tracked_modules(self) -> list[str] | None:
        """Return the names of the layers that are tracked."""
        return self._layers

    def compute_train_loss(
        self, batch: Data, model: nn.Module, sample: bool = False
    ) -> Tensor:
        """Return the summed loss, of labels drawn from the model where ``sample``."""
        x, y = batch
        logits = model(x)
        if sample:
            with torch.no_grad():
                probabilities = torch.softmax(logits, dim=-1)
                y = torch.multinomial(probabilities, 1).flatten()
        return F.cross_entropy(logits, y, reduction="sum")

    def compute_measurement(self, batch: Data, model: nn.Module) -> Tensor:
        """Return the summed loss."""
        return self.compute_train_loss(batch, model)


def ekfac(
    model: nn.Module, train: Data, test: Data, damping: float | None = None
) -> Tensor:
    """Return its EK-FAC scores, (test, train); ``damping`` None is its own heuristic."""
    layers = None
    if any(isinstance(module, nn.MultiheadAttention) for module in model.modules()):
        # Of attention it knows no layer, and of a class that follows Linear neither.
        layers = [n for n, m in model.named_modules() if type(m) is nn.Linear]
    task = Classification(layers)
    prepared = prepare_model(model, task)
    with tempfile.TemporaryDirectory() as folder:
        analyzer = Analyzer("benchmark", prepared, task, cpu=True, output_dir=folder)
        analyzer.fit_all_factors(
            "factors",
            TensorDataset(*train),
            factor_args=FactorArguments(strategy="ekfac"),
            per_device_batch_size=len(train[0]),
        )
        options: dict[str, Any] = {"damping_factor": damping}
        analyzer.compute_pairwise_scores(
            "scores",
            "factors",
            TensorDataset(*test),
            TensorDataset(*train),
            per_device_query_batch_size=len(test[0]),
            per_device_train_batch_size=len(train[0]),
            score_args=ScoreArguments(**options),
        )
        scores: Tensor = analyzer.load_pairwise_scores("scores")["all_modules"]
    return scores.detach()
