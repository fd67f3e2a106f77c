"""What a network of the catalogue offers beside being a module."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from whence._files import JsonObject


@runtime_checkable
class Rebuildable(Protocol):
    """A network whose architecture a run folder can hold, so that it can be made again.

    Beside :meth:`options` its class has ``from_options(options)``, which returns a network of the
    same architecture with any parameters. A new network is one module in this folder (or of
    another package, by the entry point ``whence.networks``) with a class under
    ``@NETWORKS.named("name")``.
    """

    def options(self) -> JsonObject:
        """Return the arguments that make a network of this architecture, as JSON can hold them."""
