"""The gradients of all training points, kept: a target is then one solve and one product."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from whence.attribution.influence import Influence
from whence.attribution.quantities import Quantity
from whence.attribution.solved_points import gradients_of
from whence.attribution.tiles import Solved, Tile


class PointGradients:
    """``∇ℓ_i·w/N`` of every training point as rows (n, P), where they fit the memory budget.

    Parameters
    ----------
    influence:
        Whose objective, curvature and memory budget.

    Examples
    --------
    >>> import torch, whence as wh
    >>> from whence.explore.point_gradients import PointGradients
    >>> model = torch.nn.Linear(1, 1, bias=False)
    >>> _ = torch.nn.init.constant_(model.weight, 1.6)                # Σxy / Σx²
    >>> data = torch.tensor([[1.0], [2.0]]), torch.tensor([[2.0], [3.0]])
    >>> influence = wh.Influence(model, data, wh.Squared())
    >>> values, solved = PointGradients(influence).influences(wh.Loss(data))
    >>> torch.allclose(values, torch.as_tensor(influence.attribute(wh.Loss(data)).values))
    True
    """

    def __init__(self, influence: Influence) -> None:
        self._influence = influence
        self._rows: Tensor | None = None
        self._made_at: Tensor | None = None
        """The network's parameters, of which the rows are."""

    def influences(self, quantity: Quantity) -> tuple[Tensor, Solved]:
        """Return the influence of every training point on each target, (t, n)."""
        influence = self._influence
        whole = influence.whole_tiles(quantity, None, "remove")
        if whole is not None or not self._fits():
            # What solves for all rows of J, or makes gradients again, is asked as it stands.
            tiles = whole or influence.tiles(quantity)
            return _joined(list(tiles))

        gradients = torch.cat(list(quantity.gradients(influence.objective)))  # (t, P)
        vectors, solved = influence.transform_gradients(gradients.T)
        # ∇fᵀ(A + λI)⁻¹∇ℓ·w/N of every pair
        return (self.rows() @ vectors).T, solved

    def rows(self) -> Tensor:
        """Return ``∇ℓ_i·w/N`` of every training point, (n, P), of the network as it is."""
        theta = self._influence.objective.parameters.vector()
        if self._made_at is None or not torch.equal(theta, self._made_at):
            self._rows = None
        if self._rows is None:
            self._rows = self._gradients()
            self._made_at = theta.clone()
        return self._rows

    def _fits(self) -> bool:
        """Whether the rows of all points fit the memory budget."""
        objective = self._influence.objective
        parameters = objective.parameters
        needed = objective.n_points * parameters.size * parameters.dtype.itemsize
        return needed <= self._influence.memory_budget

    def _gradients(self) -> Tensor:
        """Make the rows."""
        influence = self._influence
        parameters = influence.objective.parameters
        prepared = influence.prepare_points(None)
        rows = parameters.vector().new_empty(len(prepared), parameters.size)
        for block in influence.blocks_of(prepared):
            for part, gradients in gradients_of(block, parameters, influence.at_once()):
                rows[part] = gradients.detach()
            scale = block.scale
            if isinstance(scale, Tensor):
                scale = scale.unsqueeze(1)
            rows[block.part] *= scale
        return rows


def _joined(tiles: Sequence[Tile]) -> tuple[Tensor, Solved]:
    """Return tiles as one table."""
    n_targets = max(tile.targets.stop for tile in tiles)
    n_points = max(tile.points.stop for tile in tiles)
    table = tiles[0].values.new_empty(n_targets, n_points)
    solved = Solved()
    for tile in tiles:
        table[tile.targets, tile.points] = tile.values.detach()
        solved = solved.worst_with(tile.solved)
    return table, solved
