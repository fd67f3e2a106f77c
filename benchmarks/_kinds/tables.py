"""Models of graphs and tables: heads and losses other than those of classes."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks._kinds.kind import (
    CLASSES,
    WIDTH,
    Kind,
    N,
    Through,
    classifier,
    kind,
    labels,
    real,
)


@kind("graphs, dense")
def _graphs(name: str) -> Kind:
    """Return a graph convolution on padded graphs, each a sample."""

    def forward(m: Any, x: Tensor, edges: Tensor, real_nodes: Tensor) -> Tensor:
        edges = edges + torch.eye(5).to(edges)
        degree = edges.sum(-1, keepdim=True)
        h = torch.relu(m.first(edges @ x / degree))
        h = m.second(edges @ h / degree) * real_nodes.unsqueeze(-1)
        return m.head(h.sum(1) / real_nodes.sum(1, keepdim=True))

    model = Through(
        forward, first=nn.Linear(3, WIDTH), second=nn.Linear(WIDTH, WIDTH),
        head=nn.Linear(WIDTH, CLASSES),
    )  # fmt: skip
    nodes = (
        torch.arange(5) < torch.tensor([5, 3, 4, 2, 5, 4] * (N // 6)).unsqueeze(1)
    ).double()
    edges = (
        (torch.rand(N, 5, 5) < 0.5).double() * nodes.unsqueeze(1) * nodes.unsqueeze(2)
    )
    edges = torch.maximum(edges, edges.mT)
    return classifier(name, model, real(N, 5, 3), edges, nodes)


def table(name: str, outputs: int, target: Tensor, loss: Any, mean: Any) -> Kind:
    """Return a network of a few features with another head."""
    model = nn.Sequential(nn.Linear(4, WIDTH), nn.Tanh(), nn.Linear(WIDTH, outputs))
    return Kind(name, model, (real(N, 4),), target, loss, mean)


@kind("several labels")
def _several_labels(name: str) -> Kind:
    target = labels(N, CLASSES, n=2).double()
    loss = nn.BCEWithLogitsLoss(pos_weight=torch.tensor([1.0, 2.0, 0.5]).double())
    return table(name, CLASSES, target, loss, loss)


@kind("ordinal")
def _ordinal(name: str) -> Kind:
    """Return classes in order: P(y > k) = σ(z − t_k) with thresholds that are parameters."""

    def forward(m: Any, x: Tensor) -> Tensor:
        return m.score(x) - m.thresholds

    def of_samples(z: Tensor, y: Tensor) -> Tensor:
        above = (y.unsqueeze(1) > torch.arange(CLASSES - 1)).to(z.dtype)
        return F.binary_cross_entropy_with_logits(z, above, reduction="none").sum(1)

    score = nn.Sequential(nn.Linear(4, WIDTH), nn.Tanh(), nn.Linear(WIDTH, 1))
    thresholds = nn.Parameter(torch.tensor([-0.5, 0.5]).double())
    model = Through(forward, score=score, thresholds=thresholds)
    return Kind(
        name,
        model,
        (real(N, 4),),
        labels(N),
        of_samples,
        lambda z, y: of_samples(z, y).mean(),
    )


@kind("survival, discrete time")
def _survival(name: str) -> Kind:
    """Return the likelihood of hazards σ(z_t) up to an event or the end of observation."""

    def of_samples(z: Tensor, target: Tensor) -> Tensor:
        last, event = target[:, :1], target[:, 1:]
        steps = torch.arange(z.shape[1], dtype=z.dtype)
        at_risk = (steps <= last).to(z.dtype)
        dies = (steps == last).to(z.dtype) * event
        return (
            at_risk * F.binary_cross_entropy_with_logits(z, dies, reduction="none")
        ).sum(1)

    target = torch.stack([labels(N, n=5), labels(N, n=2)], dim=1).double()
    return table(name, 5, target, of_samples, lambda z, y: of_samples(z, y).mean())


@kind("quantiles")
def _quantiles(name: str) -> Kind:
    def of_samples(z: Tensor, y: Tensor) -> Tensor:
        rates = torch.tensor([0.1, 0.5, 0.9]).to(z)
        rest = y - z
        return torch.maximum(rates * rest, (rates - 1) * rest).mean(1)

    return table(name, 3, real(N, 1), of_samples, lambda z, y: of_samples(z, y).mean())


@kind("contrastive pairs")
def _pairs(name: str) -> Kind:
    """Return pairs as samples: distances of two codes, far ones for unlike pairs."""

    def of_samples(codes: Any, same: Tensor) -> Tensor:
        distance = (codes[0] - codes[1]).square().sum(1).add(1e-6).sqrt()
        far = (1.0 - distance).clamp_min(0).square()
        return torch.where(same > 0, distance.square(), far)

    code = nn.Sequential(nn.Linear(4, WIDTH), nn.Tanh(), nn.Linear(WIDTH, 2))
    model = Through(lambda m, a, b: (m.code(a), m.code(b)), code=code)
    pairs = real(N, 4), real(N, 4)
    return Kind(name, model, pairs, labels(N, n=2).double(), of_samples,
                lambda z, y: of_samples(z, y).mean())  # fmt: skip
