"""Per-sample gradients of every kind of model, against a loop of plain autograd.

``python -m benchmarks.model_kinds``: a tiny model of each kind in float64, its data, and its loss
as it is trained. For each: the rows of all samples' gradients by whence against one backward pass
through torch's own loss for each sample, alone (BAR: 1e-10 of the largest entry); the objective's
loss against torch's over all data; which route the rows take (layers, layers and a rest through
``torch.func``, ``torch.func``, a reverse loop), what the rows cost beside the loop, and whether
EKFAC can be made. ``--kinds`` names some of them. Models of transformers are made from a
configuration, with random weights.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

import whence as wh
from benchmarks import _measure
from benchmarks._kinds import KINDS, Kind
from whence.autodiff import FunctionLinearization, ReverseLinearization
from whence.jacobian import point_gradients
from whence.linearization import LayerLinearization, Linearization

BAR = 1e-10
REPEATS = 3
QUICK = 4
"""Kinds that --quick measures, the first of all."""


def route_of(linear: Linearization) -> str:
    """Return by which route rows are made, in words."""
    if isinstance(linear, FunctionLinearization):
        return "torch.func"
    if isinstance(linear, ReverseLinearization):
        return "reverse loop"
    assert isinstance(linear, LayerLinearization)
    n_others = len(linear.others)
    return "layers" if not n_others else f"layers, {n_others} by torch.func"


def rows_of(objective: wh.Objective) -> tuple[Tensor, str]:
    """Return the gradient of every sample's loss, (n, P), and the route."""
    parts, route = [], ""
    (term,) = objective.terms.values()
    for _, linear, cotangent in point_gradients(
        term, objective.parameters, term.points
    ):
        parts.append(linear.rows(cotangent))
        route = route_of(linear)
    return torch.cat(parts), route


def looped(kind: Kind, objective: wh.Objective) -> Tensor:
    """Return the same by one backward pass through torch's loss for each sample."""
    named = dict(kind.model.named_parameters())
    chosen = [named[name] for name in objective.parameters.names]
    rows = []
    for i in range(kind.n):
        gradients = torch.autograd.grad(
            kind.sample_loss(i), chosen, allow_unused=True, materialize_grads=True
        )
        rows.append(torch.cat([gradient.flatten() for gradient in gradients]))
    return torch.stack(rows)


def seconds(function: Callable[[], object]) -> float:
    """Return the least seconds of some runs."""
    return min(_measure.once(function)[0] for _ in range(REPEATS))


def ekfac_of(objective: wh.Objective) -> str:
    """Return whether EKFAC can be made, or why not."""
    try:
        influence = wh.Influence(
            objective, solver=wh.EKFAC(), curvature="gauss_newton", damping=1e-2
        )
        influence.self_influence()
    except ValueError as error:
        return "loss not convex" if "not convex" in str(error) else f"no: {error}"[:60]
    return "yes"


def measured(kind: Kind) -> list[str]:
    """Return the line of a kind."""
    objective = wh.Objective.supervised(
        kind.model, kind.data, kind.loss, parameters=kind.parameters
    )
    rows, route = rows_of(objective)
    expected = looped(kind, objective)
    error = float((rows - expected).abs().max() / expected.abs().max())

    loss, of_torch = float(objective.loss().detach()), float(kind.whole_loss().detach())
    of_loss = abs(loss - of_torch) / abs(of_torch)
    ours = seconds(lambda: rows_of(objective))
    theirs = seconds(lambda: looped(kind, objective))
    met = "yes" if error <= BAR and of_loss <= BAR else "**no**"
    return [
        kind.name,
        str(objective.parameters.size),
        f"{error:.1e}",
        f"{of_loss:.1e}",
        met,
        route,
        f"{ours / theirs:.2f}",
        ekfac_of(objective),
    ]


def lines(names: list[str]) -> Iterator[list[str]]:
    """Yield the line of each kind."""
    for name, make in KINDS.items():
        if name not in names:
            continue
        torch.manual_seed(0)
        begun = time.perf_counter()
        try:
            yield measured(make(name))
        except (ValueError, TypeError, RuntimeError, IndexError) as error:
            said = f"{type(error).__name__}: {str(error)[:90]}"
            yield [name, "–", "–", "–", "**no**", said, "–", "–"]
        _measure.say(f"{name}: {time.perf_counter() - begun:.1f} s")


def main() -> None:
    """Measure and print the table."""
    parser = _measure.parser(__doc__)
    parser.add_argument("--kinds", nargs="*", default=[], help="some of the kinds")
    given = parser.parse_args()
    unknown = [name for name in given.kinds if name not in KINDS]
    if unknown:
        parser.error(f"unknown kind {unknown[0]!r}: the kinds are {', '.join(KINDS)}")
    names = given.kinds or list(KINDS)
    if given.quick:
        names = names[:QUICK]
    torch.set_num_threads(given.threads)
    warnings.filterwarnings("ignore", "There is a performance drop")
    head = [
        "kind",
        "parameters",
        "gradients",
        "loss",
        "met",
        "route",
        "time / loop",
        "EKFAC",
    ]
    print(_measure.table(head, lines(names)))


if __name__ == "__main__":
    main()
