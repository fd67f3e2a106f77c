"""Attributions above memory: written to a zarr folder tile by tile, read back where needed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from whence._files import NotWritten, make_folder
from whence.attribution.method import Effect, Method, Solved, count
from whence.attribution.quantities import Quantity
from whence.points import Points

if TYPE_CHECKING:
    import xarray as xr

CHUNK_TARGETS, CHUNK_POINTS = 64, 16_384


def stored(
    method: Method,
    quantity: Quantity,
    points: Mapping[str, Points],
    effect: Effect,
    out: Path,
) -> xr.DataArray:
    """Write an attribution to ``out``, a new zarr folder, and return it as read from there.

    The folder appears under its name when it is complete.
    """
    import xarray as xr  # slow to import
    import zarr

    _check_new(out)
    shape = method._rows_of(quantity), count(points)
    labelled = method.coordinates(quantity, points)
    make_folder(out.absolute().parent)
    with _renamed(out) as part:
        xr.Dataset(coords=labelled).to_zarr(part, mode="w", consolidated=False)
        array = zarr.open_group(part, mode="r+").create_array(
            "influence",
            shape=shape,
            chunks=(min(CHUNK_TARGETS, shape[0]), min(CHUNK_POINTS, shape[1])),
            dtype=str(method.objective.parameters.dtype).removeprefix("torch."),
            dimension_names=("target", "point"),
        )
        solved = Solved()
        for tile in method.shown(method.tiles(quantity, points, effect), shape):
            array[tile.targets, tile.points] = tile.values.detach().cpu().numpy()
            solved = solved.and_also(tile.solved)
        array.attrs.update({**method.attributes(quantity, effect, solved)})
        array.attrs["coordinates"] = " ".join(labelled)
    return read_zarr(out)


def read_zarr(path: str | Path) -> xr.DataArray:
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

    if not Path(path).is_dir():
        raise FileNotFoundError(f"there is no zarr folder at {path}")
    found = xr.open_dataset(path, engine="zarr", chunks=None, consolidated=False)[
        "influence"
    ]
    return found.set_xindex("term")


def _check_new(out: Path) -> None:
    if out.exists():
        raise FileExistsError(
            f"{out} exists already: choose another name, or remove it first"
        )


@contextmanager
def _renamed(out: Path) -> Iterator[Path]:
    """Yield a temporary folder beside ``out`` that takes its name when all is written."""
    part = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    try:
        yield part
        part.rename(out)
    except OSError as error:
        raise NotWritten.because(out, error) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
