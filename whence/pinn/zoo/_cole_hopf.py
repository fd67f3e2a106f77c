"""Burgers' equation by the Cole–Hopf substitution and Gauss–Hermite sums."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from whence.pinn.zoo._reference_points import Array, sin_pi

VISCOSITY = 0.01 / np.pi
NODES = 180
CHUNK = 4096
"""Points evaluated at once."""


def evaluate(x: Array, t: Array, nodes: int = NODES) -> Array:
    """Return u (n,) at points, with an even number of Gauss–Hermite nodes."""
    parts = [np.empty(0)]
    for start in range(0, x.size, CHUNK):
        stop = start + CHUNK
        parts.append(evaluate_chunk(x[start:stop], t[start:stop], nodes))
    return np.concatenate(parts)


@lru_cache(maxsize=4)
def positive_hermite(nodes: int) -> tuple[Array, Array]:
    """Return the positive half of an even Gauss–Hermite rule and its log-weights."""
    from scipy.special import roots_hermite  # slow to import

    z, weights = roots_hermite(nodes)
    return z[nodes // 2 :], np.log(weights[nodes // 2 :])


def evaluate_chunk(x: Array, t: Array, nodes: int) -> Array:
    """Evaluate one chunk: temporaries are of shape (len(x), nodes / 2)."""
    z, log_weights = positive_hermite(nodes)
    height = 1 / (2 * np.pi * VISCOSITY)  # K = 50

    sin_x = sin_pi(x)[:, None]
    cos_x = np.cos(np.pi * x)[:, None]
    width = np.sqrt(4 * VISCOSITY * t)  # c, (n,)
    shift = np.pi * width[:, None] * z  # π c z
    sin_z = np.sin(shift)
    cos_z = np.cos(shift)

    # −K cos(π(x ∓ cz)) = even ∓ odd with even = −K cos πx cos πcz, odd = K sin πx sin πcz.
    # The two exponentials are the larger, exp(even + |odd|), and that times exp(−2|odd|).
    odd = height * sin_x * sin_z
    even = -height * cos_x * cos_z
    log_larger = log_weights + even + np.abs(odd)

    # Only ratios count, so each row is taken relative to its largest exponential.
    largest = log_larger.max(axis=1, keepdims=True)
    larger = np.exp(log_larger - largest)
    difference = np.expm1(-2 * np.abs(odd))
    twice_cosh = larger * (2 + difference)
    twice_sinh = np.copysign(larger * difference, odd)

    # Σ over ±z of sin(π(x ∓ cz)) times its exponential.
    numerator = sin_x * cos_z * twice_cosh
    numerator += cos_x * sin_z * twice_sinh
    u: Array = -numerator.sum(axis=1) / twice_cosh.sum(axis=1)
    return u + 0.0  # turns -0.0 into 0.0
