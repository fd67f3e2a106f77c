"""Points spread over the unit cube, by several rules.

A new rule is one module in this folder (or of another package, by the entry point
``whence.samplings``) with a class under ``@SAMPLINGS.named("name")``.
"""

from whence.pinn.geometry.samplings.base import Array, Sampling, unit_points

__all__ = ["Array", "Sampling", "unit_points"]
