"""How a table is written in a format: marks, powers of ten, letters, digits."""

from __future__ import annotations

import math
from dataclasses import dataclass

from pandas import Series

DIGITS = 3
"""Digits of a number, of one beside its spread those of the number."""
MAX_MANTISSA = 1e5
"""From here on a number has a power of ten of its own: it diverged."""
SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
LATEX_LETTERS = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "×": r"$\times$",
    "−": "$-$",
    "–": "--",
    "≤": r"$\le$",
    ">": "$>$",
    "<": "$<$",
    "|": r"\textbar{}",
    "†": r"$^\dagger$",
    **{letter: f"\\{letter}" for letter in "&%$#_{}"},
}
"""What LaTeX writes for letters that it reads as commands, or may not know."""


@dataclass(frozen=True)
class Style:
    """How a format writes what is in a table."""

    best: str = "{}*"
    """A cell with the least value of its problem."""
    tied: str = "{}†"
    """A cell that is not significantly worse."""
    other: str = "{} "
    """Any other cell: as wide as a marked one where letters stand below each other."""
    best_in_words: str = "* the least of a problem"
    is_latex: bool = False

    def text(self, words: str) -> str:
        """Return words as the format writes them."""
        if not self.is_latex:
            return words
        # Letter by letter, so that what is written for one is not read again.
        letters = []
        for letter in words:
            letters.append(LATEX_LETTERS.get(letter, letter))
        return "".join(letters)

    def power(self, exponent: int) -> str:
        """Return a power of ten as a factor; nothing for the zeroth."""
        if exponent == 0:
            return ""
        if self.is_latex:
            return rf" $\times 10^{{{exponent}}}$"

        # As letters, since neither a terminal nor Markdown can raise a number.
        raised = str(exponent).translate(SUPERSCRIPTS)
        return f" × 10{raised}"

    def marked(self, cell: Series, number: str) -> str:
        """Return a cell marked by how it compares with the others of its problem."""
        # A number first, as the marks are written in the format already.
        written = self.text(number)
        # The best of a problem is not compared with itself.
        if cell["is_best"]:
            return self.best.format(written)
        if cell["is_tied"]:
            return self.tied.format(written)
        return self.other.format(written)


TEXT = Style()
MARKDOWN = Style(
    best="**{}**",
    other="{}",
    best_in_words="bold: the least of a problem",
)
LATEX = Style(
    # Braces doubled, as they are of str.format too.
    best=r"\textbf{{{}}}",
    tied=r"{}$^\dagger$",
    other="{}",
    best_in_words="bold: the least of a problem",
    is_latex=True,
)


def decimals_of(number: float) -> int:
    """Return the decimals by which a number has three digits.

    Examples
    --------
    >>> from whence.studies.table_styles import decimals_of
    >>> decimals_of(1.234), decimals_of(12.34), decimals_of(801.2), decimals_of(0.1234)
    (2, 1, 0, 3)
    """
    if number == 0 or not math.isfinite(number):
        return DIGITS - 1
    # The first digit stands at this power of ten, the last one DIGITS − 1 places behind it.
    exponent = math.floor(math.log10(abs(number)))
    last = exponent - (DIGITS - 1)
    return max(0, -last)


def plain(number: float, decimals: int) -> str:
    """Return a number with some decimals; of one that diverged its power of ten."""
    if abs(number) < MAX_MANTISSA:
        return f"{number:.{decimals}f}"
    return f"{number:.1e}"
