"""A study is a folder: what its runs are, the runs themselves, and why some failed.

``study.json``        every run by name: labels, arguments
``runs/NAME/``        run folders, as ``whence train`` leaves them
``failed/NAME.json``  the error of a run that raised one; gone once it is trained
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from whence import __version__
from whence._files import (
    PathLike,
    checked_path,
    make_folder,
    parsed_json,
    strict_json,
    write_atomically,
)
from whence.pinn.training.run_folder import RunFolder
from whence.studies.study import Study, StudyRun

FORMAT = 1
STUDY = "study.json"
RUNS = "runs"
FAILED = "failed"

RunState = Literal["finished", "failed", "begun", "waiting"]


@dataclass(frozen=True)
class StudyFolder:
    """The folder of a study."""

    path: Path

    @classmethod
    def at(cls, path: PathLike) -> StudyFolder:
        """Return the folder at a path."""
        return cls(checked_path("the folder of a study", path))

    def exists(self) -> bool:
        """Whether the folder holds a study."""
        return (self.path / STUDY).is_file()

    def begin(self, study: Study) -> None:
        """Write down the study, or go on with the one that is here.

        Raises
        ------
        FileExistsError
            If the folder holds another study, or something else.
        OSError
            If it cannot be written.
        """
        if self.exists():
            self._check_same(study)
        elif self.path.exists() and (
            not self.path.is_dir() or any(self.path.iterdir())
        ):
            raise FileExistsError(
                f"{self.path} exists and holds no study: choose another folder"
            )

        make_folder(self.path / RUNS)
        make_folder(self.path / FAILED)
        runs = []
        for run in study.runs:
            runs.append(
                {
                    "name": run.name,
                    "labels": dict(run.labels),
                    "arguments": list(run.arguments),
                    "problem_digest": run.problem_digest,
                }
            )
        content = {"format": FORMAT, "whence": __version__, "runs": runs}
        write_atomically(self.path / STUDY, strict_json(content).encode())

    def _check_same(self, study: Study) -> None:
        """Raise unless every run that is here is one of the study: there may be new ones."""
        runs = {run.name: run for run in study.runs}
        for kept in self.study().runs:
            run = runs.get(kept.name)
            if run is None:
                raise FileExistsError(
                    f"{self.path} holds another study: its run {kept.name} is not in this one. "
                    "Choose another folder"
                )
            if run != kept:
                what = "arguments"
                if run.arguments == kept.arguments:
                    what = "problem file"
                raise FileExistsError(
                    f"{self.path} holds another study: the {what} of {kept.name} differ"
                    f"{'s' if what == 'problem file' else ''} from then. Choose another folder"
                )

    def study(self) -> Study:
        """Return the study that was written down.

        Raises
        ------
        FileNotFoundError
            If the folder holds no study.
        ValueError
            If its file is damaged, or of a later version.
        """
        file = self.path / STUDY
        if not file.is_file():
            raise FileNotFoundError(
                f"{self.path} holds no study: {STUDY} is missing (whence study FILE.toml --out "
                f"{self.path} makes one)"
            )
        try:
            content = parsed_json(file.read_bytes())
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{file} is damaged, not valid JSON: {error}") from None
        try:
            if content["format"] != FORMAT:
                raise ValueError(
                    f"{file} is of format {content['format']}, this version reads {FORMAT}"
                )
            runs = [
                StudyRun(
                    entry["name"],
                    entry["labels"],
                    tuple(entry["arguments"]),
                    entry["problem_digest"],
                )
                for entry in content["runs"]
            ]
        except (KeyError, TypeError) as error:
            raise ValueError(f"{file} is damaged: {error!r}") from None
        return Study(tuple(runs))

    # --- runs ---

    def run_path(self, run: StudyRun) -> Path:
        """Return the folder of a run."""
        return self.path / RUNS / run.name

    def state(self, run: StudyRun) -> RunState:
        """Return how far a run is."""
        folder = RunFolder(self.run_path(run))
        if is_finished(folder):
            return "failed" if folder.summary().get("failure") else "finished"
        if self._failure_file(run).is_file():
            return "failed"
        return "begun" if folder.exists() else "waiting"

    def share(self, run: StudyRun) -> float:
        """Return the share of a run's iterations that its last checkpoint has."""
        folder = RunFolder(self.run_path(run))
        try:
            iteration = folder.json("state.json")["place"]["iteration"]
            stages = folder.json("config.json")["schedule"]
            planned = sum(stage["iterations"] for stage in stages)
        except (OSError, ValueError, KeyError, TypeError):
            # Not begun, or begun by another version: what is shown of it can wait.
            return 0.0
        return min(1.0, iteration / max(1, planned))

    def states(self) -> Mapping[str, RunState]:
        """Return how far each run is, by name."""
        return {run.name: self.state(run) for run in self.study().runs}

    def remaining(self, study: Study) -> list[StudyRun]:
        """Return the runs without an outcome; those that raised an error are tried again."""
        return [
            run for run in study.runs if not is_finished(RunFolder(self.run_path(run)))
        ]

    # --- failures ---

    def fail(self, run: StudyRun, error: str) -> None:
        """Keep why a run failed."""
        content = strict_json({"error": error}).encode()
        write_atomically(self._failure_file(run), content)

    def forget_failure(self, run: StudyRun) -> None:
        """Forget an earlier failure of a run."""
        self._failure_file(run).unlink(missing_ok=True)

    def failure(self, run: StudyRun) -> str:
        """Return why a run failed, an empty text if it did not."""
        folder = RunFolder(self.run_path(run))
        if is_finished(folder):
            return str(folder.summary().get("failure") or "")
        file = self._failure_file(run)
        if not file.is_file():
            return ""
        return str(parsed_json(file.read_bytes())["error"])

    def _failure_file(self, run: StudyRun) -> Path:
        return self.path / FAILED / f"{run.name}.json"


def is_finished(folder: RunFolder) -> bool:
    """Whether a run has an outcome that going on would not change.

    One that was interrupted has a summary too.
    """
    if not folder.is_finished():
        return False
    return folder.summary()["stopped_by"] != "interrupted"
