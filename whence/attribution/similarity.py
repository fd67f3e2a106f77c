"""Similarity of activations: which training samples look alike to the network."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from whence import _checks
from whence.attribution.labels import Attributes, Effect
from whence.attribution.method import Method
from whence.attribution.quantities import AtPoints, Loss, Quantity
from whence.attribution.quantities.several import Several
from whence.attribution.quantities.total import Total
from whence.attribution.tiles import Directions, Solved, Stage
from whence.catalogue import METHODS
from whence.curvature.solvers import MEMORY_BUDGET
from whence.objective import LossLike, Objective
from whence.points import Points, evaluated_at_once
from whence.samples import Data, Samples
from whence.supervised import evaluating
from whence.term import Term

Similarity = Literal["cosine", "dot"]
Positions = Literal["mean", "all"]
CONVOLUTIONS = (nn.Conv1d, nn.ConvTranspose1d)
"""Layers whose sequences have channels in front."""


@METHODS.named()
class RepresentationSimilarity(Method):
    """Cosines, or products, of a layer's activations for target and training samples.

    Entry (target t, sample i) is ``h(t)ᵀh(i) / (‖h(t)‖ ‖h(i)‖)``, or ``h(t)ᵀh(i)``, with h what the
    last layer takes, or what a named layer gives (similarity of representations; Caruana et al.
    1999, Hanawa et al. 2021, arXiv 2006.04528). No factor w/N, no gradient, and labels are not
    looked at: positive says that two samples are alike to the network, not that one helps the
    other. A control for methods that claim more.

    Parameters
    ----------
    objective:
        What was trained, of supervised data, or a model.
    data, loss:
        Of a model, what it was trained on and for, see
        :class:`whence.attribution.method.Method`.
    layer:
        A module's name, as ``model.named_modules()`` has it, whose output is taken; by default the
        input of the last layer with a weight matrix or kernel.
    similarity:
        ``"cosine"`` or ``"dot"``.
    positions:
        ``"mean"``: of sequences (n, T, d) and images (n, C, H, W) the mean over tokens, or pixels,
        padding included; ``"all"``: each counts by itself, and there must be as many in all.
    memory_budget:
        Bytes that a result may take (2 GiB).

    Raises
    ------
    ValueError
        If the data are not supervised, there is no such layer, or the quantity is not of samples.

    Examples
    --------
    >>> import torch, whence as wh
    >>> model = torch.nn.Sequential(torch.nn.Identity(), torch.nn.Linear(2, 2))
    >>> x, y = torch.tensor([[1.0, 0.0], [3.0, 3.0]]), torch.tensor([0, 1])
    >>> method = wh.RepresentationSimilarity(model, (x, y), wh.CrossEntropy())
    >>> method.attribute(wh.Loss()).values.round(4)         # of the inputs of the one layer
    array([[1.    , 0.7071],
           [0.7071, 1.    ]], dtype=float32)
    """

    name = "representation_similarity"
    scaled = False
    movable = False
    sums_over_parameters = False

    def __init__(
        self,
        objective: Objective | nn.Module,
        data: Data | None = None,
        loss: LossLike | None = None,
        *,
        layer: str | None = None,
        similarity: Similarity = "cosine",
        positions: Positions = "mean",
        memory_budget: int = MEMORY_BUDGET,
    ) -> None:
        super().__init__(objective, data, loss, memory_budget=memory_budget)
        _checks.one_of("similarity", similarity, ("cosine", "dot"))
        _checks.one_of("positions", positions, ("mean", "all"))
        if not self.objective.has_samples:
            raise ValueError(
                "RepresentationSimilarity compares samples of supervised data: for a "
                "physics-informed network use wh.GradCos, which compares gradients"
            )
        if layer is not None:
            modules = [name for name, _ in self.objective.network.named_modules()]
            _checks.one_of("layer", layer, modules)
        self.layer = layer
        self.similarity = similarity
        self.positions = positions

    def transform_gradients(self, gradients: Tensor) -> tuple[Tensor, Solved]:
        """Return the gradients as they are: none is used."""
        return gradients, Solved()

    def description(self) -> Attributes:
        """Return the layer, and how activations are compared."""
        return {
            "layer": self.layer or "the input of the last layer",
            "similarity": self.similarity,
            "positions": self.positions,
        }

    def attributes(
        self, quantity: Quantity | None, effect: Effect, solved: Solved
    ) -> Attributes:
        """Return what the attributes of a result say: a likeness is no predicted change."""
        minus = "minus the " if effect == "add" else ""
        return {
            **super().attributes(quantity, effect, solved),
            "sign": f"{minus}similarity of activations, which is no predicted change",
        }

    def block_size(self, points: Points) -> int:
        """Return how many of these points have their activations taken at once."""
        return evaluated_at_once(points)

    # --- targets and points ---

    def target_directions(
        self, quantity: Quantity, start: int = 0
    ) -> Iterator[Directions]:
        """Yield the activations of targets, in place of their gradients' vectors."""
        first = 0
        for rows in self.target_rows(quantity):
            for block in rows.split(self.at_once()):
                targets = slice(first, first + len(block))
                if first >= start:
                    yield Directions(targets, [(Stage(), block.T)], Solved())
                first = targets.stop

    def target_rows(self, quantity: Quantity) -> Iterator[Tensor]:
        """Yield a row (d,) for each target: activations, or sums of them for an aggregate.

        Raises
        ------
        ValueError
            If the quantity is not of samples.
        """
        if isinstance(quantity, Several):
            for member in quantity.quantities:
                yield from self.target_rows(member)
            return
        if isinstance(quantity, Total):
            total = sum(rows.sum(dim=0) for rows in self.target_rows(quantity.quantity))
            assert isinstance(total, Tensor)
            yield total.unsqueeze(0)
            return
        if isinstance(quantity, Loss):
            yield from self._rows_of_loss(quantity)
            return
        if isinstance(quantity, AtPoints):
            samples = quantity.prepared(self.objective)
            # Every output of a sample is a target of its own.
            repeats = len(quantity.columns(self.objective))
            for rows in self.rows(samples):
                yield rows.repeat_interleave(repeats, dim=0)
            return
        raise ValueError(
            "RepresentationSimilarity compares samples, so that quantities must be of such: "
            f"wh.Loss(x, y) or wh.Output(x), got {_checks.describe(quantity)}"
        )

    def _rows_of_loss(self, loss: Loss) -> Iterator[Tensor]:
        total: Tensor | None = None
        for samples in loss.prepared(self.objective).values():
            factor = 1 / len(samples) if loss.reduce == "mean" else 1.0
            for rows in self.rows(samples):
                if loss.reduce == "none":
                    yield rows
                    continue
                part = factor * rows.sum(dim=0)
                total = part if total is None else total + part
        if total is not None:
            yield total.unsqueeze(0)

    def products(self, term: Term, points: Points, vectors: Tensor) -> Tensor:
        """Return the similarities of some points with activations (d, K), (n, K)."""
        parts = []
        for rows in self.rows(points):
            if rows.shape[1] != len(vectors):
                raise ValueError(
                    f"activations of training samples are of length {rows.shape[1]}, those of "
                    f"targets {len(vectors)}: compare means, positions='mean'"
                )
            parts.append(rows @ vectors)
        return torch.cat(parts)

    def self_products(self, term: Term, points: Points) -> tuple[Tensor, Solved]:
        """Return the similarity of each point with itself: 1 for a cosine."""
        squares = [rows.square().sum(dim=1) for rows in self.rows(points)]
        return torch.cat(squares), Solved()

    def rows(self, points: Points) -> Iterator[Tensor]:
        """Yield the activations of samples (n, d), of length one for cosines, some at a time."""
        assert isinstance(points, Samples)
        for part in points.split(evaluated_at_once(points)):
            values = self.activations(part.without_kept())
            if self.similarity == "cosine":
                # A sample without any activation is like no other.
                lengths = values.norm(dim=1, keepdim=True)
                unit = values / lengths
                values = torch.where(lengths > 0, unit, torch.zeros_like(values))
            yield values

    def activations(self, samples: Samples) -> Tensor:
        """Return the activations of some samples, (n, d)."""
        module, value = recorded(self.objective.network, self.layer, samples)
        if not isinstance(value, Tensor) or len(value) != len(samples):
            raise ValueError(
                f"layer {self.layer or 'the last'!r} must give a tensor with a row for each of "
                f"{len(samples)} samples, got {_checks.shape_of(value)}: name another"
            )
        value = value.detach().to(self.objective.parameters.dtype)
        if value.ndim > 2 and self.positions == "mean":
            # Channels are in front of pixels, and behind tokens.
            is_in_front = value.ndim > 3 or isinstance(module, CONVOLUTIONS)
            axes = range(2, value.ndim) if is_in_front else (1,)
            value = value.mean(dim=tuple(axes))
        return value.flatten(1)


def recorded(
    network: nn.Module, layer: str | None, samples: Samples
) -> tuple[nn.Module, object]:
    """Return a layer and what it gave for samples, or the last one and what it took.

    Of a layer that is called several times it is the last call.

    Raises
    ------
    ValueError
        If the layer was not called, or no layer has a weight.
    """
    calls: list[tuple[nn.Module, object]] = []

    def took(
        module: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any]
    ) -> None:
        tensors = pytree.tree_leaves((arguments, keywords))
        calls.append((module, tensors[0] if tensors else None))

    def gave(module: nn.Module, arguments: tuple[Any, ...], result: object) -> None:
        leaves = pytree.tree_leaves(result)
        calls.append((module, leaves[0] if leaves else None))

    if layer is None:
        handles = [
            module.register_forward_pre_hook(took, with_kwargs=True)
            for module in layers_with_weights(network)
        ]
    else:
        handles = [network.get_submodule(layer).register_forward_hook(gave)]
    try:
        with evaluating(network), torch.no_grad():
            evaluate(network, samples)
    finally:
        for handle in handles:
            handle.remove()

    if not calls:
        what = f"layer {layer!r} was not called" if layer else "no layer has a weight"
        raise ValueError(
            f"{what} when the network was evaluated: name another by layer="
        )
    return calls[-1]


def layers_with_weights(network: nn.Module) -> Sequence[nn.Module]:
    """Return the modules that have a matrix, or a kernel, for their own weight."""
    layers = []
    for module in network.modules():
        weight = getattr(module, "weight", None)
        if isinstance(weight, Tensor) and weight.ndim >= 2:
            layers.append(module)
    return layers


def evaluate(network: nn.Module, samples: Samples) -> None:
    """Evaluate a network on samples, for what its hooks see."""
    inputs = samples.inputs
    # A mapping holds keyword arguments, a tuple positional ones.
    if isinstance(inputs, tuple):
        network(*inputs)
    else:
        network(**inputs)
