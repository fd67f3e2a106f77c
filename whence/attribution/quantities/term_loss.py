"""The losses of whole terms, or of groups of terms, with the weights that they train with."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from whence import _checks
from whence.catalogue import QUANTITIES
from whence.objective import Objective, PointsLike

TOTAL = "total"
"""Name of the whole loss among the terms and their groups."""


@QUANTITIES.named("term_loss")
@dataclass(frozen=True, eq=False, init=False)
class TermLoss:
    """The loss of whole terms at their training points, weighted as in training.

    The target of a term k is its part of the training loss, ``w_k · mean_i m_i b_i ℓ_k(z_i)``, that
    of a group of terms the sum of theirs, and that of ``"total"`` the whole loss L, a penalty on
    the parameters included. Equations and conditions of a problem are such groups.

    Parameters
    ----------
    names:
        Names of terms, of groups of them (``"equations"`` and ``"conditions"`` of a problem), or
        ``"total"``; each is a target. None for every term. A term of the same name comes first.

    Raises
    ------
    TypeError
        If the names are no words.
    ValueError
        When used: if the objective has no such term or group, or none of the group's terms.

    Examples
    --------
    >>> import whence as wh
    >>> from whence import pinn
    >>> problem = pinn.zoo.load("wave", "soft")
    >>> points = problem.sample(dict.fromkeys(problem.terms, 10), seed=0)
    >>> objective = problem.objective(pinn.MLP([2, 8, 1], seed=0), points, {"initial_u": 100.0})
    >>> losses = wh.TermLoss("equations", "conditions", "total").values(objective)
    >>> bool((losses[0] + losses[1]).isclose(losses[2]))
    True
    """

    names: tuple[str, ...]

    def __init__(self, *names: str) -> None:
        if not all(isinstance(name, str) for name in names):
            raise TypeError(
                "TermLoss takes names of terms or groups, such as TermLoss('pde', 'total'), got "
                f"{_checks.describe(names)}"
            )
        # Around the frozen dataclass, whose names come one by one.
        object.__setattr__(self, "names", names)

    @classmethod
    def of_objective(
        cls, objective: Objective, points: PointsLike | None = None
    ) -> TermLoss:
        """Return the loss of every term; points of one's own are an error."""
        if points is not None:
            raise ValueError(
                "the loss of a term is a mean over its training points: leave the point out, or "
                "take wh.Loss for the loss at points"
            )
        return cls(*objective.terms)

    def label(self) -> str:
        """Return what the targets are called."""
        if not self.names:
            return "loss of each term"
        return ", ".join(map(_label, self.names))

    def members(self, objective: Objective) -> dict[str, Sequence[str]]:
        """Return the terms of each target by its name."""
        # An objective without the term says so here, before anything is computed.
        members = {}
        for name in self.names or tuple(objective.terms):
            members[name] = terms_named(objective, name)
        return members

    def values(self, objective: Objective) -> Tensor:
        """Return the targets' values, (T,)."""
        losses = objective.term_losses()  # without the weights w_k
        values = []
        for name, terms in self.members(objective).items():
            if self._is_total(objective, name):
                value, _ = objective.loss_and_gradient()
                values.append(value)
                continue

            # L = Σ_k w_k (1/N_k) Σ_i m_i b_i ℓ_k(z_i), summed over the terms of the target.
            weighted = [objective.terms[term].weight * losses[term] for term in terms]
            values.append(sum(weighted))

        # Python's floats are double: a default dtype of torch would round them.
        table = torch.tensor(values, dtype=torch.float64)
        return table.to(objective.parameters.vector())

    def gradients(self, objective: Objective) -> Iterator[Tensor]:
        """Yield the targets' gradients with respect to θ as one block, (T, P)."""
        by_term = objective.term_gradients()
        rows = []
        for name, terms in self.members(objective).items():
            if self._is_total(objective, name):
                _, gradient = objective.loss_and_gradient()
                rows.append(gradient)
                continue

            gradient = torch.zeros_like(objective.parameters.vector())
            for term in terms:
                # ∇(w_k ℓ_k) = w_k ∇ℓ_k, ℓ_k the mean over the term's points
                _, of_term = by_term[term]
                gradient += objective.terms[term].weight * of_term
            rows.append(gradient)
        yield torch.stack(rows)

    def targets(self, objective: Objective) -> dict[str, np.ndarray]:
        """Return what each target is called."""
        names = [_label(name) for name in self.members(objective)]
        return {"quantity": np.asarray(names)}

    @staticmethod
    def _is_total(objective: Objective, name: str) -> bool:
        """Whether a name means the whole loss: a term may be called so, too."""
        return name == TOTAL and name not in objective.terms


def terms_named(objective: Objective, name: str) -> Sequence[str]:
    """Return the terms that a name means: a term, those of a group, or all.

    Raises
    ------
    ValueError
        If there is no such term or group, or the objective has no terms of the group.

    Examples
    --------
    >>> from whence import pinn
    >>> from whence.attribution.quantities.term_loss import terms_named
    >>> problem = pinn.zoo.load("wave", "soft")
    >>> points = problem.sample(dict.fromkeys(problem.terms, 10), seed=0)
    >>> terms_named(problem.objective(problem.network(seed=0), points), "conditions")
    ('initial_u', 'initial_u_t', 'dirichlet_u')
    """
    terms = objective.terms
    groups = objective.space.groups
    _checks.one_of("term", name, dict.fromkeys((*terms, *groups, TOTAL)))
    # What the user called a term is the user's own.
    if name in terms:
        return (name,)
    if name not in groups:
        return tuple(terms)

    # A problem knows all of its terms, an objective those that have points.
    members = tuple(term for term in groups[name] if term in terms)
    if not members:
        raise ValueError(
            f"the loss has no {name}: its terms are {', '.join(terms)} (hard constraints leave no "
            "conditions)"
        )
    return members


def _label(name: str) -> str:
    return "total loss" if name == TOTAL else f"loss {name}"
