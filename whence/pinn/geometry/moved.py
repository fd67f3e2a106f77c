"""Domains turned, shifted or enlarged, where no simpler shape is their image."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from whence.pinn.geometry.base import Domain
from whence.pinn.geometry.boundary import Part, check_names, ends_of
from whence.pinn.geometry.charts import Chart
from whence.pinn.geometry.samplings import Array
from whence.pinn.geometry.similarity import Similarity


@dataclass(frozen=True, eq=False)
class Moved(Domain, made_by="moved"):
    """The image of a domain under a rotation, shift and scaling; see ``Domain.rotated``."""

    domain: Domain
    move: Similarity

    def __post_init__(self) -> None:
        check_names(self.boundary, self.coordinates)

    @property
    def coordinates(self) -> tuple[str, ...]:
        """The coordinates of the domain."""
        return self.domain.coordinates

    @cached_property
    def bounds(self) -> Array:
        """The bounds of the image of the domain's bounding box, shape (2, d)."""
        # A box is the convex hull of its corners, and so is its image.
        corners = np.array(list(itertools.product(*self.domain.bounds.T)))
        images = self.move.forward(corners)
        return np.stack([images.min(axis=0), images.max(axis=0)])

    @property
    def rounding(self) -> float:
        """The domain's, enlarged with it, and what rounding adds."""
        return max(self.move.factor * self.domain.rounding, super().rounding)

    @property
    def measure(self) -> float:
        """The domain's measure times sᵈ, s the factor of the scaling."""
        return self.domain.measure * self.move.factor**self.dimension

    @cached_property
    def boundary(self) -> tuple[Part, ...]:
        """The images of the domain's parts; an end that was turned is no end any more."""
        ends = {end for c in self.coordinates for end in ends_of(c)}
        parts = []
        for part in self.domain.boundary:
            name = part.name
            if self.move.is_turning and name in ends:
                name = f"rotated_{name}"
            pieces = tuple(piece.moved(self.move) for piece in part.pieces)
            image = replace(part, name=name, pieces=pieces, rounding=self.rounding)
            parts.append(image)

        return tuple(parts)

    def ends_along(self, coordinate: str) -> tuple[str, ...]:
        """Return the domain's ends; none of them where it was turned."""
        return () if self.move.is_turning else self.domain.ends_along(coordinate)

    @property
    def chart(self) -> Chart:
        """The domain's chart, its points moved."""
        return self.domain.chart.moved(self.move)

    def level(self, points: Array) -> Array:
        """Return the domain's level where the points came from, in the new lengths."""
        return np.asarray(self.move.factor * self.domain.level(self.move.back(points)))

    def moved(self, move: Similarity) -> Domain:
        """Return the image of the domain under both maps, one after the other."""
        # s₂Q₂(s₁Q₁x + b₁) + b₂.
        both = Similarity(
            move.matrix @ self.move.matrix,
            move.factor * self.move.factor,
            move.forward(self.move.shift[None])[0],
        )
        return Moved(self.domain, both)
