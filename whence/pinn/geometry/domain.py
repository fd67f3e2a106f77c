"""Domains with named coordinates, the named parts of their boundary, and points in both.

Domains are made of shapes by product, ``a * b``, difference, ``a - b``, union, ``a | b``, and
intersection, ``a & b``. A coordinate is known by its name: time is an interval like any other.

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

from whence.pinn.geometry.base import Domain
from whence.pinn.geometry.boundary import Part
from whence.pinn.geometry.cloud import PointCloud
from whence.pinn.geometry.combinations import Difference, Intersection, Product, Union
from whence.pinn.geometry.level import Level
from whence.pinn.geometry.mesh import Mesh
from whence.pinn.geometry.moved import Moved
from whence.pinn.geometry.polygon import Polygon, Triangle
from whence.pinn.geometry.round_shapes import Cylinder, Ellipse, Sphere
from whence.pinn.geometry.samplings import unit_points
from whence.pinn.geometry.shapes import Box, Disk, Interval, Rectangle
from whence.pinn.geometry.subdomain import Subdomain

__all__ = [
    "Box",
    "Cylinder",
    "Difference",
    "Disk",
    "Domain",
    "Ellipse",
    "Intersection",
    "Interval",
    "Level",
    "Mesh",
    "Moved",
    "Part",
    "PointCloud",
    "Polygon",
    "Product",
    "Rectangle",
    "Sphere",
    "Subdomain",
    "Triangle",
    "Union",
    "unit_points",
]
