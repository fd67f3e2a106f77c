"""A study whose workers, scheduler and command are killed at random ends as one left alone.

``python -m benchmarks.study_kills --kills 30``: a small study is made by two workers of a
scheduler, all separate processes over TCP on this machine. Then it is made again while processes
are killed (SIGKILL) at random moments, and started again: workers, the scheduler, the command.
Networks, points and histories (but for times) of both must be equal to the bit.
"""

from __future__ import annotations

import random
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import torch

from benchmarks import _measure
from benchmarks._measure import Row
from whence import pinn
from whence.pinn.training.history import History

STUDY = """
[grid]
problem = ["diffusion", "wave", "burgers"]
seed = [0, 1]

[methods.influence]
score = "influence"

[methods.random]
score = "random"

[train]
schedule = ["adam:1500"]
points = ["pde=200"]
resample.every = 100
resample.n = 5
"""
WORKERS = 2
SECONDS_BETWEEN = (1.0, 6.0)
"""Least and most time between two kills."""
CLOCKS = ("seconds",)
"""Columns of a history that two runs never share."""
GRACE = 20.0
"""Time without any worker after which all are started again."""
PATIENCE = 900


class Cluster:
    """A scheduler and a process that keeps its workers, which are started again where killed."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        self.address = f"tcp://127.0.0.1:{self._port}"
        self._log = (folder / "cluster.log").open("ab")
        self._scheduler: subprocess.Popen[bytes] | None = None
        self._workers: subprocess.Popen[bytes] | None = None
        self._seen = 0.0

    def keep_up(self) -> None:
        """Start what does not run."""
        dask = [sys.executable, "-m", "dask"]
        if self._scheduler is None or self._scheduler.poll() is not None:
            options = ["--host", "127.0.0.1", "--port", str(self._port)]
            self._scheduler = self._start(
                [*dask, "scheduler", *options, "--no-dashboard"]
            )
        if self._workers is not None and not self._has_workers():
            # Their keeper may have lost a worker and the scheduler at once, and wait for ever.
            end_tree(self._workers.pid)
            self._workers.wait()
        if self._workers is None or self._workers.poll() is not None:
            self._seen = time.monotonic()
            options = ["--nthreads", "1", "--nworkers", str(WORKERS), "--no-dashboard"]
            self._workers = self._start([*dask, "worker", self.address, *options])

    def _has_workers(self) -> bool:
        """Whether there are workers, or were a moment ago."""
        if self._worker_processes():
            self._seen = time.monotonic()
        return time.monotonic() - self._seen < GRACE

    def _worker_processes(self) -> list[psutil.Process]:
        assert self._workers is not None
        try:
            children = psutil.Process(self._workers.pid).children(recursive=True)
            return [c for c in children if "spawn_main" in " ".join(c.cmdline())]
        except psutil.NoSuchProcess:
            return []

    def _start(self, command: list[str]) -> subprocess.Popen[bytes]:
        return subprocess.Popen(command, stdout=self._log, stderr=self._log)

    def scheduler(self) -> psutil.Process:
        """Return the scheduler's process."""
        assert self._scheduler is not None
        return psutil.Process(self._scheduler.pid)

    def worker(self, generator: random.Random) -> psutil.Process | None:
        """Return a worker's process, chosen at random."""
        processes = self._worker_processes()
        return generator.choice(processes) if processes else None

    def close(self) -> None:
        """End everything."""
        for process in (self._workers, self._scheduler):
            if process is not None:
                end_tree(process.pid)
        self._log.close()


def end_tree(pid: int) -> None:
    """Kill a process and its children."""
    try:
        process = psutil.Process(pid)
        tree = [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return
    for member in tree:
        try:
            member.kill()
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(tree)


def start_study(
    file: Path, out: Path, address: str, log: Path
) -> subprocess.Popen[bytes]:
    """Start the command."""
    command = [sys.executable, "-m", "whence.cli", "study", str(file)]
    options = ["--out", str(out), "--scheduler", address, "--quiet"]
    with log.open("ab") as stream:
        return subprocess.Popen([*command, *options], stdout=stream, stderr=stream)


def made(file: Path, out: Path, folder: Path, kills: int, seed: int) -> dict[str, int]:
    """Make a study, killing processes meanwhile; return how many of which kind were killed."""
    generator = random.Random(seed)
    counts = {"worker": 0, "scheduler": 0, "command": 0}
    cluster = Cluster(folder)
    command: subprocess.Popen[bytes] | None = None
    log = folder / "study.log"
    begun = time.monotonic()
    try:
        while True:
            cluster.keep_up()
            if command is None or command.poll() not in (None, 0):
                # It ends by itself where the scheduler was lost, too.
                command = start_study(file, out, cluster.address, log)
            left = kills - sum(counts.values())
            pause = generator.uniform(*SECONDS_BETWEEN) if left else 1.0
            try:
                command.wait(timeout=pause)
            except subprocess.TimeoutExpired:
                if left:
                    kill_any(cluster, command, generator, counts)
            if command.poll() == 0:
                return counts
            if time.monotonic() - begun > PATIENCE:
                raise TimeoutError(f"the study did not end: {log}")
    finally:
        if command is not None:
            end_tree(command.pid)
        cluster.close()


def kill_any(
    cluster: Cluster,
    command: subprocess.Popen[bytes],
    generator: random.Random,
    counts: dict[str, int],
) -> None:
    """Kill a worker, the scheduler or the command."""
    kind = generator.choice(list(counts))
    victim: psutil.Process | None
    if kind == "worker":
        victim = cluster.worker(generator)
    elif kind == "scheduler":
        victim = cluster.scheduler()
    else:
        victim = psutil.Process(command.pid)
    if victim is None:
        return
    victim.kill()
    if kind == "command":
        command.wait()
    counts[kind] += 1


def differences(one: Path, other: Path) -> list[str]:
    """Return the runs whose networks, points or histories are not equal to the bit."""
    names = sorted(path.name for path in (one / "runs").iterdir())
    others = sorted(path.name for path in (other / "runs").iterdir())
    if names != others:
        return [f"{len(names)} and {len(others)} runs"]
    return [
        name
        for name in names
        if not is_equal(
            pinn.load_run(one / "runs" / name), pinn.load_run(other / "runs" / name)
        )
    ]


def is_equal(one: pinn.Result, other: pinn.Result) -> bool:
    """Whether two runs have the same network, points and history."""
    theta, other_theta = (
        result.objective.parameters.vector() for result in (one, other)
    )
    same_points = all(
        torch.equal(term.points, other.objective.terms[name].points)
        for name, term in one.objective.terms.items()
    )
    same_history = without_clocks(one.history) == without_clocks(other.history)
    return torch.equal(theta, other_theta) and same_points and same_history


def without_clocks(history: History) -> list[dict[str, str]]:
    """Return the rows of a history without times, as text, in which NaN equals itself."""
    return [
        {name: repr(value) for name, value in row.items() if name not in CLOCKS}
        for row in history
    ]


def main() -> None:
    """Measure and print."""
    parser = _measure.parser(__doc__)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()

    def measured() -> list[Row]:
        folder = Path(tempfile.mkdtemp(prefix="whence-kills-"))
        file = folder / "study.toml"
        file.write_text(STUDY)
        start = time.perf_counter()
        made(file, folder / "undisturbed", folder, 0, given.seed)
        calm = time.perf_counter() - start
        start = time.perf_counter()
        counts = made(file, folder / "killed", folder, given.kills, given.seed)
        seconds = time.perf_counter() - start

        unequal = differences(folder / "undisturbed", folder / "killed")
        told = ", ".join(f"{n} × {kind}" for kind, n in counts.items())
        detail = f"killed: {told}; {seconds:.0f} s, undisturbed {calm:.0f} s; unequal: {unequal}"
        shutil.rmtree(folder)
        n_kills = sum(counts.values())
        return [
            Row("kills", n_kills, "", detail, least=float(given.kills)),
            Row("runs that differ", len(unequal), "", detail, most=0.0),
        ]

    _measure.run(given, measured)


if __name__ == "__main__":
    main()
