"""Resamplers: when and how training points are renewed.

A new one is one module in this folder (or of another package, by the entry point
``whence.resamplers``) with a class under ``@RESAMPLERS.named("name")``.
"""

from whence.pinn.sampling.resamplers.base import Resampler
from whence.pinn.sampling.resamplers.r3 import R3
from whence.pinn.sampling.resamplers.resample import Resample

__all__ = ["R3", "Resample", "Resampler"]
