"""Domains, their boundaries, and points spread over both."""

from whence.pinn.geometry.domain import (
    Difference,
    Disk,
    Domain,
    Interval,
    Product,
    Rectangle,
)

__all__ = ["Difference", "Disk", "Domain", "Interval", "Product", "Rectangle"]
