"""Surfaces whose parts have a share of the points that is not their share of the length.

A cylinder in a channel is a small part of the walls, by length, and where the flow is decided. A
part made by :func:`apportioned` is the same surface; only how many points fall on each of its named
parts is another.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from whence import _checks
from whence.pinn.geometry.base import Domain
from whence.pinn.geometry.boundary import Part, union
from whence.pinn.geometry.charts import shares

ROUNDING = 1e-9
"""How far shares that add up to one may miss it."""


@dataclass(frozen=True, eq=False)
class ApportionedPart(Part):
    """A surface of several parts, each with its share of the points.

    Parameters
    ----------
    members:
        The parts.
    weights:
        What their numbers of points are in proportion to.
    """

    members: tuple[Part, ...] = ()
    weights: tuple[float, ...] = ()

    def sample(
        self, n: int, method: str = "hammersley", seed: int | None = None
    ) -> Tensor:
        """Return n points, float64 of shape (n, d); ``"grid"`` may return fewer.

        Shares are rounded by largest remainders, one point at least to each part if there are
        enough. Within a part points are spread evenly.
        """
        _checks.count("n", n)
        drawn = []

        counts = shares(n, self.weights)
        pairs = zip(self.members, counts, strict=True)

        for k, (member, count) in enumerate(pairs):
            member_seed = seed
            if seed is not None and k > 0:
                # The first part keeps the seed; the others must not repeat its pattern.
                sequence = np.random.SeedSequence((seed, 7, k))
                member_seed = int(sequence.generate_state(1)[0])
            if count:
                drawn.append(member.sample(count, method, member_seed))

        return torch.cat(drawn)


def apportioned(
    what: str, domain: Domain, on: object, by_name: Mapping[str, float]
) -> ApportionedPart:
    """Return the surface that ``on`` means with shares of the points for some of its parts.

    Parameters
    ----------
    what:
        What messages call it.
    domain, on:
        The surface is ``domain.part(on)``.
    by_name:
        Shares between 0 and 1 by the name of a part, a coordinate (both its ends) or a shape (all
        its parts). What is left goes to the other parts in proportion to their measure.

    Raises
    ------
    ValueError
        If a name means no part of the surface, two mean the same, or shares leave nothing for
        other parts or something where there are none.

    Examples
    --------
    >>> from whence.pinn.geometry.apportioned import apportioned
    >>> from whence.pinn.geometry.domain import Disk, Rectangle
    >>> channel = Rectangle(("x", "y"), (0, 0), (22, 4)) - Disk(("x", "y"), (2, 2), 0.5, "cylinder")
    >>> walls = apportioned("walls", channel, ("y", "cylinder"), {"cylinder": 0.5})
    >>> points = walls.sample(100)
    >>> int(channel.part("cylinder").contains(points).sum())
    50
    """
    # Parts that have no share yet.
    left = {part.name: part for part in domain.parts(on)}
    members = []
    weights = []

    for name, share in by_name.items():
        number = _checks.number(f"the share of {name!r} in {what}", share)
        if not 0 < number <= 1:
            raise ValueError(
                f"the share of {name!r} in {what} must lie above 0 and at most at 1, got {share!r}"
            )

        meant = _meant(what, domain, name, left)
        parts = [left.pop(other) for other in meant]
        members.append(union([name], parts))
        weights.append(number)

    # What the shares leave goes to the other parts together, by their measure.
    remainder = 1 - math.fsum(weights)
    if left and remainder > ROUNDING:
        members.append(union(left, left.values()))
        weights.append(remainder)
    elif left:
        raise ValueError(
            f"{what} leaves no points for {', '.join(map(repr, left))}: every part needs some"
        )
    elif abs(remainder) > ROUNDING:
        raise ValueError(
            f"the shares of {what} name every part and must add up to 1, got {1 - remainder:.6g}"
        )

    whole = domain.part(on)
    return ApportionedPart(
        whole.name,
        whole.coordinates,
        whole.pieces,
        whole.group,
        whole.rounding,
        tuple(members),
        tuple(weights),
    )


def _meant(what: str, domain: Domain, name: str, left: Mapping[str, Part]) -> list[str]:
    """Return which of the parts that have no share yet a name means."""
    if name in left:
        return [name]

    # The name of a coordinate or a shape means several; an unknown one is an error.
    named = [part.name for part in domain.parts(name)]
    meant = [other for other in named if other in left]
    if not meant or len(meant) < len(named):
        raise ValueError(
            f"{name!r} is no part of {what}, or has a share already: choose from "
            f"{', '.join(map(repr, left)) or 'none'}"
        )
    return meant
