"""Attributions above memory: a zarr folder that is written in parts, and read where it is needed.

Until it is complete the folder stands beside its name, with a ledger of the parts that are
finished. Whoever asks for the same result again goes on with it, and several processes may write
different parts at the same time.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import platform
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from whence._files import (
    NotWritten,
    left_beside,
    make_folder,
    parsed_json,
    replacing,
    strict_json,
    temporary_beside,
    write_atomically,
)
from whence._lock import locked
from whence.attribution.labels import Attributes, Coordinates
from whence.attribution.tiles import Solved, Tile

if TYPE_CHECKING:
    import zarr

    from whence.attribution.result import Attribution

VALUES = "influence"
"""Name of the array."""
IDENTITY = "identity.json"
"""File that says of which result a folder is a part."""
WRITTEN_BACK_SECONDS = 120.0
"""Time after which the system has brought to disk what was written; Linux takes half a minute."""
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def boot() -> str:
    """Return what tells one start of this machine from the next, where the system says it."""
    return BOOT_ID.read_text().strip() if BOOT_ID.exists() else ""


@dataclass(frozen=True)
class Layout:
    """Size, chunks and number type of the array: (targets, points)."""

    shape: tuple[int, int]
    chunks: tuple[int, int]
    dtype: torch.dtype


class Unfinished:
    """A result on disk that is not complete: what is finished of it, and where the rest goes.

    Parameters
    ----------
    out:
        The name that it will have.

    Attributes
    ----------
    path:
        The folder that it has until then, beside ``out``.
    """

    def __init__(self, out: Path) -> None:
        self.out = out
        self.path = out.with_name(f".{out.name}.unfinished")

    # --- beginning ---

    def begin(
        self, identity: Attributes, layout: Layout, coordinates: Coordinates
    ) -> None:
        """Make the folder, or go on with one of the same identity.

        Raises
        ------
        FileExistsError
            If there is something at ``out``, or the folder holds a part of another result.
        """
        if self.out.exists():
            raise FileExistsError(
                f"{self.out} exists already: choose another name, or remove it first"
            )
        make_folder(self.out.parent)
        if not self._is_whole():
            # What a process left that was killed while it removed the folder.
            self._remove()
            self._make(identity, layout, coordinates)
        self._check(identity)

    def _is_whole(self) -> bool:
        """Whether there is a folder with all that one has from its beginning to its end."""
        return (self.path / IDENTITY).is_file() and (self.path / "zarr").is_dir()

    def _remove(self) -> None:
        """Remove the folder, whose name is gone at once."""
        going = temporary_beside(self.path)
        with contextlib.suppress(FileNotFoundError):
            self.path.rename(going)
            shutil.rmtree(going, ignore_errors=True)

    def _make(
        self, identity: Attributes, layout: Layout, coordinates: Coordinates
    ) -> None:
        """Make the folder under a temporary name, as another process may do so too."""
        import xarray as xr  # slow to import
        import zarr  # slow to import

        for left in left_beside(self.path):
            shutil.rmtree(left, ignore_errors=True)
        made = temporary_beside(self.path)
        # Of another process that had the number.
        shutil.rmtree(made, ignore_errors=True)
        try:
            made.mkdir()
            (made / "finished").mkdir()
            (made / "directions").mkdir()
            (made / IDENTITY).write_text(strict_json(identity))
            dataset = xr.Dataset(coords=coordinates)
            dataset.to_zarr(made / "zarr", mode="w", consolidated=False)
            zarr.open_group(made / "zarr", mode="r+").create_array(
                VALUES,
                shape=layout.shape,
                chunks=layout.chunks,
                dtype=str(layout.dtype).removeprefix("torch."),
                dimension_names=("target", "point"),
                compressors=None,  # numbers such as these are as long afterwards
                fill_value=float("nan"),  # what was lost must not look like a number
            )
            made.rename(self.path)
        except OSError as error:
            # Another process may have been first, which is as good.
            if not self._is_whole():
                raise NotWritten.because(self.path, error) from error
        finally:
            shutil.rmtree(made, ignore_errors=True)

    def _check(self, identity: Attributes) -> None:
        """Raise ``FileExistsError`` unless the folder is of the same result."""
        file = self.path / IDENTITY
        before = parsed_json(file.read_bytes())
        now = parsed_json(strict_json(identity))
        changed = [name for name in now if now[name] != before.get(name)]
        if changed:
            raise FileExistsError(
                f"{self.path} is a part of another result for {self.out.name}, of other "
                f"{', '.join(changed)}: ask for the same as then to go on with it, choose another "
                "name, or remove it first"
            )

    # --- parts ---

    def finished(self) -> dict[str, Solved]:
        """Return the parts that are finished, and how well their systems were solved.

        Where this machine was started again since, what it wrote last may not have come to disk:
        that is not counted.
        """
        entries = {}
        for file in (self.path / "finished").glob("*.json"):
            entries[file.stem] = parsed_json(file.read_bytes())

        newest = max((entry["time"] for entry in entries.values()), default=0.0)
        ledger = {}
        for name, entry in entries.items():
            was_cut_off = entry["host"] == platform.node() and entry["boot"] != boot()
            if was_cut_off and entry["time"] > newest - WRITTEN_BACK_SECONDS:
                self._entry(name).unlink(missing_ok=True)
                continue
            ledger[name] = Solved(**entry["solved"])
        return ledger

    def finish(self, part: str, solved: Solved) -> None:
        """Record that a part is written, by whom and when."""
        entry = {
            "solved": dataclasses.asdict(solved),
            "host": platform.node(),
            "boot": boot(),
            "time": time.time(),
        }
        write_atomically(self._entry(part), strict_json(entry).encode())

    def is_finished(self, part: str) -> bool:
        """Whether a part is recorded, as one that another process has finished meanwhile."""
        return self._entry(part).is_file()

    def _entry(self, part: str) -> Path:
        return self.path / "finished" / f"{part}.json"

    def write(self, tiles: Iterator[Tile]) -> Solved:
        """Write tiles into the array, and return how well their systems were solved."""
        array = self._array()
        solved = Solved()
        try:
            for tile in tiles:
                array[tile.targets, tile.points] = tile.values.detach().cpu().numpy()
                solved = solved.worst_with(tile.solved)
        except OSError as error:
            raise NotWritten.because(self.path, error) from error
        return solved

    def _array(self) -> zarr.Array[Any]:
        import zarr  # slow to import

        return zarr.open_array(self.path / "zarr", path=VALUES, mode="r+")

    # --- vectors that several parts need ---

    def keep(self, name: str, vectors: np.ndarray) -> None:
        """Put an array on disk, from where several processes map it into memory."""
        with (
            replacing(self._directions(name)) as temporary,
            open(temporary, "wb") as file,
        ):
            np.save(file, vectors, allow_pickle=False)

    def kept(self, name: str) -> torch.Tensor:
        """Return an array that :meth:`keep` was given, mapped into memory."""
        # Copied where it is written to, which it is not: torch wants a writable one.
        mapped = np.load(self._directions(name), mmap_mode="c", allow_pickle=False)
        return torch.from_numpy(mapped)

    def _directions(self, name: str) -> Path:
        return self.path / "directions" / f"{name}.npy"

    # --- the end ---

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the folder for the process that is to complete it."""
        with locked(self.path):
            yield

    def complete(self, attributes: Attributes, coordinates: Coordinates) -> None:
        """Give the result its attributes and its name."""
        array = self._array()
        array.attrs.update(attributes)
        # By this attribute xarray knows which variables are coordinates.
        array.attrs["coordinates"] = " ".join(coordinates)
        try:
            os.rename(self.path / "zarr", self.out)
        except OSError as error:
            raise NotWritten.because(self.out, error) from error
        self._remove()


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

    stored = dataset[VALUES]
    # A folder lists its arrays in any order: that of the places' axes is in the attribute.
    names = stored.encoding["coordinates"].split()
    attribution = Attribution(
        # The variable, whose numbers are still on disk.
        stored.variable,
        coords={name: stored.coords[name] for name in names},
        name=VALUES,
        attrs=stored.attrs,
    )
    return attribution.set_xindex("term")
