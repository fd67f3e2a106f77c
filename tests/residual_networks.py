"""Small convolutional networks with batch normalization, for tests of large models."""

import torch
import torch.nn.functional as F
from torch import nn

import whence as wh

IMAGES = 6
CLASSES = 4


class Residual(nn.Module):
    """Convolutions with a shortcut, of many positions at first and of few at last."""

    def __init__(self, width=3):
        super().__init__()
        self.stem = nn.Conv2d(1, width, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.inner = nn.Conv2d(width, width, 3, padding=1)
        self.last = nn.Conv2d(width, 8 * width, 3, stride=4)
        self.head = nn.Linear(8 * width, CLASSES)

    def forward(self, x):
        x = F.relu(self.norm(self.stem(x)))
        x = F.relu(x + self.inner(x))
        return self.head(F.relu(self.last(x)).mean(dim=(2, 3)))


def network(dtype=torch.float64, width=3):
    """Return a network with running statistics that are not those of a fresh one."""
    torch.manual_seed(0)
    made = Residual(width)
    made.norm.running_var.uniform_(0.5, 2.0)
    made.norm.running_mean.normal_(0.0, 0.1)
    return made.to(dtype).eval()


def images(dtype=torch.float64, n=IMAGES, seed=0):
    """Return images (n, 1, 7, 7) and labels."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 1, 7, 7, generator=generator, dtype=torch.float64)
    return x.to(dtype), torch.arange(n) % CLASSES


def objective(dtype=torch.float64, width=3):
    return wh.Objective.supervised(
        network(dtype, width), images(dtype), nn.CrossEntropyLoss()
    )
