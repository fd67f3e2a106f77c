"""Studies by workers: really trained, killed, gone on with, and failed."""

import json
import os
import signal
import subprocess
import sys
import threading
import time

import psutil
import pytest
import torch
from small_study import TEXT

from whence import pinn
from whence.cli import main
from whence.studies.folder import StudyFolder
from whence.studies.scheduling import run_study
from whence.studies.study import Study
from whence.studies.study_file import read_study
from whence.studies.work import OtherVersion, train_run

pytest.importorskip("distributed")


def theta(folder, name):
    result = pinn.load_run(folder / "runs" / name)
    return result.objective.parameters.vector()


@pytest.fixture(scope="module")
def scheduler(forked_workers):
    """The address of a scheduler that has a worker: processes of its own, reached over TCP."""
    from distributed import LocalCluster

    cluster = LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None)
    with cluster:
        yield cluster.scheduler_address


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, scheduler):
    """A study by a worker elsewhere, and what came of it."""
    folder = tmp_path_factory.mktemp("undisturbed")
    file = folder / "small.toml"
    file.write_text(TEXT)
    study = read_study(file)
    outcomes = run_study(study, folder / "out", scheduler=scheduler, progress=False)
    return study, folder / "out", outcomes


def one_of_each(study):
    """A study of the same runs but fewer: each problem and each method once."""
    return Study((study.runs[0], study.runs[-1]))


def test_all_runs_are_trained(undisturbed):
    study, out, outcomes = undisturbed
    assert [outcome.error for outcome in outcomes] == [""] * len(study.runs)
    folder = StudyFolder.at(out)
    assert set(folder.states().values()) == {"finished"}
    assert folder.remaining(study) == []
    assert folder.share(study.runs[0]) == 1.0
    assert folder.study() == study

    # By processes of their own that are reached over TCP alone, as `whence train` trains it.
    run = study.runs[0]
    alone = out.parent / "alone"
    assert main(["train", *run.arguments, "--out", str(alone), "--quiet"]) == 0
    expected = pinn.load_run(alone).objective.parameters.vector()
    assert torch.equal(theta(out, run.name), expected)


def test_finished_runs_are_not_repeated(undisturbed):
    study, out, _ = undisturbed
    times = {file: file.stat().st_mtime_ns for file in (out / "runs").rglob("*")}
    lines = []
    assert run_study(study, out, workers=1, progress=False, say=lines.append) == []
    assert lines == ["8 of 8 runs are finished already"]
    assert times == {
        file: file.stat().st_mtime_ns for file in (out / "runs").rglob("*")
    }


def test_more_runs_may_come(undisturbed, tmp_path):
    study, out, _ = undisturbed
    file = tmp_path / "more.toml"
    file.write_text(TEXT.replace('["diffusion", "wave"]', '["diffusion"]'))
    with pytest.raises(
        FileExistsError, match="another study: its run wave-influence-0"
    ):
        run_study(read_study(file), out, workers=1, progress=False)

    file.write_text(TEXT.replace("adam:60", "adam:61"))
    with pytest.raises(FileExistsError, match="the arguments of diffusion-influence-0"):
        run_study(read_study(file), out, workers=1, progress=False)

    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="holds no study"):
        run_study(study, tmp_path / "full", workers=1, progress=False)
    assert os.listdir(tmp_path / "full") == ["notes.txt"]


def test_a_run_that_fails_stops_no_other(scheduler, tmp_path):
    (tmp_path / "rod.py").write_text(
        "import pathlib\n"
        "from whence import pinn\n"
        "def pde(u_xx):\n"
        "    if pathlib.Path(__file__).with_name('broken').exists():\n"
        "        raise RuntimeError('out of order')\n"
        "    return u_xx + 1\n"
        "problem = pinn.Problem(domain=pinn.Interval('x', 0, 1), outputs=['u'],\n"
        "    equations={'pde': pde}, conditions=[pinn.Dirichlet(u=0.0, on='x')])\n"
        "network = lambda seed: pinn.MLP([1, 5, 1], seed=seed)\n"
    )
    file = tmp_path / "study.toml"
    file.write_text(
        '[grid]\nproblem = ["rod.py", "diffusion"]\n'
        '[train]\nschedule = ["adam:20"]\npoints = ["pde=20"]\ncompile = "no"\n'
    )
    study = read_study(file)
    (tmp_path / "broken").touch()
    out = tmp_path / "out"
    ended = run_study(study, out, scheduler=scheduler, progress=False)
    outcomes = {outcome.name: outcome.error for outcome in ended}
    assert "out of order" in outcomes["rod-0"]
    assert outcomes["diffusion-0"] == ""

    folder = StudyFolder.at(out)
    assert folder.states() == {"rod-0": "failed", "diffusion-0": "finished"}
    assert "out of order" in folder.failure(study.runs[0])
    assert main(["study", "--status", str(out)]) == 2

    # Once mended it is tried again.
    (tmp_path / "broken").unlink()
    run_study(study, out, scheduler=scheduler, progress=False)
    assert folder.states()["rod-0"] == "finished"
    assert folder.failure(study.runs[0]) == ""
    assert main(["study", "--status", str(out)]) == 0


def workers_of(pid):
    """Processes of workers; what workers are forked of has but the processes for children."""
    children = psutil.Process(pid).children(recursive=True)
    server = "multiprocessing.forkserver"
    workers = []
    for child in children:
        command = " ".join(child.cmdline())
        is_forked = server in command and server in " ".join(child.parent().cmdline())
        if "spawn_main" in command or is_forked:
            workers.append(child)
    return workers


def test_a_worker_that_is_killed_is_replaced(undisturbed, tmp_path):
    whole, expected, _ = undisturbed
    study = one_of_each(whole)
    out = tmp_path / "out"
    killed = []
    others = workers_of(os.getpid())

    def kill():
        # Once the first run has begun.
        while not any(out.glob("runs/*/checkpoint.safetensors")):
            time.sleep(0.01)
        for worker in set(workers_of(os.getpid())) - set(others):
            worker.kill()
            killed.append(worker.pid)

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    run_study(study, out, workers=1, progress=False)
    killer.join(timeout=10)
    assert killed
    for run in study.runs:
        assert torch.equal(theta(out, run.name), theta(expected, run.name))


def test_a_command_that_is_killed_leaves_a_study_to_go_on_with(
    undisturbed, scheduler, tmp_path
):
    _, expected, _ = undisturbed
    file = tmp_path / "small.toml"
    file.write_text(TEXT.replace("[0, 1]", "[0]"))
    study = read_study(file)
    out = tmp_path / "out"
    command = [sys.executable, "-m", "whence.cli", "study", str(file)]
    options = ["--out", str(out), "--workers", "1", "--quiet"]
    with subprocess.Popen([*command, *options], stdout=subprocess.DEVNULL) as process:
        while not any(out.glob("runs/*/checkpoint.safetensors")):
            assert process.poll() is None
            time.sleep(0.01)
        workers = workers_of(process.pid)
        os.kill(process.pid, signal.SIGKILL)
    assert workers
    # They do not outlive it.
    _, alive = psutil.wait_procs(workers, timeout=20)
    assert not alive

    folder = StudyFolder.at(out)
    assert folder.remaining(study)
    run_study(study, out, scheduler=scheduler, progress=False)
    for run in study.runs:
        assert torch.equal(theta(out, run.name), theta(expected, run.name))


def test_a_scheduler_that_does_not_answer(undisturbed, tmp_path, monkeypatch):
    study, _, _ = undisturbed
    monkeypatch.setattr("whence.workers.CONNECT_SECONDS", 1)
    with pytest.raises(
        OSError, match=r"no dask scheduler answers at tcp://127.0.0.1:1 "
    ):
        run_study(study, tmp_path / "out", scheduler="tcp://127.0.0.1:1")
    with pytest.raises(ValueError, match="leave out workers or scheduler"):
        run_study(study, tmp_path / "out", scheduler="tcp://127.0.0.1:1", workers=2)
    with pytest.raises(ValueError, match="workers"):
        run_study(study, tmp_path / "out", workers=0)


def test_workers_of_another_version_are_refused(undisturbed, tmp_path):
    study, _, _ = undisturbed
    with pytest.raises(OtherVersion, match=r"started with 9\.9\.9"):
        train_run(study.runs[0], tmp_path / "run", "9.9.9")
    assert not (tmp_path / "run").exists()


def test_the_command(undisturbed, study_file, capsys):
    _, out, _ = undisturbed
    assert main(["study", str(study_file), "--out", str(out), "--quiet"]) == 0
    told = capsys.readouterr().out
    assert "8 of 8 runs are finished already" in told
    assert f"next: whence table {out}" in told

    assert (
        main(["study", str(study_file), "--out", str(out), "--dry-run", "--quiet"]) == 0
    )
    told = capsys.readouterr().out
    assert "diffusion-influence-0: whence train diffusion" in told
    assert "8 runs, 8 of them finished" in told

    assert main(["study"]) == 2
    assert main(["study", "--status", str(out.parent)]) == 2
    assert "holds no study" in capsys.readouterr().err


def test_a_plan_says_about_how_long_it_takes(study_file, tmp_path, capsys):
    text = study_file.read_text().replace("[0, 1]", "[0]").replace(', "wave"', "")
    study_file.write_text(text)
    out = tmp_path / "out"
    assert (
        main(["study", str(study_file), "--out", str(out), "--dry-run", "--quiet"]) == 0
    )
    assert (
        "2 runs, 0 of them finished; the others take about" in capsys.readouterr().out
    )
    assert not out.exists()


def test_a_damaged_study_is_named(undisturbed, tmp_path):
    (tmp_path / "study.json").write_text(json.dumps({"format": 1}))
    with pytest.raises(ValueError, match="damaged"):
        StudyFolder.at(tmp_path).study()
    (tmp_path / "study.json").write_text(json.dumps({"format": 2, "runs": []}))
    with pytest.raises(ValueError, match="format 2"):
        StudyFolder.at(tmp_path).study()


def test_a_run_that_cannot_be_written_stops_no_other(undisturbed, scheduler, tmp_path):
    study, _, _ = undisturbed
    few = Study(study.runs[:2])
    out = tmp_path / "out"
    StudyFolder.at(out).begin(few)
    # A file where a folder should be.
    in_the_way = out / "runs" / few.runs[0].name
    in_the_way.write_text("mine")

    outcomes = run_study(few, out, scheduler=scheduler, progress=False)
    assert {outcome.name: bool(outcome.error) for outcome in outcomes} == {
        few.runs[0].name: True,
        few.runs[1].name: False,
    }
    assert in_the_way.read_text() == "mine"
    assert StudyFolder.at(out).states()[few.runs[0].name] == "failed"


def test_a_folder_that_cannot_be_written_is_an_error_before_any_run(
    undisturbed, tmp_path
):
    study, _, _ = undisturbed
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OSError, match="file"):
        run_study(study, tmp_path / "file" / "out", workers=1, progress=False)


def test_without_dask_one_line_says_what_to_install(
    study_file, tmp_path, capsys, monkeypatch
):
    monkeypatch.setitem(sys.modules, "distributed", None)
    out = tmp_path / "out"
    assert main(["study", str(study_file), "--out", str(out)]) == 2
    assert 'pip install "whence[study]"' in capsys.readouterr().err
    assert not out.exists()
