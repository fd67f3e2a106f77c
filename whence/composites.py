"""Functions of torch that are made of linear layers, as these layers.

``nn.MultiheadAttention`` and recurrent layers are one call each, inside which a recorder sees
nothing. Here are the same functions step by step, with each projection a linear layer of its own:
the numbers are the same up to rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from types import FunctionType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

Step = Callable[..., tuple[Tensor, ...]]
"""From an input's projection (n, ·), a state and weights to the next state, the output first."""


def seen_within(function: FunctionType) -> Callable[..., object]:
    """Return a function of torch's whose own steps are seen, rather than it as a whole.

    Torch asks at its head whether somebody takes the call over. A copy whose answer is no goes on
    to the linear layers, which are asked for in their turn.
    """
    # Names are looked up in a function's globals: in the copy this one gives another answer.
    names = {**function.__globals__, "has_torch_function": lambda arguments: False}
    copy = FunctionType(
        function.__code__,
        names,
        function.__name__,
        function.__defaults__,
        function.__closure__,
    )
    copy.__kwdefaults__ = function.__kwdefaults__
    return copy


# --- recurrent layers ----------------------------------------------------------------------------


def lstm_step(
    projected: Tensor, state: tuple[Tensor, ...], weights: Sequence[Tensor]
) -> tuple[Tensor, ...]:
    """Return h and c after a step of an LSTM, its gates in torch's order i, f, g, o."""
    # c′ = σ(f) c + σ(i) tanh(g) and h′ = σ(o) tanh(c′).
    h, c = state
    gates = projected + F.linear(h, *weights[:2])
    i, f, g, o = gates.chunk(4, dim=-1)
    c = f.sigmoid() * c + i.sigmoid() * g.tanh()
    h = o.sigmoid() * c.tanh()
    if len(weights) > 2:  # a projection of the output
        h = F.linear(h, weights[2])
    return h, c


def gru_step(
    projected: Tensor, state: tuple[Tensor, ...], weights: Sequence[Tensor]
) -> tuple[Tensor, ...]:
    """Return h after a step of a GRU, its gates in torch's order r, z, n."""
    # n = tanh(n_x + r n_h) and h′ = (1 − z) n + z h: r is applied after the product with h.
    (h,) = state
    of_input = projected.chunk(3, dim=-1)
    of_state = F.linear(h, *weights[:2]).chunk(3, dim=-1)
    r = (of_input[0] + of_state[0]).sigmoid()
    z = (of_input[1] + of_state[1]).sigmoid()
    n = (of_input[2] + r * of_state[2]).tanh()
    return ((1 - z) * n + z * h,)


def tanh_step(
    projected: Tensor, state: tuple[Tensor, ...], weights: Sequence[Tensor]
) -> tuple[Tensor, ...]:
    """Return h after a step of a plain recurrent layer."""
    return ((projected + F.linear(state[0], *weights[:2])).tanh(),)


def relu_step(
    projected: Tensor, state: tuple[Tensor, ...], weights: Sequence[Tensor]
) -> tuple[Tensor, ...]:
    """Return h after a step of a plain recurrent layer with rectified sums."""
    return ((projected + F.linear(state[0], *weights[:2])).relu(),)


def recurrent(step: Step) -> Callable[..., tuple[Tensor, ...] | None]:
    """Return the layers of ``torch._VF`` whose state moves by this step, of padded sequences.

    None is returned for sequences that are packed, whose steps have fewer points each, and where
    dropout between layers draws random numbers.
    """

    def layers(
        input: Tensor,
        hidden: Any,
        flat_weights: Any,
        has_biases: Any = True,
        num_layers: Any = 1,
        dropout: float = 0.0,
        training: bool = False,
        bidirectional: bool = False,
        batch_first: Any = False,
    ) -> tuple[Tensor, ...] | None:
        # Packed sequences have the lengths of batches second, so that all others move by one.
        is_packed = isinstance(flat_weights, Tensor) or not isinstance(has_biases, bool)
        if is_packed or (training and dropout):
            return None

        states = (hidden,) if isinstance(hidden, Tensor) else tuple(hidden)
        n_directions = 2 if bidirectional else 1
        n_weights = len(flat_weights) // (num_layers * n_directions)
        sequence = (
            input.transpose(0, 1) if batch_first else input
        )  # (time, n, features)
        # Weights lie layer by layer, and for each layer direction by direction.
        last: list[tuple[Tensor, ...]] = []
        for layer in range(num_layers):
            outputs = []
            for direction in range(n_directions):
                place = layer * n_directions + direction
                weights = flat_weights[place * n_weights : (place + 1) * n_weights]
                first = tuple(state[place] for state in states)
                output, state = through_time(
                    step, sequence, first, weights, has_biases, direction
                )
                outputs.append(output)
                last.append(state)
            # Both directions are the next layer's input.
            sequence = torch.cat(outputs, dim=-1)

        output = sequence.transpose(0, 1) if batch_first else sequence
        ends = [torch.stack(of_layers) for of_layers in zip(*last, strict=True)]
        return output, *ends

    return layers


def through_time(
    step: Step,
    sequence: Tensor,
    state: tuple[Tensor, ...],
    weights: Sequence[Tensor],
    has_biases: bool,
    direction: int,
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Return what a layer gives at all times (time, n, ·) in one direction, and its last state."""
    of_input = [weights[0]]
    of_state = [weights[1]]
    rest = list(weights[2:])
    if has_biases:
        of_input.append(rest.pop(0))
        of_state.append(rest.pop(0))

    # The input is projected at all times at once, the state step by step.
    projected = F.linear(sequence, *of_input)
    # The projection comes third, after a bias or where one would be.
    if not has_biases and rest:
        of_state.append(None)  # type: ignore[arg-type]
    order = range(len(projected))
    # Backwards in time outputs still stand at their own times.
    outputs: list[Any] = [None] * len(projected)
    for time in reversed(order) if direction else order:
        state = step(projected[time], state, [*of_state, *rest])
        outputs[time] = state[0]
    return torch.stack(outputs), state


def cell(step: Step) -> Callable[..., object]:
    """Return the cell of ``torch._VF`` whose state moves by this step."""

    def moved(
        input: Tensor,
        hidden: Any,
        w_ih: Tensor,
        w_hh: Tensor,
        b_ih: Tensor | None = None,
        b_hh: Tensor | None = None,
    ) -> Any:
        states = (hidden,) if isinstance(hidden, Tensor) else tuple(hidden)
        state = step(F.linear(input, w_ih, b_ih), states, [w_hh, b_hh])
        return state[0] if isinstance(hidden, Tensor) else state

    return moved


# --- bags of embeddings --------------------------------------------------------------------------


def bag(
    input: Tensor,
    weight: Tensor,
    offsets: Tensor | None = None,
    max_norm: float | None = None,
    norm_type: float = 2,
    scale_grad_by_freq: bool = False,
    mode: str = "mean",
    sparse: bool = False,
    per_sample_weights: Tensor | None = None,
    include_last_offset: bool = False,
    padding_idx: int | None = None,
) -> Tensor | None:
    """Return sums or means of embeddings of bags of one length; None of any others."""
    is_table = input.ndim == 2 and not input.is_floating_point()
    if not is_table or mode not in ("sum", "mean") or max_norm or scale_grad_by_freq:
        return None

    # Padding is left out of sums and of the numbers that means are divided by.
    counts = torch.ones_like(input, dtype=weight.dtype)
    if padding_idx is not None:
        counts = (input != padding_idx % len(weight)).to(weight.dtype)
    weights = counts if per_sample_weights is None else counts * per_sample_weights
    total = (F.embedding(input, weight) * weights.unsqueeze(-1)).sum(dim=1)
    if mode == "sum":
        return total
    return total / counts.sum(dim=1, keepdim=True).clamp_min(1)


def composites() -> Iterator[tuple[str, Callable[..., object]]]:
    """Yield the names of torch's functions, and what takes their place."""
    for name, step in (
        ("lstm", lstm_step),
        ("gru", gru_step),
        ("rnn_tanh", tanh_step),
        ("rnn_relu", relu_step),
    ):
        yield name, recurrent(step)
        yield f"{name}_cell", cell(step)
    yield F.embedding_bag.__name__, bag
    attention = F.multi_head_attention_forward
    assert isinstance(attention, FunctionType)
    yield attention.__name__, seen_within(attention)


COMPOSITES = dict(composites())
"""By the name of torch's function: the same of linear layers, or None where it cannot be."""
