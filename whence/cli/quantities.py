"""What ``whence influence`` explains: quantities of a run, or of the test data of a model file."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from whence import _checks
from whence.attribution.quantities import (
    Derivative,
    Functional,
    Loss,
    Output,
    Quantity,
    TermLoss,
    UnknownValue,
)
from whence.attribution.quantities.term_loss import TOTAL
from whence.catalogue import QUANTITIES
from whence.cli.model_file import ModelFile
from whence.cli.targets import Where
from whence.components import split_components
from whence.objective import Objective
from whence.pinn.training.load import problem_source
from whence.pinn.training.result import Result
from whence.pinn.training.run_folder import RunFolder
from whence.samples import samples_of

MEAN_LOSSES: Mapping[str, Quantity] = {
    "loss": Loss(reduce="mean"),
    "term_loss": TermLoss(),
}
"""Quantities of all training points that the catalogue has."""


def nameable() -> list[str]:
    """Return the names of quantities that the command line can make."""
    return [name for name in QUANTITIES if hasattr(QUANTITIES[name], "of_objective")]


def quantities_of_run(
    result: Result, names: Sequence[str], where: Where
) -> list[Quantity]:
    """Return what to explain of a run.

    Parameters
    ----------
    result:
        The run.
    names:
        Outputs, derivatives, terms, ``equations``, ``conditions``, ``total``, functionals of the
        problem, or names of quantities; by default the first output.
    where:
        Where answers are taken; by default where the error is largest.

    Raises
    ------
    ValueError
        If a name means nothing, the nearest of those that do being suggested, or nothing that is
        asked for depends on a place where one is given.
    """
    names = names or result.problem.outputs[:1]
    known = _KnownNames(result)
    # What is taken nowhere in particular is known by its name alone.
    everywhere = {}
    for name in names:
        quantity = known.without_place(name)
        if quantity is not None:
            everywhere[name] = quantity

    # A place that nothing of it depends on is a mistake.
    if len(everywhere) == len(names):
        _check_no_place(names, everywhere, where)
        return [everywhere[name] for name in names]

    # A wrong name is said before points are searched for.
    for name in names:
        if name not in everywhere:
            known.check_at_points(name)

    # Places are float64, the network may be float32.
    points = where.points(result)
    points = points.to(dtype=result.objective.parameters.dtype)
    quantities = []
    for name in names:
        quantity = everywhere.get(name)
        if quantity is None:
            quantity = known.quantity_at(name, points)
        quantities.append(quantity)
    return quantities


def _check_no_place(
    names: Sequence[str], quantities: Mapping[str, Quantity], where: Where
) -> None:
    """Raise ``ValueError`` if a place is given for what is taken nowhere in particular."""
    if not where.flag:
        return

    # Why is said of one of them: the last, where there are several.
    last = quantities[names[-1]]
    why = "which has no place"
    if isinstance(last, UnknownValue):
        why = "which is the same everywhere"
    if isinstance(last, (Loss, TermLoss)):
        why = "the mean over all points"
    raise ValueError(
        f"{where.flag} does nothing with --of {' '.join(names)}, {why}: leave it out"
    )


class _KnownNames:
    """What the names on a command line mean for a run."""

    def __init__(self, result: Result) -> None:
        self.problem = result.problem
        self.objective = result.objective
        self.result = result

    @functools.cached_property
    def functionals(self) -> Mapping[str, Functional]:
        """The functionals of the problem; its file is run for them, so once, and if need be."""
        return functionals_of(self.result)

    def without_place(self, name: str) -> Quantity | None:
        """Return a quantity that is taken nowhere in particular, None of another kind."""
        # An output may have the name of a quantity: the user's own names come first.
        if name in self.problem.outputs:
            return None
        if name in self.problem.numbers:
            return UnknownValue(name)
        if name in (*self.objective.terms, *group_names(self.objective)):
            return TermLoss(name)
        if name in MEAN_LOSSES:
            return MEAN_LOSSES[name]
        if name in nameable() or self._is_field(name):
            return None
        return self.functionals.get(name)

    def check_at_points(self, name: str) -> None:
        """Raise ``ValueError`` if a name is neither a field of the network nor a quantity."""
        if self._is_catalogued(name):
            return

        # What the network gives, or a derivative of it, is left.
        if not self._is_field(name):
            # The nearest may be a term or a functional, which fields know nothing of.
            terms = (*self.objective.terms, *group_names(self.objective))
            others = (*terms, *self.functionals)
            if _checks.nearest(name, others):
                _checks.one_of("--of", name, (*self.problem.outputs, *others))

        parsed = self.problem.parse(name)
        if parsed.output is None:
            kind = "a derived field" if parsed.symbol else "a coordinate"
            raise ValueError(
                f"--of {name} is {kind}: name an output or a derivative of one"
            )

    def quantity_at(self, name: str, points: Tensor) -> Quantity:
        """Return a quantity at points: an output, a derivative, or one of the catalogue."""
        if self._is_catalogued(name):
            kind = QUANTITIES[name]
            quantity: Quantity = kind.of_objective(self.objective, points)
            return quantity

        # The index of a name says by which coordinates it is differentiated.
        is_derivative = bool(self.problem.parse(name).index)
        return Derivative(points, name) if is_derivative else Output(points, name)

    def _is_catalogued(self, name: str) -> bool:
        """Whether a name is that of a quantity, and not one of the user's own."""
        # An output of the problem may be called as a quantity is.
        users_names = (*self.problem.outputs, *self.problem.unknowns)
        return name in nameable() and name not in users_names

    def _is_field(self, name: str) -> bool:
        """Whether a name means something on the problem's domain."""
        try:
            self.problem.parse(name)
        except ValueError:
            return False
        return True


def with_named_components(result: Result, names: Sequence[str]) -> Result:
    """Return the run with a term for each residual component, if one of these is named.

    Components are ``pde_1``, ``pde_2`` of an equation ``pde`` that returns a tuple. Where none is
    named the terms stay whole: a point is one point, whatever the number of its components.
    """
    split = split_components(result.objective)
    added = set(split.terms) - set(result.objective.terms)
    if added.isdisjoint(names):
        return result
    return dataclasses.replace(result, objective=split)


def group_names(objective: Objective) -> tuple[str, ...]:
    """Return the names of groups of terms, the whole loss among them."""
    return (*objective.space.groups, TOTAL)


def functionals_of(result: Result) -> Mapping[str, Functional]:
    """Return the functionals that a run's problem lists, by name."""
    # A result that was never on disk has no file to list them.
    if result.path is None:
        return {}
    source = problem_source(RunFolder(result.path))
    return {} if source is None else source.functionals


def quantity_of_tests(
    file: ModelFile, of: str | None, numbers: Sequence[int]
) -> Quantity:
    """Return what to explain of a file's test data, or of the samples of these numbers."""
    like = file.objective.parameters
    test = samples_of("the test data", file.test(), like.dtype, like.device)
    if numbers:
        for number in numbers:
            if not 0 <= number < len(test):
                raise ValueError(
                    f"--sample must lie in 0 … {len(test) - 1}, got {number}"
                )
        test = test[torch.tensor(numbers)]  # in the order of --sample

    of = of or "loss"
    outputs = file.objective.outputs
    if of in outputs:
        return Output(test, of)

    _checks.one_of("--of", of, (*nameable(), *outputs))
    quantity: Quantity = QUANTITIES[of].of_objective(file.objective, test)
    return quantity
