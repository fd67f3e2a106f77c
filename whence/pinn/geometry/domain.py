"""Domains with named coordinates, the named parts of their boundary, and points in both.

Domains are made of intervals, rectangles and disks by product, ``a * b``, and difference,
``a - b``. A coordinate is known by its name: time is an interval like any other.

>>> channel = Rectangle(("x", "y"), (0, 0), (22, 4.1)) - Disk(("x", "y"), (2, 2), 0.5, "cylinder")
>>> domain = channel * Interval("t", 0, 1)
>>> [part.name for part in domain.boundary]
['x_min', 'x_max', 'y_min', 'y_max', 'cylinder', 't_min', 't_max']
>>> domain.sample(1000).shape
torch.Size([1000, 3])
>>> domain.part("t_min").sample(2)[:, 2]
tensor([0., 0.], dtype=torch.float64)
"""

from __future__ import annotations

from whence.pinn.geometry.boundary import Part
from whence.pinn.geometry.combinations import Difference, Domain, Product
from whence.pinn.geometry.samplings import unit_points
from whence.pinn.geometry.shapes import Disk, Interval, Rectangle

__all__ = [
    "Difference",
    "Disk",
    "Domain",
    "Interval",
    "Part",
    "Product",
    "Rectangle",
    "unit_points",
]
