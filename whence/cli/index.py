"""``whence index``: project the gradients of a model's training points, for quick questions."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro

from whence.cli.flags import default_words
from whence.cli.model_file import read
from whence.index.gradient_index import DIMENSION, GradientIndex


@dataclasses.dataclass(frozen=True)
class Options:
    """Keep a projection of every training point's gradient, which `whence query` asks.

    A call that was stopped is gone on with by the same call.
    """

    file: tyro.conf.Positional[Path]
    """Python file that names model, data and loss; see `whence influence --help`."""
    out: Annotated[Path | None, default_words("FILE.index", "FOLDER")] = None
    """Folder of the index."""
    dimension: int = DIMENSION
    """Numbers that the gradient of each layer is projected to."""
    batch_size: int | None = None
    """Points evaluated at once; by default as many as fit."""
    seed: int = 0
    """Seed of the projections."""


def run(options: Options, arguments: Sequence[str]) -> int:
    """Make the index; return the exit code."""
    file = read(options.file)
    out = options.out or index_folder(options.file)
    index = GradientIndex.build(
        file.objective,
        out,
        dimension=options.dimension,
        seed=options.seed,
        batch_size=options.batch_size,
    )
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    print(
        f"{len(index)} points, {index.projection.size} numbers each, "
        f"{size / 2**20:.1f} MiB: {out}"
    )
    print(f"ask it: whence query {options.file} --sample 0")
    return 0


def index_folder(file: Path) -> Path:
    """Return the folder of a file's index where none is named."""
    return file.with_suffix(".index")
