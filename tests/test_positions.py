"""Losses over many positions (tokens, pixels): torch's own loss, its derivatives, its curvature."""

import functools
import resource
import time

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import whence as wh
from whence.losses import PerSample, WithoutMatrix
from whence.torch_losses import loss_of

N, C, D = 7, 3, 4
TARGET = torch.tensor([0, 1, 2, -100]).repeat(N).reshape(N, D)
TARGET[2] = -100  # a sample of which nothing counts
TARGET[3] = 1
WEIGHT = torch.tensor([1.0, 3.0, 0.5], dtype=torch.float64)


@pytest.fixture
def logits():
    torch.manual_seed(0)
    return torch.randn(N, C, D, dtype=torch.float64)


MEANS = {
    "module": nn.CrossEntropyLoss(),
    "weights": nn.CrossEntropyLoss(weight=WEIGHT),
    "smoothed": nn.CrossEntropyLoss(weight=WEIGHT, label_smoothing=0.2),
    "other index": nn.CrossEntropyLoss(ignore_index=1),
    "function": F.cross_entropy,
    "partial": functools.partial(F.cross_entropy, ignore_index=2, weight=WEIGHT),
}


@pytest.mark.parametrize("name", MEANS)
@pytest.mark.parametrize("shape", [(N, C, D), (N, C, 2, 2), (N, C)])
def test_mean_of_sample_losses_is_torchs(name, shape, logits):
    given = MEANS[name]
    output, target = logits[..., : D if len(shape) > 2 else 1].reshape(shape), TARGET
    target = target[:, 1] if len(shape) == 2 else target.reshape(N, *shape[2:])
    if name in ("other index", "partial"):
        target = target.clamp_min(0)
    if name == "other index" and len(shape) == 2:
        target = torch.arange(N) % 3
    loss = loss_of(given, output, target)
    value = loss.value(output.flatten(1), target).mean()
    torch.testing.assert_close(value, given(output, target))
    # Of other parts of the data the same positions are counted, in any order.
    parts = loss_of(given, output[:3], target[:3], target.split(2))
    same = parts.value(output.flatten(1), target)
    torch.testing.assert_close(same, loss.value(output.flatten(1), target))


def test_other_reductions_and_probabilities(logits):
    flat = logits.flatten(1)
    summed = loss_of(nn.CrossEntropyLoss(reduction="sum"), logits, TARGET)
    by_position = F.cross_entropy(logits, TARGET, reduction="none")
    torch.testing.assert_close(summed.value(flat, TARGET), by_position.sum(1))
    unreduced = loss_of(nn.CrossEntropyLoss(reduction="none"), logits, TARGET)
    torch.testing.assert_close(unreduced.value(flat, TARGET), by_position.mean(1))
    q = torch.rand_like(logits).softmax(1)
    soft = loss_of(nn.CrossEntropyLoss(weight=WEIGHT), logits, q)
    expected = F.cross_entropy(logits, q, weight=WEIGHT)
    torch.testing.assert_close(soft.value(flat, q).mean(), expected)

    logarithms = logits.log_softmax(1)
    nll = loss_of(nn.NLLLoss(WEIGHT), logarithms, TARGET)
    expected = F.nll_loss(logarithms, TARGET, WEIGHT)
    torch.testing.assert_close(
        nll.value(logarithms.flatten(1), TARGET).mean(), expected
    )
    # What is no log-softmax is taken as it is, and has no curvature.
    raw = loss_of(nn.NLLLoss(), logits[..., 0], TARGET[:, 0])
    kept = F.nll_loss(logits[..., 0], TARGET[:, 0], reduction="none")
    torch.testing.assert_close(raw.value(logits[..., 0], TARGET[:, 0]), kept)
    assert not raw.is_convex


@pytest.mark.parametrize(
    "given",
    [
        nn.CrossEntropyLoss(weight=WEIGHT, label_smoothing=0.1),
        nn.BCEWithLogitsLoss(pos_weight=WEIGHT[:, None]),
        nn.BCEWithLogitsLoss(weight=WEIGHT[:, None]),
        nn.MSELoss(),
        nn.HuberLoss(),
        nn.BCELoss(),
        nn.L1Loss(),
    ],
    ids=lambda given: type(given).__name__,
)
def test_closed_forms_are_derivatives(given, logits):
    is_classes = isinstance(given, nn.CrossEntropyLoss)
    target = TARGET if is_classes else torch.rand_like(logits)
    output = logits.sigmoid() if isinstance(given, nn.BCELoss) else logits
    z = output.flatten(1)
    loss = loss_of(given, output, target)
    reference = PerSample(lambda a, b: loss.value(a, b))
    torch.testing.assert_close(loss.gradient(z, target), reference.gradient(z, target))
    if isinstance(given, nn.L1Loss):
        assert not loss.is_convex
        return

    curvature = reference.curvature(z, target)
    root = loss.curvature_root(z, target)
    torch.testing.assert_close(root @ root.mT, curvature)
    assert loss.is_convex
    if loss.spans:
        met = (root @ loss.whitened_gradient(z, target).unsqueeze(2)).squeeze(2)
        torch.testing.assert_close(met, loss.gradient(z, target))

    assert isinstance(loss, WithoutMatrix)
    v = torch.randn_like(z)
    product = loss.curvature_product(z, target)(v)
    torch.testing.assert_close(product, (curvature @ v.unsqueeze(2)).squeeze(2))
    column = loss.curvature_column(z, target)
    columns = torch.stack([column(k) for k in range(C * D)], dim=2)
    torch.testing.assert_close(columns @ columns.mT, curvature)


def pixels(model, shape, dtype=torch.float32, n=5, classes=4):
    """Return an objective of a network that classifies pixels."""
    torch.manual_seed(0)
    x = torch.randn(n, 3, *shape, dtype=dtype)
    y = torch.randint(0, classes, (n, *shape))
    y[:, 0] = -100
    return wh.Objective.supervised(model.to(dtype), (x, y), nn.CrossEntropyLoss())


@pytest.mark.parametrize("kind", ["closed form", "function"])
def test_products_through_many_outputs_are_those_of_rows(kind, monkeypatch):
    """GN products of 4 · 5 · 4 = 80 outputs against rows of J, in float64."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Tanh(), nn.Conv2d(4, 4, 1))
    objective = pixels(model, (5, 4), torch.float64)
    if kind == "function":
        term = objective.term("data")
        loss = PerSample(term.loss.value)
        objective = wh.Objective(
            model, wh.Term("data", term.residual, term.points, loss=loss)
        )
    jacobian = wh.Jacobian(objective, scaled=True)
    assert jacobian.has_many_outputs
    size = objective.parameters.size
    vectors = torch.randn(size, 3, dtype=torch.float64)
    product = wh.GaussNewtonMatrix(objective).matmat(vectors)

    rows = jacobian.dense()
    torch.testing.assert_close(product, rows.T @ (rows @ vectors))
    torch.testing.assert_close(wh.GaussNewtonMatrix(objective).dense(), rows.T @ rows)
    monkeypatch.setattr("whence.jacobian.MANY_OUTPUTS", 100)
    by_root = wh.Jacobian(objective, scaled=True).dense()
    torch.testing.assert_close(by_root.T @ rows, rows.T @ rows)
    # By columns, where outputs are many more than parameters.
    monkeypatch.setattr("whence.jacobian.MANY_OUTPUTS", 64)
    some = wh.Objective.supervised(
        model, (objective.term("data").points.inputs[0], objective.term("data").points.target),
        nn.CrossEntropyLoss(), parameters="2.bias",
    )  # fmt: skip
    rows = wh.Jacobian(some, scaled=True).dense()
    torch.testing.assert_close(wh.GaussNewtonMatrix(some).dense(), rows.T @ rows)


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.g = nn.GRU(2, 5, batch_first=True)
        self.o = nn.Linear(5, 4)

    def forward(self, x):
        return self.o(self.g(x)[0]).transpose(1, 2)


class Attending(nn.Module):
    def __init__(self):
        super().__init__()
        self.q = nn.Linear(2, 6)
        self.o = nn.Linear(6, 4)

    def forward(self, x):
        q = self.q(x)
        return self.o(F.scaled_dot_product_attention(q, q, q)).transpose(1, 2)


@pytest.mark.parametrize("model", [Recurrent, Attending])
def test_sequences_without_forward_mode(model):
    """80 outputs of a recurrent and an attending network, which have no forward mode."""
    torch.manual_seed(0)
    x = torch.randn(3, 20, 2, dtype=torch.float64)
    y = torch.randint(0, 4, (3, 20))
    objective = wh.Objective.supervised(model().double(), (x, y), nn.CrossEntropyLoss())
    vectors = torch.randn(objective.parameters.size, 2, dtype=torch.float64)
    rows = wh.Jacobian(objective, scaled=True).dense()
    product = wh.GaussNewtonMatrix(objective).matmat(vectors)
    torch.testing.assert_close(product, rows.T @ (rows @ vectors))


def test_many_outputs_are_quick_and_small():
    """200 images of 4096 outputs: neither made nor judged by matrices of 4096 × 4096."""
    model = nn.Conv2d(3, 4, 1)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    objective = pixels(model, (32, 32), n=200)
    influence = wh.Influence(objective, solver=wh.ConjugateGradient(1e-3), damping=1e-2)
    elapsed = time.perf_counter() - start
    assert influence.curvature == "gauss_newton"
    points = objective.term("data").points[:2]
    target = wh.Loss(points.inputs[0], points.target)
    assert wh.GradDot(objective).attribute(target).shape == (2, 200)
    assert influence.attribute(target).attrs["solver_residual"] < 2e-3
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert elapsed < 2
    assert after - before < 2**20  # KiB


@pytest.mark.parametrize("outputs", [2304, 300])
def test_convexity_of_functions_is_judged_in_double_precision(outputs):
    """Cross-entropy as a function is convex; a cosine of the outputs is not; both in float32."""
    torch.manual_seed(0)
    z = torch.randn(3, 4, outputs // 4)
    y = torch.randint(0, 4, (3, outputs // 4))
    convex = loss_of(lambda a, b: F.cross_entropy(a, b, reduction="none").mean(1), z, y)
    assert convex.is_convex
    wavy = loss_of(lambda a, b: torch.cos(a).flatten(1).sum(1), z, y)
    assert not wavy.is_convex


def test_layouts_and_weights_are_refused_by_name(logits):
    sequence = logits.transpose(1, 2)  # (n, T, classes)
    with pytest.raises(ValueError, match=r"output.permute\(0, 2, 1\)"):
        loss_of(nn.CrossEntropyLoss(), sequence, TARGET)
    with pytest.raises(ValueError, match=r"must have shape \(7, 4\), got \(7, 5\)"):
        loss_of(wh.CrossEntropy(), logits, torch.zeros(7, 5, dtype=torch.long))
    with pytest.raises(ValueError, match="none of the 7 targets counts"):
        loss_of(nn.CrossEntropyLoss(), logits, torch.full((7, 4), -100))

    output, target = logits[..., 0], torch.arange(N) % 2
    for bad, message in (
        (
            [1.0, 2.0, float("inf")],
            "got inf for class 2: give a class that has no samples",
        ),
        ([1.0, float("nan"), 2.0], "got nan for class 1"),
        ([-1.0, 1.0, 2.0], "got -1.0 for class 0"),
        ([1.0, 1.0], "one for each of the model's 3 classes, got 2"),
        ([0.0, 0.0, 0.0], "must not all be zero"),
    ):
        for loss in (wh.CrossEntropy, nn.CrossEntropyLoss, nn.NLLLoss):
            given = output.log_softmax(1)
            with pytest.raises(ValueError, match=message):
                loss_of(
                    loss(weight=torch.tensor(bad, dtype=torch.float64)), given, target
                )
        if "model's" not in message:
            binary = nn.BCEWithLogitsLoss(pos_weight=torch.tensor(bad))
            with pytest.raises(ValueError, match="pos_weight"):
                loss_of(binary, output, output.sigmoid())
    with pytest.raises(ValueError, match="pos_weight must be one number, or broadcast"):
        loss_of(
            nn.BCEWithLogitsLoss(pos_weight=torch.ones(2)), output, output.sigmoid()
        )
    with pytest.raises(ValueError, match="label_smoothing must lie in 0 … 1, got 2"):
        wh.CrossEntropy(label_smoothing=2)
    with pytest.raises(ValueError, match="no gradient with respect to the outputs"):
        loss_of(lambda a, b: a.detach().sum(1), output, target)
