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


@dataclasses.dataclass(frozen=True, eq=False)
class Question:
    """What is asked, and of what.

    Parameters
    ----------
    index:
        Of the training points.
    quantity:
        What is explained, one target for each loss.
    names:
        What each target is called.
    texts:
        The text of each training point, where the file has them.
    """

    index: GradientIndex
    quantity: Loss
    names: Sequence[str]
    texts: Sequence[str] | None


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
    question = question_of(options, folder)

    begun = time.perf_counter()
    table = question.index.attribute(question.quantity)
    seconds = time.perf_counter() - begun

    n_points = len(question.index)
    for target, name in enumerate(question.names):
        print(f"what {name} comes from, of {n_points} training points:")
        row = table.isel(target=target)
        show_points(question, target, row, options.show)
    print(f"answered in {1000 * seconds:.0f} ms by {folder}")
    return 0


def question_of(options: Options, folder: Path) -> Question:
    """Read the file and the index, and what is asked of it."""
    file = read(options.file)
    index = GradientIndex.open(folder, file.objective, damping=options.damping)
    names = ["the text"]
    if options.sample:
        names = [f"sample {number}" for number in options.sample]

    quantity = quantity_of(options, file)
    texts = texts_of(file, len(index))
    return Question(index, quantity, names, texts)


def quantity_of(options: Options, file: ModelFile) -> Loss:
    """Return what is explained: the loss of a text, or of test samples.

    Raises
    ------
    ValueError
        If there is a text, and the file does not say which sample it is.
    """
    if options.text is None:
        quantity: Any = quantity_of_tests(file, None, options.sample)
        return quantity

    encode = file.names.get("encode")
    if not callable(encode):
        raise ValueError(
            f"--text needs a function encode in {options.file}, which returns one sample for a "
            "text, as data has them: encode = lambda text: (inputs, target)"
        )
    sample = encode(options.text)
    return Loss(sample)


def texts_of(file: ModelFile, n_points: int) -> Sequence[str] | None:
    """Return the text of each training point, None where the file has none.

    Raises
    ------
    ValueError
        If there are more or fewer than training points.
    """
    texts = file.list_of_names("texts")
    if texts is not None and len(texts) != n_points:
        raise ValueError(
            f"texts must be one for each of {n_points} training points, got {len(texts)}"
        )
    return texts


def show_points(question: Question, target: int, row: Attribution, count: int) -> None:
    """Print the points that help a target the most, then those that harm it the most.

    ``row`` has the effect of removing each point on the target's loss: what raises it helped.
    """
    values = row.values
    order = np.argsort(-values, kind="stable")
    helping = order[values[order] > 0]
    harming = order[values[order] < 0][::-1]

    for title, places in (("helps", helping), ("harms", harming)):
        for place in places[:count]:
            words = described(question, target, row, int(place))
            print(f"  {title} {values[place]:+.3g}  {words}")


def described(question: Question, target: int, row: Attribution, place: int) -> str:
    """Return which training point this is, with its label and text where they are known."""
    words = f"point {place}"
    if "label" in row.coords:
        label = row.coords["label"].values[place]
        words += f", label {label}"
    if question.texts is not None:
        shown = excerpt(question, target, place, question.texts[place])
        words += f"  {shown}"
    return words


def excerpt(question: Question, target: int, place: int, text: str) -> str:
    """Return a part of a training text, around the position that matters most where that is known.

    Positions are the characters of the text where there are as many of either.
    """
    start = 0
    (term,) = question.index.objective.terms.values()
    n_positions = getattr(term.loss, "positions", 1)
    if n_positions == len(text) and len(text) > EXCERPT:
        effects = question.index.positions(question.quantity, place)
        start = strongest_window(effects[target].cpu(), EXCERPT)

    stop = start + EXCERPT
    shown = " ".join(text[start:stop].split())
    before = "…" if start else ""
    after = "…" if stop < len(text) else ""
    return f"{before}{shown}{after}"


def strongest_window(effects: torch.Tensor, width: int) -> int:
    """Return where the part of so many positions begins whose effect (position,) is largest.

    Effects of either sign count; those within a window add up.

    Examples
    --------
    >>> import torch
    >>> from whence.cli.query import strongest_window
    >>> strongest_window(torch.tensor([1.0, -1.0, -2.0, -2.0, 1.0]), 2)
    2
    """
    # All windows' sums are a convolution with ones.
    window = torch.ones(1, 1, width)
    channel = effects.float().view(1, 1, -1)
    sums = torch.nn.functional.conv1d(channel, window)

    sizes = sums.flatten().abs()
    return int(sizes.argmax())
