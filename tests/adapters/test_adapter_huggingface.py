"""Trainers of transformers: the model's own loss, samples in order, and dense brute force."""

import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import IterableDataset

import whence as wh

transformers = pytest.importorskip("transformers")
pytest.importorskip("accelerate")

from whence.adapters.huggingface import dataset_samples, from_trainer  # noqa: E402

N, CLASSES = 7, 3
LENGTHS = [2, 5, 3, 4, 5, 1, 3]
RNG = np.random.default_rng(0)
TOKENS = [RNG.integers(1, 12, length).tolist() for length in LENGTHS]
SIZES = {
    "vocab_size": 12,
    "hidden_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 8,
    "max_position_embeddings": 16,
    "attn_implementation": "eager",
    "num_labels": CLASSES,
}


def pad(items):
    """A collator that pads to the longest of its batch, as DataCollatorWithPadding does."""
    longest = max(len(item["input_ids"]) for item in items)
    batch = {"input_ids": [], "attention_mask": [], "labels": []}
    for item in items:
        gap = longest - len(item["input_ids"])
        batch["input_ids"].append(item["input_ids"] + [0] * gap)
        batch["attention_mask"].append([1] * len(item["input_ids"]) + [0] * gap)
        labels = item.get("labels")
        of_tokens = isinstance(labels, list) and isinstance(labels[0], int)
        batch["labels"].append(labels + [-100] * gap if of_tokens else labels)
    if batch["labels"][0] is None:
        del batch["labels"]
    return {name: torch.tensor(rows) for name, rows in batch.items()}


def bert(kind, **changes):
    torch.manual_seed(0)
    config = transformers.BertConfig(**{**SIZES, **changes})
    return getattr(transformers, f"BertFor{kind}")(config).double()


def gpt2():
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=12,
        n_positions=16,
        n_embd=8,
        n_layer=1,
        n_head=2,
        attn_implementation="eager",
    )
    return transformers.GPT2LMHeadModel(config).double()


def items(labels):
    return [{"input_ids": t, "labels": y} for t, y in zip(TOKENS, labels, strict=True)]


CLASS_LABELS = [int(k) for k in RNG.integers(0, CLASSES, N)]
TOKEN_LABELS = [
    [int(k) if k < CLASSES else -100 for k in RNG.integers(0, 4, n)] for n in LENGTHS
]
REAL_LABELS = [float(v) for v in RNG.standard_normal(N)]
SEVERAL = [[float(v) for v in row] for row in RNG.integers(0, 2, (N, CLASSES))]

CASES = {
    "sequence": (lambda: bert("SequenceClassification"), items(CLASS_LABELS)),
    "regression": (
        lambda: bert("SequenceClassification", num_labels=1),
        items(REAL_LABELS),
    ),
    "tokens": (lambda: bert("TokenClassification"), items(TOKEN_LABELS)),
    "causal": (gpt2, items(TOKENS)),
}


def trainer(model, data, collator=pad, **arguments):
    options = transformers.TrainingArguments(report_to=[], use_cpu=True, **arguments)
    return transformers.Trainer(
        model, args=options, train_dataset=data, data_collator=collator
    )


def whole_loss(model, data):
    """Return the model's own loss of all data in one batch, in evaluation mode."""
    model.eval()
    return model(**pad(data)).loss


@pytest.mark.parametrize("name", CASES)
def test_the_loss_is_the_models_own_over_all_data(name):
    make, data = CASES[name]
    model = make()
    objective = from_trainer(trainer(model, data))
    expected = float(whole_loss(model, data).detach())
    # transformers takes some losses in float32.
    assert np.isclose(float(objective.loss()), expected, rtol=1e-6)

    loss = whole_loss(model, data)
    parts = torch.autograd.grad(loss, list(model.parameters()), allow_unused=True)
    flat = [
        torch.zeros_like(p).reshape(-1) if g is None else g.reshape(-1)
        for p, g in zip(model.parameters(), parts, strict=True)
    ]
    _, gradient = objective.loss_and_gradient()
    assert torch.allclose(gradient, torch.cat(flat), rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("name", ["sequence", "tokens", "causal"])
def test_influence_is_that_of_dense_algebra(name):
    """The head's parameters alone: gradients, Gauss–Newton matrix and solve by hand."""
    make, data = CASES[name]
    model = make()
    part = {"causal": "transformer.ln_f.*"}.get(name, "classifier.*")
    made = trainer(model, data)
    objective = from_trainer(made, parameters=part)
    tests = dataset_samples(made, data[:2])
    damping = wh.Damping(0.3, relative=False)
    effects = wh.Influence(objective, damping=damping).attribute(wh.Loss(tests))

    model.eval()
    chosen = [p for n, p in model.named_parameters() if n.startswith(part[:-1])]
    total = sum(len(y) for _, y in map(logits_and_labels(model, name), data))
    rows, matrix = [], 0
    for item in data:
        logits, labels = logits_and_labels(model, name)(item)
        value = nn.functional.cross_entropy(logits, labels, reduction="sum")
        value = value * N / total
        rows.append(flattened(torch.autograd.grad(value, chosen, retain_graph=True)))
        for row in logits:
            p = row.detach().softmax(0)
            jacobian = torch.stack(
                [
                    flattened(torch.autograd.grad(one, chosen, retain_graph=True))
                    for one in row
                ]
            )
            curvature = torch.diag(p) - torch.outer(p, p)
            matrix = matrix + jacobian.T @ curvature @ jacobian / total
    gradients = torch.stack(rows)
    system = matrix + 0.3 * torch.eye(len(matrix)).double()
    expected = gradients[:2] @ torch.linalg.solve(system, gradients.T) / N
    assert (
        np.abs(effects.values - expected.numpy()).max() <= 1e-8 * expected.abs().max()
    )


def logits_and_labels(model, name):
    """Return what the loss compares at an item, alone and without padding."""

    def at(item):
        logits = model(input_ids=torch.tensor([item["input_ids"]])).logits[0]
        if name == "sequence":
            return logits[None], torch.tensor([item["labels"]])
        labels = torch.tensor(item["labels"])
        if name == "causal":
            return logits[:-1], labels[1:]
        counts = labels != -100
        return logits[counts], labels[counts]

    return at


def flattened(tensors):
    return torch.cat([t.reshape(-1) for t in tensors])


def test_samples_stay_in_the_order_of_the_data_set():
    """The Trainer's own loader shuffles; places in results are those of the data set."""
    model = bert("SequenceClassification")
    made = trainer(model, items(CLASS_LABELS))
    objective = from_trainer(made, parameters="classifier.*")
    assert objective.terms["data"].points.labels().tolist() == CLASS_LABELS
    order = [int(y) for b in made.get_train_dataloader() for y in b["labels"]]
    assert sorted(order) == sorted(CLASS_LABELS)


def test_after_training_it_is_of_the_trained_parameters(tmp_path):
    model = bert("SequenceClassification").float()
    made = trainer(
        model,
        items(CLASS_LABELS),
        output_dir=str(tmp_path),
        max_steps=3,
        save_strategy="no",
    )
    before = from_trainer(made).loss()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made.train()
    assert float(from_trainer(made).loss()) != float(before)


def test_several_labels_and_smoothing():
    model = bert("SequenceClassification", problem_type="multi_label_classification")
    objective = from_trainer(trainer(model, items(SEVERAL)))
    expected = float(whole_loss(model, items(SEVERAL)).detach())
    assert np.isclose(float(objective.loss()), expected, rtol=1e-6)

    model = bert("SequenceClassification")
    made = trainer(model, items(CLASS_LABELS), label_smoothing_factor=0.2)
    model.eval()
    expected = float(made.compute_loss(model, pad(items(CLASS_LABELS))).detach())
    assert np.isclose(float(from_trainer(made).loss()), expected, rtol=1e-6)


# --- bad input ---------------------------------------------------------------------------------


class Stream(IterableDataset):
    def __iter__(self):
        yield from items(CLASS_LABELS)


class OwnLoss(transformers.Trainer):
    def compute_loss(self, model, inputs, *_, **__):
        return model(**inputs).loss


def test_bad_input_is_an_error_that_says_what_to_do():
    model, data = bert("SequenceClassification"), items(CLASS_LABELS)
    with pytest.raises(TypeError, match=r"takes a transformers\.Trainer"):
        from_trainer(model)
    with pytest.raises(TypeError, match="Stream has no places"):
        from_trainer(trainer(model, Stream(), max_steps=1))
    with pytest.raises(ValueError, match="no train_dataset"):
        from_trainer(trainer(model, None))
    with pytest.raises(ValueError, match="give weight_decay"):
        from_trainer(trainer(model, data, weight_decay=0.1))
    own = OwnLoss(model, args=trainer(model, data).args, train_dataset=data)
    with pytest.raises(ValueError, match="a loss of its own"):
        from_trainer(own)
    with pytest.raises(TypeError, match="what BertModel predicts is not known"):
        from_trainer(trainer(transformers.BertModel(model.config), data))
    with pytest.raises(ValueError, match="no parameters"):
        from_trainer(trainer(model, data), parameters="head.*")
    unlabelled = [{"input_ids": t} for t in TOKENS]
    with pytest.raises(ValueError, match="'labels'"):
        from_trainer(trainer(model, unlabelled))
    longer = [{"input_ids": [1] * 9, "labels": 0}]
    with pytest.raises(ValueError, match="item 0 has 9 tokens"):
        dataset_samples(trainer(model, data), longer)


def test_a_collator_that_draws_is_refused():
    def masked(batch):
        made = pad(batch)
        made["input_ids"] = torch.randint(1, 12, made["input_ids"].shape)
        return made

    made = trainer(bert("SequenceClassification"), items(CLASS_LABELS), masked)
    with pytest.raises(ValueError, match="another sample each time"):
        from_trainer(made)
