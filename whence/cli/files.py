"""Files that a command writes: their names in a run, and whether they can be written."""

from __future__ import annotations

from pathlib import Path

INFLUENCE_FILE = "influence.nc"
SCORES_FILE = "scores.npz"


def check_file(out: Path) -> None:
    """Raise ``FileExistsError`` unless a file can be written here."""
    _check_above(out)
    if out.is_dir():
        raise FileExistsError(
            f"--out names a file, but {out} is a folder: choose another name"
        )


def check_folder(out: Path) -> None:
    """Raise ``FileExistsError`` unless files can be written into this folder."""
    _check_above(out)
    if out.exists() and not out.is_dir():
        raise FileExistsError(
            f"--out names a folder, but {out} is a file: choose another name"
        )


def _check_above(out: Path) -> None:
    # The nearest thing that exists above: the folders between will be made.
    above = next(folder for folder in out.absolute().parents if folder.exists())
    if not above.is_dir():
        raise FileExistsError(f"{out} cannot be made: {above} is a file, not a folder")
