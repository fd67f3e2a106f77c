"""A language model's passages by an index: building it, asking it, and what it finds.

``python -m benchmarks.language``: a transformer of 1.8 M parameters over bytes is trained on a
million bytes of Python's documentation for some minutes. The gradients of its 8192 spans of 128
bytes are projected into an index; then spans with a few bytes changed, and sentences of one's own,
are asked for. How often the changed span's source comes first is compared with an index without
curvature and with exact products of gradients; tail patches say how much a step on the strongest
spans helps.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import whence as wh
from benchmarks import _bytes, _measure
from benchmarks._measure import Row
from whence.evaluation import tail_patch

BYTES = 1_000_000
MINUTES, QUERY_MS, GIB = 30.0, 100.0, 2.0
QUERIES = 20
TRAIN_SECONDS = 600.0


def changed(span: Tensor, generator: torch.Generator, share: float = 0.1) -> Tensor:
    """Return a span in which a share of the bytes are others."""
    other = torch.randint(32, 127, span.shape, generator=generator)
    swapped = torch.rand(span.shape, generator=generator) < share
    return torch.where(swapped, other, span)


def trained(n_bytes: int, seconds: float) -> tuple[nn.Module, Tensor, float]:
    """Return the model, its spans, and its loss in nats a byte."""
    data = _bytes.spans(_bytes.text(n_bytes))
    torch.manual_seed(0)
    model = _bytes.ByteTransformer()
    loss = _bytes.train(model, data, seconds, _measure.say)
    return model.eval(), data, loss


def first_places(tables: dict[str, Any], sources: Tensor) -> dict[str, float]:
    """Return how often the source of a changed span comes first, by table."""
    shares = {}
    for name, table in tables.items():
        first = np.asarray(table).argmax(axis=1)
        shares[name] = float((first == sources.numpy()).mean())
    return shares


def measure(given: argparse.Namespace) -> list[Row]:
    """Train, build, ask."""
    n_bytes = 20_000 if given.quick else BYTES
    seconds = 10.0 if given.quick else given.seconds
    model, data, loss = trained(n_bytes, seconds)
    size = sum(parameter.numel() for parameter in model.parameters())
    batch = {"x": data, "labels": data}
    objective = wh.Objective.supervised(model, batch, wh.NextToken())

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "bytes.index"
        built, index = _measure.once(lambda: wh.GradientIndex.build(objective, path))
        on_disk = sum(f.stat().st_size for f in path.rglob("*") if f.is_file())
        opened, index = _measure.once(lambda: wh.GradientIndex.open(path, objective))

        generator = torch.Generator().manual_seed(1)
        sources = torch.randperm(len(data), generator=generator)[:QUERIES]
        queries = changed(data[sources], generator)
        times = []
        for query in queries:
            one = query[None]
            quantity = wh.Loss({"x": one, "labels": one})
            begun = time.perf_counter()
            index.attribute(quantity)
            times.append(1000 * (time.perf_counter() - begun))
        whole = wh.Loss({"x": queries, "labels": queries})
        plain = wh.GradientIndex.open(path, objective, damping=1e6)
        tables = {
            "index": index.attribute(whole),
            "index without curvature": plain.attribute(whole),
            "exact products": wh.GradDot(objective).attribute(whole),
        }
        of_tokens, _ = _measure.once(lambda: index.positions(whole, int(sources[0])))

    shares = first_places(tables, sources)
    lowered = {}
    for name, table in tables.items():
        patch = tail_patch(objective, whole, table, k=1, rate=1e-2)
        lowered[name] = patch.attrs["mean"]
    strongest = np.asarray(tables["index"])[0].argmax()
    _measure.say(f"asked:  {bytes(queries[0].tolist())!r}")
    _measure.say(f"found:  {bytes(data[strongest].tolist())!r}")

    table = [
        Row(
            f"index of {len(data)} spans, {n_bytes} bytes, {size / 1e6:.1f} M parameters",
            built / 60,
            "min",
            f"{index.projection.size} numbers each; loss {loss:.2f} nats a byte",
            most=MINUTES,
        ),
        Row(
            "one query, median",
            float(np.median(times)),
            "ms",
            f"{min(times):.0f} to {max(times):.0f} ms; opening takes {opened:.1f} s",
            most=QUERY_MS,
        ),
        Row("index on disk", on_disk / 2**30, "GiB", most=GIB),
        Row("effects of the bytes of a span, 20 queries", of_tokens, "s"),
    ]
    for name in tables:
        table.append(
            Row(
                f"{name}: changed spans whose source comes first",
                100 * shares[name],
                "%",
                f"tail patch {lowered[name]:.3g} nats",
            )
        )
    return table


def main() -> None:
    """Measure and print the table."""
    parser = _measure.parser(__doc__)
    parser.add_argument("--seconds", type=float, default=TRAIN_SECONDS)
    given = parser.parse_args()
    _measure.run(given, lambda: measure(given))


if __name__ == "__main__":
    main()
