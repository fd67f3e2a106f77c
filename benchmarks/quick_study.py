"""The paper's two tables again, with the best optimizer, and the bars that they are held to.

``whence study studies/quick_add.toml --out DIR`` and ``quick_replace.toml`` make the runs;
``python -m benchmarks.quick_study --keep add=DIR replace=DIR`` keeps what they came to in
``benchmarks/results``, and ``python -m benchmarks.quick_study`` prints the tables from there,
beside the published ones (arXiv 2506.16443, 200,000 iterations, ten seeds).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks import _measure
from benchmarks._measure import Row
from whence._files import write_atomically
from whence.studies.comparison import compare
from whence.studies.results import read_results
from whence.studies.tables import formatted

RESULTS = Path(__file__).parent / "results"
UPDATES = ("add", "replace")
COLUMNS = (
    "problem",
    "method",
    "seed",
    "error",
    "test_loss",
    "seconds",
    "iterations",
    "points",
)
"""What is kept of each run."""
PROBLEMS = ("diffusion", "allen_cahn", "burgers", "wave", "drift_diffusion")
METHODS = (
    "PINNfluence",
    "RAR",
    "Grad-Dot",
    "Out-Grad",
    "Loss-Grad",
    "Random",
    "Static",
)
INFLUENCE = "PINNfluence"
MAX_SECONDS = 60.0

# Means of the published tables, by method in the order above.
PAPER = {
    "add": {
        "diffusion": (4.3e-5, 2.9e-5, 4.5e-5, 6.3e-5, 5.2e-5, 4.7e-5, 62.5e-5),
        "allen_cahn": (6.1e-3, 2.5e-3, 13.9e-3, 11.5e-3, 11.5e-3, 7.5e-3, 7.6e-3),
        "burgers": (17.2e-4, 6.5e-4, 44.2e-4, 801e-4, 32.2e-4, 771e-4, 811e-4),
        "wave": (4.2e-4, 3.7e-4, 5.3e-4, 246e-4, 5.3e-4, 723e-4, 1317e-4),
        "drift_diffusion": (3.0e-3, 2.7e-3, 2.6e-3, 3.5e-3, 2.6e-3, 3.3e-3, 3.3e-3),
    },
    "replace": {
        "diffusion": (7.2e-4, 5.8e-4, 8.6e-4, 3.1e-4, 4.0e-4, 3.5e-4, 6.2e-4),
        "allen_cahn": (6.4e-3, 6.7e-3, 9.9e-3, 219e-3, 36.6e-3, 49.2e-3, 7.6e-3),
        "burgers": (1.2e-3, 1.6e-3, 1.8e-3, 2.4e-3, 2.3e-3, 197e-3, 81.1e-3),
        "wave": (2.0e-2, 27.6e-2, 34.2e-2, 58.2e-2, 28.8e-2, 78.3e-2, 13.2e-2),
        "drift_diffusion": (3.9e-3, 4.2e-3, 4.5e-3, 5.3e-3, 4.8e-3, 4.6e-3, 3.3e-3),
    },
}  # fmt: skip


def kept(update: str) -> pd.DataFrame:
    """Return the runs of a table that are kept."""
    return pd.read_csv(RESULTS / f"quick_{update}.csv")


def keep(update: str, folder: Path) -> None:
    """Keep what the runs of a study came to."""
    results = read_results(folder)
    if results.unfinished or results.failed:
        raise ValueError(f"{folder} is not complete: {results.describe_missing()}")
    table = results.table[list(COLUMNS)]
    text = table.to_csv(index=False, float_format="%.6g")
    write_atomically(RESULTS / f"quick_{update}.csv", text.encode())


def present() -> list[str]:
    """Return the tables whose runs are kept."""
    return [name for name in UPDATES if (RESULTS / f"quick_{name}.csv").is_file()]


def tables() -> str:
    """Return the tables in Markdown, each with the published means below."""
    parts = []
    for update in present():
        runs = kept(update)
        comparison = compare(runs, "error", "mean", baseline="Random")
        parts += [f"**{update}**", formatted(comparison, "markdown", "")]
        parts += ["Published means, 200,000 iterations:", published(update)]
    return "\n\n".join(parts)


def published(update: str) -> str:
    """Return the published means in Markdown."""
    rows = [["method", *PROBLEMS], ["---"] * (1 + len(PROBLEMS))]
    for k, method in enumerate(METHODS):
        rows.append([method, *(f"{PAPER[update][name][k]:.1e}" for name in PROBLEMS)])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def beside() -> str:
    """Return each table in short, means beside the published ones, in Markdown."""
    lines = ["| update | method | " + " | ".join(PROBLEMS) + " |"]
    lines.append("| --- | --- | " + " | ".join("---" for _ in PROBLEMS) + " |")
    for update in present():
        means = kept(update).groupby(["problem", "method"])["error"].mean()
        for k, method in enumerate(METHODS):
            cells = []
            for problem in PROBLEMS:
                best = means[problem][list(METHODS)].idxmin() == method
                text = f"{means[problem, method]:.1e}"
                text = f"**{text}**" if best else text
                cells.append(f"{text} ({PAPER[update][problem][k]:.1e})")
            lines.append(f"| {update} | {method} | {' | '.join(cells)} |")
    return "\n".join(lines)


def rows_of(update: str) -> list[Row]:
    """Return the bars of a table: influence beside the best, every cell below the published."""
    runs = kept(update)
    by_cell = runs.groupby(["problem", "method"])["error"]
    means, spreads = by_cell.mean(), by_cell.std()
    rows = []
    for problem in PROBLEMS:
        of_problem = means[problem][list(METHODS)]
        best = str(of_problem.idxmin())
        limit = of_problem[best] + spreads[problem][best]
        detail = (
            f"best {best} {of_problem[best]:.2e} ± {spreads[problem][best]:.1e}, "
            f"{INFLUENCE} {of_problem[INFLUENCE]:.2e} ± {spreads[problem][INFLUENCE]:.1e}"
        )
        ratio = of_problem[INFLUENCE] / limit
        rows.append(
            Row(
                f"{update}, {problem}: influence over the end of the best's interval",
                ratio,
                "×",
                detail,
                most=1.0,
            )
        )
        published_best = min(PAPER[update][problem])
        worst = str(of_problem.idxmax())
        above = [name for name in of_problem.index if of_problem[name] > published_best]
        rows.append(
            Row(
                f"{update}, {problem}: worst cell over the best published",
                of_problem[worst] / published_best,
                "×",
                f"{worst} {of_problem[worst]:.1e}, published {published_best:.1e}"
                + (f"; above it: {', '.join(above)}" if above else ""),
                most=1.0,
            )
        )
    seconds = float(np.max(runs["seconds"]))
    detail = "of the longest run, beside others on two cores"
    rows.append(
        Row(f"{update}: seconds of a run", seconds, "s", detail, most=MAX_SECONDS)
    )
    return rows


def main() -> None:
    """Keep results, or print tables and bars."""
    parser = _measure.parser(__doc__)
    parser.add_argument("--keep", nargs="+", metavar="UPDATE=DIR", default=())
    given = parser.parse_args()
    for entry in given.keep:
        update, _, folder = entry.partition("=")
        keep(update, Path(folder))

    print(tables())
    print()
    print(beside())
    print()
    _measure.run(given, lambda: [row for name in present() for row in rows_of(name)])


if __name__ == "__main__":
    main()
