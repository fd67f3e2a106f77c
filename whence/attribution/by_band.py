"""What is asked of every tile of an attribution, band after band, here or by workers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

from torch import Tensor
from tqdm import tqdm

from whence.attribution.arguments import PointsByTerm, PreparedPoints
from whence.attribution.bands import Band, around, band_width, bands, within
from whence.attribution.labels import Effect
from whence.attribution.quantities import Quantity
from whence.attribution.tiled import Tiled
from whence.attribution.tiles import Directions, Solved, Tile
from whence.workers import check_client, in_order

if TYPE_CHECKING:
    from distributed import Client

Answer = TypeVar("Answer")


@dataclass(frozen=True)
class _Request(Generic[Answer]):
    """What every band of some targets needs; without directions, those of every target."""

    method: Tiled
    quantity: Quantity
    prepared: PreparedPoints
    effect: Effect
    function: Callable[[Tile], Answer]
    directions: Directions | None


def of_tiles(
    method: Tiled,
    quantity: Quantity,
    points: PointsByTerm | None,
    effect: Effect,
    function: Callable[[Tile], Answer],
    client: Client | None = None,
) -> Iterator[Answer]:
    """Yield ``function(tile)`` of every tile, in the order of :meth:`Tiled.tiles`.

    Parameters
    ----------
    method, quantity, points, effect:
        Whose tiles.
    function:
        What is asked of a tile, a function of a module or :func:`functools.partial` of one.
    client:
        Of a dask cluster whose workers make the tiles, of which they send the answers only. Where
        all points are solved for together they are made here.
    """
    shape = (method.n_targets(quantity), len(method.prepare_points(points)))
    if client is not None:
        check_client(client)
        if method.whole_tiles(quantity, points, effect) is None:
            yield from _by_workers(method, quantity, points, effect, function, client)
            return

    tiles = method.tiles(quantity, points, effect)
    for tile in method.with_progress(tiles, shape):
        yield function(tile)


def _by_workers(
    method: Tiled,
    quantity: Quantity,
    points: PointsByTerm | None,
    effect: Effect,
    function: Callable[[Tile], Answer],
    client: Client,
) -> Iterator[Answer]:
    prepared = method.prepare_points(points)
    of_targets: Iterator[Directions | None] = iter([None])
    if method.has_directions():
        of_targets = method.target_directions(quantity)

    bare = method.for_products()
    for directions in of_targets:
        request = _Request(bare, quantity, prepared, effect, function, directions)
        yield from of_bands(request, client)


def of_bands(request: _Request[Answer], client: Client) -> Iterator[Answer]:
    """Yield the answers of workers, band after band."""
    n_points = len(request.prepared)
    everything = bands(
        n_points, band_width(request.prepared, request.method.block_size)
    )
    progress = tqdm(
        total=n_points,
        desc=request.method.name,
        unit="point",
        unit_scale=True,
        delay=2,
        leave=False,
    )
    with progress:
        for band, answers in in_order(answers_of, request, everything, client):
            progress.update(len(band))
            yield from answers


def answers_of(request: _Request[Answer], band: Band) -> list[Answer]:
    """Return the answers for the tiles of a band."""
    method = request.method
    prepared, first = around(request.prepared, band, method.block_size)
    if request.directions is None:
        tiles = method.tiles(request.quantity, prepared, request.effect)
    else:
        tiles = method.tiles_along(request.directions, prepared, request.effect)
    return [request.function(tile) for tile in within(tiles, band, first)]


def own_values(
    method: Tiled, points: PointsByTerm | None, client: Client
) -> Iterator[tuple[Tensor, Solved]]:
    """Yield effects of points on their own losses, made by workers, in order."""
    prepared = method.prepare_points(points)
    everything = bands(len(prepared), band_width(prepared, method.block_size))
    common = (method.for_solving(), prepared)
    for _, values in in_order(own_values_of, common, everything, client):
        yield from values


def own_values_of(
    common: tuple[Tiled, PreparedPoints], band: Band
) -> list[tuple[Tensor, Solved]]:
    """Return the effects of a band's points on their own losses, block by block."""
    method, prepared = common
    near, first = around(prepared, band, method.block_size)
    parts = []
    for values, solved in method.self_values(near):
        low, high = max(band.start, first), min(band.stop, first + len(values))
        if low < high:
            parts.append((values[low - first : high - first], solved))
        first += len(values)
    return parts
