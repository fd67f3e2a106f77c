"""What a factored operator knows of the spectrum of A, as the attributes of a result."""

from __future__ import annotations

from dataclasses import dataclass, fields

Attributes = dict[str, str | int | float]


@dataclass(frozen=True, kw_only=True)
class Spectrum:
    """λ and the spectrum of A, as far as a solver knows it.

    A solver that knows more derives its own class. Each field is an attribute of the results under
    its own name; ``None`` where it is not known.

    Parameters
    ----------
    damping:
        λ, absolute.
    largest_eigenvalue:
        The largest eigenvalue of A, to which damping may be relative.
    solver:
        Name of the solver that factored A; :class:`whence.Automatic` chooses among several.

    Examples
    --------
    >>> from whence.curvature.spectrum import Spectrum
    >>> Spectrum(damping=0.5, largest_eigenvalue=4.0).attributes()
    {'damping': 0.5, 'largest_eigenvalue': 4.0, 'relative_damping': 0.125}
    """

    damping: float
    largest_eigenvalue: float
    solver: str | None = None

    @property
    def relative_damping(self) -> float:
        """λ divided by the largest eigenvalue; infinite where A is zero."""
        if self.largest_eigenvalue == 0:
            return float("inf")
        return self.damping / self.largest_eigenvalue

    def attributes(self) -> Attributes:
        """Return what is known, as the attributes of an :class:`xarray.DataArray`."""
        attributes: Attributes = {}
        for field in fields(self):
            value = getattr(self, field.name)
            # None has no form in a netCDF file.
            if value is not None:
                attributes[field.name] = value

        attributes["relative_damping"] = self.relative_damping
        return attributes
