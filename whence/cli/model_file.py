"""A user's own model for the command line: a Python file that names model, data and loss.

The file is run, as ``python FILE`` would run it, each time: one that loads trained weights
(``model.load_state_dict(torch.load("weights.pt"))``) is quicker than one that trains. These names
are taken from it::

    model = ...                  # a trained torch.nn.Module
    data = (x, y)                # training data: tensors, a Dataset or a DataLoader
    loss = nn.CrossEntropyLoss()
    test = (x_test, y_test)      # what to explain; optional
    parameters = "fc.*"          # which parameters; optional
    weight_decay = 1e-2          # c of the training's penalty (c/2)‖θ‖²; optional
    checkpoints = [...]          # for --method tracin: state_dicts or .safetensors files; optional
    learning_rates = 1e-3        # of the checkpoints; optional
    texts = [...]                # the text of each training point, for whence query; optional
    encode = ...                 # from a text to one sample, for whence query; optional
    run = wh.train(...)          # for --method replay: a recorded training; optional
    corrupted = [...]            # known bad samples, to measure an audit; optional
    classes = ["cat", "dog"]     # what classes are called in the explorer; optional
    features = ["age", "height"] # what columns are called in the explorer; optional
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from whence import _checks
from whence.attribution.method import Method
from whence.catalogue import METHODS
from whence.classification import BinaryCrossEntropy, CrossEntropy
from whence.objective import Objective
from whence.pinn.training.problem_file import run_file
from whence.samples import Data, Samples

NEEDED = ("model", "data", "loss")
OBJECTIVE = "objective"
"""The first argument of methods that need no more than an objective."""
SLOW_FILE = 10.0
"""Seconds of running a file above which it is said how to be quicker."""


@dataclass(frozen=True)
class ModelFile:
    """What a file names, with its objective."""

    path: Path
    objective: Objective
    names: Mapping[str, Any]

    def test(self) -> Data:
        """Return the test data; a file without any is an error."""
        if "test" not in self.names:
            raise ValueError(
                f"{self.path} names no test data: add test = (inputs, targets)"
            )

        data: Data = self.names["test"]
        return data

    def list_of_names(self, name: str) -> list[str] | None:
        """Return a list of names of the file, such as ``classes``; None where it has none."""
        names = self.names.get(name)
        # A file may use the word for something else, such as how many classes there are.
        if isinstance(names, str) or not isinstance(names, (Sequence, np.ndarray)):
            return None
        return [str(entry) for entry in names]

    def kind_of_target(self) -> Literal["label", "value"]:
        """Return what targets are: labels of classes, or values of a regression."""
        (term,) = self.objective.terms.values()
        is_classifier = isinstance(term.loss, (CrossEntropy, BinaryCrossEntropy))
        samples = term.points
        assert isinstance(samples, Samples)
        target = samples[:1].target
        is_real = target is not None and target.dtype.is_floating_point
        return "value" if is_real and not is_classifier else "label"

    def method(self, name: str, options: Mapping[str, object]) -> Method:
        """Return the method of this name, with options from flags and the rest from the file.

        Keyword-only parameters of the method's class are flags; positional ones, such as TracIn's
        ``checkpoints``, are names of the file.
        """
        cls = METHODS[name]
        arguments: dict[str, Any] = dict(options)

        for parameter in file_parameters(cls):
            if parameter.name in self.names:
                arguments[parameter.name] = self.names[parameter.name]
            elif parameter.default is parameter.empty:
                raise ValueError(
                    f"--method {name} needs {parameter.name}: add {parameter.name} = ... to "
                    f"{self.path}"
                )

        first = next(iter(inspect.signature(cls).parameters))
        if first == OBJECTIVE:
            arguments[OBJECTIVE] = self.objective
        method: Method = cls(**arguments)
        return method


def file_parameters(cls: type) -> list[inspect.Parameter]:
    """Return the parameters of a method's class that a model file may name."""
    first, *parameters = inspect.signature(cls).parameters.values()
    # The file's model, data and loss make the objective; a run must be named.
    named = [] if first.name == OBJECTIVE else [first]

    for parameter in parameters:
        # data and loss are parameters too, but the file's objective holds them already.
        is_positional = parameter.kind is parameter.POSITIONAL_OR_KEYWORD
        if is_positional and parameter.name not in NEEDED:
            named.append(parameter)

    return named


def read(path: Path) -> ModelFile:
    """Run a user's file and return what it names."""
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")

    start = time.perf_counter()
    names = run_file(path)
    seconds = time.perf_counter() - start
    if seconds > SLOW_FILE:
        print(
            f"running {path} took {seconds:.0f} s; if it trains, save the weights once, "
            "torch.save(model.state_dict(), 'weights.pt'), and load them in it, "
            "model.load_state_dict(torch.load('weights.pt'))"
        )
    for name in NEEDED:
        if name not in names:
            public = [name for name in names if not name.startswith("_")]
            raise ValueError(
                f"{path} must name {', '.join(NEEDED)}, but has no {name!r}"
                f"{_checks.nearest(name, public)}"
            )

    # Made here once, so that every method explains the same model.
    objective = Objective.supervised(
        names["model"],
        names["data"],
        names["loss"],
        parameters=names.get("parameters"),
        weight_decay=names.get("weight_decay", 0.0),
    )
    return ModelFile(path, objective, names)
