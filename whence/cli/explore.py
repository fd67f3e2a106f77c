"""``whence explore``: see where a run's or a model's answers come from, in the browser."""

from __future__ import annotations

import dataclasses
import time
import webbrowser
from collections.abc import Sequence
from pathlib import Path

import tyro

from whence.attribution.influence import Influence
from whence.cli.model_file import ModelFile, read
from whence.explore.answers import Answers
from whence.explore.replies import Questions
from whence.explore.run_questions import RunQuestions
from whence.explore.sample_answers import SampleAnswers
from whence.explore.sample_questions import SampleQuestions
from whence.explore.sample_session import SampleSession
from whence.explore.server import PORTS, Explorer
from whence.explore.session import Session


@dataclasses.dataclass(frozen=True)
class Options:
    """See where answers come from: click on a run's solution, or choose a model's test sample.

    A Python file must name `model`, `data`, `loss` and `test`, see `whence influence --help`; it
    may name `classes` and `features`, lists of names. It is run each time: let it load trained
    weights.
    """

    run: tyro.conf.Positional[Path]
    """Run folder, as `whence train` leaves it, or Python file of a model."""
    port: int = 8888
    """Port on this machine; the next free one is taken if it is busy."""
    browser: bool = True
    """Whether the page is opened; its address is printed."""


def run(options: Options, arguments: Sequence[str]) -> int:
    """Serve the page until Ctrl-C; return the exit code."""
    if not 0 <= options.port < PORTS:
        raise ValueError(f"--port must lie in 0 … 65535, got {options.port}")
    with Explorer(questions_of(options.run), options.port) as explorer:
        explorer.start()
        # An interrupt may come as soon as the page can be asked.
        try:
            if options.port not in (0, explorer.server_port):
                print(f"port {options.port} is busy, {explorer.server_port} is taken")
            print(f"explorer: {explorer.address}  (Ctrl-C ends it)")
            if options.browser:
                webbrowser.open(explorer.address)
            while True:
                time.sleep(3600)
        except KeyboardInterrupt:
            print("ended")
    return 0


def questions_of(path: Path) -> Questions:
    """Return what can be asked of what is at a path: a run, or a model's file."""
    if path.suffix == ".py":
        return SampleQuestions(answers_of(read(path)))
    return RunQuestions(Answers(Session.of_run(path)))


def answers_of(file: ModelFile) -> SampleAnswers:
    """Return what a model's file has to say of its test data."""
    session = SampleSession(
        Influence(file.objective),
        file.test(),
        classes=file.list_of_names("classes"),
        features=file.list_of_names("features"),
    )
    return SampleAnswers(session, file.path.stem)
