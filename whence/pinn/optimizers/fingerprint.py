"""A digest of an objective's points and weights, by which an optimizer sees that they changed."""

from __future__ import annotations

import hashlib

from whence.objective import Objective


def fingerprint_of(objective: Objective) -> str:
    """Return a digest of points and weights, by which a change shows, also after a restart."""
    digest = hashlib.sha256()
    for name, term in objective.terms.items():
        points = objective.locations(name)
        shape = tuple(points.shape)
        # What stands between the bytes, so that no two objectives run together.
        head = f"{name} {term.weight!r} {shape}"
        digest.update(head.encode())

        for tensor in (points, term.point_weights, term.base_weights):
            if tensor is None:
                continue
            values = tensor.detach().cpu().contiguous()
            digest.update(values.numpy().tobytes())

    return digest.hexdigest()
