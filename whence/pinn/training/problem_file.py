"""A user's own problem: a Python file that defines it, and what is needed to train it.

The file is run, as ``python FILE`` would run it, and these names are taken from it::

    problem = pinn.Problem(...)          # or a function problem(constraints)
    network = pinn.MLP([2, 32, 32, 1])   # or a function network(seed); optional
    recipe = pinn.Recipe(...)            # or a function recipe(constraints); optional
    VARIANTS = {"broken": pinn.Variant(...)}    # by name; optional
    INDICATORS = {"upstream": Directional((1, 0))}    # by name; optional
    FUNCTIONALS = {"mean": lambda field: field("u", points).mean()}     # or wh.Functional; optional

The modules of :mod:`whence.pinn.zoo` are such files.
"""

from __future__ import annotations

import inspect
import runpy
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from whence import _checks
from whence.attribution.quantities.functional import Functional
from whence.diagnosis.indicators.base import Indicator
from whence.pinn.networks.mlp import MLP
from whence.pinn.pde.problem import Problem
from whence.pinn.training.recipe import Recipe, growing_recipe
from whence.pinn.training.variant import GOOD, Variant, checked_variants

DEFAULT_WIDTH = 32
DEFAULT_HIDDEN_LAYERS = 3


@dataclass(frozen=True)
class ProblemFile:
    """What a problem file, or a module of the zoo, defines.

    Parameters
    ----------
    what:
        The file or the name, for messages.
    names:
        What it defines by name.
    """

    what: str
    names: Mapping[str, Any]

    @property
    def has_constraints(self) -> bool:
        """Whether the problem comes with hard and with soft constraints."""
        return callable(self.names["problem"])

    @property
    def variants(self) -> Mapping[str, Variant]:
        """What it lists as variants, by name, beside the problem as it is."""
        return checked_variants(self.what, self.names.get("VARIANTS", {}))

    @property
    def indicators(self) -> dict[str, Indicator]:
        """What it lists as indicators that suit the problem, by name."""
        indicators = self.names.get("INDICATORS", {})
        are_named = isinstance(indicators, Mapping) and all(
            callable(getattr(indicator, "at_targets", None))
            for indicator in indicators.values()
        )
        if not are_named:
            raise TypeError(
                f'INDICATORS in {self.what} must be indicators by name, such as {{"upstream": '
                f"Directional((1.0, 0.0))}}, got {_checks.describe(indicators)}"
            )
        return dict(indicators)

    def variant(self, name: str | None) -> Variant | None:
        """Return a variant by name, None for the problem as it is; ``ValueError`` if unknown."""
        if name is None:
            return None
        variants = self.variants
        _checks.one_of(f"variant of {self.what}", name, (GOOD, *variants))
        return variants.get(name)

    @property
    def functionals(self) -> Mapping[str, Functional]:
        """What it lists as functionals, by name, for ``whence influence RUN --of NAME``.

        Raises
        ------
        TypeError
            If ``FUNCTIONALS`` is no mapping, or an entry is neither a functional nor a function.
        """
        listed = self.names.get("FUNCTIONALS", {})
        if not isinstance(listed, Mapping):
            raise TypeError(
                f"FUNCTIONALS in {self.what} must map names to functionals, such as "
                "{'mean': lambda field: field('u', points).mean()}, got "
                f"{_checks.describe(listed)}"
            )

        functionals = {}
        for name, functional in listed.items():
            # A function of ``field`` is one without a name.
            if not isinstance(functional, Functional):
                functional = Functional(functional, name=name)
            functionals[name] = functional
        return functionals

    def problem(
        self, constraints: str | None = None, variant: str | None = None
    ) -> Problem:
        """Return the problem; one that is a function is called with the kind of constraints.

        Raises
        ------
        TypeError
            If it is no problem.
        ValueError
            If constraints or a variant are asked for that it does not offer.
        """
        kind = self.variant(variant)
        problem = self._as_it_is(constraints)
        if kind is None or variant is None:
            return problem
        return kind.of(problem, variant)

    def _as_it_is(self, constraints: str | None) -> Problem:
        """Return the problem that all variants are made from."""
        # A problem, or a function that makes one of a kind of constraints.
        problem = self.names["problem"]
        if self.has_constraints:
            problem = self._of_constraints("problem", constraints)
        elif constraints is not None:
            raise ValueError(
                f"{self.what} defines one problem, not problem(constraints): leave --constraints "
                "out"
            )

        if not isinstance(problem, Problem):
            raise TypeError(
                f"problem in {self.what} must be a pinn.Problem, or a function that returns one, "
                f"got {problem!r}"
            )

        return problem

    def _of_constraints(self, name: str, constraints: str | None) -> object:
        """Return what a function of the file gives for the kind of constraints."""
        function = self.names[name]
        if constraints is None:
            return function()

        takes_constraints = bool(inspect.signature(function).parameters)
        if takes_constraints:
            return function(constraints)
        if name == "problem":
            raise ValueError(
                f"problem() in {self.what} takes no constraints: leave --constraints out, or "
                "define problem(constraints)"
            )

        # A recipe without the argument serves both kinds of constraints.
        return function()

    def network(self, problem: Problem, seed: int) -> nn.Module:
        """Return a network of the file, of the problem's architecture, or three layers of 32."""
        network = self.names.get("network")
        if network is None and problem.architecture is not None:
            return problem.network(seed)
        if network is None:
            return default_network(problem, seed)

        # A module can be called too, but is the network itself.
        if callable(network) and not isinstance(network, nn.Module):
            takes_seed = bool(inspect.signature(network).parameters)
            network = network(seed) if takes_seed else network()
        if not isinstance(network, nn.Module):
            raise TypeError(
                f"network in {self.what} must be a torch.nn.Module, or a function that returns "
                f"one, got {network!r}"
            )

        return network

    @property
    def has_network(self) -> bool:
        """Whether it defines a network of its own."""
        return "network" in self.names

    def has_recipe(self, variant: str | None = None) -> bool:
        """Whether it defines a recipe, of its own or for the variant."""
        return "recipe" in self.names or self.variant_trains(variant)

    def variant_trains(self, name: str | None) -> bool:
        """Whether a variant says how it is trained."""
        variant = self.variant(name)
        return variant is not None and variant.recipe is not None

    def recipe(
        self,
        problem: Problem,
        constraints: str | None = None,
        own_network: bool = False,
        variant: str | None = None,
    ) -> Recipe:
        """Return the recipe, by default that of a growing set of points.

        With ``own_network`` that for the problem's own network, if the file's is for another; of a
        variant its own, if it has one.
        """
        recipe = self._defined_recipe(problem, constraints, own_network, variant)
        if recipe is None:
            return growing_recipe(problem)
        if not isinstance(recipe, Recipe):
            raise TypeError(
                f"recipe in {self.what} must be a pinn.Recipe, or a function that returns one, "
                f"got {recipe!r}"
            )

        return recipe

    def _defined_recipe(
        self,
        problem: Problem,
        constraints: str | None,
        own_network: bool,
        variant: str | None,
    ) -> object:
        """Return what the file, or the variant, defines as the recipe, None if nothing."""
        kind = self.variant(variant)
        if kind is not None and kind.recipe is not None:
            return kind.recipe(problem)

        name = "recipe"
        if own_network and "own_network_recipe" in self.names:
            name = "own_network_recipe"
        recipe = self.names.get(name)
        if callable(recipe):
            return self._of_constraints(name, constraints)
        return recipe


def default_network(problem: Problem, seed: int) -> MLP:
    """Return three hidden layers of 32, inputs scaled from the domain's bounds."""
    hidden = [DEFAULT_WIDTH] * DEFAULT_HIDDEN_LAYERS
    widths = [problem.domain.dimension, *hidden, len(problem.outputs)]
    bounds = problem.domain.bounds.tolist()  # (2, d)
    return MLP(widths, bounds=bounds, seed=seed)


Namespace = dict[str, Any]
"""What a Python file defines, by name."""


def run_file(path: Path) -> Namespace:
    """Run a user's file and return what it defines; one that fails is a ``ValueError``.

    What it does under ``if __name__ == "__main__"`` is left out.
    """
    try:
        return runpy.run_path(str(path))  # __name__ is "<run_path>" in it
    except SyntaxError as error:
        raise ValueError(
            f"{path} is not valid Python, line {error.lineno}: {error.msg}"
        ) from error
    except Exception as error:  # user code is run: anything may be raised
        # The last line of the file itself that was reached, not of what it calls.
        where = ""
        for frame in traceback.extract_tb(error.__traceback__):
            if frame.filename == str(path):
                where = f" in line {frame.lineno}"
        raise ValueError(
            f"{path} fails{where}: {type(error).__name__}: {error}"
        ) from error


def read_problem_file(path: Path) -> ProblemFile:
    """Run a user's file and return what it defines.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it cannot be run, or defines no problem.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")

    names = run_file(path)
    if "problem" not in names:
        public = [name for name in names if not name.startswith("_")]
        raise ValueError(
            f"{path} must define problem{_checks.nearest('problem', public)}: a pinn.Problem, or "
            "a function that returns one"
        )

    return ProblemFile(str(path), names)
