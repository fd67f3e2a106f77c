"""Indicators: numbers of an attribution that tell sound models from wrong ones.

Each is a share of influence that lies where physics expects it, or how much of it cancels, and
stands beside what the places of the points alone would give.
"""

from whence.diagnosis.indicators.base import Indicator
from whence.diagnosis.indicators.causality import Causality
from whence.diagnosis.indicators.coherence import Coherence
from whence.diagnosis.indicators.conservation import Conservation
from whence.diagnosis.indicators.directional import Directional
from whence.diagnosis.indicators.measure import measure
from whence.diagnosis.indicators.proximity import Proximity
from whence.diagnosis.indicators.region import Region

__all__ = [
    "Causality",
    "Coherence",
    "Conservation",
    "Directional",
    "Indicator",
    "Proximity",
    "Region",
    "measure",
]
