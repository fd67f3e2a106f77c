"""Tiny models of every kind, each with data, its loss in whence, and the same in plain torch."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import whence as wh

N, TIME, WORDS, WIDTH, CLASSES = 24, 7, 11, 8, 3
IGNORED = -100
KINDS: dict[str, Callable[[str], Kind]] = {}


@dataclass
class Kind:
    """A model, its data and loss, and in plain torch the loss of all data and of one sample.

    ``of_outputs(outputs, target)`` is torch's loss of some samples as it is trained; ``share`` is
    what a sample's own loss is multiplied with so that the mean over samples is that of all.
    """

    name: str
    model: nn.Module
    inputs: Any
    target: Any
    loss: Any
    of_outputs: Callable[[Any, Any], Tensor]
    share: Callable[[int], float] = lambda i: 1.0
    parameters: Any = None
    data: Any = None
    call: Callable[[nn.Module, Any], Any] = field(default=lambda m, x: m(*x))

    def __post_init__(self) -> None:
        self.model = self.model.double().eval()
        if self.data is None:
            named = isinstance(self.inputs, Mapping)
            self.data = (
                (self.inputs, self.target) if named else (*self.inputs, self.target)
            )

    @property
    def n(self) -> int:
        """Number of samples."""
        return len(torch.utils._pytree.tree_leaves(self.inputs)[0])

    def _of(self, part: slice) -> Tensor:
        def cut(tensor: Tensor) -> Tensor:
            return tensor[part]

        inputs = torch.utils._pytree.tree_map(cut, self.inputs)
        target = torch.utils._pytree.tree_map(cut, self.target)
        return self.of_outputs(self.call(self.model, inputs), target)

    def whole_loss(self) -> Tensor:
        """Return torch's loss of all samples."""
        return self._of(slice(None))

    def sample_loss(self, i: int) -> Tensor:
        """Return torch's loss of a sample alone, times its share."""
        return self.share(i) * self._of(slice(i, i + 1))


Maker = Callable[[str], Kind]


def kind(*names: str) -> Callable[[Maker], Maker]:
    """Let the decorated function make the kinds of these names."""

    def register(make: Maker) -> Maker:
        for name in names:
            KINDS[name] = make
        return make

    return register


def counting(target: Tensor, shift: int = 0) -> Callable[[int], float]:
    """Return the share of each sample in a mean over the positions that count."""
    counts = (target[:, shift:] != IGNORED).flatten(1).sum(1).double()
    return lambda i: float(counts[i] * len(counts) / counts.sum())


def real(*shape: int) -> Tensor:
    """Return random numbers."""
    return torch.randn(*shape, dtype=torch.float64)


def labels(*shape: int, n: int = CLASSES) -> Tensor:
    """Return random classes."""
    return torch.randint(0, n, shape)


class Through(nn.Module):
    """A function of its parts."""

    def __init__(self, function: Callable[..., Any], **parts: Any) -> None:
        super().__init__()
        self.function = function
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, *inputs: Any) -> Any:
        """Return what the function gives."""
        return self.function(self, *inputs)


def classifier(name: str, model: nn.Module, *inputs: Tensor, **options: Any) -> Kind:
    """Return a classifier of whole samples."""
    ce = nn.CrossEntropyLoss()
    return Kind(name, model, inputs, labels(N), ce, F.cross_entropy, **options)


# --- images --------------------------------------------------------------------------------------


@kind("mlp")
def _mlp(name: str) -> Kind:
    model = nn.Sequential(nn.Linear(4, WIDTH), nn.Tanh(), nn.Linear(WIDTH, CLASSES))
    return classifier(name, model, real(N, 4))


@kind("conv1d", "conv2d", "conv3d")
def _convolution(name: str) -> Kind:
    axes = int(name[4])
    layer = getattr(nn, f"Conv{axes}d")
    norm = getattr(nn, f"BatchNorm{axes}d")(4)
    model = nn.Sequential(
        layer(2, 4, 3, padding=1), norm, nn.ReLU(), layer(4, 4, 3, stride=2), nn.GroupNorm(2, 4),
        nn.Flatten(2), Through(lambda m, x: x.mean(2)), nn.Linear(4, CLASSES),
    )  # fmt: skip
    return classifier(name, model, real(N, 2, *[6] * axes))


@kind("residual network")
def _residual(name: str) -> Kind:
    def forward(m: Any, x: Tensor) -> Tensor:
        h = m.stem(x)
        h = F.relu(h + m.block(h))
        return m.head(h.mean((2, 3)))

    block = nn.Sequential(
        nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(inplace=True)
    )
    model = Through(
        forward, stem=nn.Conv2d(2, 4, 3), block=block, head=nn.Linear(4, CLASSES)
    )
    return classifier(name, model, real(N, 2, 6, 6))


@kind("segmentation")
def _segmentation(name: str) -> Kind:
    model = nn.Sequential(
        nn.Conv2d(2, 4, 3, stride=2, padding=1), nn.ReLU(),
        nn.ConvTranspose2d(4, CLASSES, 4, stride=2, padding=1),
    )  # fmt: skip
    y = labels(N, 6, 6)
    y[0, :3] = y[2, 2:] = IGNORED
    return Kind(name, model, (real(N, 2, 6, 6),), y, nn.CrossEntropyLoss(), F.cross_entropy,
                counting(y))  # fmt: skip


@kind("detection")
def _detection(name: str) -> Kind:
    """Return classes and boxes of three slots, with a weight of 5 on the boxes."""

    def forward(m: Any, x: Tensor) -> dict[str, Tensor]:
        h = torch.tanh(m.stem(x)).flatten(1)
        return {
            "classes": m.classes(h).unflatten(1, (CLASSES, 3)),
            "boxes": m.boxes(h).sigmoid().unflatten(1, (3, 4)),
        }

    parts = {
        "stem": nn.Conv2d(2, 3, 3),
        "classes": nn.Linear(48, 9),
        "boxes": nn.Linear(48, 12),
    }
    target = {"classes": labels(N, 3), "boxes": torch.rand(N, 3, 4).double()}

    def of_outputs(outputs: Any, goal: Any) -> Tensor:
        of_boxes = F.smooth_l1_loss(outputs["boxes"], goal["boxes"])
        return F.cross_entropy(outputs["classes"], goal["classes"]) + 5.0 * of_boxes

    loss = {"classes": nn.CrossEntropyLoss(), "boxes": (5.0, nn.SmoothL1Loss())}
    return Kind(
        name, Through(forward, **parts), (real(N, 2, 6, 6),), target, loss, of_outputs
    )


@kind("detection, own function")
def _detection_by_function(name: str) -> Kind:
    made = _detection(name)

    def of_samples(outputs: Any, goal: Any) -> Tensor:
        of_boxes = F.smooth_l1_loss(outputs["boxes"], goal["boxes"], reduction="none")
        of_classes = F.cross_entropy(
            outputs["classes"], goal["classes"], reduction="none"
        )
        return of_classes.mean(1) + 5.0 * of_boxes.mean((1, 2))

    made.loss = of_samples
    return made


# --- sequences -----------------------------------------------------------------------------------


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


@kind("image transformer")
def _image_transformer(name: str) -> Kind:
    """Return patches by a convolution, a token for the class, places that are parameters."""

    def forward(m: Any, x: Tensor) -> Tensor:
        h = m.patches(x).flatten(2).transpose(1, 2)
        h = torch.cat([m.token.expand(len(x), -1, -1), h], dim=1) + m.places
        return m.head(m.layer(h)[:, 0] * m.scale)

    model = Through(
        forward, patches=nn.Conv2d(2, WIDTH, 2, stride=2), head=nn.Linear(WIDTH, CLASSES),
        layer=nn.TransformerEncoderLayer(WIDTH, 2, 12, batch_first=True, norm_first=True),
        token=nn.Parameter(real(1, 1, WIDTH)), places=nn.Parameter(real(1, 10, WIDTH)),
        scale=nn.Parameter(real(WIDTH)),
    )  # fmt: skip
    return classifier(name, model, real(N, 2, 6, 6))


# --- graphs and tables ---------------------------------------------------------------------------


@kind("graphs, dense")
def _graphs(name: str) -> Kind:
    """Return a graph convolution on padded graphs, each a sample."""

    def forward(m: Any, x: Tensor, edges: Tensor, real_nodes: Tensor) -> Tensor:
        edges = edges + torch.eye(5).to(edges)
        degree = edges.sum(-1, keepdim=True)
        h = torch.relu(m.first(edges @ x / degree))
        h = m.second(edges @ h / degree) * real_nodes.unsqueeze(-1)
        return m.head(h.sum(1) / real_nodes.sum(1, keepdim=True))

    model = Through(
        forward, first=nn.Linear(3, WIDTH), second=nn.Linear(WIDTH, WIDTH),
        head=nn.Linear(WIDTH, CLASSES),
    )  # fmt: skip
    nodes = (
        torch.arange(5) < torch.tensor([5, 3, 4, 2, 5, 4] * (N // 6)).unsqueeze(1)
    ).double()
    edges = (
        (torch.rand(N, 5, 5) < 0.5).double() * nodes.unsqueeze(1) * nodes.unsqueeze(2)
    )
    edges = torch.maximum(edges, edges.mT)
    return classifier(name, model, real(N, 5, 3), edges, nodes)


def table(name: str, outputs: int, target: Tensor, loss: Any, mean: Any) -> Kind:
    """Return a network of a few features with another head."""
    model = nn.Sequential(nn.Linear(4, WIDTH), nn.Tanh(), nn.Linear(WIDTH, outputs))
    return Kind(name, model, (real(N, 4),), target, loss, mean)


@kind("several labels")
def _several_labels(name: str) -> Kind:
    target = labels(N, CLASSES, n=2).double()
    loss = nn.BCEWithLogitsLoss(pos_weight=torch.tensor([1.0, 2.0, 0.5]).double())
    return table(name, CLASSES, target, loss, loss)


@kind("ordinal")
def _ordinal(name: str) -> Kind:
    """Return classes in order: P(y > k) = σ(z − t_k) with thresholds that are parameters."""

    def forward(m: Any, x: Tensor) -> Tensor:
        return m.score(x) - m.thresholds

    def of_samples(z: Tensor, y: Tensor) -> Tensor:
        above = (y.unsqueeze(1) > torch.arange(CLASSES - 1)).to(z.dtype)
        return F.binary_cross_entropy_with_logits(z, above, reduction="none").sum(1)

    score = nn.Sequential(nn.Linear(4, WIDTH), nn.Tanh(), nn.Linear(WIDTH, 1))
    thresholds = nn.Parameter(torch.tensor([-0.5, 0.5]).double())
    model = Through(forward, score=score, thresholds=thresholds)
    return Kind(
        name,
        model,
        (real(N, 4),),
        labels(N),
        of_samples,
        lambda z, y: of_samples(z, y).mean(),
    )


@kind("survival, discrete time")
def _survival(name: str) -> Kind:
    """Return the likelihood of hazards σ(z_t) up to an event or the end of observation."""

    def of_samples(z: Tensor, target: Tensor) -> Tensor:
        last, event = target[:, :1], target[:, 1:]
        steps = torch.arange(z.shape[1], dtype=z.dtype)
        at_risk = (steps <= last).to(z.dtype)
        dies = (steps == last).to(z.dtype) * event
        return (
            at_risk * F.binary_cross_entropy_with_logits(z, dies, reduction="none")
        ).sum(1)

    target = torch.stack([labels(N, n=5), labels(N, n=2)], dim=1).double()
    return table(name, 5, target, of_samples, lambda z, y: of_samples(z, y).mean())


@kind("quantiles")
def _quantiles(name: str) -> Kind:
    def of_samples(z: Tensor, y: Tensor) -> Tensor:
        rates = torch.tensor([0.1, 0.5, 0.9]).to(z)
        rest = y - z
        return torch.maximum(rates * rest, (rates - 1) * rest).mean(1)

    return table(name, 3, real(N, 1), of_samples, lambda z, y: of_samples(z, y).mean())


@kind("contrastive pairs")
def _pairs(name: str) -> Kind:
    """Return pairs as samples: distances of two codes, far ones for unlike pairs."""

    def of_samples(codes: Any, same: Tensor) -> Tensor:
        distance = (codes[0] - codes[1]).square().sum(1).add(1e-6).sqrt()
        far = (1.0 - distance).clamp_min(0).square()
        return torch.where(same > 0, distance.square(), far)

    code = nn.Sequential(nn.Linear(4, WIDTH), nn.Tanh(), nn.Linear(WIDTH, 2))
    model = Through(lambda m, a, b: (m.code(a), m.code(b)), code=code)
    pairs = real(N, 4), real(N, 4)
    return Kind(name, model, pairs, labels(N, n=2).double(), of_samples,
                lambda z, y: of_samples(z, y).mean())  # fmt: skip


# --- models of transformers ----------------------------------------------------------------------


def configured(architecture: str, configuration: str, **options: Any) -> Any:
    """Return a model of transformers with random weights."""
    import transformers  # slow to import

    logging.getLogger("transformers").setLevel(logging.ERROR)
    config = getattr(transformers, configuration)(**options)
    return getattr(transformers, architecture)(config)


SMALL = {
    "vocab_size": WORDS, "hidden_size": WIDTH, "num_hidden_layers": 2, "intermediate_size": 12,
    "num_attention_heads": 2, "max_position_embeddings": 16,
}  # fmt: skip
NO_TOKENS = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": 0}
CAUSAL: dict[str, tuple[str, str, dict[str, Any]]] = {
    "GPT-2": ("GPT2LMHeadModel", "GPT2Config", {
        "vocab_size": WORDS, "n_positions": 16, "n_embd": WIDTH, "n_layer": 2, "n_head": 2}),
    "Llama": ("LlamaForCausalLM", "LlamaConfig", {**SMALL, "num_key_value_heads": 1}),
    "Qwen2": ("Qwen2ForCausalLM", "Qwen2Config", {**SMALL, "num_key_value_heads": 1}),
    "Mistral": ("MistralForCausalLM", "MistralConfig", {**SMALL, "num_key_value_heads": 1}),
    "GPT-NeoX": ("GPTNeoXForCausalLM", "GPTNeoXConfig", SMALL),
}  # fmt: skip


def logits_of(model: nn.Module, inputs: Any) -> Tensor:
    """Return the logits of an object."""
    logits: Tensor = model(**inputs).logits
    return logits


def tokens() -> dict[str, Tensor]:
    """Return a batch as a tokenizer makes it."""
    mask = (~padding()).long()
    return {"input_ids": labels(N, TIME, n=WORDS) * mask, "attention_mask": mask}


@kind(*CAUSAL)
def _causal(name: str) -> Kind:
    architecture, configuration, options = CAUSAL[name]
    model = configured(architecture, configuration, **options, **NO_TOKENS)
    made = next_token(name, model, tokens(), call=logits_of)
    made.data = {**made.inputs, "labels": made.target}
    return made


@kind("GPT-2, its own loss")
def _own_loss(name: str) -> Kind:
    architecture, configuration, options = CAUSAL["GPT-2"]
    model = configured(architecture, configuration, **options, **NO_TOKENS)
    made = next_token(name, model, tokens(), call=logits_of)
    made.data = {**made.inputs, "labels": made.target}
    made.loss = None
    return made


@kind("BERT, sequences")
def _sequences(name: str) -> Kind:
    model = configured(
        "BertForSequenceClassification", "BertConfig", **SMALL, num_labels=CLASSES
    )
    made = Kind(name, model, tokens(), labels(N), nn.CrossEntropyLoss(), F.cross_entropy,
                call=logits_of)  # fmt: skip
    made.data = {**made.inputs, "labels": made.target}
    return made


@kind("BERT, tokens")
def _tokens(name: str) -> Kind:
    model = configured(
        "BertForTokenClassification", "BertConfig", **SMALL, num_labels=CLASSES
    )
    y = labels(N, TIME)
    y[padding()] = IGNORED

    def of_outputs(logits: Tensor, goal: Tensor) -> Tensor:
        return F.cross_entropy(logits.flatten(0, 1), goal.flatten())

    made = Kind(name, model, tokens(), y, nn.CrossEntropyLoss(), of_outputs, counting(y),
                call=logits_of)  # fmt: skip
    made.data = {**made.inputs, "labels": made.target}
    return made


@kind("T5")
def _t5(name: str) -> Kind:
    model = configured(
        "T5ForConditionalGeneration", "T5Config", vocab_size=WORDS, d_model=WIDTH, d_kv=4, d_ff=12,
        num_layers=1, num_heads=2, decoder_start_token_id=0,
    )  # fmt: skip
    y = labels(N, TIME, n=WORDS)
    inputs = {**tokens(), "decoder_input_ids": F.pad(y[:, :-1], (1, 0))}
    y[padding()] = IGNORED

    def of_outputs(logits: Tensor, goal: Tensor) -> Tensor:
        return F.cross_entropy(logits.flatten(0, 1), goal.flatten())

    made = Kind(name, model, inputs, y, nn.CrossEntropyLoss(), of_outputs, counting(y),
                call=logits_of)  # fmt: skip
    made.data = {**made.inputs, "labels": made.target}
    return made


@kind("ViT")
def _vit(name: str) -> Kind:
    model = configured(
        "ViTForImageClassification", "ViTConfig", hidden_size=WIDTH, num_hidden_layers=2,
        num_attention_heads=2, intermediate_size=12, image_size=8, patch_size=4, num_labels=CLASSES,
    )  # fmt: skip
    made = Kind(name, model, {"pixel_values": real(N, 3, 8, 8)}, labels(N), nn.CrossEntropyLoss(),
                F.cross_entropy, call=logits_of)  # fmt: skip
    made.data = {**made.inputs, "labels": made.target}
    return made
