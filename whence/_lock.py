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
# What file systems without locks, such as some network ones, answer.
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
        """Whether the folder is still the one that was locked, not removed or made again."""
        try:
            now = os.stat(self._path)
            locked = os.fstat(self._descriptor)
        except OSError:
            return False

        # The same device and inode: a new file of that name has another.
        return os.path.samestat(now, locked)


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

    # The kernel lets a lock go when its file is closed, as it closes all files of a dead process.
    try:
        _take(descriptor, folder)
        yield Lock(path, descriptor)
    finally:
        os.close(descriptor)


def _take(descriptor: int, folder: Path) -> None:
    """Lock an open file and write who has it, or say who else does."""
    try:
        _lock(descriptor)
    except BlockingIOError:
        match = re.fullmatch(rb"(\d+)\n", os.read(descriptor, 100))
        holder = f"process {int(match[1])}" if match else "another process"
        raise BlockingIOError(
            f"{folder} is in use by {holder}: wait until that ends, stop it, or "
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

    # The number only helps a message.
    with contextlib.suppress(OSError):
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())
