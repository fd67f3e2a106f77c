"""The reference interface of EmpiricalIF: formulas written out, a pass for each sample."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from whence.compat.if_pytorch import BaseInfluenceFunction, EmpiricalIF, TracIn

N, D, CLASSES = 9, 3, 3
GENERATOR = torch.Generator().manual_seed(0)
X = torch.randn(N, D, generator=GENERATOR, dtype=torch.float64)
Y = torch.randint(0, CLASSES, (N,), generator=GENERATOR)
QUERY = torch.randn(1, D, generator=GENERATOR, dtype=torch.float64), torch.tensor([1])


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(D, 4), nn.Tanh(), nn.Linear(4, CLASSES)).double()


def made(kind, **options):
    loader = DataLoader(TensorDataset(X, Y), 4, **options)
    return kind(
        dl_train=loader,
        model=network(),
        param_filter_fn=lambda name, param: name.startswith("2"),
        criterion=nn.CrossEntropyLoss(reduction="none"),
    )


def gradient(model, x, y):
    loss = F.cross_entropy(model(x), y)
    parts = torch.autograd.grad(loss, list(model[2].parameters()))
    return torch.cat([p.reshape(-1) for p in parts])


def rows():
    model = network()
    return torch.stack([gradient(model, X[k : k + 1], Y[k : k + 1]) for k in range(N)])


def moved(step):
    model = copy.deepcopy(network())
    with torch.no_grad():
        model[2].weight += step[: 4 * CLASSES].view(CLASSES, 4)
        model[2].bias += step[4 * CLASSES :]
    return model


def losses(model, x, y):
    return F.cross_entropy(model(x), y, reduction="none").detach()


def empirical(target, points):
    step = 0.1 * gradient(network(), *target)
    total = 0
    for delta in (step, -step):
        change = [
            losses(moved(delta), *data) - losses(network(), *data)
            for data in (target, points)
        ]
        total = total + change[0] * change[1] / 2
    return total


def test_empirical_is_a_mean_of_products_without_n():
    scores = made(EmpiricalIF).query_influence(*QUERY)
    assert torch.allclose(scores, empirical(QUERY, (X, Y)), rtol=1e-8, atol=1e-14)


def test_tracin_is_positive_where_gradients_agree():
    scores = made(TracIn).query_influence(*QUERY)
    expected = rows() @ gradient(network(), *QUERY)
    assert torch.allclose(scores, expected, rtol=1e-10)


def test_the_influence_function_has_a_minus_and_one_over_n():
    model = network()
    features = torch.tanh(model[0](X)).detach()

    def loss(theta):
        weight, bias = theta[: 4 * CLASSES].view(CLASSES, 4), theta[4 * CLASSES :]
        return F.cross_entropy(features @ weight.T + bias, Y)

    theta = torch.cat([p.detach().reshape(-1) for p in model[2].parameters()])
    system = torch.func.hessian(loss)(theta) + 0.01 * torch.eye(len(theta)).double()
    solved = torch.linalg.solve(system, gradient(model, *QUERY))
    scores = made(BaseInfluenceFunction).query_influence(*QUERY)
    assert torch.allclose(scores, -rows() @ solved / N, rtol=1e-8)


@pytest.mark.parametrize("kind", [EmpiricalIF, TracIn, BaseInfluenceFunction])
def test_reverse_check_changes_the_two_samples_places(kind):
    found = made(kind)
    scores = found.query_influence(*QUERY)
    most, least = found.reverse_check(*QUERY, scores.tolist(), check_ratio=0.25)
    order = scores.argsort(descending=True).tolist()
    assert [place for place, _, _ in most] == order[:2]
    assert [place for place, _, _ in least] == order[::-1][:2]
    for place, value, reverse in most + least:
        assert value == float(scores[place])
        if kind is EmpiricalIF:  # whose steps are along the other gradient
            point = X[place : place + 1], Y[place : place + 1]
            expected = float(empirical(point, QUERY))
        else:
            expected = value
        assert reverse == pytest.approx(expected, rel=1e-8)


def test_entries_are_in_the_order_of_the_data_set():
    plain = made(TracIn).query_influence(*QUERY)
    shuffled = made(TracIn, shuffle=True).query_influence(*QUERY)
    assert torch.equal(plain, shuffled)


def test_the_model_stays_as_it_was():
    found = made(EmpiricalIF)
    found.query_influence(*QUERY)
    assert torch.equal(found.model[2].weight, network()[2].weight)


def test_bad_input_is_an_error_that_says_what_to_do():
    with pytest.raises(TypeError, match="dl_train must be a DataLoader"):
        EmpiricalIF((X, Y), network())
    found = made(TracIn)
    with pytest.raises(ValueError, match="an entry for each of 9"):
        found.reverse_check(*QUERY, [1.0])
    with pytest.raises(ValueError, match="check_ratio"):
        found.reverse_check(*QUERY, [1.0] * N, 2.0)
    with pytest.raises(ValueError, match="no parameters"):
        EmpiricalIF(DataLoader(TensorDataset(X, Y)), network(), lambda *_: False)
