"""What a diagnosis found, and how it is told: on the terminal, as Markdown, as a figure."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from whence.diagnosis.finding import Finding
from whence.pinn.pde.problem import Problem

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor

WIDTH = 88
"""Columns of the page on the terminal."""
INDENT = "   "
"""What stands before the lines of a finding after its first."""
NOTHING = "Nothing looks wrong."


@dataclass(frozen=True, eq=False)
class Diagnosis:
    """What looks wrong with a run.

    Parameters
    ----------
    problem:
        What was solved.
    findings:
        What looks wrong, the worst first.
    checks:
        Names of the checks that were made, and what each looks for.
    relative:
        Relative residual of each term where training ended and after a few more steps: rms at fresh
        points over the rms of its largest part.
    points, sizes:
        Fresh points (n, d) by term, and the relative squared residual (n,) at each.
    reference:
        What the solution was compared with, None where there was nothing.

    Examples
    --------
    >>> from whence import pinn
    >>> problem = pinn.zoo.load("diffusion")
    >>> result = pinn.train(problem, points=300, schedule=pinn.GaussNewton(60), progress=False)
    >>> diagnosis = pinn.diagnose(result)
    >>> print(diagnosis.text().splitlines()[2])
    Nothing looks wrong.
    """

    problem: Problem
    findings: tuple[Finding, ...]
    checks: Mapping[str, str]
    relative: Mapping[str, tuple[float, float]]
    points: Mapping[str, Tensor]
    sizes: Mapping[str, Tensor]
    reference: str | None = None

    @property
    def serious(self) -> tuple[Finding, ...]:
        """The findings that are serious."""
        return tuple(f for f in self.findings if f.severity == "serious")

    def text(self) -> str:
        """Return the page in plain words."""
        lines = [f"{self.problem.label}: {self._verdict()}", ""]
        # Numbered as the frames of the figure are.
        for number, finding in enumerate(self.findings, 1):
            lines += paragraph(number, finding)
        if not self.findings:
            lines += [NOTHING, ""]

        # What the page does not know belongs on it too.
        note = textwrap.wrap(self._remark(), WIDTH)
        lines += note
        return "\n".join(lines)

    def markdown(self, figure: str | None = None) -> str:
        """Return the page as Markdown, with a link to a figure beside it."""
        lines = [
            f"# Diagnosis of {self.problem.label}",
            "",
            self._verdict(),
            "",
        ]
        for number, finding in enumerate(self.findings, 1):
            lines += [
                f"## {number}. {finding.check} ({finding.severity})",
                "",
                finding.statement,
                "",
                f"*Normal:* {finding.normal}",
                "",
            ]
            for remedy in finding.remedies:
                lines.append(f"- {remedy}")
            lines.append("")
        if not self.findings:
            lines += [NOTHING, ""]
        # By its name, as page and figure are moved together.
        if figure is not None:
            lines += [f"![Where residuals are]({figure})", ""]

        lines += self._tables()
        lines += ["", self._remark(), ""]
        return "\n".join(lines)

    def _tables(self) -> list[str]:
        """Return the lines of both tables: residuals by term, and the checks that were made."""
        lines = [
            "| term | relative residual | after a few more steps |",
            "| --- | --- | --- |",
        ]
        for name, (before, after) in self.relative.items():
            lines.append(f"| `{name}` | {before:.2g} | {after:.2g} |")
        # A line between them, or Markdown would join both.
        lines += [
            "",
            "| check | what it looks for |",
            "| --- | --- |",
        ]
        for name, what in self.checks.items():
            lines.append(f"| `{name}` | {what} |")
        return lines

    def plot(self) -> Figure:
        """Draw where residuals are, and how large each term's are."""
        from whence.plots.diagnosis import diagnosis  # matplotlib is slow to import

        return diagnosis(
            self.problem, self.findings, self.relative, self.points, self.sizes
        )

    def _verdict(self) -> str:
        # The worst in the first line, for whoever reads no further.
        n_serious = len(self.serious)
        n_mild = len(self.findings) - n_serious
        if not self.findings:
            return f"{len(self.checks)} checks, no finding."
        return f"{n_serious} serious and {n_mild} mild findings."

    def _remark(self) -> str:
        if self.reference is not None:
            return f"Compared with {self.reference}."
        return (
            "No trusted values were given: an equation that is wrong but has a solution looks as "
            "good as a right one without them (--reference FILE.csv)."
        )


def paragraph(number: int, finding: Finding) -> list[str]:
    """Return the lines that tell one finding on the terminal."""
    head = f"{number}. [{finding.severity}] {finding.check}: {finding.statement}"
    # Lines after the first stand under the text, not under the number.
    lines = textwrap.wrap(
        head,
        WIDTH,
        subsequent_indent=INDENT,
    )
    lines += textwrap.wrap(
        f"Normal: {finding.normal}",
        WIDTH,
        initial_indent=INDENT,
        subsequent_indent=INDENT,
    )
    # A line of its own for each thing to try.
    for remedy in finding.remedies:
        lines += textwrap.wrap(
            remedy,
            WIDTH,
            initial_indent=f"{INDENT}→ ",
            subsequent_indent=f"{INDENT}  ",
        )
    lines.append("")
    return lines
