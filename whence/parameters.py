"""Selected named parameters of a module, as one flat vector and back."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from whence import _checks

Select = str | nn.Module | Callable[[str, nn.Parameter], bool] | Sequence[str] | None


class Parameters:
    """The selected parameters of a module, seen as one vector θ of length P.

    Parameters
    ----------
    module:
        Any module. Tied weights count once.
    select:
        Which parameters: ``None`` for all that require a gradient, a shell pattern on names
        (``"layers.3.*"``) or several of them, a module inside the module, or a predicate
        ``(name, parameter) -> bool``.

    Raises
    ------
    TypeError
        If it is no module, or ``select`` is none of these.
    ValueError
        If nothing is selected, or the selected parameters mix dtypes or devices, or are complex.

    Examples
    --------
    >>> import torch
    >>> from whence.parameters import Parameters
    >>> parameters = Parameters(torch.nn.Linear(2, 3))
    >>> parameters.size, parameters.names
    (9, ('weight', 'bias'))
    >>> bool((parameters.flatten(parameters.unflatten(torch.arange(9.0))) == torch.arange(9)).all())
    True
    """

    def __init__(self, module: nn.Module, select: Select = None) -> None:
        if not isinstance(module, nn.Module):
            raise TypeError(f"the network must be a torch.nn.Module, got {module!r}")
        matches = _matching(select)
        self.module = module
        everything = dict(module.named_parameters())
        chosen = {
            n: p for n, p in everything.items() if p.requires_grad and matches(n, p)
        }
        if not chosen:
            hint = (
                _checks.nearest(select, everything) if isinstance(select, str) else ""
            )
            if isinstance(select, nn.Module):
                select = type(select).__name__
            found = (
                "the module has none that require"
                if select is None
                else (f"select={select!r} selects none of those that require")
            )
            raise ValueError(
                f"no parameters: {found} a gradient{hint}, of {', '.join(everything) or 'none'}"
            )
        for what in ("dtype", "device"):
            kinds = {str(getattr(p, what)) for p in chosen.values()}
            if len(kinds) > 1:
                raise ValueError(
                    f"the selected parameters mix {what}s: {', '.join(sorted(kinds))}"
                )
        if not all(p.dtype.is_floating_point for p in chosen.values()):
            kind = next(
                p.dtype for p in chosen.values() if not p.dtype.is_floating_point
            )
            raise ValueError(
                f"the selected parameters must be real numbers, got {kind}"
            )
        self._chosen = chosen
        self._others = {n: p for n, p in everything.items() if n not in chosen}
        self.names = tuple(chosen)
        self.slices: dict[str, slice] = {}
        start = 0
        for name, parameter in chosen.items():
            self.slices[name] = slice(start, start + parameter.numel())
            start += parameter.numel()
        self.size = start
        first = next(iter(chosen.values()))
        self.dtype, self.device = first.dtype, first.device

    def vector(self) -> Tensor:
        """Return a copy of θ, shape (P,)."""
        return torch.cat([p.detach().reshape(-1) for p in self._chosen.values()])

    def tensors(self) -> dict[str, Tensor]:
        """Return every parameter of the module by name, detached, sharing memory."""
        return {n: p.detach() for n, p in (self._chosen | self._others).items()}

    def live(self) -> dict[str, Tensor]:
        """Return the selected parameters themselves and the others detached."""
        return {**self._chosen, **{n: p.detach() for n, p in self._others.items()}}

    def flatten(self, tree: Mapping[str, Tensor]) -> Tensor:
        """Return the selected entries of ``tree`` as one vector, shape (P,)."""
        for name, parameter in self._chosen.items():
            if name not in tree or tree[name].shape != parameter.shape:
                given = (
                    tuple(tree[name].shape)
                    if name in tree
                    else f"only {', '.join(tree)}"
                )
                raise ValueError(
                    f"expected {name!r} of shape {tuple(parameter.shape)}, got {given}"
                )
        return torch.cat([tree[name].reshape(-1) for name in self.names])

    def unflatten(self, vector: Tensor) -> dict[str, Tensor]:
        """Return the parts of ``vector`` (P,) by name, as views in each parameter's shape."""
        if not isinstance(vector, Tensor) or vector.shape != (self.size,):
            given = (
                tuple(vector.shape)
                if isinstance(vector, Tensor)
                else type(vector).__name__
            )
            raise ValueError(f"expected a vector of shape ({self.size},), got {given}")
        return {
            n: vector[s].view(self._chosen[n].shape) for n, s in self.slices.items()
        }

    def substituted(self, vector: Tensor) -> dict[str, Tensor]:
        """Return every parameter by name with ``vector`` in place of the selected ones."""
        return {
            **{n: p.detach() for n, p in self._others.items()},
            **self.unflatten(vector),
        }

    def assign(self, vector: Tensor) -> None:
        """Write ``vector`` (P,) into the module."""
        with torch.no_grad():
            for name, part in self.unflatten(vector).items():
                self._chosen[name].copy_(part)

    @contextmanager
    def at(self, vector: Tensor) -> Iterator[None]:
        """Let the module have ``vector`` (P,) for its parameters for a while."""
        before = self.vector()
        self.assign(vector)
        try:
            yield
        finally:
            self.assign(before)

    def shape(self, name: str) -> torch.Size:
        """Return the shape of the selected parameter called ``name``."""
        if name not in self._chosen:
            _checks.one_of("selected parameter", name, self.names)
        return self._chosen[name].shape


def _matching(select: Select) -> Callable[[str, nn.Parameter], bool]:
    """Return which parameters are selected, as a function of name and parameter."""
    if select is None:
        return lambda name, parameter: True
    if isinstance(select, nn.Module):
        inside = {id(parameter) for parameter in select.parameters()}
        return lambda name, parameter: id(parameter) in inside
    patterns = (select,) if isinstance(select, str) else select
    if isinstance(patterns, Sequence) and all(isinstance(one, str) for one in patterns):
        return lambda name, parameter: any(
            fnmatch.fnmatchcase(name, one) for one in patterns
        )
    if callable(select):
        predicate = select
        return lambda name, parameter: bool(predicate(name, parameter))
    raise TypeError(
        "select must be None, a pattern such as 'layers.3.*', a list of such, a module, or a "
        f"function of name and parameter, got {select!r}"
    )
