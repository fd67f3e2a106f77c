"""The one way files are written: under a temporary name, then renamed; and read with suspicion."""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import io
import json
import math
import os
import platform
import re
import time
import zipfile
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

PathLike = str | os.PathLike[str]

MAX_NAME_BYTES = 240
"""Bytes of a file's name: 255 are allowed, and temporary names are longer."""
STALE_SECONDS = 3600.0
"""No file takes this long to write."""
_TEMPORARY = re.compile(r"\.(?P<name>.+)\.(?:(?P<host>[0-9a-f]{8})-)?(?P<pid>\d+)\.tmp")
_CAUSES = {
    "ENOSPC": "the disk is full: free some space",
    "EDQUOT": "the disk quota is used up: free some space",
    "EFBIG": "the file would be larger than is allowed here: raise that limit (ulimit -f)",
    "EACCES": "writing is not permitted there: change that, or choose another folder",
    "EPERM": "writing is not permitted there: change that, or choose another folder",
    "EROFS": "the disk is read-only: choose another folder",
    "ENOENT": "its folder is gone: it was removed or renamed meanwhile",
    "ENOTDIR": "a file stands where its folder should be: choose another folder",
    "EEXIST": "a file stands where its folder should be: choose another folder",
    "EISDIR": "a folder stands there: choose another name",
}
# Not every system has every error.
_ADVICE = {
    getattr(errno, name): advice
    for name, advice in _CAUSES.items()
    if hasattr(errno, name)
}


class NotWritten(OSError):
    """A file could not be written; what stood in its place before is whole."""

    @classmethod
    def because(cls, path: Path, error: OSError) -> NotWritten:
        """Name the file, the cause and what to do."""
        cause = _ADVICE.get(error.errno or 0, str(error))
        return cls(f"{path} could not be written, as {cause}")


# --- writing -------------------------------------------------------------------------------------


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary file beside ``path`` that takes its place once it is on disk.

    A reader, or a kill at any instant, sees the old file or the new one. A failure leaves the old
    one and nothing else; one of the operating system is a :class:`NotWritten`.
    """
    # In the same folder, as a rename within a file system is atomic and one between two is none.
    # The process's number tells sweepers whether the writer is alive.
    temporary = temporary_beside(path)
    try:
        _sweep_stale(path)
        yield temporary

        # On disk before it has the name: a power cut could else leave the name to an empty file.
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except NotWritten:
        raise
    except OSError as error:
        raise NotWritten.because(path, error) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def _sync_folder(folder: Path) -> None:
    """Put the names in a folder on disk, which a power cut could else take back."""
    if os.name == "nt":  # where a folder cannot be opened
        return
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    except OSError as error:
        # Some file systems know no such thing, which is no failure of ours.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(number)


def write_atomically(path: Path, content: bytes) -> None:
    """Write ``content`` to ``path`` through :func:`replacing`."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def make_folder(path: Path) -> None:
    """Make a folder and those above it; failing is a :class:`NotWritten`."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise NotWritten.because(path, error) from error


# --- what killed writers leave -------------------------------------------------------------------


def temporary_beside(path: Path) -> Path:
    """Return the temporary name of a file, or folder, that this process is to put at ``path``."""
    return path.with_name(f".{path.name}.{_host()}-{os.getpid()}.tmp")


@functools.cache
def _host() -> str:
    """Return a mark of where process numbers mean what they do here: host and name space."""
    space = ""
    with contextlib.suppress(OSError):  # of containers, on Linux
        space = os.readlink("/proc/self/ns/pid")
    return digest(platform.node(), space)[:8]


def is_temporary(path: Path) -> bool:
    """Whether :func:`replacing` made this file."""
    return _TEMPORARY.fullmatch(path.name) is not None


def sweep(folder: Path, own: Collection[str] = ()) -> None:
    """Remove what killed writers left in ``folder``.

    Call it with the folder locked: then nobody else writes the files called ``own``, whatever
    process now has the number of the one that died. Other files may be in the making by a process
    that is alive, so theirs stay as long as one of that number is.
    """
    for path, name, host, pid in _temporaries(folder):
        is_ours = host in (None, _host())
        if name in own or (is_ours and not _is_alive(pid)):
            with contextlib.suppress(OSError):
                path.unlink()


def _sweep_stale(target: Path) -> None:
    """Remove what killed writers of one file left, without a lock."""
    for path in left_beside(target):
        # Another process may sweep at the same time: whoever comes second finds nothing.
        with contextlib.suppress(OSError):
            path.unlink()


def left_beside(target: Path) -> Iterator[Path]:
    """Yield the temporary files, or folders, of ``target`` whose writers were killed.

    A process on another host may be the one at work, so what it wrote must be old as well.
    """
    for path, name, host, pid in _temporaries(target.parent):
        if name != target.name:
            continue
        # Of an older version, which left no mark, the number may be of this host.
        is_ours = host == _host()
        if (is_ours or host is None) and _is_alive(pid):
            continue
        with contextlib.suppress(OSError):
            age = time.time() - path.stat().st_mtime
            if is_ours or age > STALE_SECONDS:
                yield path


def _temporaries(folder: Path) -> Iterator[tuple[Path, str, str | None, int]]:
    """Yield path, target name, host and process number of each temporary file in a folder."""
    for path in folder.iterdir():
        match = _TEMPORARY.fullmatch(path.name)
        if match:
            yield path, match["name"], match["host"], int(match["pid"])


def _is_alive(pid: int) -> bool:
    """Whether a process of this number is running on this host, as far as can be told."""
    if os.name == "nt":  # there, signal 0 is not a question but Ctrl-C
        return True

    # Signal 0 is not sent: only whether it could be is checked.
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # of another user
        return True
    return True


# --- JSON ----------------------------------------------------------------------------------------


JsonObject = dict[str, Any]
"""What JSON calls an object: text, numbers, truth values, lists and further objects by name."""
Json = JsonObject | list[Any] | str | float | bool | None
"""Any value of JSON."""


def strict_json(value: object, indent: int | None = 2) -> str:
    """Return JSON that any reader takes: numbers that are not finite become strings.

    Examples
    --------
    >>> strict_json({"loss": float("inf")}, indent=None)
    '{"loss": "Infinity"}'
    >>> parsed_json('{"loss": "Infinity"}')
    {'loss': inf}
    """
    return json.dumps(_spell(value), indent=indent, allow_nan=False)


def parsed_json(text: str | bytes) -> JsonObject:
    """Return what :func:`strict_json` was given."""
    return _unspell(json.loads(text))


def _spell(value: Any) -> Any:
    """Return a value with its numbers that are not finite spelled out."""
    if isinstance(value, dict):
        return {key: _spell(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_spell(inner) for inner in value]

    if not isinstance(value, float) or math.isfinite(value):
        return value
    if math.isnan(value):
        return "NaN"
    return "Infinity" if value > 0 else "-Infinity"


def _unspell(value: Any) -> Any:
    """Return a value with the numbers that :func:`_spell` spelled out."""
    if isinstance(value, dict):
        return {key: _unspell(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_unspell(inner) for inner in value]

    if value in ("NaN", "Infinity", "-Infinity"):
        return float(value)
    return value


# --- damage --------------------------------------------------------------------------------------


def digest(*parts: bytes | str) -> str:
    """Return the SHA-256 of some parts and where they end, by which damage shows."""
    total = hashlib.sha256()
    for part in parts:
        content = part.encode() if isinstance(part, str) else part
        # The length goes first, so that ("ab", "c") and ("a", "bc") differ.
        total.update(f"{len(content)} ".encode())
        total.update(content)

    return total.hexdigest()


def checked_path(what: str, path: object) -> Path:
    """Return a path that files can have, or raise ``TypeError`` or ``ValueError``."""
    if not isinstance(path, (str, os.PathLike)) or isinstance(path, bytes):
        raise TypeError(f"{what} must be a path, such as 'runs/first', got {path!r}")

    text = os.fspath(path)
    if not isinstance(text, str) or not text or "\0" in text:
        raise ValueError(f"{what} must be a path that a file can have, got {text!r}")
    for name in Path(text).parts:
        if len(name.encode()) > MAX_NAME_BYTES:
            raise ValueError(
                f"{what} has a name of {len(name.encode())} bytes, {name[:20]}…: file systems take "
                f"{MAX_NAME_BYTES}"
            )
    return Path(text)


def packed_arrays(arrays: Mapping[str, np.ndarray]) -> bytes:
    """Return the bytes of a compressed ``.npz`` with arrays of any name."""
    # Not by np.savez_compressed, whose own arguments' names no array can have.
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array(file, np.asarray(array), allow_pickle=False)
    return buffer.getvalue()


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Return the arrays of an ``.npz``; nothing in it can run code, and damage names the file."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing")

    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    # A file with flipped bytes meets the insides of zipfile, zlib and numpy, which raise anything.
    except Exception as error:
        raise ValueError(
            f"{path} is damaged or no archive of arrays: {error}"
        ) from None
