"""What a pointwise function does with its parameters, recorded while it runs.

:func:`record` runs a function under a :class:`Recorder`, which sees every call of a torch function:
layers of known kinds (:mod:`whence.torch_layers`) become a :class:`~whence.layers.Call` each, and
any other use of a selected parameter is noted. :func:`has_layers_alone` tells whether these calls
are all that the function's derivative with respect to the parameters consists of.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import FunctionType
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from torch._C._functorch import is_functorch_wrapped_tensor, peek_interpreter_stack
from torch.autograd import forward_ad
from torch.autograd.graph import get_gradient_edge
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from whence import _checks
from whence.coupling import check_uncoupled, moved
from whence.jets import Jet
from whence.layers import Call, Output
from whence.parameters import Parameters
from whence.points import Points, Pointwise
from whence.torch_layers import LAYERS, Layer

RECURRENT = ("lstm", "gru", "rnn_tanh", "rnn_relu")
"""Functions of ``torch._VF`` that ``torch.func.vmap`` has no rule for."""
DIFFERENTIATING = (torch.autograd.grad, Tensor.requires_grad_)
"""What a function that differentiates the network itself calls."""


class DifferentiatesItself(Exception):
    """The function calls ``torch.autograd`` itself, which ``torch.func`` does not allow."""


class SubstitutedParameters:
    """The selected parameters with other values, such as those of a traced graph's input."""

    def __init__(self, parameters: Parameters, theta: Tensor) -> None:
        self._parameters = parameters
        self._theta = theta
        self.names = parameters.names
        self.slices = parameters.slices
        self.size = parameters.size

    def tensors(self) -> dict[str, Tensor]:
        """Return all tensors of the network by name, the selected ones cut from θ."""
        return self._parameters.substituted(self._theta)


def record(
    function: Pointwise, parameters: Parameters | SubstitutedParameters, points: Points
) -> tuple[Tensor, Recorder]:
    """Return the function's value at the points, and what it did with the parameters.

    Raises
    ------
    DifferentiatesItself
        If the function calls ``torch.autograd``.
    """
    recorder = Recorder(parameters)
    with torch.enable_grad(), recorder:
        value = function(recorder.tensors, points)
    return value, recorder


# --- whether layers are all there is -------------------------------------------------------------

Probe = tuple[Tensor, "Recorder"]
"""A function's value at a single point, and what it did there."""

_PROBES: WeakKeyDictionary[Parameters, WeakKeyDictionary[Pointwise, Probe]] = (
    WeakKeyDictionary()
)


def has_layers_alone(
    recorder: Recorder,
    value: Tensor,
    function: Pointwise,
    parameters: Parameters,
    points: Points,
) -> bool:
    """Whether layers of known kinds, whose rows are the points, are all there is.

    The function is tried at a single point for comparison. What it does there is remembered, as it
    is the same for all chunks and all values of the parameters; what no longer fits is tried again.
    """
    probes = _PROBES.setdefault(parameters, WeakKeyDictionary())
    # What cannot be a key, such as an object without a hash, is tried each time.
    is_rememberable = isinstance(function, FunctionType)
    known = probes.get(function) if is_rememberable else None
    has_n_rows = len(value) == len(points)
    if known is not None and has_n_rows and recorder.fits(value, known):
        return True

    probe = record(function, parameters, points[:1])
    value_at_one, _ = probe
    _checks.pointwise(value, value_at_one, len(points))
    if is_rememberable and known is None:
        _check_uncoupled(function, parameters, points)
    if is_rememberable:
        probes[function] = probe
    return recorder.fits(value, probe)


def _check_uncoupled(
    function: Pointwise, parameters: Parameters, points: Points
) -> None:
    """Raise :class:`whence.coupling.CoupledPoints` if a function couples its points."""

    def values(tensors: Mapping[str, Tensor], rows: Sequence[int]) -> Tensor:
        with torch.no_grad():
            return function(tensors, points[torch.tensor(rows)]).detach()

    what = getattr(function, "__qualname__", "the residual")
    check_uncoupled(
        what,
        values,
        moved(parameters.tensors()),
        len(points),
        "Write it as a function of each point alone.",
        refuse_random=True,
    )


class Recorder(TorchFunctionMode):
    """Records each call of a layer with a selected parameter, and the parameters' other uses."""

    def __init__(self, parameters: Parameters | SubstitutedParameters) -> None:
        super().__init__()
        self.tensors = parameters.tensors()
        selected = set(parameters.names)
        # By identity: tensors have no equality that could be a key. ``tensors`` keeps them alive,
        # so that no number is given to another object meanwhile.
        self._names = {
            id(t): name for name, t in self.tensors.items() if name in selected
        }
        self.calls: list[Call] = []
        self.layers_alone = True
        """Whether no selected parameter was seen where no known layer has it."""
        self.recurrent = False
        """Whether a function was called that only reverse mode point by point can follow."""
        self.outside: set[str] = set()
        """Selected parameters seen where no such layer has them."""

    def fits(self, value: Tensor, probe: Probe) -> bool:
        """Whether every layer's rows are the points, by comparison with a single point.

        A length of n alone does not tell: a table of n rows has it too.
        """
        value_at_one, at_one = probe
        if not self.layers_alone or value.ndim != 2:
            return False
        if value.shape[1:] != value_at_one.shape[1:]:
            return False
        if len(self.calls) != len(at_one.calls):
            return False

        n = len(value)
        for call, single in zip(self.calls, at_one.calls, strict=True):
            if not call.intact or not call.fits(n, single):
                return False
        return True

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func in DIFFERENTIATING and _is_differentiated(args[:2]):
            if peek_interpreter_stack() is None:
                raise DifferentiatesItself
            self.layers_alone = False  # torch.func calls these too

        # Before the call, which may write to its arguments in place.
        layer = LAYERS[func](*args, **kwargs) if func in LAYERS else None
        result = func(*args, **kwargs)
        if layer is not None:
            return self._note_layer(layer, result)

        if getattr(func, "__name__", "") in RECURRENT:
            self.recurrent = True
        # Sizes and numbers of parameters are no uses; None comes of writing in place.
        if result is None or _has_tensor(result):
            self._note_outside(args, kwargs)
        return result

    def _note_outside(self, *used: Any) -> None:
        """Note the selected parameters among some arguments."""
        for leaf in pytree.tree_leaves(used):
            name = self._names.get(id(leaf))
            if name is not None:
                self.outside.add(name)
                self.layers_alone = False

    def _note_layer(self, layer: Layer, output: Any) -> Any:
        """Make a call of a layer, and return its output, from which a gradient can be taken."""
        # A layer of which something but weight and bias is selected is not of a known kind.
        self._note_outside(layer.input, layer.others)
        weight = self._names.get(id(layer.weight))
        bias = self._names.get(id(layer.bias))
        is_selected = weight is not None or bias is not None
        if not is_selected or not self.layers_alone:
            return output

        if layer.make is None:
            self._note_outside(layer.weight, layer.bias)
        is_jet = isinstance(layer.input, Jet)
        source = layer.input.data if is_jet else layer.input
        target = output.data if is_jet else output
        # Calls do not see forward mode and the transforms of torch.func.
        is_forward = forward_ad._current_level >= 0
        is_transformed = is_functorch_wrapped_tensor(source)
        if layer.make is None or is_forward or is_transformed:
            self.layers_alone = False
            return output

        # The gradient is taken with respect to the output. Parameters are detached, so that of a
        # layer without others before it needs none by itself.
        if not target.requires_grad:
            target.requires_grad_()
            if not is_jet:  # a leaf cannot be written in place, as activations may do
                output = target.clone()

        self.calls.append(_make_call(layer, weight, bias, source, target))
        return output


def _make_call(
    layer: Layer, weight: str | None, bias: str | None, source: Tensor, target: Tensor
) -> Call:
    assert layer.make is not None
    view = target if target._is_view() else None
    output = Output(get_gradient_edge(target), view, target._version)
    origin = get_gradient_edge(source) if source.requires_grad else None

    # Detached, a source shares its memory and its count of versions, by which writing in place
    # shows, but keeps no graph alive.
    source = source.detach()
    if layer.prepare is not None:
        source = layer.prepare(source)

    shape = () if layer.weight is None else tuple(layer.weight.shape)
    return layer.make(weight, bias, shape, source, source._version, output, origin)


def _is_differentiated(arguments: Any) -> bool:
    """Whether there is a tensor among some arguments that does not know its own derivatives.

    What stands for one, in the equations of other libraries, stays within the graph: its class says
    so by ``knows_derivatives``.
    """
    return any(
        isinstance(leaf, (Tensor, Jet))
        and not getattr(type(leaf), "knows_derivatives", False)
        for leaf in pytree.tree_leaves(arguments)
    )


def _has_tensor(result: Any) -> bool:
    leaves = pytree.tree_leaves(result)
    return any(isinstance(leaf, (Tensor, Jet)) for leaf in leaves)
