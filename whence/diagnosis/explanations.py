"""What a term's residual at the trusted solution looks like: a part of it that is off, or missing.

At the trusted solution a right term vanishes. If one of its parts p has a wrong factor, what is
left is a multiple of p; if a part is missing, a multiple of that. One multiple of one part at a
time is fitted by least squares, and said only where it explains nearly all.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from whence.diagnosis.evidence import Evidence, State
from whence.shared_pass import FieldFunction, field_function
from whence.term import Term

MIN_EXPLAINED = 0.9
"""Share of the squared residual that a part must explain to be named."""

MAX_NAMED = 3
"""Parts that are named where several look alike."""
MAX_FACTOR = 10.0
"""Factor of a part beyond which it is not what is wrong."""


def explanation(evidence: Evidence, state: State, name: str) -> str:
    """Return a sentence that begins with a space, empty where no single part explains much."""
    term = evidence.fresh.term(name)
    made_of = field_function(term.residual)
    if made_of is None:
        return ""

    with evidence.objective.parameters.at(state.theta), torch.no_grad():
        residual = term.residual(evidence.objective.parameters.tensors(), term.points)
        present = list(_present(evidence, term, made_of, residual))
        # Of a term of one part everything is explained by that.
        present = present if len(present) > 1 else []
        missing = []
        if name in evidence.problem.equations:
            missing = list(_missing(evidence, term))

    # A part that is there is likelier wrong than another is missing.
    changes = []
    for words, factor in _explaining(residual, present)[:MAX_NAMED]:
        # What has to be many times as large happens to look alike.
        if abs(1 - factor) < MAX_FACTOR:
            changes.append(f"with {words} times {_rounded(1 - factor)}")
    if not changes:
        for words, factor in _explaining(residual, missing)[:MAX_NAMED]:
            changes.append(f"with {_rounded(-factor)} {words} more")
    if not changes:
        return ""
    return f" It would vanish {', or '.join(changes)}."


def _rounded(number: float) -> str:
    """Return a factor to two digits after the point; more are not known."""
    return f"{round(number, 2) + 0.0:g}"


def _explaining(
    residual: Tensor, parts: list[tuple[str, Tensor]]
) -> list[tuple[str, float]]:
    """Return the parts of which a multiple explains a residual, the best first, with its factor."""
    explaining = []
    total = float(residual.square().sum())
    for words, part in parts:
        square = float(part.square().sum())
        if not square:
            continue
        # min over a of ‖r − a p‖²: a = r·p/p·p, which explains (r·p)²/(p·p r·r) of it.
        product = float((residual * part).sum())
        share = product**2 / (square * total)
        if share > MIN_EXPLAINED:
            explaining.append((share, words, product / square))
    explaining.sort(reverse=True)
    return [(words, factor) for _, words, factor in explaining]


def _present(
    evidence: Evidence, term: Term, made_of: FieldFunction, residual: Tensor
) -> Iterator[tuple[str, Tensor]]:
    """Yield what the residual loses where a field, or every field, is zero, with its name."""
    fields, points = evidence.scales.values(term, made_of)
    zeros = {}
    for name in made_of.names:
        if evidence.problem.parse(name).output is None:
            continue
        zeros[name] = torch.zeros_like(fields[name])
        without = made_of.function({**fields, name: zeros[name]}, points)
        yield f"the part of {name}", residual - without
    prescribed = made_of.function({**fields, **zeros}, points)
    if bool(prescribed.any()):
        yield "what is prescribed", prescribed


def _missing(evidence: Evidence, term: Term) -> Iterator[tuple[str, Tensor]]:
    """Yield outputs, their derivatives to second order, and products u u_x."""
    problem = evidence.problem
    network = evidence.objective.network
    coordinates = problem.coordinates
    for output in problem.outputs:
        names = [output]
        names += [f"{output}_{c}" for c in coordinates]
        names += [f"{output}_{c}{c}" for c in coordinates]
        values = problem.evaluate(network, term.locations, names)
        for k, name in enumerate(names):
            yield name, values[:, [k]]
            if 1 <= k <= len(coordinates):
                yield f"{output} {name}", values[:, [0]] * values[:, [k]]
    yield "(a constant)", torch.ones_like(values[:, [0]])
