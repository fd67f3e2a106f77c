"""Labels of attributions: what each target and each training point is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from whence.objective import Objective
from whence.points import Points
from whence.samples import Samples

Coordinates = dict[str, tuple[str, np.ndarray]]


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
    if isinstance(points, Samples):
        labels = points.labels()
        table = {} if labels is None else {"label": labels}
    else:
        columns = points.detach().cpu().numpy()
        table = {name: columns[:, k] for k, name in enumerate(objective.coordinates)}
    if repeat == 1:
        return table
    return {name: np.repeat(column, repeat) for name, column in table.items()}


def point_coordinates(
    objective: Objective, points: Mapping[str, Points], index: Mapping[str, np.ndarray]
) -> Coordinates:
    """Return what is known of points, their term and their index within it, for dimension point."""
    tables = [coordinate_arrays(objective, given) for given in points.values()]
    terms = [np.full(len(given), name, dtype=object) for name, given in points.items()]
    return {
        **{
            name: ("point", _below([table[name] for table in tables]))
            for name in tables[0]
        },
        "term": ("point", _below(terms)),
        "index": ("point", _below([index[name] for name in points])),
    }


def _below(parts: Sequence[np.ndarray]) -> np.ndarray:
    """Return the parts below each other, the only one as it is: there may be millions of points."""
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def target_coordinates(targets: Mapping[str, np.ndarray]) -> Coordinates:
    """Return a quantity's targets as coordinates: ``target_`` goes in front of all but its name."""
    return {
        name if name == "quantity" else f"target_{name}": ("target", portable(values))
        for name, values in targets.items()
    }


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
    return values.astype(object) if values.dtype.kind == "U" else values
