"""Tables of a comparison: their numbers, marks and notes in every format."""

import io
import math

import numpy as np
import pandas as pd
import pytest
from trained_study import table_of

from whence.studies.comparison import compare
from whence.studies.table_styles import plain
from whence.studies.tables import exponent_of, formatted

ERRORS = {
    ("wave_2d", "random"): [2e-3, 3e-3, 4e-3, 5e-3, 6e-3],
    ("wave_2d", "r & d"): [0.5, 0.7, 0.9, 1.1, 1.3],
    ("heat", "random"): [0.20, 0.21, 0.22, 0.23, 0.24],
    ("heat", "r & d"): [0.10, 0.12, 0.14, 0.16, 0.18],
}


def test_text_is_aligned_and_says_what_it_shows():
    text = formatted(compare(table_of(ERRORS)), "text", "1 run is left out.")
    assert text.splitlines()[:4] == [
        "method  wave_2d × 10⁻³            heat  mean rank  ratio to random",
        "------  --------------  --------------  ---------  ---------------",
        "random    4.00 ± 1.58*  0.220 ± 0.016†        1.5             1.00",
        "r & d       900 ± 316†  0.140 ± 0.032*        1.5            11.97",
    ]
    words = " ".join(text.split())
    assert (
        "Relative L2 error, mean ± standard deviation (by n − 1) over 5 seeds" in words
    )
    assert "5 pairs cannot have p below 0.0625 two-sided (0.03125 one-sided)" in words
    assert "it takes 6 seeds" in words
    assert words.endswith("below 1 is better. 1 run is left out.")
    assert max(map(len, text.splitlines())) <= 88


def test_the_median_has_its_quartiles():
    text = formatted(compare(table_of(ERRORS), statistic="median"))
    assert "  4.00 [3.00, 5.00]*  " in text
    assert "median [quartiles] over 5 seeds" in text


def test_markdown():
    lines = formatted(compare(table_of(ERRORS)), "markdown").splitlines()
    assert lines[:3] == [
        "| method | wave_2d × 10⁻³ | heat | mean rank | ratio to random |",
        "| --- | ---: | ---: | ---: | ---: |",
        "| random | **4.00 ± 1.58** | 0.220 ± 0.016† | 1.5 | 1.00 |",
    ]
    assert lines[5].startswith("Relative L2 error")


def test_latex():
    lines = formatted(compare(table_of(ERRORS)), "latex").splitlines()
    assert lines[2].strip() == r"\begin{tabular}{lrrrr}"
    assert lines[4].strip() == (
        r"method & wave\_2d $\times 10^{-3}$ & heat & mean rank & ratio to random \\"
    )
    assert lines[6].strip() == (
        r"random & \textbf{4.00 $\pm$ 1.58} & 0.220 $\pm$ 0.016$^\dagger$ & 1.5 & 1.00 \\"
    )
    assert (
        lines[7].strip().startswith(r"r \& d & 900 $\pm$ 316$^\dagger$ & \textbf{0.140")
    )
    text = "\n".join(lines)
    # Old fonts have other letters in its place.
    assert "p $>$ 0.05" in text
    # What is not of its own alphabet LaTeX may not know.
    assert text.isascii()
    assert text.count("{") == text.count("}")
    assert text.count("$") % 2 == 0


def test_csv_has_a_row_for_each_cell_and_all_digits():
    comparison = compare(table_of(ERRORS))
    table = pd.read_csv(io.StringIO(formatted(comparison, "csv")))
    names = [
        "problem", "method", "n", "mean", "std", "median", "q1", "q3", "rank", "p_holm",
    ]  # fmt: skip
    assert set(names) <= set(table.columns)
    assert len(table) == 4
    for name in names[2:]:
        expected = comparison.cells[name].to_numpy(dtype=float)
        np.testing.assert_array_equal(table[name], expected)


def test_a_cell_without_runs_and_a_column_without_a_baseline():
    values = {
        ("wave", "a"): [1.0, 2.0],
        ("wave", "b"): [2.0, 3.0],
        ("heat", "a"): [3.0],
    }
    lines = formatted(compare(table_of(values)), "markdown").splitlines()
    assert lines[0] == "| method | wave | heat | mean rank |"
    assert lines[2] == "| a | **1.50 ± 0.71** | **3.00** | 1.0 |"
    assert lines[3] == "| b | 2.50 ± 0.71† | – | 2.0 |"
    assert "over 0 to 2 seeds" in lines[5]


def test_enough_seeds_need_no_warning():
    rng = np.random.default_rng(0)
    values = {("wave", name): rng.random(6) for name in "ab"}
    assert "cannot have p" not in formatted(compare(table_of(values)))
    # One method alone is compared with none.
    text = formatted(compare(table_of({("wave", "a"): [1.0, 2.0]})))
    assert "Wilcoxon" not in text


@pytest.mark.parametrize(
    ("errors", "exponent"),
    [([3e-5], -5), ([0.09], -2), ([0.2], 0), ([250.0], 0), ([4e3], 3), ([0.0], 0)],
)
def test_a_column_has_the_exponent_of_its_best(errors, exponent):
    values = {("wave", "a"): errors, ("wave", "b"): [1e9]}
    assert exponent_of(compare(table_of(values)), "wave") == exponent


def test_a_number_that_diverged_has_its_own_power_of_ten():
    assert plain(4.2e7, 0) == "4.2e+07"
    assert plain(math.inf, 0) == "inf"
    assert plain(99999.4, 0) == "99999"


def test_unknown_formats_are_said():
    with pytest.raises(ValueError, match="did you mean 'markdown'"):
        formatted(compare(table_of(ERRORS)), "markdwn")
