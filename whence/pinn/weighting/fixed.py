"""Weights that the user gives: the same throughout, or from one set to another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from whence import _checks
from whence.catalogue import WEIGHTINGS
from whence.pinn.weighting.base import Weighting, Weights, check_names
from whence.pinn.weighting.term_statistics import TermStatistics


@WEIGHTINGS.named("fixed")
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

    def check_options(self) -> None:
        """Raise ``ValueError`` unless these are weights by term."""
        _check_weights("weights", self.given)

    def check_terms(self, terms: TermStatistics) -> None:
        """Raise ``ValueError`` for a weight of no term."""
        check_names("term", self.given, terms.names)

    def renew_weights(self, terms: TermStatistics) -> Weights:
        """Return the weights that were given."""
        weights: Weights = {}
        for name in terms.names:
            weights[name] = float(self.given.get(name, 1.0))
        return weights


@WEIGHTINGS.named("linear")
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

    def check_options(self) -> None:
        """Raise ``ValueError`` unless these are weights by term and a number of steps."""
        _check_weights("initial", self.initial)
        _check_weights("final", self.final)
        _checks.count("iterations", self.iterations)

    def check_terms(self, terms: TermStatistics) -> None:
        """Raise ``ValueError`` for a weight of no term."""
        check_names("term", [*self.initial, *self.final], terms.names)

    def renew_weights(self, terms: TermStatistics) -> Weights:
        """Return the weights between both sets."""
        progress = min(self.calls / self.iterations, 1.0)  # t/n
        weights: Weights = {}

        for name in terms.names:
            initial = self.initial.get(name, 1.0)
            final = self.final.get(name, 1.0)
            weights[name] = float(initial + (final - initial) * progress)

        return weights


def _check_weights(what: str, weights: object) -> None:
    # A single number would leave open which term it is of.
    if not isinstance(weights, Mapping):
        raise ValueError(
            f"{what} must be numbers by term, such as {{'initial_u': 100.0}}, got {weights!r}"
        )

    for name, value in weights.items():
        _checks.positive(f"{what}: the weight of term {name!r}", value, zero=True)
