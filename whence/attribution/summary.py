"""Summaries of a run by term: what terms do to terms, and the share of each in each region.

Neither holds the matrix of targets by points, see :mod:`whence.attribution.grouped_sums`.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from whence import _checks
from whence.attribution.grouped_sums import Groups, grouped_sums
from whence.attribution.labels import Effect
from whence.attribution.method import Method
from whence.attribution.quantities import Quantity, TermLoss
from whence.attribution.quantities.several import Quantities, as_quantity
from whence.attribution.reductions import Dimension
from whence.attribution.regions import AnyRegion, region_masks

if TYPE_CHECKING:
    import xarray as xr

QUANTITY_TERM = ("quantity", "term")


def term_matrix(
    method: Method, quantity: Quantities | None = None, effect: Effect = "remove"
) -> xr.Dataset:
    """Return what all points of each term do to each quantity, by default to each term's loss.

    Entry (i, j) is the sum over the training points of term j of their influence on i: to first
    order, the change of the loss of term i when term j is left out. As losses are weighted as in
    training, rows of equations, conditions and the whole loss are sums of those of terms.

    Parameters
    ----------
    method:
        Any attribution method, such as ``wh.Influence(objective)``.
    quantity:
        What to explain, one or a list; by default ``wh.TermLoss()``. A quantity of many targets,
        such as an output on a grid, is one row, the mean over them.
    effect:
        ``"remove"`` or ``"add"``, the other's negative.

    Returns
    -------
    xarray.Dataset
        Dimensions (quantity, term). ``influence``: the signed sum over the points of each term.
        ``magnitude``: the sum of absolute values, which no cancellation can hide. ``share``: the
        share of the term in the magnitude of all, 0 where there is none. By term: ``points``, how
        many it has, ``loss``, its weighted part of the training loss, and ``loss_share``. By
        quantity: ``value``, the mean of its targets. Attributes as of an attribution.

    Raises
    ------
    ValueError
        If a quantity does not suit the objective, or the effect is not known.

    Examples
    --------
    >>> import whence as wh
    >>> from whence import pinn
    >>> problem = pinn.zoo.load("diffusion", "soft")
    >>> points = problem.sample(dict.fromkeys(problem.terms, 20), seed=0)
    >>> result = pinn.train(problem, pinn.MLP([2, 8, 1], seed=0), points=points,
    ...                     schedule=pinn.GaussNewton(20), progress=False)
    >>> table = wh.term_matrix(wh.Influence(result.objective))
    >>> table.influence.dims, table["quantity"].values[:2].tolist()
    (('quantity', 'term'), ['loss pde', 'loss initial_u'])
    >>> bool((abs(table.share.sum("term") - 1) < 1e-12).all())
    True
    """
    import xarray as xr  # slow to import

    # A change by a unit of an input is no sum over points.
    _checks.one_of("effect", effect, ("remove", "add"))
    quantity = TermLoss() if quantity is None else as_quantity(quantity)
    objective = method.objective
    targets = _by_quantity(method, quantity)
    points = _by_term(method)
    sums = grouped_sums(method, quantity, targets, points, effect)

    # What the rows and the columns are, beside their names.
    values = _array(quantity.values(objective))
    means = [values[mask].mean() for mask in targets.values()]
    losses = _array(TermLoss().values(objective))
    counts = [len(term.points) for term in objective.terms.values()]

    # Every point is of one term, so that these shares add up to one.
    share = _shares(sums.sizes, sums.all_points[:, None])
    attributes = method.attributes(quantity, effect, sums.solved)
    attributes["reduction"] = (
        "sum over the points of each term, mean over the targets of a quantity"
    )
    return xr.Dataset(
        {
            "influence": (QUANTITY_TERM, sums.signed),
            "magnitude": (QUANTITY_TERM, sums.sizes),
            "share": (QUANTITY_TERM, share),
            "value": ("quantity", means),
            "points": ("term", counts),
            "loss": ("term", losses),
            "loss_share": ("term", _shares(losses, losses.sum())),
        },
        coords={
            "quantity": list(targets),
            "term": list(points),
        },
        attrs=attributes,
    )


def region_shares(
    method: Method,
    quantity: Quantities,
    regions: Mapping[str, AnyRegion],
    over: Dimension = "point",
    effect: Effect = "remove",
) -> xr.Dataset:
    """Return the share of each term in each region: of its points there, or on answers there.

    Parameters
    ----------
    method:
        Any attribution method, such as ``wh.Influence(objective)``.
    quantity:
        What to explain, one or a list.
    regions:
        By name: a box such as ``{"x": (2.5, 8.0)}``, a domain such as ``pinn.Disk``, or a function
        of coordinates by argument name that returns booleans. They may overlap.
    over:
        ``"point"``: training points are told apart by region, all targets of a quantity are one.
        ``"target"``: targets are, and all points of a term are one.
    effect:
        ``"remove"`` or ``"add"``, the other's negative.

    Returns
    -------
    xarray.Dataset
        Dimensions (quantity, region, term): ``influence`` and ``magnitude`` as in
        :func:`term_matrix`; ``share``, the share of the magnitude of all training points on the
        same targets: over points of regions that part the domain they add up to one, over targets
        they do in each region. ``size``: how many points (region, term), or targets (quantity,
        region), there are.

    Raises
    ------
    ValueError
        If a region has no points, or no targets, or names an unknown coordinate.

    Examples
    --------
    >>> import whence as wh
    >>> from whence import pinn
    >>> problem = pinn.zoo.load("diffusion", "soft")
    >>> points = problem.sample(dict.fromkeys(problem.terms, 20), seed=0)
    >>> result = pinn.train(problem, pinn.MLP([2, 8, 1], seed=0), points=points,
    ...                     schedule=pinn.GaussNewton(20), progress=False)
    >>> halves = {"early": {"t": (0.0, 0.5)}, "late": lambda t: t > 0.5}
    >>> table = wh.region_shares(
    ...     wh.Influence(result.objective), wh.Output([[0.0, 0.9]], "u"), halves)
    >>> table.share.dims, round(float(table.share.sum()), 12)
    (('quantity', 'region', 'term'), 1.0)
    """
    import xarray as xr  # slow to import

    _checks.one_of("effect", effect, ("remove", "add"))
    _checks.one_of("dimension", over, ("target", "point"))
    # Names and masks first: a wrong region is said before anything is solved.
    quantity = as_quantity(quantity)
    terms = _by_term(method)
    quantities = _by_quantity(method, quantity)

    # A region parts the groups of one side, targets or points.
    targets = quantities
    points = terms
    if over == "target":
        targets = _targets_in(method, quantity, quantities, regions)
        divided = targets
        counted = ("quantity", "region")
    else:
        points = _points_in(method, terms, regions)
        divided = points
        counted = ("region", "term")
    sums = grouped_sums(
        method,
        quantity,
        targets,
        points,
        effect,
    )

    # Sums (Q·R, K) over targets and (Q, R·K) over points are both (Q, R, K).
    sides = {
        "quantity": len(quantities),
        "region": len(regions),
        "term": len(terms),
    }
    shape = tuple(sides.values())
    signed = sums.signed.reshape(shape)
    sizes = sums.sizes.reshape(shape)
    all_points = sums.all_points.reshape(len(quantities), -1, 1)

    # How many members a group has: (Q, R) targets or (R, K) points.
    counts = np.array([mask.sum() for mask in divided.values()])
    counts = counts.reshape([sides[side] for side in counted])

    attributes = method.attributes(quantity, effect, sums.solved)
    attributes["reduction"] = f"sum over points, mean over targets; {over}s by region"
    return xr.Dataset(
        {
            "influence": (tuple(sides), signed),
            "magnitude": (tuple(sides), sizes),
            "share": (tuple(sides), _shares(sizes, all_points)),
            "size": (counted, counts),
        },
        coords={
            "quantity": list(quantities),
            "region": list(regions),
            "term": list(terms),
        },
        attrs=attributes,
    )


def _by_quantity(method: Method, quantity: Quantity) -> Groups:
    """Return which targets each quantity has, by its name, in the order in which they come."""
    columns = quantity.targets(method.objective)
    of_targets = columns["quantity"]

    # Targets of one name are one quantity, wherever they are.
    groups: dict[Hashable, np.ndarray] = {}
    for name in dict.fromkeys(of_targets.tolist()):
        groups[str(name)] = of_targets == name
    return groups


def _by_term(method: Method) -> Groups:
    """Return which training points each term has."""
    # In the order of the columns of an attribution.
    of_points = []
    for name, term in method.objective.terms.items():
        of_points += [name] * len(term.points)
    names = np.array(of_points, dtype=object)
    return {name: names == name for name in method.objective.terms}


def _targets_in(
    method: Method,
    quantity: Quantity,
    quantities: Groups,
    regions: Mapping[str, AnyRegion],
) -> Groups:
    """Return which targets of each quantity are in each region, regions the faster."""
    objective = method.objective
    columns = quantity.targets(objective)
    # Of an aggregate alone there are no coordinates at all.
    names = [name for name in objective.coordinates if name in columns]
    table = np.empty((method.n_targets(quantity), len(names)))
    for k, name in enumerate(names):
        table[:, k] = columns[name]

    groups: dict[Hashable, np.ndarray] = {}
    for label, of_quantity in quantities.items():
        # Quantity by quantity, so that none of them has an empty region.
        what = f"targets of {label!r}"
        inside = region_masks(regions, names, table[of_quantity], what)
        for region, is_inside in inside.items():
            mask = np.zeros_like(of_quantity)
            mask[of_quantity] = is_inside
            groups[label, region] = mask
    return groups


def _points_in(
    method: Method,
    terms: Groups,
    regions: Mapping[str, AnyRegion],
) -> Groups:
    """Return which training points of each term are in each region, terms the faster."""
    objective = method.objective
    places = [_array(objective.locations(name)) for name in objective.terms]
    rows = np.concatenate(places)
    inside = region_masks(regions, objective.coordinates, rows, "training points")

    groups: dict[Hashable, np.ndarray] = {}
    for region, is_inside in inside.items():
        # A term may have no point in a region: its share there is 0.
        for term, is_of_term in terms.items():
            groups[region, term] = is_inside & is_of_term
    return groups


def _array(values: Tensor) -> np.ndarray:
    """Return a tensor as an array of doubles."""
    array: np.ndarray = values.detach().double().cpu().numpy()
    return array


def _shares(parts: np.ndarray, total: np.ndarray) -> np.ndarray:
    """Return parts of a total, 0 where that is 0."""
    parts, total = np.broadcast_arrays(parts, total)
    nothing = np.zeros_like(parts)
    return np.divide(
        parts,
        total,
        out=nothing,
        where=total > 0,
    )
