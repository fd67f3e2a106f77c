"""What the runs of a study came to, as tables: a row for each run, or for each logged iteration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd
from pandas import DataFrame

from whence import _checks
from whence._files import JsonObject, PathLike
from whence._names import listed_names
from whence.pinn.training.history import History
from whence.pinn.training.run_folder import RunFolder
from whence.studies.folder import StudyFolder
from whence.studies.methods import KEYS, MethodRun, runs_by_method

MEASURED = (
    "error",
    "validation_loss",
    "test_loss",
    "seconds",
    "iterations",
    "points",
)
"""What each run is measured by."""
HISTORY = ("iteration", "seconds", "error", "test_loss")
"""Columns of a history that runs are compared by."""


@dataclass(frozen=True)
class Results:
    """The results of a study.

    Parameters
    ----------
    table:
        A row for each finished run: name, problem, method, seed, what it is measured by
        (``error`` is the relative L2 error), and its further labels as ``label_NAME``.
    unfinished:
        Names of the runs that have not started or not ended.
    failed:
        The error of each run that failed, by name.
    """

    table: DataFrame
    unfinished: tuple[str, ...]
    failed: Mapping[str, str]

    def describe_missing(self) -> str:
        """Return which runs are not in the table, in one sentence; empty where all are."""
        groups = {
            "unfinished": list(self.unfinished),
            "failed": list(self.failed),
        }
        parts = []
        n_missing = 0
        for what, names in groups.items():
            n_missing += len(names)
            # Of a thousand runs the first few names will do.
            shown = ", ".join(_checks.first_few(names))
            if len(names) > _checks.MAX_ENTRIES:
                shown += ", …"
            if names:
                parts.append(f"{len(names)} {what} ({shown})")
        if not parts:
            return ""

        n_runs = len(self.table) + n_missing
        listed = "; ".join(parts)
        return f"{n_missing} of {n_runs} runs are left out: {listed}."


def read_results(folder: PathLike) -> Results:
    """Return what the finished runs of a study came to, and which others there are.

    ``error``, ``validation_loss`` and ``test_loss`` are those of the network that was kept; NaN
    where none was measured.

    Raises
    ------
    FileNotFoundError
        If the folder holds no study.
    ValueError
        If no run has finished, or a file is damaged.

    Examples
    --------
    >>> import tempfile
    >>> from whence import pinn
    >>> from whence.studies.folder import StudyFolder
    >>> from whence.studies.results import read_results
    >>> from whence.studies.study import Study, StudyRun
    >>> runs = []
    >>> for seed in (0, 1):
    ...     labels = {"problem": "diffusion", "method": "random", "seed": seed}
    ...     runs.append(StudyRun.of(labels, ["diffusion", "--seed", str(seed)]))
    >>> folder = StudyFolder.at(tempfile.mkdtemp())
    >>> folder.begin(Study(tuple(runs)))
    >>> _ = pinn.train(pinn.zoo.load("diffusion"), points=20, schedule=pinn.GaussNewton(2),
    ...                out=folder.run_path(runs[0]), progress=False)
    >>> results = read_results(folder.path)
    >>> results.table[["problem", "method", "seed", "iterations"]].values.tolist()
    [['diffusion', 'random', 0, 2]]
    >>> results.unfinished
    ('diffusion-random-1',)
    """
    study = StudyFolder.at(folder)
    rows = []
    unfinished = []
    failed = {}
    for method_run in runs_by_method(study):
        run = method_run.run
        state = study.state(run)
        if state == "failed":
            failed[run.name] = study.failure(run)
        # Also one that was interrupted, though it has a summary.
        elif state != "finished":
            unfinished.append(run.name)
        else:
            run_folder = RunFolder(study.run_path(run))
            summary = run_folder.summary()
            history = run_folder.history()
            rows.append(result_row(method_run, summary, history))

    if not rows:
        message = f"no run of {folder} has finished: {len(unfinished)} are unfinished"
        # All failed by the same mistake, most likely.
        for name, failure in list(failed.items())[:1]:
            message += f", {len(failed)} failed, the first of them {name}: {failure}"
        raise ValueError(message)
    return Results(DataFrame(rows), tuple(unfinished), failed)


def result_row(
    method_run: MethodRun, summary: JsonObject, history: History
) -> JsonObject:
    """Return the row of a finished run."""
    row: JsonObject = {
        "name": method_run.run.name,
        "problem": method_run.problem,
        "method": method_run.method,
        "seed": method_run.seed,
        # Problems without a reference solution have no error.
        "error": _number(summary.get("relative_l2")),
        "validation_loss": _number(summary.get("validation_loss")),
        "test_loss": kept_test_loss(summary, history),
        "seconds": _number(summary.get("seconds")),
        "iterations": summary.get("iterations"),
        "points": summary.get("points"),
    }
    for name, value in method_run.run.labels.items():
        # Marked as labels: one may be called as what is measured.
        if name not in KEYS:
            row[f"label_{name}"] = value
    return row


def _number(value: object) -> float:
    """Return a number, NaN where there is none."""
    if isinstance(value, (int, float)):
        return float(value)
    return float("nan")


def kept_test_loss(summary: JsonObject, history: History) -> float:
    """Return the test loss of the network that was kept; NaN where it was not recorded."""
    kept = summary.get("kept_iteration")
    # Of two rows at one iteration the later one has the state that was kept.
    for row in reversed(history):
        if row["iteration"] == kept:
            return _number(row.get("test_loss"))
    return float("nan")


def read_histories(folder: PathLike) -> DataFrame:
    """Return the histories of the finished runs of a study, a row for each logged iteration.

    Columns are problem, method, seed, iteration, seconds, error and test_loss; NaN where a column
    was not recorded.

    Raises
    ------
    FileNotFoundError, ValueError
        As :func:`read_results`.
    """
    results = read_results(folder)
    names = set(results.table["name"])
    # A history each, one below the other.
    tables = []
    study = StudyFolder.at(folder)
    for method_run in runs_by_method(study):
        if method_run.run.name not in names:
            continue

        # An empty table where the run has none: its row of results is there all the same.
        path = study.run_path(method_run.run)
        history = RunFolder(path).history()
        table = history.to_frame()
        table = table.rename(columns={"relative_l2": "error"})
        # What was not recorded becomes a column of NaN.
        table = table.reindex(columns=list(HISTORY))
        # In front, as in the table of results.
        for place, column in enumerate(KEYS):
            table.insert(place, column, method_run.keys[place])
        tables.append(table)

    return pd.concat(tables, ignore_index=True)


def check_column(table: DataFrame, value: str) -> None:
    """Raise ``ValueError`` unless runs are measured by a column, and some have a number there."""
    _checks.one_of("column of results", value, MEASURED)
    if table[value].notna().any():
        return

    filled = []
    for column in MEASURED:
        if table[column].notna().any():
            filled.append(column)
    raise ValueError(
        f"no run has a number in {value!r} (an error needs a reference solution, a test loss "
        f"--test): choose {listed_names(filled)}"
    )
