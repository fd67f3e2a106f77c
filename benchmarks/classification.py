"""Digits: the full matrix of test by training images, beside pyDVL and captum.

``python -m benchmarks.classification``: 1200 training and 297 test images through a network of
3466 parameters (64, 32, 32, 10), float32, the last two layers or all of them; influence on the
test losses with one damping for all, factorisation included. Agreement is the Spearman correlation
over training images with the exact answer in float64, mean over test images: that of the Hessian
for influence functions, of the same checkpoints for TracIn. Each contestant runs in a process of
its own with the same threads, one after the other.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import torch
from scipy.stats import spearmanr
from torch import nn

import whence as wh
from benchmarks import _digits, _measure
from benchmarks._measure import Row

FASTER = 5.0
SLOW = 20.0
"""Seconds after which a contestant is not run again."""
LIMIT, QUICK_LIMIT = 300.0, 30.0
DAMPING = 0.1
CHECKPOINTS = 6


@dataclass(frozen=True)
class Case:
    """What every contestant is given: made anew, alike, in each process."""

    layers: tuple[str, ...] | None
    training: int
    test: int
    epochs: int
    limit: float
    dtype: torch.dtype = torch.float32

    def made(self) -> tuple[nn.Sequential, list[Any], Any, Any]:
        """Return the network, its states, training and test data."""
        torch.set_num_threads(1)  # so that every process trains the same network
        data, model = _digits.digits(), _digits.network()
        train = data.x[: self.training], data.y[: self.training]
        states = _digits.train(
            model, *train, self.epochs, weight_decay=1e-2, checkpoints=CHECKPOINTS
        )
        model = model.to(self.dtype)
        states = [{n: t.to(self.dtype) for n, t in state.items()} for state in states]
        test = data.x_test[: self.test], data.y_test[: self.test]
        return model, states, *((x.to(self.dtype), y) for x, y in (train, test))


def ours(case: Case, method: Callable[..., Any]) -> Callable[[], Any]:
    """Return the attribution as a function without arguments."""
    model, states, train, test = case.made()
    names = (
        None if case.layers is None else tuple(f"{layer}.*" for layer in case.layers)
    )

    def run() -> Any:
        loss = nn.CrossEntropyLoss()
        objective = wh.Objective.supervised(model, train, loss, parameters=names)
        return method(objective, states).attribute(wh.Loss(*test)).values

    return run


def influence(**options: Any) -> Callable[..., Any]:
    """Return what makes an influence function with this damping."""
    damping = wh.Damping(DAMPING, relative=False)
    return lambda objective, states: wh.Influence(objective, damping=damping, **options)


def theirs(case: Case, name: str) -> Callable[[], Any]:
    """Return a peer's attribution as a function without arguments."""
    from benchmarks import _peers_on_digits as peers

    model, states, train, test = case.made()
    library, kind = name.split()
    if library == "pyDVL":
        return lambda: peers.pydvl(kind, model, case.layers, DAMPING, train, test)
    if kind == "TracInCP":
        return lambda: peers.captum_tracin(model, case.layers, states, train, test)
    return lambda: peers.captum_arnoldi(model, case.layers, train, test)


def tracin(objective: wh.Objective, states: list[Any]) -> wh.TracIn:
    """Return TracIn over the states."""
    return wh.TracIn(objective, states)


HESSIAN, TRACIN = "exact Hessian", "exact TracIn"
EXACT = {HESSIAN: influence(curvature="hessian"), TRACIN: tracin}
OURS = {
    "Influence(curvature='hessian')": (influence(curvature="hessian"), HESSIAN),
    "Influence()": (influence(), HESSIAN),
    "Influence(solver=EKFAC(coupled=0))": (
        influence(solver=wh.EKFAC(coupled=0)),
        HESSIAN,
    ),
    "TracIn": (tracin, TRACIN),
}
THEIRS = {
    "pyDVL direct": ("Influence(curvature='hessian')", HESSIAN),
    "pyDVL CG": ("Influence(curvature='hessian')", HESSIAN),
    "pyDVL Arnoldi": ("Influence()", HESSIAN),
    "captum Arnoldi": ("Influence()", HESSIAN),
    "captum TracInCP": ("TracIn", TRACIN),
}


def agreement(exact: np.ndarray, found: np.ndarray) -> float:
    """Return the mean over test images of the Spearman correlation over training images."""
    return float(
        np.mean([spearmanr(a, b)[0] for a, b in zip(exact, found, strict=True)])
    )


def limited(
    case: Case, name: str, threads: int, repeats: int
) -> tuple[float, np.ndarray] | None:
    """Run a contestant in a fresh process, the best of some runs; None beyond the limit."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(
        target=_contestant, args=(sender, case, name, threads, repeats)
    )
    process.start()
    sender.close()
    try:
        found: tuple[float, np.ndarray] | None = None
        if receiver.poll(
            case.limit + 60
        ):  # and the time it takes to import and to train
            found = receiver.recv()
        return found
    finally:
        process.kill()
        process.join()


def _contestant(
    sender: Connection, case: Case, name: str, threads: int, repeats: int
) -> None:
    run = (
        theirs(case, name)
        if name in THEIRS
        else ours(case, {**EXACT, **_methods()}[name])
    )
    torch.set_num_threads(threads)
    taken = []
    for _ in range(repeats):
        seconds, found = _measure.once(run)
        taken.append(seconds)
        if seconds > SLOW:
            break
    sender.send((min(taken), np.asarray(found)))


def _methods() -> dict[str, Callable[..., Any]]:
    return {name: method for name, (method, _) in OURS.items()}


def compared(case: Case, label: str, threads: int, repeats: int) -> list[Row]:
    """Return the rows of one choice of layers."""
    exact = {}
    for name in EXACT:
        found = limited(replace(case, dtype=torch.float64), name, threads, 1)
        assert found is not None
        exact[name] = found[1]
    rows, seconds, agreements = [], {}, {}
    for name, reference in [(n, r) for n, (_, r) in OURS.items()] + [
        (n, r) for n, (_, r) in THEIRS.items()
    ]:
        _measure.say(f"{label}: {name}")
        found = limited(case, name, threads, repeats)
        if found is None:
            rows.append(
                Row(
                    f"{label}: {name}", case.limit, "s", "not done by then", beyond=True
                )
            )
            seconds[name] = None
            continue
        seconds[name], agreements[name] = (
            found[0],
            agreement(exact[reference], found[1]),
        )
        detail = f"agreement {agreements[name]:.4f} with {reference}"
        rows.append(Row(f"{label}: {name}", found[0], "s", detail))
    for name, (own, _) in THEIRS.items():
        ratio = (seconds[name] or case.limit) / (seconds[own] or float("nan"))
        against = f", agreement {agreements[name]:.4f}" if name in agreements else ""
        detail = f"{own}, agreement {agreements[own]:.4f}; {name}{against}"
        what, late = f"{label}: faster than {name}", seconds[name] is None
        least = None if name == "pyDVL Arnoldi" else FASTER
        rows.append(Row(what, ratio, "times", detail, least=least, beyond=late))
    return rows


def measure(quick: bool, threads: int) -> list[Row]:
    """Return all rows."""
    training, test, epochs, repeats = (100, 5, 5, 1) if quick else (1200, 297, 150, 3)
    limit = QUICK_LIMIT if quick else LIMIT
    rows = []
    for label, layers in (("last two layers", ("2", "4")), ("all layers", None)):
        rows += compared(
            Case(layers, training, test, epochs, limit), label, threads, repeats
        )
    return rows


def main() -> None:
    """Measure and print."""
    given = _measure.parser(__doc__).parse_args()
    _measure.run(given, lambda: measure(given.quick, given.threads))


if __name__ == "__main__":
    main()
