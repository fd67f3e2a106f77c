"""Influences beside kronfluence's and dattri's on the same job: seconds at equal agreement.

``python -m benchmarks.curvature_peers``, in an environment that has both. Trained classifiers, the
losses of 100 test samples, λ the same for all. Agreement is the mean over test samples of
Spearman's correlation with exact Gauss–Newton influences in float64. Each of their methods is timed
in turn with whence's solvers, and compared with the fastest of those that agree at least as well.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable

import numpy as np
from scipy.stats import spearmanr
from torch import nn

import whence as wh
from benchmarks import _dattri, _kronfluence, _measure
from benchmarks._measure import Row, Timing
from benchmarks._trainings import Training, trainings

DAMPING = 1e-2
"""Relative to the largest eigenvalue: what serves the exact answer best (benchmarks.lds)."""
FACTOR = 2.0
MODELS = ("digits MLP", "tabular", "small CNN")
SOLVERS = {
    "Influence()": "auto",
    "EKFAC()": wh.EKFAC(),
    "EKFAC(mc_samples=1)": wh.EKFAC(mc_samples=1),
    "EKFAC(mc_samples=2)": wh.EKFAC(mc_samples=2),
    "EKFAC(mc_samples=2, coupled=500)": wh.EKFAC(mc_samples=2, coupled=500),
    "EKFAC(mc_samples=1, coupled=0)": wh.EKFAC(mc_samples=1, coupled=0),
    "Nystrom(rank=50)": wh.Nystrom(rank=50),
    "DataInf()": wh.DataInf(),
}
GRADIENTS = "GradDot()"
OURS = (*SOLVERS, GRADIENTS)

Array = np.ndarray
SolverLike = wh.EKFAC | wh.Nystrom | wh.DataInf | str
Attribute = Callable[[], Array]


def exact(case: Training, model: nn.Module) -> tuple[Array, float]:
    """Return the exact influences in double precision, (test, train), and the absolute λ."""
    x, y = case.train
    x_test, y_test = case.test
    doubled = copy.deepcopy(model).double()
    made = wh.Influence(
        doubled, (x.double(), y), nn.CrossEntropyLoss(), damping=DAMPING
    )
    found = made.attribute(wh.Loss((x_test.double(), y_test)))
    return found.values, found.attrs["damping"]


def ours(case: Training, model: nn.Module, damping: float) -> dict[str, Attribute]:
    """Return whence's solvers, each from the model on."""

    def attribute(solver: SolverLike) -> Array:
        made = wh.Influence(
            model,
            case.train,
            nn.CrossEntropyLoss(),
            solver=solver,
            damping=wh.Damping(damping, relative=False),
        )
        return made.attribute(wh.Loss(case.test)).values

    def products() -> Array:
        made = wh.GradDot(model, case.train, nn.CrossEntropyLoss())
        return made.attribute(wh.Loss(case.test)).values

    jobs: dict[str, Attribute] = {GRADIENTS: products}
    for name, solver in SOLVERS.items():
        jobs[name] = lambda s=solver: attribute(s)
    return jobs


def theirs(case: Training, model: nn.Module, damping: float) -> dict[str, Attribute]:
    """Return the methods of the others, each from the model on."""
    data = (case.train, case.test)
    state = model.state_dict()
    return {
        "kronfluence EK-FAC": lambda: _kronfluence.ekfac(
            copy.deepcopy(model), *data, damping
        ).numpy(),
        "dattri EK-FAC": lambda: _dattri.ekfac(model, state, *data, damping).numpy(),
        "dattri CG": lambda: _dattri.conjugate_gradients(
            model, state, *data, damping
        ).numpy(),
    }


def agreement(found: Array, expected: Array) -> float:
    """Return the mean rank correlation over test samples."""
    pairs = zip(found, expected, strict=True)
    return float(np.mean([spearmanr(row, other)[0] for row, other in pairs]))


def compared(case: Training, repeats: int) -> list[Row]:
    """Return the rows of one model."""
    model = copy.deepcopy(case.run().model).eval()
    expected, damping = exact(case, model)
    jobs = {**ours(case, model, damping), **theirs(case, model, damping)}

    agreements = {}
    for name, job in list(jobs.items()):
        try:
            agreements[name] = agreement(job(), expected)
        except Exception as error:  # a peer's, which is what is measured
            _measure.say(f"  {case.name}: {name} fails: {error}"[:160])
            del jobs[name]

    timings = _measure.paired(jobs, repeats)
    rows = []
    for name in jobs:
        detail = str(timings[name])
        what = f"{case.name}: {name}: agreement with exact"
        rows.append(Row(what, agreements[name], "", detail))
    for name in jobs:
        if name not in OURS:
            rows.append(ratio(case.name, name, agreements, timings))
    return rows


def ratio(
    model: str, peer: str, agreements: dict[str, float], timings: dict[str, Timing]
) -> Row:
    """Return how much faster whence's fastest solver is that agrees as well as a peer's."""
    able = [name for name in OURS if agreements[name] >= agreements[peer]]
    fastest = min(able, key=lambda name: timings[name].median)
    times = timings[peer].median / timings[fastest].median
    what = f"{model}: seconds of {peer} over those of {fastest}"
    detail = f"agreement {agreements[peer]:.3f} and {agreements[fastest]:.3f}"
    return Row(what, times, "×", detail, least=FACTOR)


def main() -> None:
    """Measure and print the table."""
    parser = _measure.parser(__doc__)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=MODELS)
    parser.add_argument("--memory", type=float, default=16, help="GiB at most (16)")
    given = parser.parse_args()
    _measure.limit_memory(given.memory)

    def measure() -> list[Row]:
        rows = []
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of networks far from a minimum
            for case in trainings(200 if given.quick else 600):
                if case.name in given.models:
                    rows += compared(case, 1 if given.quick else 5)
        return rows

    _measure.run(given, measure)


if __name__ == "__main__":
    main()
