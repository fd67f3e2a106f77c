"""A transformer over bytes, and text that ships with Python: the documentation of the language."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pydoc_data.topics import topics

import torch
import torch.nn.functional as F
from torch import Tensor, nn

VOCABULARY = 256
WIDTH, HEADS, LAYERS = 192, 6, 4
CONTEXT = 128


class Block(nn.Module):
    """Attention to what came before and a layer of four times the width, each added."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.before_attention = nn.LayerNorm(width)
        self.attention = nn.Linear(width, 3 * width)
        self.projection = nn.Linear(width, width)
        self.before_layer = nn.LayerNorm(width)
        self.up = nn.Linear(width, 4 * width)
        self.down = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Return (n, tokens, width) for the same."""
        n, tokens, width = x.shape
        packed = self.attention(self.before_attention(x))
        parts = packed.view(n, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        queries, keys, values = parts.unbind(0)
        mixed = F.scaled_dot_product_attention(queries, keys, values, is_causal=True)
        x = x + self.projection(mixed.transpose(1, 2).reshape(n, tokens, width))
        return x + self.down(F.gelu(self.up(self.before_layer(x))))


class ByteTransformer(nn.Module):
    """Bytes (n, tokens) to logits of the next ones, (n, tokens, 256): 1.8 M parameters."""

    def __init__(
        self, width: int = WIDTH, heads: int = HEADS, layers: int = LAYERS
    ) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, width)
        self.positions = nn.Embedding(CONTEXT, width)
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(layers)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, VOCABULARY, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits."""
        places = torch.arange(x.shape[1], device=x.device).expand(len(x), -1)
        hidden = self.embedding(x) + self.positions(places)
        return self.head(self.norm(self.blocks(hidden)))


def text(n_bytes: int) -> bytes:
    """Return so many bytes of Python's documentation, its topics one after another."""
    import inspect
    import sysconfig
    from pathlib import Path

    joined = "\n\n".join(topics[name] for name in sorted(topics)).encode()
    # What it lacks to a million comes from the sources of the standard library.
    library = Path(sysconfig.get_path("stdlib"))
    for path in sorted(library.glob("*.py")):
        if len(joined) >= n_bytes:
            break
        joined += b"\n\n" + inspect.cleandoc(path.read_text(errors="ignore")).encode()
    return joined[:n_bytes]


def spans(content: bytes, length: int = CONTEXT) -> Tensor:
    """Return a text cut into spans of so many bytes, (n, length)."""
    n = len(content) // length
    numbers = torch.frombuffer(bytearray(content[: n * length]), dtype=torch.uint8)
    return numbers.view(n, length).long()


def train(
    model: nn.Module,
    data: Tensor,
    seconds: float,
    say: Callable[[str], None] = print,
    batch_size: int = 16,
    rate: float = 2e-3,
) -> float:
    """Train by AdamW for so long, with warm-up and cosine decay by the clock; return the loss."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.01)
    generator = torch.Generator().manual_seed(0)
    begun = time.perf_counter()
    mean = math.log(VOCABULARY)
    step = 0
    while (passed := (time.perf_counter() - begun) / seconds) < 1:
        for group in optimizer.param_groups:
            warm = min(1.0, (step + 1) / 50)
            group["lr"] = warm * rate * 0.5 * (1 + math.cos(math.pi * passed))
        chosen = torch.randint(len(data), (batch_size,), generator=generator)
        batch = data[chosen]
        logits = model(batch)
        loss = F.cross_entropy(
            logits[:, :-1].reshape(-1, VOCABULARY), batch[:, 1:].reshape(-1)
        )
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        mean = 0.98 * mean + 0.02 * float(loss)
        step += 1
        if step % 200 == 0:
            say(f"  step {step}, {100 * passed:.0f} %, loss {mean:.2f}")
    return mean
