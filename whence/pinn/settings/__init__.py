"""Settings: published ways to train, by name, for ``whence train PROBLEM --setting NAME``.

A new one is one module in this folder (or of another package, by the entry point
``whence.settings``) with a class under ``@SETTINGS.named("name")``.
"""

from whence.pinn.settings.base import Setting

__all__ = ["Setting"]
