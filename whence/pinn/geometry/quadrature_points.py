"""Weights of points of a quadrature rule on boxes and their sides."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from whence.pinn.geometry.apportioned import ApportionedPart
from whence.pinn.geometry.base import Domain
from whence.pinn.geometry.boundary import Part
from whence.pinn.geometry.charts import FRACTION_POINTS, Chart, shares
from whence.pinn.geometry.combinations import Product
from whence.pinn.geometry.samplings import unit_points
from whence.pinn.geometry.samplings.base import Array, WeightedSampling, sampling_of
from whence.pinn.geometry.shapes import Interval


def is_weighted(method: str) -> bool:
    """Whether the points of a sampling have weights."""
    return isinstance(sampling_of(method), WeightedSampling)


def quadrature_weights(
    what: str, domain: Domain, where: object, n: int, method: str
) -> Tensor:
    """Return the weights (N,) of the points of ``where.sample(n, method)``; their mean is 1.

    ``(1/N) Σ_i m_i f(z_i)`` is then the rule's value of the mean of f over the domain, or over the
    parts of its boundary, each by its measure.

    Raises
    ------
    ValueError
        If the domain is no product of intervals, or the part is not made of whole sides.
    """
    advice = f"{what} cannot have points of {method!r}"
    if not is_box(domain):
        raise ValueError(
            f"{advice}: the rule is one for products of intervals; choose another sampling"
        )
    if where is domain:
        return torch.from_numpy(_chart_weights(domain.chart, n, method))

    is_whole = isinstance(where, Part) and not isinstance(where, ApportionedPart)
    if not isinstance(where, Part) or not is_whole:
        raise ValueError(
            f"{advice}, which integrate over a domain or its sides: leave where= and shares= out, "
            "or choose another sampling"
        )

    # As Part.sample shares the points among the pieces.
    measures = [piece.measure for piece in where.pieces]
    counts = shares(n, measures)
    pairs = zip(where.pieces, counts, strict=True)
    parts = []

    for piece, count in pairs:
        if not _rejects_nothing(piece.chart):
            raise ValueError(f"{advice}: part {where.name!r} is cut; name whole sides")
        if not count:
            raise ValueError(
                f"{advice}: {n} are too few for {len(measures)} sides; raise their number"
            )

        weights = _chart_weights(piece.chart, count, method)
        # A side counts by its measure, however many points it has.
        share = piece.measure / len(weights)
        parts.append(weights * share)

    joined = np.concatenate(parts)
    mean = joined.mean()
    return torch.from_numpy(joined / mean)


def is_box(domain: Domain) -> bool:
    """Whether a domain is an interval or a product of intervals."""
    if isinstance(domain, Product):
        return all(is_box(factor) for factor in domain.factors)
    return isinstance(domain, Interval)


def _chart_weights(chart: Chart, n: int, method: str) -> Array:
    """Return the weights of the points that ``chart.sample(n, method)`` gives."""
    if not chart.unit:
        return np.ones(1)  # a single point, such as an end of a line
    sampling = sampling_of(method)
    assert isinstance(sampling, WeightedSampling)
    return sampling.weights(n, chart.unit)


def _rejects_nothing(chart: Chart) -> bool:
    """Whether a chart keeps all that it places, by many points of the cube."""
    if not chart.unit:
        return True
    cube = unit_points(FRACTION_POINTS, chart.unit, seed=0)
    placed = chart.place(cube)
    return bool(chart.keep(placed).all())
