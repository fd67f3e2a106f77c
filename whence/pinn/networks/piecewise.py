"""Networks side by side along a coordinate: one for each slab of time."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch._C._functorch import is_functorch_wrapped_tensor

from whence import _checks
from whence._files import JsonObject
from whence.catalogue import NETWORKS
from whence.pinn.networks.base import Rebuildable
from whence.pinn.networks.mlp import Bounds, checked_bounds


@NETWORKS.named("piecewise")
class Piecewise(nn.Module):
    """Networks that share one coordinate: piece k answers between edge k−1 and edge k.

    At an edge the piece above it answers. :class:`whence.pinn.Slabs` trains the pieces one after
    another; nothing else makes them agree at the edges.

    Parameters
    ----------
    layers
        Widths of each piece.
    edges
        Where one piece ends and the next begins, in rising order; one fewer than pieces.
    column
        Which input this is; the last by default.
    kind
        What each piece is, by its name in the catalogue.
    bounds
        Lowest and highest value of each input, shape (2, inputs); a piece has those between its
        edges.
    seed
        Piece k is drawn from ``seed + k``.
    options
        What else each piece takes.

    Examples
    --------
    >>> from whence import pinn
    >>> network = pinn.Piecewise([2, 8, 1], edges=[0.25, 0.5], bounds=[[-1, 0], [1, 1]], seed=0)
    >>> network
    Piecewise(3 × MLP, edges=[0.25, 0.5])
    >>> network.pieces[1].bounds[:, 1]
    tensor([0.2500, 0.5000], dtype=torch.float64)
    """

    def __init__(
        self,
        layers: Sequence[int],
        edges: Sequence[float] = (),
        column: int = -1,
        kind: str = "mlp",
        bounds: Bounds | None = None,
        seed: int | None = None,
        **options: object,
    ) -> None:
        super().__init__()
        _checks.one_of("kind of network", kind, NETWORKS)
        self._set_edges(edges, column)
        pieces = []
        for k in range(len(self.edges) + 1):
            limits = None
            if bounds is not None:
                limits = self._limits(checked_bounds(bounds, int(layers[0])), k)
            piece_seed = None if seed is None else seed + k
            pieces.append(
                NETWORKS[kind](layers, bounds=limits, seed=piece_seed, **options)
            )
        self.pieces = nn.ModuleList(pieces)

    def _set_edges(self, edges: Sequence[float], column: int) -> None:
        self.edges = tuple(float(edge) for edge in edges)
        self.column = column
        if list(self.edges) != sorted(set(self.edges)):
            raise ValueError(
                f"edges must rise from one to the next, got {list(self.edges)}"
            )

    def _limits(self, bounds: Tensor, k: int) -> Tensor:
        """Return the bounds (2, inputs) of piece k."""
        limits = bounds.clone()
        if k > 0:
            limits[0, self.column] = self.edges[k - 1]
        if k < len(self.edges):
            limits[1, self.column] = self.edges[k]
        return limits

    @classmethod
    def of(
        cls, pieces: Sequence[nn.Module], edges: Sequence[float], column: int = -1
    ) -> Piecewise:
        """Return the network of pieces that are there already.

        Examples
        --------
        >>> from whence import pinn
        >>> pieces = [pinn.MLP([1, 4, 1], seed=0), pinn.MLP([1, 4, 1], seed=1)]
        >>> pinn.Piecewise.of(pieces, [0.5])
        Piecewise(2 × MLP, edges=[0.5])
        """
        if len(pieces) != len(edges) + 1:
            raise ValueError(
                f"{len(pieces)} pieces have {len(pieces) - 1} edges between them, got {len(edges)}"
            )
        network = cls.__new__(cls)
        nn.Module.__init__(network)
        network._set_edges(edges, column)
        network.pieces = nn.ModuleList(pieces)
        return network

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs, shape (n, outputs), at inputs of shape (n, inputs)."""
        # The place itself, without the derivatives that a jet carries.
        place = getattr(x, "value", x)[..., self.column].unsqueeze(-1)
        # Points in order of time are all in one piece, or in two that lie side by side.
        first, last = self._asked(place)
        y: Tensor = self.pieces[last](x)
        for k in range(last - 1, first - 1, -1):
            y = torch.where(place < self.edges[k], self.pieces[k](x), y)
        return y

    def _asked(self, place: Tensor) -> tuple[int, int]:
        """Return the first and the last piece that has any of the points."""
        whole = (0, len(self.edges))
        # Of a point under a transform the place cannot be read; of none there is nothing to read.
        if is_functorch_wrapped_tensor(place) or torch.compiler.is_compiling():
            return whole
        if place.numel() == 0:
            return whole
        lowest, highest = place.detach().aminmax()
        low = float(lowest)
        high = float(highest)
        # At an edge the piece above it answers.
        return bisect_right(self.edges, low), bisect_right(self.edges, high)

    def options(self) -> JsonObject:
        """Return the arguments that make a network of this architecture, as JSON can hold them.

        Raises
        ------
        TypeError
            If its pieces are no networks of the catalogue.
        """
        pieces = []
        for piece in self.pieces:
            name = NETWORKS.name_of(piece)
            if name is None or not isinstance(piece, Rebuildable):
                raise TypeError(
                    f"a piece is a {type(piece).__name__}, which is not in the catalogue"
                )
            pieces.append({"kind": name, "options": piece.options()})
        return {"edges": list(self.edges), "column": self.column, "pieces": pieces}

    @classmethod
    def from_options(cls, options: JsonObject) -> Piecewise:
        """Return a network of this architecture from what :meth:`options` returned."""
        pieces = []
        for piece in options["pieces"]:
            pieces.append(NETWORKS[piece["kind"]].from_options(piece["options"]))
        return cls.of(pieces, options["edges"], options["column"])

    def __repr__(self) -> str:
        kind = type(self.pieces[0]).__name__
        return f"Piecewise({len(self.pieces)} × {kind}, edges={list(self.edges)})"
