"""DeepXDE models (PyTorch backend): attribution, resampling, weighting and training as they are."""

from whence.adapters.deepxde.model import from_model

__all__ = ["from_model"]
