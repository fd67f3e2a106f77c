"""Trainable numbers that equations of other libraries reach by closure, as parameters by name.

An inverse problem in these libraries has its unknowns beside the network: tensors that an equation
refers to. :class:`WithVariables` makes one module of both, whose parameters share the tensors'
memory, so that whoever changes one changes the other. Where an equation is to be differentiated by
them, :func:`substituted` puts a tensor of one's choice in the place of each.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree


class _Substituted(TorchFunctionMode):
    def __init__(self, replacements: Sequence[tuple[Tensor, Tensor]]) -> None:
        super().__init__()
        # By identity: tensors have no equality that could be a key.
        self._replacements = {id(old): new for old, new in replacements}

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        args, kwargs = pytree.tree_map(self._replacement, (args, kwargs or {}))
        return func(*args, **kwargs)

    def _replacement(self, leaf: Any) -> Any:
        return self._replacements.get(id(leaf), leaf)


def substituted(replacements: Sequence[tuple[Tensor, Tensor]]) -> TorchFunctionMode:
    """Return a context in which torch's functions see other tensors in the place of some.

    Examples
    --------
    >>> import torch
    >>> rate = torch.tensor(2.0)
    >>> with substituted([(rate, torch.tensor(5.0))]):
    ...     print(float(rate * 3))
    15.0
    """
    return _Substituted(replacements)


class VariableLayer(nn.Module):
    """A trainable number as a layer: θ times the constant 1, at every point.

    As a linear layer it has rows of the Jacobian as any layer has.
    """

    def __init__(self, variable: Tensor) -> None:
        super().__init__()
        # A view of the same memory: what trains one trains the other. view refuses to copy.
        self.theta = nn.Parameter(variable.detach().view(1, -1))

    def forward(self, points: Tensor) -> Tensor:
        """Return the value at each of the points (..., d): (...,)."""
        ones = torch.ones_like(points[..., :1])
        return F.linear(ones, self.theta)[..., 0]


class WithVariables(nn.Module):
    """A network and trainable numbers beside it.

    Parameters
    ----------
    network:
        From coordinates (n, d) to outputs (n, m).
    variables:
        Tensors, mostly of one entry, by name.
    tried:
        Points (n, d) at which it is seen whether the network takes a number as a column.

    Examples
    --------
    >>> import torch
    >>> rate = torch.tensor(2.0)
    >>> model = WithVariables(torch.nn.Linear(1, 1), {"rate": rate})
    >>> _ = rate.fill_(3.0)
    >>> float(model.variables["rate"].theta)
    3.0
    """

    def __init__(
        self,
        network: nn.Module,
        variables: Mapping[str, Tensor],
        tried: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        self.variables = nn.ModuleDict(
            {name: VariableLayer(variable) for name, variable in variables.items()}
        )
        # In a tuple: they are parameters already, and no further ones of this module.
        self._tensors = tuple(variables.items())
        # Asked of the tensors later, it would be asked of what stands in their place.
        self._shapes = {name: tensor.shape for name, tensor in variables.items()}
        self._takes_columns = True
        if tried is not None and variables:
            self._takes_columns = self.takes_columns(network, tried)

    def forward(self, points: Tensor, unknown: str | None = None) -> Tensor:
        """Return the outputs at points (n, d), (n, m); or a number's value, (n,)."""
        if unknown is not None:
            value: Tensor = self.variables[unknown](points)
            return value

        if not self._shapes:
            alone: Tensor = self.network(points)
            return alone

        # Transforms of the outputs may take the numbers too.
        at = getattr(points, "value", points)  # of a jet its value
        values = {}
        for name in self._shapes:
            layer = self.variables[name]
            assert isinstance(layer, VariableLayer)
            shape = self._shapes[name]
            is_column = self._takes_columns and shape.numel() == 1
            values[name] = layer(at) if is_column else layer.theta.reshape(shape)
        with self.substituted(values):
            outputs: Tensor = self.network(points)
        return outputs

    def substituted(self, values: Mapping[str, Tensor]) -> TorchFunctionMode:
        """Return a context in which equations see some values: (n,) columns, or single ones."""
        replacements = []
        for name, tensor in self._tensors:
            value = values[name]
            shape = self._shapes[name]
            # A number at n points broadcasts with the columns (n, 1) of equations.
            is_single = value.numel() == shape.numel()
            shown = value.reshape(shape) if is_single else value.unsqueeze(-1)
            replacements.append((tensor, shown))
        return substituted(replacements)

    def takes_columns(
        self, function: Callable[[Tensor], Tensor], points: Tensor
    ) -> bool:
        """Return whether a function gives at each point what it gives there alone.

        It sees each number as a column of n different ones. One that takes a number's first entry,
        or its mean, would otherwise have the right values, where all are the same, and gradients of
        other points' entries.
        """
        columns = {}
        for name, shape in self._shapes.items():
            if shape.numel() != 1:
                return False
            layer = self.variables[name]
            assert isinstance(layer, VariableLayer)
            value = layer(points).detach()
            # Away from zero, so that the sign stays.
            steps = torch.linspace(0.01, 0.1, len(points)).to(value)
            columns[name] = value + steps * torch.where(
                value < 0, value - 0.1, value + 0.1
            )

        try:
            with self.substituted(columns):
                together = function(points)
            for k in range(len(points)):
                entry = {name: column[k : k + 1] for name, column in columns.items()}
                with self.substituted(entry):
                    alone = function(points[k : k + 1])
                if not torch.allclose(
                    together[k : k + 1], alone, rtol=1e-4, atol=1e-12, equal_nan=True
                ):
                    return False
        except Exception:  # foreign code, which needs a single number
            return False
        return True

    def variables_of(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the numbers among the parameters by name, in their own shapes."""
        values = {}
        for name, shape in self._shapes.items():
            values[name] = tensors[f"variables.{name}.theta"].reshape(shape)
        return values

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """The numbers as equations have them."""
        return tuple(tensor for _, tensor in self._tensors)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the numbers."""
        return tuple(name for name, _ in self._tensors)


def name_of(
    tensor: Tensor, functions: Sequence[Callable[..., object]], fallback: str
) -> str:
    """Return the name by which functions know a tensor: of a global or an enclosing variable.

    Examples
    --------
    >>> import torch
    >>> rate = torch.tensor(2.0)
    >>> name_of(rate, [lambda x: rate * x], "variable_0")
    'rate'
    """
    for function in functions:
        names: dict[str, object] = dict(getattr(function, "__globals__", {}))
        code = getattr(function, "__code__", None)
        cells = getattr(function, "__closure__", None) or ()
        if code is not None:
            for name, cell in zip(code.co_freevars, cells, strict=True):
                names[name] = cell.cell_contents

        for name, value in names.items():
            if value is tensor:
                return name
    return fallback
