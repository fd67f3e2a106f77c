"""What a study is: runs of ``whence train``, each with a name, labels and arguments."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

Label: TypeAlias = str | int | float | bool

PROBLEM, METHOD, SEED = "problem", "method", "seed"
"""Labels that tables and figures know."""


@dataclass(frozen=True)
class StudyRun:
    """One run of a study.

    Parameters
    ----------
    name:
        Of its folder.
    labels:
        Where it stands in the grid: problem, method, seed and any other axis.
    arguments:
        Those of ``whence train`` but the folder.
    problem_digest:
        Of the problem's file, which may change between two starts; empty for one of the zoo.

    Examples
    --------
    >>> from whence.studies.study import StudyRun
    >>> labels = {"problem": "wave", "method": "random", "seed": 3}
    >>> StudyRun.of(labels, ["wave", "--seed", "3", "--score", "random"]).name
    'wave-random-3'
    """

    name: str
    labels: Mapping[str, Label]
    arguments: tuple[str, ...]
    problem_digest: str = ""

    @classmethod
    def of(
        cls,
        labels: Mapping[str, Label],
        arguments: Sequence[str],
        problem_digest: str = "",
    ) -> StudyRun:
        """Return the run with these labels, named by them."""
        # The problem first and the seed last, as people sort them.
        middle = [name for name in labels if name not in (PROBLEM, SEED)]
        ordered = [PROBLEM, *middle, SEED]
        words = [name_of(labels[name]) for name in ordered if name in labels]
        return cls("-".join(words), dict(labels), tuple(arguments), problem_digest)


@dataclass(frozen=True)
class Study:
    """Runs that belong together, no two of one name.

    Raises
    ------
    ValueError
        If there is no run, or two would share a folder.
    """

    runs: tuple[StudyRun, ...]

    def __post_init__(self) -> None:
        if not self.runs:
            raise ValueError("a study needs at least one run: name problems")

        counts = Counter(run.name for run in self.runs)
        name, n = counts.most_common(1)[0]
        if n > 1:
            twins = [run for run in self.runs if run.name == name]
            listed = " and ".join(" ".join(run.arguments) for run in twins[:2])
            raise ValueError(
                f"{n} runs would share the folder {name!r}: {listed}. Leave out what is listed "
                "twice, or name files and methods differently"
            )


def name_of(label: Label) -> str:
    """Return a label as a part of a folder's name.

    Examples
    --------
    >>> from whence.studies.study import name_of
    >>> name_of("problems/my problem.py"), name_of(0.5), name_of("adam:500 lbfgs:20")
    ('my_problem', '0.5', 'adam_500_lbfgs_20')
    """
    text = str(label)
    if text.endswith(".py"):
        text = Path(text).stem
    return re.sub(r"[^A-Za-z0-9_.]+", "_", text)
