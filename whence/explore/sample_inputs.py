"""What a sample looks like: an image, a row of a table, a sequence of whole numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from whence.samples import Samples

Kind = Literal["image", "row", "tokens", "other"]

MAX_COLUMNS = 64
"""Numbers of a sample that are shown as a row."""
MAX_TOKENS = 128
"""Whole numbers of a sequence that are shown."""
CHANNELS = (1, 3)
LOOKED_AT = 256
"""Samples by which the darkest and the lightest number of images are set."""
SUMMARY = ("mean", "smallest", "largest")
"""What is said of inputs that are nothing better known."""


@dataclass(frozen=True)
class InputView:
    """How the inputs of samples are shown.

    Parameters
    ----------
    kind:
        ``"image"``: (H, W) or (C, H, W) with C of 1 or 3. ``"row"``: a few numbers. ``"tokens"``:
        whole numbers. ``"other"``: a summary.
    shape:
        That of one sample: (C, H, W) of an image.
    place:
        Which of several inputs it is, in the order of the model's arguments.
    low, high:
        Numbers of images that are drawn black and white.

    Examples
    --------
    >>> import torch
    >>> from whence.explore.sample_inputs import InputView
    >>> from whence.samples import Samples
    >>> samples = Samples(torch.arange(32.0).reshape(2, 4, 4))
    >>> view = InputView.of(samples)
    >>> view.kind, view.shape, view.low, view.high
    ('image', (1, 4, 4), 0.0, 31.0)
    >>> view.numbers(samples, side=2)[0]                     # means of 2 × 2
    array([ 2.5,  4.5, 10.5, 12.5])
    """

    kind: Kind
    shape: tuple[int, ...]
    place: int = 0
    low: float = 0.0
    high: float = 1.0

    @classmethod
    def of(cls, samples: Samples) -> InputView:
        """Return how to show these samples, by the looks of the first ones."""
        some = samples[: min(len(samples), LOOKED_AT)]
        inputs = pytree.tree_leaves(some.inputs)
        kinds = [kind_of(tensor) for tensor in inputs]

        # The first input that can be shown stands for the sample.
        known = [place for place, kind in enumerate(kinds) if kind != "other"]
        place = known[0] if known else 0
        tensor = inputs[place]
        shape = tuple(tensor.shape[1:])
        if kinds[place] != "image":
            return cls(kinds[place], shape, place)

        if len(shape) == 2:
            shape = (1, *shape)
        low, high = float(tensor.min()), float(tensor.max())
        return cls("image", shape, place, low, high)

    def numbers(self, samples: Samples, side: int) -> np.ndarray:
        """Return the numbers to show of each sample, (n, k).

        Parameters
        ----------
        samples:
            Which.
        side:
            Of images, how many pixels high and wide they are at most: larger ones are averaged.
        """
        tensor = pytree.tree_leaves(samples.inputs)[self.place].detach().cpu()
        table = tensor.reshape(len(samples), -1).double()
        if self.kind == "image":
            images = table.reshape(len(samples), *self.shape)
            size = self.size(side)
            table = torch.nn.functional.adaptive_avg_pool2d(images, size).flatten(1)
        elif self.kind == "tokens":
            table = table[:, :MAX_TOKENS]
        elif self.kind == "other":
            columns = [table.mean(dim=1), table.amin(dim=1), table.amax(dim=1)]
            table = torch.stack(columns, dim=1)
        return table.numpy()

    def size(self, side: int) -> tuple[int, int]:
        """Return height and width of an image that is at most ``side`` pixels high and wide."""
        _, height, width = self.shape
        shrink = max(1.0, max(height, width) / side)
        return max(1, round(height / shrink)), max(1, round(width / shrink))


def kind_of(tensor: Tensor) -> Kind:
    """Return what kind of input this is, of n samples: (n, ...).

    Examples
    --------
    >>> import torch
    >>> from whence.explore.sample_inputs import kind_of
    >>> kind_of(torch.zeros(5, 3, 8, 8)), kind_of(torch.zeros(5, 4))
    ('image', 'row')
    """
    shape = tensor.shape[1:]
    is_real = tensor.dtype.is_floating_point
    if len(shape) == 3 and shape[0] in CHANNELS and min(shape) > 0:
        return "image"
    # A table of two axes of whole numbers may be an image of bytes too.
    if len(shape) == 2 and min(shape) > 1 and (is_real or tensor.dtype == torch.uint8):
        return "image"
    if is_real and tensor[0].numel() <= MAX_COLUMNS and len(shape) <= 1:
        return "row"
    if not is_real and len(shape) <= 1:
        return "tokens"
    return "other"
