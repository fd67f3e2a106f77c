"""The disk fails, or the process is killed, at every write from training to the figures."""

from __future__ import annotations

import errno
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import pytest
from matplotlib.figure import Figure

from whence import cli, pinn
from whence._files import NotWritten, is_temporary
from whence.pinn.training import loop
from whence.plots import style

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="children are forked")

# No reference solution, so that a row of the history costs nothing.
PROBLEM = """
from whence import pinn

problem = pinn.Problem(
    name="growth",
    domain=pinn.Rectangle(("x", "y"), (0, 0), (1, 1)),
    outputs=("u",),
    equations={"pde": lambda u, u_x: u_x - u},
    conditions=[pinn.Dirichlet(u=1.0, on="x_min")],
)
"""
TRAIN = (
    "train {problem} --points pde=8 dirichlet_u=2 --layers 2 4 1 --schedule adam:4 gauss_newton:2 "
    "--compile no --resampler none --quiet --out {run}"
)
STAGES = {
    "train": TRAIN,
    "resume": TRAIN + " --resume",
    "score": "score {run} --candidates 10 --score residual",
    "influence": "influence {run} --at 0.1 0.5",
    "plot": "plot {run}",
}


class Disk:
    """Counts the calls that put files on disk, and makes one of them fail."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls = 0
        self.fails_at: int | None = None
        self.failure: Callable[[], None] = lambda: None
        for name in ("fsync", "replace"):
            monkeypatch.setattr(os, name, self._counted(getattr(os, name)))

    def _counted(self, call: Callable[..., object]) -> Callable[..., object]:
        def counted(*arguments: object, **options: object) -> object:
            self.calls += 1
            if self.calls == self.fails_at:
                self.failure()
            return call(*arguments, **options)

        return counted


def raising(number: int) -> Callable[[], None]:
    def failure() -> None:
        raise OSError(number, os.strerror(number))

    return failure


def killed() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.fixture(scope="module", name="drawn", autouse=True)
def _drawn() -> Iterator[None]:
    """Figures are written as they are, but drawn as a few letters: that costs most of the time."""

    def save(figure: Figure, target: BinaryIO, **options: object) -> None:
        target.write(b"drawn")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "savefig", save)
        patch.setattr(style, "arrange", lambda figure: None)
        yield


@pytest.fixture(name="disk")
def _disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    # A checkpoint after every step of Gauss–Newton, and after Adam's.
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", 0.0)
    return Disk(monkeypatch)


@pytest.fixture(scope="module", name="went")
def _went(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Path], int]:
    """Run the command of a stage, and return its exit code."""
    problem = tmp_path_factory.mktemp("problem") / "growth.py"
    problem.write_text(PROBLEM)

    def went(stage: str, run: Path) -> int:
        return cli.main(STAGES[stage].format(problem=problem, run=run).split())

    return went


@pytest.fixture(scope="module", name="before")
def _before(
    tmp_path_factory: pytest.TempPathFactory, went: Callable[[str, Path], int]
) -> dict[str, Path]:
    """The folder of a run before each stage; before a resume it was cut short."""
    root = tmp_path_factory.mktemp("stages")
    folders = {"train": root / "nothing"}
    whole = root / "whole"
    assert went("train", whole) == 0

    cut = root / "cut"
    cut.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "CHECKPOINT_SECONDS", 0.0)
        disk = Disk(patch)
        disk.fails_at, disk.failure = 16, raising(errno.ENOSPC)
        assert went("train", cut / "run") == 2
    folders["resume"] = cut / "run"

    for stage in ("score", "influence", "plot"):
        folders[stage] = root / f"before_{stage}"
        shutil.copytree(whole, folders[stage])
        assert went(stage, whole) == 0
    return folders


def files_of(run: Path) -> dict[str, bytes]:
    """What must be the same after a failure that was made good: all but what holds a clock."""
    files = {}
    for path in sorted(run.rglob("*")):
        if path.is_file():
            is_timeless = path.suffix in (".npz", ".nc", ".py")
            content = path.read_bytes() if is_timeless else b""
            files[str(path.relative_to(run))] = content
    return files


def is_sound(run: Path) -> bool:
    """Whether nothing in a run's folder is damaged; leftovers may lie there."""
    if not (run / "config.json").is_file():
        return True
    states = pinn.check_run(run)
    return all(
        state.problem is None or "killed writer" in state.problem for state in states
    )


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("failure", ["ENOSPC", "EIO", "kill"])
def test_every_write_may_fail(
    stage: str,
    failure: str,
    before: dict[str, Path],
    went: Callable[[str, Path], int],
    disk: Disk,
    tmp_path: Path,
) -> None:
    """Nothing is lost, nothing half read; the same command then does what it would have done."""

    def fresh(name: str) -> Path:
        run = tmp_path / name / "run"
        if before[stage].exists():
            shutil.copytree(before[stage], run)
        return run

    whole = fresh("whole")
    assert went(stage, whole) == 0
    calls, disk.calls = disk.calls, 0
    assert calls >= 2

    # All of them for a full disk; of kills, broken disks and figures, which are eight files written
    # alike, every fifth: of the three calls for a file each is among them.
    step = 1 if failure == "ENOSPC" and stage != "plot" else 5
    for n in range(1, calls + 1, step):
        run = fresh(str(n))
        disk.calls, disk.fails_at = 0, n
        if failure == "kill":
            assert killed_in_child(lambda run=run: went(stage, run), disk)
        else:
            disk.failure = raising(getattr(errno, failure))
            assert went(stage, run) == 2, n
        disk.fails_at = None
        assert is_sound(run), (n, pinn.check_run(run))

        again = stage
        if stage == "train" and (run / "config.json").is_file():
            again = "resume"
        assert went(again, run) == 0, n
        assert files_of(run) == files_of(whole), n
        assert [p for p in run.rglob("*") if is_temporary(p)] == []
        assert is_sound(run)


def killed_in_child(work: Callable[[], object], disk: Disk) -> bool:
    """Do some work in another process that kills itself; return whether it did."""
    disk.failure = killed
    child = os.fork()
    if not child:
        try:
            work()
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


def test_check_names_what_is_damaged(
    before: dict[str, Path], tmp_path: Path, capsys
) -> None:
    run = tmp_path / "run"
    shutil.copytree(before["plot"], run)
    assert cli.main(["check", str(run)]) == 0
    assert "all whole" in capsys.readouterr().out

    for name in ("checkpoint.safetensors", "influence.nc", "points.npz", "config.json"):
        other = tmp_path / name / "run"
        shutil.copytree(before["plot"], other)
        content = bytearray((other / name).read_bytes())
        # More than one byte: a single one may be a date within a zip archive.
        for place in range(len(content) // 2, len(content) // 2 + 64):
            content[place] ^= 0xFF
        (other / name).write_bytes(bytes(content))
        assert cli.main(["check", str(other)]) == 2
        line = next(
            line
            for line in capsys.readouterr().out.splitlines()
            if line.startswith(name)
        )
        assert "whole" not in line


def test_check_of_no_run(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="holds no whence run"):
        pinn.check_run(tmp_path)
    assert issubclass(NotWritten, OSError)


def test_a_start_that_failed_leaves_other_files_alone(
    went: Callable[[str, Path], int], tmp_path: Path, capsys
) -> None:
    """The problem's copy may lie there already, but no other file, and no other problem."""
    run = tmp_path / "run"
    run.mkdir()
    (run / "problem.py").write_text(PROBLEM + "# mine\n")
    assert went("train", run) == 2
    assert "not an empty folder" in capsys.readouterr().err
    assert (run / "problem.py").read_text() == PROBLEM + "# mine\n"

    (run / "problem.py").write_text(PROBLEM)
    (run / "notes.txt").write_text("mine")
    assert went("train", run) == 2
    (run / "notes.txt").unlink()
    assert went("train", run) == 0
