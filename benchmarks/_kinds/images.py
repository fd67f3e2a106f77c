"""Models of images and of plain features: classifiers, segmentation, detection."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks._kinds.kind import (
    CLASSES,
    IGNORED,
    WIDTH,
    Kind,
    N,
    Through,
    classifier,
    counting,
    kind,
    labels,
    real,
)


@kind("mlp")
def _mlp(name: str) -> Kind:
    model = nn.Sequential(nn.Linear(4, WIDTH), nn.Tanh(), nn.Linear(WIDTH, CLASSES))
    return classifier(name, model, real(N, 4))


@kind("conv1d", "conv2d", "conv3d")
def _convolution(name: str) -> Kind:
    axes = int(name[4])
    layer = getattr(nn, f"Conv{axes}d")
    norm = getattr(nn, f"BatchNorm{axes}d")(4)
    model = nn.Sequential(
        layer(2, 4, 3, padding=1), norm, nn.ReLU(), layer(4, 4, 3, stride=2), nn.GroupNorm(2, 4),
        nn.Flatten(2), Through(lambda m, x: x.mean(2)), nn.Linear(4, CLASSES),
    )  # fmt: skip
    return classifier(name, model, real(N, 2, *[6] * axes))


@kind("residual network")
def _residual(name: str) -> Kind:
    def forward(m: Any, x: Tensor) -> Tensor:
        h = m.stem(x)
        h = F.relu(h + m.block(h))
        return m.head(h.mean((2, 3)))

    block = nn.Sequential(
        nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(inplace=True)
    )
    model = Through(
        forward, stem=nn.Conv2d(2, 4, 3), block=block, head=nn.Linear(4, CLASSES)
    )
    return classifier(name, model, real(N, 2, 6, 6))


@kind("segmentation")
def _segmentation(name: str) -> Kind:
    model = nn.Sequential(
        nn.Conv2d(2, 4, 3, stride=2, padding=1), nn.ReLU(),
        nn.ConvTranspose2d(4, CLASSES, 4, stride=2, padding=1),
    )  # fmt: skip
    y = labels(N, 6, 6)
    y[0, :3] = y[2, 2:] = IGNORED
    return Kind(name, model, (real(N, 2, 6, 6),), y, nn.CrossEntropyLoss(), F.cross_entropy,
                counting(y))  # fmt: skip


@kind("detection")
def _detection(name: str) -> Kind:
    """Return classes and boxes of three slots, with a weight of 5 on the boxes."""

    def forward(m: Any, x: Tensor) -> dict[str, Tensor]:
        h = torch.tanh(m.stem(x)).flatten(1)
        return {
            "classes": m.classes(h).unflatten(1, (CLASSES, 3)),
            "boxes": m.boxes(h).sigmoid().unflatten(1, (3, 4)),
        }

    parts = {
        "stem": nn.Conv2d(2, 3, 3),
        "classes": nn.Linear(48, 9),
        "boxes": nn.Linear(48, 12),
    }
    target = {"classes": labels(N, 3), "boxes": torch.rand(N, 3, 4).double()}

    def of_outputs(outputs: Any, goal: Any) -> Tensor:
        of_boxes = F.smooth_l1_loss(outputs["boxes"], goal["boxes"])
        return F.cross_entropy(outputs["classes"], goal["classes"]) + 5.0 * of_boxes

    loss = {"classes": nn.CrossEntropyLoss(), "boxes": (5.0, nn.SmoothL1Loss())}
    return Kind(
        name, Through(forward, **parts), (real(N, 2, 6, 6),), target, loss, of_outputs
    )


@kind("detection, own function")
def _detection_by_function(name: str) -> Kind:
    made = _detection(name)

    def of_samples(outputs: Any, goal: Any) -> Tensor:
        of_boxes = F.smooth_l1_loss(outputs["boxes"], goal["boxes"], reduction="none")
        of_classes = F.cross_entropy(
            outputs["classes"], goal["classes"], reduction="none"
        )
        return of_classes.mean(1) + 5.0 * of_boxes.mean((1, 2))

    made.loss = of_samples
    return made


@kind("image transformer")
def _image_transformer(name: str) -> Kind:
    """Return patches by a convolution, a token for the class, places that are parameters."""

    def forward(m: Any, x: Tensor) -> Tensor:
        h = m.patches(x).flatten(2).transpose(1, 2)
        h = torch.cat([m.token.expand(len(x), -1, -1), h], dim=1) + m.places
        return m.head(m.layer(h)[:, 0] * m.scale)

    model = Through(
        forward, patches=nn.Conv2d(2, WIDTH, 2, stride=2), head=nn.Linear(WIDTH, CLASSES),
        layer=nn.TransformerEncoderLayer(WIDTH, 2, 12, batch_first=True, norm_first=True),
        token=nn.Parameter(real(1, 1, WIDTH)), places=nn.Parameter(real(1, 10, WIDTH)),
        scale=nn.Parameter(real(WIDTH)),
    )  # fmt: skip
    return classifier(name, model, real(N, 2, 6, 6))
