"""Large supervised models: segmentation of many outputs, and the last layer of a large network.

``python -m benchmarks.large_supervised``: the objective of 200 images of 4096 pixels in 4 classes,
its time and memory in a fresh process; and how often the samples of a data set go through the
frozen layers of a network of 11 M parameters whose last layer is attributed to, by solver.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import torch
from torch import Tensor, nn

import whence as wh
from benchmarks import _measure
from benchmarks._measure import Row

IMAGES, SIDE, CLASSES = 200, 64, 4
MOST_SECONDS, MOST_GIB = 2.0, 1.0
ROWS = 50_000
WIDTH = 2300
"""Width of the two hidden layers: 11 M parameters."""
MOST_PASSES = 1.0


def _segmentation(images: int) -> None:
    """Make an objective and print its seconds, memory and choice of curvature."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, CLASSES, 1)
    )
    inputs = torch.randn(images, 3, SIDE, SIDE)
    targets = torch.randint(0, CLASSES, (images, SIDE, SIDE))
    before = _measure.peak_bytes()
    begun = time.perf_counter()
    objective = wh.Objective.supervised(model, (inputs, targets), nn.CrossEntropyLoss())
    influence = wh.Influence(objective)
    print(
        json.dumps(
            {
                "seconds": time.perf_counter() - begun,
                "bytes": _measure.peak_bytes() - before,
                "curvature": influence.curvature,
            }
        )
    )


class Counted(nn.Module):
    """Layers that count the samples that go through them."""

    def __init__(self, layers: nn.Module) -> None:
        super().__init__()
        self.layers = layers
        self.samples = 0

    def forward(self, x: Tensor) -> Tensor:
        """Return what the layers give."""
        self.samples += len(x)
        return self.layers(x)


def _passes(rows: int, solver: str) -> None:
    """Attribute to the last layer and print the passes through those before it."""
    torch.manual_seed(0)
    layers = [nn.Linear(20, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH), nn.ReLU()]
    layers += [nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, 64), nn.ReLU()]
    backbone = Counted(nn.Sequential(*layers))
    model = nn.Sequential(backbone, nn.Linear(64, 2))
    x = torch.randn(rows, 20)
    y = (x[:, 0] > 0).long()
    options: dict[str, Any] = {
        "exact": {"solver": wh.Exact()},
        "cg with a Hessian": {
            "solver": wh.ConjugateGradient(),
            "curvature": "hessian",
        },
    }[solver]
    begun = time.perf_counter()
    influence = wh.Influence(
        model, (x, y), nn.CrossEntropyLoss(), parameters="1.*", **options
    )
    influence.attribute(wh.Loss((x[:10], y[:10])))
    size = sum(parameter.numel() for parameter in model.parameters())
    print(
        json.dumps(
            {
                "passes": backbone.samples / rows,
                "parameters": size,
                "seconds": time.perf_counter() - begun,
            }
        )
    )


def measure(images: int, rows: int) -> list[Row]:
    """Return the rows of the table."""
    made = _measure.child("benchmarks.large_supervised", "segmentation", str(images))
    what = f"{images} images of {SIDE * SIDE} outputs: objective and curvature"
    table = [
        Row(what, made["seconds"], "s", made["curvature"], most=MOST_SECONDS),
        Row(f"{what}, memory", made["bytes"] / 2**30, "GiB", most=MOST_GIB),
    ]
    for solver in ("exact", "cg with a Hessian"):
        found = _measure.child(
            "benchmarks.large_supervised", "passes", str(rows), solver
        )
        table.append(
            Row(
                f"{rows} rows, last layer of {found['parameters'] / 1e6:.1f} M parameters, "
                f"{solver}: passes through the others",
                # Samples that find the layer and show its output are a few hundred.
                round(found["passes"], 1),
                "",
                f"{found['passes']:.4f} counted; {found['seconds']:.0f} s",
                most=MOST_PASSES,
            )
        )
    return table


def main() -> None:
    """Measure and print the table."""
    if sys.argv[1:2] == ["segmentation"]:
        _segmentation(int(sys.argv[2]))
        return
    if sys.argv[1:2] == ["passes"]:
        _passes(int(sys.argv[2]), sys.argv[3])
        return
    given = _measure.parser(__doc__).parse_args()
    images = 20 if given.quick else IMAGES
    rows = 1000 if given.quick else ROWS
    _measure.run(given, lambda: measure(images, rows))


if __name__ == "__main__":
    main()
