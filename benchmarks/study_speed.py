"""What a study costs over its bare runs, and what a second worker gains.

``python -m benchmarks.study_speed``: the same runs one after the other in one process, as a loop
over ``pinn.train`` would make them; by a study with one worker; and with two. Each is timed from
the start of its process to its end. What two cores can give at all is measured beside it: two
processes that know nothing of each other, each with half of the runs.
"""

from __future__ import annotations

import multiprocessing
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks import _measure
from benchmarks._measure import Row
from whence.studies.scheduling import run_study
from whence.studies.study import Study
from whence.studies.study_file import read_study
from whence.studies.work import go_on

STUDY = """
[grid]
problem = ["burgers", "allen_cahn"]
seed = [0, 1, 2, 3]

[methods.influence]
score = "influence"

[train]
schedule = ["adam:{iterations}"]
layers = [2, 20, 20, 20, 1]
points = ["pde=1000"]
resample.every = 500
compile = "no"
"""
ITERATIONS, QUICK = 4000, 20
MAX_OVERHEAD = 0.05
MIN_GAIN = 1.8


def bare(study: Study, folder: Path, first: int = 0, step: int = 1) -> None:
    """Make every so many runs, from the first on, one after the other."""
    for run in study.runs[first::step]:
        go_on(run, folder / run.name)


def by_workers(study: Study, folder: Path, workers: int) -> None:
    """Make the study."""
    run_study(study, folder, workers=workers, progress=False)


def seconds_of(work: Callable[..., None], *calls: tuple[object, ...]) -> float:
    """Return the time of new processes, side by side, each with a call of the work."""
    spawn = multiprocessing.get_context("spawn")
    processes = [spawn.Process(target=work, args=call) for call in calls]

    start = time.perf_counter()
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    seconds = time.perf_counter() - start

    for process in processes:
        if process.exitcode:
            raise RuntimeError(f"the work ended with {process.exitcode}")
    return seconds


def main() -> None:
    """Measure and print."""
    parser = _measure.parser(__doc__)
    parser.add_argument("--iterations", type=int, default=ITERATIONS, help="of a run")
    given = parser.parse_args()

    def measured() -> list[Row]:
        iterations = QUICK if given.quick else given.iterations
        with tempfile.TemporaryDirectory() as parent:
            folder = Path(parent)
            file = folder / "study.toml"
            file.write_text(STUDY.format(iterations=iterations))
            study = read_study(file)
            alone = seconds_of(bare, (study, folder / "bare"))
            halves = [(study, folder / "halves", first, 2) for first in (0, 1)]
            apart = seconds_of(bare, *halves)
            one = seconds_of(by_workers, (study, folder / "one", 1))
            two = seconds_of(by_workers, (study, folder / "two", 2))

        timed = (
            f"bare {alone:.0f} s, bare in two processes {apart:.0f} s, "
            f"one worker {one:.0f} s, two {two:.0f} s"
        )
        detail = f"{len(study.runs)} runs: {timed}"
        return [
            Row("overhead of a study", one / alone - 1, "", detail, most=MAX_OVERHEAD),
            Row("two workers over one", one / two, "×", detail, least=MIN_GAIN),
            Row(
                "two bare processes over one", alone / apart, "×", "what the cores give"
            ),
        ]

    _measure.run(given, measured)


if __name__ == "__main__":
    main()
