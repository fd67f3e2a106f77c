"""Attributions layer by layer: what each layer's parameters add to an entry.

An entry ``vᵀ∇ℓ(z)`` of a target's vector v and a point's gradient is a sum over parameters, so that
those of each layer make a part of it: ``Σ_layers v_lᵀ∇_lℓ(z)``.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from whence.attribution.arguments import PreparedPoints
from whence.attribution.labels import Effect
from whence.attribution.quantities import Quantity
from whence.attribution.tiled import Tiled
from whence.attribution.tiles import Directions, PointBlock, Solved
from whence.jacobian import point_gradients
from whence.parameters import Parameters


def layer_names(parameters: Parameters) -> dict[str, list[slice]]:
    """Return by layer where its selected parameters are in θ; a layer is the module they are of.

    Examples
    --------
    >>> import torch
    >>> from whence.attribution.by_layer import layer_names
    >>> from whence.parameters import Parameters
    >>> model = torch.nn.Sequential(torch.nn.Linear(2, 1), torch.nn.Linear(1, 1))
    >>> layer_names(Parameters(model))
    {'0': [slice(0, 2, None), slice(2, 3, None)], '1': [slice(3, 4, None), slice(4, 5, None)]}
    """
    layers: dict[str, list[slice]] = {}
    for name, columns in parameters.slices.items():
        module, _, _ = name.rpartition(".")
        # A parameter of the network itself is a layer of its own.
        layers.setdefault(module or name, []).append(columns)
    return layers


def check_sum_over_layers(method: Tiled) -> None:
    """Raise ``ValueError`` unless the entries of a method are sums over parameters."""
    kind = type(method)
    is_sum = kind.products is Tiled.products and kind.sums_over_parameters
    if not is_sum:
        raise ValueError(
            f"entries of {method.name} are no sums over layers: use wh.Influence, wh.GradDot or "
            "wh.TracIn with by_layer=True"
        )


def layer_values(
    method: Tiled, quantity: Quantity, prepared: PreparedPoints, effect: Effect
) -> tuple[np.ndarray, Solved]:
    """Return what each layer adds to every entry, (T, n, layers), in the order of its names."""
    parameters = method.objective.parameters
    layers = list(layer_names(parameters).values())
    shape = (method.n_targets(quantity), len(prepared), len(layers))
    values = parameters.vector().new_zeros(shape)
    sign = -1.0 if effect == "add" else 1.0
    solved = Solved()
    for directions in method.target_directions(quantity):
        solved = solved.worst_with(directions.solved)
        for block in method.blocks_of(prepared):
            part = values[directions.targets, block.part]
            add_products(part, directions, block, parameters, layers)
            scale = torch.as_tensor(block.scale, dtype=part.dtype, device=part.device)
            # (n,) or a number, along the points.
            part *= sign * scale.view(1, -1, 1)
    return values.cpu().numpy(), solved


def add_products(
    part: Tensor,
    directions: Directions,
    block: PointBlock,
    parameters: Parameters,
    layers: list[list[slice]],
) -> None:
    """Add ``v_lᵀ∇_lℓ`` of each layer, target and point, summed over stages."""
    for stage, vectors in directions.vectors:
        with stage.at():
            for points, linear, cotangent in point_gradients(
                block.term, parameters, block.points
            ):
                rows = linear.rows(cotangent)  # (n, P)
                for k, columns in enumerate(layers):
                    for span in columns:
                        products = rows[:, span] @ vectors[span]
                        part[:, points.part, k] += products.T
