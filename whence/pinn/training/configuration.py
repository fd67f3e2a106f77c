"""What a run's folder says of how it was made, and whether a resume fits it."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from whence._files import Json, JsonObject, digest
from whence.catalogue import NETWORKS
from whence.objective import Objective
from whence.pinn.networks.base import Rebuildable
from whence.pinn.pde.problem import Problem
from whence.pinn.training.observers import Observer
from whence.pinn.training.run_folder import Checkpoint, RunFolder, described
from whence.pinn.training.spectra import Spectra

OWN_NETWORK = "the problem's own"
"""What the configuration says of a network that the problem made."""


@dataclass(frozen=True)
class Origin:
    """Where a run comes from beside its options; kept in its folder.

    Parameters
    ----------
    problem_file:
        Python file that defines the problem; a copy of it goes into the folder.
    constraints:
        Which of its problems.
    command:
        Arguments of the command line that made the run.
    """

    problem_file: Path | None = None
    constraints: str | None = None
    command: tuple[str, ...] | None = None

    def code(self) -> str | None:
        """Return what the problem file holds."""
        if self.problem_file is None:
            return None
        return self.problem_file.read_text()


def configuration(
    *,
    problem: Problem,
    network: nn.Module | None,
    origin: Origin,
    observers: Sequence[Observer],
    dtype: torch.dtype,
    schedule: Sequence[object],
    **options: object,
) -> JsonObject:
    """Return the options that a run must be resumed with, as JSON can hold them."""
    # By its digest, so that a changed file cannot resume the run.
    code = origin.code()
    spectra = None

    for observer in observers:
        # Other observers change nothing that is saved.
        if isinstance(observer, Spectra):
            spectra = described(observer)
            break

    config = {
        "problem": problem.name,
        "hard_constraints": problem.ansatz is not None,
        "constraints": origin.constraints,
        "variant": problem.variant,
        # By what the file holds, not by its path: the file may move.
        "problem_file": None if code is None else digest(code),
        "network": OWN_NETWORK if network is None else repr(network),
        "spectra": spectra,
        "dtype": str(dtype),
        "schedule": described(list(schedule)),
        "measurements": measurements_of(problem),
        "unknowns": unknowns_of(problem),
    }
    for name, option in options.items():
        config[name] = described(option)
    return config


def measurements_of(problem: Problem) -> dict[str, str] | None:
    """Return a digest of the given rows of each term, None where there are none.

    They come from files and arrays that no code shows.
    """
    digests = {}
    for name in problem.given_terms:
        rows = problem.given_rows(name)
        digests[name] = digest(rows.contiguous().numpy().tobytes())
    return digests or None


def unknowns_of(problem: Problem) -> dict[str, Json] | None:
    """Return the unknowns by name with their options, None where there are none."""
    if not problem.unknowns:
        return None
    return {name: described(each) for name, each in problem.unknowns.items()}


def circumstances(
    network: nn.Module,
    objective: Objective,
    device: str | torch.device,
    origin: Origin,
) -> JsonObject:
    """Return what the configuration says beside options: a run may be resumed under others."""
    architecture = None
    # Other networks come from the user's code, which alone can make them again.
    if isinstance(network, Rebuildable):
        name = NETWORKS.name_of(network)
        architecture = {"name": name, "options": network.options()}

    # A run that starts from this one takes these points as the user's again.
    terms = objective.terms.values()
    given = [term.name for term in terms if term.source == "given"]
    return {
        "architecture": architecture,
        "command": described(origin.command),
        "device": str(device),
        "given": given,
        "versions": versions(),
    }


def versions() -> dict[str, str]:
    """Return the versions of what computes a run."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        whence = version("whence")
    except PackageNotFoundError:  # a copy of the sources
        whence = "not installed"

    return {
        "whence": whence,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }


def checkpoint_to_resume(
    folder: RunFolder, config: JsonObject, max_seconds: float | None
) -> Checkpoint | None:
    """Return the checkpoint of a run made with the same options, None if it has none yet.

    Raises
    ------
    ValueError
        If the run was made with other options, or has trained for ``max_seconds`` already.
    """
    saved = folder.config()
    for name, option in config.items():
        # A run of an older format does not know every option; those that it lacks were unset.
        if saved.get(name) != option:
            raise ValueError(
                f"{folder.path} was made with {name} = {saved.get(name)!r}, not "
                f"{option!r}: resume with the same options"
            )

    if not folder.is_started():
        return None

    checkpoint = folder.checkpoint()
    if max_seconds is None:
        return checkpoint

    place = checkpoint.numbers["place"]
    # A run that has ended trains no further under any limit: to resume it is no error.
    has_ended = place["done"] or place["failure"] is not None
    if not has_ended and place["seconds"] >= max_seconds:
        raise ValueError(
            f"{folder.path} has trained for {place['seconds']:.6g} s, which reaches the limit of "
            f"{max_seconds:.6g} s: the time before a resume counts, so give a larger limit "
            "(max_seconds, --max-seconds)"
        )

    return checkpoint
