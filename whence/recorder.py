"""What a pointwise function does with its parameters, recorded while it runs.

:func:`record` runs a function under a :class:`Recorder`, which sees every call of a torch function:
layers of known kinds (:mod:`whence.torch_layers`) and other uses with a rule
(:mod:`whence.parameter_uses`) become a :class:`Site` each, and any other use of a selected
parameter is noted. :mod:`whence.recording` tells what these sites say of single points.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch._C._functorch import is_functorch_wrapped_tensor, peek_interpreter_stack
from torch.autograd import forward_ad
from torch.autograd.graph import get_gradient_edge
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from whence.composites import COMPOSITES
from whence.jets import Jet
from whence.layers import Call, Output
from whence.parameter_uses import Part, layer_parts, read_use
from whence.parameter_views import VIEWS, ParameterView, view_of
from whence.parameters import Parameters
from whence.points import Points, Pointwise
from whence.torch_layers import LAYERS, Layer

RECURRENT = ("lstm", "gru", "rnn_tanh", "rnn_relu")
"""Functions of ``torch._VF`` that ``torch.func.vmap`` has no rule for."""
DIFFERENTIATING = (torch.autograd.grad, Tensor.requires_grad_)
"""What a function that differentiates the network itself calls."""


LEAVES = (Tensor, int, float, str, type(None), torch.dtype)
"""Types of arguments that hold no others."""
NOTHING: Mapping[int, int] = {}
"""No site whose result is repeated."""


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


@dataclass(frozen=True, eq=False)
class Site:
    """One call of a function that has selected parameters among its arguments.

    Parameters
    ----------
    calls:
        One for each parameter, or for a weight together with its bias.
    sources:
        What the parameter of each call meets, as the network has it.
    target:
        The shape of what the function returned.
    """

    calls: tuple[Call, ...]
    sources: tuple[Tensor, ...]
    target: torch.Size

    @property
    def shapes(self) -> tuple[torch.Size, ...]:
        """Shapes of the sources and of what was returned."""
        return (*(source.shape for source in self.sources), self.target)

    @property
    def kinds(self) -> tuple[object, ...]:
        """What tells whether another site is of the same uses."""
        return tuple((type(call), call.weight, call.bias) for call in self.calls)

    @property
    def names(self) -> set[str]:
        """Names of its selected parameters."""
        both = {name for call in self.calls for name in (call.weight, call.bias)}
        return {name for name in both if name is not None}


def record(
    function: Pointwise,
    parameters: Parameters | SubstitutedParameters,
    points: Points,
    expanding: Mapping[int, int] = NOTHING,
) -> tuple[Tensor, Recorder]:
    """Return the function's value at the points, and what it did with the parameters.

    Parameters
    ----------
    function, parameters, points:
        What to run, and where.
    expanding:
        Numbers of the sites that are the same for all points, whose results are repeated, each
        with how many axes of one entry are put behind that of the points.

    Raises
    ------
    DifferentiatesItself
        If the function calls ``torch.autograd``.
    """
    recorder = Recorder(parameters, len(points), expanding)
    with torch.enable_grad(), recorder:
        value = function(recorder.tensors, points)
    return value, recorder


class Recorder(TorchFunctionMode):
    """Records each use of a selected parameter that has a rule, and the names of all others."""

    def __init__(
        self,
        parameters: Parameters | SubstitutedParameters,
        n: int = 0,
        expanding: Mapping[int, int] = NOTHING,
    ) -> None:
        super().__init__()
        self.tensors = parameters.tensors()
        selected = set(parameters.names)
        # By identity: tensors have no equality that could be a key. ``tensors`` and ``_views``
        # keep them alive, so that no number is given to another object meanwhile.
        self._known: dict[int, ParameterView] = {}
        for name, tensor in self.tensors.items():
            if name in selected:
                self._known[id(tensor)] = whole_view(name, tensor)
        self._views: list[Tensor] = []
        self._repeated: dict[int, Tensor] = {}
        self._n = n
        self._expanding = expanding

        self.sites: list[Site] = []
        self.outside: set[str] = set()
        """Selected parameters seen where there is no rule."""
        self.is_general = False
        """Whether transforms, forward mode or jets met parameters in a way without a rule."""
        self.recurrent = False
        """Whether a function was called that only reverse mode point by point can follow."""

    @property
    def calls(self) -> list[Call]:
        """The calls of all sites."""
        return [call for site in self.sites for call in site.calls]

    @property
    def layers_alone(self) -> bool:
        """Whether no selected parameter was seen where there is no rule."""
        return not self.outside and not self.is_general

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
            self.is_general = True  # torch.func calls these too

        # What was repeated has the axis in front that a batch of one would be given.
        is_repeated = bool(args) and id(args[0]) in self._repeated
        if is_repeated and puts_axis_in_front(func, args, kwargs):
            return args[0]

        # Before the call, which may write to its arguments in place.
        layer = LAYERS[func](*args, **kwargs) if func in LAYERS else None
        leaves = leaves_of(args, kwargs)
        used = any(id(leaf) in self._known for leaf in leaves)
        name = getattr(func, "__name__", "")
        if used and name in COMPOSITES and not self.is_general:
            with self:
                composed = COMPOSITES[name](*args, **kwargs)
            if composed is not None:
                return composed

        result = func(*args, **kwargs)
        if name in RECURRENT:
            self.recurrent = True
        if not used:
            return result
        if layer is not None:
            return self._note_layer(layer, result)
        if func in VIEWS and self._note_views(leaves, result):
            return result

        parts = read_use(func, self._view, result, args, kwargs)
        if parts is not None:
            return self._note_site(parts, result)
        # Sizes and numbers of parameters are no uses; None comes of writing in place.
        if result is None or _has_tensor(result):
            self._note_outside(leaves)
        return result

    def _view(self, given: object) -> ParameterView | None:
        """Return which selected parameter something is or shows, if any."""
        return self._known.get(id(given))

    def _note_outside(self, used: Sequence[object]) -> None:
        """Note the selected parameters among some arguments."""
        for leaf in used:
            view = self._view(leaf)
            if view is not None:
                self.outside.add(view.name)
        # Jets carry derivatives, of which a sum or a product of their own rules is made.
        self.is_general |= any(isinstance(leaf, Jet) for leaf in used)

    def _note_views(self, leaves: Sequence[object], result: Any) -> bool:
        """Note which parameter the results are views of; False if they are not all views."""
        (shown, *others) = (view for leaf in leaves if (view := self._view(leaf)))
        results = [r for r in pytree.tree_leaves(result) if isinstance(r, Tensor)]
        if others or any(is_functorch_wrapped_tensor(tensor) for tensor in results):
            return False

        # Of several results, such as chunks, each shows a part of its own.
        parameter = self.tensors[shown.name]
        views = [view_of(parameter, shown.name, tensor) for tensor in results]
        for tensor, view in zip(results, views, strict=True):
            if view is None:
                return False
            self._known[id(tensor)] = view
            self._views.append(tensor)
        return True

    def _note_layer(self, layer: Layer, output: Any) -> Any:
        """Note a layer's use of its weight and bias, and of anything else that is selected."""
        # A parameter may be a layer's input, or its statistics, which have no rule.
        others = [layer.input, *layer.others]
        if any(self._view(other) for other in others):
            self._note_outside(others)
        parameters = [layer.weight, layer.bias]
        if not any(self._view(parameter) for parameter in parameters):
            return output

        parts = layer_parts(layer, self._view)
        if parts is None:
            self._note_outside([layer.input, *parameters])
            return output
        return self._note_site(parts, output)

    def _note_site(self, parts: Sequence[Part], output: Any) -> Any:
        """Make a site of some parts, and return the output, whose gradient can be taken."""
        # A size was read from a parameter, and nothing else.
        if not parts:
            return output
        is_jet = isinstance(output, Jet)
        target = output.data if is_jet else output
        sources = [part.source for part in parts]

        # Calls do not see forward mode and the transforms of torch.func.
        is_transformed = any(map(is_functorch_wrapped_tensor, [target, *sources]))
        if forward_ad._current_level >= 0 or is_transformed:
            self.is_general = True
            return output

        # What comes of a result that was repeated has the points already.
        place = len(self.sites)
        is_repeated = False
        if place in self._expanding and not target.requires_grad:
            axes = self._expanding[place]
            target = _repeated(target, self._n, axes).clone()
            sources = [_repeated(source, self._n, axes) for source in sources]
            output = target
            is_repeated = True
        # The gradient is taken with respect to the output. Parameters are detached, so that of a
        # layer without others before it needs none by itself.
        if not target.requires_grad:
            target.requires_grad_()
            if not is_jet:  # a leaf cannot be written in place, as activations may do
                output = target.clone()

        calls = []
        for part, source in zip(parts, sources, strict=True):
            calls.append(_make_call(part, source, target))
        if is_repeated:
            self._repeated[id(output)] = output
        # Numbers tell the order of points and positions, and need no graph for it.
        detached = tuple(source.detach() for source in sources)
        self.sites.append(Site(tuple(calls), detached, target.shape))
        return output


def leaves_of(
    args: tuple[object, ...], kwargs: Mapping[str, object]
) -> Sequence[object]:
    """Return what a call was given, that of lists and other containers one by one.

    Most calls have no container: to look for one in torch's way takes longer than the calls of a
    small network themselves.

    Examples
    --------
    >>> from whence.recorder import leaves_of
    >>> leaves_of((1.0, [2.0, 3.0]), {"dim": 1}), leaves_of((1.0,), {"dim": 1})
    ([1.0, 2.0, 3.0, 1], [1.0, 1])
    """
    arguments = [*args, *kwargs.values()]
    if all(isinstance(argument, LEAVES) for argument in arguments):
        return arguments
    leaves: list[object] = pytree.tree_leaves((args, dict(kwargs)))
    return leaves


def whole_view(name: str, tensor: Tensor) -> ParameterView:
    """Return a parameter as a view of itself."""
    shape = tuple(tensor.shape)
    view = view_of(tensor, name, tensor)
    # One that is not stored row by row is known as a whole only.
    return view or ParameterView(
        name, shape, 0, shape, tuple(tensor.contiguous().stride())
    )


def _repeated(tensor: Tensor, n: int, axes: int) -> Tensor:
    """Return what is the same for all points once for each, along a first axis of its own."""
    if tensor.ndim > 1 and len(tensor) == 1:
        return tensor.expand(n, *tensor.shape[1:])
    return tensor.expand(n, *[1] * axes, *tensor.shape)


def puts_axis_in_front(
    func: Callable[..., object], args: Sequence[object], kwargs: Mapping[str, object]
) -> bool:
    """Whether a call of a function puts an axis of one entry in front of a tensor, and no more."""
    if func in (Tensor.unsqueeze, torch.unsqueeze):
        axis = args[1] if len(args) > 1 else kwargs.get("dim")
        return bool(axis == 0)
    if func is not Tensor.__getitem__:
        return False
    # As x[None], x[None, :] and so on write it.
    index = args[1] if isinstance(args[1], tuple) else (args[1],)
    rest = index[1:]
    return index[0] is None and all(part == slice(None) for part in rest)


def _make_call(part: Part, source: Tensor, target: Tensor) -> Call:
    view = target if target._is_view() else None
    output = Output(get_gradient_edge(target), view, target._version)
    origin = get_gradient_edge(source) if source.requires_grad else None

    # Detached, a source shares its memory and its count of versions, by which writing in place
    # shows, but keeps no graph alive.
    source = source.detach()
    if part.prepare is not None:
        source = part.prepare(source)
    names = (part.weight, part.bias)
    return part.make(
        *names, part.shape, source, source._version, output, origin, arrangement=None
    )


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
