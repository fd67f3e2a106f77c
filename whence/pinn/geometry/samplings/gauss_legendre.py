"""Gauss–Legendre points, whose weights make means over points integrals."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from whence.catalogue import SAMPLINGS
from whence.pinn.geometry.samplings.base import Array, tensor_product

PANEL_NODES = 4
"""Nodes along a coordinate in each panel of the composite rule."""


class TensorRule:
    """The tensor product of a rule along each coordinate, the same along all."""

    may_return_fewer: ClassVar[bool] = True
    is_ordered: ClassVar[bool] = False

    def points(self, n: int, dimension: int, seed: int | None) -> Array:
        """Return at most n points of the unit cube, (·, dimension); no seed is used."""
        nodes, _ = self.along(n, dimension)
        axes = [nodes] * dimension
        return tensor_product(axes)

    def weights(self, n: int, dimension: int) -> Array:
        """Return the weights of these points, whose mean is 1."""
        _, weights = self.along(n, dimension)
        axes = [weights] * dimension
        products = tensor_product(axes).prod(axis=1)

        # They add up to 1: times their number the mean is 1.
        return products * len(products)

    def along(self, n: int, dimension: int) -> tuple[Array, Array]:
        """Return nodes in (0, 1) along a coordinate, and weights that add up to 1."""
        raise NotImplementedError


@SAMPLINGS.named("gauss_legendre")
class GaussLegendre(TensorRule):
    """Tensor product of Gauss–Legendre nodes, k along each coordinate, with the rule's weights.

    With weights the mean over the points is the mean over a box, exactly for polynomials of degree
    ``2k − 1`` in each coordinate (Davis & Rabinowitz 1984, section 2.7).
    """

    def along(self, n: int, dimension: int) -> tuple[Array, Array]:
        """Return nodes in (0, 1) along a coordinate, and weights that add up to 1."""
        count = per_axis(n, dimension)
        return unit_rule(count, panels=1)


@SAMPLINGS.named("gauss_legendre_panels")
class GaussLegendrePanels(TensorRule):
    """Gauss–Legendre nodes of low order in equal panels, for what is not smooth throughout.

    Four nodes along each coordinate in a panel, as many panels as n allows: exact for polynomials
    of degree 7 in each coordinate and panel. Fewer than eight nodes along a coordinate are one
    panel.
    """

    def along(self, n: int, dimension: int) -> tuple[Array, Array]:
        """Return nodes in (0, 1) along a coordinate, and weights that add up to 1."""
        count = per_axis(n, dimension)
        panels = count // PANEL_NODES
        if panels < 2:
            return unit_rule(count, panels=1)
        return unit_rule(PANEL_NODES, panels)


def per_axis(n: int, dimension: int) -> int:
    """Return the largest k with ``k^dimension ≤ n``."""
    root = n ** (1 / dimension)
    k = round(root)
    # The root may be rounded to one above.
    if k**dimension > n:
        k -= 1
    return k


def unit_rule(count: int, panels: int) -> tuple[Array, Array]:
    """Return the nodes in (0, 1) of a rule in equal panels, and its weights, which add up to 1."""
    # On (−1, 1), of sum 2.
    nodes, weights = np.polynomial.legendre.leggauss(count)

    # x = (p + (1 + s)/2) / panels in panel p, with dx = ds / (2 panels).
    starts = np.arange(panels)[:, None]
    within = (1 + nodes) / 2
    placed = (starts + within) / panels
    scaled = weights / (2 * panels)
    return placed.ravel(), np.tile(scaled, panels)
