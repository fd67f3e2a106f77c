"""What is tried with a model and its data before any work, and what is said where it fails.

Tokens that no embedding has, sequences longer than a model's context, a ``forward`` that changes
its inputs, random numbers in evaluation mode, and outputs that depend on the company of a sample
are each found by a call or two and named with what to do.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from whence import _checks
from whence.classification import CrossEntropy, NextToken
from whence.coupling import check_uncoupled
from whence.data import Inputs
from whence.outputs import Outputs
from whence.samples import Samples
from whence.supervised import ModelFunction, evaluating

BATCH_NORMALIZATIONS = (
    nn.BatchNorm1d,
    nn.BatchNorm2d,
    nn.BatchNorm3d,
    nn.SyncBatchNorm,
)
MAX_LAYER_BYTES = 2**30
"""Bytes that the outputs of all layers may take for the samples that are evaluated at once."""
TOKENS = "input_ids"
"""Name of the tokens among the inputs of models of transformers."""


@dataclass(frozen=True)
class Lookup:
    """A call of an embedding: its name, how many rows it has, and what was looked up."""

    name: str
    n_rows: int
    indices: Tensor

    @property
    def is_outside(self) -> bool:
        """Whether a row was asked for that there is not."""
        if not self.indices.numel():
            return False
        return int(self.indices.max()) >= self.n_rows or int(self.indices.min()) < 0


def first_output(
    function: ModelFunction,
    tensors: Mapping[str, Tensor],
    samples: Samples,
    everything: Samples,
) -> Tensor | Outputs:
    """Return the model's output for some samples, (n, ...), at the first time it is asked.

    ``everything`` is all samples, of which these are the first.

    Raises
    ------
    TypeError
        If the model does not take as many inputs as the samples have, or of these names.
    ValueError
        If it fails on them, changes them, or they are longer than its context.
    """
    inputs = samples.inputs
    shown = _checks.describe(inputs)
    check_context(function.model, inputs)
    # Copies, as a model may write to what it is given.
    before = [tensor.clone() for tensor in pytree.tree_leaves(inputs)]
    with lookups(function.model) as seen:
        try:
            check_arguments(function.model, inputs)
            output = function.output(tensors, samples)
        except (RuntimeError, IndexError, AttributeError, KeyError) as error:
            check_lookups(seen, before)
            kinds = sorted({str(t.dtype) for t in samples.batch.tensors()})
            raise ValueError(
                f"the model fails on inputs {shown} of the data (with {', '.join(kinds)}): "
                f"{type(error).__name__}: {error}"
            ) from error
    check_unchanged(inputs, before)
    check_vocabulary(everything, seen)
    return output


def check_samples_apart(
    function: ModelFunction, tensors: Mapping[str, Tensor], samples: Samples
) -> None:
    """Raise ``ValueError`` if the output at a sample depends on the other samples of its batch.

    A few of these samples are tried together and alone. Random numbers in evaluation mode, which
    make another network of each call, are an error too.
    """
    advice = _advice(function.model)

    def values(at: Mapping[str, Tensor], places: Sequence[int]) -> Tensor:
        chosen = samples[torch.as_tensor(places, device=samples.device)]
        try:
            with torch.no_grad():
                return function(at, chosen)
        except (RuntimeError, ValueError) as error:
            raise ValueError(
                f"the model cannot be evaluated at {len(places)} of the samples alone ({error}). "
                f"{advice}"
            ) from error

    # Each call would put the model into evaluation mode, and back.
    with evaluating(function.model):
        check_uncoupled(
            "the model",
            values,
            tensors,
            len(samples),
            advice,
            random_advice="so that its output at a sample differs from call to call: turn them "
            "off in evaluation mode, as F.dropout(x, training=self.training) does",
        )


def _advice(model: nn.Module) -> str:
    """Return what to do about a model that couples samples, with the layers that may do it."""
    by_batch = []
    for name, module in model.named_modules():
        has_statistics = getattr(module, "running_mean", None) is not None
        if isinstance(module, BATCH_NORMALIZATIONS) and not has_statistics:
            by_batch.append(repr(name))
    if by_batch:
        return (
            f"Batch normalization without running statistics ({', '.join(by_batch)}) couples the "
            "samples of a batch: train it with track_running_stats=True, or use GroupNorm or "
            "LayerNorm."
        )
    return (
        "Attribution to single samples needs a model whose output at a sample comes from that "
        "sample alone: no mean, softmax, cumulative sum or the like along the first axis."
    )


def check_arguments(model: nn.Module, inputs: Inputs) -> None:
    """Raise ``TypeError`` unless the model's ``forward`` can be called with these inputs."""
    try:
        signature = inspect.signature(model.forward)
    except (TypeError, ValueError):  # of compiled code, which has none
        return
    try:
        if isinstance(inputs, Mapping):
            signature.bind(**inputs)
        else:
            signature.bind(*inputs)
    except TypeError as error:
        given = f"{len(inputs)} inputs"
        if isinstance(inputs, Mapping):
            given = "inputs named " + ", ".join(map(str, inputs))
        elif len(inputs) == 1:
            given = "one input"
        raise TypeError(
            f"the model's forward takes {signature}, and the data have {given}, besides the "
            f"target, which is the last of a tuple: {error}"
        ) from error


def check_context(model: nn.Module, inputs: Inputs) -> None:
    """Raise ``ValueError`` if tokens are longer than a model says that it can take.

    Models of transformers say so in ``config.max_position_embeddings``; those with rotary
    positions would go on beyond it, where they were never trained.
    """
    longest = getattr(getattr(model, "config", None), "max_position_embeddings", None)
    if not isinstance(inputs, Mapping) or TOKENS not in inputs:
        return
    if not isinstance(longest, int) or longest < 1:
        return
    # Embedded inputs, which have more axes, are no tokens.
    shape = tuple(inputs[TOKENS].shape)
    if len(shape) == 2 and shape[1] > longest:
        raise ValueError(
            f"the tokens have shape {shape}, which is longer than the context of {longest} that "
            f"{type(model).__name__} was made for (config.max_position_embeddings): truncate them "
            f"to {longest}, or cut texts into pieces"
        )


def check_unchanged(inputs: Inputs, before: Sequence[Tensor]) -> None:
    """Raise ``ValueError`` if a call of the model changed its inputs, kept as ``before``."""
    # Inputs by name are named, those in order are numbered.
    leaves, _ = pytree.tree_flatten(inputs)
    names: list[object] = list(inputs) if isinstance(inputs, Mapping) else []
    for place, (after, former) in enumerate(zip(leaves, before, strict=True)):
        if torch.equal(after, former):
            continue
        which = repr(names[place]) if len(names) == len(leaves) else f"number {place}"
        raise ValueError(
            f"the model's forward changes its input {which} in place, so that each call would see "
            "other data: let it work on a copy (x = x.clone() at its head), or leave out what "
            "writes in place (x += ..., x[...] = ..., inplace=True on the input itself)"
        )


def check_labels_are_others(loss: object, samples: Samples) -> None:
    """Raise ``ValueError`` if the labels of tokens are these tokens, each at its own place.

    A causal language model moves them by one place; to a loss that does not, it would be a model
    that copies.
    """
    inputs, labels = samples.inputs, samples.target
    is_by_token = isinstance(loss, CrossEntropy) and loss.axis == -1
    if (
        not is_by_token
        or isinstance(loss, NextToken)
        or not isinstance(inputs, Mapping)
    ):
        return
    tokens = inputs.get(TOKENS)
    if not isinstance(tokens, Tensor) or not isinstance(labels, Tensor):
        return
    assert isinstance(loss, CrossEntropy)
    # Of a masked language model only some tokens count, and most of these are masked.
    counted = labels != loss.ignore_index
    if tokens.shape != labels.shape or not bool(counted.any()):
        return
    if bool((labels == tokens)[counted].all()):
        raise ValueError(
            f"the labels are the {TOKENS} themselves, each at its own place; this loss compares "
            "logits with labels at the same place: for the next token use wh.NextToken(), which "
            "moves them by one"
        )


# --- embeddings ----------------------------------------------------------------------------------


@contextmanager
def lookups(model: nn.Module) -> Iterator[list[Lookup]]:
    """Note what a model's embeddings are asked for, while this lasts."""
    seen: list[Lookup] = []
    handles = []

    def noting(name: str) -> Any:
        def note(module: nn.Module, arguments: tuple[Any, ...]) -> None:
            if arguments and isinstance(arguments[0], Tensor):
                n_rows = int(module.num_embeddings)  # type: ignore[arg-type]
                seen.append(Lookup(name, n_rows, arguments[0].detach()))

        return note

    for name, module in model.named_modules():
        if isinstance(module, (nn.Embedding, nn.EmbeddingBag)):
            handles.append(module.register_forward_pre_hook(noting(name)))
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def check_lookups(seen: Sequence[Lookup], inputs: Sequence[Tensor]) -> None:
    """Raise ``ValueError`` if an embedding was asked for a row that it does not have."""
    for lookup in seen:
        if not lookup.is_outside:
            continue
        # Both ends, as numbers may be negative: −100 is for targets.
        low, high = int(lookup.indices.min()), int(lookup.indices.max())
        outside = high if high >= lookup.n_rows else low
        what = (
            f"the embedding {lookup.name!r} has {lookup.n_rows} rows and is asked for row "
            f"{outside}"
        )
        # Places in a sequence are counted by the model itself, tokens are its input.
        is_input = any(_is_same(lookup.indices, tensor) for tensor in inputs)
        if not is_input and lookup.indices.shape[-1:] == (high + 1,):
            raise ValueError(
                f"{what}: the tokens, {high + 1} of each sample, are longer than the model's "
                f"context of {lookup.n_rows}: truncate them, or cut texts into pieces"
            )
        raise ValueError(
            f"{what}: tokens must lie in 0 … {lookup.n_rows - 1}; padding goes into the targets as "
            "ignore_index, and into the inputs as a token, with a mask"
        )


def check_vocabulary(samples: Samples, seen: Sequence[Lookup]) -> None:
    """Raise ``ValueError`` if data in memory hold tokens that an embedding does not have.

    ``seen`` is what was looked up for the first of them: of inputs that an embedding is given as
    they are all samples are looked at.
    """
    if not samples.in_memory:
        return
    # An embedding of an input as it is sees all of its numbers.
    leaves: list[Tensor] = pytree.tree_leaves(samples.inputs)
    for lookup in seen:
        for tensor in leaves:
            n = len(lookup.indices) if lookup.indices.ndim else 0
            if n and _is_same(lookup.indices, tensor[:n]):
                check_lookups([Lookup(lookup.name, lookup.n_rows, tensor)], [tensor])


def _is_same(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and torch.equal(one, other.to(one))


# --- memory --------------------------------------------------------------------------------------


def samples_at_once(
    function: ModelFunction, tensors: Mapping[str, Tensor], samples: Samples
) -> int | None:
    """Return how many samples a model's layers have room for at once, or None for the usual number.

    The layers' outputs of one sample are counted, as a graph keeps them all.
    """
    n_bytes = 0

    def count(module: nn.Module, arguments: tuple[Any, ...], value: Any) -> None:
        nonlocal n_bytes
        for tensor in pytree.tree_leaves(value):
            if isinstance(tensor, Tensor):
                n_bytes += tensor.numel() * tensor.itemsize

    # Modules around others return what these gave.
    leaves = [m for m in function.model.modules() if next(m.children(), None) is None]
    handles = [leaf.register_forward_hook(count) for leaf in leaves]
    try:
        with torch.no_grad():
            output = function(tensors, samples[:1])
    except Exception:  # of which the call for some samples tells, with what to do
        return None
    finally:
        for handle in handles:
            handle.remove()
    # Outputs that no layer makes, such as logits in another dtype.
    n_bytes += output.numel() * output.itemsize
    fitting = max(1, MAX_LAYER_BYTES // max(1, n_bytes))
    return fitting if fitting < samples.batch_size else None
