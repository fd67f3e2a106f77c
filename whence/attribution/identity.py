"""What tells two results apart: by it a result that was begun is gone on with, or refused."""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import Iterator, Mapping

import numpy as np
import torch
from torch import Tensor, nn

from whence import __version__
from whence._files import digest
from whence.attribution.arguments import PreparedPoints
from whence.attribution.labels import Attributes, Effect
from whence.attribution.quantities import Quantity
from whence.attribution.tiled import Tiled
from whence.points import Points, are_samples, locations


def identity_of(
    method: Tiled, quantity: Quantity, prepared: PreparedPoints, effect: Effect
) -> Attributes:
    """Return what a result depends on, in words or as digests.

    Of a residual, and of samples that are read when they are used, the loss and the length of its
    gradient speak, to six digits: other machines round otherwise.
    """
    objective = method.objective
    loss, gradient = objective.loss_and_gradient()
    length = float(gradient.norm())
    trained_on = [of_points(term.points) for term in objective.terms.values()]

    # Other targets may have the same values, and others at the same places other values.
    values = quantity.values(objective)
    targets = map(words_of, quantity.targets(objective).values())

    names = objective.parameters.names
    scales = [prepared.scale(name, slice(None)) for name in prepared.by_term]
    return {
        "version": __version__,
        "method": method.name,
        "options": digest(*options_of(method)),
        "parameters": digest(*names, *state_of(objective.network)),
        "checkpoints": digest(*stages_of(method)),
        "loss": f"{loss:.6g}, gradient {length:.6g}",
        "training points": digest(*trained_on),
        "quantity": digest(quantity.label(), of_tensor(values), *targets),
        "points": digest(*map(of_points, prepared.by_term.values())),
        "weights": digest(*map(words_of, scales)),
        "terms": ", ".join(prepared.by_term),
        "effect": effect,
    }


def options_of(method: Tiled) -> Iterator[str]:
    """Yield the options of a method; its objective and what it has made are none."""
    for name, value in sorted(vars(method).items()):
        if name != "objective" and not name.startswith("_"):
            yield f"{name}={words_of(value)}"


def words_of(value: object) -> str:
    """Return words that two values share only if they are equal."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return repr(value)
    if isinstance(value, np.generic):
        return words_of(value.item())
    if isinstance(value, Tensor):
        return of_tensor(value)
    if isinstance(value, np.ndarray) and value.dtype.kind in "biufc":
        return of_tensor(torch.as_tensor(value))

    if isinstance(value, (list, tuple, np.ndarray)):
        return str([words_of(inner) for inner in value])
    if isinstance(value, Mapping):
        return str({str(key): words_of(inner) for key, inner in value.items()})
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        compared = [entry.name for entry in dataclasses.fields(value) if entry.compare]
        inner = [f"{name}={words_of(getattr(value, name))}" for name in compared]
        return f"{type(value).__qualname__}({', '.join(inner)})"

    # A function, say: nothing tells whether it does the same, so that it is never the same.
    return f"{type(value).__qualname__} {uuid.uuid4()}"


def stages_of(method: Tiled) -> Iterator[str]:
    """Yield each state of the network that a method goes through, and its factor."""
    for stage in method.stages():
        with stage.at():
            yield f"{stage.factor!r} {digest(*state_of(method.objective.network))}"


def state_of(network: nn.Module) -> Iterator[str]:
    """Yield the name and the digest of each parameter and buffer."""
    for name, tensor in network.state_dict().items():
        yield f"{name} {of_tensor(tensor)}"


def of_points(points: Points) -> str:
    """Return a digest of points; of samples that are not in memory the first and the last."""
    if not are_samples(points):
        return of_tensor(locations(points))

    parts = [points]
    if not points.in_memory:
        parts = [points[:1], points[-1:]]
    digests: list[str] = []
    for part in parts:
        digests += map(of_tensor, part.batch.tensors())
    return digest(str(len(points)), *digests)


def of_tensor(tensor: Tensor) -> str:
    """Return a digest of a tensor's numbers, their type and their shape."""
    numbers = tensor.detach().cpu().contiguous()
    # By their bytes, as NumPy does not know all of torch's types.
    raw = numbers.reshape(-1).view(torch.uint8).numpy() if numbers.numel() else b""
    return digest(f"{numbers.dtype} {tuple(numbers.shape)}", bytes(raw))
