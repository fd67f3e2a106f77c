"""Indicators of sound and of wrong flows, without a reference solution.

``python -m benchmarks.indicators --out DIR`` trains the flow around a cylinder as its recipe says,
with few points and features (``bad``) and without u u_x in the momentum along x (``broken``), or
loads what DIR holds already, and measures the share of influence from upstream and from around the
cylinder on u, v and p (Naujoks et al., PINNfluence, arXiv 2409.08958). A row is met where the 95 %
interval of a wrong model lies apart from that of the good one. ``figure.png`` shows them.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import xarray as xr

import whence as wh
from benchmarks import _measure
from benchmarks._measure import Row
from whence import pinn, plots
from whence.diagnosis.indicators import Coherence, Proximity, measure
from whence.pinn.zoo import navier_stokes

MEMORY_BUDGET = 4 * 2**30
VARIANTS = ("good", "bad", "broken")
ASKED = ("upstream", "cylinder")
"""The indicators that the bar is about."""
TARGETS = 10_000
"""Of the mean over them the interval is; its width falls with their square root."""


def run_of(variant: str, folder: Path) -> pinn.Result:
    """Return the run of a variant, trained by its recipe unless it is there already."""
    path = folder / variant
    if not (path / "summary.json").is_file():
        recipe = pinn.zoo.recipe("navier_stokes", variant=variant)
        assert recipe.network is not None
        pinn.train(
            pinn.zoo.load("navier_stokes", variant=variant),
            recipe.network(0),
            points=recipe.points,
            pinned=recipe.pinned,
            schedule=recipe.schedule,
            weights=recipe.weights,
            resample=None,
            out=path,
            progress=False,
        )
    return pinn.load_run(path)


def numbers_of(result: pinn.Result) -> xr.Dataset:
    """Return the indicators of a run."""
    problem = result.problem
    points = problem.domain.sample(TARGETS, "random", seed=0)
    influence = wh.Influence(result.objective, memory_budget=MEMORY_BUDGET)
    others = {"coherence": Coherence(), "proximity": Proximity()}

    # One output after the other, as a table of so many targets takes a gigabyte.
    by_output = []
    for name in problem.outputs:
        table = influence.attribute(wh.Output(points, name))
        numbers = measure(table, {**navier_stokes.INDICATORS, **others})
        by_output.append(numbers)
    return xr.concat(by_output, dim="quantity")


def gap(good: xr.Dataset, wrong: xr.Dataset) -> float:
    """Return how far two intervals are apart, negative where they overlap."""
    above = float(wrong.low) - float(good.high)
    below = float(good.low) - float(wrong.high)
    return max(above, below)


def main() -> None:
    """Measure and print."""
    parser = _measure.parser(__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs")
    given = parser.parse_args()

    def measured() -> list[Row]:
        numbers = {}
        for variant in VARIANTS:
            result = run_of(variant, given.out)
            _measure.say(f"{variant}: {result.summary.get('relative_l2')}")
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                numbers[variant] = numbers_of(result)

        rows = []
        good = numbers["good"]
        for variant in VARIANTS[1:]:
            for indicator in good["indicator"].values:
                for quantity in good["quantity"].values:
                    rows.append(_row(numbers, variant, str(indicator), str(quantity)))
        plots.save(plots.indicator_bars(numbers), given.out / "figure.png")
        return rows

    _measure.run(given, measured)


def _row(
    numbers: dict[str, xr.Dataset], variant: str, indicator: str, quantity: str
) -> Row:
    """Return the row of one indicator of one quantity, of a wrong model beside the good one."""
    place = {"indicator": indicator, "quantity": quantity}
    good = numbers["good"].sel(place)
    wrong = numbers[variant].sel(place)
    cells = []
    for name, selected in (("good", good), (variant, wrong)):
        cells.append(
            f"{name} {float(selected.value):.3f} "
            f"[{float(selected.low):.3f}, {float(selected.high):.3f}]"
        )
    detail = f"{'; '.join(cells)}; by places alone {float(good.baseline):.3f}"
    least = 0.0 if indicator in ASKED else None
    what = f"{indicator} of {quantity}: good and {variant} apart by"
    return Row(what, gap(good, wrong), "", detail, least=least)


if __name__ == "__main__":
    main()
