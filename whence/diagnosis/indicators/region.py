"""The share of influence that comes from a region."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from whence import _checks
from whence.attribution import regions
from whence.catalogue import INDICATORS
from whence.diagnosis.indicators.base import Share


@INDICATORS.named("region")
@dataclass(frozen=True, eq=False)
class Region(Share):
    """The share of influence that comes from a region, such as the surroundings of an obstacle.

    What decides a flow should decide the answers, too: around a cylinder, for example, points
    within one and a half radii (Naujoks et al., PINNfluence, arXiv 2409.08958).

    Parameters
    ----------
    inside:
        A domain such as ``pinn.Disk``, a box such as ``{"x": (0, 1)}``, or a function of
        coordinates by argument name that returns booleans (n,): what :func:`whence.region_shares`
        takes.
    name:
        What messages call it.

    Raises
    ------
    TypeError
        If it is none of these.
    ValueError
        When measured, if no point is inside, or all are.

    Examples
    --------
    >>> import numpy as np
    >>> from whence import pinn
    >>> from whence.diagnosis.indicators import Region
    >>> region = Region(pinn.Disk(("x", "y"), (0.0, 0.0), 0.5))
    >>> points, target = np.array([[0.2, 0.0], [1.0, 0.0]]), np.array([[3.0, 0.0]])
    >>> region.members(points, target, ("x", "y"))
    array([[1., 0.]])
    """

    inside: regions.AnyRegion
    name: str = "region"

    def __post_init__(self) -> None:
        is_region = isinstance(self.inside, (Mapping, regions.Container))
        if not is_region and not callable(self.inside):
            raise TypeError(
                'inside must be a domain, such as pinn.Disk(("x", "y"), (2, 2), 0.75), a box or a '
                f"function of coordinates, got {_checks.describe(self.inside)}"
            )

    def check(self, points: np.ndarray, names: Sequence[str]) -> None:
        """Raise ``ValueError`` if no point is inside, or all are."""
        of_region = getattr(self.inside, "coordinates", None)
        # Only domains have coordinates of their own.
        if of_region is not None and tuple(of_region) != tuple(names):
            raise ValueError(
                f"the region {self.name!r} has coordinates {', '.join(of_region)}, the points have "
                f"{', '.join(names)}"
            )

        n_inside = int(self.holds(points, names).sum())
        if n_inside in (0, len(points)):
            how_many = "none" if n_inside == 0 else "all"
            raise ValueError(
                f"{how_many} of the {len(points)} points lie in the region {self.name!r}, so that "
                "no influence could lie elsewhere: choose a region that holds a part of them"
            )

    def holds(self, points: np.ndarray, names: Sequence[str]) -> np.ndarray:
        """Return whether each of the points (n, d) is inside, (n,)."""
        return regions.inside_region(self.name, self.inside, names, points)

    def members(
        self, points: np.ndarray, targets: np.ndarray, names: Sequence[str]
    ) -> np.ndarray:
        """Return 1 for points inside, else 0, the same for each target, (T, n)."""
        is_inside = self.holds(points, names).astype(float)
        return np.broadcast_to(is_inside, (len(targets), len(points)))
