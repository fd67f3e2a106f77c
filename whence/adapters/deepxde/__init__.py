"""DeepXDE models (PyTorch backend): attribution, resampling, weighting and training as they are."""

import os

# Read when DeepXDE is imported, which would look for a backend and note it in the user's folder.
os.environ.setdefault("DDE_BACKEND", "pytorch")

from whence.adapters.deepxde.callbacks import (
    InfluenceResampler,
    RARResampler,
    Resampler,
    TermWeighting,
)
from whence.adapters.deepxde.model import from_model
from whence.adapters.deepxde.optimizer import use_optimizer

__all__ = [
    "InfluenceResampler",
    "RARResampler",
    "Resampler",
    "TermWeighting",
    "from_model",
    "use_optimizer",
]
