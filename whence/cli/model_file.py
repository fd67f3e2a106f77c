"""A user's own model for the command line: a Python file that names model, data and loss.

The file is run, as ``python FILE`` would run it, and these names are taken from it::

    model = ...                  # a trained torch.nn.Module
    data = (x, y)                # training data: tensors, a Dataset or a DataLoader
    loss = nn.CrossEntropyLoss()
    test = (x_test, y_test)      # what to explain; optional
    parameters = "fc.*"          # which parameters; optional
    checkpoints = [...]          # for --method tracin: state_dicts or .safetensors files; optional
    learning_rates = 1e-3        # of the checkpoints; optional
    corrupted = [...]            # known bad samples, to measure an audit; optional
"""

from __future__ import annotations

import runpy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from whence import _checks
from whence.attribution.empirical import EmpiricalInfluence
from whence.attribution.gradients import GradCos, GradDot, TracIn
from whence.attribution.influence import Influence
from whence.attribution.method import Method
from whence.objective import Objective

MethodName = Literal["influence", "tracin", "grad_dot", "grad_cos", "empirical"]
NEEDED, OPTIONAL = (
    ("model", "data", "loss"),
    ("test", "parameters", "checkpoints", "learning_rates", "corrupted"),
)


@dataclass(frozen=True)
class ModelFile:
    """What a file names, with its objective."""

    path: Path
    objective: Objective
    names: dict[str, Any]

    def test(self) -> Any:
        """Return the test data; a file without any is an error."""
        if "test" not in self.names:
            raise ValueError(
                f"{self.path} names no test data: add test = (inputs, targets)"
            )
        return self.names["test"]

    def method(self, name: MethodName, damping: float | None) -> Method:
        """Return the method of this name; damping that it does not have is an error."""
        if damping is not None and name != "influence":
            raise ValueError(
                f"--damping does nothing with --method {name}: leave it out"
            )
        if name == "influence":
            return Influence(self.objective, damping=damping)
        if name == "tracin":
            return self._tracin()
        simple: dict[str, Callable[[Objective], Method]] = {
            "grad_dot": GradDot,
            "grad_cos": GradCos,
            "empirical": EmpiricalInfluence,
        }
        return simple[name](self.objective)

    def _tracin(self) -> TracIn:
        if "checkpoints" not in self.names:
            raise ValueError(
                f"--method tracin needs checkpoints: add checkpoints = [...] to {self.path}"
            )
        rates = self.names.get("learning_rates", 1.0)
        return TracIn(self.objective, self.names["checkpoints"], rates)


def read(path: Path) -> ModelFile:
    """Run a user's file and return what it names."""
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    found = runpy.run_path(str(path))
    for name in NEEDED:
        if name not in found:
            given = [n for n in found if not n.startswith("_")]
            raise ValueError(
                f"{path} must name {', '.join(NEEDED)}, but has no {name!r}"
                f"{_checks.nearest(name, given)}"
            )
    names = {name: found[name] for name in (*NEEDED, *OPTIONAL) if name in found}
    objective = Objective.supervised(
        names["model"], names["data"], names["loss"], parameters=names.get("parameters")
    )
    return ModelFile(path, objective, names)
