"""Losses of several outputs, one for each, summed: classes and boxes, words and pictures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from whence import _checks
from whence.losses import Loss, WithoutMatrix, require_target
from whence.outputs import Key, OutputLayout, Targets


@dataclass(frozen=True)
class Part:
    """One of several losses.

    Parameters
    ----------
    key:
        The output and target that it compares, by name or place.
    loss:
        The loss, whose outputs are flat.
    weight:
        The factor in front.
    """

    key: Key
    loss: Loss
    weight: float = 1.0

    def __post_init__(self) -> None:
        _checks.positive(f"the weight of the loss of {self.key!r}", self.weight)


@dataclass(frozen=True, eq=False)
class SummedLoss:
    """``ℓ(z, y) = Σ_k w_k ℓ_k(z_k, y_k)``, of outputs z_k that lie side by side in a row.

    Its gradient is those of the parts side by side, its curvature block-diagonal.

    Parameters
    ----------
    parts:
        A loss for each output that has one.
    layout:
        Where outputs lie in a row.

    Examples
    --------
    >>> import torch, whence as wh
    >>> from whence.outputs import layout_of
    >>> from whence.summed_losses import Part, SummedLoss
    >>> layout = layout_of({"class": torch.zeros(1, 2), "size": torch.zeros(1, 1)})
    >>> parts = (Part("class", wh.CrossEntropy()), Part("size", wh.Squared(), weight=0.5))
    >>> target = {"class": torch.tensor([0]), "size": torch.tensor([[2.0]])}
    >>> SummedLoss(parts, layout).value(torch.tensor([[0.0, 0.0, 0.0]]), target)  # log 2 + ½·2²
    tensor([2.6931])
    """

    parts: tuple[Part, ...]
    layout: OutputLayout

    @property
    def is_convex(self) -> bool:
        """Whether every part is."""
        return all(part.loss.is_convex for part in self.parts)

    @property
    def spans(self) -> bool:
        """Whether every part's gradient is in the range of its curvature's root."""
        return all(part.loss.spans for part in self.parts)

    def _of(
        self, part: Part, output: Tensor, target: Targets
    ) -> tuple[Tensor, Targets]:
        """Return a part's own output (n, m_k) and target."""
        # A target that no loss compares with may be there, too.
        everything = require_target(target)
        return output[:, self.layout.columns(part.key)], everything[part.key]

    def _each(
        self,
        output: Tensor,
        target: Targets,
        value: Callable[[Part, Tensor, Targets], Tensor],
    ) -> Tensor:
        """Return what each part gives in its own columns, (n, m), and zeros in the others."""
        table = torch.zeros_like(output)
        for part in self.parts:
            output_of, goal = self._of(part, output, target)
            table[:, self.layout.columns(part.key)] = value(part, output_of, goal)
        return table

    def value(self, output: Tensor, target: Targets = None) -> Tensor:
        """Return the weighted sum of the parts' losses of each sample."""
        values = []
        for part in self.parts:
            values.append(
                part.weight * part.loss.value(*self._of(part, output, target))
            )
        return torch.stack(values).sum(dim=0)

    def gradient(self, output: Tensor, target: Targets = None) -> Tensor:
        """Return the parts' gradients side by side, (n, m)."""

        def slope(part: Part, own: Tensor, goal: Targets) -> Tensor:
            return part.weight * part.loss.gradient(own, goal)

        return self._each(output, target, slope)

    def curvature_root(self, output: Tensor, target: Targets = None) -> Tensor:
        """Return the parts' roots on the diagonal, (n, m, m), times the roots of their weights."""
        n, m = output.shape
        # With Λ = Σ_k w_k Λ_k on the diagonal, S has the blocks √w_k S_k.
        root = output.new_zeros(n, m, m)
        for part in self.parts:
            columns = self.layout.columns(part.key)
            block = part.loss.curvature_root(*self._of(part, output, target))
            root[:, columns, columns] = part.weight**0.5 * block
        return root

    def curvature_product(
        self, output: Tensor, target: Targets = None
    ) -> Callable[[Tensor], Tensor]:
        """Return ``v ↦ Λv``, (n, m) to (n, m), part by part."""
        # Made once, as many vectors come for the same outputs.
        products = {}
        for part in self.parts:
            output_of, goal = self._of(part, output, target)
            products[part.key] = product_of(part.loss, output_of, goal)

        def product(vectors: Tensor) -> Tensor:
            table = torch.zeros_like(vectors)
            for part in self.parts:
                columns = self.layout.columns(part.key)
                image = products[part.key](vectors[:, columns])
                table[:, columns] = part.weight * image
            return table

        return product

    def curvature_column(
        self, output: Tensor, target: Targets = None
    ) -> Callable[[int], Tensor]:
        """Return the columns of :meth:`curvature_root`, k to (n, m), each made when asked for."""
        made: dict[Key, Callable[[int], Tensor]] = {}

        def column(k: int) -> Tensor:
            table = torch.zeros_like(output)
            for part in self.parts:
                columns = self.layout.columns(part.key)
                # Only one part has column k.
                if columns.start <= k < columns.stop:
                    output_of, goal = self._of(part, output, target)
                    if part.key not in made:
                        made[part.key] = column_of(part.loss, output_of, goal)
                    entries = made[part.key](k - columns.start)
                    table[:, columns] = part.weight**0.5 * entries
            return table

        return column

    def whitened_gradient(self, output: Tensor, target: Targets = None) -> Tensor:
        """Return the parts' whitened gradients times the roots of their weights, (n, m)."""

        def whitened(part: Part, own: Tensor, goal: Targets) -> Tensor:
            # √w S ρ = w ∂ℓ for ρ = √w ρ′ with S ρ′ = ∂ℓ.
            return part.weight**0.5 * part.loss.whitened_gradient(own, goal)

        return self._each(output, target, whitened)


def product_of(
    loss: Loss, output: Tensor, target: Targets
) -> Callable[[Tensor], Tensor]:
    """Return ``v ↦ Λv`` of one loss, (n, m) to (n, m)."""
    if isinstance(loss, WithoutMatrix):
        return loss.curvature_product(output, target)
    root = loss.curvature_root(output, target)
    curvature = root @ root.mT
    return lambda vectors: (curvature @ vectors.unsqueeze(2)).squeeze(2)


def column_of(loss: Loss, output: Tensor, target: Targets) -> Callable[[int], Tensor]:
    """Return the columns of one loss's root, k to (n, m)."""
    if isinstance(loss, WithoutMatrix):
        return loss.curvature_column(output, target)
    root = loss.curvature_root(output, target)
    return lambda k: root[:, :, k]


LossByOutput = Mapping[Key, object] | Sequence[object]
"""A loss, or a weight and a loss, for each output: by name, or in order."""


def weighed_losses(given: LossByOutput) -> list[tuple[Key, float, object]]:
    """Return output, weight and loss of each part of a sum.

    Raises
    ------
    ValueError
        If there are none.

    Examples
    --------
    >>> from whence.summed_losses import weighed_losses
    >>> weighed_losses({"class": "a loss", "boxes": (5.0, "another")})
    [('class', 1.0, 'a loss'), ('boxes', 5.0, 'another')]
    """
    items = given.items() if isinstance(given, Mapping) else enumerate(given)
    parts: list[tuple[Key, float, object]] = []
    for key, entry in items:
        # A weight and a loss.
        if isinstance(entry, tuple) and len(entry) == 2:
            parts.append((key, *entry))
        else:
            parts.append((key, 1.0, entry))
    if not parts:
        raise ValueError("a sum of losses needs one for an output at least, got none")
    return parts
