"""What tells two results apart: by it a result that was begun is gone on with, or refused."""

from __future__ import annotations

import numpy as np

from whence import __version__
from whence._files import digest
from whence.attribution.arguments import PreparedPoints
from whence.attribution.labels import Attributes, Effect
from whence.attribution.quantities import Quantity
from whence.attribution.tiled import Tiled
from whence.points import Points, are_samples, locations
from whence.samples import Samples


def identity_of(
    method: Tiled, quantity: Quantity, prepared: PreparedPoints, effect: Effect
) -> Attributes:
    """Return what a result depends on, in words or as digests.

    Of samples that are read when they are used, the number and the first and the last count.
    """
    objective = method.objective
    parameters = objective.parameters.vector().detach().cpu().numpy()
    values = quantity.values(objective).detach().cpu().numpy()
    return {
        "version": __version__,
        "method": method.name,
        "options": _options(method),
        "parameters": digest(parameters.tobytes()),
        # At the same parameters, other targets have other values.
        "quantity": digest(quantity.label(), values.tobytes()),
        "points": digest(*map(_digest_of_points, prepared.by_term.values())),
        "terms": ", ".join(prepared.by_term),
        "effect": effect,
    }


def _options(method: Tiled) -> str:
    """Return the options of a method, those that say in words what they are."""
    options = {}
    for name, value in vars(method).items():
        is_private = name.startswith("_") or name == "objective"
        # By default what is said of an object is where it is, which tells nothing.
        has_words = " at 0x" not in repr(value)
        if not is_private and has_words:
            options[name] = value
    return ", ".join(f"{name}={value!r}" for name, value in sorted(options.items()))


def _digest_of_points(points: Points) -> str:
    if are_samples(points):
        first, last = points[:1], points[-1:]
        return digest(str(len(points)), *_of_samples(first), *_of_samples(last))
    return digest(_bytes(locations(points).detach().cpu().numpy()))


def _of_samples(samples: Samples) -> list[bytes]:
    return [_bytes(tensor.detach().cpu().numpy()) for tensor in samples.batch.tensors()]


def _bytes(array: np.ndarray) -> bytes:
    return np.ascontiguousarray(array).tobytes()
