"""A million synthetic training rows: memory must not grow with them.

``python -m benchmarks.samples_memory``: an MLP (20, 64, 64, 2) in float32, a Dataset that makes
each row when it is asked for (or holds them, for the quick tables), and for 20 test rows the ten
most and least influential of all training rows, by GradDot, by TracIn over two checkpoints and by
an influence function with a curvature of rank 50; each in a fresh process, at two numbers of rows.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

import whence as wh
from benchmarks import _measure
from benchmarks._measure import Row
from whence import samples
from whence.attribution.method import Method
from whence.attribution.reductions import reduced, top

ROWS, FEWER = 1_000_000, 100_000
MOST_GIB, FLAT = 2.0, 1.1
FEATURES = 20
HELD = 2**28
"""Bytes that the solver may keep rows in, so that neither number of rows is kept."""
METHODS = ("grad_dot", "tracin", "influence")


class Synthetic(Dataset[tuple[Tensor, int]]):
    """Rows made from their number when they are read; nothing is held."""

    def __init__(self, rows: int) -> None:
        self.rows = rows
        self._table = torch.randn(
            4096, FEATURES, generator=torch.Generator().manual_seed(0)
        )

    def __len__(self) -> int:
        """Return the number of rows."""
        return self.rows

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """Return a row and its class."""
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: list[int]) -> list[tuple[Tensor, int]]:
        """Return several rows at once, as torch's loader asks of datasets that can."""
        places = torch.as_tensor(indices)
        x = self._table[places % 4096] + 0.1 * self._table[
            (places // 4096) % 4096
        ].roll(1, 1)
        return list(zip(x, (x[:, 0] * x[:, 1] > 0).long().tolist(), strict=True))


def method(
    name: str, objective: wh.Objective, states: list[dict[str, Tensor]]
) -> Method:
    """Return the method of this name."""
    if name == "grad_dot":
        return wh.GradDot(objective)
    if name == "tracin":
        return wh.TracIn(objective, states)
    solver = wh.Nystrom(50, memory_budget=HELD)
    return wh.Influence(objective, solver=solver, damping=1e-3)


def _child(name: str, rows: int) -> None:
    torch.manual_seed(0)
    samples.IN_MEMORY_BYTES = (
        0  # as data beyond half a gibibyte are, whatever their number here
    )
    model = nn.Sequential(
        nn.Linear(FEATURES, 64),
        nn.ReLU(),
        nn.Linear(64, 64),
        nn.ReLU(),
        nn.Linear(64, 2),
    )
    states = [{n: s * t for n, t in model.state_dict().items()} for s in (0.5, 1.0)]
    objective = wh.Objective.supervised(model, Synthetic(rows), nn.CrossEntropyLoss())
    before = _measure.peak_bytes()
    test = Synthetic(20)
    made = method(name, objective, states)

    def run() -> Any:
        return top(made, wh.Loss(test), k=10), reduced(
            made, wh.Loss(test), how="mean_abs"
        )

    seconds, (found, mean) = _measure.once(run)
    print(
        json.dumps(
            {
                "seconds": seconds,
                "bytes": _measure.peak_bytes(),
                "before": before,
                "shown": found.highest_point.values[0, :3].tolist(),
                "mean": float(np.mean(mean)),
            }
        )
    )


def measure(rows: int, fewer: int) -> list[Row]:
    """Return time and memory of every method at two numbers of rows."""
    table = []
    for name in METHODS:
        few, many = (
            _measure.child("benchmarks.samples_memory", "--child", name, str(n))
            for n in (fewer, rows)
        )
        label = f"{name}, {rows:,} rows"
        peak, ratio = many["bytes"] / 2**30, many["bytes"] / few["bytes"]
        took = f"20 targets; {few['seconds']:.3g} s of {fewer:,} rows"
        table += [
            Row(label, many["seconds"], "s", took),
            Row(
                f"{label}: peak memory",
                peak,
                "GiB",
                "libraries included",
                most=MOST_GIB,
            ),
            Row(f"{label}: peak memory", ratio, f"× that of {fewer:,}", most=FLAT),
        ]
    return table


def main() -> None:
    """Measure and print."""
    if "--child" in sys.argv:
        name, rows = sys.argv[sys.argv.index("--child") + 1 :][:2]
        _child(name, int(rows))
        return
    given = _measure.parser(__doc__).parse_args()
    sizes = (20_000, 5_000) if given.quick else (ROWS, FEWER)
    _measure.run(given, lambda: measure(*sizes))


if __name__ == "__main__":
    main()
