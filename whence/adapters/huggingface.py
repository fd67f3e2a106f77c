"""Objectives of models that a Trainer of Hugging Face's transformers trained.

The loss is the model's own of its kind, summed over what counts in all of the data:

- classification of sequences, images and the like: the mean cross-entropy, of ``problem_type``
  regression the mean square, of several labels the mean binary cross-entropy;
- classification of tokens: the cross-entropy's mean over tokens whose label is not −100;
- causal language models: the same of each token from those before it.

A Trainer takes the mean over the tokens of each *batch*; the objective over those of all data, so
that a token counts the same wherever it is. The data are those of ``train_dataset`` in its own
order, whatever order the Trainer drew: nothing in an objective depends on it, and results name
samples by their place. Dropout is off.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, cast

from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset

from whence import _checks
from whence.classification import CrossEntropy, NextToken
from whence.objective import LossLike, Objective
from whence.parameters import Parameters, Select
from whence.samples import Samples, samples_of

try:
    from transformers import Trainer
    from transformers.models.auto import modeling_auto
except ImportError as error:
    raise ImportError(
        "this adapter needs transformers: pip install whence[adapters]"
    ) from error

Task = Literal["sequence_classification", "token_classification", "causal_lm"]
"""What a model's logits and labels are."""
TASKS = ("sequence_classification", "token_classification", "causal_lm")
IGNORED = -100
"""The label of what does not count."""
WHOLE = (
    "SEQUENCE_CLASSIFICATION",
    "IMAGE_CLASSIFICATION",
    "AUDIO_CLASSIFICATION",
    "VIDEO_CLASSIFICATION",
)
"""Families of models with one label for the whole of an input."""
Item = dict[str, object]
"""A sample as a data set of transformers has it."""


Collator = Callable[[list[Item]], Mapping[str, object]]
"""Makes tensors by name of items, the first axis that of the items."""


@dataclass(frozen=True)
class InOrder:
    """A collator whose batches all have the length of the longest item, labels apart.

    Parameters
    ----------
    collate:
        The Trainer's, which pads a batch to its own longest item.
    longest:
        The longest item, which goes into each batch and out again: then padding is as the collator
        does it, on its side, with its numbers.
    keep:
        Names of what the model takes.
    label_name:
        Name of the labels in a batch.
    """

    collate: Collator
    longest: Item
    keep: Callable[[Item], Item]
    label_name: str

    def __call__(self, items: list[Item]) -> tuple[dict[str, Tensor], Tensor]:
        """Return inputs by name and labels."""
        kept = [self.keep(item) for item in (*items, self.longest)]
        batch = self.collate(kept)
        if self.label_name not in batch:
            raise ValueError(
                f"the data have no {self.label_name!r}, only {', '.join(batch)}: an objective "
                "needs what the model was trained to predict"
            )
        n = len(items)
        inputs = {}
        for name, tensor in batch.items():
            if isinstance(tensor, Tensor):
                inputs[name] = tensor[:n]
        labels = inputs.pop(self.label_name)
        return inputs, labels


# --- what is asked for ---------------------------------------------------------------------------


def from_trainer(
    trainer: Trainer,
    *,
    task: Task | None = None,
    parameters: Select = None,
    weight_decay: float | None = None,
    batch_size: int | None = None,
) -> Objective:
    """Return the objective of a Trainer's model and training data, at its parameters now.

    Parameters
    ----------
    trainer:
        With a map-style ``train_dataset``.
    task:
        What the model's logits are, by default what its class is known for.
    parameters:
        Which parameters θ stands for, by the model's own names, as in
        :meth:`whence.Objective.supervised`.
    weight_decay:
        c of the penalty ``(c/2)‖θ‖²``. By default none; where the Trainer decays weights, which
        AdamW does apart from the loss, it must be given.
    batch_size:
        Samples evaluated at once.

    Returns
    -------
    Objective
        With the term ``data``. Test samples for :class:`whence.Loss` come from
        :func:`dataset_samples`.

    Raises
    ------
    ValueError
        If there are no training data, their order is drawn as they are read, the loss is the
        user's own, or the weights decay.
    TypeError
        If it is no Trainer, or its model of a kind that is not known.

    Examples
    --------
    >>> import torch, whence as wh
    >>> from transformers import BertConfig, BertForSequenceClassification
    >>> from transformers import Trainer, TrainingArguments
    >>> from whence.adapters.huggingface import dataset_samples, from_trainer
    >>> config = BertConfig(vocab_size=9, hidden_size=8, num_hidden_layers=1,
    ...     num_attention_heads=1, intermediate_size=8, num_labels=2, attn_implementation="eager")
    >>> items = [{"input_ids": [1 + k, 2, 3], "labels": k % 2} for k in range(6)]
    >>> trainer = Trainer(BertForSequenceClassification(config), train_dataset=items,
    ...     args=TrainingArguments(report_to=[], use_cpu=True))
    >>> objective = from_trainer(trainer, parameters="classifier.*")
    >>> tests = dataset_samples(trainer, items[:2])
    >>> wh.Influence(objective).attribute(wh.Loss(tests)).sizes["point"]
    6
    """
    check_trainer(trainer)
    if weight_decay is None:
        weight_decay = 0.0
        if trainer.args.weight_decay:
            raise ValueError(
                f"the Trainer decays weights by {trainer.args.weight_decay}, apart from the loss, "
                "so that it minimizes no penalty: give weight_decay=0.0 to leave it out, or what "
                "stands for it"
            )
    data = trainer.train_dataset
    task = task_of(model_of(trainer), task)
    samples = dataset_samples(trainer, data, task=task)
    return Objective.supervised(
        model_of(trainer),
        samples,
        loss_of_trainer(trainer, task, samples),
        parameters=parameters,
        weight_decay=weight_decay,
        batch_size=batch_size,
    )


def dataset_samples(
    trainer: Trainer, dataset: object, *, task: Task | None = None
) -> Samples:
    """Return the items of a data set as the samples of a Trainer's objective, in order.

    All are padded to the longest item of the training data, by the Trainer's own collator.

    Raises
    ------
    ValueError
        If an item is longer than all of those trained on, or has no labels.
    """
    check_trainer(trainer)
    task_of(model_of(trainer), task)  # which must be known
    longest = max(map_style(trainer.train_dataset), key=length_of)
    length = length_of(longest)
    for place, item in enumerate(map_style(dataset)):
        if length_of(item) > length:
            raise ValueError(
                f"item {place} has {length_of(item)} tokens, and the longest of the training data "
                f"{length}: truncate it, as an objective's outputs have one shape"
            )

    collate = InOrder(
        trainer.data_collator, longest, kept_columns(trainer), label_name(trainer)
    )
    loader: DataLoader[object] = DataLoader(
        cast(Dataset[object], dataset),
        batch_size=32,
        collate_fn=collate,
    )
    like = Parameters(model_of(trainer))
    return samples_of("the data of the Trainer", loader, like.dtype, like.device)


# --- reading a Trainer ---------------------------------------------------------------------------


def model_of(trainer: Trainer) -> nn.Module:
    """Return the model of a Trainer, without what was put around it."""
    model = trainer.model
    assert isinstance(model, nn.Module)  # a Trainer is made of one
    return model


def check_trainer(trainer: object) -> None:
    """Raise unless this is a Trainer with the loss of its model and data that have places."""
    if not isinstance(trainer, Trainer):
        raise TypeError(
            f"from_trainer takes a transformers.Trainer, got {_checks.describe(trainer)}"
        )
    if type(trainer).compute_loss is not Trainer.compute_loss or getattr(
        trainer, "compute_loss_func", None
    ):
        raise ValueError(
            "the Trainer has a loss of its own (compute_loss or compute_loss_func), which cannot "
            "be taken apart into samples: use wh.Objective.supervised with a loss of samples"
        )
    if trainer.train_dataset is None:
        raise ValueError("the Trainer has no train_dataset")
    map_style(trainer.train_dataset)


def map_style(dataset: object) -> Sequence[Item]:
    """Return a data set whose items have places; any other is a ``TypeError``."""
    has_places = hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")
    if isinstance(dataset, IterableDataset) or not has_places:
        raise TypeError(
            f"{type(dataset).__name__} has no places by which to say which sample is meant: give "
            "the Trainer a map-style data set, with __len__ and __getitem__"
        )
    return dataset  # type: ignore[return-value]


def task_of(model: nn.Module, task: Task | None) -> Task:
    """Return the task of a model: the one that is named, or what its class is known for.

    Raises
    ------
    TypeError
        If its class is known for none of these.
    """
    if task is not None:
        _checks.one_of("task", task, TASKS)
        return task

    name = type(model).__name__
    families: dict[str, Task] = dict.fromkeys(WHOLE, "sequence_classification")
    families["TOKEN_CLASSIFICATION"] = "token_classification"
    families["CAUSAL_LM"] = "causal_lm"
    for family, known in families.items():
        names = getattr(modeling_auto, f"MODEL_FOR_{family}_MAPPING_NAMES", {})
        if name in names.values():
            return known
    raise TypeError(
        f"what {name} predicts is not known here: models for classification of sequences or tokens "
        "and causal language models are; of any other that returns logits give "
        f"task= one of {', '.join(TASKS)}"
    )


def loss_of_trainer(trainer: Trainer, task: Task, samples: Samples) -> LossLike:
    """Return the loss of a Trainer's model for logits and labels."""
    smoothing = float(trainer.args.label_smoothing_factor)
    target = samples[:1].target
    assert target is not None
    if task == "causal_lm":
        return NextToken(label_smoothing=smoothing, ignore_index=IGNORED)
    if task == "token_classification":
        return CrossEntropy(label_smoothing=smoothing, ignore_index=IGNORED, axis=-1)

    # As ForSequenceClassificationLoss of transformers has it.
    config = getattr(model_of(trainer), "config", None)
    kind = getattr(config, "problem_type", None)
    if kind is None and getattr(config, "num_labels", None) == 1:
        kind = "regression"
    elif kind is None:
        is_real = target.dtype.is_floating_point
        kind = "multi_label" if is_real else "single_label"
    if kind == "regression":
        return nn.MSELoss()
    if kind.startswith("multi_label"):
        return nn.BCEWithLogitsLoss()
    return nn.CrossEntropyLoss(label_smoothing=smoothing)


def label_name(trainer: Trainer) -> str:
    """Return the name of the labels in a batch."""
    names = trainer.label_names
    if len(names) > 1:
        raise ValueError(
            f"the model has labels {', '.join(names)}, and an objective one target: use "
            "wh.Objective.supervised with a module and a loss of your own"
        )
    return names[0] if names else "labels"


def kept_columns(trainer: Trainer) -> Callable[[Item], Item]:
    """Return what a Trainer leaves of an item: what the model takes, and labels."""
    if not trainer.args.remove_unused_columns:
        return lambda item: item
    arguments = inspect.signature(model_of(trainer).forward).parameters
    names = {*arguments, *trainer.label_names, "label", "label_ids", "labels"}

    def kept(item: Item) -> Item:
        return {name: value for name, value in item.items() if name in names}

    return kept


def length_of(item: Item) -> int:
    """Return the tokens of an item; 0 where it has none."""
    tokens = item.get("input_ids", ())
    return len(tokens)  # type: ignore[arg-type]
