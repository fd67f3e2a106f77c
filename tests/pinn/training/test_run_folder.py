"""Files of a run: damage is refused by name, one process at a time, leftovers go, failures say."""

import errno
import fcntl
import io
import json
import os
import pickle
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
import xarray as xr
from trainings import attribution, go, scores, small

from whence import _files, _lock, _netcdf, pinn
from whence.pinn.training import loop
from whence.pinn.training import run_folder as runs
from whence.pinn.training.history import History
from whence.pinn.training.run_folder import RunFolder

SHORT = {"schedule": [pinn.GaussNewton(4)]}


@pytest.fixture(name="run", scope="module")
def _run(tmp_path_factory):
    """A run stopped halfway, with scores and an attribution in its folder; only to be copied."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    go(folder, max_seconds=1e-6, **SHORT)
    scores().save(folder / "scores.npz")
    _netcdf.write_netcdf(attribution(), folder / "influence.nc")
    return folder


@pytest.fixture(name="copy")
def _copy(run, tmp_path):
    return Path(shutil.copytree(run, tmp_path / "copy"))


def resumed(folder):
    return go(folder, resume=True, **SHORT)


READERS = {
    "config.json": resumed,
    "history.csv": resumed,
    "points.npz": lambda folder: RunFolder(folder).points(),
    "changes.safetensors": lambda folder: RunFolder(folder).changes().tensors,
    "checkpoint.safetensors": resumed,
    "scores.npz": lambda folder: pinn.SavedScore.load(folder / "scores.npz"),
    "influence.nc": lambda folder: _netcdf.read_netcdf(folder / "influence.nc"),
}


def value_of(result):
    """What a reader returned, to compare."""
    if isinstance(result, pinn.SavedScore):
        return (result.term, result.candidates.tolist(), result.values.tolist())
    if isinstance(result, xr.DataArray):
        return result.to_dict()
    if isinstance(result, dict):
        return {name: array.tolist() for name, array in result.items()}
    return result.objective.parameters.vector().tolist()


class Damage:
    """Tries damaged versions of a file: each is refused by name, or changes nothing at all."""

    def __init__(self, run, copy, name):
        self.name, self.whole, self.refused = name, (run / name).read_bytes(), 0
        self._run, self._copy = run, copy
        self._expected = value_of(READERS[name](copy))

    def does_no_harm(self, content):
        shutil.rmtree(self._copy)
        shutil.copytree(self._run, self._copy)
        (self._copy / self.name).write_bytes(content)
        try:
            found = value_of(READERS[self.name](self._copy))
        except ValueError as error:
            self.refused += 1
            return f"{self.name} " in str(error)
        return found == self._expected


@pytest.mark.parametrize("name", READERS)
def test_truncated_files_are_refused_by_name(run, copy, name):
    """But for a final newline, or history beyond the checkpoint."""
    damage = Damage(run, copy, name)
    n = len(damage.whole)
    lengths = {0, 1, 7, n - 1, *range(0, n, max(1, n // 40))}
    assert [k for k in lengths if not damage.does_no_harm(damage.whole[:k])] == []
    assert damage.refused >= len(lengths) - 2


@pytest.mark.parametrize("name", READERS)
def test_a_flipped_byte_is_refused_by_name_or_changes_nothing(run, copy, name):
    """Every byte of the first and last 200, where the headers are, and 100 others."""
    damage, draw = Damage(run, copy, name), random.Random(name)
    n = len(damage.whole)
    places = {*range(min(200, n)), *range(max(0, n - 200), n)}
    places |= {draw.randrange(n) for _ in range(100)}
    harmed = []
    for place in sorted(places):
        changed = bytearray(damage.whole)
        changed[place] ^= draw.randrange(1, 256)
        if not damage.does_no_harm(bytes(changed)):
            harmed.append(place)
    assert harmed == []
    assert damage.refused > 100


class Bomb:
    def __reduce__(self):
        return os.system, ("touch exploded",)


@pytest.mark.parametrize("name", ["points.npz", "scores.npz"])
@pytest.mark.parametrize("form", ["array", "file"])
def test_a_pickle_is_refused_and_does_not_run(copy, name, form, monkeypatch):
    monkeypatch.chdir(copy)
    content = pickle.dumps(Bomb())
    if form == "array":
        held = io.BytesIO()
        np.savez(
            held,
            candidates=np.array([Bomb()], dtype=object),
            values=np.zeros(1),
            term="1",
        )
        content = held.getvalue()
    (copy / name).write_bytes(content)
    with pytest.raises(ValueError, match=rf"{name} is damaged or no archive"):
        READERS[name](copy)
    assert not (copy / "exploded").exists()


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        ("last", "'last' has shape"),
        ("best", "'best' has shape"),
        ("points/pde", "points of term 'pde'"),
        ("best_points/pde", "best_points of term 'pde'"),
        ("network/linears.0.weight", "'network/linears.0.weight' has shape"),
    ],
)
def test_a_checkpoint_of_other_shapes_is_refused(copy, tensor, message):
    folder = RunFolder(copy)
    held = folder.checkpoint()
    assert tensor in held.tensors, list(held.tensors)
    held.tensors[tensor] = held.tensors[tensor].reshape(-1)[:-1]
    folder.write_checkpoint(held)
    with pytest.raises(
        ValueError, match=rf"safetensors is not of this run: .*{message}"
    ):
        resumed(copy)


@pytest.mark.parametrize(
    "key", ["place", "optimizer", "history_rows", "in_stage", "history"]
)
def test_a_checkpoint_without_its_numbers_is_refused(copy, key):
    folder = RunFolder(copy)
    held = folder.checkpoint()
    del held.numbers[key]
    folder.write_checkpoint(held)
    with pytest.raises(
        ValueError, match=r"checkpoint.safetensors is not of this run: "
    ):
        resumed(copy)


def test_a_checkpoint_without_a_tensor_is_refused(copy):
    folder = RunFolder(copy)
    held = folder.checkpoint()
    del held.tensors["last"]
    folder.write_checkpoint(held)
    with pytest.raises(ValueError, match=r"not of this run: its 'last' is missing"):
        resumed(copy)


def test_files_of_another_run_are_refused(copy, tmp_path):
    go(tmp_path / "other", seed=1, max_seconds=1e-6, **SHORT)
    for name in ("history.csv", "points.npz"):
        own = (copy / name).read_bytes()
        shutil.copy(tmp_path / "other" / name, copy / name)
        with pytest.raises(
            ValueError, match=rf"{name} is damaged: it does not fit checkpoint"
        ):
            resumed(copy)
        (copy / name).write_bytes(own)
    resumed(copy)


@pytest.mark.parametrize(
    ("number", "age"), [(1, "an older"), (99, "a newer"), (None, "an older")]
)
def test_other_formats_are_refused_by_name(copy, number, age):
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, "format": number}))
    with pytest.raises(
        ValueError, match=rf"config.json is of run format {number}, that of {age}"
    ):
        resumed(copy)
    path = copy / "checkpoint.safetensors"
    state = json.dumps({"format": number})
    safetensors.torch.save_file(
        {"last": torch.zeros(1)}, path, metadata={"state": state}
    )
    with pytest.raises(
        ValueError, match=rf"safetensors is of run format {number}, that of {age}"
    ):
        pinn.load_network(small().network(), copy)


def test_numbers_that_are_not_finite_make_strict_json(tmp_path):
    folder = RunFolder(tmp_path / "run")
    folder.create({"problem": "x"})
    numbers = {
        "place": {"best": float("inf")},
        "list": [float("nan"), 1.5, -float("inf")],
    }
    folder.write_summary({"loss": float("nan")})
    folder.write_checkpoint(runs.Checkpoint({"a": torch.zeros(2)}, numbers))

    def refuse(token):
        raise AssertionError(f"{token} is no JSON")

    for name in ("summary.json", "state.json", "config.json"):
        json.loads((folder.path / name).read_text(), parse_constant=refuse)
    with safetensors.safe_open(
        folder.path / "checkpoint.safetensors", framework="pt"
    ) as file:
        json.loads(file.metadata()["state"], parse_constant=refuse)
    assert np.isnan(folder.summary()["loss"])
    assert repr(folder.checkpoint().numbers) == repr(numbers)


def test_history_comes_back_as_it_was(tmp_path):
    folder = RunFolder(tmp_path)
    row = {"iteration": 3, "seconds": 0.5, "stage": "Adam", "points": 4, "loss": 1e-300}
    rows = [
        row | {"validation_loss": float("inf")},
        row | {"validation_loss": 0.1 + 0.2},
    ]
    folder.write_history(rows)
    assert folder.history() == rows
    assert folder.history().digest() == History(rows).digest()


# The lock


CHILD = (
    "import sys, os, time; from whence.pinn.training.run_folder import RunFolder\n"
    "with RunFolder(sys.argv[1]).locked():\n"
    "    print(os.getpid(), flush=True); time.sleep(60)"
)


@pytest.fixture(name="holder")
def _holder(copy):
    """Another process that holds the folder."""
    process = subprocess.Popen(
        [sys.executable, "-c", CHILD, copy], stdout=subprocess.PIPE
    )
    process.stdout.readline()
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_a_second_process_is_refused_until_the_first_dies(copy, holder):
    before = {p.name: p.read_bytes() for p in copy.iterdir()}
    message = rf"copy is in use by process {holder.pid}: wait until that ends, stop it, or choose"
    with pytest.raises(BlockingIOError, match=message):
        resumed(copy)
    assert {p.name: p.read_bytes() for p in copy.iterdir()} == before
    pinn.load_network(small().network(), copy)  # reading goes on
    assert RunFolder(copy).history()
    holder.kill()
    holder.wait()
    assert resumed(copy).summary["finished"]


def test_a_new_run_is_refused_where_another_is_just_made(tmp_path):
    (tmp_path / "run").mkdir()
    with (
        RunFolder(tmp_path / "run").locked(),
        pytest.raises(BlockingIOError, match="in use"),
    ):
        go(tmp_path / "run", **SHORT)
    assert go(tmp_path / "run", **SHORT).summary["finished"]


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_gets_one_warning(copy, monkeypatch, number):
    def flock(descriptor, operation):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.warns(RuntimeWarning, match="copy has no locks: make sure") as warned:
        assert resumed(copy).summary["finished"]
    assert len(warned) == 1


# Leftovers


def dead_pid():
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_leftovers_of_the_dead_are_swept_and_those_of_the_living_stay(copy):
    dead, alive = dead_pid(), os.getppid()
    gone = [f".checkpoint.safetensors.{dead}.tmp", f".scores.npz.{dead}.tmp"]
    # Its process number is in use again; nobody else writes this file while the lock is held.
    gone.append(f".history.csv.{alive}.tmp")
    kept = [f".scores.npz.{alive}.tmp", ".notes.tmp", "thesis.1.tmp"]
    for name in gone + kept:
        (copy / name).write_bytes(b"half")
    resumed(copy)
    left = {p.name for p in copy.iterdir()}
    assert not left & set(gone)
    assert left >= set(kept)


def test_writing_a_file_sweeps_what_killed_writers_of_it_left_long_ago(tmp_path):
    """Without a lock, a writer on another host may be alive: only age tells."""
    dead, alive, old = dead_pid(), os.getppid(), time.time() - 2 * _files.STALE_SECONDS
    ages = {f".scores.npz.{dead}.tmp": old, f".scores.npz.{alive}.tmp": old}
    ages |= {f".scores.npz.{dead - 1}.tmp": time.time(), f".other.npz.{dead}.tmp": old}
    for name, age in ages.items():
        (tmp_path / name).write_bytes(b"half")
        os.utime(tmp_path / name, (age, age))
    scores().save(tmp_path / "scores.npz")
    assert set(ages) - {p.name for p in tmp_path.iterdir()} == {
        f".scores.npz.{dead}.tmp"
    }


def test_a_folder_with_leftovers_of_a_killed_start_is_free(tmp_path):
    (tmp_path / ".lock").write_text("123\n")
    (tmp_path / f".config.json.{dead_pid()}.tmp").write_text("{")
    assert go(tmp_path, **SHORT).summary["finished"]
    assert not list(tmp_path.glob("*.tmp")) + list(tmp_path.glob(".*.tmp"))


# Disks


@pytest.fixture(name="disk")
def _disk(tmp_path):
    """A small disk that can be filled."""
    path = tmp_path / "disk"
    path.mkdir()
    mounting = ["mount", "-t", "tmpfs", "-o", "size=256k", "none", str(path)]
    if (
        shutil.which("mount") is None
        or subprocess.run(mounting, capture_output=True).returncode
    ):
        pytest.skip("mounting is not permitted here")
    yield path
    subprocess.run(["umount", "--lazy", str(path)], check=True)


def fill(disk):
    with open(disk / "ballast", "wb", buffering=0) as file:
        for size in (65536, 512, 1):
            try:
                while file.write(b"x" * size):
                    pass
            except OSError:
                continue


def after_the_first_save(monkeypatch, act):
    """Save after every step, and act once between two saves."""
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", 0.0)
    save, done = loop.Loop._save, []

    def acting(run, *arguments):
        save(run, *arguments)
        if not done:
            done.append(act())

    monkeypatch.setattr(loop.Loop, "_save", acting)


def test_a_full_disk_says_what_is_saved_and_spoils_nothing(disk, monkeypatch):
    whole = go(**SHORT)
    with monkeypatch.context() as patched:
        after_the_first_save(patched, lambda: fill(disk))
        with pytest.raises(OSError, match="disk/run") as caught:
            go(disk / "run", **SHORT)
    message = str(caught.value)
    assert "could not be written, as the disk is full: free some space" in message
    assert (
        "holds the run up to iteration 1 of 2 done: after that, go on with --resume"
        in message
    )
    assert not list((disk / "run").glob(".*.tmp"))
    assert RunFolder(disk / "run").checkpoint().numbers["place"]["iteration"] == 1
    (disk / "ballast").unlink()
    again = resumed(disk / "run")
    assert torch.equal(
        again.objective.parameters.vector(), whole.objective.parameters.vector()
    )


def test_a_full_disk_leaves_scores_figures_and_attributions_whole(disk):
    from matplotlib.figure import Figure

    from whence import plots

    writers = {
        "scores.npz": lambda seed: scores(seed).save(disk / "scores.npz"),
        "influence.nc": lambda k: _netcdf.write_netcdf(
            attribution(1.0 + k), disk / "influence.nc"
        ),
        "curve.png": lambda k: plots.save(Figure(figsize=(1 + k, 1)), disk / "curve"),
    }
    for write in writers.values():
        write(0)
    before = {name: (disk / name).read_bytes() for name in writers}
    fill(disk)
    for name, write in writers.items():
        with pytest.raises(OSError, match=rf"{name} could not be written"):
            write(1)
    assert {name: (disk / name).read_bytes() for name in writers} == before
    assert not list(disk.glob(".*.tmp"))


def test_a_file_above_the_allowed_size_is_named(tmp_path):
    """The limit is per process, so another one meets it."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))
            try:
                go(tmp_path / "run", **SHORT)
            except OSError as error:
                wanted = "larger than is allowed here: raise that limit (ulimit -f)"
                code = 0 if wanted in str(error) else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert resumed(tmp_path / "run").summary["finished"]


def test_a_folder_removed_under_a_run_is_named(tmp_path, monkeypatch):
    after_the_first_save(monkeypatch, lambda: shutil.rmtree(tmp_path / "run"))
    with pytest.raises(
        OSError, match=r"run was removed or replaced while .* train again, in a"
    ):
        go(tmp_path / "run", **SHORT)
    assert not (tmp_path / "run").exists()


def test_a_folder_replaced_by_another_run_is_left_to_that(tmp_path, run, monkeypatch):
    def replace():
        shutil.rmtree(tmp_path / "run")
        shutil.copytree(run, tmp_path / "run")

    after_the_first_save(monkeypatch, replace)
    with pytest.raises(
        OSError, match=r"run was removed or replaced while this run was training"
    ):
        go(tmp_path / "run", **SHORT)
    assert {p.name: p.read_bytes() for p in (tmp_path / "run").iterdir()} == {
        p.name: p.read_bytes() for p in run.iterdir()
    }


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is read-only for root")
def test_a_read_only_folder_is_named(copy):
    copy.chmod(0o555)
    with pytest.raises(
        OSError, match=r"copy/.lock could not be written, as writing is not perm"
    ):
        resumed(copy)


def test_a_read_only_disk_is_named(disk, run):
    shutil.copytree(run, disk / "run")
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    with pytest.raises(
        OSError, match=r"could not be written, as the disk is read-only: choose"
    ):
        go(disk / "run", resume=True, **SHORT)
    with pytest.raises(
        OSError, match=r"could not be written, as the disk is read-only: choose"
    ):
        go(disk / "new", **SHORT)
    pinn.load_network(small().network(), disk / "run")


def test_a_folder_in_the_way_of_a_file_is_named(copy):
    (copy / "summary.json").unlink()
    (copy / "summary.json").mkdir()
    with pytest.raises(
        OSError, match=r"summary.json could not be written, as a folder stands"
    ):
        resumed(copy)
    assert RunFolder(copy).checkpoint().numbers["place"]["done"]


def test_a_failure_between_leaves_the_old_file_and_nothing_else(tmp_path):
    _files.write_atomically(tmp_path / "a", b"old")

    def fail():
        with _files.replacing(tmp_path / "a") as temporary:
            temporary.write_bytes(b"new")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert os.listdir(tmp_path) == ["a"]
    assert (tmp_path / "a").read_bytes() == b"old"


def test_an_archive_bomb_name_is_harmless(tmp_path):
    """A member that names a path outside is only ever read, never extracted."""
    with zipfile.ZipFile(tmp_path / "scores.npz", "w") as file:
        file.writestr("../../escaped.npy", b"no array")
    with pytest.raises(ValueError, match=r"scores.npz"):
        pinn.SavedScore.load(tmp_path / "scores.npz")
    assert os.listdir(tmp_path) == ["scores.npz"]


def test_the_lock_tells_whether_its_folder_is_still_there(tmp_path):
    (tmp_path / "run").mkdir()
    with _lock.locked(tmp_path / "run") as lock:
        assert lock.is_in_place()
        shutil.rmtree(tmp_path / "run")
        assert not lock.is_in_place()
        (tmp_path / "run").mkdir()
        (tmp_path / "run" / _lock.LOCK).write_text("")
        assert not lock.is_in_place()
