"""A problem on a part of its time, and on all parts together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor

from whence.pinn.geometry.domain import Domain, Interval, Product
from whence.pinn.pde.conditions import Condition
from whence.pinn.pde.data import Data
from whence.pinn.pde.derived import At
from whence.pinn.pde.problem import Problem

CONTINUITY = "continuity"
"""Name of the term that ties a slab to the one before it."""
BEFORE = 1e-12
"""How far before an edge the slab before it is asked, in units of the whole time."""


def slab_problem(
    problem: Problem, low: float, high: float, before: Data | None
) -> Problem:
    """Return the problem between two times.

    Parameters
    ----------
    problem:
        The whole problem.
    low, high:
        The times.
    before:
        What the solution is at ``low``, in place of initial conditions; None for the first slab.

    Raises
    ------
    ValueError
        If the problem cannot be cut along time.
    """
    check_slabs(problem)
    assert problem.time is not None
    domain = between(problem.domain, problem.time, low, high)
    conditions = list(problem.conditions)
    if before is not None:
        conditions = [c for c in conditions if not is_initial(c, problem)]
        conditions.append(before)
    return replace(problem, domain=domain, conditions=conditions)


def joined_problem(problem: Problem, edges: Sequence[float]) -> Problem:
    """Return the problem with a condition at each edge, that both slabs agree there.

    The condition ``continuity_k`` at edge k compares what the slab above the edge says with what
    the one below does: outputs, and their derivatives along time up to one below the equations'
    own order.
    """
    check_slabs(problem)
    time = problem.time
    assert time is not None
    column = problem.coordinates.index(time)
    low, high = problem.domain.bounds[:, column]
    reach = BEFORE * float(high - low)
    names = continued_fields(problem)
    derived = dict(problem.derived)
    conditions = list(problem.conditions)

    for k, edge in enumerate(edges, start=1):
        before = []
        for name in names:
            earlier = f"{name}_before_{k}"
            derived[earlier] = At(name, **{time: float(edge) - reach})
            before.append(earlier)
        condition = Condition(
            f"{CONTINUITY}_{k}", {time: float(edge)}, _jump, (*names, *before)
        )
        conditions.append(condition)

    return replace(problem, derived=derived, conditions=conditions)


def _jump(*fields: Tensor) -> tuple[Tensor, ...]:
    """Return the differences of the first half of the fields and the second."""
    n = len(fields) // 2
    pairs = zip(fields[:n], fields[n:], strict=True)
    return tuple(above - below for above, below in pairs)


def check_slabs(problem: Problem) -> None:
    """Raise ``ValueError`` unless the problem can be cut along time."""
    time = problem.time
    if time is None:
        raise ValueError(
            f"{problem.name!r} has no time to cut into slabs: its coordinates are "
            f"{', '.join(problem.coordinates)} (pass time= to Problem)"
        )
    if problem.given_terms:
        raise ValueError(
            f"slabs take no measurements and integrals yet, {problem.name!r} has "
            f"{', '.join(problem.given_terms)}: train it as a whole"
        )
    if problem.unknowns:
        raise ValueError(
            f"slabs take no unknowns, which all times share; {problem.name!r} has "
            f"{', '.join(problem.unknowns)}: train it as a whole"
        )
    for condition in problem.conditions:
        part = condition.part(problem.domain, time)  # type: ignore[union-attr]
        if part.name == f"{time}_max":
            raise ValueError(
                f"condition {condition.name!r} holds at the end of time, from which no slab can "
                "start: train the problem as a whole"
            )


def is_initial(condition: object, problem: Problem) -> bool:
    """Whether a condition holds at the start of time."""
    if not isinstance(condition, Condition):
        return False
    part = condition.part(problem.domain, problem.time)
    return part.name == f"{problem.time}_min"


def between(domain: Domain, time: str, low: float, high: float) -> Domain:
    """Return the domain between two times."""
    if isinstance(domain, Interval) and domain.name == time:
        return Interval(time, low, high)

    factors = list(domain.factors) if isinstance(domain, Product) else []
    for k, factor in enumerate(factors):
        if isinstance(factor, Interval) and factor.name == time:
            factors[k] = Interval(time, low, high)
            return Product(tuple(factors))

    raise ValueError(
        f"slabs need a domain that is a product with an interval of time, such as "
        f"space * pinn.Interval({time!r}, 0, 1), got {domain!r}"
    )


def continued_fields(problem: Problem) -> tuple[str, ...]:
    """Return the outputs, and as many derivatives along time as an initial value needs."""
    assert problem.time is not None
    column = problem.coordinates.index(problem.time)
    orders = dict.fromkeys(range(len(problem.outputs)), 0)
    for term in problem.equations:
        for field in problem.fields_of(term):
            name = problem.parse(field)
            if name.output is not None and name.output in orders:
                order = name.index.count(column)
                orders[name.output] = max(orders[name.output], order)

    names = []
    for position, output in enumerate(problem.outputs):
        names.append(output)
        for order in range(1, orders[position]):
            names.append(f"{output}_{problem.time * order}")
    return tuple(names)
