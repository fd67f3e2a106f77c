"""EK-FAC on a ResNet-18 of 11 M parameters, all layers: 5,000 images of 64 × 64, 100 test losses.

``python -m benchmarks.resnet_images``. Four samples of each image's rows make the factors, and 2000
directions are coupled (``EKFAC(mc_samples=4)``, or as ``--samples`` and ``--coupled`` say); seconds
and peak memory are those of a fresh process that is given model and images, result included. How
good the factors are is seen where the exact answer can be had: by the parameters of the last
residual block, on some of the images, the mean of Spearman's correlation with exact influences over
the test losses, at the same absolute damping.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
import warnings
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor, nn

import whence as wh
from benchmarks import _measure
from benchmarks._measure import Row, say
from benchmarks._resnet import Images, ResNet, images, trained
from benchmarks.resnet_curvature import agreement

WIDTH, SIDE = 64, 64
TARGETS = 100
DAMPINGS = (1e-3, 1e-2, 1e-1)
MOST_SECONDS, MOST_GIB, LEAST_AGREEMENT = 1800.0, 8.0, 0.95
MEMORY_BUDGET = 6_800_000_000
"""Bytes that gradients of targets and their solutions may take beside little else: of 50 targets at
once."""
MATRICES = 2
"""Of as many rows as directions are coupled, in double precision, that are kept meanwhile."""


class LastBlock(nn.Module):
    """What comes after the last block's input."""

    def __init__(self, model: ResNet) -> None:
        super().__init__()
        self.block = model.blocks[-1]
        self.head = model.head

    def forward(self, features: Tensor) -> Tensor:
        """Return the logits."""
        return self.head(self.block(features).mean(dim=(2, 3)))


def memory_budget(solver: wh.EKFAC) -> int:
    """Return what is left for gradients of targets beside the matrices of coupled directions."""
    return MEMORY_BUDGET - 8 * MATRICES * solver.coupled**2


def read(folder: Path, width: int) -> tuple[ResNet, Images]:
    """Return the network and the images of a folder."""
    data = Images.read(folder)
    model = ResNet(width, is_wide=True)
    model.load_state_dict(safetensors.torch.load_file(folder / "model.safetensors"))
    return model.eval(), data


def measured(
    folder: Path, width: int, threads: int, samples: int, coupled: int
) -> None:
    """Attribute in this process, and print what it took."""
    torch.set_num_threads(threads)
    warnings.simplefilter("ignore", wh.FarFromMinimum)
    model, data = read(folder, width)
    solver = wh.EKFAC(mc_samples=samples, coupled=coupled)
    made = wh.Influence(
        model,
        (data.x, data.y),
        nn.CrossEntropyLoss(),
        solver=solver,
        memory_budget=memory_budget(solver),
    )
    begun = time.perf_counter()
    cpu = time.process_time()
    made.state()
    factored = time.perf_counter() - begun
    found = made.attribute(wh.Loss(data.x_test, data.y_test))
    taken = {
        "seconds": time.perf_counter() - begun,
        "factored": factored,
        "cpu": time.process_time() - cpu,
        "residual": found.attrs["solver_residual"],
        "bytes": _measure.peak_bytes(),
    }
    print(json.dumps(taken))


@torch.no_grad()
def features(model: ResNet, x: Tensor) -> Tensor:
    """Return the last block's inputs."""
    parts = []
    for images_of in x.split(100):
        stem = model.pool(torch.relu(model.stem(images_of)))
        parts.append(model.blocks[:-1](stem))
    return torch.cat(parts)


def last_block(model: ResNet, data: Images, n: int, factors: wh.EKFAC) -> list[Row]:
    """Return how far factors and exact curvature agree on the last block."""
    inner = LastBlock(model)
    train = features(model, data.x[:n]), data.y[:n]
    targets = wh.Loss(features(model, data.x_test), data.y_test)

    def influence(solver: wh.EKFAC | str, damping: wh.Damping) -> wh.Influence:
        return wh.Influence(
            inner,
            train,
            nn.CrossEntropyLoss(),
            parameters="block.*",
            solver=solver,
            damping=damping,
            memory_budget=MEMORY_BUDGET,
        )

    exact = influence("auto", wh.Damping(min(DAMPINGS)))
    largest = exact.state().spectrum.largest_eigenvalue
    first = wh.Damping(min(DAMPINGS) * largest, relative=False)
    factored = influence(factors, first)
    rows = []
    for damping in DAMPINGS:
        absolute = wh.Damping(damping * largest, relative=False)
        expected = exact.with_damping(absolute).attribute(targets)
        found = factored.with_damping(absolute).attribute(targets)
        correlation, ratio = agreement(found.values, expected.values)
        residual = expected.attrs["solver_residual"]
        detail = f"sizes {ratio:.2g} times the exact, whose residual is {residual:.0e}"
        what = f"last block, {n} images, damping {damping}: agreement with exact"
        rows.append(Row(what, correlation, "", detail, least=LEAST_AGREEMENT))
    return rows


def rows(given: argparse.Namespace) -> list[Row]:
    """Train, attribute in a process of its own, and compare the last block."""
    width = 8 if given.quick else WIDTH
    n = 60 if given.quick else given.images
    n_test = 10 if given.quick else TARGETS
    data = images(n, n_test, side=SIDE)
    model, accuracy = trained(width, data, 2, is_wide=True)
    size = sum(parameter.numel() for parameter in model.parameters())
    say(f"{size} parameters; {accuracy:.0%} of the test images are right")

    factors = wh.EKFAC(mc_samples=given.samples, coupled=given.coupled)
    table = []
    if given.part != "block":
        table += all_layers(model, data, width, given)
    if given.part != "all_layers":
        table += last_block(model, data, min(n, given.exact_images), factors)
    return table


def all_layers(
    model: ResNet, data: Images, width: int, given: argparse.Namespace
) -> list[Row]:
    """Return seconds and peak memory of a process that attributes by all parameters."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        data.write(folder)
        safetensors.torch.save_file(model.state_dict(), folder / "model.safetensors")
        numbers = (width, given.threads, given.samples, given.coupled)
        taken = _measure.child(
            "benchmarks.resnet_images", "measured", scratch, *map(str, numbers)
        )

    say(f"{taken}")
    size = sum(parameter.numel() for parameter in model.parameters())
    what = (
        f"ResNet-18, {size / 1e6:.1f} M parameters, {len(data.x)} images, {len(data.x_test)} test "
        "losses"
    )
    detail = (
        f"factors {taken['factored']:.0f} s; {taken['cpu']:.0f} s of processors; relative residual "
        f"{taken['residual']:.2g}"
    )
    return [
        Row(f"{what}: time", taken["seconds"], "s", detail, most=MOST_SECONDS),
        Row(f"{what}: peak memory", taken["bytes"] / 2**30, "GiB", most=MOST_GIB),
    ]


def main() -> None:
    """Measure and print the table."""
    if sys.argv[1:2] == ["measured"]:
        measured(Path(sys.argv[2]), *map(int, sys.argv[3:]))
        return
    parser = _measure.parser(__doc__)
    parser.add_argument(
        "--exact-images", type=int, default=500, help="images of the exact answer (500)"
    )
    parser.add_argument(
        "--images", type=int, default=5000, help="training images (5000)"
    )
    parser.add_argument(
        "--samples",
        type=int,
        default=4,
        help="rows of each image that make the factors (4)",
    )
    parser.add_argument(
        "--coupled", type=int, default=2000, help="directions of all layers (2000)"
    )
    parser.add_argument(
        "--part", choices=("all_layers", "block"), help="one of the two parts"
    )
    given = parser.parse_args()
    _measure.run(given, lambda: rows(given))


if __name__ == "__main__":
    main()
