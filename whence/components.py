"""Terms whose residual has several components, as terms of one component each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from torch import Tensor

from whence.jacobian import Jacobian
from whence.losses import Squared
from whence.objective import Objective
from whence.points import Points, Pointwise, are_samples
from whence.space import Space
from whence.term import Term


def split_components(objective: Objective) -> Objective:
    """Return the same objective with a term for each residual component: ``flow_1``, ``flow_2``.

    As ``‖r‖² = Σ_k r_k²``, the loss, its gradient and its Gauss–Newton matrix are the same, and so
    is what is predicted; a point of the term is one of each component. The term's name stays as
    that of a group of terms. Terms of one component, of samples, or of another loss than
    :class:`whence.Squared` stay as they are.

    Parameters
    ----------
    objective:
        What was trained.

    Examples
    --------
    >>> import torch, whence as wh
    >>> from whence import pinn
    >>> from whence.components import split_components
    >>> problem = pinn.Problem(
    ...     domain=pinn.Interval("x", 0, 1), outputs=("u", "v"),
    ...     equations={"ode": lambda u_x, v, v_x, u: (u_x - v, v_x + u)})
    >>> objective = problem.objective(pinn.MLP([1, 8, 2], seed=0), problem.sample(10, seed=0))
    >>> split = split_components(objective)
    >>> list(split.terms), bool(split.loss().isclose(objective.loss()))
    (['ode_1', 'ode_2'], True)
    """
    terms: list[Term] = []
    names: dict[str, tuple[str, ...]] = {}
    counts = Jacobian(objective).components()
    for name, term in objective.terms.items():
        is_sum = isinstance(term.loss, Squared)
        is_table = not are_samples(term.points)
        parts = [term]
        # Another loss may not be a sum over components, as a cross entropy is none.
        if counts[name] > 1 and is_sum and is_table:
            parts = component_terms(term, counts[name])
        terms += parts
        names[name] = tuple(part.name for part in parts)

    if len(terms) == len(objective.terms):
        return objective
    # It knows where the components hold, which is where the term does.
    space = ComponentSpace(objective.space, names)
    split = objective.with_terms(terms)
    return split.with_space(space)


def component_terms(term: Term, count: int) -> list[Term]:
    """Return a term for each component of a term's residual, numbered from 1."""
    parts = []
    for column in range(count):
        part = replace(
            term,
            name=f"{term.name}_{column + 1}",
            residual=_component(term.residual, column),
        )
        parts.append(part)
    return parts


def _component(residual: Pointwise, column: int) -> Pointwise:
    """Return one column of a residual as a residual, (n, 1)."""

    def at(tensors: Mapping[str, Tensor], points: Points) -> Tensor:
        values = residual(tensors, points)
        return values[
            :, column : column + 1
        ]  # a slice, (n, 1), where an index gives (n,)

    # What messages call it.
    whole = getattr(residual, "__qualname__", "the residual")
    at.__qualname__ = f"component {column + 1} of {whole}"
    return at


class ComponentSpace(Space):
    """The space of an objective whose terms were split: each holds where the whole term did.

    Parameters
    ----------
    space:
        The space before.
    names:
        The terms that each term became.
    """

    def __init__(self, space: Space, names: Mapping[str, tuple[str, ...]]) -> None:
        # A term that was split is a group from here on, and so is any group that it was in.
        groups = {name: parts for name, parts in names.items() if parts != (name,)}
        for group, members in space.groups.items():
            of_group: tuple[str, ...] = ()
            for name in members:
                # A term without points is no part of the objective.
                of_group += names.get(name, ())
            groups[group] = of_group
        super().__init__(space.coordinates, space.outputs, space.evaluate, groups)

        whole: dict[str, str] = {}
        for name, parts in names.items():
            whole |= dict.fromkeys(parts, name)
        # Not fields of Space, whose dataclass is frozen.
        object.__setattr__(self, "space", space)
        object.__setattr__(self, "whole", whole)

    space: Space
    whole: Mapping[str, str]

    def draw(self, term: str, n: int, seed: int, method: str = "random") -> Tensor:
        """Return n fresh points (n, d) where the term holds."""
        whole = self.whole[term]
        return self.space.draw(
            whole,
            n,
            seed,
            method,
        )

    def check(self, term: str | None, points: Tensor) -> None:
        """Raise ``ValueError`` for points where the term does not hold."""
        # Without a term: where the network has a meaning.
        whole = None if term is None else self.whole[term]
        self.space.check(whole, points)
