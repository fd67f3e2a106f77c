"""Attributions that are written to disk part by part: by one process, several, or a dask cluster.

A part is a band of points with some targets. What is solved for, the vectors that targets have, is
solved once and kept on disk, so that whoever makes a part only multiplies.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor
from tqdm import tqdm

from whence import _checks
from whence.attribution.arguments import PointsByTerm, PreparedPoints
from whence.attribution.bands import Band, around, band_width, bands, within
from whence.attribution.identity import identity_of
from whence.attribution.labels import Effect
from whence.attribution.quantities import Quantity
from whence.attribution.storage import Layout, Unfinished
from whence.attribution.tiled import CHUNK_TARGETS, Tiled
from whence.attribution.tiles import Directions, Solved, Stage, gathered, stacked
from whence.workers import check_client, in_parts

if TYPE_CHECKING:
    from distributed import Client

EVERY_TARGET = -1
"""In place of the first target of some, where a part has all of them."""


@dataclass(frozen=True)
class Part:
    """A band of points with the targets of some directions, or with every target."""

    first_target: int
    n_targets: int
    band: Band

    @property
    def name(self) -> str:
        """What the ledger calls it."""
        if self.first_target == EVERY_TARGET:
            return f"points-{self.band.start}"
        return f"targets-{self.first_target}-points-{self.band.start}"


@dataclass(frozen=True)
class Job:
    """What every part of a result needs."""

    method: Tiled
    quantity: Quantity
    prepared: PreparedPoints
    effect: Effect
    unfinished: Unfinished


def attribute_to_disk(
    method: Tiled,
    quantity: Quantity,
    points: PointsByTerm | None,
    effect: Effect,
    out: Path,
    client: Client | None = None,
) -> None:
    """Write an attribution to ``out``, from where an earlier call was stopped.

    Parameters
    ----------
    method, quantity, points, effect:
        What to write.
    out:
        A new zarr folder, which has this name once it is complete.
    client:
        Of a dask cluster whose workers see the same file system; None writes it here.

    Raises
    ------
    FileExistsError
        If there is something at ``out``, or a part of another result for it.
    BlockingIOError
        If another process is completing it.
    """
    if client is not None:
        check_client(client)
    job = begin(method, quantity, points, effect, out)
    with job.unfinished.held():
        if method.whole_tiles(quantity, points, effect) is None:
            write_parts(job, method, _parts(job, method), client)
            solved = Solved.worst_of(job.unfinished.finished())
        else:
            # Solved for all points at once: no part could be made without the rest.
            shape = (method.n_targets(quantity), len(job.prepared))
            tiles = method.tiles(quantity, points, effect)
            solved = job.unfinished.write(method.with_progress(tiles, shape))

        job.unfinished.complete(
            method.attributes(quantity, effect, solved),
            method.coordinates(quantity, job.prepared),
        )


def attribute_share(
    method: Tiled,
    quantity: Quantity,
    points: PointsByTerm | None,
    effect: Effect,
    out: Path,
    share: int,
    of: int,
) -> None:
    """Write every ``of``-th part of an attribution, from the part ``share`` on."""
    _checks.count("of", of)
    if not 0 <= share < of:
        raise ValueError(f"share must be from 0 to {of - 1}, one of {of}, got {share}")
    if method.whole_tiles(quantity, points, effect) is not None:
        raise ValueError(
            "this result is solved for all of its points at once, so that there are no shares of "
            "it: use attribute(out=)"
        )

    job = begin(method, quantity, points, effect, out)
    parts = (part for k, part in enumerate(_parts(job, method)) if k % of == share)
    write_parts(job, method, parts, None)


def begin(
    method: Tiled,
    quantity: Quantity,
    points: PointsByTerm | None,
    effect: Effect,
    out: Path,
) -> Job:
    """Return what the parts need, with a folder for them."""
    prepared = method.prepare_points(points)
    n_targets = method.n_targets(quantity)
    layout = Layout(
        shape=(n_targets, len(prepared)),
        chunks=(
            min(n_targets, method.at_once(), CHUNK_TARGETS),
            band_width(prepared, method.block_size),
        ),
        dtype=method.objective.parameters.dtype,
    )
    # Parts are of the same targets and points only where both are divided alike.
    divided = f"{layout.chunks} of {layout.shape}, {method.at_once()} targets at once"
    identity = identity_of(method, quantity, prepared, effect)

    unfinished = Unfinished(out)
    coordinates = method.coordinates(quantity, prepared)
    unfinished.begin({**identity, "parts": divided}, layout, coordinates)
    return Job(method.for_products(), quantity, prepared, effect, unfinished)


# --- parts ---------------------------------------------------------------------------------------


def _parts(job: Job, method: Tiled) -> Iterator[Part]:
    """Yield every part, band after band, what its targets need on disk by then."""
    n_points = len(job.prepared)
    width = band_width(job.prepared, method.block_size)
    if not method.has_directions():
        n_targets = method.n_targets(job.quantity)
        for band in bands(n_points, width):
            yield Part(EVERY_TARGET, n_targets, band)
        return

    for targets in kept_directions(job, method):
        for band in bands(n_points, width):
            yield Part(targets.start, targets.stop - targets.start, band)


def kept_directions(job: Job, method: Tiled) -> Iterator[slice]:
    """Yield some targets at a time whose directions are on disk, solved for if need be."""
    n_targets = method.n_targets(job.quantity)
    finished = job.unfinished.finished()
    starts = range(0, n_targets, min(n_targets, method.at_once()))
    missing = [start for start in starts if _name(start) not in finished]
    solving: Iterator[Directions] = iter(())
    if missing:
        solving = method.target_directions(job.quantity, missing[0])

    for start in starts:
        # Another process may have solved for them meanwhile.
        if start in missing and not job.unfinished.is_finished(_name(start)):
            directions = next(solving)
            while directions.targets.start < start:
                directions = next(solving)
            keep(job, directions)
        yield slice(start, min(start + starts.step, n_targets))


def _name(start: int) -> str:
    """Return what the ledger calls the directions of the targets from this one on."""
    return f"directions-{start}"


def keep(job: Job, directions: Directions) -> None:
    """Put directions on disk, and in the ledger when they are there."""
    start = directions.targets.start
    for k, (_, vectors) in enumerate(directions.vectors):
        job.unfinished.keep(f"{start}-{k}", vectors.detach().cpu().numpy())
    job.unfinished.finish(_name(start), directions.solved)


def directions_of(job: Job, part: Part) -> Directions:
    """Return the directions of a part's targets, mapped into memory."""
    start = part.first_target
    device = job.method.objective.parameters.vector().device
    vectors: list[tuple[Stage, Tensor]] = []
    for k, stage in enumerate(job.method.stages()):
        vectors.append((stage, job.unfinished.kept(f"{start}-{k}").to(device)))
    # How well they were solved is in the ledger already.
    return Directions(slice(start, start + part.n_targets), vectors, Solved())


def write_parts(
    job: Job, method: Tiled, parts: Iterator[Part], client: Client | None
) -> None:
    """Write those parts that are not finished, with a progress bar."""
    finished = job.unfinished.finished()
    n_targets = method.n_targets(job.quantity)
    progress = tqdm(
        total=n_targets * len(job.prepared),
        desc=method.name,
        unit="entry",
        unit_scale=True,
        delay=2,
        leave=False,
    )

    def remaining() -> Iterator[Part]:
        for part in parts:
            if part.name not in finished:
                yield part
            else:
                progress.update(part.n_targets * len(part.band))

    with progress:
        for part, _ in in_parts(write_part, job, remaining(), client):
            progress.update(part.n_targets * len(part.band))


def write_part(job: Job, part: Part) -> None:
    """Write one part and record it."""
    method = job.method
    prepared, first = around(job.prepared, part.band, method.block_size)
    if part.first_target == EVERY_TARGET:
        tiles = method.tiles(job.quantity, prepared, job.effect)
    else:
        tiles = method.tiles_along(directions_of(job, part), prepared, job.effect)

    # Gathered, as a chunk that is written in pieces is read and written for each of them.
    of_band = gathered(within(tiles, part.band, first), len(part.band))
    solved = job.unfinished.write(stacked(of_band, CHUNK_TARGETS))
    job.unfinished.finish(part.name, solved)
