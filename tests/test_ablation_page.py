"""docs/ablation.md against the committed runs, and its statistics against known values."""

import csv
import math
import re
from pathlib import Path

import pytest
from scipy import stats

ROOT = Path(__file__).parents[1]


@pytest.fixture(name="tables")
def _tables(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    from benchmarks import _ablation_tables

    return _ablation_tables


def test_the_page_has_the_tables_of_the_committed_runs(tables):
    with (ROOT / "benchmarks" / "results" / "ablation.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    page = (ROOT / "docs" / "ablation.md").read_text()
    block = re.search(r"<!-- ablation -->\n(.*?)\n<!-- /ablation -->", page, re.S)
    assert block is not None
    assert block.group(1) == tables.tables(rows)


def test_every_method_of_the_page_has_the_same_runs(tables):
    """A method with a seed less would be compared on other grounds."""
    with (ROOT / "benchmarks" / "results" / "ablation.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for update in {row["update"] for row in rows}:
        errors = tables.errors_of(row for row in rows if row["update"] == update)
        runs = {method: set(by_key) for method, by_key in errors.items()}
        assert all(keys == runs["influence"] for keys in runs.values())
        assert len(runs["influence"]) == 25


def made_up():
    """Errors of three methods on two problems and three seeds."""
    keys = [(problem, seed) for problem in ("p", "q") for seed in range(3)]
    reference = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    return {
        "influence": dict(zip(keys, reference, strict=True)),
        "twice": {key: 2.0 * value for key, value in zip(keys, reference, strict=True)},
        "mixed": dict(zip(keys, [0.5, 4.0, 2.0, 9.0, 5.5, 5.0], strict=True)),
    }


def test_ranks_medians_and_the_best(tables):
    errors = made_up()
    ranks = tables.mean_ranks(errors)
    assert ranks == pytest.approx({"influence": 1.5, "twice": 2.75, "mixed": 1.75})
    first, *_ = tables.error_table(errors).splitlines()[2:]
    assert first == (
        "| influence | **2.0e+00** (1.5e+00 to 2.5e+00) | **5.0e+00** (4.5e+00 to 5.5e+00) "
        "| 1.5 |"
    )


def test_holm_multiplies_by_the_tests_that_are_left(tables):
    rows = tables.comparison_table(made_up()).splitlines()[2:]
    cells = [[cell.strip() for cell in row.split("|")[1:-1]] for row in rows]
    assert [row[0] for row in cells] == ["twice", "mixed"]
    assert cells[0][1:3] == ["2.00", "6 of 6"]
    # Six gains of one sign: 2/2⁶, two-sided.
    assert float(cells[0][3]) == pytest.approx(2 / 64, rel=0.01)
    assert float(cells[0][4]) == pytest.approx(2 * 2 / 64, rel=0.02)
    ratios = [0.5, 2.0, 2 / 3, 9 / 4, 1.1, 5 / 6]
    logs = [math.log(ratio) for ratio in ratios]
    assert float(cells[1][3]) == pytest.approx(stats.wilcoxon(logs).pvalue, rel=0.05)
