"""``whence explore``: see where the answers of a run or a model come from, in the browser."""

from __future__ import annotations

import dataclasses
import time
import webbrowser
from collections.abc import Sequence
from pathlib import Path

import tyro

from whence._netcdf import read_netcdf
from whence.attribution.influence import Influence
from whence.attribution.result import Attribution
from whence.attribution.storage import read_zarr
from whence.cli.model_file import ModelFile, read
from whence.cli.report import check_number
from whence.explore.answers import Answers
from whence.explore.replies import Questions
from whence.explore.run_questions import RunQuestions
from whence.explore.sample_answers import SampleAnswers
from whence.explore.sample_questions import SampleQuestions
from whence.explore.sample_session import SampleSession
from whence.explore.server import PORTS, Explorer
from whence.explore.session import Session
from whence.explore.stored import StoredAnswers
from whence.explore.stored_questions import StoredQuestions


@dataclasses.dataclass(frozen=True)
class Options:
    """See where answers come from: click on a run's solution, or choose a model's test sample.

    A Python file must name `model`, `data`, `loss` and `test`, see `whence influence --help`; it
    may name `classes` and `features`, lists of names. It is run each time: let it load trained
    weights.
    """

    what: tyro.conf.Positional[tuple[Path, ...]]
    """Run folder, as `whence train` leaves it, or two to be compared; or the Python file of a
    model; or an attribution (influence.nc, or a zarr folder)."""
    port: int = 8888
    """Port on this machine; the next free one is taken if it is busy."""
    browser: bool = True
    """Whether the page is opened; its address is printed."""


def run(options: Options, arguments: Sequence[str]) -> int:
    """Serve the page until Ctrl-C; return the exit code."""
    if not 0 <= options.port < PORTS:
        raise ValueError(f"--port must lie in 0 … 65535, got {options.port}")
    check_number("whence explore", options.what)
    with Explorer(questions_of(options.what), options.port) as explorer:
        explorer.start()
        # An interrupt may come as soon as the page can be asked.
        try:
            if options.port not in (0, explorer.server_port):
                print(f"port {options.port} is busy, {explorer.server_port} is taken")
            print(f"explorer: {explorer.address}  (Ctrl-C ends it)", flush=True)
            if options.browser:
                webbrowser.open(explorer.address)
            while True:
                time.sleep(3600)
        except KeyboardInterrupt:
            print("ended")
    return 0


def questions_of(paths: Sequence[Path]) -> Questions:
    """Return what can be asked of what is at some paths: runs, a model's file, an attribution."""
    first = paths[0]
    if len(paths) == 1:
        if first.suffix == ".py":
            return SampleQuestions(answers_of(read(first)))
        stored = attribution_at(first)
        if stored is not None:
            return StoredQuestions(StoredAnswers(stored, first.name))
    return RunQuestions(*(Answers(Session.of_run(path)) for path in paths))


def answers_of(file: ModelFile) -> SampleAnswers:
    """Return what a model's file has to say of its test data."""
    session = SampleSession(
        Influence(file.objective),
        file.test(),
        classes=file.list_of_names("classes"),
        features=file.list_of_names("features"),
    )
    return SampleAnswers(session, file.path.stem)


def attribution_at(path: Path) -> Attribution | None:
    """Return the attribution that a path is, None if it is none."""
    if path.suffix == ".nc":
        return Attribution(read_netcdf(path))
    if not (path / "zarr.json").is_file():
        return None
    return read_zarr(path)
