"""A digest of an objective's points and weights, by which an optimizer sees that they changed."""

from __future__ import annotations

import hashlib

from whence.objective import Objective


def fingerprint_of(objective: Objective) -> str:
    """Return a digest of points and weights, by which a change shows, also after a restart."""
    digest = hashlib.sha256()
    for name, term in objective.terms.items():
        points = objective.locations(name)
        digest.update(f"{name} {term.weight!r} {tuple(points.shape)}".encode())
        for tensor in (points, term.point_weights, term.base_weights):
            if tensor is not None:
                digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())

    return digest.hexdigest()
