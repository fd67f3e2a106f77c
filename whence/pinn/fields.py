"""From the argument names of a plain function to the derivatives it needs.

``def burgers(u, u_t, u_x, u_xx)`` asks for the output u and three derivatives of it. Names are
an output, an output and coordinates after an underscore (``u_xt``), or a coordinate.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from whence import _checks, jets
from whence.jets import Jet, MultiIndex, UnsupportedOperation

logger = logging.getLogger("whence")

Equation = Callable[..., Any]
Wanted = tuple[int | None, MultiIndex]
"""An output by position and a derivative of it."""


@dataclass(frozen=True)
class Name:
    """A parsed name: a derivative of output ``output``, or coordinate ``coordinate``."""

    output: int | None
    index: MultiIndex = ()
    coordinate: int | None = None


def parse(name: str, coordinates: Sequence[str], outputs: Sequence[str]) -> Name:
    """Return what ``name`` stands for.

    Raises
    ------
    ValueError
        If it is neither a coordinate, nor an output, nor a derivative of one; the message
        names the nearest valid one.

    Examples
    --------
    >>> from whence.pinn.fields import parse
    >>> parse("u_xt", ("x", "t"), ("u",))
    Name(output=0, index=(0, 1), coordinate=None)
    """
    name = str(name)  # anything may be asked for, and is then named in the error
    if name in coordinates:
        return Name(None, coordinate=tuple(coordinates).index(name))
    if name in outputs:
        return Name(tuple(outputs).index(name))
    for position, output in enumerate(outputs):
        if name.startswith(output + "_"):
            index = _coordinates(name[len(output) + 1 :], coordinates)
            if index:
                return Name(position, tuple(sorted(index)))
    examples = [*outputs, *coordinates]
    examples += [f"{u}_{a}" for u in outputs for a in coordinates]
    examples += [
        f"{u}_{a}{b}" for u in outputs for a in coordinates for b in coordinates
    ]
    raise ValueError(
        f"unknown name {name!r}{_checks.nearest(name, examples)}: expected a coordinate "
        f"({', '.join(coordinates)}), an output ({', '.join(outputs)}) or a derivative such as "
        f"{outputs[0]}_{coordinates[0]}"
    )


def is_derivative(name: str, output: str, coordinates: Sequence[str]) -> bool:
    """Tell whether ``name`` reads as a derivative of ``output``."""
    return name.startswith(output + "_") and bool(
        _coordinates(name[len(output) + 1 :], coordinates)
    )


def _coordinates(text: str, coordinates: Sequence[str]) -> tuple[int, ...] | None:
    """Split ``text`` into coordinate names, backtracking where one is a prefix of another."""
    if not text:
        return ()
    for position, coordinate in enumerate(coordinates):
        if text.startswith(coordinate):
            rest = _coordinates(text[len(coordinate) :], coordinates)
            if rest is not None:
                return (position, *rest)
    return None


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

    def __call__(
        self, names: Sequence[str]
    ) -> Callable[[Mapping[str, Tensor], Tensor], Tensor]:
        """Return the pointwise function with the named fields as columns, (n, len(names))."""
        for name in names:
            parse(name, self.coordinates, self.outputs)

        def evaluate(tensors: Mapping[str, Tensor], points: Tensor) -> Tensor:
            values = self.evaluate(tensors, points, names)
            return torch.stack([values[name] for name in names], dim=1)

        return evaluate

    def evaluate(
        self, tensors: Mapping[str, Tensor], points: Tensor, names: Sequence[str]
    ) -> dict[str, Tensor]:
        """Return the named fields at ``points`` (n, d), each (n,), differentiable by tensors."""
        parsed = {name: parse(name, self.coordinates, self.outputs) for name in names}
        wanted: set[Wanted] = {
            (p.output, p.index) for p in parsed.values() if p.output is not None
        }
        found = self._derivatives(tensors, points, wanted) if wanted else {}
        return {
            name: points[..., p.coordinate]
            if p.coordinate is not None
            else found[(p.output, p.index)]
            for name, p in parsed.items()
        }

    def _derivatives(
        self,
        tensors: Mapping[str, Tensor],
        points: Tensor,
        wanted: set[Wanted],
    ) -> dict[Wanted, Tensor]:
        if self.derivatives == "jets":
            try:
                lay = jets.layout(index for _, index in wanted)
                columns = self._outputs(tensors, jets.seed(points, lay))
                if all(isinstance(column, Jet) for column in columns):
                    return {(k, i): columns[k].derivative(i) for k, i in wanted}  # type: ignore[index]
            except UnsupportedOperation as reason:
                _say_once(str(reason))
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

        tables = {index: _directional(outputs, index)(points) for _, index in wanted}
        return {(k, i): tables[i][..., k] for k, i in wanted}

    def _outputs(self, tensors: Mapping[str, Tensor], at: Any) -> tuple[Any, ...]:
        raw = functional_call(self.network, dict(tensors), (at,))
        if raw.shape[-1] != len(self.outputs) or raw.shape[:-1] != at.shape[:-1]:
            raise ValueError(
                f"the network must map {tuple(at.shape)} to (n, {len(self.outputs)}) for outputs "
                f"{', '.join(self.outputs)}, got {tuple(raw.shape)}"
            )
        columns = {name: raw[..., k] for k, name in enumerate(self.outputs)}
        if self.ansatz is None:
            return tuple(columns.values())
        columns |= {name: at[..., k] for k, name in enumerate(self.coordinates)}
        result = self.ansatz(
            *(columns[n] for n in _checks.arguments("the ansatz", self.ansatz))
        )
        result = tuple(result) if isinstance(result, (tuple, list)) else (result,)
        shapes = [getattr(r, "shape", None) for r in result]
        if shapes != [at.shape[:-1]] * len(self.outputs):
            given = [_shape(one) for one in result]
            raise ValueError(
                f"the ansatz must return {len(self.outputs)} tensor(s) of shape "
                f"{tuple(at.shape[:-1])}, for {', '.join(self.outputs)}, got {given}"
            )
        return result

    def check(self, points: Tensor) -> None:
        """Raise ``ValueError`` unless network and ansatz fit the coordinates and outputs.

        Both are called once, at points (n, d) in the network's dtype and on its device.
        """
        inputs, outputs = len(self.coordinates), len(self.outputs)
        what = (
            f"the network must map {inputs} input(s) ({', '.join(self.coordinates)}) to {outputs} "
            f"output(s) ({', '.join(self.outputs)}), as pinn.MLP([{inputs}, 32, 32, {outputs}]) "
            "does; this one"
        )
        raw = tried(what, self.network, {"points": points})
        if not isinstance(raw, Tensor) or raw.shape != (len(points), outputs):
            raise ValueError(f"{what} maps {tuple(points.shape)} to {_shape(raw)}")
        same_kind(what, (raw,), points)
        if self.ansatz is None:
            return
        columns = dict(zip(self.outputs, raw.unbind(1), strict=True))
        columns |= dict(zip(self.coordinates, points.unbind(1), strict=True))
        names = _checks.arguments("the ansatz", self.ansatz)
        result = tried(
            "the ansatz", self.ansatz, {name: columns[name] for name in names}
        )
        same_kind(
            "the ansatz",
            result if isinstance(result, (tuple, list)) else (result,),
            points,
        )


def tried(
    what: str, function: Callable[..., Any], columns: Mapping[str, Tensor]
) -> Any:
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
    changed = [name for name, copy in copies.items() if copy._version != versions[name]]
    if changed:
        one = changed[0]
        raise ValueError(
            f"{what} changes {one!r} in place, which other terms and the training points would "
            f"feel: make a new tensor, such as {one} = {one} + 1 in place of {one} += 1"
        )
    return result


def same_kind(what: str, results: Sequence[Any], points: Tensor) -> None:
    """Raise ``ValueError`` for a tensor of another dtype or device than the network's."""
    wanted = (points.dtype, points.device)
    for one in results:
        if isinstance(one, Tensor) and (one.dtype, one.device) != wanted:
            raise ValueError(
                f"{what} gives {one.dtype} on {one.device} where the network is {points.dtype} on "
                f"{points.device}: bring constants to it, such as c.to(points)"
            )


def _shape(value: Any) -> Any:
    return (
        tuple(value.shape) if isinstance(value, (Tensor, Jet)) else type(value).__name__
    )


def _directional(function: Callable[[Tensor], Tensor], index: MultiIndex) -> Any:
    """Return ``function`` differentiated along each coordinate of ``index`` in turn."""
    if not index:
        return function

    inner = _directional(function, index[1:])

    def derivative(points: Tensor) -> Tensor:
        direction = torch.zeros_like(points)
        direction[..., index[0]] = 1.0
        tangent: Tensor = torch.func.jvp(inner, (points,), (direction,))[1]
        return tangent

    return derivative


_said: set[str] = set()


def _say_once(reason: str) -> None:
    if reason not in _said:
        _said.add(reason)
        logger.info("derivatives by nested autograd, exact but slower: %s", reason)
