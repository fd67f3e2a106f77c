"""``whence problems``: list the benchmark problems, or describe one."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated

import tyro
from torch import Tensor

from whence.catalogue import PROBLEMS
from whence.cli.flags import default_words
from whence.cli.sources import source_of
from whence.pinn.geometry.boundary import named
from whence.pinn.pde.conditions import Condition
from whence.pinn.pde.equation import Component, Equation, Residual
from whence.pinn.pde.problem import Problem
from whence.pinn.training.pinned import pinned_rows
from whence.pinn.training.problem_file import ProblemFile
from whence.pinn.training.recipe import Recipe


@dataclasses.dataclass(frozen=True)
class Options:
    """List the benchmark problems, or describe one: equation, domain, conditions, recipe."""

    problem: Annotated[
        tyro.conf.Positional[str | None], default_words("all", "PROBLEM")
    ] = None
    """One problem, or a Python file that defines one."""


def run(options: Options, arguments: Sequence[str]) -> int:
    """Print one line on each problem, or all of one; return the exit code."""
    if options.problem is None:
        for name in PROBLEMS:
            print(f"{name:16s} {PROBLEMS.summary(name)}")
        print("describe one with: whence problems burgers")
        print("train one with: whence train burgers")
        return 0

    source = source_of(options.problem)
    if Path(options.problem).suffix != ".py":
        print(PROBLEMS.summary(options.problem))
    for label, text in description(source):
        print(f"{label:12s} {text}")
    return 0


Line = tuple[str, str]
"""What a line is about, and what it says."""


def description(source: ProblemFile) -> Iterator[Line]:
    """Yield the lines that describe a problem and how it is trained."""
    problem = source.problem()
    # With the default constraints, then what differs with soft ones.
    yield "domain", named(problem.coordinates, problem.domain.bounds.T)
    yield "outputs", ", ".join(problem.outputs)
    for name, equation in problem.equations.items():
        fields = ", ".join(problem.fields_of(name))
        yield "equation", f"{name}({fields}): {equation_text(equation)}"
    yield from conditions(problem)

    if source.has_constraints:
        yield "with", "--constraints soft:"
        yield from conditions(source.problem("soft"))

    yield "network", repr(source.network(problem, seed=0))
    yield from recipe_lines(problem, source.recipe(problem))
    for name, variant in source.variants.items():
        yield "variant", f"{name}: {variant.summary}"
    if source.functionals:
        # By the names that whence influence RUN --of takes.
        yield "functionals", ", ".join(source.functionals)
    if problem.solution is None:
        yield "reference", "none"
    else:
        yield "reference", first_line(problem.solution)


def equation_text(equation: Residual) -> str:
    """Return what an equation, or the function that it is a component of, says of itself."""
    residual = equation.residual if isinstance(equation, Equation) else equation
    if not isinstance(residual, Component):
        return first_line(residual)

    number = residual.position + 1
    whole = first_line(residual.whole)
    return f"component {number} of {len(residual.names)} of {whole}"


def conditions(problem: Problem) -> Iterator[Line]:
    """Yield how initial and boundary conditions are met, and the terms of the loss."""
    if problem.ansatz is not None:
        yield "ansatz", first_line(problem.ansatz)

    for name, unknown in problem.unknowns.items():
        yield "unknown", f"{name}: {unknown}"
    for name, derived in problem.derived.items():
        yield "derived", f"{name}: {derived}"

    for condition in problem.conditions:
        if not isinstance(condition, Condition):
            kind = type(condition).__name__.lower()
            yield (
                kind,
                f"{condition.name}: {', '.join(problem.fields_of(condition.name))}",
            )
            continue

        place = "at the start"
        if isinstance(condition.on, str):
            place = f"on {condition.on}"
        elif condition.on is not None:
            place = f"on {names_of(condition.on)}"
        elif condition.along is not None:
            place = f"along {condition.along}"

        fields = ", ".join(problem.fields_of(condition.name))
        yield "condition", f"{condition.name} {place}: {fields}"

    yield "terms", ", ".join(problem.terms)


def names_of(on: Iterable[str] | Callable[..., Tensor]) -> str:
    """Return the parts of a boundary that a condition names, or the function that selects them."""
    if callable(on):
        return f"the points of {first_line(on)}"
    return " and ".join(on)


def recipe_lines(problem: Problem, recipe: Recipe) -> Iterator[Line]:
    """Yield how a problem is trained unless flags say otherwise."""
    counts = [f"{term}={count}" for term, count in recipe.points.items()]
    yield "points", ", ".join(counts)
    for term, rows in pinned_rows(problem, recipe.pinned).items():
        yield "pinned", f"{term}={len(rows)} that never leave"
    yield "schedule", ", ".join(map(repr, recipe.schedule))
    yield "resampling", "none" if recipe.resample is None else repr(recipe.resample)
    if recipe.max_seconds is None:
        yield "time limit", "none"
    else:
        yield "time limit", f"{recipe.max_seconds:g} s"


def first_line(function: Callable[..., object]) -> str:
    """Return what a function says of itself: its docstring's first line, or its source."""
    doc = (inspect.getdoc(function) or "").strip()
    if doc:
        return doc.splitlines()[0].removeprefix("Return ")

    name: str = getattr(function, "__name__", repr(function))
    try:
        source = inspect.getsource(function).strip()
    except (OSError, TypeError):  # made at run time, or not a function of Python
        return name
    if name == "<lambda>":
        return lambda_source(source)
    return source.splitlines()[0]


def lambda_source(source: str) -> str:
    """Return the first lambda of some source, without what stands around it."""
    text = " ".join(source[source.find("lambda") :].split())
    depth = 0
    in_body = False
    for k, character in enumerate(text):
        if character in "([{":
            depth += 1
        elif character in ")]}":
            depth -= 1
        elif character == ":" and depth == 0:
            # A colon in brackets is of a slice or a dict, not the one before the body.
            in_body = True
        # A bracket that the lambda did not open, or a comma after its body, ends it.
        if depth < 0 or (in_body and depth == 0 and character == ","):
            return text[:k]
    return text
