"""A million measurements in batches: time of a row beside a plain PyTorch loop, and memory.

``python -m benchmarks.measurements``: a network (2, 64, 64, 1) in float64, Adam on batches of 8192
rows drawn without replacement. The plain loop is what one would write: index, forward, mean square,
backward, step. Each is timed in turn in a process of its own; memory is the peak of a whole
``pinn.train`` with batches, in a fresh process, less that of the imports.
"""

from __future__ import annotations

import json
import sys

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks import _measure
from benchmarks._measure import Row
from whence import pinn

ROWS, BATCH, STEPS = 1_000_000, 8192, 100
MOST_GIB = 2.0
NO_SLOWER = 1.0
LAYERS = (2, 64, 64, 1)


def table(rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Return places (rows, 2) and measured values."""
    rng = np.random.default_rng(0)
    places = rng.random((rows, 2))
    values = np.sin(3 * places[:, 0]) * places[:, 1]
    return places, values + 0.01 * rng.normal(size=rows)


def problem(places: np.ndarray, values: np.ndarray) -> pinn.Problem:
    """Return a problem that consists of measurements, but for one point of an equation."""
    return pinn.Problem(
        domain=pinn.Rectangle(("x", "y"), (0, 0), (1, 1)),
        outputs=("u",),
        equations={"pde": lambda u: 0 * u},
        conditions=[pinn.Data("sensors", places, u=values, sigma=0.01)],
    )


def network() -> nn.Module:
    """Return a new network."""
    return pinn.MLP(list(LAYERS), seed=0)


def plain_loop(places: Tensor, values: Tensor, steps: int) -> None:
    """Train as one would by hand."""
    model = network()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    order = torch.randperm(len(places))
    for k in range(steps):
        start = k * BATCH % (len(places) - BATCH)
        rows = order[start : start + BATCH]
        loss = ((model(places[rows])[:, 0] - values[rows]) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def _peak(rows: int) -> None:
    """Train on so many rows and print the peak of memory."""
    before = _measure.peak_bytes()
    places, values = table(rows)
    pinn.train(
        problem(places, values),
        network(),
        points={"pde": 1},
        schedule=pinn.Adam(STEPS, batch_size=BATCH),
        progress=False,
    )
    print(json.dumps({"bytes": _measure.peak_bytes() - before}))


def measure(rows: int, repeats: int) -> list[Row]:
    """Return the rows of the table."""
    places, values = table(rows)
    objective = problem(places, values).objective(network(), {"pde": [[0.5, 0.5]]})
    stepper = pinn.Adam(10**6, batch_size=BATCH).start(objective.parameters)
    points, measured = torch.from_numpy(places), torch.from_numpy(values)
    timings = _measure.paired(
        {
            "ours": lambda: stepper.advance(objective, STEPS),
            "plain loop": lambda: plain_loop(points, measured, STEPS),
        },
        repeats,
    )
    ours = timings["ours"].median / STEPS / BATCH
    plain = timings["plain loop"].median / STEPS / BATCH
    peaks = {}
    for n in (rows // 10, rows):
        peaks[n] = _measure.child("benchmarks.measurements", "--child", str(n))["bytes"]
    return [
        Row(
            f"{rows} measurements in batches of {BATCH}: time of a row, of a plain loop's",
            ours / plain,
            "",
            f"{1e6 * ours:.2f} µs, plain {1e6 * plain:.2f} µs",
            most=NO_SLOWER,
        ),
        Row(
            f"{rows} measurements: memory of training",
            peaks[rows] / 2**30,
            "GiB",
            f"{peaks[rows // 10] / 2**30:.2f} GiB of a tenth of them",
            most=MOST_GIB,
        ),
    ]


def main() -> None:
    """Measure and print the table."""
    if sys.argv[1:2] == ["--child"]:
        _peak(int(sys.argv[2]))
        return
    given = _measure.parser(__doc__).parse_args()
    rows = 100_000 if given.quick else ROWS
    repeats = 2 if given.quick else 7
    _measure.run(given, lambda: measure(rows, repeats))


if __name__ == "__main__":
    main()
