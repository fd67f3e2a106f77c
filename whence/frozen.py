"""Features of a network's frozen part, evaluated once where the selected parameters come later.

With ``parameters`` of the last layers, all that lies before them gives the same numbers in every
product. :func:`head_of` finds the first module that holds a selected parameter, keeps its inputs
at the training samples, and evaluates from there on. Whether what follows depends on these inputs
alone is tried by comparing outputs: if not, nothing is kept.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree
from tqdm import tqdm

from whence.coupling import differ
from whence.data import Batch, Inputs
from whence.outputs import Targets
from whence.parameters import Parameters
from whence.points import Points
from whence.samples import Samples
from whence.supervised import ModelFunction

IN_MEMORY_BYTES = 2**30
"""Features up to this size are kept in memory; larger ones in a temporary file."""
TRACED = 4
"""Samples at which it is found where the frozen part ends."""
State = list[tuple[int, int]]
"""Where tensors lie in memory, and how often each was changed."""


class _Reached(Exception):
    """The first module with a selected parameter was called."""


@dataclass(frozen=True)
class Split:
    """Where a network's frozen part ends.

    Parameters
    ----------
    entry:
        Name of the first module that holds a selected parameter.
    skipped:
        Names of the outermost modules called before it, with the shape of what each gives for a
        sample.
    """

    entry: str
    skipped: Mapping[str, tuple[int, ...]]


class Features:
    """The inputs of a split's entry at all training samples, evaluated at first use."""

    def __init__(self, head: HeadFunction, samples: Samples) -> None:
        self._head = head
        self._samples = samples
        self._state = head.frozen_state()
        self._table: Tensor | None = None
        self._targets: Any = None
        self._device = torch.device("cpu")
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def is_current(self) -> bool:
        """Whether the frozen part is as it was when the features were evaluated."""
        return self._head.frozen_state() == self._state

    def at(self, places: np.ndarray) -> Tensor:
        """Return the features of samples by their places, (n, ...)."""
        if self._table is None:
            self._table = self._evaluated()
        rows = self._table[torch.as_tensor(places)]
        return rows.to(self._device)

    def targets_at(self, places: np.ndarray) -> Targets:
        """Return the targets of samples by their places, kept with their features."""
        if self._table is None:
            self._table = self._evaluated()
        if self._targets is None:
            return None

        def chosen(tensor: Tensor) -> Tensor:
            return tensor[torch.as_tensor(places, device=tensor.device)]

        return pytree.tree_map(chosen, self._targets)

    def _evaluated(self) -> Tensor:
        """Evaluate the frozen part at every sample, once."""
        samples = self._samples
        table: Tensor | None = None
        targets = []
        start = 0
        bar = tqdm(
            samples.split(samples.batch_size),
            total=-(-len(samples) // samples.batch_size),
            desc="frozen layers",
            unit="batch",
            delay=2,
            leave=False,
        )
        for part in bar:
            features = self._head.features_of(part)
            if table is None:
                table = self._room(features)
            table[start : start + len(part)] = features
            self._device = features.device
            if part.target is not None:
                targets.append(part.target)
            start += len(part)

        if targets:
            self._targets = pytree.tree_map(
                lambda *parts: torch.cat(parts), targets[0], *targets[1:]
            )
        assert table is not None
        return table

    def _room(self, first: Tensor) -> Tensor:
        """Return an empty table for all samples, in memory or in a temporary file."""
        shape = (len(self._samples), *first.shape[1:])
        needed = len(self._samples) * first[0].numel() * first.itemsize
        if needed <= IN_MEMORY_BYTES or first.dtype is torch.bfloat16:
            return first.new_empty(shape)

        # The folder goes when the features do.
        self._folder = tempfile.TemporaryDirectory(prefix="whence-features-")
        path = Path(self._folder.name) / "features.npy"
        kind = str(first.dtype).removeprefix("torch.")
        mapped = np.lib.format.open_memmap(path, "w+", dtype=kind, shape=shape)
        return torch.from_numpy(mapped)


class HeadFunction(ModelFunction):
    """A model whose frozen part is not evaluated again at samples whose features are kept."""

    def __init__(
        self, model: nn.Module, parameters: Parameters, split: Split, inputs: Inputs
    ) -> None:
        super().__init__(model)
        self._parameters = parameters
        self._split = split
        # What stands for inputs that are not needed: as many numbers as one sample has.
        self._blank = pytree.tree_map(
            lambda tensor: torch.zeros_like(tensor[:1]), inputs
        )

    def __call__(self, tensors: Mapping[str, Tensor], points: Points) -> Tensor:
        """Return the outputs of samples, (n, m)."""
        assert isinstance(points, Samples)
        features = points.kept_features()
        if features is None:
            return super().__call__(tensors, points)
        return self.from_features(tensors, features)

    def from_features(self, tensors: Mapping[str, Tensor], features: Tensor) -> Tensor:
        """Return the outputs that follow from features (n, ...) of the frozen part, (n, m)."""
        n = len(features)

        def repeated(tensor: Tensor) -> Tensor:
            return tensor.expand(n, *tensor.shape[1:])

        blank = Samples.from_batch(Batch(pytree.tree_map(repeated, self._blank), None))
        with self._skipping(features):
            return super().__call__(tensors, blank)

    def features_of(self, samples: Samples) -> Tensor:
        """Return what the frozen part gives for samples, (n, ...), by evaluating it."""
        found: list[Tensor] = []

        def stop(module: nn.Module, arguments: tuple[Any, ...]) -> None:
            found.append(arguments[0].detach())
            raise _Reached

        entry = self.model.get_submodule(self._split.entry)
        handle = entry.register_forward_pre_hook(stop)
        try:
            with torch.no_grad():
                self.output(self._parameters.tensors(), samples)
        except _Reached:
            pass
        finally:
            handle.remove()
        return found[0]

    def frozen_state(self) -> State:
        """Return what tells whether a tensor that is not selected has changed."""
        selected = set(self._parameters.names)
        state = []
        for named in (self.model.named_parameters(), self.model.named_buffers()):
            for name, tensor in named:
                if name not in selected:
                    state.append((tensor.data_ptr(), tensor._version))
        return state

    @contextmanager
    def _skipping(self, features: Tensor) -> Iterator[None]:
        """Let the modules before the entry give zeros, and the entry take these features."""
        n = len(features)
        with ExitStack() as stack:
            for name, shape in self._split.skipped.items():
                module = self.model.get_submodule(name)
                zeros = features.new_zeros(()).expand(n, *shape)
                stack.enter_context(_giving(module, zeros))

            entry = self.model.get_submodule(self._split.entry)
            handle = entry.register_forward_pre_hook(
                lambda module, arguments: (features, *arguments[1:])
            )
            stack.callback(handle.remove)
            yield


@contextmanager
def _giving(module: nn.Module, value: Tensor) -> Iterator[None]:
    """Let a module return this value for a while, whatever it is given."""
    own = module.__dict__.get("forward")
    module.__dict__["forward"] = lambda *arguments, **keywords: value
    try:
        yield
    finally:
        if own is None:
            del module.__dict__["forward"]
        else:
            module.__dict__["forward"] = own


def head_of(
    function: ModelFunction, parameters: Parameters, samples: Samples
) -> tuple[HeadFunction, Samples] | None:
    """Return a function and samples that evaluate a model's frozen part once, or None.

    None where nothing frozen comes before the selected parameters, or where what follows depends
    on more than the input of the first module that holds one.
    """
    model = function.model
    every = sum(parameter.numel() for parameter in model.parameters())
    if parameters.size == every:  # nothing is frozen
        return None

    probe = samples[: min(TRACED, len(samples))]
    probe.read()
    tensors = parameters.tensors()
    split = _split(function, parameters, probe)
    if split is None:
        return None

    head = HeadFunction(model, parameters, split, probe.inputs)
    # The first samples and the last: those between do not differ in kind.
    last = samples[len(samples) - len(probe) : len(samples)]
    for some in (probe, last):
        with torch.no_grad():
            whole = function(tensors, some)
            try:
                from_features = head.from_features(tensors, head.features_of(some))
            except (RuntimeError, ValueError, TypeError, IndexError, AttributeError):
                return None
        if differ(whole, from_features):
            return None
    return head, samples.with_kept(Features(head, samples))


def _split(
    function: ModelFunction, parameters: Parameters, probe: Samples
) -> Split | None:
    """Return where the frozen part ends, as one evaluation shows, or None."""
    model = function.model
    owners = _owners(model, parameters)
    if model in owners:
        return None

    trace = _Trace(model, owners, len(probe))
    with trace, torch.no_grad():
        function(parameters.tensors(), probe)

    if trace.entry is None or not trace.is_simple:
        return None
    has_weights = any(
        next(model.get_submodule(name).parameters(), None) is not None
        for name in trace.skipped
    )
    return Split(trace.entry, trace.skipped) if has_weights else None


def _owners(model: nn.Module, parameters: Parameters) -> set[nn.Module]:
    """Return the modules that have a selected parameter as one of their own."""
    named = dict(model.named_parameters())
    chosen = {id(named[name]) for name in parameters.names}
    return {
        module
        for module in model.modules()
        if any(id(own) in chosen for own in module.parameters(recurse=False))
    }


class _Trace:
    """Which modules are called before the first one that has a selected parameter."""

    def __init__(self, model: nn.Module, owners: set[nn.Module], n: int) -> None:
        self._names = {module: name for name, module in model.named_modules()}
        self._owners = owners
        self._n = n
        self._handles: list[Any] = []
        self.entry: str | None = None
        self.skipped: dict[str, tuple[int, ...]] = {}
        self._odd: set[str] = set()
        """Modules that are called several times, or give no tensor of all samples."""
        self._is_regular = True

    @property
    def is_simple(self) -> bool:
        """Whether each of these modules is called once, and gives one tensor of all samples."""
        return self._is_regular and not self._odd

    def __enter__(self) -> _Trace:
        for module in self._names:
            self._handles += [
                module.register_forward_pre_hook(self._begin, with_kwargs=True),
                module.register_forward_hook(self._end),
            ]
        return self

    def __exit__(self, *error: object) -> None:
        for handle in self._handles:
            handle.remove()

    def _begin(
        self, module: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any]
    ) -> None:
        name = self._names[module]
        if name in self.skipped:
            self._odd.add(name)
        if name == self.entry:
            self._is_regular = False
        if module in self._owners and self.entry is None:
            self.entry = name
            first = arguments[0] if arguments else None
            is_table = isinstance(first, Tensor) and len(first) == self._n
            self._is_regular = is_table and len(arguments) == 1 and not keywords

    def _end(self, module: nn.Module, arguments: tuple[Any, ...], value: Any) -> None:
        if self.entry is not None:
            return

        # Of nested modules the outermost one is skipped, with all that is in it.
        name = self._names[module]
        inside = [other for other in self.skipped if other.startswith(f"{name}.")]
        for other in inside:
            del self.skipped[other]
        self._odd = {other for other in self._odd if not other.startswith(f"{name}.")}

        if isinstance(value, Tensor) and value.ndim and len(value) == self._n:
            self.skipped[name] = tuple(value.shape[1:])
        else:
            self._odd.add(name)
