"""What all attribution methods share: targets by points, in tiles, labelled, with one sign.

A method says how a target's gradient becomes a vector that is multiplied with the gradients of
the training points. Everything else, parts, sums, labels and what goes to disk, is made here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from whence import _checks
from whence._files import checked_path
from whence.attribution.arguments import PointsByTerm, PreparedPoints
from whence.attribution.by_band import own_values
from whence.attribution.by_layer import (
    check_sum_over_layers,
    layer_names,
    layer_values,
)
from whence.attribution.labels import SIGN, Coordinates, Effect
from whence.attribution.on_disk import attribute_share, attribute_to_disk
from whence.attribution.perturbation import feature_names, input_changes
from whence.attribution.quantities import Quantity
from whence.attribution.quantities.several import Quantities, as_quantity
from whence.attribution.quantities.total import Total
from whence.attribution.storage import read_zarr
from whence.attribution.tiled import TARGET_BLOCK, Tiled
from whence.attribution.tiles import Solved, gathered, regrouped
from whence.workers import check_client

if TYPE_CHECKING:
    from distributed import Client

    from whence.attribution.result import Attribution


class Method(Tiled):
    """A way to attribute quantities to training points.

    Every method has the same sign: entry (target, point) is the predicted change of the target
    when the point is *removed* from training, so for a loss positive means that the point helps;
    ``effect="add"`` is its negative. Unless a method says otherwise its entries carry the factor
    w/N of a point in the objective.

    A method of one's own is a subclass with a ``name`` and :meth:`transform_gradients`. It may
    also define :meth:`stages`, for several states of the network, :meth:`products`, for what is
    multiplied at a point, and :meth:`description`, for what results say of it.

    Parameters
    ----------
    objective:
        What was trained: an :class:`whence.Objective`; or a model, with ``data`` and ``loss``.
    data:
        Of a model, what it was trained on, as in :meth:`whence.Objective.supervised`.
    loss:
        Of a model, what it was trained for: a loss of whence, of ``torch.nn``, or a function
        ``(outputs, targets) -> (n,)``.
    parameters:
        Of a model, which parameters to attribute by: a pattern on names, several, a module.
    weight_decay:
        Of a model, c of the penalty ``(c/2)‖θ‖²`` that it was trained with.
    memory_budget:
        Bytes that a result may take (2 GiB).

    Raises
    ------
    TypeError
        If an objective comes with data or loss, a model without, or it is neither.

    Examples
    --------
    Gradients scaled to length one, multiplied with the gradients of points:

    >>> import torch, whence as wh
    >>> from whence.attribution.method import Method
    >>> from whence.attribution.tiles import Solved
    >>> class Projections(Method):
    ...     name = "projections"
    ...
    ...     def transform_gradients(self, gradients):
    ...         return gradients / gradients.norm(dim=0), Solved()
    >>> model = torch.nn.Linear(1, 1, bias=False)
    >>> _ = torch.nn.init.ones_(model.weight)
    >>> x, y = torch.tensor([[1.0], [2.0]]), torch.tensor([[2.0], [4.0]])
    >>> method = Projections(model, (x, y), wh.Squared())     # gradients −2 and −8; 1/N = 1/2
    >>> method.attribute(wh.Loss()).values
    array([[1., 4.],
           [1., 4.]], dtype=float32)
    """

    # --- results ---

    def attribute(
        self,
        quantity: Quantities,
        points: PointsByTerm | None = None,
        effect: Effect = "remove",
        *,
        by_layer: bool = False,
        out: str | Path | None = None,
        client: Client | None = None,
    ) -> Attribution:
        """Return the effect of every point on every target.

        Parameters
        ----------
        quantity:
            What to explain, see :mod:`whence.attribution.quantities`; a list explains several at
            once, ``quantity`` of a target says which, and what is solved for serves all.
        points:
            Points by term, or alone where there is one term: tensors, NumPy arrays, lists, data
            frames, samples; by default the training points. :class:`whence.TrainingPoints` names
            some of these by their indices.
        effect:
            ``"remove"`` or ``"add"``; ``"perturb"`` for moving the points' inputs, with a third
            dimension for the numbers of an input, and as change by unit of each.
        by_layer:
            Whether to say what each layer's parameters add: a third dimension ``layer``, whose sum
            is the whole. For methods whose entries are such sums.
        out:
            A new zarr folder to write the result into, part by part; what is returned reads from
            it when numbers are used, see :func:`whence.attribution.storage.read_zarr`. A call
            that was stopped, however that came, is gone on with by the same call.
        client:
            Of a dask cluster whose workers make the parts for ``out``; they must see it under the
            same path. Systems are solved here, once for all of them.

        Returns
        -------
        Attribution
            An xarray.DataArray with dimensions (target, point). Coordinates of points under their
            own names, of targets with ``target_`` in front; ``term`` and ``index`` (within its
            term) of each point; attributes say method, sign, scale and what is known of the
            quality, and ``quality()`` puts it in words. ``top()``, ``bottom()``, ``by_term()``
            and ``plot()`` are where to look first.

        Raises
        ------
        MemoryError
            If the result exceeds ``memory_budget`` and there is no ``out``, before any work:
            :meth:`attribute_blocks` yields it in parts, :meth:`attribute_sum` needs no matrix.
        ValueError
            If the points do not suit the objective, or the effect is not known to the method.
        FileExistsError
            If there is something at ``out``, or a part of another result for it.
        """
        quantity = _checked(quantity, effect)
        if client is not None and out is None:
            raise ValueError(
                "workers write into a folder: give out='name.zarr', or leave client= away"
            )
        prepared = self.prepare_points(points)
        if by_layer:
            return self._by_layer(quantity, prepared, effect, out)
        if effect == "perturb":
            changes, features, solved = self._changes_by_moves(quantity, prepared, out)
            return self.labelled(
                changes,
                quantity,
                prepared,
                effect,
                solved,
                dims=("target", "point", "feature"),
                coords={"feature": ("feature", features)},
            )
        if out is not None:
            return self._on_disk(quantity, points, effect, out, client)

        shape = (self.n_targets(quantity), len(prepared))
        self.check_size(*shape)
        matrix = self.objective.parameters.vector().new_empty(shape)
        solved = Solved()
        tiles = self.tiles(quantity, points, effect)
        for tile in self.with_progress(tiles, shape):
            matrix[tile.targets, tile.points] = tile.values
            solved = solved.worst_with(tile.solved)

        values = matrix.detach().cpu().numpy()
        return self.labelled(values, quantity, prepared, effect, solved)

    def _changes_by_moves(
        self,
        quantity: Quantity,
        prepared: PreparedPoints,
        out: str | Path | None,
    ) -> tuple[np.ndarray, np.ndarray, Solved]:
        """Return changes by unit of every number of an input, (T, n, d), and its d names."""
        if out is not None:
            raise ValueError(
                "effect='perturb' is kept in memory: leave out= away, or ask for fewer"
            )
        if not self.movable:
            raise ValueError(
                f"{self.name} does not predict a change, so there is none by unit of an input: use "
                "wh.Influence, wh.TracIn or wh.GradDot"
            )

        features = feature_names(self.objective, prepared.by_term)
        columns = len(prepared) * len(features)
        self.check_size(self.n_targets(quantity), columns)
        changes, solved = input_changes(
            self.objective,
            self.target_directions(quantity),
            lambda: self.blocks_of(prepared),
        )
        return changes.cpu().numpy(), features, solved

    def _by_layer(
        self,
        quantity: Quantity,
        prepared: PreparedPoints,
        effect: Effect,
        out: str | Path | None,
    ) -> Attribution:
        """Return what each layer adds, with dimensions (target, point, layer)."""
        if out is not None or effect == "perturb":
            raise ValueError(
                "by_layer=True is for effect='remove' and 'add', and kept in memory: leave out= "
                "away, or ask for fewer targets"
            )
        check_sum_over_layers(self)
        names = list(layer_names(self.objective.parameters))
        self.check_size(self.n_targets(quantity), len(prepared) * len(names))
        values, solved = layer_values(self, quantity, prepared, effect)
        return self.labelled(
            values,
            quantity,
            prepared,
            effect,
            solved,
            dims=("target", "point", "layer"),
            coords={"layer": ("layer", np.asarray(names))},
        )

    def _on_disk(
        self,
        quantity: Quantity,
        points: PointsByTerm | None,
        effect: Effect,
        out: str | Path,
        client: Client | None,
    ) -> Attribution:
        # By its whole path, as workers may have been started elsewhere.
        path = checked_path("out", out).absolute()
        attribute_to_disk(self, quantity, points, effect, path, client)
        attribution = read_zarr(path)
        self.warn(attribution.attrs)
        return attribution

    def attribute_share(
        self,
        quantity: Quantities,
        points: PointsByTerm | None = None,
        effect: Effect = "remove",
        *,
        out: str | Path,
        share: int,
        of: int,
    ) -> None:
        """Write a share of what ``attribute(out=)`` writes, beside processes with other shares.

        For processes that no dask cluster connects, such as jobs of SLURM: each calls this with
        its number, and ``attribute(out=)`` with the same arguments completes the result, whatever
        became of them.

        Parameters
        ----------
        quantity, points, effect, out:
            As in :meth:`attribute`, for all processes the same.
        share:
            Which share to write, from 0 on.
        of:
            How many shares there are.

        Raises
        ------
        ValueError
            If there is no such share, or the result is solved for all points at once.
        FileExistsError
            If there is something at ``out``, or a part of another result for it.
        """
        quantity = _checked(quantity, effect)
        path = checked_path("out", out).absolute()
        attribute_share(self, quantity, points, effect, path, share, of)

    def attribute_blocks(
        self,
        quantity: Quantities,
        points: PointsByTerm | None = None,
        effect: Effect = "remove",
        block: int = TARGET_BLOCK,
    ) -> Iterator[Tensor]:
        """Yield the same matrix in blocks of targets, each (block, n), for what exceeds memory."""
        quantity = _checked(quantity, effect)
        _checks.count("block", block)
        columns = len(self.prepare_points(points))
        rows = gathered(self.tiles(quantity, points, effect), columns)
        yield from regrouped((tile.values for tile in rows), block)

    def attribute_sum(
        self,
        quantity: Quantities,
        points: PointsByTerm | None = None,
        effect: Effect = "remove",
    ) -> Attribution:
        """Return the effect of every point on the *sum* of the targets, dimension (point,).

        One product ``J v`` and no row of a candidate: a million candidates cost memory for their
        coordinates only.
        """
        quantity = _checked(quantity, effect)
        attribution = self.attribute(Total(quantity), points, effect)
        return attribution.isel(target=0, drop=True)

    def self_influence(
        self, points: PointsByTerm | None = None, *, client: Client | None = None
    ) -> Attribution:
        """Return the effect of every point on its own loss, dimension (point,).

        The diagonal of ``attribute(wh.Loss())``, without the rest: how much a point's own fit
        hangs on it. Points that stand against all others, as wrong labels do, have the largest
        (Koh & Liang 2017, section 5.4; Pruthi et al. 2020, section 5.1).

        Parameters
        ----------
        points:
            As in :meth:`attribute`.
        client:
            Of a dask cluster whose workers share the points. What is factored is factored here
            and sent to each of them; training points that are solved for together stay here.
        """
        prepared = self.prepare_points(points)
        parts = []
        solved = Solved()
        progress = tqdm(
            total=len(prepared),
            desc="self-influence",
            unit="point",
            delay=2,
            leave=False,
        )
        with progress:
            for values, quality in self._self_values(points, client):
                parts.append(values)
                solved = solved.worst_with(quality)
                progress.update(len(values))

        matrix = torch.cat(parts).cpu().numpy()[None]  # (1, n)
        labelled = self.labelled(matrix, None, prepared, "remove", solved)
        return labelled.isel(target=0).assign_attrs(quantity="the point's own loss")

    def _self_values(
        self, points: PointsByTerm | None, client: Client | None
    ) -> Iterator[tuple[Tensor, Solved]]:
        """Yield the effects of points on their own losses, by workers where there are some."""
        if client is not None:
            check_client(client)
            if self.whole_self_values(points) is None:
                return own_values(self, points, client)
        return self.self_values(points)

    # --- labels ---

    def labelled(
        self,
        matrix: np.ndarray,
        quantity: Quantity | None,
        points: PreparedPoints,
        effect: Effect,
        solved: Solved,
        dims: Sequence[str] = ("target", "point"),
        coords: Coordinates | None = None,
    ) -> Attribution:
        """Return a matrix with the labels of its targets and points, and what made it."""
        from whence.attribution.result import Attribution  # xarray is slow to import

        coordinates = self.coordinates(quantity, points)
        attributes = self.attributes(quantity, effect, solved)
        attribution = Attribution(
            matrix,
            dims=dims,
            coords={**coordinates, **(coords or {})},
            name="influence",
            attrs=attributes,
        )
        self.warn(attributes)
        return attribution.set_xindex("term")


def _checked(quantities: object, effect: str) -> Quantity:
    """Return what to explain as one quantity."""
    quantity = as_quantity(quantities)
    _checks.one_of("effect", effect, tuple(SIGN))
    return quantity
