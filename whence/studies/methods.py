"""Which method each run of a study is of: what tables have a row for, and figures a color."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from whence import _checks
from whence.studies.folder import STUDY, StudyFolder
from whence.studies.study import METHOD, PROBLEM, SEED, Label, StudyRun, name_of

UNNAMED = "all"
"""The method of runs that differ by problem and seed alone."""
KEYS = (PROBLEM, METHOD, SEED)
"""What tells the runs of a study from each other."""

Labels = Mapping[str, Label]


@dataclass(frozen=True)
class MethodRun:
    """One run of a study, by what it is compared with others."""

    run: StudyRun
    problem: str
    method: str
    seed: int

    @property
    def keys(self) -> tuple[str, str, int]:
        """Problem, method and seed, which no other run has."""
        return self.problem, self.method, self.seed


def runs_by_method(folder: StudyFolder) -> list[MethodRun]:
    """Return the runs of a study in its own order, finished or not.

    The method of a run is its label of that name where problem, method and seed tell all runs
    apart; else it is all labels but problem and seed, joined: ``residual, n=10``.

    Raises
    ------
    FileNotFoundError
        If the folder holds no study.
    ValueError
        If ``study.json`` is damaged, or two runs have the same labels.
    """
    what = str(folder.path / STUDY)
    runs = folder.study().runs
    for run in runs:
        check_labels(f"{what}: {run.name}", run.labels)
    is_named = are_told_apart_by_method([run.labels for run in runs])

    named = []
    names_by_keys: dict[tuple[str, str, int], str] = {}
    for run in runs:
        method = joined_labels(run.labels)
        if is_named:
            method = str(run.labels[METHOD])
        method_run = MethodRun(
            run,
            problem=name_of(run.labels[PROBLEM]),
            method=method,
            seed=int(run.labels[SEED]),
        )
        # Two values for one seed could not be paired with those of another method.
        other = names_by_keys.get(method_run.keys)
        if other is not None:
            raise ValueError(
                f"{what}: the runs {other!r} and {run.name!r} have the same labels: give them a "
                "label in which they differ"
            )
        names_by_keys[method_run.keys] = run.name
        named.append(method_run)

    return named


def check_labels(what: str, labels: Labels) -> None:
    """Raise ``ValueError`` unless labels say what a run is compared on and paired by."""
    for name in (PROBLEM, SEED):
        if name not in labels:
            raise ValueError(f"{what} must have the label {name!r} to be compared")
    _checks.count(f"{what}: its seed", labels[SEED], zero=True)


def are_told_apart_by_method(labels: Sequence[Labels]) -> bool:
    """Whether all runs have a method, and no two the same problem, method and seed."""
    keys = set()
    for own_labels in labels:
        if METHOD not in own_labels:
            return False
        # As text, as a label may be any value of TOML.
        words = [str(own_labels[key]) for key in KEYS]
        keys.add(tuple(words))

    # Two alike have further labels, which then belong to the method.
    return len(keys) == len(labels)


def joined_labels(labels: Labels) -> str:
    """Return all labels but problem and seed in one name.

    Examples
    --------
    >>> from whence.studies.methods import joined_labels
    >>> joined_labels({"problem": "wave", "seed": 0, "score": "residual", "n": 10})
    'residual, n=10'
    >>> joined_labels({"problem": "wave", "seed": 0})
    'all'
    """
    parts = []
    for name, value in labels.items():
        if name in (PROBLEM, SEED):
            continue
        # A word speaks for itself, a number does not.
        is_word = isinstance(value, str)
        parts.append(str(value) if is_word else f"{name}={value}")
    # Without further axes there is one method.
    return ", ".join(parts) or UNNAMED
