"""From a network to named fields: outputs, derivatives of any order, coordinates.

``def burgers(u, u_t, u_x, u_xx)`` asks for the output u and three derivatives of it. Names are
an output, an output and coordinates after an underscore (``u_xt``), or a coordinate.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.func import functional_call

from whence import _checks, jets
from whence.jets import Jet, MultiIndex, UnsupportedOperation
from whence.pinn.pde.names import parse
from whence.points import Points, Pointwise, locations

logger = logging.getLogger("whence")

T = TypeVar("T")
Equation = Callable[..., Any]
"""A user's function of fields by argument name: tensors (n,), or fields; see ``helpers``."""
Wanted = tuple[int, MultiIndex]
"""An output by position and a derivative of it."""


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
    """

    network: nn.Module
    coordinates: tuple[str, ...]
    outputs: tuple[str, ...]
    ansatz: Callable[..., Any] | None = None
    derivatives: str = "jets"

    def __call__(self, names: Sequence[str]) -> Pointwise:
        """Return the pointwise function with the named fields as columns, (n, len(names))."""
        for name in names:
            parse(name, self.coordinates, self.outputs)

        def evaluate(tensors: Mapping[str, Tensor], points: Points) -> Tensor:
            values = self.evaluate(tensors, locations(points), names)
            return torch.stack([values[name] for name in names], dim=1)  # (n, names)

        return evaluate

    def evaluate(
        self, tensors: Mapping[str, Tensor], points: Tensor, names: Sequence[str]
    ) -> dict[str, Tensor]:
        """Return the named fields at ``points`` (n, d), each (n,), differentiable by tensors."""
        parsed = {name: parse(name, self.coordinates, self.outputs) for name in names}
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
            if name.output is None:
                fields[key] = points[..., name.coordinate]
            else:
                fields[key] = derivatives[name.output, name.index]

        return fields

    def _differentiate(
        self,
        tensors: Mapping[str, Tensor],
        points: Tensor,
        wanted: set[Wanted],
    ) -> dict[Wanted, Tensor]:
        """Return the wanted derivatives, each (n,): by jets, or by nested autograd."""
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
        """Return the outputs at points or jets, with the ansatz applied, each (n,)."""
        raw = functional_call(
            self.network, dict(tensors), (at,)
        )  # (n, m), or a jet of that
        if raw.shape[-1] != len(self.outputs) or raw.shape[:-1] != at.shape[:-1]:
            raise ValueError(
                f"the network must map {tuple(at.shape)} to (n, {len(self.outputs)}) for outputs "
                f"{', '.join(self.outputs)}, got {tuple(raw.shape)}"
            )

        # By name, raw outputs first: the ansatz takes them and the coordinates.
        columns = {name: raw[..., k] for k, name in enumerate(self.outputs)}
        if self.ansatz is None:
            return tuple(columns.values())

        columns |= {name: at[..., k] for k, name in enumerate(self.coordinates)}
        names = _checks.arguments("the ansatz", self.ansatz)
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

        return result

    def check(self, points: Tensor) -> None:
        """Raise ``ValueError`` unless network and ansatz fit the coordinates and outputs.

        Both are called once, at points (n, d) in the network's dtype and on its device.
        """
        inputs = len(self.coordinates)
        outputs = len(self.outputs)
        what = (
            f"the network must map {inputs} input(s) ({', '.join(self.coordinates)}) to {outputs} "
            f"output(s) ({', '.join(self.outputs)}), as pinn.MLP([{inputs}, 32, 32, {outputs}]) "
            "does; this one"
        )
        # The network alone first, so that its error does not blame the ansatz.
        raw = tried(what, self.network, {"points": points})
        if not isinstance(raw, Tensor) or raw.shape != (len(points), outputs):
            raise ValueError(
                f"{what} maps {tuple(points.shape)} to {_checks.shape_of(raw)}"
            )

        check_kind(what, (raw,), points)

        if self.ansatz is not None:
            columns = dict(zip(self.outputs, raw.unbind(1), strict=True))
            columns |= dict(zip(self.coordinates, points.unbind(1), strict=True))
            names = _checks.arguments("the ansatz", self.ansatz)
            arguments = {name: columns[name] for name in names}
            result = tried("the ansatz", self.ansatz, arguments)
            check_kind("the ansatz", as_tuple(result), points)


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
