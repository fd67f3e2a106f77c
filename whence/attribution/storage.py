"""Attributions above memory: written to a zarr folder tile by tile, read back where needed."""

from __future__ import annotations

import contextlib
import glob
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from whence._files import NotWritten, make_folder, temporary_beside
from whence._lock import locked
from whence.attribution.labels import Attributes, Coordinates
from whence.attribution.tiles import Solved, Tile

if TYPE_CHECKING:
    from whence.attribution.result import Attribution

CHUNK_TARGETS = 64
CHUNK_POINTS = 16_384


def write_zarr(
    out: Path,
    tiles: Iterable[Tile],
    shape: tuple[int, int],
    dtype: torch.dtype,
    coordinates: Coordinates,
    attributes: Callable[[Solved], Attributes],
) -> None:
    """Write an attribution to ``out``, a new zarr folder, tile by tile.

    The folder appears under its name when it is complete.

    Parameters
    ----------
    out:
        Where there is nothing yet; its parents are made if need be.
    tiles:
        Of an attribution of this ``shape``, (targets, points), and ``dtype``.
    coordinates:
        Of targets and points.
    attributes:
        Returns the attributes from how well all systems were solved.

    Raises
    ------
    FileExistsError
        If there is something at ``out``.
    """
    import xarray as xr  # slow to import
    import zarr  # slow to import

    if out.exists():
        raise FileExistsError(
            f"{out} exists already: choose another name, or remove it first"
        )
    make_folder(out.absolute().parent)

    n_targets, n_points = shape
    with _renamed_when_complete(out) as part:
        xr.Dataset(coords=coordinates).to_zarr(part, mode="w", consolidated=False)
        array = zarr.open_group(part, mode="r+").create_array(
            "influence",
            shape=shape,
            chunks=(min(CHUNK_TARGETS, n_targets), min(CHUNK_POINTS, n_points)),
            dtype=str(dtype).removeprefix("torch."),
            dimension_names=("target", "point"),
        )

        solved = Solved()
        for tile in tiles:
            array[tile.targets, tile.points] = tile.values.detach().cpu().numpy()
            solved = solved.worst_with(tile.solved)

        array.attrs.update(attributes(solved))
        # By this attribute xarray knows which variables are coordinates.
        array.attrs["coordinates"] = " ".join(coordinates)


def read_zarr(path: str | Path) -> Attribution:
    """Return an attribution from its zarr folder; numbers are read when they are used.

    Raises
    ------
    FileNotFoundError
        If there is no such folder.

    Examples
    --------
    >>> import tempfile, torch, whence as wh
    >>> from whence.attribution.storage import read_zarr
    >>> data = torch.rand(6, 3), torch.arange(6) % 2
    >>> objective = wh.Objective.supervised(torch.nn.Linear(3, 2), data, wh.CrossEntropy())
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = wh.GradDot(objective).attribute(wh.Loss(), out=f"{folder}/scores.zarr")
    ...     read_zarr(f"{folder}/scores.zarr").isel(target=0).shape
    (6,)
    """
    import xarray as xr  # slow to import

    from whence.attribution.result import Attribution  # xarray is slow to import

    if not Path(path).is_dir():
        raise FileNotFoundError(f"there is no zarr folder at {path}")
    dataset = xr.open_dataset(path, engine="zarr", chunks=None, consolidated=False)

    stored = dataset["influence"]
    attribution = Attribution(
        # The variable, whose numbers are still on disk.
        stored.variable,
        coords=stored.coords,
        name="influence",
        attrs=stored.attrs,
    )
    return attribution.set_xindex("term")


@contextmanager
def _renamed_when_complete(out: Path) -> Iterator[Path]:
    """Yield a temporary folder beside ``out`` that takes its name when all is written.

    What earlier processes left of the same name when they were killed is removed.
    """
    _sweep(out)
    part = temporary_beside(out)
    try:
        part.mkdir()
        with locked(part):
            yield part / "zarr"
            (part / "zarr").rename(out)
    except OSError as error:
        raise NotWritten.because(out, error) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _sweep(out: Path) -> None:
    """Remove the temporary folders of ``out`` that no process holds any more."""
    for left in out.parent.glob(f".{glob.escape(out.name)}.*.tmp"):
        # The lock of a process ends with it, however that ends.
        with contextlib.suppress(OSError), locked(left):
            shutil.rmtree(left, ignore_errors=True)
