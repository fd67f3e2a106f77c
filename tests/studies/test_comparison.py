"""Statistics, ranks and significance of a study against closed forms, scipy and brute force."""

import itertools
import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from trained_study import table_of

from whence.studies.comparison import compare
from whence.studies.results import read_results
from whence.studies.significance import holm, least_p, paired_test, pairs_needed

TWO = {
    ("wave", "Random"): [4.0, 6.0, 8.0],
    ("wave", "b"): [1.0, 2.0, 6.0],
    ("wave", "c"): [30.0, 20.0, 10.0],
    ("heat", "Random"): [1.0, 2.0, 3.0],
    ("heat", "b"): [4.0, 4.0, 4.0],
    ("heat", "c"): [0.5, 1.0, 0.9],
}


def test_statistics_by_hand():
    cell = compare(table_of(TWO)).cell("wave", "b")
    assert (cell["n"], cell["mean"], cell["median"]) == (3, 3.0, 2.0)
    assert cell["std"] == pytest.approx(math.sqrt((4 + 1 + 9) / 2))
    assert (cell["q1"], cell["q3"]) == (1.5, 4.0)


def test_ranks_and_ratios_are_averaged_over_problems():
    comparison = compare(table_of(TWO))
    assert comparison.problems == ["wave", "heat"]
    assert comparison.methods == ["Random", "b", "c"]
    # wave: 6, 3, 20; heat: 2, 4, 0.8.
    assert comparison.ranks == {"Random": 2.0, "b": 2.0, "c": 2.0}
    assert comparison.baseline == "Random"
    assert comparison.ratios["Random"] == pytest.approx(1)
    assert comparison.ratios["b"] == pytest.approx(math.sqrt(3 / 6 * 4 / 2))
    assert comparison.ratios["c"] == pytest.approx(math.sqrt(20 / 6 * 0.8 / 2))
    best = comparison.cells[comparison.cells["is_best"]]
    assert list(best["method"]) == ["b", "c"]


def test_the_median_may_have_another_best():
    values = {("wave", "a"): [1.0, 1.0, 100.0], ("wave", "b"): [2.0, 2.0, 2.0]}
    assert compare(table_of(values)).cell("wave", "b")["is_best"]
    assert compare(table_of(values), statistic="median").cell("wave", "a")["is_best"]


def test_a_baseline_is_chosen_by_name():
    comparison = compare(table_of(TWO), baseline="c")
    assert comparison.ratios["b"] == pytest.approx(math.sqrt(3 / 20 * 4 / 0.8))
    without = {key: errors for key, errors in TWO.items() if key[1] != "Random"}
    comparison = compare(table_of(without))
    assert comparison.baseline is None
    assert math.isnan(comparison.ratios["b"])


def by_brute_force(differences):
    """Return the two-sided p of signed ranks, over all signs that they could have had."""
    ranks = stats.rankdata(np.abs(differences))
    observed = abs((np.sign(differences) * ranks).sum())
    signs = np.array(list(itertools.product((-1, 1), repeat=len(ranks))))
    return float(np.mean(np.abs(signs @ ranks) >= observed - 1e-12))


@pytest.mark.parametrize("n", [1, 2, 5, 10])
def test_the_paired_test_is_exact(n):
    rng = np.random.default_rng(n)
    best = pd.Series(rng.random(n))
    other = best + rng.normal(0.3, 0.5, n)
    n_pairs, p, is_worse = paired_test(other, best)
    assert n_pairs == n
    assert p == pytest.approx(by_brute_force((other - best).to_numpy()))
    _, _, is_reverse_worse = paired_test(best, other)
    assert is_worse != is_reverse_worse


def test_pairs_are_those_of_common_seeds():
    values = pd.Series([5.0, 6.0, 9.0], index=[3, 1, 2])
    best = pd.Series([1.0, 1.0, 5.5], index=[1, 0, 3])
    # Seed 1: 6 − 1, seed 3: 5 − 5.5.
    assert paired_test(values, best) == (2, by_brute_force([5.0, -0.5]), True)
    assert paired_test(values, best[[0]])[0] == 0


def test_equal_values_are_no_evidence():
    same = pd.Series([1.0, 2.0, 3.0])
    assert paired_test(same, same) == (3, 1.0, False)


def test_holm_by_its_definition():
    p = [0.01, 0.04, math.nan, 0.03, 0.005, 0.9]
    # Ordered 0.005, 0.01, 0.03, 0.04, 0.9 times 5, 4, 3, 2, 1, and never less than before.
    expected = [0.04, 0.09, math.nan, 0.09, 0.025, 0.9]
    np.testing.assert_allclose(holm(p), expected)
    assert holm([0.6, 0.7]).tolist() == [1.0, 1.0]
    assert np.isnan(holm([math.nan])).all()


@pytest.mark.parametrize("n", [1, 3, 5, 8])
def test_the_least_p_of_n_pairs_is_that_of_equal_signs(n):
    differences = np.arange(1.0, n + 1)
    assert least_p(n) == stats.wilcoxon(differences, method="exact").pvalue


@pytest.mark.parametrize("m", [1, 2, 5, 6])
def test_the_seeds_needed_are_the_fewest_that_can_be_significant(m):
    n = pairs_needed(m)
    assert m * least_p(n) <= 0.05 < m * least_p(n - 1)


def test_who_is_tied_with_the_best():
    rng = np.random.default_rng(0)
    best = rng.random(8)
    values = {
        ("wave", "worse"): best + rng.random(8) + 0.5,
        ("wave", "best"): best,
        ("wave", "near"): best + rng.normal(0.01, 0.2, 8),
    }
    cells = compare(table_of(values)).cells.set_index("method")
    p = {}
    for name in ("worse", "near"):
        differences = values["wave", name] - best
        p[name] = stats.wilcoxon(differences, method="exact").pvalue
    assert p["worse"] < p["near"]
    assert cells["p_holm"]["worse"] == pytest.approx(min(1, 2 * p["worse"]))
    assert cells["p_holm"]["near"] == pytest.approx(p["near"])
    assert cells["is_tied"].to_dict() == {"worse": False, "best": False, "near": True}
    assert math.isnan(cells["p"]["best"])


def test_a_method_of_lower_signed_ranks_is_not_worse():
    """By its mean it is, for one seed that failed; by all others it is the better one."""
    values = {
        ("wave", "a"): np.array([*np.arange(1.0, 10.0), 1e4]),
        ("wave", "b"): np.array([*np.arange(1.0, 10.0) + 20, 1.0]),
    }
    cells = compare(table_of(values)).cells.set_index("method")
    assert cells["is_best"]["b"]
    assert cells["p_holm"]["a"] > 0.05
    assert cells["is_tied"]["a"]


def test_two_methods_that_do_the_same_are_both_the_best():
    values = {
        ("wave", "a"): [1.0, 2.0],
        ("wave", "b"): [2.0, 1.0],
        ("wave", "c"): [3.0, 4.0],
    }
    cells = compare(table_of(values)).cells
    assert cells["is_best"].tolist() == [True, True, False]
    assert cells["rank"].tolist() == [1.5, 1.5, 3.0]
    assert cells["n_pairs"].tolist() == [0, 0, 2]


def test_values_that_are_missing_are_left_out():
    values = {
        ("wave", "a"): [1.0, math.nan, 3.0],
        ("wave", "b"): [2.0, 3.0, math.inf],
        ("heat", "a"): [1.0],
    }
    comparison = compare(table_of(values))
    assert comparison.cell("wave", "a")["n"] == 2
    assert comparison.cell("wave", "b")["n_pairs"] == 1
    absent = comparison.cell("heat", "b")
    assert absent["n"] == 0
    assert np.isnan(absent[["mean", "rank", "p", "ratio"]].astype(float)).all()
    assert not absent["is_best"]
    assert not absent["is_tied"]
    assert comparison.ranks == {"a": 1.0, "b": 2.0}
    assert math.isnan(comparison.cell("heat", "a")["std"])


def test_unknown_names_are_said():
    table = table_of(TWO)
    with pytest.raises(ValueError, match="did you mean 'Random'"):
        compare(table, baseline="randm")
    with pytest.raises(ValueError, match="unknown statistic 'mode'"):
        compare(table, statistic="mode")
    with pytest.raises(ValueError, match="unknown column of results 'erro'"):
        compare(table, "erro")


def test_a_trained_study_is_compared_as_scipy_would(study):
    table = read_results(study).table
    comparison = compare(table)
    for problem in comparison.problems:
        of_problem = table[table["problem"] == problem]
        errors = of_problem.pivot(index="seed", columns="method", values="error")
        test = stats.wilcoxon(errors["random"], errors["residual"], method="exact")
        (row,) = comparison.cells.query("problem == @problem and not is_best").iloc
        assert row["p"] == test.pvalue >= 0.25
        assert row["is_tied"]
        for method in comparison.methods:
            cell = comparison.cell(problem, method)
            assert cell["mean"] == pytest.approx(errors[method].mean())
            assert cell["std"] == pytest.approx(errors[method].std())
