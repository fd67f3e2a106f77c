"""Answers about a trained network while someone looks: one target, one point, one region a time."""

from whence.explore.sample_session import SampleSession
from whence.explore.session import Region, Session

__all__ = ["Region", "SampleSession", "Session"]
