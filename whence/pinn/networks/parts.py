"""Networks of the catalogue inside others: how a run folder holds them."""

from __future__ import annotations

from torch import nn

from whence._files import JsonObject
from whence.catalogue import NETWORKS
from whence.pinn.networks.base import Rebuildable


def part_options(part: nn.Module) -> JsonObject:
    """Return what makes a network of this architecture again, as JSON can hold it.

    Raises
    ------
    TypeError
        If it is no network of the catalogue.
    """
    # By its class: what a user derives from one is another network.
    name = NETWORKS.name_of(part)
    if name is None or not isinstance(part, Rebuildable):
        raise TypeError(
            f"a part is a {type(part).__name__}, which is not in the catalogue: a run folder "
            "cannot make it again"
        )
    return {"kind": name, "options": part.options()}


def part_of(options: JsonObject) -> nn.Module:
    """Return a network of the architecture that :func:`part_options` returned."""
    # Only architectures are here; parameters are in the checkpoint.
    kind = NETWORKS[options["kind"]]
    part: nn.Module = kind.from_options(options["options"])
    return part
