"""``whence explore``: see where a run's answers come from, in the browser."""

from __future__ import annotations

import dataclasses
import time
import webbrowser
from collections.abc import Sequence
from pathlib import Path

import tyro

from whence.explore.answers import Answers
from whence.explore.run_questions import RunQuestions
from whence.explore.server import PORTS, Explorer
from whence.explore.session import Session


@dataclasses.dataclass(frozen=True)
class Options:
    """See where a run's answers come from: click on the solution, and its sources light up."""

    run: tyro.conf.Positional[Path]
    """Run folder, as `whence train` leaves it."""
    port: int = 8888
    """Port on this machine; the next free one is taken if it is busy."""
    browser: bool = True
    """Whether the page is opened; its address is printed."""


def run(options: Options, arguments: Sequence[str]) -> int:
    """Serve the page until Ctrl-C; return the exit code."""
    if not 0 <= options.port < PORTS:
        raise ValueError(f"--port must lie in 0 … 65535, got {options.port}")
    session = Session.of_run(options.run)
    with Explorer(RunQuestions(Answers(session)), options.port) as explorer:
        explorer.start()
        if options.port not in (0, explorer.server_port):
            print(f"port {options.port} is busy, {explorer.server_port} is taken")
        print(f"explorer: {explorer.address}  (Ctrl-C ends it)")
        if options.browser:
            webbrowser.open(explorer.address)
        try:
            while True:
                time.sleep(3600)
        except KeyboardInterrupt:
            print("ended")
    return 0
