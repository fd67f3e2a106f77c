"""Models of sequences, of plain torch: recurrent ones, attention, language models, adapters."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import whence as wh
from benchmarks._kinds.kind import (
    CLASSES,
    IGNORED,
    TIME,
    WIDTH,
    WORDS,
    Kind,
    N,
    Through,
    classifier,
    counting,
    kind,
    labels,
    real,
)


@kind("embedding bag")
def _bag(name: str) -> Kind:
    model = nn.Sequential(
        nn.EmbeddingBag(WORDS, WIDTH, padding_idx=0), nn.Linear(WIDTH, CLASSES)
    )
    return classifier(name, model, labels(N, TIME, n=WORDS))


@kind("lstm", "gru", "rnn")
def _recurrent(name: str) -> Kind:
    model = Through(
        lambda m, x: m.head(m.cell(m.words(x))[0].mean(1)),
        words=nn.Embedding(WORDS, WIDTH),
        cell=getattr(nn, name.upper())(
            WIDTH, 5, num_layers=2, bidirectional=True, batch_first=True
        ),
        head=nn.Linear(10, CLASSES),
    )
    return classifier(name, model, labels(N, TIME, n=WORDS))


@kind("lstm cell")
def _cell(name: str) -> Kind:
    def forward(m: Any, x: Tensor) -> Tensor:
        state = None
        for t in range(x.shape[1]):
            state = m.cell(x[:, t], state)
        return m.head(state[0])

    model = Through(forward, cell=nn.LSTMCell(4, 5), head=nn.Linear(5, CLASSES))
    return classifier(name, model, real(N, TIME, 4))


def padding() -> Tensor:
    """Return which tokens are padding: all but the first of each sample may be."""
    lengths = torch.tensor([7, 4, 6, 3, 7, 5] * (N // 6))
    return torch.arange(TIME) >= lengths.unsqueeze(1)


@kind("multi-head attention")
def _attention(name: str) -> Kind:
    def forward(m: Any, x: Tensor, pad: Tensor) -> Tensor:
        h = m.embed(x)
        h = m.norm(
            h + m.attention(h, h, h, key_padding_mask=pad, need_weights=False)[0]
        )
        return m.head((h * ~pad.unsqueeze(-1)).sum(1))

    model = Through(
        forward, embed=nn.Linear(4, WIDTH), norm=nn.LayerNorm(WIDTH),
        attention=nn.MultiheadAttention(WIDTH, 2, batch_first=True), head=nn.Linear(WIDTH, CLASSES),
    )  # fmt: skip
    return classifier(name, model, real(N, TIME, 4), padding())


@kind("cross-attention, time first")
def _cross(name: str) -> Kind:
    def forward(m: Any, x: Tensor, z: Tensor) -> Tensor:
        x, z = x.transpose(0, 1), z.transpose(0, 1)
        return m.head(m.attention(x, z, z)[0].mean(0))

    attention = nn.MultiheadAttention(WIDTH, 2, kdim=4, vdim=4, add_bias_kv=True)
    model = Through(forward, attention=attention, head=nn.Linear(WIDTH, CLASSES))
    return classifier(name, model, real(N, TIME, WIDTH), real(N, 5, 4))


@kind("transformer encoder")
def _encoder(name: str) -> Kind:
    def forward(m: Any, x: Tensor, pad: Tensor) -> Tensor:
        places = torch.arange(x.shape[1])
        h = m.encoder(m.words(x) + m.places(places), src_key_padding_mask=pad)
        return m.head(h[:, 0])

    layer = nn.TransformerEncoderLayer(WIDTH, 2, 12, batch_first=True)
    model = Through(
        forward, words=nn.Embedding(WORDS, WIDTH), places=nn.Embedding(16, WIDTH),
        encoder=nn.TransformerEncoder(layer, 2), head=nn.Linear(WIDTH, CLASSES),
    )  # fmt: skip
    return classifier(name, model, labels(N, TIME, n=WORDS), padding())


@kind("transformer")
def _transformer(name: str) -> Kind:
    """Return an encoder and a causal decoder, token by token."""

    def forward(m: Any, x: Tensor, z: Tensor) -> Tensor:
        mask = nn.Transformer.generate_square_subsequent_mask(TIME).double()
        h = m.body(m.words(x), m.words(z), tgt_mask=mask, tgt_is_causal=True)
        return m.head(h).transpose(1, 2)

    model = Through(
        forward, words=nn.Embedding(WORDS, WIDTH), head=nn.Linear(WIDTH, WORDS),
        body=nn.Transformer(WIDTH, 2, 1, 1, 12, batch_first=True),
    )  # fmt: skip
    y = labels(N, TIME, n=WORDS)
    y[padding()] = IGNORED
    inputs = labels(N, TIME, n=WORDS), labels(N, TIME, n=WORDS)
    return Kind(
        name, model, inputs, y, nn.CrossEntropyLoss(), F.cross_entropy, counting(y)
    )


def rotated(x: Tensor) -> Tensor:
    """Return queries or keys (n, heads, time, d) turned by angles that grow with time."""
    half = x.shape[-1] // 2
    rates = 100.0 ** -(torch.arange(half, dtype=x.dtype) / half)
    angle = torch.arange(x.shape[2], dtype=x.dtype)[:, None] * rates
    a, b = x[..., :half], x[..., half:]
    return torch.cat(
        [a * angle.cos() - b * angle.sin(), a * angle.sin() + b * angle.cos()], dim=-1
    )


class Block(nn.Module):
    """Rotary, causal attention and a gated layer, each after an RMS norm."""

    def __init__(self) -> None:
        super().__init__()
        self.before, self.between = nn.RMSNorm(WIDTH), nn.RMSNorm(WIDTH)
        self.qkv, self.out = (
            nn.Linear(WIDTH, 3 * WIDTH, bias=False),
            nn.Linear(WIDTH, WIDTH),
        )
        self.up, self.down = nn.Linear(WIDTH, 24), nn.Linear(12, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        """Return the states after the block."""
        packed = self.qkv(self.before(x)).unflatten(-1, (6, WIDTH // 2)).transpose(1, 2)
        q, k, v = packed.chunk(3, dim=1)
        a = F.scaled_dot_product_attention(rotated(q), rotated(k), v, is_causal=True)
        x = x + self.out(a.transpose(1, 2).flatten(2))
        gate, value = self.up(self.between(x)).chunk(2, dim=-1)
        return x + self.down(F.silu(gate) * value)


def next_token(name: str, model: nn.Module, inputs: Any, **options: Any) -> Kind:
    """Return a causal language model whose labels are its tokens, padded."""
    y = labels(N, TIME, n=WORDS)
    y[padding()] = IGNORED

    def of_outputs(logits: Tensor, goal: Tensor) -> Tensor:
        return F.cross_entropy(logits[:, :-1].flatten(0, 1), goal[:, 1:].flatten())

    return Kind(
        name, model, inputs, y, wh.NextToken(), of_outputs, counting(y, 1), **options
    )


@kind("rotary language model, tied")
def _rotary(name: str) -> Kind:
    def forward(m: Any, x: Tensor) -> Tensor:
        return m.head(m.norm(m.blocks(m.words(x))))

    model = Through(
        forward, words=nn.Embedding(WORDS, WIDTH), blocks=nn.Sequential(Block(), Block()),
        norm=nn.RMSNorm(WIDTH), head=nn.Linear(WIDTH, WORDS, bias=False),
    )  # fmt: skip
    model.head.weight = model.words.weight
    return next_token(name, model, (labels(N, TIME, n=WORDS),))


class LowRank(nn.Module):
    """A frozen linear layer with an adapter of low rank."""

    def __init__(self, base: nn.Linear, rank: int = 2) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.down = nn.Parameter(0.3 * torch.randn(rank, base.in_features))
        self.up = nn.Parameter(0.3 * torch.randn(base.out_features, rank))

    def forward(self, x: Tensor) -> Tensor:
        """Return what both give."""
        return self.base(x) + 2.0 * (x @ self.down.T @ self.up.T)


@kind("low-rank adapters")
def _adapters(name: str) -> Kind:
    made = _rotary(name)
    model: Any = made.model
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    for block in model.blocks:
        block.qkv, block.out = LowRank(block.qkv), LowRank(block.out)
    model.double()
    return made


@kind("low-rank adapters, merged")
def _merged(name: str) -> Kind:
    """Return a weight that is a sum of a frozen one and a product of two that are trained."""
    parts = {
        "base": nn.Parameter(real(WIDTH, 4), requires_grad=False),
        "down": nn.Parameter(real(2, 4)), "up": nn.Parameter(real(WIDTH, 2)),
        "head": nn.Linear(WIDTH, CLASSES),
    }  # fmt: skip
    model = Through(
        lambda m, x: m.head(F.linear(x, m.base + m.up @ m.down).tanh()), **parts
    )
    return classifier(name, model, real(N, 4))
