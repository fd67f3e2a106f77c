"""Attributions as NetCDF files that show damage: a digest stands behind their last byte.

Readers of NetCDF ignore what stands there. The HDF5 library itself checks nothing: given a file
with flipped bytes it may return other numbers, or never return.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from whence._files import NotWritten, digest, make_folder, replacing

if TYPE_CHECKING:
    import xarray as xr

_MARK = b"\nwhence sha256 "
_DIGEST_LENGTH = 64
_TRAILER_LENGTH = len(_MARK) + _DIGEST_LENGTH


def write_netcdf(array: xr.DataArray | xr.Dataset, path: Path) -> None:
    """Write an array or a data set through a temporary file; its folder is made if need be."""
    make_folder(path.parent)
    with replacing(path) as temporary:
        try:
            array.to_netcdf(temporary)
        # Of the HDF5 library, which keeps the cause to itself.
        except RuntimeError as error:
            raise NotWritten(
                f"{path} could not be written ({error}): is the disk full, or read-only?"
            ) from error

        # Behind the last byte, before the file gets its name.
        content = temporary.read_bytes()
        with open(temporary, "ab") as file:
            file.write(_trailer(content))


def read_netcdf(path: Path) -> xr.DataArray:
    """Return the array that :func:`write_netcdf` wrote; a damaged file is a ``ValueError``."""
    import xarray as xr  # slow to import

    check_netcdf(path)
    # Loaded, as the file would stay open with its numbers unread.
    with xr.open_dataarray(path) as array:
        return array.load()


def read_dataset(path: Path) -> xr.Dataset:
    """Return the same of a data set, or of an array as one."""
    import xarray as xr  # slow to import

    check_netcdf(path)
    with xr.open_dataset(path) as dataset:
        return dataset.load()


def check_netcdf(path: Path) -> None:
    """Raise ``ValueError``, which names the file, unless it is as :func:`write_netcdf` left it."""
    whole = path.read_bytes()
    content = whole[:-_TRAILER_LENGTH]
    trailer = whole[-_TRAILER_LENGTH:]
    if trailer != _trailer(content):
        raise ValueError(
            f"{path} is damaged or was not written by whence influence: write it again with that"
        )


def _trailer(content: bytes) -> bytes:
    """Return what stands behind the last byte of an intact file."""
    return _MARK + digest(content).encode()
