"""Where a PINA problem's points live: its variables, fields, and fresh points of each condition."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from pina.domain import DomainInterface
from torch import Tensor

from whence import _checks
from whence.adapters.pina.labels import labelled
from whence.pinn.pde.fields import FieldMap
from whence.pinn.training import rng
from whence.space import Space

SAMPLINGS = {
    "random": "random",
    "lhs": "latin",
    "grid": "grid",
    "chebyshev": "chebyshev",
}
"""PINA's names of how points are placed."""


class PinaSpace(Space):
    """The space of a PINA problem.

    Parameters
    ----------
    field_map:
        The fields of its model.
    domains:
        Where conditions hold, by name; those with points of their own have none.
    n_columns:
        Columns of each condition's residual, over which PINA averages.
    """

    domains: Mapping[str, DomainInterface | None]
    n_columns: Mapping[str, int]

    def __init__(
        self,
        field_map: FieldMap,
        domains: Mapping[str, DomainInterface | None],
        n_columns: Mapping[str, int],
    ) -> None:
        super().__init__(field_map.coordinates, field_map.outputs, field_map)
        # Not fields of Space, whose dataclass knows none of PINA.
        object.__setattr__(self, "domains", domains)
        object.__setattr__(self, "n_columns", n_columns)

    def draw(self, term: str, n: int, seed: int, method: str = "random") -> Tensor:
        """Return n fresh points (n, d) where a condition holds."""
        domain = self.domains.get(term)
        if domain is None:
            return super().draw(term, n, seed, method)
        _checks.one_of("sampling", method, SAMPLINGS)
        with rng.seeded(seed, torch.device("cpu")):
            points = domain.sample(n, SAMPLINGS[method])
        rows = points.extract(list(self.coordinates))
        return rows.as_subclass(Tensor).detach().double()

    def check(self, term: str | None, points: Tensor) -> None:
        """Raise ``ValueError`` for points where a condition does not hold, where that is known."""
        domain = None if term is None else self.domains.get(term)
        if domain is None:
            return
        # PINA looks at single points.
        outside = []
        for k, row in enumerate(points):
            point = labelled(row[None].float(), self.coordinates)
            if not domain.is_inside(point, check_border=True):
                outside.append(k)
        if outside:
            raise ValueError(
                f"{len(outside)} of {len(points)} points of term {term!r} lie outside of its "
                f"domain, the first is row {outside[0]}: {points[outside[0]].tolist()}"
            )
