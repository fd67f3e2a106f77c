"""A residual network with batch normalization, and coloured digits to train it on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn

CLASSES = 10
SIDE = 32
BATCH = 40
BLOCKS_A_STAGE = 2
IMAGES = "images.safetensors"


def _normalized(
    inputs: int, outputs: int, kernel: int = 3, stride: int = 1
) -> nn.Sequential:
    """Return a convolution and its batch normalization."""
    convolution = nn.Conv2d(
        inputs, outputs, kernel, stride, padding=kernel // 2, bias=False
    )
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs))


class Block(nn.Module):
    """Two convolutions and what goes around them."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first = _normalized(inputs, outputs, stride=stride)
        self.second = _normalized(outputs, outputs)
        self.around: nn.Module = nn.Identity()
        if inputs != outputs:
            self.around = _normalized(inputs, outputs, kernel=1, stride=stride)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``relu(convolutions(x) + around(x))``."""
        inner = self.second(F.relu(self.first(x)))
        return F.relu(inner + self.around(x))


class ResNet(nn.Module):
    """ResNet-18 (He et al. 2016): 11,173,962 parameters at width 64 for images of 32 × 32.

    With ``is_wide`` the stem is that for larger images, of 7 × 7 and halved twice: 11,181,642.
    """

    def __init__(self, width: int = 64, *, is_wide: bool = False) -> None:
        super().__init__()
        self.stem = _normalized(3, width)
        self.pool: nn.Module = nn.Identity()
        if is_wide:
            self.stem = _normalized(3, width, kernel=7, stride=2)
            self.pool = nn.MaxPool2d(3, stride=2, padding=1)
        blocks = []
        inputs = width
        for stage in range(4):
            outputs = width * 2**stage
            for k in range(BLOCKS_A_STAGE):
                stride = 2 if stage and not k else 1
                blocks.append(Block(inputs, outputs, stride))
                inputs = outputs
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(inputs, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits (n, 10) of images (n, 3, side, side)."""
        features = self.blocks(self.pool(F.relu(self.stem(x))))
        return self.head(features.mean(dim=(2, 3)))


@dataclass(frozen=True)
class Images:
    """Images (n, 3, side, side) and labels (n,), for training and test."""

    x: Tensor
    y: Tensor
    x_test: Tensor
    y_test: Tensor

    def write(self, folder: Path) -> None:
        """Write them into a folder."""
        safetensors.torch.save_file(vars(self), folder / IMAGES)

    @classmethod
    def read(cls, folder: Path) -> Images:
        """Return the images that were written into a folder."""
        return cls(**safetensors.torch.load_file(folder / IMAGES))


def images(
    n: int = 240,
    n_test: int = 100,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    side: int = SIDE,
) -> Images:
    """Return digits of scikit-learn, enlarged, each in colours of its own and with noise.

    Of more images than there are digits a digit is in several, training and test apart.
    """
    data = load_digits()
    generator = np.random.default_rng(seed)
    order = generator.permutation(len(data.images))
    chosen = order[: n + n_test]
    if n + n_test > len(order):
        # The last digits are for tests, the others take turns.
        chosen = np.concatenate(
            [np.resize(order[:-n_test], n), order[len(order) - n_test :]]
        )
    shapes = torch.as_tensor(data.images[chosen] / 16, dtype=torch.float32)
    enlarged = F.interpolate(shapes.unsqueeze(1), size=(side, side), mode="bilinear")

    # From a dark colour of the ground to a bright one of the digit.
    colours = generator.uniform(0, 0.4, (2, len(chosen), 3, 1, 1))
    ground, missing = torch.as_tensor(colours, dtype=torch.float32)
    ink = 1 - missing
    noise = torch.as_tensor(
        generator.normal(0, 0.1, (len(chosen), 3, side, side)), dtype=torch.float32
    )
    x = (ground + enlarged * (ink - ground) + noise).to(dtype)
    y = torch.as_tensor(data.target[chosen])
    return Images(x[:n], y[:n], x[n:], y[n:])


def trained(
    width: int,
    data: Images,
    epochs: int = 20,
    seed: int = 0,
    *,
    is_wide: bool = False,
) -> tuple[ResNet, float]:
    """Return the network after some epochs of AdamW, and its accuracy on the test images."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = ResNet(width, is_wide=is_wide).to(data.x.dtype)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=1e-2)
        batches = -(-len(data.x) // BATCH)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, max_lr=1e-2, total_steps=epochs * batches
        )
        for _ in range(epochs):
            for part in torch.randperm(len(data.x)).split(BATCH):
                # Moved by up to three pixels, as there are few of them.
                moves = torch.randint(-3, 4, (2,)).tolist()
                x = torch.roll(data.x[part], shifts=moves, dims=(2, 3))
                optimizer.zero_grad()
                F.cross_entropy(model(x), data.y[part]).backward()
                optimizer.step()
                schedule.step()

    model.eval()
    with torch.no_grad():
        right = model(data.x_test).argmax(dim=1) == data.y_test
    return model, float(right.double().mean())
