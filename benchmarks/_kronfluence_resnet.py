"""Influences by kronfluence's EK-FAC, in a process of its own, as it is another environment's.

``python -m benchmarks._kronfluence_resnet JOB``: JOB is a folder with ``job.pt`` (width, state,
images, labels, test images, test labels, absolute dampings); for each damping it writes
``scores_K.npy``, (test, training), in the sign and scale of whence: the change of a test loss when
an image is removed, by the layers that kronfluence knows (convolutions and linear ones).
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from benchmarks._resnet import ResNet


def task() -> Any:
    """Return cross-entropy as kronfluence wants it: its Fisher matrix by sampled labels."""
    from kronfluence.task import Task

    class Classification(Task):
        def compute_train_loss(
            self, batch: Any, model: nn.Module, sample: bool = False
        ) -> Tensor:
            x, y = batch
            logits = model(x)
            if sample:
                with torch.no_grad():
                    chances = logits.softmax(dim=1)
                    y = torch.multinomial(chances, num_samples=1).flatten()
            return F.cross_entropy(logits, y, reduction="sum")

        def compute_measurement(self, batch: Any, model: nn.Module) -> Tensor:
            return self.compute_train_loss(batch, model)

    return Classification()


def main() -> None:
    """Read the job, make the scores, write them and the seconds that each took."""
    from kronfluence.analyzer import Analyzer, prepare_model
    from kronfluence.arguments import FactorArguments, ScoreArguments

    torch.set_num_threads(1)
    torch.manual_seed(0)
    folder = Path(sys.argv[1])
    job = torch.load(folder / "job.pt")
    model = ResNet(job["width"])
    model.load_state_dict(job["state"])
    model.eval()
    train = TensorDataset(job["x"], job["y"])
    test = TensorDataset(job["x_test"], job["y_test"])

    kind = task()
    prepared = prepare_model(model, kind)
    seconds = []
    with tempfile.TemporaryDirectory() as scratch:
        analyzer = Analyzer(
            "resnet", prepared, kind, cpu=True, output_dir=scratch, disable_tqdm=True
        )
        begun = time.perf_counter()
        analyzer.fit_all_factors(
            "ekfac",
            train,
            per_device_batch_size=60,
            factor_args=FactorArguments(strategy="ekfac"),
        )
        factored = time.perf_counter() - begun
        for k, damping in enumerate(job["dampings"]):
            begun = time.perf_counter()
            analyzer.compute_pairwise_scores(
                f"scores_{k}",
                "ekfac",
                test,
                train,
                per_device_query_batch_size=20,
                per_device_train_batch_size=60,
                score_args=ScoreArguments(damping_factor=damping),
            )
            scores = analyzer.load_pairwise_scores(f"scores_{k}")["all_modules"]
            # Without the factor 1/N of a point, which only whence has.
            np.save(folder / f"scores_{k}.npy", scores.numpy() / len(train))
            seconds.append(factored + time.perf_counter() - begun)
    np.save(folder / "seconds.npy", np.asarray(seconds))


if __name__ == "__main__":
    main()
