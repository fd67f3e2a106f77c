"""From a network to named fields: outputs, derivatives of any order, coordinates, symbols.

``def burgers(u, u_t, u_x, u_xx)`` asks for the output u and three derivatives of it. Names are
an output, an output and coordinates after an underscore (``u_xt``), a coordinate, or a symbol: an
unknown number, or what is derived from fields at other places.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.func import functional_call

from whence import _checks, jets
from whence.jets import Jet, MultiIndex, UnsupportedOperation
from whence.pinn.pde.names import Name, parse
from whence.points import Points, Pointwise, blocks, evaluated_at_once, locations

logger = logging.getLogger("whence")

T = TypeVar("T")
Wanted = tuple[int, MultiIndex]
"""An output by position and a derivative of it."""


class Derived(Protocol):
    """A field made of others, at the same point or at other places."""

    def evaluate(
        self, field_map: FieldMap, tensors: Mapping[str, Tensor], points: Tensor
    ) -> Tensor:
        """Return its values at points (..., d): (...,)."""


_TAKES_AXES: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()
"""Which networks treat all axes of their input but the last as rows."""


@dataclass(frozen=True)
class FieldMap:
    """How a network's raw outputs become named fields of named coordinates.

    Parameters
    ----------
    network:
        Module from (n, d) coordinates to (n, m) raw outputs.
    coordinates, outputs:
        Names of the columns.
    ansatz:
        Function of coordinates and raw outputs, by name, that returns the outputs: one of them,
        or a tuple in order. ``None`` leaves the raw outputs as they are.
    derivatives:
        ``"jets"`` (one pass, with nested autograd where jets have no rule) or ``"autograd"``.
    functions:
        Names of unknown functions, whose networks give columns after those of the outputs.
    unknowns:
        Names of unknown numbers, which the network gives when asked by ``unknown=``.
    derived:
        Fields made of others, by name.
    """

    network: nn.Module
    coordinates: tuple[str, ...]
    outputs: tuple[str, ...]
    ansatz: Callable[..., Any] | None = None
    derivatives: str = "jets"
    functions: tuple[str, ...] = ()
    unknowns: tuple[str, ...] = ()
    derived: Mapping[str, Derived] = field(default_factory=dict)

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of all that can be differentiated: outputs and unknown functions."""
        return self.outputs + self.functions

    def parse(self, name: str) -> Name:
        """Return what a name stands for; one that means nothing is a ``ValueError``."""
        symbols = (*self.unknowns, *self.derived)
        return parse(name, self.coordinates, self.columns, symbols)

    def __call__(self, names: Sequence[str]) -> Pointwise:
        """Return the pointwise function with the named fields as columns, (n, len(names))."""
        for name in names:
            self.parse(name)

        def evaluate(tensors: Mapping[str, Tensor], points: Points) -> Tensor:
            values = self.evaluate(tensors, locations(points), names)
            return torch.stack([values[name] for name in names], dim=1)  # (n, names)

        evaluate.__qualname__ = f"the fields {', '.join(names)}"
        return evaluate

    def evaluate(
        self, tensors: Mapping[str, Tensor], points: Tensor, names: Sequence[str]
    ) -> dict[str, Tensor]:
        """Return the named fields at ``points`` (n, d), each (n,), differentiable by tensors."""
        parsed = {name: self.parse(name) for name in names}
        wanted: set[Wanted] = set()
        for name in parsed.values():
            if name.output is not None:
                wanted.add((name.output, name.index))

        # All derivatives in one pass through the network; none for coordinates alone.
        derivatives: dict[Wanted, Tensor] = {}
        if wanted:
            derivatives = self._differentiate(tensors, points, wanted)

        fields = {}
        for key, name in parsed.items():
            if name.output is not None:
                fields[key] = derivatives[name.output, name.index]
            elif name.symbol is not None:
                fields[key] = self._symbol(name.symbol, tensors, points)
            else:
                fields[key] = points[..., name.coordinate]

        return fields

    def at_places(
        self, tensors: Mapping[str, Tensor], places: Tensor, names: Sequence[str]
    ) -> dict[str, Tensor]:
        """Return the named fields at several places of each point, (..., Q, d): each (..., Q)."""
        # With an axis of its own, the places are channels of a point's row of the Jacobian.
        if _TAKES_AXES.get(self.network, False):
            return self.evaluate(tensors, places, names)

        shape = places.shape[:-1]
        flat = places.reshape(-1, places.shape[-1])
        values = self.evaluate(tensors, flat, names)
        return {name: value.reshape(shape) for name, value in values.items()}

    def _symbol(
        self, name: str, tensors: Mapping[str, Tensor], points: Tensor
    ) -> Tensor:
        """Return the values (...,) of an unknown number or a derived field."""
        if name in self.derived:
            return self.derived[name].evaluate(self, tensors, points)
        return self._unknown(name, tensors, points)

    def _unknown(
        self, name: str, tensors: Mapping[str, Tensor], points: Tensor
    ) -> Tensor:
        value: Tensor = functional_call(
            self.network, dict(tensors), (points,), {"unknown": name}
        )
        return value

    def _differentiate(
        self,
        tensors: Mapping[str, Tensor],
        points: Tensor,
        wanted: set[Wanted],
    ) -> dict[Wanted, Tensor]:
        """Return the wanted derivatives, each (n,): by jets, or by nested autograd."""
        if not any(index for _, index in wanted):
            # Values alone need no jets.
            columns = self._outputs(tensors, points)
            return {(k, index): columns[k] for k, index in wanted}

        if self.derivatives == "jets":
            try:
                # A jet carries a Taylor expansion of each value through the network.
                layout = jets.layout(index for _, index in wanted)
                columns = self._outputs(tensors, jets.seed(points, layout))
                if all(isinstance(column, Jet) for column in columns):
                    return {(k, i): columns[k].derivative(i) for k, i in wanted}
            except UnsupportedOperation as reason:
                log_once(str(reason))

        return self._nested(tensors, points, wanted)

    def _nested(
        self,
        tensors: Mapping[str, Tensor],
        points: Tensor,
        wanted: set[Wanted],
    ) -> dict[Wanted, Tensor]:
        """Differentiate the batch in forward mode, once per coordinate of each multi-index."""

        def outputs(at: Tensor) -> Tensor:
            return torch.stack(list(self._outputs(tensors, at)), dim=-1)

        # One table (n, outputs) for each multi-index: outputs are differentiated together.
        tables = {}
        for _, index in wanted:
            if index not in tables:
                tables[index] = _directional(outputs, index)(points)
        return {(k, index): tables[index][..., k] for k, index in wanted}

    def _outputs(self, tensors: Mapping[str, Tensor], at: Any) -> tuple[Any, ...]:
        """Return outputs and unknown functions at points or jets, ansatz applied, each (n,)."""
        raw = functional_call(
            self.network, dict(tensors), (at,)
        )  # (n, m), or a jet of that
        if raw.shape[-1] != len(self.columns) or raw.shape[:-1] != at.shape[:-1]:
            raise ValueError(
                f"the network must map {tuple(at.shape)} to (n, {len(self.columns)}) for outputs "
                f"{', '.join(self.columns)}, got {tuple(raw.shape)}"
            )

        # By name, raw outputs first: the ansatz takes them, coordinates and unknown numbers.
        columns = {name: raw[..., k] for k, name in enumerate(self.columns)}
        if self.ansatz is None:
            return tuple(columns.values())

        functions = tuple(columns[name] for name in self.functions)
        columns |= {name: at[..., k] for k, name in enumerate(self.coordinates)}
        names = _checks.arguments("the ansatz", self.ansatz)
        for name in names:
            if name in self.unknowns:
                # The same at all points: it has no derivatives to carry.
                points = at.value if isinstance(at, Jet) else at
                columns[name] = self._unknown(name, tensors, points)
        arguments = [columns[name] for name in names]
        result = as_tuple(self.ansatz(*arguments))

        # A column (n, 1) would broadcast to (n, n) further on.
        shapes = [getattr(column, "shape", None) for column in result]
        if shapes != [at.shape[:-1]] * len(self.outputs):
            raise ValueError(
                f"the ansatz must return {len(self.outputs)} tensor(s) of shape "
                f"{tuple(at.shape[:-1])}, for {', '.join(self.outputs)}, got "
                f"{[_checks.shape_of(column) for column in result]}"
            )

        return result + functions

    def check(self, points: Tensor) -> None:
        """Raise ``ValueError`` unless network and ansatz fit the coordinates and outputs.

        Both are called once, at points (n, d) in the network's dtype and on its device.
        """
        inputs = len(self.coordinates)
        outputs = len(self.columns)
        what = (
            f"the network must map {inputs} input(s) ({', '.join(self.coordinates)}) to {outputs} "
            f"output(s) ({', '.join(self.columns)}), as pinn.MLP([{inputs}, 32, 32, {outputs}]) "
            "does; this one"
        )
        # Leaves of a graph, which NumPy's functions refuse.
        points = points.detach().requires_grad_()
        # The network alone first, so that its error does not blame the ansatz.
        raw = tried(what, self.network, {"points": points})
        if not isinstance(raw, Tensor) or raw.shape != (len(points), outputs):
            raise ValueError(
                f"{what} maps {tuple(points.shape)} to {_checks.shape_of(raw)}"
            )

        check_kind(what, (raw,), points)

        if self.ansatz is not None:
            columns = dict(zip(self.columns, raw.unbind(1), strict=True))
            columns |= dict(zip(self.coordinates, points.unbind(1), strict=True))
            for name in self.unknowns:
                columns[name] = self.network(points, unknown=name)
            names = _checks.arguments("the ansatz", self.ansatz)
            arguments = {name: columns[name] for name in names}
            result = tried("the ansatz", self.ansatz, arguments)
            check_kind("the ansatz", as_tuple(result), points)

        _TAKES_AXES[self.network] = _takes_axes(self.network, points.detach())


def _takes_axes(network: nn.Module, points: Tensor) -> bool:
    """Whether a network gives the same for points (n, d) as for points (1, n, d)."""
    # On copies, as some layers change their buffers when they are called.
    tensors = {}
    for name, tensor in (*network.named_parameters(), *network.named_buffers()):
        tensors[name] = tensor.detach().clone()

    try:
        with torch.no_grad():
            flat = functional_call(network, tensors, (points,))
            stacked = functional_call(network, tensors, (points.unsqueeze(0),))
    except Exception:  # the user's code, which may do anything with another axis
        return False

    if not isinstance(stacked, Tensor) or stacked.shape != (1, *flat.shape):
        return False
    return bool(torch.allclose(stacked[0], flat, rtol=1e-4, atol=1e-6))


def as_tuple(result: T | Sequence[T]) -> tuple[T, ...]:
    """Return what a user's function gave, one tensor or several, as a tuple."""
    if isinstance(result, (tuple, list)):
        return tuple(result)
    return (result,)  # type: ignore[return-value]


def tried(what: str, function: Callable[..., T], columns: Mapping[str, Tensor]) -> T:
    """Return what a user's function gives for copies of its arguments; an error names it.

    A change in place is an error: it would reach other columns, and the training points.
    """
    copies = {name: column.clone() for name, column in columns.items()}
    versions = {name: copy._version for name, copy in copies.items()}

    try:
        result = function(*copies.values())
    except Exception as error:
        reason = str(error).splitlines() or [""]
        raise ValueError(
            f"{what} fails: {type(error).__name__}: {reason[0]}"
        ) from error

    for name, copy in copies.items():
        # Torch counts the changes of a tensor in place.
        if copy._version != versions[name]:
            raise ValueError(
                f"{what} changes {name!r} in place, which other terms and the training points "
                f"would feel: make a new tensor, such as {name} = {name} + 1 in place of "
                f"{name} += 1"
            )

    return result


def check_kind(what: str, results: Sequence[object], points: Tensor) -> None:
    """Raise ``ValueError`` for a tensor of another dtype or device than the network's."""
    # A constant in float64 would turn a float32 network's residual into float64.
    wanted = (points.dtype, points.device)
    for result in results:
        if isinstance(result, Tensor) and (result.dtype, result.device) != wanted:
            raise ValueError(
                f"{what} gives {result.dtype} on {result.device} where the network is "
                f"{points.dtype} on {points.device}: bring constants to it, such as c.to(points)"
            )


def _directional(
    function: Callable[[Tensor], Tensor], index: MultiIndex
) -> Callable[[Tensor], Tensor]:
    """Return ``function`` differentiated along each coordinate of ``index`` in turn."""
    if not index:
        return function

    # ∂_{i₁…i_k} f = ∂_{i₁}(∂_{i₂…i_k} f): a forward pass inside another for each order.
    inner = _directional(function, index[1:])

    def derivative(points: Tensor) -> Tensor:
        direction = torch.zeros_like(points)
        direction[..., index[0]] = 1.0  # the same for every point: rows do not mix
        tangent: Tensor = torch.func.jvp(inner, (points,), (direction,))[1]
        return tangent

    return derivative


@functools.cache
def log_once(reason: str) -> None:
    """Log why derivatives are slower than they could be, once for each reason."""
    logger.info("derivatives by nested autograd, exact but slower: %s", reason)


def evaluate_at(network: nn.Module, function: Pointwise, points: Tensor) -> Tensor:
    """Return a function of a network's parameters at points (n, d), in blocks: (n, m)."""
    # Detached and without a graph: values, not something to differentiate.
    like = next(network.parameters())
    rows = points.to(dtype=like.dtype, device=like.device)
    tensors = {}
    for name, parameter in network.named_parameters():
        tensors[name] = parameter.detach()

    parts = []
    size = evaluated_at_once(rows, tensors)
    with torch.no_grad():
        for block in blocks(rows, size):
            parts.append(function(tensors, block.points))
    return torch.cat(parts)
