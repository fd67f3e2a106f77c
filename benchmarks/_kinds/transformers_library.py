"""Models of the transformers library, from a configuration, with random weights."""

from __future__ import annotations

import logging
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks._kinds.kind import (
    CLASSES,
    IGNORED,
    TIME,
    WIDTH,
    WORDS,
    Kind,
    N,
    counting,
    kind,
    labels,
    real,
)
from benchmarks._kinds.sequences import next_token, padding


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
