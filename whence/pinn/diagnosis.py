"""Diagnosis of a run under the name that users look for it: ``pinn.diagnose(result)``."""

from whence.diagnosis.diagnose import diagnose
from whence.diagnosis.diagnosis import Diagnosis
from whence.diagnosis.finding import Finding

__all__ = ["Diagnosis", "Finding", "diagnose"]
