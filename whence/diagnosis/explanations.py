"""What a term's residual at the trusted solution looks like: a part of it that is off, or missing.

At the trusted solution a right term vanishes. If one of its parts p has a wrong factor, what is
left is a multiple of p; if a part is missing, a multiple of that. One multiple of one part at a
time is fitted by least squares, and said only where it explains nearly all.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from whence.diagnosis.evidence import Evidence, State
from whence.points import locations
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

    parameters = evidence.objective.parameters
    with parameters.at(state.theta), torch.no_grad():
        residual = term.residual(parameters.tensors(), term.points)
        present = parts_present(evidence, term, made_of, residual)
        # What a condition lacks is never a derivative of the solution.
        missing = {}
        if name in evidence.problem.equations:
            missing = parts_missing(evidence, term)

    # Of a term of one part everything is explained by that.
    changes = []
    if len(present) > 1:
        for words, factor in explaining(residual, present):
            # r − a p vanishes with p times 1 − a.
            # What has to be many times as large happens to look alike.
            if abs(1 - factor) < MAX_FACTOR:
                changes.append(f"with {words} times {in_words(1 - factor)}")

    # A part that is there is likelier wrong than another is missing.
    if not changes:
        for words, factor in explaining(residual, missing):
            changes.append(f"with {in_words(-factor)} {words} more")
    if not changes:
        return ""

    listed = ", or ".join(changes)
    return f" It would vanish {listed}."


def in_words(number: float) -> str:
    """Return a factor to two digits after the point; more are not known."""
    rounded = round(number, 2)
    # Adding zero leaves no −0.
    return f"{rounded + 0.0:g}"


def explaining(
    residual: Tensor, parts: Mapping[str, Tensor]
) -> list[tuple[str, float]]:
    """Return the parts of which a multiple explains a residual, the best first, with its factor.

    Examples
    --------
    >>> import torch
    >>> from whence.diagnosis.explanations import explaining
    >>> u, v = torch.tensor([[1.0], [2.0]]), torch.tensor([[1.0], [-2.0]])
    >>> explaining(3 * u, {"u": u, "v": v})
    [('u', 3.0)]
    """
    total = float(residual.square().sum())
    likely = []
    for words, part in parts.items():
        square = float(part.square().sum())
        if not square:
            continue

        # min over a of ‖r − a p‖²: a = r·p/p·p, which explains (r·p)²/(p·p r·r) of it.
        product = float((residual * part).sum())
        factor = product / square
        share = product * factor / total
        if share > MIN_EXPLAINED:
            likely.append((share, words, factor))

    likely.sort(reverse=True)
    return [(words, factor) for _, words, factor in likely[:MAX_NAMED]]


def parts_present(
    evidence: Evidence, term: Term, made_of: FieldFunction, residual: Tensor
) -> dict[str, Tensor]:
    """Return what a residual loses where a field, or every field, is zero, by its name."""
    fields, points = evidence.scales.values(term, made_of)
    parts = {}
    nothing = dict(fields)
    for name in made_of.names:
        parsed = evidence.problem.parse(name)
        if parsed.output is None:
            continue
        nothing[name] = torch.zeros_like(fields[name])
        without = dict(fields)
        without[name] = nothing[name]
        # What the residual has of this field: r(f) − r(0).
        rest = made_of.function(without, points)
        parts[f"the part of {name}"] = residual - rest

    prescribed = made_of.function(nothing, points)
    if bool(prescribed.any()):
        parts["what is prescribed"] = prescribed
    return parts


def parts_missing(evidence: Evidence, term: Term) -> dict[str, Tensor]:
    """Return outputs, their derivatives to second order, and products u u_x, (n, 1), by name."""
    problem = evidence.problem
    network = evidence.objective.network
    points = locations(term.points)
    parts = {}
    for output in problem.outputs:
        names = [output]
        for coordinate in problem.coordinates:
            names.append(f"{output}_{coordinate}")
            names.append(f"{output}_{coordinate}{coordinate}")
        values = problem.evaluate(network, points, names)

        for k, name in enumerate(names):
            parts[name] = values[:, [k]]
        for coordinate in problem.coordinates:
            # u u_x, as of advection.
            slope = f"{output}_{coordinate}"
            parts[f"{output} {slope}"] = parts[output] * parts[slope]

    constant = torch.ones(len(points), 1)
    parts["(a constant)"] = constant.to(points)
    return parts
