"""What a check says of a run: how bad it is, of what, where, by which number, and what to do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from whence import _checks
from whence.diagnosis.regions import PlainRegion

Severity = Literal["serious", "mild"]
SEVERITIES = get_args(Severity)
"""From the worst."""


@dataclass(frozen=True)
class Finding:
    """One thing that looks wrong.

    Parameters
    ----------
    check:
        Name of the check that says it.
    severity:
        ``"serious"``: answers are not to be trusted before it is mended; ``"mild"``: they can be
        better.
    statement:
        One sentence with its number.
    normal:
        What that number would be if nothing were wrong.
    value, threshold:
        The number, and the one beyond which it is a finding.
    terms:
        Names of the terms that it is about, the first the likeliest.
    region:
        Where, if it is anywhere in particular.
    rows:
        Rows of the measurements that it is about.
    remedies:
        What to try, a sentence each.
    is_symptom:
        Whether it says only that the solution is wrong, not why; such come last.

    Raises
    ------
    ValueError
        If the severity is none of the two.

    Examples
    --------
    >>> from whence.diagnosis.finding import Finding
    >>> finding = Finding("few_points", "mild", "It varies.", "It does not.", 2.0, 1.0, ("pde",))
    >>> finding.severity, finding.terms
    ('mild', ('pde',))
    """

    check: str
    severity: Severity
    statement: str
    normal: str
    value: float
    threshold: float
    terms: tuple[str, ...] = ()
    region: PlainRegion | None = None
    rows: tuple[int, ...] = ()
    remedies: tuple[str, ...] = ()
    is_symptom: bool = False

    def __post_init__(self) -> None:
        # A misspelled one would be sorted nowhere.
        _checks.one_of("severity", self.severity, SEVERITIES)
