"""The command line: a module for each command, imported when it is asked for.

Each has ``Options``, a dataclass whose fields are the command's flags, and
``run(options, arguments)``, which returns the exit code.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from typing import Any, TextIO

import tyro

from whence import __version__
from whence._names import one_of
from whence.cli.environment import let_threads_sleep
from whence.cli.parsing import parsed

COMMANDS = {
    "train": "Train a network on a problem, resampling its points, and leave a run folder.",
    "influence": "Say what every training point does to an answer of a run or of your own model.",
    "audit": "Rank the training samples of your own model by how wrong they look.",
    "index": "Keep projected gradients of your own model's training points, for quick questions.",
    "query": "Say which training points an answer comes from, by an index, in milliseconds.",
    "indicators": "Measure where a run's answers come from, beside what geometry alone would give.",
    "study": "Train a grid of runs on many workers, go on with one, or say how far it is.",
    "score": "Score candidate points for a run's network, and save the scores for later training.",
    "plot": "Draw a run or a study: errors, convergence, where points went.",
    "table": "Compare the methods of a study: statistics over seeds, ranks, significance.",
    "explore": "See where answers come from, in the browser.",
    "report": "Write what the explorer shows of a run as one HTML file.",
    "diagnose": "Say what looks wrong with a run, where to look, and what to try next.",
    "check": "Verify that the files of a run are whole.",
    "problems": "List the benchmark problems, or describe one.",
    "catalogue": "List everything that has a name: scores, optimizers, solvers, methods, …",
}
DESCRIPTION = """Which training points do a network's answers come from?

Start with: whence train burgers, then whence influence RUN, then whence plot RUN."""
EXIT_ERROR = 2
EXIT_INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code (2 for an error, 130 for an interrupt)."""
    let_threads_sleep()
    words = list(sys.argv[1:] if arguments is None else arguments)
    with printing_what_can_be():
        return run_command(words)


def run_command(words: Sequence[str]) -> int:
    """Run the command that these words name; return the exit code."""
    try:
        if words == ["--version"]:
            print(f"whence {__version__}")
            return 0
        if not words or words[0].startswith("-"):
            show_overview(words)

        name, *rest = words
        one_of("command", name, COMMANDS)
        # Only now, as most commands import torch, which help and errors must not wait for.
        command: Any = import_module(f"whence.cli.{name}")
        options = parsed(command.Options, name, rest)
        code: int = command.run(options, rest)
        return code
    # What the user can mend is one line; anything else is a fault of ours, with its trace.
    except ModuleNotFoundError:
        raise
    except (ValueError, TypeError, OSError, MemoryError, ImportError) as error:
        print(f"whence: error: {error}", file=sys.stderr)
        return EXIT_ERROR
    except KeyboardInterrupt:
        print("whence: interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED


class _Forgiving(io.TextIOBase):
    """A stream that is written to as long as it takes anything.

    What is printed is said of results that are on disk: a full disk or a closed pipe behind the
    standard output is no failure of theirs.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.failed = False

    def write(self, text: str) -> int:
        """Write, or drop what cannot be written."""
        if not self.failed:
            try:
                self._stream.write(text)
                self._stream.flush()
            except OSError:
                self.failed = True
        return len(text)

    def flush(self) -> None:
        """Do nothing, as each write is flushed."""

    def isatty(self) -> bool:
        """Whether a person reads along."""
        return self._stream.isatty()

    def fileno(self) -> int:
        """Return the stream's own descriptor."""
        return self._stream.fileno()

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """The stream's own encoding."""
        return self._stream.encoding


@contextlib.contextmanager
def printing_what_can_be() -> Iterator[None]:
    """Let a standard output that takes nothing more be no error, now and when Python ends."""
    streams = {name: getattr(sys, name) for name in ("stdout", "stderr")}
    forgiving = {name: _Forgiving(stream) for name, stream in streams.items()}
    for name, stream in forgiving.items():
        setattr(sys, name, stream)
    try:
        yield
    finally:
        for name, stream in streams.items():
            setattr(sys, name, stream)
            if forgiving[name].failed:
                # What is left in its buffer would fail again at the end.
                with contextlib.suppress(OSError, ValueError):
                    nowhere = os.open(os.devnull, os.O_WRONLY)
                    os.dup2(nowhere, stream.fileno())
                    os.close(nowhere)


def show_overview(words: Sequence[str]) -> None:
    """Show the commands and exit."""
    commands: dict[str, Callable[..., Any]] = {}
    for name, summary in COMMANDS.items():
        # A class without fields stands for the command, whose own options need torch.
        command = dataclasses.make_dataclass(name, ())
        command.__doc__ = summary
        commands[name] = command

    tyro.extras.subcommand_cli_from_dict(
        commands, prog="whence", description=DESCRIPTION, args=words
    )
