"""A comparison as a table: for a terminal, in Markdown, LaTeX or CSV."""

from __future__ import annotations

import math
import re
import textwrap
from typing import Literal

from pandas import Series

from whence import _checks
from whence.studies.comparison import NAMES, Comparison
from whence.studies.significance import LEVEL, least_p, pairs_needed
from whence.studies.table_styles import (
    LATEX,
    MARKDOWN,
    TEXT,
    Style,
    decimals_of,
    plain,
)

FORMATS = ("text", "markdown", "csv", "latex")
FormatName = Literal["text", "markdown", "csv", "latex"]
PLAIN_EXPONENTS = range(-1, 3)
"""Powers of ten that are written out."""
WIDTH = 88
"""Width in letters of the notes below a table in a terminal."""
NOTHING = "–"
"""A cell of which no run has finished."""


def formatted(
    comparison: Comparison, form: FormatName = "text", missing: str = ""
) -> str:
    r"""Return a comparison as a table: methods below each other, problems side by side.

    Each problem's column has one power of ten, that of its best method. Columns of the mean rank
    and of the ratio to the baseline follow, then notes that say what is shown. CSV has a row for
    each problem and method, with all statistics, and no notes.

    Parameters
    ----------
    comparison:
        What :func:`whence.studies.comparison.compare` returns.
    form:
        ``"text"``, ``"markdown"``, ``"csv"`` or ``"latex"`` (for the package booktabs).
    missing:
        A sentence on runs that are left out, for the notes.

    Raises
    ------
    ValueError
        If the format is unknown.

    Examples
    --------
    >>> import pandas as pd
    >>> from whence.studies.comparison import compare
    >>> from whence.studies.tables import formatted
    >>> table = pd.DataFrame({
    ...     "problem": "wave", "method": ["random"] * 2 + ["residual"] * 2, "seed": [0, 1] * 2,
    ...     "error": [2e-3, 4e-3, 1e-3, 2e-3]})
    >>> print("\n".join(formatted(compare(table)).splitlines()[:4]))
    method     wave × 10⁻³  mean rank  ratio to random
    --------  ------------  ---------  ---------------
    random    3.00 ± 1.41†        2.0             1.00
    residual  1.50 ± 0.71*        1.0             0.50
    """
    _checks.one_of("format of a table", form, FORMATS)
    if form == "csv":
        text: str = comparison.cells.to_csv(index=False)
        return text

    style = {"text": TEXT, "markdown": MARKDOWN, "latex": LATEX}[form]
    rows = written_rows(comparison, style)
    sentences = notes(comparison, style, missing)
    if form == "latex":
        return latex_table(rows, sentences)
    if form == "markdown":
        return markdown_table(rows, sentences)
    return text_table(rows, sentences)


# --- what is in it -------------------------------------------------------------------------------


def written_rows(comparison: Comparison, style: Style) -> list[list[str]]:
    """Return the cells of the table, its header first."""
    problems = comparison.problems
    exponents = {}
    for problem in problems:
        exponents[problem] = exponent_of(comparison, problem)

    header = ["method"]
    for problem in problems:
        power = style.power(exponents[problem])
        header.append(style.text(problem) + power)
    header.append("mean rank")
    if comparison.baseline is not None:
        header.append(style.text(f"ratio to {comparison.baseline}"))

    rows = [header]
    for method in comparison.methods:
        row = [style.text(method)]
        for problem in problems:
            exponent = exponents[problem]
            cell = comparison.cell(problem, method)
            number = written_number(
                cell,
                comparison.statistic,
                exponent,
            )
            row.append(style.marked(cell, number))

        rank = comparison.ranks[method]
        row.append(f"{rank:.1f}")
        # Of a method that shares no problem with the baseline there is no ratio.
        if comparison.baseline is not None:
            ratio = comparison.ratios[method]
            is_known = math.isfinite(ratio)
            row.append(f"{ratio:.2f}" if is_known else NOTHING)
        rows.append(row)
    return rows


def exponent_of(comparison: Comparison, problem: str) -> int:
    """Return the power of ten of a problem's column: that of its best method."""
    cells = comparison.cells
    is_of_problem = cells["problem"] == problem
    levels = cells[comparison.statistic]
    least = float(levels[is_of_problem].min())
    # A best of zero, or none at all, has no power of ten.
    if not least > 0 or not math.isfinite(least):
        return 0

    exponent = math.floor(math.log10(least))
    # What has few digits anyway is read more easily as it is.
    if exponent in PLAIN_EXPONENTS:
        return 0
    return exponent


def written_number(cell: Series, statistic: str, exponent: int) -> str:
    """Return ``mean ± std`` or ``median [q1, q3]`` in units of a power of ten."""
    unit = 10.0**exponent
    center = float(cell[statistic]) / unit
    # No run of the method has finished on this problem.
    if math.isnan(center):
        return NOTHING

    # The spread has the decimals of the number, however large it is.
    decimals = decimals_of(center)
    written = plain(center, decimals)
    if statistic == "median":
        q1 = plain(cell["q1"] / unit, decimals)
        q3 = plain(cell["q3"] / unit, decimals)
        return f"{written} [{q1}, {q3}]"

    # One seed has no spread.
    if math.isnan(cell["std"]):
        return written
    spread = plain(cell["std"] / unit, decimals)
    return f"{written} ± {spread}"


# --- what is said of it --------------------------------------------------------------------------


def notes(comparison: Comparison, style: Style, missing: str = "") -> list[str]:
    """Return the sentences below a table: what it shows, and what it cannot show."""
    counts = comparison.cells["n"]
    least = int(counts.min())
    most = int(counts.max())
    seeds = _checks.counted(most, "seed")
    # A run that failed is missing in one cell alone.
    if least < most:
        seeds = f"{least} to {most} seeds"

    spread = "mean ± standard deviation (by n − 1)"
    if comparison.statistic == "median":
        spread = "median [quartiles]"
    name = NAMES[comparison.value]
    sentences = [
        f"{name}, {spread} over {seeds}; {style.best_in_words}.",
    ]

    sentences += notes_on_significance(comparison)
    sentences.append("Mean rank: over problems, 1 is the best.")
    if comparison.baseline is not None:
        sentences.append(
            f"Ratio: of the {comparison.statistic} to that of {comparison.baseline}, geometric "
            "mean over problems; below 1 is better."
        )
    if missing:
        sentences.append(missing)
    return [style.text(sentence) for sentence in sentences]


def notes_on_significance(comparison: Comparison) -> list[str]:
    """Return what is tested, and whether there are seeds enough to find anything."""
    cells = comparison.cells
    has_pairs = cells["n_pairs"] > 0
    compared = cells[has_pairs]
    # The only method of a study is compared with none.
    if compared.empty:
        return []

    sentences = [
        "† not significantly worse than the best: exact two-sided Wilcoxon signed-rank test "
        f"paired by seed, p > {LEVEL} after Holm's correction over the comparisons of a problem."
    ]
    # Of the problem that is the hardest: the fewest pairs, and the most comparisons.
    n_pairs = int(compared["n_pairs"].min())
    by_problem = compared.groupby("problem")
    n_comparisons = int(by_problem.size().max())
    needed = pairs_needed(n_comparisons)
    if n_pairs >= needed:
        return sentences

    # One-sided, only one of the two ends counts.
    two_sided = least_p(n_pairs)
    one_sided = two_sided / 2
    corrected = min(1.0, n_comparisons * two_sided)
    pairs = _checks.counted(n_pairs, "pair")
    comparisons = _checks.counted(n_comparisons, "comparison")
    sentences.append(
        f"{pairs} cannot have p below {two_sided:.4g} two-sided ({one_sided:.4g} one-sided), "
        f"{corrected:.4g} corrected over {comparisons}: no difference can be significant with so "
        f"few, and † means undecided; it takes {needed} seeds."
    )
    return sentences


# --- the formats ---------------------------------------------------------------------------------


def text_table(rows: list[list[str]], sentences: list[str]) -> str:
    """Return columns that stand below each other, the first to the left."""
    widths = []
    for column in zip(*rows, strict=True):
        widths.append(max(map(len, column)))

    rule = ["-" * width for width in widths]
    lines = []
    for row in [rows[0], rule, *rows[1:]]:
        first = row[0].ljust(widths[0])
        others = []
        for cell, width in zip(row[1:], widths[1:], strict=True):
            others.append(cell.rjust(width))
        line = "  ".join([first, *others])
        # Where the last cell is not marked.
        lines.append(line.rstrip())

    lines.append("")
    for sentence in sentences:
        lines += textwrap.wrap(sentence, WIDTH, subsequent_indent="  ")
    return "\n".join(lines) + "\n"


def markdown_table(rows: list[list[str]], sentences: list[str]) -> str:
    """Return a Markdown table, numbers to the right."""
    # A colon puts a column to the right.
    n_numbers = len(rows[0]) - 1
    rule = ["---"] + ["---:"] * n_numbers
    lines = []
    for row in [rows[0], rule, *rows[1:]]:
        # A bar would begin a column.
        cells = [cell.replace("|", "\\|") for cell in row]
        lines.append(f"| {' | '.join(cells)} |")

    lines += ["", " ".join(sentences)]
    return "\n".join(lines) + "\n"


def latex_table(rows: list[list[str]], sentences: list[str]) -> str:
    """Return a LaTeX table for the package booktabs, with the notes as its caption."""
    n_numbers = len(rows[0]) - 1
    columns = "l" + "r" * n_numbers
    body = []
    for row in rows:
        line = " & ".join(row)
        # A bracket that begins a line would be read as the length of the break before it.
        line = re.sub(r"^\[", "{[}", line)
        body.append(rf"{line} \\")

    caption = " ".join(sentences)
    lines = [
        r"\begin{table}",
        r"  \centering",
        rf"  \begin{{tabular}}{{{columns}}}",
        r"    \toprule",
        f"    {body[0]}",
        r"    \midrule",
        *(f"    {line}" for line in body[1:]),
        r"    \bottomrule",
        r"  \end{tabular}",
        rf"  \caption{{{caption}}}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"
