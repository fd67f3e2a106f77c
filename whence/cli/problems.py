"""``whence problems``: list the benchmark problems, or describe one."""

from __future__ import annotations

import dataclasses
import inspect
from pathlib import Path
from typing import Any

import tyro

from whence.catalogue import PROBLEMS
from whence.cli.sources import source_of
from whence.pinn.geometry.boundary import named
from whence.pinn.pde.problem import Problem
from whence.pinn.training.problem_file import ProblemFile
from whence.pinn.training.recipe import Recipe


@dataclasses.dataclass(frozen=True)
class Options:
    """List the benchmark problems, or describe one: equation, domain, conditions, recipe."""

    problem: tyro.conf.Positional[str | None] = None
    """One problem, or a Python file that defines one."""


def run(options: Options, arguments: Any) -> int:
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
    _describe(source)
    return 0


def _describe(source: ProblemFile) -> None:
    problem = source.problem()
    bounds = named(problem.coordinates, problem.domain.bounds.T)
    print(f"domain       {bounds}")
    print(f"outputs      {', '.join(problem.outputs)}")
    for name, equation in problem.equations.items():
        fields = ", ".join(problem.fields_of(name))
        print(f"equation     {name}({fields}): {_first_line(equation)}")
    _describe_conditions(problem)
    print(f"terms        {', '.join(problem.terms)}")
    if source.has_constraints:
        soft = source.problem("soft")
        print("soft constraints (--constraints soft):")
        _describe_conditions(soft)
        print(f"terms        {', '.join(soft.terms)}")
    network = source.network(problem, seed=0)
    print(f"network      {network!r}")
    _describe_recipe(source.recipe(problem))
    reference = "none" if problem.solution is None else _first_line(problem.solution)
    print(f"reference    {reference}")


def _describe_conditions(problem: Problem) -> None:
    if problem.ansatz is not None:
        print(f"ansatz       {_first_line(problem.ansatz)}")
    for condition in problem.conditions:
        where = condition.on or (condition.along and f"along {condition.along}")
        place = "at the start" if where is None else f"on {where}"
        fields = ", ".join(problem.fields_of(condition.name))
        print(f"condition    {condition.name} {place}: {fields}")


def _describe_recipe(recipe: Recipe) -> None:
    points = ", ".join(f"{term}={count}" for term, count in recipe.points.items())
    print(f"points       {points}")
    print(f"schedule     {', '.join(map(repr, recipe.schedule))}")
    print(f"resampling   {recipe.resample!r}")
    limit = "none" if recipe.max_seconds is None else f"{recipe.max_seconds:g} s"
    print(f"time limit   {limit}")


def _first_line(function: Any) -> str:
    """Return what a function says of itself: its docstring's first line, or its source."""
    doc = (inspect.getdoc(function) or "").strip()
    if doc:
        return doc.splitlines()[0]
    try:
        return inspect.getsource(function).strip().splitlines()[0]
    except (OSError, TypeError):
        return getattr(function, "__name__", repr(function))
