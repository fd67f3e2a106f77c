"""Files that a command writes: their names in a run, and whether they can be written."""

from __future__ import annotations

from pathlib import Path

INFLUENCE_FILE = "influence.nc"
SCORES_FILE = "scores.npz"


def check_file(out: Path, *, overwrite: bool = True) -> None:
    """Raise ``FileExistsError`` unless a file can be written here, and is none yet or may go."""
    _check_above(out)
    if out.is_file() and not overwrite:
        raise FileExistsError(
            f"there is a former result, {out}: name another file by --out, or write over it by "
            "--overwrite"
        )
    if out.is_dir():
        raise FileExistsError(
            f"--out names a file, but {out} is a folder: choose another name"
        )


def free_name(out: Path) -> Path:
    """Return the name of a file that does not exist yet: this one, or with -2, -3, … after it.

    Examples
    --------
    >>> from pathlib import Path
    >>> from whence.cli.files import free_name
    >>> free_name(Path("no_such_folder/model_influence.nc")).name
    'model_influence.nc'
    """
    candidate = out
    number = 2
    while candidate.exists():
        candidate = out.with_name(f"{out.stem}-{number}{out.suffix}")
        number += 1
    return candidate


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
