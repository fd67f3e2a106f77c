"""Where a DeepXDE model's points live: coordinates, fields, fresh points of each term."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import deepxde as dde
import numpy as np
import torch
from torch import Tensor

from whence import _checks
from whence.pinn.pde.fields import FieldMap
from whence.space import Space

SAMPLINGS = {
    "random": "pseudo",
    "hammersley": "Hammersley",
    "halton": "Halton",
    "sobol": "Sobol",
    "lhs": "LHS",
}
"""DeepXDE's names of how points are placed."""
MAX_ROUNDS = 50
"""Times that points of a boundary are drawn to find those of one part of it."""


@contextmanager
def numpy_seeded(seed: int) -> Iterator[None]:
    """Draw NumPy's global random numbers, which DeepXDE uses, from a seed; leave them as before."""
    before = np.random.get_state()  # noqa: NPY002 - DeepXDE draws from it
    np.random.seed(seed % 2**32)  # noqa: NPY002
    try:
        yield
    finally:
        np.random.set_state(before)  # noqa: NPY002


@dataclass(frozen=True)
class Place:
    """Where a term holds in DeepXDE.

    Parameters
    ----------
    geometry:
        DeepXDE's geometry, of space and time.
    condition:
        The boundary or initial condition, None for an equation.
    is_fixed:
        Whether its points are a part of it, as measurements are.
    n_columns:
        Columns of its residual, over which DeepXDE averages.
    """

    geometry: dde.geometry.Geometry
    condition: dde.icbc.BC | None = None
    is_fixed: bool = False
    n_columns: int = 1

    def n_rows(self, n: int) -> int:
        """Return how many of n points of DeepXDE are the term's, without partners of others."""
        return n // 2 if hasattr(self.condition, "component_x") else n

    def sample(self, n: int, method: str) -> np.ndarray:
        """Return n fresh points, fewer where it holds at fewer."""
        _checks.one_of("sampling", method, SAMPLINGS)
        random = SAMPLINGS[method]
        if self.condition is None:
            return self.geometry.random_points(n, random=random)

        draw: Callable[..., np.ndarray] = self.geometry.random_boundary_points
        if not hasattr(self.condition, "on_boundary"):
            draw = getattr(self.geometry, "random_initial_points", draw)

        parts: list[np.ndarray] = []
        n_drawn = 0
        for _ in range(MAX_ROUNDS):
            points = self.condition.collocation_points(draw(2 * n + 8, random=random))
            points = points[: self.n_rows(len(points))]
            parts.append(points)
            n_drawn += len(points)
            if n_drawn >= n:
                break

        drawn = np.unique(np.concatenate(parts), axis=0)
        if not len(drawn):
            name = type(self.condition).__name__
            raise ValueError(
                f"no points of the {name} were found among {MAX_ROUNDS} draws on the boundary: its "
                "part of the boundary may be too small to be met by chance"
            )
        return np.random.permutation(drawn)[:n]  # noqa: NPY002 - seeded by who draws

    def contains(self, points: np.ndarray) -> np.ndarray:
        """Return which points lie in it, (n,)."""
        on_boundary = np.asarray(self.geometry.on_boundary(points)).reshape(-1)
        if hasattr(self.geometry, "timedomain"):
            in_space = np.asarray(self.geometry.geometry.inside(points[:, :-1]))
            in_time = np.asarray(self.geometry.timedomain.inside(points[:, -1:]))
            # On the boundary of space, where rounding may put a point outside.
            holds = (in_space.reshape(-1) | on_boundary) & in_time.reshape(-1)
        else:
            holds = np.asarray(self.geometry.inside(points)).reshape(-1) | on_boundary

        if self.is_fixed or self.condition is None:
            return holds
        if hasattr(self.condition, "on_boundary"):
            return holds & self.condition.on_boundary(points, on_boundary)
        on_initial = self.geometry.on_initial(points)
        return holds & self.condition.on_initial(points, on_initial)


class DeepXDESpace(Space):
    """The space of a DeepXDE model."""

    places: Mapping[str, Place]

    def __init__(
        self,
        field_map: FieldMap,
        places: Mapping[str, Place],
        groups: Mapping[str, tuple[str, ...]],
    ) -> None:
        super().__init__(field_map.coordinates, field_map.outputs, field_map, groups)
        # Not a field of Space, whose dataclass knows none of DeepXDE.
        object.__setattr__(self, "places", places)

    def draw(self, term: str, n: int, seed: int, method: str = "random") -> Tensor:
        """Return n fresh points (n, d) where a term holds; fewer if there are no more."""
        _checks.one_of("term", term, self.places)
        place = self.places[term]
        if place.is_fixed:
            return super().draw(term, n, seed, method)
        with numpy_seeded(seed):
            points = place.sample(n, method)
        return torch.as_tensor(points, dtype=torch.float64)

    def check(self, term: str | None, points: Tensor) -> None:
        """Raise ``ValueError`` for points where a term does not hold, or outside the geometry."""
        d = len(self.coordinates)
        any_place = next(iter(self.places.values()))
        place = Place(any_place.geometry) if term is None else self.places[term]
        if place.is_fixed:
            return  # measurements are where they are

        array = points[:, :d].detach().cpu().numpy()
        outside = np.flatnonzero(~place.contains(array))
        if len(outside):
            row = int(outside[0])
            of = "" if term is None else f" of term {term!r}"
            raise ValueError(
                f"{len(outside)} of {len(array)} points{of} lie outside of where it holds, the "
                f"first is row {row}: {array[row].tolist()}"
            )
