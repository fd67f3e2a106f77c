"""Sums of an attribution over groups of targets and of points, without its matrix."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from whence.attribution.labels import Effect
from whence.attribution.method import Method
from whence.attribution.quantities import Quantity
from whence.attribution.tiles import Solved

Groups = Mapping[Hashable, np.ndarray]
"""Which members each group has, booleans by its name; groups may overlap."""


@dataclass(frozen=True, eq=False)
class GroupSums:
    """An attribution summed over groups of points, a mean over groups of targets.

    Parameters
    ----------
    signed:
        ``mean_{t in G} Σ_{z in H} I(t, z)`` of each group G of targets and H of points, (G, H).
    sizes:
        The same of the absolute values, ``mean Σ |I(t, z)|``, (G, H).
    all_points:
        The same of the absolute values over all points, whatever their group, (G,).
    solved:
        How well systems were solved.
    """

    signed: np.ndarray
    sizes: np.ndarray
    all_points: np.ndarray
    solved: Solved


def grouped_sums(
    method: Method,
    quantity: Quantity,
    targets: Groups,
    points: Groups,
    effect: Effect = "remove",
) -> GroupSums:
    """Return an attribution of the training points, summed over groups.

    Parameters
    ----------
    method:
        Any attribution method.
    quantity:
        What to explain, T targets.
    targets, points:
        Which of the T targets, and of the n training points, are in each group.
    effect:
        ``"remove"`` or ``"add"``.

    Examples
    --------
    >>> import numpy as np, torch, whence as wh
    >>> from whence.attribution.grouped_sums import grouped_sums
    >>> model = torch.nn.Linear(1, 1, bias=False)
    >>> _ = torch.nn.init.ones_(model.weight)
    >>> x, y = torch.tensor([[1.0], [2.0]]), torch.tensor([[2.0], [0.0]])
    >>> method = wh.GradDot(model, (x, y), wh.Squared())       # gradients −2 and 8; 1/N = 1/2
    >>> every = np.array([True, True])
    >>> sums = grouped_sums(method, wh.Loss(), {"both": every}, {"both": every})
    >>> sums.signed, sums.sizes             # (2 − 8 − 8 + 32)/2 and (2 + 8 + 8 + 32)/2
    (array([[9.]]), array([[25.]]))
    """
    of_targets = _memberships(targets)  # (G, T)
    of_points = _memberships(points)  # (H, n)
    # Each target counts by one over the number of those in its group: a mean.
    of_targets = of_targets / of_targets.sum(dim=1, keepdim=True)

    signed = of_targets.new_zeros(len(of_targets), len(of_points))
    sizes = torch.zeros_like(signed)
    all_points = of_targets.new_zeros(len(of_targets))
    solved = Solved()
    n_targets = of_targets.shape[1]
    n_points = of_points.shape[1]
    tiles = method.tiles(quantity, None, effect)
    for tile in method.with_progress(tiles, (n_targets, n_points)):
        left = of_targets[:, tile.targets]
        right = of_points[:, tile.points].T
        # Sums of many numbers of either sign, in double precision whatever the network's.
        values = tile.values.double().cpu()
        absolute = values.abs()

        # Σ_t Σ_z M(G, t) I(t, z) M(H, z): a product from either side for each tile.
        signed += left @ values @ right
        sizes += left @ absolute @ right
        all_points += left @ absolute.sum(dim=1)
        solved = solved.worst_with(tile.solved)

    return GroupSums(
        signed.numpy(),
        sizes.numpy(),
        all_points.numpy(),
        solved,
    )


def _memberships(groups: Groups) -> Tensor:
    """Return the groups as rows of zeros and ones."""
    # Groups may overlap, which numbers of groups could not say.
    rows = np.stack(list(groups.values()))
    return torch.from_numpy(rows).double()
