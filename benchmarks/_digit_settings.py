"""Digits in the settings of others' benchmarks, and many networks trained at once on parts."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits, load_sample_images
from torch import Tensor, nn

import whence as wh

TRAIN, TEST = 1200, 120
EPOCHS, BATCH_SIZE, RATE, MOMENTUM = 50, 64, 0.01, 0.9
Array = np.ndarray[Any, np.dtype[Any]]
Data = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Setting:
    """Data of one benchmark.

    Parameters
    ----------
    name:
        What it is called.
    train, test:
        Images and labels; the test's are the true ones.
    relevant:
        Which training samples ought to come first, (train,), or (test, train); None where nothing
        is known of that.
    """

    name: str
    train: Data
    test: Data
    relevant: Array | None = None


def network(n_classes: int = 10) -> nn.Module:
    """Return dattri's MLP of 128 and 64 hidden units with dropout, for 8 × 8 images."""
    return nn.Sequential(
        nn.Linear(64, 128),
        nn.ReLU(),
        nn.Dropout(0.1),
        nn.Linear(128, 64),
        nn.ReLU(),
        nn.Dropout(0.1),
        nn.Linear(64, n_classes),
    )


def digits() -> tuple[Data, Data]:
    """Return training and test images."""
    data = load_digits()
    x = torch.as_tensor(data.data / 16, dtype=torch.float32)
    y = torch.as_tensor(data.target)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    train, test = order[:TRAIN], order[TRAIN : TRAIN + TEST]
    return (x[train], y[train]), (x[test], y[test])


# --- what was changed of the data ---


def classes() -> Setting:
    """Return digits as they are: samples of the target's class ought to come first."""
    train, test = digits()
    return Setting("classes", train, test, same(test[1], train[1]))


def subclasses() -> Setting:
    """Return ten digits in two groups; those of the same digit ought to come first."""
    (x, y), (x_test, y_test) = digits()
    order = torch.randperm(10, generator=torch.Generator().manual_seed(42))
    group = torch.empty(10, dtype=torch.long)
    group[order] = torch.arange(10) % 2
    return Setting(
        "subclasses", (x, group[y]), (x_test, group[y_test]), same(y_test, y)
    )


def mislabelled(share: float) -> Setting:
    """Return digits of which a share has another label."""
    (x, y), test = digits()
    generator = torch.Generator().manual_seed(43)
    chosen = torch.randperm(len(y), generator=generator)[: int(share * len(y))]
    shift = torch.randint(1, 10, (len(chosen),), generator=generator)
    labels = y.clone()
    labels[chosen] = (y[chosen] + shift) % 10
    return Setting("mislabelled", (x, labels), test, (labels != y).numpy())


def shortcut() -> Setting:
    """Return digits with white bars on half of the zeros, and on all tests, no zeros."""
    (x, y), (x_test, y_test) = digits()
    zeros = torch.nonzero(y == 0)[:, 0]
    marked = zeros[: len(zeros) // 2]
    x = x.clone()
    x[marked] = with_bars(x[marked])
    others = y_test != 0
    relevant = np.zeros(len(y), dtype=bool)
    relevant[marked.numpy()] = True
    tests = (with_bars(x_test[others]), y_test[others])
    return Setting("shortcut", (x, y), tests, relevant)


def mixed() -> Setting:
    """Return digits and patches of photographs labelled 0; tests are other patches."""
    (x, y), _ = digits()
    patches = photographs(180)
    train, tests = patches[:TEST], patches[TEST:]
    n = len(x) - len(train)
    labels = torch.cat([y[:n], torch.zeros(len(train), dtype=torch.long)])
    relevant = np.arange(len(labels)) >= n
    of_tests = (tests, torch.zeros(len(tests), dtype=torch.long))
    return Setting(
        "mixed data", (torch.cat([x[:n], train]), labels), of_tests, relevant
    )


def same(first: Tensor, second: Tensor) -> Array:
    """Return where labels agree, (first, second)."""
    return (first[:, None] == second[None]).numpy()


def with_bars(x: Tensor) -> Tensor:
    """Return images (n, 64) with white bars at both sides, where digits have little ink."""
    marked = x.reshape(-1, 8, 8).clone()
    # A square of 3 × 3 in a corner fools the network 6 times in 109, and tells little.
    marked[:, :, [0, 7]] = 1.0
    return marked.reshape(-1, 64)


def photographs(count: int) -> Tensor:
    """Return gray patches (count, 64) of scikit-learn's two photographs."""
    images = [image.mean(2) / 255 for image in load_sample_images().images]
    generator = np.random.default_rng(0)
    patches = []
    for number in range(count):
        image = images[number % 2]
        row, column = (generator.integers(0, size - 32) for size in image.shape)
        # Four pixels in one, so that a patch shows more than a color.
        patch = image[row : row + 32, column : column + 32]
        patches.append(patch.reshape(8, 4, 8, 4).mean((1, 3)).reshape(-1))
    return torch.as_tensor(np.stack(patches), dtype=torch.float32)


# --- training ---


def recorded(setting: Setting, seed: int = 0) -> wh.TrainingRun:
    """Return a recorded training on all samples, as dattri trains."""
    torch.manual_seed(seed)
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE, momentum=MOMENTUM)
    run = wh.train(
        model,
        setting.train,
        nn.CrossEntropyLoss(),
        optimizer,
        epochs=EPOCHS,
        batch_size=BATCH_SIZE,
        seed=seed,
        progress=False,
    )
    model.eval()
    return run


@dataclass(frozen=True)
class Networks:
    """Many networks of one architecture, their parameters stacked by name."""

    parameters: dict[str, Tensor]

    def model(self, number: int) -> nn.Module:
        """Return one of them."""
        made = network().eval()
        made.load_state_dict({n: p[number] for n, p in self.parameters.items()})
        return made

    def losses(self, x: Tensor, y: Tensor) -> Array:
        """Return the loss of each at each sample, (networks, samples)."""
        skeleton = network().eval()

        def of_network(parameters: dict[str, Tensor]) -> Tensor:
            logits = torch.func.functional_call(skeleton, parameters, (x,))
            return F.cross_entropy(logits, y, reduction="none")

        with torch.no_grad():
            return torch.func.vmap(of_network)(self.parameters).numpy()


def trained_on(setting: Setting, subsets: Array, seed: int) -> Networks:
    """Return networks trained on subsets of one size, (networks, train), all at once.

    By the same steps as :func:`recorded`: each from its own start and in its own order.
    """
    x, y = setting.train
    members = torch.as_tensor(np.stack([np.flatnonzero(row) for row in subsets]))
    torch.manual_seed(seed)
    starts = [network().state_dict() for _ in subsets]
    stacked = {n: torch.stack([s[n] for s in starts]) for n in starts[0]}
    velocity = {name: torch.zeros_like(value) for name, value in stacked.items()}
    gradients = stacked_gradients(network().train())

    for _ in range(EPOCHS):
        order = torch.rand(members.shape).argsort(1)
        for places in members.gather(1, order).split(BATCH_SIZE, dim=1):
            of_step = gradients(stacked, x[places], y[places])
            for name, gradient in of_step.items():
                velocity[name] = MOMENTUM * velocity[name] + gradient
                stacked[name] = stacked[name] - RATE * velocity[name]
    return Networks(stacked)


def stacked_gradients(
    model: nn.Module,
) -> Callable[[dict[str, Tensor], Tensor, Tensor], dict[str, Tensor]]:
    """Return a function of stacked parameters and a batch for each that gives all gradients."""
    skeleton = copy.deepcopy(model)

    def loss(parameters: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(
            torch.func.functional_call(skeleton, parameters, (x,)), y
        )

    return torch.func.vmap(torch.func.grad(loss), randomness="different")
