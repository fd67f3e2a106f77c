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
from whence.samples import Samples


def identity_of(
    method: Tiled, quantity: Quantity, prepared: PreparedPoints, effect: Effect
) -> Attributes:
    """Return what a result depends on, in words or as digests.

    Of a residual, and of samples that are read when they are used, the loss and the length of its
    gradient speak, to six digits: other machines round otherwise.
    """
    objective = method.objective
    loss, gradient = objective.loss_and_gradient()
    values = quantity.values(objective).detach()
    targets = quantity.targets(objective)
    scales = [prepared.scale(name, slice(None)) for name in prepared.by_term]
    return {
        "version": __version__,
        "method": method.name,
        "options": digest(*options_of(method)),
        "parameters": digest(*objective.parameters.names, *state_of(objective.network)),
        "checkpoints": digest(*stages_of(method)),
        "loss": f"{loss:.6g}, gradient {float(gradient.norm()):.6g}",
        "training points": digest(
            *(of_points(term.points) for term in objective.terms.values())
        ),
        "quantity": digest(
            quantity.label(), of_tensor(values), *map(words_of, targets.values())
        ),
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
    if isinstance(value, (Tensor, np.ndarray)):
        return (
            of_tensor(torch.as_tensor(value)) if is_numeric(value) else str(list(value))
        )
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        compared = [entry.name for entry in dataclasses.fields(value) if entry.compare]
        inner = [f"{name}={words_of(getattr(value, name))}" for name in compared]
        return f"{type(value).__qualname__}({', '.join(inner)})"
    if isinstance(value, Mapping):
        return str({str(key): words_of(inner) for key, inner in value.items()})
    if isinstance(value, (list, tuple)):
        return str([words_of(inner) for inner in value])
    if value is None or isinstance(value, (bool, int, float, str)):
        return repr(value)
    # A function, say: nothing tells whether it does the same, so that it is never the same.
    return f"{type(value).__qualname__} {uuid.uuid4()}"


def is_numeric(value: Tensor | np.ndarray) -> bool:
    """Whether an array holds numbers."""
    return isinstance(value, Tensor) or value.dtype.kind in "biufc"


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
    parts = [points] if points.in_memory else [points[:1], points[-1:]]
    tensors = [tensor for part in parts for tensor in tensors_of(part)]
    return digest(str(len(points)), *map(of_tensor, tensors))


def tensors_of(samples: Samples) -> list[Tensor]:
    """Return the tensors of samples."""
    return samples.batch.tensors()


def of_tensor(tensor: Tensor) -> str:
    """Return a digest of a tensor's numbers, their type and their shape."""
    numbers = tensor.detach().cpu().contiguous()
    # By their bytes, as NumPy does not know all of torch's types.
    raw = numbers.reshape(-1).view(torch.uint8).numpy() if numbers.numel() else b""
    return digest(f"{numbers.dtype} {tuple(numbers.shape)}", bytes(raw))
