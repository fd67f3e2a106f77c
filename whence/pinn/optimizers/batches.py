"""Batches of training points: some of each term in a step, all of them in a pass."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from whence.objective import Objective
from whence.shared_pass import passes_of
from whence.term import Term


class Batches:
    """Parts of an objective's terms, one for each step.

    The step's number and the seed determine a batch, so that nothing but the number need be saved.

    Parameters
    ----------
    size:
        Points of each term; a term of no more takes part whole.
    seed:
        Seed of the order in which points come.

    Examples
    --------
    >>> from whence import pinn
    >>> from whence.pinn.optimizers.batches import Batches
    >>> problem = pinn.zoo.load("diffusion")
    >>> objective = problem.objective(problem.network(seed=0), problem.sample(50, seed=0))
    >>> Batches(20, seed=0).next_of(objective).n_points
    20
    """

    def __init__(self, size: int, seed: int) -> None:
        self.size = size
        self.seed = seed
        self.steps = 0
        self._orders: dict[str, tuple[int, int, Tensor]] = {}
        """By term its number of points, the pass, and the order of points in it."""

    def next_of(self, objective: Objective) -> Objective:
        """Return the objective of the next batch."""
        terms = []
        for name, places in self.next_places(objective).items():
            term = objective.term(name)
            terms.append(term if places is None else term.part(places))
        return objective.with_terms(terms)

    def next_places(self, objective: Objective) -> dict[str, Tensor | None]:
        """Return by term which of its points are in the next batch; None where all are."""
        positions = {name: k for k, name in enumerate(objective.terms)}
        places = {}
        for shared in passes_of(objective.terms.values()):
            # Terms at the same points have them in the same order, so that they stay the same.
            position = positions[shared.terms[0].name]
            for term in shared.terms:
                places[term.name] = self._places(position, term)

        self.steps += 1
        return {name: places[name] for name in objective.terms}

    def _places(self, position: int, term: Term) -> Tensor | None:
        n = len(term.points)
        if n <= self.size:
            return None

        # A pass ends with a whole batch: what is left over comes at another place in the next.
        per_pass = n // self.size
        of_pass, number = divmod(self.steps, per_pass)
        order = self._order(position, term, of_pass)
        return order[number * self.size : (number + 1) * self.size]

    def _order(self, position: int, term: Term, of_pass: int) -> Tensor:
        n = len(term.points)
        known = self._orders.get(term.name)
        if known is not None and known[:2] == (n, of_pass):
            return known[2]

        sequence = np.random.SeedSequence([self.seed, position, of_pass])
        seed = int(sequence.generate_state(1)[0])
        generator = torch.Generator().manual_seed(seed)
        order = torch.randperm(n, generator=generator)
        self._orders[term.name] = (n, of_pass, order)
        return order
