"""Random projections of gradients layer by layer, without the gradients.

The gradient of a layer with weight W (out, in) is ``G = Σ_c δ_c ⊗ a_c``. With random L (out, k)
and R (in, k), ``LᵀGR = Σ_c (Lᵀδ_c) ⊗ (Rᵀa_c)`` needs only the factors, and with entries of
variance 1/k inner products are kept in the mean: ``E⟨LᵀGR, LᵀHR⟩ = ⟨G, H⟩`` (LoGra: Choe et al.
2024, arXiv 2405.13954). Layers without factors, normalizations and tables, are projected by a
sparse random matrix.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from whence.curvature.layer_rows import LayerMatrix
from whence.curvature.sketch_matrix import SketchMatrix
from whence.curvature.sketched import Sketched
from whence.linearization import Use


@dataclass(frozen=True, eq=False)
class LayerProjection:
    """The projection of one layer's gradients.

    Parameters
    ----------
    layer:
        The layer.
    left, right:
        L (out, k) and R (in, k) of a layer with factors; None leaves that side as it is.
    whole:
        S (size, k) for a layer without factors; None leaves it as it is.
    """

    layer: LayerMatrix
    left: Tensor | None = None
    right: Tensor | None = None
    whole: SketchMatrix | None = None

    @property
    def size(self) -> int:
        """Numbers that a gradient is projected to."""
        if self.whole is not None:
            return self.whole.columns
        outputs = self.layer.outputs if self.left is None else self.left.shape[1]
        inputs = self.layer.inputs if self.right is None else self.right.shape[1]
        return outputs * inputs

    def of_factors(self, left: Tensor, right: Tensor) -> Tensor:
        """Return the projections of ``Σ_c left[:, c] ⊗ right[:, c]``, (n, size)."""
        if self.whole is not None:
            # Of such a layer the one channel is the row itself.
            rows = (left.mT @ right).flatten(1)
            return self.whole.project(rows)
        if self.left is not None:
            left = left @ self.left
        if self.right is not None:
            right = right @ self.right
        return (left.mT @ right).flatten(1)

    def of_matrices(self, matrices: Tensor) -> Tensor:
        """Return the projections of matrices (K, out, in), (K, size)."""
        if self.whole is not None:
            return self.whole.project(matrices.flatten(1))
        if self.left is not None:
            matrices = self.left.T @ matrices
        if self.right is not None:
            matrices = matrices @ self.right
        return matrices.flatten(1)

    def lifted(self, vectors: Tensor) -> Tensor:
        """Return the matrices (K, out, in) whose products with gradients are those of vectors.

        ``⟨LVRᵀ, G⟩ = ⟨V, LᵀGR⟩``.
        """
        layer = self.layer
        if self.whole is not None:
            rows = self.whole.lift(vectors.T).T
            return rows.reshape(-1, layer.outputs, layer.inputs)

        outputs = layer.outputs if self.left is None else self.left.shape[1]
        matrices = vectors.reshape(len(vectors), outputs, -1)
        if self.left is not None:
            matrices = self.left @ matrices
        if self.right is not None:
            matrices = matrices @ self.right.T
        return matrices


@dataclass(frozen=True, eq=False)
class Projection:
    """The projections of all layers, side by side."""

    layers: Sequence[LayerProjection]

    @classmethod
    def draw(
        cls, layers: Sequence[LayerMatrix], dimension: int, seed: int, like: Tensor
    ) -> Projection:
        """Draw projections of each layer to at most so many numbers; layers of fewer are kept."""
        projections = []
        for number, layer in enumerate(layers):
            generator = np.random.default_rng([seed, number])
            if not layer.outer:
                whole = None
                if layer.size > dimension:
                    sketch = Sketched(dimension, nonzeros=min(4, dimension), seed=seed)
                    whole = sketch.draw(layer.size, like)
                projections.append(LayerProjection(layer, whole=whole))
                continue

            # As square as the layer allows: the smaller side first, the other takes what is left.
            side = math.isqrt(dimension)
            n_left = min(layer.outputs, side)
            n_right = min(layer.inputs, dimension // n_left)
            n_left = min(layer.outputs, dimension // n_right)
            left = normal(generator, layer.outputs, n_left, like)
            right = normal(generator, layer.inputs, n_right, like)
            projections.append(LayerProjection(layer, left, right))
        return cls(tuple(projections))

    @property
    def size(self) -> int:
        """Numbers that a gradient is projected to."""
        return sum(projection.size for projection in self.layers)

    def of_uses(self, uses: Iterable[Use], n: int) -> Tensor:
        """Return the projected rows of n points from the uses of their layers, (n, size)."""
        # Once, as each layer looks for its own among them.
        every_use = list(uses)
        parts = []
        for projection in self.layers:
            rows = [
                projection.of_factors(left, right)
                for left, right in projection.layer.pieces(every_use, n)
            ]
            if not rows:  # a layer that these points do not go through
                like = every_use[0].at(slice(0, 1))[0]
                rows = [like.new_zeros(n, projection.size)]
            parts.append(torch.cat(rows))
        return torch.cat(parts, dim=1)

    def of_vectors(self, vectors: Tensor) -> Tensor:
        """Return the projections of vectors (P, K), (K, size)."""
        parts = []
        for projection in self.layers:
            matrices = projection.layer.matrices(vectors)
            parts.append(projection.of_matrices(matrices))
        return torch.cat(parts, dim=1)

    def lifted(self, vectors: Tensor, n_parameters: int) -> Tensor:
        """Return vectors (P, K) whose products with gradients are those of (K, size) projected."""
        # Parameters of no layer stay zero.
        lifted = vectors.new_zeros(n_parameters, len(vectors))
        sizes = [projection.size for projection in self.layers]
        for projection, part in zip(
            self.layers, vectors.split(sizes, dim=1), strict=True
        ):
            projection.layer.put(projection.lifted(part), lifted)
        return lifted


def normal(
    generator: np.random.Generator, size: int, columns: int, like: Tensor
) -> Tensor | None:
    """Return normal numbers (size, columns) of variance 1/columns; None where nothing is saved."""
    if columns >= size:
        return None
    numbers = generator.standard_normal((size, columns)) / columns**0.5
    return torch.as_tensor(numbers).to(like)
