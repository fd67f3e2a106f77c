"""Points whose distance from each other follows a function of where they are."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from scipy.spatial import KDTree
from torch import Tensor

from whence import _checks
from whence.pinn.geometry.base import Domain

Spacing = Callable[[Tensor], Tensor]
"""``spacing(points (n, d)) -> (n,)``, how far points are to be apart there, up to a factor."""

CANDIDATES = 200_000
"""Points of the domain that are chosen from, at least."""
CANDIDATES_PER_POINT = 40
SWEEPS = 10
"""Of Lloyd's algorithm, which makes the points' surroundings round."""


def graded(
    domain: Domain, n: int, spacing: Spacing, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """Return n points (n, d) as far apart as a function says, and these distances (n,).

    The function gives distances up to one factor, which follows from n: with h that function the
    points are as dense as 1/hᵈ. They are the centers of their surroundings (a centroidal Voronoi
    tessellation; Du, Faber & Gunzburger, SIAM Review 41, 1999), so there are no gaps and no two
    are close. Where a solution changes quickly, more points and features serve it.

    Parameters
    ----------
    domain:
        Where.
    n:
        How many.
    spacing:
        h, positive.
    seed:
        Equal seeds give equal points.

    Raises
    ------
    ValueError
        If n is no positive integer, or the spacing is not positive everywhere.

    Examples
    --------
    >>> import torch
    >>> from whence import pinn
    >>> square = pinn.Rectangle(("x", "y"), (0, 0), (1, 1))
    >>> points, distances = pinn.graded(square, 200, lambda z: 0.1 + z[:, 0])
    >>> bool((points[:, 0] < 0.5).double().mean() > 0.8), distances.shape
    (True, torch.Size([200]))
    """
    _checks.count("n", n)
    n_candidates = max(CANDIDATES, CANDIDATES_PER_POINT * n)
    candidates = domain.sample(n_candidates, "random", seed=seed)
    d = candidates.shape[1]
    distances = _checked(spacing, candidates)

    relative = distances / distances.min()
    generator = torch.Generator().manual_seed(seed)

    def drawn(power: float) -> np.ndarray:
        """Return candidates drawn with density 1/h^power."""
        density = relative**-power
        rows = torch.multinomial(
            density, n_candidates, replacement=True, generator=generator
        )
        return candidates[rows].numpy()

    # Halves of equal numbers have centers of the same density.
    centers = _halved(drawn(d), n)
    # Centers of cells are as dense as ρ^(d/(d+2)) where what they divide has density ρ (Gersho,
    # IEEE Trans. Inf. Theory 25, 1979): 1/hᵈ takes ρ = 1/h^(d+2).
    divided = drawn(d + 2)
    for _ in range(SWEEPS):
        centers = _centroids(divided, centers)
    points = _within(domain, torch.as_tensor(centers), candidates)

    # n points at distances c h fill the domain: n = V mean(1/hᵈ)/cᵈ.
    filled = domain.measure * float((relative**-d).mean())
    side = (filled / n) ** (1 / d)
    at_points = _checked(spacing, points) / distances.min()
    return points, side * at_points


def _checked(spacing: Spacing, points: Tensor) -> Tensor:
    """Return the spacing at points, (n,)."""
    distances = torch.as_tensor(spacing(points), dtype=torch.float64)
    if distances.shape != (len(points),):
        raise ValueError(
            f"the spacing must return a number for each of {len(points)} points, got "
            f"{tuple(distances.shape)}"
        )
    if not bool((distances > 0).all()):
        raise ValueError(
            f"the spacing must be positive everywhere, its least value is {distances.min():.3g}"
        )
    return distances


def _halved(points: np.ndarray, n: int) -> np.ndarray:
    """Return the means of n parts of equal size, made by halving along the longest side."""
    if n == 1:
        return points.mean(axis=0, keepdims=True)

    extent = points.max(axis=0) - points.min(axis=0)
    axis = int(extent.argmax())
    n_first = n // 2
    cut = len(points) * n_first // n
    order = np.argpartition(points[:, axis], cut)
    first = _halved(points[order[:cut]], n_first)
    second = _halved(points[order[cut:]], n - n_first)
    return np.concatenate([first, second])


def _centroids(points: np.ndarray, centers: np.ndarray) -> np.ndarray:
    """Return the mean of the points that are nearest to each center (Lloyd's algorithm)."""
    _, cell = KDTree(centers).query(points)
    counts = np.bincount(cell, minlength=len(centers))
    sums = np.zeros_like(centers)
    np.add.at(sums, cell, points)
    # A center that nothing is nearest to stays where it is.
    is_empty = counts == 0
    means = sums / np.maximum(counts, 1)[:, None]
    return np.where(is_empty[:, None], centers, means)


def _within(domain: Domain, centers: Tensor, candidates: Tensor) -> Tensor:
    """Return the centers, those outside of the domain moved to the nearest candidate."""
    # The mean of points around a hole, for example, may lie in it.
    is_outside = ~domain.contains(centers)
    if not bool(is_outside.any()):
        return centers

    _, rows = KDTree(candidates.numpy()).query(centers[is_outside].numpy())
    points = centers.clone()
    points[is_outside] = candidates[torch.as_tensor(rows)]
    return points
