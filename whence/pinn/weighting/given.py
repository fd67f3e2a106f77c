"""Weights that the user gives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from whence import _checks
from whence.pinn.weighting.measured import Measured
from whence.pinn.weighting.weighting import Weighting, Weights, check_names


def _check_weights(what: str, given: object) -> None:
    if not isinstance(given, Mapping):
        raise ValueError(
            f"{what} must be numbers by term, such as {{'initial_u': 100.0}}, got {given!r}"
        )
    for name, value in given.items():
        _checks.positive(f"{what}: the weight of term {name!r}", value, zero=True)


@dataclass(eq=False)
class Fixed(Weighting):
    """The same weights throughout; terms that are not named weigh 1.

    Parameters
    ----------
    given:
        Weights by term.

    Examples
    --------
    >>> import torch
    >>> from whence import pinn
    >>> pinn.Fixed({"initial": 100.0}).update({"pde": torch.ones(()), "initial": torch.ones(())})
    {'pde': 1.0, 'initial': 100.0}
    """

    given: Mapping[str, float]

    def _check_options(self) -> None:
        _check_weights("weights", self.given)

    def _check_terms(self, terms: Measured) -> None:
        check_names("term", self.given, terms.names)

    def _renewed(self, terms: Measured) -> Weights:
        return {name: float(self.given.get(name, 1.0)) for name in terms.names}


@dataclass(eq=False)
class Linear(Weighting):
    """From one set of weights to another in equal steps, then that; unnamed terms weigh 1.

    In step t of n a term weighs ``initial + (final − initial)·min(t/n, 1)``.

    Parameters
    ----------
    initial, final:
        Weights by term.
    iterations:
        Number n of steps.
    update_every:
        Steps between two updates.

    Examples
    --------
    >>> import torch
    >>> from whence import pinn
    >>> weighting = pinn.Linear({"initial": 100.0}, {"initial": 0.0}, iterations=2)
    >>> [weighting.update({"initial": torch.ones(())})["initial"] for _ in range(4)]
    [100.0, 50.0, 0.0, 0.0]
    """

    initial: Mapping[str, float]
    final: Mapping[str, float]
    iterations: int
    update_every: int = 1

    def _check_options(self) -> None:
        _check_weights("initial", self.initial)
        _check_weights("final", self.final)
        _checks.count("iterations", self.iterations)

    def _check_terms(self, terms: Measured) -> None:
        check_names("term", [*self.initial, *self.final], terms.names)

    def _renewed(self, terms: Measured) -> Weights:
        share = min(self._state["calls"] / self.iterations, 1.0)
        found: Weights = {}
        for name in terms.names:
            begin, end = self.initial.get(name, 1.0), self.final.get(name, 1.0)
            found[name] = float(begin + (end - begin) * share)
        return found
