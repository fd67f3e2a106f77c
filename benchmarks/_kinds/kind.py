"""What a kind is: a tiny model with data, its loss in whence, and the same in plain torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

N, TIME, WORDS, WIDTH, CLASSES = 24, 7, 11, 8, 3
IGNORED = -100
KINDS: dict[str, Callable[[str], Kind]] = {}


@dataclass
class Kind:
    """A model, its data and loss, and in plain torch the loss of all data and of one sample.

    ``of_outputs(outputs, target)`` is torch's loss of some samples as it is trained; ``share`` is
    what a sample's own loss is multiplied with so that the mean over samples is that of all.
    """

    name: str
    model: nn.Module
    inputs: Any
    target: Any
    loss: Any
    of_outputs: Callable[[Any, Any], Tensor]
    share: Callable[[int], float] = lambda i: 1.0
    parameters: Any = None
    data: Any = None
    call: Callable[[nn.Module, Any], Any] = field(default=lambda m, x: m(*x))

    def __post_init__(self) -> None:
        self.model = self.model.double().eval()
        if self.data is None:
            named = isinstance(self.inputs, Mapping)
            self.data = (
                (self.inputs, self.target) if named else (*self.inputs, self.target)
            )

    @property
    def n(self) -> int:
        """Number of samples."""
        return len(torch.utils._pytree.tree_leaves(self.inputs)[0])

    def _of(self, part: slice) -> Tensor:
        def cut(tensor: Tensor) -> Tensor:
            return tensor[part]

        inputs = torch.utils._pytree.tree_map(cut, self.inputs)
        target = torch.utils._pytree.tree_map(cut, self.target)
        return self.of_outputs(self.call(self.model, inputs), target)

    def whole_loss(self) -> Tensor:
        """Return torch's loss of all samples."""
        return self._of(slice(None))

    def sample_loss(self, i: int) -> Tensor:
        """Return torch's loss of a sample alone, times its share."""
        return self.share(i) * self._of(slice(i, i + 1))


Maker = Callable[[str], Kind]


def kind(*names: str) -> Callable[[Maker], Maker]:
    """Let the decorated function make the kinds of these names."""

    def register(make: Maker) -> Maker:
        for name in names:
            KINDS[name] = make
        return make

    return register


def counting(target: Tensor, shift: int = 0) -> Callable[[int], float]:
    """Return the share of each sample in a mean over the positions that count."""
    counts = (target[:, shift:] != IGNORED).flatten(1).sum(1).double()
    return lambda i: float(counts[i] * len(counts) / counts.sum())


def real(*shape: int) -> Tensor:
    """Return random numbers."""
    return torch.randn(*shape, dtype=torch.float64)


def labels(*shape: int, n: int = CLASSES) -> Tensor:
    """Return random classes."""
    return torch.randint(0, n, shape)


class Through(nn.Module):
    """A function of its parts."""

    def __init__(self, function: Callable[..., Any], **parts: Any) -> None:
        super().__init__()
        self.function = function
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, *inputs: Any) -> Any:
        """Return what the function gives."""
        return self.function(self, *inputs)


def classifier(name: str, model: nn.Module, *inputs: Tensor, **options: Any) -> Kind:
    """Return a classifier of whole samples."""
    ce = nn.CrossEntropyLoss()
    return Kind(name, model, inputs, labels(N), ce, F.cross_entropy, **options)
