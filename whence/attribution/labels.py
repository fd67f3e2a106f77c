"""Labels of attributions: what each target and each training point is, and what a sign means."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np

from whence.curvature.spectrum import Attributes as Attributes
from whence.objective import Objective
from whence.points import Points
from whence.samples import Samples

Coordinates = dict[str, tuple[str, np.ndarray]]
"""Dimension and values of each coordinate, by name, as xarray takes them."""

Effect = Literal["remove", "add", "perturb"]

SIGN = {
    "remove": "predicted change of the target when the point is removed from training",
    "add": "predicted change of the target when the point is added to training",
    "perturb": "predicted change of the target by each unit that the point's input is moved",
}
"""What a positive entry means, by effect."""


def coordinate_arrays(
    objective: Objective, points: Points, repeat: int = 1
) -> dict[str, np.ndarray]:
    """Return what is known of each point by name, each ``repeat`` times.

    Of points their coordinates; of samples the ``label``, where the target is one number.

    Examples
    --------
    >>> import torch, whence as wh
    >>> from whence.attribution.labels import coordinate_arrays
    >>> data = torch.rand(2, 3), torch.tensor([1, 0])
    >>> objective = wh.Objective.supervised(torch.nn.Linear(3, 2), data, wh.CrossEntropy())
    >>> coordinate_arrays(objective, objective.term("data").points, repeat=2)
    {'label': array([1, 1, 0, 0])}
    """
    table = {}
    if isinstance(points, Samples):
        labels = points.labels()
        if labels is not None:
            table["label"] = labels
    else:
        rows = points.detach().cpu().numpy()  # (n, d)
        for k, name in enumerate(objective.coordinates):
            table[name] = rows[:, k]

    # A view where nothing is repeated: there may be millions of points.
    if repeat == 1:
        return table
    for name, column in table.items():
        table[name] = np.repeat(column, repeat)
    return table


def point_coordinates(
    objective: Objective, points: Mapping[str, Points], index: Mapping[str, np.ndarray]
) -> Coordinates:
    """Return what is known of points, their term and their index within it, for dimension point."""
    tables = []
    terms = []
    for name, of_term in points.items():
        tables.append(coordinate_arrays(objective, of_term))
        terms.append(np.full(len(of_term), name, dtype=object))

    columns = {name: [table[name] for table in tables] for name in tables[0]}
    columns["term"] = terms
    columns["index"] = [index[name] for name in points]

    coordinates: Coordinates = {}
    for name, parts in columns.items():
        # The only part is not copied.
        whole = parts[0] if len(parts) == 1 else np.concatenate(parts)
        coordinates[name] = ("point", whole)
    return coordinates


def target_coordinates(targets: Mapping[str, np.ndarray]) -> Coordinates:
    """Return a quantity's targets as coordinates: ``target_`` goes in front of all but its name."""
    coordinates: Coordinates = {}
    for name, values in targets.items():
        # Points have coordinates of the same names.
        label = name if name == "quantity" else f"target_{name}"
        coordinates[label] = ("target", portable(values))
    return coordinates


def target_arrays(
    objective: Objective, points: Points, repeat: int = 1
) -> dict[str, np.ndarray]:
    """Return the same for points where a quantity is taken; of samples their index, too."""
    table = coordinate_arrays(objective, points, repeat)
    if isinstance(points, Samples):
        return {"index": np.repeat(np.arange(len(points)), repeat), **table}
    return table


def portable(values: np.ndarray) -> np.ndarray:
    """Return text of fixed length as Python strings: zarr specifies no format for the former."""
    if values.dtype.kind == "U":
        return values.astype(object)
    return values
