"""Evolution equations that are periodic in x, by Fourier series and an implicit Runge–Kutta method.

``u_t = L u + N(u)`` with L diagonal in Fourier space: with coefficients c the stiff part is taken
out by ``c = exp(L t) d``, as in Cox & Matthews, J. Comput. Phys. 176, 2002, and what is left is
advanced by their fourth-order exponential Runge–Kutta scheme (ETDRK4), its coefficients by the
contour integrals of Kassam & Trefethen, SIAM J. Sci. Comput. 26, 2005.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import CubicHermiteSpline

Array = NDArray[np.float64]
Complex = NDArray[np.complex128]

CIRCLE = 32
"""Points of the contour around each eigenvalue."""


@dataclass(frozen=True, eq=False)
class Evolution:
    """A periodic evolution equation.

    Parameters
    ----------
    low, high:
        Ends of the period.
    modes:
        Number of places, and of Fourier coefficients.
    end:
        Last time.
    steps:
        Steps in time.
    linear:
        L of each wave number, (modes,).
    nonlinear:
        N of values at the places, as Fourier coefficients: (modes,) to (modes,).
    """

    low: float
    high: float
    modes: int
    end: float
    steps: int
    linear: Callable[[Array], Complex]
    nonlinear: Callable[[Complex, Array], Complex]

    @property
    def places(self) -> Array:
        """The places, (modes,)."""
        period = self.high - self.low
        return np.asarray(self.low + period * np.arange(self.modes) / self.modes)

    @property
    def wave_numbers(self) -> Array:
        """The wave numbers k, (modes,)."""
        spacing = (self.high - self.low) / self.modes
        return np.asarray(2 * np.pi * np.fft.fftfreq(self.modes, spacing))

    def solved(self, start: Callable[[Array], Array]) -> Solved:
        """Return the solution that starts so."""
        k = self.wave_numbers
        linear = self.linear(k)
        step = self.end / self.steps
        scheme = Scheme.of(linear, step)
        values = start(self.places).astype(complex)
        coefficients = np.fft.fft(values)

        def nonlinear(c: Complex) -> Complex:
            return self.nonlinear(c, k)

        # u_t = L u + N(u)
        states = [coefficients]
        slopes = [linear * coefficients + nonlinear(coefficients)]
        for _ in range(self.steps):
            coefficients = scheme.advance(coefficients, nonlinear)
            states.append(coefficients)
            slopes.append(linear * coefficients + nonlinear(coefficients))

        times = np.linspace(0, self.end, self.steps + 1)
        # Cubic between steps, by values and slopes: of the scheme's own order.
        rows = np.stack(states)
        spline = CubicHermiteSpline(times, rows, np.stack(slopes))
        return Solved(self.low, k, spline)


@dataclass(frozen=True, eq=False)
class Scheme:
    """The coefficients of ETDRK4 for a step h: with z = h L, functions of z alone."""

    whole: Complex
    half: Complex
    inner: Complex
    first: Complex
    middle: Complex
    last: Complex

    @classmethod
    def of(cls, linear: Complex, step: float) -> Scheme:
        """Return the scheme for L and a step, its quotients as means over circles around h L."""
        angles = 2j * np.pi * (np.arange(CIRCLE) + 0.5) / CIRCLE
        circle = np.exp(angles)
        # (modes, points of the circle)
        z = step * linear[:, None] + circle[None, :]
        exp = np.exp(z)

        def mean(values: Complex) -> Complex:
            return np.asarray(step * values.mean(axis=1))

        # The quotients of Cox & Matthews, without the z³ that all divide by.
        first = -4 - z + exp * (4 - 3 * z + z**2)
        middle = 2 + z + exp * (z - 2)
        last = -4 - 3 * z - z**2 + exp * (4 - z)
        half_step = np.exp(z / 2) - 1

        return cls(
            whole=np.exp(step * linear),
            half=np.exp(step * linear / 2),
            inner=mean(half_step / z),
            first=mean(first / z**3),
            middle=mean(middle / z**3),
            last=mean(last / z**3),
        )

    def advance(self, c: Complex, nonlinear: Callable[[Complex], Complex]) -> Complex:
        """Return the coefficients after a step, equations 26–29 of Cox & Matthews."""
        half_way = self.half * c
        at_c = nonlinear(c)
        a = half_way + self.inner * at_c

        at_a = nonlinear(a)
        b = half_way + self.inner * at_a

        at_b = nonlinear(b)
        d = self.half * a + self.inner * (2 * at_b - at_c)

        at_d = nonlinear(d)
        total = self.whole * c + self.first * at_c
        total = total + 2 * self.middle * (at_a + at_b)
        total = total + self.last * at_d
        return np.asarray(total)


@dataclass(frozen=True, eq=False)
class Solved:
    """A solution as Fourier coefficients by time."""

    low: float
    wave_numbers: Array
    spline: CubicHermiteSpline

    def at(self, x: Array, t: Array) -> Complex:
        """Return the complex values at places and times, (n,)."""
        values = np.empty(len(x), dtype=complex)
        # A part at a time: the table of waves has a column for each mode.
        for first in range(0, len(x), 2000):
            part = slice(first, first + 2000)
            phases = np.outer(x[part] - self.low, self.wave_numbers)
            waves = np.exp(1j * phases)
            terms = waves * self.spline(t[part])
            values[part] = terms.sum(axis=1)
        return np.asarray(values / len(self.wave_numbers), dtype=np.complex128)
