"""Diagnosis of a run under the name that users look for it: ``pinn.diagnose(result)``."""

from whence.diagnosis import Diagnosis, Finding, diagnose

__all__ = ["Diagnosis", "Finding", "diagnose"]
