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
            raise TypeError(
                f"the network must be a torch.nn.Module, got {_checks.describe(module)}"
            )
        _check_plain(module)

        self.module = module
        # Tied weights once: named_parameters() leaves out the later names.
        everything = dict(module.named_parameters())
        chosen = _chosen(everything, select)
        _check_alike(chosen)

        self._chosen = chosen
        # Not differentiated, but needed to call the module.
        self._others = {n: p for n, p in everything.items() if n not in chosen}
        self.names = tuple(chosen)

        # θ is the selected parameters one after another, each flattened row by row.
        self.slices: dict[str, slice] = {}
        start = 0
        for name, parameter in chosen.items():
            self.slices[name] = slice(start, start + parameter.numel())
            start += parameter.numel()
        self.size = start

        first = next(iter(chosen.values()))
        self.dtype = first.dtype
        self.device = first.device

    def vector(self) -> Tensor:
        """Return a copy of θ, shape (P,)."""
        return torch.cat(
            [p.detach().reshape(-1) for p in self._chosen.values()]
        )  # (P,)

    def tensors(self) -> dict[str, Tensor]:
        """Return every parameter of the module by name, detached, sharing memory."""
        parameters = self._chosen | self._others
        return {name: parameter.detach() for name, parameter in parameters.items()}

    def live(self) -> dict[str, Tensor]:
        """Return the selected parameters themselves and the others detached."""
        others = {name: parameter.detach() for name, parameter in self._others.items()}
        return {**self._chosen, **others}

    def flatten(self, tree: Mapping[str, Tensor]) -> Tensor:
        """Return the selected entries of ``tree`` as one vector, shape (P,)."""
        for name, parameter in self._chosen.items():
            expected = f"expected {name!r} of shape {tuple(parameter.shape)}"
            if name not in tree:
                raise ValueError(f"{expected}, got only {', '.join(tree)}")
            if tree[name].shape != parameter.shape:
                raise ValueError(f"{expected}, got {tuple(tree[name].shape)}")

        return torch.cat([tree[name].reshape(-1) for name in self.names])

    def unflatten(self, vector: Tensor) -> dict[str, Tensor]:
        """Return the parts of ``vector`` (P,) by name, as views in each parameter's shape."""
        if not isinstance(vector, Tensor) or vector.shape != (self.size,):
            raise ValueError(
                f"expected a vector of shape ({self.size},), got {_checks.shape_of(vector)}"
            )

        parts = {}
        for name, part in self.slices.items():
            parts[name] = vector[part].view(self._chosen[name].shape)  # no copy
        return parts

    def substituted(self, vector: Tensor) -> dict[str, Tensor]:
        """Return every parameter by name with ``vector`` in place of the selected ones."""
        others = {name: parameter.detach() for name, parameter in self._others.items()}
        return {**others, **self.unflatten(vector)}

    def assign(self, vector: Tensor) -> None:
        """Write ``vector`` (P,) into the module."""
        # In place, so that optimizers and hooks that hold the parameters see it.
        with torch.no_grad():
            for name, part in self.unflatten(vector).items():
                self._chosen[name].copy_(part)

    @contextmanager
    def at(self, vector: Tensor) -> Iterator[None]:
        """Let the module have ``vector`` (P,) for its parameters for a while."""
        before = self.vector()  # a copy
        self.assign(vector)

        try:
            yield
        finally:
            self.assign(before)

    @property
    def largest(self) -> int:
        """Numbers of the largest selected parameter."""
        return max(tensor.numel() for tensor in self._chosen.values())

    def shape(self, name: str) -> torch.Size:
        """Return the shape of the selected parameter called ``name``."""
        if name not in self._chosen:
            _checks.one_of("selected parameter", name, self.names)
        return self._chosen[name].shape


def _chosen(
    parameters: Mapping[str, nn.Parameter], select: Select
) -> dict[str, nn.Parameter]:
    """Return the parameters that are selected and require a gradient; none is an error."""
    matches = selector(select)
    chosen = {}
    for name, parameter in parameters.items():
        if parameter.requires_grad and matches(name, parameter):
            chosen[name] = parameter
    if chosen:
        return chosen

    listed = ", ".join(parameters) or "none"
    if select is None:
        raise ValueError(
            "no parameters: the module has none that require a gradient, of " + listed
        )

    hint = ""
    if isinstance(select, str):
        hint = _checks.nearest(select, parameters)
    shown = type(select).__name__ if isinstance(select, nn.Module) else select
    raise ValueError(
        f"no parameters: select={shown!r} selects none of those that require a "
        f"gradient{hint}, of {listed}"
    )


WRAPPERS = {
    "OptimizedModule": "network._orig_mod",
    "DataParallel": "network.module",
    "DistributedDataParallel": "network.module",
}
"""Modules around another one, which cannot be called with parameters of their own."""


def _check_plain(module: nn.Module) -> None:
    """Raise unless a module can be called with other values of its parameters."""
    kind = type(module).__name__
    if kind in WRAPPERS:
        raise TypeError(
            f"the network is a {kind}, which cannot be called with other values of its parameters: "
            f"pass the module inside, {WRAPPERS[kind]}, which has the same parameters"
        )
    if isinstance(module, torch.jit.ScriptModule):
        raise TypeError(
            "the network is a ScriptModule, which cannot be called with other values of its "
            "parameters: pass the module that it was made from"
        )
    for name, parameter in module.named_parameters():
        if isinstance(parameter, nn.parameter.UninitializedParameter):
            raise ValueError(
                f"the network's parameter {name!r} has no shape yet: call the network once before, "
                "such as network(points)"
            )
        if parameter.is_inference():
            raise ValueError(
                f"the network's parameter {name!r} was made under torch.inference_mode, so that "
                "nothing can be differentiated: make the network outside of it"
            )
    if torch.is_inference_mode_enabled():
        raise RuntimeError("derivatives are needed here: leave torch.inference_mode")


def _check_alike(chosen: Mapping[str, nn.Parameter]) -> None:
    """Raise ``ValueError`` unless the parameters can be one vector of real numbers."""
    # Otherwise there is no one vector that holds them all.
    for what in ("dtype", "device"):
        kinds = {str(getattr(parameter, what)) for parameter in chosen.values()}
        if len(kinds) > 1:
            raise ValueError(
                f"the selected parameters mix {what}s: {', '.join(sorted(kinds))}"
            )

    for parameter in chosen.values():
        if not parameter.dtype.is_floating_point:
            raise ValueError(
                f"the selected parameters must be real numbers, got {parameter.dtype}"
            )
        if parameter.dtype.itemsize < 4:
            raise ValueError(
                f"the selected parameters are {parameter.dtype}, in which derivatives are rounded "
                "to two or three digits and systems cannot be solved: use network.float() or "
                "network.double()"
            )


def selector(select: Select) -> Callable[[str, nn.Parameter], bool]:
    """Return which parameters are selected, as a function of name and parameter."""
    if select is None:
        return lambda name, parameter: True

    if isinstance(select, nn.Module):
        # By identity, not by name: inside the module the names have no prefix.
        inside = {id(parameter) for parameter in select.parameters()}
        return lambda name, parameter: id(parameter) in inside

    patterns = (select,) if isinstance(select, str) else select
    if isinstance(patterns, Sequence) and all(isinstance(p, str) for p in patterns):

        def matches_any(name: str, parameter: nn.Parameter) -> bool:
            return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)

        return matches_any

    # A module is callable too, hence only now.
    if callable(select):
        predicate = select
        return lambda name, parameter: bool(predicate(name, parameter))

    raise TypeError(
        "select must be None, a pattern such as 'layers.3.*', a list of such, a module, or a "
        f"function of name and parameter, got {_checks.describe(select)}"
    )
