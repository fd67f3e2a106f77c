"""Variants of a problem: wrong, or trained poorly, on purpose and by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from whence import _checks
from whence.pinn.pde.problem import Problem
from whence.pinn.training.recipe import Recipe

GOOD = "good"
"""Name of the problem as it is, which every problem has."""


@dataclass(frozen=True, eq=False)
class Variant:
    """What differs from a problem: its equations or conditions, or how it is trained.

    A module of the zoo, and a file for ``whence train FILE.py``, lists its variants by name as
    ``VARIANTS``. The reference solution stays that of the problem as it is, so that the error of a
    run says how wrong its model is.

    Parameters
    ----------
    summary:
        What is different, in words.
    problem:
        Makes the problem of the variant from the problem as it is, with hard or soft constraints;
        None where it is the same.
    recipe:
        How the variant is trained; None as the problem is.

    Raises
    ------
    TypeError
        If there are no words, or a part cannot be called.
    ValueError
        If neither the problem nor its recipe differs.

    Examples
    --------
    >>> from dataclasses import replace
    >>> from whence import pinn
    >>> viscous = pinn.Variant(
    ...     "no convection",
    ...     problem=lambda problem: replace(problem, equations={"pde": lambda u_t: u_t}))
    >>> viscous.of(pinn.zoo.load("burgers"), "viscous").fields_of("pde")
    ('u_t',)
    """

    summary: str
    problem: Callable[[Problem], Problem] | None = None
    recipe: Callable[[Problem], Recipe] | None = None

    def __post_init__(self) -> None:
        # Lists of variants show nothing else.
        if not isinstance(self.summary, str) or not self.summary.strip():
            raise TypeError(
                f"summary must say in words what is different, got {self.summary!r}"
            )
        for name in ("problem", "recipe"):
            part = getattr(self, name)
            if part is not None and not callable(part):
                raise TypeError(
                    f"{name} must be a function of the problem, or None, got {part!r}"
                )
        if self.problem is None and self.recipe is None:
            raise ValueError(
                f"the variant {self.summary!r} differs in nothing: give problem= or recipe="
            )

    def of(self, problem: Problem, name: str) -> Problem:
        """Return the problem of the variant, which knows the variant's name."""
        # One that differs in its recipe alone solves the same problem.
        changed = problem
        if self.problem is not None:
            changed = self.problem(problem)
        # A run's folder and messages take it from there.
        return replace(changed, variant=name)


def checked_variants(what: str, variants: object) -> Mapping[str, Variant]:
    """Return what a module or file lists as its variants, by name.

    Raises
    ------
    TypeError
        If these are no variants by name.
    ValueError
        If one of them has the name of the problem as it is.
    """
    # Of what is no mapping the only member is no variant by name either.
    members = variants if isinstance(variants, Mapping) else {"": variants}
    checked: dict[str, Variant] = {}
    for name, variant in members.items():
        is_named = isinstance(name, str) and bool(name)
        if not is_named or not isinstance(variant, Variant):
            raise TypeError(
                f'VARIANTS in {what} must be pinn.Variant by name, such as {{"broken": '
                f'pinn.Variant("wrong sign", problem=...)}}, got {_checks.describe(variants)}'
            )
        # Asked for by that name, the problem must be the one without faults.
        if name == GOOD:
            raise ValueError(
                f"VARIANTS in {what} has {GOOD!r}, which is the problem as it is: choose another "
                "name"
            )
        checked[name] = variant
    return checked
