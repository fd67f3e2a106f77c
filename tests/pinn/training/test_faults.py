"""Kills and interrupts of real processes: what they leave resumes to the same bits."""

import contextlib
import dataclasses
import itertools
import os
import random
import shutil
import signal
import stat
import sys
import threading
import time
import traceback

import pytest
import torch
from matplotlib.figure import Figure
from trainings import assert_same_run, attribution, go, scores, small

from whence import _netcdf, cli, pinn, plots
from whence._interrupts import Interrupts
from whence.pinn.training import loop
from whence.pinn.training.run_folder import RunFolder

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="children are forked")
EVERY = [pinn.Adam(30), pinn.LBFGS(30), pinn.GaussNewton(15)]


def forked(work):
    """Do some work in another process, which is spared the imports; return its number."""
    # A Ctrl-C that comes before the work, which a large process takes a while to reach, waits.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    pid = os.fork()
    if pid:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        return pid
    code = 1
    try:
        if not interrupted_before(mask):
            work()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def interrupted_before(mask):
    """Let signals through again; return whether Ctrl-C has come meanwhile."""
    try:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    except KeyboardInterrupt:
        return True
    return False


def ended(pid):
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def killed_after(seconds, work):
    """Do some work in another process and kill that; return whether it was done before."""
    pid = forked(work)
    time.sleep(seconds)
    os.kill(pid, signal.SIGKILL)
    code = ended(pid)
    assert code in (0, -signal.SIGKILL)
    return code == 0


@pytest.fixture(name="often", autouse=True)
def _often(monkeypatch):
    """Checkpoints after every few steps."""
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr(pinn.Adam, "chunk", 5)
    monkeypatch.setattr(pinn.LBFGS, "chunk", 5)


@pytest.fixture(name="whole", scope="module")
def _whole(tmp_path_factory):
    """The undisturbed run, and how long it takes."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(pinn.Adam, "chunk", 5)
        patched.setattr(pinn.LBFGS, "chunk", 5)
        go(schedule=EVERY)  # the first time in a process is slower
        begun = time.perf_counter()
        go(folder, schedule=EVERY)
    return folder, time.perf_counter() - begun


def go_on(folder):
    """Start a run, or go on with what is there."""
    go(folder, schedule=EVERY, resume=RunFolder(folder).exists())


def temporaries(folder):
    return [path.name for path in folder.rglob(".*.tmp")]


def test_kills_at_random_moments_leave_no_trace(tmp_path, whole):
    """Twenty kills in all: run after run, each killed again and again until it is done."""
    expected, seconds = whole
    draw, kills = random.Random(0), 0
    for number in itertools.count():
        folder = tmp_path / str(number)
        while not killed_after(
            draw.uniform(0, 0.5 * seconds), lambda at=folder: go_on(at)
        ):
            kills += 1
        assert_same_run(expected, folder)
        assert temporaries(folder) == []
        if kills >= 20:
            break


def dying(event):
    """Kill this process at one moment of writing.

    A file half written, whole, just renamed, or renamed and its folder about to go to the disk.
    """
    count, fsync, replace = itertools.count(), os.fsync, os.replace

    def die_at(number):
        if number == event:
            os.kill(os.getpid(), signal.SIGKILL)

    def dying_fsync(descriptor):
        number = next(count)
        is_file = stat.S_ISREG(os.fstat(descriptor).st_mode)
        if number == event and is_file:
            os.ftruncate(descriptor, os.fstat(descriptor).st_size // 2)
        die_at(number)
        fsync(descriptor)

    def dying_replace(source, target):
        die_at(next(count))
        replace(source, target)
        die_at(next(count))

    os.fsync, os.replace = dying_fsync, dying_replace


def killed_in_writing(event, work):
    """Do some work in a process that dies at one moment of writing; return whether it did."""

    def doomed():
        dying(event)
        work()

    code = ended(forked(doomed))
    assert code in (0, -signal.SIGKILL)
    return code != 0


def test_a_kill_at_every_moment_of_writing_leaves_no_trace(tmp_path):
    """From the configuration over two saves to the summary: eleven files, four moments each."""
    options = {"schedule": [pinn.GaussNewton(2)]}
    go(tmp_path / "whole", **options)
    for event in itertools.count():
        folder = tmp_path / str(event)
        if not killed_in_writing(event, lambda at=folder: go(at, **options)):
            break
        go(folder, resume=RunFolder(folder).exists(), **options)
        assert_same_run(tmp_path / "whole", folder)
        assert temporaries(folder) == []
    assert event == 44


def test_a_kill_while_going_on_leaves_no_trace(tmp_path):
    """The files that a resumed run replaces are those it would need again."""
    options = {"schedule": [pinn.Adam(5), pinn.LBFGS(5)]}
    go(tmp_path / "whole", **options)
    go(tmp_path / "half", max_seconds=1e-6, **options)
    for event in itertools.count():
        folder = shutil.copytree(tmp_path / "half", tmp_path / str(event))
        if not killed_in_writing(
            event, lambda at=folder: go(at, resume=True, **options)
        ):
            break
        go(folder, resume=True, **options)
        assert_same_run(tmp_path / "whole", folder)
    assert event == 24


WRITERS = {
    "scores.npz": lambda path, k: scores(k).save(path),
    "influence.nc": lambda path, k: _netcdf.write_netcdf(attribution(1.0 + k), path),
    "curve.png": lambda path, k: plots.save(curve(k), path),
}


def curve(k):
    """A figure that is drawn in no time."""
    figure = Figure(figsize=(1, 1))
    figure.text(0.5, 0.5, str(k))
    return figure


@pytest.mark.parametrize("name", WRITERS)
def test_a_kill_leaves_scores_attributions_and_figures_old_or_new(tmp_path, name):
    write, path, moments = (
        WRITERS[name],
        tmp_path / name,
        4 * (1 + (name == "curve.png")),
    )
    write(path, 1)
    new = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    write(path, 0)
    old = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    found = set()
    for event in itertools.count():
        for file, content in old.items():
            (tmp_path / file).write_bytes(content)
        if not killed_in_writing(event, lambda: write(path, 1)):
            break
        for file in old:
            left = (tmp_path / file).read_bytes()
            assert left in (old[file], new[file]), (event, file)
            found.add("old" if left == old[file] else "new")
    assert event == moments
    assert found == {"old", "new"}


def test_kills_of_the_commands_leave_whole_files(tmp_path, capfd):
    """``whence score`` and ``whence plot`` at random moments, from their start to their end."""
    run, figures = tmp_path / "run", tmp_path / "figures"
    tiny = [
        "--points",
        "pde=30",
        "--schedule",
        "gauss_newton:2",
        "--resampler",
        "none",
        "--quiet",
    ]
    assert cli.main(["train", "diffusion", "--out", str(run), *tiny]) == 0
    given = ["score", str(run), "--influence.n-test", "20", "--candidates"]
    commands = [[*given, "3000"], ["plot", str(run), "--out", str(figures)]]
    files = {}
    for sizes in ("200", "3000"):
        assert cli.main([*given, sizes]) == 0
        files[sizes] = (run / "scores.npz").read_bytes()
    begun = time.perf_counter()
    assert cli.main(commands[1]) == 0
    seconds, drawn = time.perf_counter() - begun, sorted(figures.iterdir())
    files |= {path.name: path.read_bytes() for path in drawn}
    draw = random.Random(2)
    for turn in range(8):
        (run / "scores.npz").write_bytes(files["200"])
        longest = seconds if turn % 2 else 0.2
        killed_after(draw.uniform(0, longest), lambda t=turn: cli.main(commands[t % 2]))
        assert (run / "scores.npz").read_bytes() in (files["200"], files["3000"])
        assert {path.name: path.read_bytes() for path in drawn}.items() <= files.items()


# Ctrl-C


def wide(layers=4, width=256):
    """A network and a resampling round of which each step takes long."""
    return dataclasses.replace(
        small(),
        architecture=lambda seed: pinn.MLP([2, *[width] * layers, 1], seed=seed),
    )


SLOW = {
    "compile": False,
    "schedule": [pinn.Adam(10_000), pinn.LBFGS(10_000)],
    "points": 2000,
    "validation": 2000,
    "keep": "best",
}
SLOW_CASES = {
    "adam": {**SLOW, "schedule": [pinn.Adam(10_000)], "resample": None},
    "lbfgs": {
        **SLOW,
        "schedule": [pinn.LBFGS(10_000)],
        "resample": None,
        "keep": "last",
    },
    "gauss_newton": {
        **SLOW,
        "points": 600,
        "schedule": [pinn.GaussNewton(10_000)],
        "resample": None,
    },
    "resampling": {
        **SLOW,
        "points": 100,
        "schedule": [pinn.GaussNewton(10_000)],
        "resample": pinn.Resample(
            pinn.InfluenceScore(n_test=1000), n=3, every=1, candidates=1_000_000
        ),
    },
}


def interrupted_after(seconds, work, ready):
    """Do some work in another process, press Ctrl-C; return how long it took to end."""
    pid = forked(work)
    deadline = time.monotonic() + 60
    while not ready() and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(seconds)
    os.kill(pid, signal.SIGINT)
    begun = time.perf_counter()
    assert ended(pid) == 0
    return time.perf_counter() - begun


@pytest.mark.parametrize("case", SLOW_CASES)
def test_ctrl_c_ends_slow_work_within_a_second(tmp_path, capfd, case):
    """On an idle machine; busy ones get three."""
    draw, folder, latencies = random.Random(case), tmp_path / "run", []

    def work(resume):
        result = go(folder, wide(), resume=resume, **SLOW_CASES[case])
        assert result.summary["stopped_by"] == "interrupted"
        held = RunFolder(folder).checkpoint()
        assert result.summary["iterations"] == held.numbers["place"]["iteration"]
        if SLOW_CASES[case]["keep"] == "last":
            assert torch.equal(
                result.objective.parameters.vector(), held.tensors["last"]
            )

    for turn in range(2):
        ready = (folder / "config.json").exists if turn == 0 else lambda: True
        seconds = draw.uniform(0.2, 1.5)
        latencies.append(interrupted_after(seconds, lambda t=turn: work(t > 0), ready))
    assert max(latencies) < 3, latencies
    assert f"{folder} is saved up to iteration" in capfd.readouterr().err
    assert temporaries(folder) == []
    assert RunFolder(folder).checkpoint().numbers["place"]["failure"] is None


def finished(folder):
    path = folder / "summary.json"
    return path.exists() and RunFolder(folder).summary()["finished"]


def test_interrupts_at_random_moments_leave_no_trace(tmp_path, whole):
    expected, seconds = whole
    draw, folder, interrupts = random.Random(1), tmp_path / "run", 0

    def work():
        with contextlib.suppress(
            KeyboardInterrupt
        ):  # it comes before training at times
            go_on(folder)

    while not finished(folder):
        ready = (folder / "config.json").exists
        interrupted_after(draw.uniform(0, 0.3 * seconds), work, ready)
        interrupts += 1
    assert interrupts > 2
    assert_same_run(expected, folder)


def test_interrupts_are_one_exception_in_work_and_none_elsewhere():
    steps = []

    def work():
        os.kill(os.getpid(), signal.SIGINT)
        steps.append("reached, as this calls nothing of whence")
        small()
        steps.append("not reached")

    before = signal.getsignal(signal.SIGINT)
    with Interrupts() as interrupts:
        assert interrupts.completes(small)
        assert not interrupts.completes(work)
        assert interrupts.hit
        assert sys.getprofile() is None
        os.kill(os.getpid(), signal.SIGINT)  # outside of work: nothing
        assert not interrupts.completes(lambda: steps.append("not even begun"))
    assert steps == ["reached, as this calls nothing of whence"]
    assert signal.getsignal(signal.SIGINT) == before


def test_a_second_ctrl_c_breaks_work_that_does_not_react():
    def deaf():
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.01)

    with Interrupts() as interrupts, pytest.raises(KeyboardInterrupt):
        interrupts.completes(deaf)
    assert sys.getprofile() is None


def test_training_outside_the_main_thread_leaves_signals_alone():
    before, results = signal.getsignal(signal.SIGINT), []
    thread = threading.Thread(
        target=lambda: results.append(go(schedule=[pinn.Adam(2)]))
    )
    thread.start()
    thread.join()
    assert results[0].summary["finished"]
    assert signal.getsignal(signal.SIGINT) == before


def test_an_interrupt_leaves_torch_as_it_was():
    """Raised in the midst of a resampling round, with its modes and contexts entered."""
    problem, state = small(), []

    def work():
        objective = problem.objective(
            problem.network(seed=0), problem.sample(50, seed=0)
        )
        timer = threading.Timer(0.05, lambda: os.kill(os.getpid(), signal.SIGINT))
        timer.start()
        with torch.no_grad():
            while True:
                pinn.InfluenceScore(n_test=30).score(
                    objective, problem.draw("pde", 500, seed=1)
                )

    for _ in range(10):
        with Interrupts() as interrupts:
            assert not interrupts.completes(work)
        state.append((torch.is_grad_enabled(), torch._C._len_torch_function_stack()))
    assert set(state) == {(True, 0)}
