"""Influences by kronfluence's EK-FAC, in a process of its own, as it is another environment's.

``python -m benchmarks._kronfluence_resnet JOB WIDTH THREADS``: JOB is a folder with
``state.safetensors`` and ``data.safetensors`` (images, labels, test images, test labels, absolute
dampings); for each damping it writes ``scores_K.npy``, (test, training), in the sign and scale of
whence: the change of a test loss when an image is removed, by the layers that kronfluence knows
(convolutions and linear ones).
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from kronfluence.analyzer import Analyzer, prepare_model
from kronfluence.arguments import FactorArguments, ScoreArguments
from torch.utils.data import TensorDataset

from benchmarks._kronfluence import Classification
from benchmarks._resnet import ResNet


def main() -> None:
    """Read the job, make the scores, write them and the seconds that each took."""
    torch.set_num_threads(int(sys.argv[3]))
    torch.manual_seed(0)
    folder = Path(sys.argv[1])
    job = safetensors.torch.load_file(folder / "data.safetensors")
    model = ResNet(int(sys.argv[2]))
    model.load_state_dict(safetensors.torch.load_file(folder / "state.safetensors"))
    model.eval()
    train = TensorDataset(job["x"], job["y"])
    test = TensorDataset(job["x_test"], job["y_test"])

    kind = Classification()
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
        for k, damping in enumerate(job["dampings"].tolist()):
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
