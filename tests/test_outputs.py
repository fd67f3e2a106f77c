"""Outputs and targets by name or in order: where they lie, losses summed, data with them."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, Dataset

import whence as wh
from whence.losses import PerSample
from whence.outputs import layout_of, outputs_of, table_of
from whence.summed_losses import SummedLoss

N, SLOTS, CLASSES = 6, 2, 3


class Detector(nn.Module):
    """Classes (n, classes, slots) and boxes (n, slots, 4), by name or in order."""

    def __init__(self, by_name=True):
        super().__init__()
        self.body, self.by_name = nn.Linear(5, 6), by_name
        self.classes, self.boxes = (
            nn.Linear(6, CLASSES * SLOTS),
            nn.Linear(6, 4 * SLOTS),
        )

    def forward(self, x):
        h = torch.tanh(self.body(x))
        classes = self.classes(h).unflatten(1, (CLASSES, SLOTS))
        boxes = self.boxes(h).unflatten(1, (SLOTS, 4))
        return (
            {"classes": classes, "boxes": boxes} if self.by_name else (classes, boxes)
        )


class Items(Dataset):
    def __init__(self, items):
        self.items = items

    def __len__(self):
        return len(self.items)

    def __getitem__(self, i):
        return self.items[i]


@pytest.fixture
def data():
    torch.manual_seed(0)
    x = torch.randn(N, 5, dtype=torch.float64)
    classes = torch.randint(0, CLASSES, (N, SLOTS))
    classes[1, 0] = -100
    return x, {
        "classes": classes,
        "boxes": torch.rand(N, SLOTS, 4, dtype=torch.float64),
    }


LOSSES = {"classes": nn.CrossEntropyLoss(), "boxes": (5.0, nn.MSELoss())}


def made(data, by_name=True, losses=LOSSES):
    torch.manual_seed(1)
    x, target = data
    model = Detector(by_name).double()
    if not by_name:
        target, losses = tuple(target.values()), tuple(losses.values())
    return wh.Objective.supervised(model, (x, target), losses)


def test_layout_and_table():
    outputs = {"a": torch.arange(6.0).view(2, 3), "b": torch.ones(2, 2, 2)}
    layout, table = layout_of(outputs), table_of(outputs)
    assert layout.size == table.shape[1] == 7
    restored = layout.restored(table)
    assert all(torch.equal(restored[name], outputs[name]) for name in outputs)
    in_order = layout_of(tuple(outputs.values()))
    assert torch.equal(in_order.restored(table)[1], outputs["b"])


@pytest.mark.parametrize("place", range(3))
def test_no_output_loses_digits_beside_others_in_single_precision(place):
    third = torch.full((1, 1), 1 / 3, dtype=torch.float64)
    outputs = [torch.zeros(1, 1), torch.zeros(1, 1), torch.zeros(1, 1)]
    outputs[place] = third
    assert torch.equal(table_of(outputs)[:, place], third[:, 0])


def test_what_counts_of_what_is_returned():
    class Object:
        logits = torch.zeros(3, 2)

    assert outputs_of(Object(), 3) is Object.logits
    named = {"a": torch.zeros(3, 2), "number": torch.zeros(3).long(), "cache": None}
    assert list(outputs_of(named, 3)) == ["a"]
    with pytest.raises(
        TypeError, match=r"a tensor, an object with \.logits, or several"
    ):
        outputs_of({"cache": None}, 3)
    with pytest.raises(ValueError, match="'a' for each of 4 samples"):
        outputs_of(named, 4)


@pytest.mark.parametrize("by_name", [True, False])
def test_the_loss_is_torchs(by_name, data):
    objective = made(data, by_name)
    x, target = data
    outputs = objective.network(x)
    classes, boxes = outputs.values() if by_name else outputs
    expected = F.cross_entropy(classes, target["classes"])
    expected = expected + 5 * F.mse_loss(boxes, target["boxes"])
    torch.testing.assert_close(objective.loss().detach(), expected.detach())


def test_closed_forms_are_those_of_a_function(data):
    """Gradient, curvature and its roots, of the sum and of the same as one function."""
    objective = made(data)
    term = objective.term("data")
    loss, layout = term.loss, term.loss.layout
    assert isinstance(loss, SummedLoss)
    assert loss.is_convex
    assert loss.spans

    def function(outputs, target):
        by_class = F.cross_entropy(
            outputs["classes"], target["classes"], reduction="none"
        )
        # A mean over the eleven positions that count.
        of_classes = by_class.sum(1) * N / 11
        of_boxes = (outputs["boxes"] - target["boxes"]).square().mean((1, 2))
        return of_classes + 5 * of_boxes

    same = PerSample(function, layout)
    output = term.residual(objective.parameters.tensors(), term.points)
    target = term.points.target
    torch.testing.assert_close(loss.value(output, target), same.value(output, target))
    gradient = loss.gradient(output, target)
    torch.testing.assert_close(gradient, same.gradient(output, target))

    vectors = torch.randn_like(output)
    image = loss.curvature_product(output, target)(vectors)
    torch.testing.assert_close(image, same.curvature_product(output, target)(vectors))
    root = loss.curvature_root(output, target)
    torch.testing.assert_close(root @ root.mT, same.curvature(output, target))
    column = loss.curvature_column(output, target)
    columns = torch.stack([column(k) for k in range(output.shape[1])], dim=2)
    torch.testing.assert_close(columns, root)
    whitened = loss.whitened_gradient(output, target).unsqueeze(2)
    torch.testing.assert_close((root @ whitened).squeeze(2), gradient)


def test_every_method_takes_them(data):
    x, target = data
    objective = made(data)
    tests = wh.Loss(x[:2], {name: part[:2] for name, part in target.items()})
    gradients = []
    term = objective.term("data")
    live = objective.parameters.live()
    for i in range(N):
        alone = term.points[i : i + 1]
        loss = term.value(term.residual(live, alone), alone)[0]
        parts = torch.autograd.grad(loss, list(objective.network.parameters()))
        gradients.append(torch.cat([part.flatten() for part in parts]))
    gradients = torch.stack(gradients).numpy()
    products = gradients[:2] @ gradients.T / N

    found = wh.GradDot(objective).attribute(tests).values
    np.testing.assert_allclose(found, products, rtol=1e-10, atol=1e-14)
    exact = wh.Influence(objective, damping=1e-2, solver=wh.Exact()).attribute(tests)
    other = wh.Influence(objective, damping=1e-2, solver=wh.ConjugateGradient())
    np.testing.assert_allclose(other.attribute(tests).values, exact.values, rtol=1e-6)
    hessian = wh.Influence(objective, damping=10.0, curvature="hessian").attribute(
        tests
    )
    assert np.isfinite(hessian.values).all()


def test_targets_by_name_are_read_in_parts(data, monkeypatch):
    """A data set of items with a mapping for target, in memory and read when used."""
    x, target = data
    pairs = [(x[i], {name: part[i] for name, part in target.items()}) for i in range(N)]
    items = Items(pairs)
    for loader in (items, DataLoader(items, batch_size=4)):
        for limit in (2**20, 0):
            monkeypatch.setattr("whence.samples.IN_MEMORY_BYTES", limit)
            objective = wh.Objective.supervised(made(data).network, loader, LOSSES)
            expected = made(data).loss().detach()
            torch.testing.assert_close(objective.loss().detach(), expected)


def test_losses_that_do_not_fit_are_named(data):
    with pytest.raises(
        ValueError, match="a loss for 'masks', and the model returns 'classes'"
    ):
        made(data, losses={"masks": nn.MSELoss()})
    x, target = data
    with pytest.raises(ValueError, match="'boxes', and the targets have none"):
        made((x, {"classes": target["classes"]}))
    with pytest.raises(TypeError, match="several outputs, 'classes', 'boxes'"):
        made(data, losses=nn.CrossEntropyLoss())
    with pytest.raises(TypeError, match="got one tensor"):
        wh.Objective.supervised(nn.Linear(5, 3).double(), (x, target), LOSSES)
    with pytest.raises(ValueError, match="weight of the loss of 'boxes'"):
        made(data, losses={"boxes": (-1.0, nn.MSELoss())})


def test_losses_that_couple_samples_are_refused():
    """Cox's partial likelihood, and a contrastive loss with the batch for negatives."""
    torch.manual_seed(0)
    x, time = torch.randn(N, 3), torch.rand(N, 1)

    def cox(risk, time):
        at_risk = (time <= time.T).to(risk.dtype)
        return (at_risk @ risk.exp()).log().squeeze(1) - risk.squeeze(1)

    def in_batch(codes, same):
        return F.cross_entropy(
            codes @ codes.T, torch.arange(len(codes)), reduction="none"
        )

    for loss in (cox, in_batch):
        with pytest.raises(
            ValueError, match=r"the loss couples .* hazards in discrete time"
        ):
            wh.Objective.supervised(nn.Linear(3, 1), (x, time), loss)
