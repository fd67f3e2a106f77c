"""A model of inputs and targets as a pointwise function of its parameters."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from whence.outputs import Outputs, outputs_of, table_of
from whence.points import Points
from whence.samples import Samples

_keeps_modes: ContextVar[bool] = ContextVar("keeps_modes", default=False)
SIGMOIDS = (torch.sigmoid, Tensor.sigmoid, torch.special.expit)
"""Functions by which logits become probabilities; ``nn.Sigmoid`` calls the first."""


class ModelFunction:
    """What a model in evaluation mode gives for samples, flat: (n, m)."""

    is_lasting = True
    """What it does is the same at all times, so that it is found out once."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model

    def __call__(self, tensors: Mapping[str, Tensor], points: Points) -> Tensor:
        """Return the outputs of samples, (n, m), in the dtype of the parameters."""
        assert isinstance(points, Samples)
        output = self.output(tensors, points)
        table = output if isinstance(output, Tensor) else table_of(output)
        # Some models return single precision whatever they are in. The selected parameters come
        # first, in whose dtype gradients are.
        parameter = next(iter(tensors.values()))
        return table.reshape(len(points), -1).to(parameter.dtype)

    def output(
        self, tensors: Mapping[str, Tensor], samples: Samples
    ) -> Tensor | Outputs:
        """Return the model's output in its own shape, (n, ...), or several of them.

        Raises
        ------
        TypeError
            If the model returns no tensor.
        ValueError
            If it does not return an output for each sample.
        """
        return outputs_of(self.returned(tensors, samples), len(samples))

    def returns_logits(self, tensors: Mapping[str, Tensor], samples: Samples) -> bool:
        """Whether the model returns an object with logits, as those of transformers do."""
        # One sample shows it.
        with torch.no_grad():
            returned = self.returned(tensors, samples[:1])
        return isinstance(getattr(returned, "logits", None), Tensor)

    def returned(self, tensors: Mapping[str, Tensor], samples: Samples) -> object:
        """Return what the model returns for samples."""
        # A mapping holds keyword arguments, a tuple positional ones.
        inputs = samples.inputs
        if isinstance(inputs, Mapping):
            arguments, keywords = (), dict(inputs)
        else:
            arguments, keywords = inputs, {}

        with evaluating(self.model):
            return torch.func.functional_call(
                self.model, dict(tensors), arguments, keywords
            )


class LogitsFunction(ModelFunction):
    """What a model gives before the sigmoid that its outputs end in, flat: (n, m).

    Parameters
    ----------
    model:
        The model, whose outputs are probabilities.
    place:
        Which of the sigmoids it calls is the last one, from 1.
    """

    def __init__(self, model: nn.Module, place: int) -> None:
        super().__init__(model)
        self.place = place

    def output(
        self, tensors: Mapping[str, Tensor], samples: Samples
    ) -> Tensor | Outputs:
        """Return the logits in the shape of the model's output, (n, ...).

        Raises
        ------
        ValueError
            If the model does not call as many sigmoids as when the objective was made.
        """
        with _Sigmoids(skipped=self.place) as sigmoids:
            logits = super().output(tensors, samples)
        if sigmoids.calls != self.place:
            raise ValueError(
                f"the model called {sigmoids.calls} sigmoids, and {self.place} when the objective "
                "was made, so that its logits cannot be read: let it return logits, and use "
                "BCEWithLogitsLoss"
            )
        return logits


class _Sigmoids(TorchFunctionMode):
    """Counts the calls of a sigmoid, and lets one of them return its argument."""

    def __init__(self, skipped: int = 0) -> None:
        super().__init__()
        self.calls = 0
        self._skipped = skipped

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if func in SIGMOIDS:
            self.calls += 1
            if self.calls == self._skipped:
                return args[0]
        return func(*args, **(kwargs or {}))


def logits_function(
    function: ModelFunction, tensors: Mapping[str, Tensor], samples: Samples
) -> LogitsFunction | None:
    """Return the function before a model's last sigmoid, or None unless its outputs end in one.

    Whether they do is tried on some samples: the sigmoid of what is found must be the output.
    """
    with _Sigmoids() as sigmoids:
        output = function.output(tensors, samples)
    if not sigmoids.calls:
        return None

    candidate = LogitsFunction(function.model, sigmoids.calls)
    logits = candidate.output(tensors, samples)
    if not isinstance(logits, Tensor) or not isinstance(output, Tensor):
        return None
    if logits.shape != output.shape or not torch.equal(logits.sigmoid(), output):
        return None
    return candidate


def constant_padding(
    module: nn.Embedding, arguments: tuple[object, ...], output: Tensor
) -> Tensor:
    """Return an embedding's output in which that of padding is a constant.

    Torch gives the row of padding no gradient, but forward mode moves it, and the second reverse
    mode takes a part of it for differentiable: a Hessian would not be symmetric.
    """
    if not arguments or not isinstance(arguments[0], Tensor):
        return output
    assert module.padding_idx is not None
    is_padding = arguments[0].eq(module.padding_idx).unsqueeze(-1)
    return torch.where(is_padding, output.detach(), output)


@contextmanager
def in_their_modes() -> Iterator[None]:
    """Let models be called in the modes that their parts are in, as training calls them."""
    token = _keeps_modes.set(True)
    try:
        yield
    finally:
        _keeps_modes.reset(token)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put the parts of a model that are in training mode into evaluation mode for a while.

    Embeddings with sparse gradients have dense ones meanwhile, as rows of J are dense, and what is
    looked up for padding is a constant in every derivative, as it is in torch's first one. Torch's
    fused layers of transformers are off, as they give zeros at padded positions, and layers that
    can be differentiated do not.
    """
    # Part by part: model.eval() would lose which parts were in evaluation mode before.
    modules = list(model.modules())
    training = [module for module in modules if module.training]
    if _keeps_modes.get():
        training = []
    embeddings = (nn.Embedding, nn.EmbeddingBag)
    sparse = [m for m in modules if isinstance(m, embeddings) and m.sparse]
    for module in training:
        module.training = False
    for embedding in sparse:
        embedding.sparse = False
    # Others of its class look up by rules of their own.
    padded = [
        m for m in modules if type(m) is nn.Embedding and m.padding_idx is not None
    ]
    handles = [m.register_forward_hook(constant_padding) for m in padded]
    is_fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(is_fused)
        for handle in handles:
            handle.remove()
        for module in training:
            module.training = True
        for embedding in sparse:
            embedding.sparse = True
