"""One process at a time in a folder: an advisory lock, which the kernel lets go at any death."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

from whence._files import NotWritten

LOCK = ".lock"
_UNSUPPORTED = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)

if sys.platform == "win32":
    import msvcrt

    # Far behind the end of the file, as a locked byte cannot be read.
    _FAR = 2**20

    def _lock(descriptor: int) -> None:
        os.lseek(descriptor, _FAR, os.SEEK_SET)
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except PermissionError as error:
            raise BlockingIOError from error
        finally:
            os.lseek(descriptor, 0, os.SEEK_SET)

else:
    import fcntl

    def _lock(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


class Lock:
    """A lock that is held; see :func:`locked`."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self._path = path
        self._descriptor = descriptor

    def is_in_place(self) -> bool:
        """Tell whether the folder is still the one that was locked, not removed or made anew."""
        try:
            return os.path.samestat(os.stat(self._path), os.fstat(self._descriptor))
        except OSError:
            return False


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[Lock]:
    """Hold ``folder`` for this process alone.

    Another holder is a ``BlockingIOError`` at once. The lock ends with the process, however that
    ends; its file stays, since removing it would let two processes lock two files of one name.
    A file system without locks gets a warning.
    """
    path = folder / LOCK
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise NotWritten.because(path, error) from error
    try:
        _take(descriptor, folder)
        yield Lock(path, descriptor)
    finally:
        os.close(descriptor)


def _take(descriptor: int, folder: Path) -> None:
    try:
        _lock(descriptor)
    except BlockingIOError:
        raise BlockingIOError(
            f"{folder} is in use by {_holder(descriptor)}: wait until that ends, stop it, or "
            "choose another folder"
        ) from None
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise NotWritten.because(folder / LOCK, error) from error
        warnings.warn(
            f"the file system of {folder} has no locks: make sure yourself that no other process "
            "trains in that folder",
            RuntimeWarning,
            stacklevel=2,
        )
        return
    with contextlib.suppress(OSError):  # the number only helps a message
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())


def _holder(descriptor: int) -> str:
    found = re.fullmatch(rb"(\d+)\n", os.read(descriptor, 100))
    return f"process {int(found[1])}" if found else "another process"
