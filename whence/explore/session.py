"""A trained network that is asked again and again: what is factored serves every answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from whence._files import PathLike
from whence.arrays import ArrayLike, to_locations
from whence.attribution.arguments import TrainingPoints
from whence.attribution.groups import group_influence
from whence.attribution.influence import Influence
from whence.attribution.quantities import (
    Derivative,
    Output,
    Quantity,
    Residual,
    TermLoss,
)
from whence.evaluation.leaving_out import leave_out
from whence.explore.point_gradients import PointGradients
from whence.pinn.pde.problem import Problem
from whence.pinn.training.load import load_run
from whence.pinn.training.result import Result
from whence.subsets import Members, check_groups, n_members

if TYPE_CHECKING:
    from whence.attribution.result import Attribution

FIELD_POINTS = 10_000
"""Places at which one training point is followed, unless said otherwise."""


@dataclass(frozen=True)
class Region:
    """What some training points are to one answer.

    Parameters
    ----------
    size:
        How many points they are.
    share:
        Their part of ``Σ|I|``, the sum of the sizes of all influences on the answer.
    first_order:
        The sum of their influences: what removing them would do if none stood in for another.
    exact:
        What removing all of them at once does in the Gauss–Newton model, see
        :func:`whence.group_influence`.
    """

    size: int
    share: float
    first_order: float
    exact: float


class Session:
    """Influence on and of anything in a run, one question at a time.

    The curvature is factored at the first question, and the gradients of all training points are
    kept where memory allows it: a further target is one solve and one product with them. Numbers
    are those of :meth:`whence.Influence.attribute`, in its sign: the predicted change of the answer
    when a point is removed from training.

    Parameters
    ----------
    result:
        What :func:`whence.pinn.train` or :func:`whence.pinn.load_run` returned.
    influence:
        How to attribute; by default ``Influence(result.objective)``.

    Raises
    ------
    ValueError
        If the influence is that of another objective.

    Examples
    --------
    >>> from whence import pinn
    >>> from whence.explore import Session
    >>> problem = pinn.zoo.load("diffusion")
    >>> result = pinn.train(problem, points=100, schedule=pinn.GaussNewton(20), progress=False)
    >>> session = Session(result)
    >>> row = session.influence_at([0.5, 0.25])
    >>> row.sizes["point"], str(row.top(1, by="size")["term"].values[0])
    (100, 'pde')
    >>> field = session.influence_of("pde", 7, n=100)
    >>> field.dims, float(field.target_x.min()) >= -1
    (('target',), True)
    >>> region = session.region([1, 2, 3], [0.5, 0.25])
    >>> region.size, 0 < region.share < 1
    (3, True)
    """

    def __init__(self, result: Result, influence: Influence | None = None) -> None:
        if influence is None:
            influence = Influence(result.objective)
        if influence.objective is not result.objective:
            raise ValueError(
                "the influence is that of another objective: make it with "
                "Influence(result.objective)"
            )
        self.result = result
        self.influence = influence
        self.gradients = PointGradients(influence)

    @classmethod
    def of_run(cls, path: PathLike, problem: Problem | None = None) -> Session:
        """Return a session with a run folder, see :func:`whence.pinn.load_run`."""
        return cls(load_run(path, problem))

    def quantity(self, at: ArrayLike, of: str | None = None) -> Quantity:
        """Return what is explained: an output, a derivative, or the residual of a term, at points.

        Parameters
        ----------
        at:
            One point (d,), or several (n, d).
        of:
            An output, a derivative such as ``"u_x"``, or a term for its residual; by default the
            first output.

        Raises
        ------
        ValueError
            If the name means nothing, the nearest being suggested, or a point lies outside of
            the domain.
        """
        problem = self.result.problem
        name = problem.outputs[0] if of is None else of
        rows = self._locations(at)
        if name in self.result.objective.terms and name not in problem.outputs:
            problem.check_points(name, rows)
            return Residual(rows, name)

        problem.check_points(None, rows)
        parsed = problem.parse(name)
        if parsed.output is None:
            names = (*problem.outputs, *self.result.objective.terms)
            raise ValueError(
                f"{name!r} does not depend on the network: name an output, a derivative of one "
                f"or a term ({', '.join(names)})"
            )
        return Derivative(rows, name) if parsed.index else Output(rows, name)

    def influence_at(self, at: ArrayLike, of: str | None = None) -> Attribution:
        """Return the influence of every training point on one answer.

        Parameters
        ----------
        at:
            Where, (d,).
        of:
            What, see :meth:`quantity`.

        Returns
        -------
        Attribution
            Dimension (point,), as a row of :meth:`whence.Influence.attribute`.
        """
        quantity = self.quantity(at, of)
        values, solved = self.gradients.influences(quantity)
        table = self.influence.labelled(
            values.cpu().numpy(),
            quantity,
            self.influence.prepare_points(None),
            "remove",
            solved,
        )
        self._check_single(table.sizes["target"])
        return table.isel(target=0)

    def influence_of(
        self,
        term: str,
        index: int,
        of: str | None = None,
        places: ArrayLike | None = None,
        n: int = FIELD_POINTS,
    ) -> Attribution:
        """Return the influence of one training point on an answer everywhere.

        Parameters
        ----------
        term, index:
            Which point, by its place in its term.
        of:
            What is followed, see :meth:`quantity`.
        places:
            Where it is followed, (n, d); by default a grid of about ``n`` points of the domain.
        n:
            How many, if they are not given.

        Returns
        -------
        Attribution
            Dimension (target,), with the coordinates of the places.
        """
        if places is None:
            places = self.result.problem.domain.sample(n, "grid")
        quantity = self.quantity(places, of)
        chosen = TrainingPoints({term: [index]})
        return self.influence.attribute(quantity, chosen).isel(point=0)

    def region(self, points: Members, at: ArrayLike, of: str | None = None) -> Region:
        """Return what some training points together are to one answer.

        Parameters
        ----------
        points:
            Indices or a boolean mask by term; of an objective with one term, just those.
        at, of:
            The answer, as in :meth:`influence_at`.

        Raises
        ------
        ValueError
            As :func:`whence.group_influence` has it.
        """
        quantity = self.quantity(at, of)
        groups: dict[str, Members] = {"region": points}
        (chosen,) = check_groups(self.result.objective, groups).values()
        exact = group_influence(self.influence, quantity, groups)
        self._check_single(exact.sizes["target"])

        table, _ = self.gradients.influences(quantity)
        values = table[0].cpu().numpy()
        inside = np.zeros(len(values), dtype=bool)
        first = 0
        for name, term in self.result.objective.terms.items():
            inside[first + chosen.get(name, np.zeros(0, dtype=int))] = True
            first += len(term.points)

        total = float(np.abs(values).sum())
        part = float(np.abs(values[inside]).sum())
        return Region(
            size=n_members(chosen),
            share=part / total if total else 0.0,
            first_order=float(values[inside].sum()),
            exact=float(exact.values[0, 0]),
        )

    def retrained_without(
        self, points: Members, at: ArrayLike, of: str | None = None, **options: Any
    ) -> float:
        """Return how an answer really changes when some points are left out of training.

        The network is trained on from where it is without them, see
        :func:`whence.evaluation.leaving_out.leave_out`, whose ``options`` these are: what
        :meth:`region` predicts.
        """
        quantity = self.quantity(at, of)
        changes = leave_out(
            self.result.objective, quantity, {"region": points}, **options
        )
        self._check_single(changes.sizes["target"])
        return float(changes.values[0, 0])

    def between_terms(self) -> Attribution:
        """Return what the points of each term do to the loss of each term.

        To first order: the sum over a term's points of their influences on a loss ``w_k·ℓ_k``, see
        :class:`whence.TermLoss`.

        Returns
        -------
        Attribution
            Dimensions (target, term): rows are losses, ``quantity`` their names, columns the terms
            whose points are removed. Positive: the loss rises without them.
        """
        losses = TermLoss(*self.result.objective.terms)
        return self.influence.attribute(losses).by_term()

    def _locations(self, at: ArrayLike) -> Tensor:
        """Return points (n, d) in the network's precision; one may be given as (d,)."""
        is_table = isinstance(at, (Tensor, np.ndarray)) or hasattr(at, "columns")
        if not is_table:
            at = np.asarray(at, dtype=float)
        if isinstance(at, (Tensor, np.ndarray)) and at.ndim == 1:
            at = at[None]
        rows = to_locations("the points", at, self.result.problem.coordinates)
        like = self.result.objective.parameters.vector()
        return torch.as_tensor(rows, dtype=like.dtype, device=like.device)

    def _check_single(self, n_targets: int) -> None:
        """Raise ``ValueError`` unless one answer was asked for."""
        if n_targets != 1:
            raise ValueError(
                f"one answer at a time, got {n_targets}: give one point, and of a residual with "
                "several components split the term (whence.components.split_components)"
            )
