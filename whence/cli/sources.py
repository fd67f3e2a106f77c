"""Problems by name or by file."""

from __future__ import annotations

from pathlib import Path

from whence.catalogue import PROBLEMS
from whence.pinn.training.problem_file import ProblemFile, read_problem_file


def source_of(problem: str) -> ProblemFile:
    """Return what defines a problem: a Python file, or a name of the catalogue."""
    if problem.endswith(".py"):
        return read_problem_file(Path(problem))

    file = Path(f"{problem}.py")
    if problem not in PROBLEMS and file.is_file():
        raise ValueError(f"unknown problem {problem!r}: name the file, {file}")
    module = PROBLEMS[problem]
    return ProblemFile(problem, vars(module))
