"""Reference solutions of the zoo's one-dimensional problems, as functions of ``(x, t)``.

Three are closed forms, Burgers' equation is a Gauss-Hermite sum of its Cole-Hopf formula, and
Allen-Cahn's is solved once per process by :mod:`whence.pinn.zoo._allen_cahn_reference`. Every
function takes float64 arrays ``x`` and ``t`` of equal shape (n,) and returns ``u`` of shape (n,).
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

_BURGERS_VISCOSITY = 0.01 / np.pi
_BURGERS_NODES = 180
_BURGERS_CHUNK = 4096


def diffusion(x: Array, t: Array) -> Array:
    """Return the solution of the forced diffusion equation, sin(πx) exp(−t).

    It solves u_t = u_xx − exp(−t) (1 − π²) sin(πx) on x ∈ [−1, 1], t ∈ [0, 1], with
    u(x, 0) = sin(πx) and u(±1, t) = 0. Source: Wu et al., "A comprehensive study of non-adaptive
    and residual-based adaptive sampling for physics-informed neural networks" (2023).

    Parameters
    ----------
    x, t : ndarray of shape (n,)
        Places and times (t ≥ 0).

    Returns
    -------
    ndarray of shape (n,)

    Examples
    --------
    >>> diffusion(np.array([0.5, 1.0]), np.array([0.0, 0.3])).tolist()
    [1.0, 0.0]
    """
    x, t = _points(x, t)
    return _sin_pi(x) * np.exp(-t)


def wave(x: Array, t: Array) -> Array:
    """Return the standing wave sin(πx) cos(2πt) + ½ sin(4πx) cos(8πt).

    It solves u_tt = 4 u_xx on x ∈ [0, 1], with u(x, 0) = sin(πx) + ½ sin(4πx), u_t(x, 0) = 0 and
    u(0, t) = u(1, t) = 0. Source: Wu et al. (2023), see :func:`diffusion`.

    Parameters
    ----------
    x, t : ndarray of shape (n,)
        Places and times (t ≥ 0).

    Returns
    -------
    ndarray of shape (n,)

    Examples
    --------
    >>> wave(np.array([0.5, 0.5]), np.array([0.0, 0.5])).tolist()
    [1.0, -1.0]
    """
    x, t = _points(x, t)
    slow = _sin_pi(x) * np.cos(2 * np.pi * t)
    return slow + 0.5 * _sin_pi(4 * x) * np.cos(8 * np.pi * t)


def drift_diffusion(x: Array, t: Array) -> Array:
    """Return one drifting, decaying Fourier mode, sin(2 (x − 20t) + π/4) exp(−4t).

    It solves u_t = u_xx − 20 u_x on x ∈ [0, 2π] with u(x, 0) = sin(2x + π/4), and is π-periodic
    in x. Source: separation of variables; a mode of wave number k drifts at speed 20 and decays
    at rate k², here k = 2.

    Parameters
    ----------
    x, t : ndarray of shape (n,)
        Places and times (t ≥ 0).

    Returns
    -------
    ndarray of shape (n,)

    Examples
    --------
    >>> drift_diffusion(np.array([np.pi / 8]), np.array([0.0])).tolist()
    [1.0]
    """
    x, t = _points(x, t)
    return np.sin(2 * (x - 20 * t) + np.pi / 4) * np.exp(-4 * t)


def burgers(x: Array, t: Array) -> Array:
    r"""Return the solution of viscous Burgers' equation that steepens into a shock at x = 0.

    It solves u_t + u u_x = ν u_xx, ν = 0.01/π, on x ∈ [−1, 1], t ∈ [0, 1], with
    u(x, 0) = −sin(πx) and u(±1, t) = 0. The Cole-Hopf substitution gives, with c = √(4νt) and
    K = 1/(2πν),

    .. math:: u = -\frac{\int \sin(π(x - cz))\, e^{-K\cos(π(x - cz))}\, e^{-z^2} dz}
                        {\int e^{-K\cos(π(x - cz))}\, e^{-z^2} dz},

    and both integrals are Gauss-Hermite sums. Opposite nodes ±z are added by the addition
    theorems, which turns their difference into a hyperbolic sine: u is then exactly odd, exactly
    zero at x = 0 and x = ±1, and accurate relative to itself (to 1e-13) inside the shock,
    where the plain sums cancel. At t = 0 it is −sin(πx). Source: Cole (1951); Hopf (1950);
    Basdevant et al., Computers & Fluids 14 (1986), 23-41.

    Parameters
    ----------
    x, t : ndarray of shape (n,)
        Places in [−1, 1] and times in [0, 1].

    Returns
    -------
    ndarray of shape (n,)

    Examples
    --------
    >>> burgers(np.array([-0.5, 0.0, 0.01, 1.0]), np.array([0.0, 0.5, 1.0, 1.0])).round(9).tolist()
    [1.0, 0.0, -0.594256168, 0.0]
    """
    x, t = _points(x, t, x_bound=1.0, t_bound=1.0)
    return _burgers(x, t, _BURGERS_NODES)


def allen_cahn(x: Array, t: Array) -> Array:
    """Return the solution of the Allen-Cahn equation, accurate to 1e-9 absolutely.

    It solves u_t = 0.001 u_xx − 5 (u³ − u) on x ∈ [−1, 1], t ∈ [0, 1], with
    u(x, 0) = x² cos(πx) and u(±1, t) = −1. No closed form is known: the first call solves it by a
    spectral method (a fraction of a second), later ones only interpolate. Source of the problem:
    Wu et al. (2023), see :func:`diffusion`; of the method:
    :mod:`whence.pinn.zoo._allen_cahn_reference`, which also says what holds near t = 0.

    Parameters
    ----------
    x, t : ndarray of shape (n,)
        Places in [−1, 1] and times in [0, 1].

    Returns
    -------
    ndarray of shape (n,)

    Examples
    --------
    >>> allen_cahn(np.array([-1.0, 0.5, 0.5]), np.array([0.3, 0.5, 1.0])).round(8).tolist()
    [-1.0, -0.03640254, -0.24750108]
    """
    x, t = _points(x, t, x_bound=1.0, t_bound=1.0)
    from whence.pinn.zoo import _allen_cahn_reference  # scipy is slow to import

    return _allen_cahn_reference.evaluate(_allen_cahn_reference.solution(), x, t)


def _points(
    x: Array, t: Array, *, x_bound: float = np.inf, t_bound: float = np.inf
) -> tuple[Array, Array]:
    """Return ``x`` and ``t`` as float64, or raise ``ValueError`` saying what was given."""
    x, t = np.asarray(x, dtype=np.float64), np.asarray(t, dtype=np.float64)
    if x.ndim != 1 or x.shape != t.shape:
        raise ValueError(
            f"x and t must be of equal shape (n,), got {x.shape} and {t.shape}"
        )
    for name, values in (("x", x), ("t", t)):
        bad = np.flatnonzero(~np.isfinite(values))
        if bad.size:
            raise ValueError(
                f"{name} must be finite: {bad.size} of {values.size} values are not, "
                f"the first is {name}[{bad[0]}] = {float(values[bad[0]])}"
            )
    if x.size and float(t.min()) < 0:
        raise ValueError(f"t must be at least 0, got {float(t.min())}")
    if x.size and float(t.max()) > t_bound:
        raise ValueError(f"t must be at most {t_bound}, got {float(t.max())}")
    if x.size and float(np.abs(x).max()) > x_bound:
        outside = float(x[np.abs(x).argmax()])
        raise ValueError(f"x must be within [{-x_bound}, {x_bound}], got {outside}")
    return x, t


def _sin_pi(x: Array) -> Array:
    """Return sin(πx), exactly zero at the integers (``np.sin(np.pi)`` is 1.2e-16)."""
    whole = np.round(x)
    sine: Array = np.sin(np.pi * (x - whole)) * (1 - 2 * np.mod(whole, 2))
    return sine + 0.0  # turns -0.0 into 0.0


@lru_cache(maxsize=4)
def _positive_hermite(nodes: int) -> tuple[Array, Array]:
    """Return the positive half of an even Gauss-Hermite rule and its log-weights."""
    from scipy.special import roots_hermite  # scipy is slow to import

    z, weights = roots_hermite(nodes)
    return z[nodes // 2 :], np.log(weights[nodes // 2 :])


def _burgers(x: Array, t: Array, nodes: int) -> Array:
    """Evaluate :func:`burgers` with an even number of Gauss-Hermite nodes, in chunks."""
    starts = range(0, x.size, _BURGERS_CHUNK)
    parts = [
        _burgers_chunk(x[i : i + _BURGERS_CHUNK], t[i : i + _BURGERS_CHUNK], nodes)
        for i in starts
    ]
    return np.concatenate([np.empty(0), *parts])


def _burgers_chunk(x: Array, t: Array, nodes: int) -> Array:
    """Evaluate :func:`burgers` on one chunk: temporaries are of shape (len(x), nodes / 2)."""
    z, log_weights = _positive_hermite(nodes)
    height = 1 / (2 * np.pi * _BURGERS_VISCOSITY)  # K = 50
    sin_x, cos_x = _sin_pi(x)[:, None], np.cos(np.pi * x)[:, None]
    shift = np.pi * np.sqrt(4 * _BURGERS_VISCOSITY * t)[:, None] * z
    sin_z, cos_z = np.sin(shift), np.cos(shift)
    # The nodes ±z carry the exponents even ∓ odd; their two exponentials are the larger,
    # exp(even + |odd|), and that times exp(−2|odd|). Only ratios to the row's largest matter.
    odd = height * sin_x * sin_z
    top = log_weights - height * cos_x * cos_z + np.abs(odd)
    top = np.exp(top - top.max(axis=1, keepdims=True))
    less = np.expm1(-2 * np.abs(odd))
    twice_cosh = top * (2 + less)
    twice_sinh = np.copysign(top * less, odd)
    # sum over ±z of sin(π(x ∓ cz)) times its exponential
    numerator = sin_x * cos_z * twice_cosh + cos_x * sin_z * twice_sinh
    u: Array = -numerator.sum(axis=1) / twice_cosh.sum(axis=1)
    return u + 0.0  # turns -0.0 into 0.0
