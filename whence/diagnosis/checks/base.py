"""What every check has."""

from __future__ import annotations

from typing import ClassVar, Protocol

from whence.diagnosis.evidence import Evidence
from whence.diagnosis.finding import Finding


class Check(Protocol):
    """Looks at a run for one thing that may be wrong."""

    rank: ClassVar[int]
    """Its place among findings that are equally serious: a cause has a lower one than what it
    causes."""

    def findings(self, evidence: Evidence) -> list[Finding]:
        """Return what looks wrong, nothing where nothing does."""
