"""The root of a cross-entropy's curvature: exact for any logits, a column less than classes."""

import pytest
import torch
from torch import nn

import whence as wh
from whence.losses import PerSample

N = 6


def logits_of(classes, size, positions=1):
    torch.manual_seed(0)
    return size * torch.randn(N, classes * positions, dtype=torch.float64)


def classes_of(loss, classes):
    return torch.randint(0, classes, (N, loss.positions))


def columns_of(loss, z, y):
    column = loss.curvature_column(z, y)
    return torch.stack([column(k) for k in range(z.shape[1])], dim=2)


@pytest.mark.parametrize("size", [0.0, 1.0, 30.0, 100.0])
@pytest.mark.parametrize("classes", [1, 2, 3, 10])
def test_the_root_has_a_column_less_than_classes(classes, size):
    """Certain networks have probabilities of 1e-150, and equal logits no likeliest class."""
    loss = wh.CrossEntropy(label_smoothing=0.1)
    z = logits_of(classes, size)
    y = classes_of(loss, classes)
    root = loss.curvature_root(z, y)
    assert loss.rank(classes) == max(1, classes - 1)
    assert not root[:, :, loss.rank(classes) :].any()

    p = z.softmax(dim=1)
    expected = torch.diag_embed(p) - p.unsqueeze(2) * p.unsqueeze(1)
    torch.testing.assert_close(root @ root.mT, expected, rtol=1e-10, atol=1e-14)
    met = (root @ loss.whitened_gradient(z, y).unsqueeze(2)).squeeze(2)
    torch.testing.assert_close(met, loss.gradient(z, y), rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(columns_of(loss, z, y), root)


@pytest.mark.parametrize("axis", [1, -1])
@pytest.mark.parametrize("positions", [1, 4])
def test_columns_and_products_are_those_of_the_root(positions, axis):
    loss = wh.CrossEntropy(positions=positions, axis=axis, scale=0.7)
    z = logits_of(3, 5.0, positions)
    y = classes_of(loss, 3)
    y[0, 0] = loss.ignore_index
    root = loss.curvature_root(z, y)
    torch.testing.assert_close(columns_of(loss, z, y), root)
    vectors = torch.randn_like(z)
    product = loss.root_product(z, y)(vectors)
    torch.testing.assert_close(product, (root @ vectors.unsqueeze(2)).squeeze(2))
    curvature = PerSample(lambda a, b: loss.value(a, b)).curvature(z, y)
    torch.testing.assert_close(root @ root.mT, curvature)
    met = (root @ loss.whitened_gradient(z, y).unsqueeze(2)).squeeze(2)
    torch.testing.assert_close(met, loss.gradient(z, y))


def test_single_precision_loses_nothing_where_a_network_is_sure():
    """A class that is taken for certain and wrong: 1 − p has no digits, and is not needed."""
    z = torch.tensor([[0.0, 25.0, -3.0], [25.0, 0.0, 1.0], [1.0, 0.0, 25.0]])
    y = torch.zeros(3, dtype=torch.int64)
    loss = wh.CrossEntropy()
    doubled = loss.curvature_root(z.double(), y)
    exact = doubled @ doubled.mT
    root = loss.curvature_root(z, y)
    torch.testing.assert_close((root @ root.mT).double(), exact, rtol=1e-4, atol=0.0)
    met = (root @ loss.whitened_gradient(z, y).unsqueeze(2)).squeeze(2)
    expected = loss.gradient(z.double(), y)
    torch.testing.assert_close(met.double(), expected, rtol=1e-4, atol=1e-12)


@pytest.mark.parametrize("classes", [2, 5])
def test_a_jacobian_has_a_row_less_than_classes(classes):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, classes)).double()
    x, y = torch.randn(8, 3).double(), torch.arange(8) % classes
    objective = wh.Objective.supervised(model, (x, y), nn.CrossEntropyLoss())
    scaled = wh.Jacobian(objective, scaled=True)
    assert scaled.components() == {"data": classes - 1}
    assert scaled.widths() == {"data": classes}
    assert wh.Jacobian(objective).components() == {"data": classes}

    rows, right = scaled.system()
    assert rows.shape == scaled.shape == (8 * (classes - 1), objective.parameters.size)
    _, gradient = objective.loss_and_gradient()
    torch.testing.assert_close(rows.T @ right, gradient)
    torch.testing.assert_close(rows.T @ rows, wh.GaussNewtonMatrix(objective).dense())

    # Through the outputs, of all their columns: the Gauss–Newton matrix without S.
    outputs = wh.Jacobian(objective).dense().view(8, classes, -1)
    p = model(x).softmax(dim=1).detach()
    curvature = torch.diag_embed(p) - p.unsqueeze(2) * p.unsqueeze(1)
    expected = torch.einsum("nap,nab,nbq->pq", outputs, curvature, outputs) / 8
    torch.testing.assert_close(rows.T @ rows, expected)
