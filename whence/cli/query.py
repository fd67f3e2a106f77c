"""``whence query``: which training points taught a model this, from an index of its gradients."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import tyro

from whence import _checks
from whence.attribution.quantities import Loss
from whence.attribution.result import Attribution
from whence.cli.flags import default_words
from whence.cli.index import index_folder
from whence.cli.model_file import ModelFile, read
from whence.cli.quantities import quantity_of_tests
from whence.index.gradient_index import DAMPING, GradientIndex

EXCERPT = 100
"""Characters of a training text that are shown."""


@dataclasses.dataclass(frozen=True)
class Options:
    """Say which training points a model's answer comes from, by an index of `whence index`.

    A Python file may name `encode`, a function from a text to one sample as in `data`, for --text,
    and `texts`, the text of each training point, which are then shown.
    """

    file: tyro.conf.Positional[Path]
    """Python file that names model, data and loss; see `whence influence --help`."""
    text: str | None = None
    """A text to explain."""
    sample: Annotated[tuple[int, ...], default_words("none", "[INT ...]")] = ()
    """Test samples to explain, by their number."""
    index: Annotated[Path | None, default_words("FILE.index", "FOLDER")] = None
    """Folder of the index."""
    show: int = 5
    """How many of the strongest points to print, of either sign."""
    damping: float = DAMPING
    """Damping relative to the mean eigenvalue of the Fisher matrix."""


def run(options: Options, arguments: Sequence[str]) -> int:
    """Answer from the index; return the exit code."""
    if (options.text is None) == (not options.sample):
        raise ValueError("say what to explain: either --text or --sample")
    _checks.count("--show", options.show)
    folder = options.index or index_folder(options.file)
    if not folder.exists():
        raise FileNotFoundError(
            f"there is no index at {folder}: make it by whence index {options.file}"
        )
    file = read(options.file)
    index = GradientIndex.open(folder, file.objective, damping=options.damping)
    quantity = quantity_of(options, file)

    begun = time.perf_counter()
    table = index.attribute(quantity)
    seconds = time.perf_counter() - begun
    texts = file.list_of_names("texts")
    for target in range(table.sizes["target"]):
        name = f"sample {options.sample[target]}" if options.sample else "the text"
        print(f"what {name} comes from, of {len(index)} training points:")
        row = table.isel(target=target)
        show_points(index, quantity, target, row, texts, options.show)
    print(f"answered in {1000 * seconds:.0f} ms by {folder}")
    return 0


def quantity_of(options: Options, file: ModelFile) -> Loss:
    """Return what is explained: the loss of a text, or of test samples."""
    if options.text is None:
        quantity: Any = quantity_of_tests(file, None, options.sample)
        return quantity
    encode = file.names.get("encode")
    if not callable(encode):
        raise ValueError(
            f"--text needs a function encode in {options.file}, which returns one sample for a "
            "text, as data has them: encode = lambda text: (inputs, target)"
        )
    return Loss(encode(options.text))


def show_points(
    index: GradientIndex,
    quantity: Loss,
    target: int,
    row: Attribution,
    texts: Sequence[str] | None,
    count: int,
) -> None:
    """Print the points that help a target the most, then those that harm it the most."""
    values = row.values
    order = np.argsort(-values, kind="stable")
    for title, places in (("helps", order[:count]), ("harms", order[::-1][:count])):
        for place in places:
            line = f"  {title} {values[place]:+.3g}  point {place}"
            if "label" in row.coords:
                line += f", label {row.coords['label'].values[place]}"
            if texts is not None:
                line += (
                    f"  {excerpt(index, quantity, target, int(place), texts[place])}"
                )
            print(line)


def excerpt(
    index: GradientIndex, quantity: Loss, target: int, place: int, text: str
) -> str:
    """Return a part of a training text, around the position that matters most where that is known.

    Positions are the characters of the text where there are as many of either.
    """
    start = 0
    loss = next(iter(index.objective.terms.values())).loss
    if getattr(loss, "positions", 1) == len(text) and len(text) > EXCERPT:
        # Where a window of the text has the largest effect, of either sign.
        effects = index.positions(quantity, place)[target].cpu()
        window = torch.ones(1, 1, EXCERPT)
        sums = torch.nn.functional.conv1d(effects[None, None].float(), window)[0, 0]
        start = int(sums.abs().argmax())
    shown = " ".join(text[start : start + EXCERPT].split())
    before = "…" if start else ""
    after = "…" if start + EXCERPT < len(text) else ""
    return f"{before}{shown}{after}"
