"""Frozen layers before the selected parameters are evaluated once, and only where that is right."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import Dataset

import whence as wh
from whence.frozen import HeadFunction
from whence.supervised import ModelFunction


class Counting(nn.Module):
    """A frozen layer that counts the samples that pass through it."""

    def __init__(self, module):
        super().__init__()
        self.module, self.seen = module, 0

    def forward(self, x):
        self.seen += len(x)
        return self.module(x)


class Block(nn.Module):
    """A residual block, one of whose layers is called twice."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.relu = (
            nn.Conv2d(3, 3, 3, padding=1),
            nn.Conv2d(3, 3, 1),
            nn.ReLU(),
        )

    def forward(self, x):
        return self.relu(x + self.b(self.relu(self.a(x))))


class Net(nn.Module):
    """An image classifier of the usual form, with functions between its layers."""

    def __init__(self, kind=""):
        super().__init__()
        self.kind = kind
        self.stem = Counting(nn.Sequential(Block(), nn.BatchNorm2d(3), nn.ReLU()))
        self.pool, self.fc, self.out = (
            nn.AvgPool2d(2),
            nn.Linear(12, 5),
            nn.Linear(5, 3),
        )

    def forward(self, x):
        h = torch.relu(self.pool(self.stem(x)) + 1).flatten(1)
        z = self.out(torch.tanh(self.fc(h)))
        if self.kind == "input":
            z = z + x.mean(dim=(1, 2, 3))[:, None]
        if self.kind == "features":
            z = z * h.mean(dim=1, keepdim=True)
        if self.kind == "weights":
            z = z @ self.out.weight @ self.out.weight.T
        return z


N = 23


def images(n=N):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(n, 3, 4, 4, generator=generator, dtype=torch.float64)
    return x, torch.arange(n) % 3


def network(kind=""):
    torch.manual_seed(0)
    return Net(kind).double()


def objective(net, parameters, data=None):
    return wh.Objective.supervised(
        net,
        data or images(),
        nn.CrossEntropyLoss(),
        parameters=parameters,
        batch_size=7,
    )


def plain(given):
    """Return the same objective without features."""
    term = given.term("data")
    other = wh.Term(
        "data", ModelFunction(given.network), term.points.without_kept(), loss=term.loss
    )
    return wh.Objective(
        given.network, other, select=list(given.parameters.names), space=given.space
    )


SELECTED = [["fc.*", "out.*"], "out.weight", "fc.bias"]


@pytest.mark.parametrize("parameters", SELECTED, ids=str)
@pytest.mark.parametrize("curvature", ["gauss_newton", "hessian"])
@pytest.mark.parametrize(
    "solver", [wh.Exact(), wh.ConjugateGradient(), wh.Nystrom(rank=5)]
)
def test_one_pass_whatever_the_solver(parameters, curvature, solver):
    if solver.name == "nystrom" and curvature == "hessian":
        return
    net = network()
    given = objective(net, parameters)
    assert isinstance(given.term("data").residual, HeadFunction)
    expected_of = plain(given)
    net.stem.seen = 0
    x, y = images(3)
    quantity = wh.Loss(x, y)
    influence = wh.Influence(given, damping=1.0, curvature=curvature, solver=solver)
    found = influence.attribute(quantity)
    influence.self_influence()
    # The targets go through as often as there are quantities to take of them.
    assert net.stem.seen <= N + 10 * len(x)

    other = wh.Influence(expected_of, damping=1.0, curvature=curvature, solver=solver)
    expected = other.attribute(quantity)
    np.testing.assert_allclose(found.values, expected.values, rtol=1e-7, atol=1e-12)
    own = influence.self_influence().values
    np.testing.assert_allclose(own, other.self_influence().values, rtol=1e-7)


def test_everything_made_of_points_is_the_same():
    given = objective(network(), "out.*")
    other = plain(given)
    for make in (
        lambda o: wh.Influence(o, damping=1e-2).attribute(
            wh.Output(images(2)[0], "output_1")
        ),
        lambda o: wh.Influence(o, damping=1e-2).attribute(wh.Loss(), effect="perturb"),
        lambda o: wh.TracIn(o, [o.network.state_dict()], 0.1).attribute(wh.Loss()),
        lambda o: wh.EmpiricalInfluence(o).attribute(wh.Loss(*images(2))),
        lambda o: wh.group_influence(
            wh.Influence(o, damping=1e-2), wh.Loss(*images(2)), {"a": [3, 1], "b": [20]}
        ),
        lambda o: wh.leverage(wh.Influence(o, damping=1e-2)),
        lambda o: wh.leave_one_out(o, wh.Loss(*images(2)), [4], steps=3, anchor=0.1),
        lambda o: wh.Jacobian(o).dense(),
    ):
        np.testing.assert_allclose(make(given), make(other), rtol=1e-6, atol=1e-11)


@pytest.mark.parametrize(
    ("kind", "parameters"),
    [
        ("input", "out.*"),
        ("features", "out.*"),
        ("", "stem.*"),
        ("", None),
        ("features", "fc.*"),
    ],
)
def test_nothing_is_kept_where_more_is_needed(kind, parameters):
    given = objective(network(kind), parameters)
    assert not isinstance(given.term("data").residual, HeadFunction)
    found = wh.GradDot(given).attribute(wh.Loss()).values
    np.testing.assert_allclose(
        found, wh.GradDot(plain(given)).attribute(wh.Loss()).values
    )


def test_weights_that_are_used_elsewhere_too():
    given = objective(network("weights"), "out.*")
    found = wh.GradDot(given).attribute(wh.Loss()).values
    np.testing.assert_allclose(
        found, wh.GradDot(plain(given)).attribute(wh.Loss()).values
    )


def test_frozen_weights_that_change_are_noticed():
    net = network()
    given = objective(net, "out.*")
    wh.GradDot(given).attribute(wh.Loss())
    with torch.no_grad():
        net.fc.weight.mul_(2.0)
        net.stem.module[1].running_mean.add_(0.5)
    found = wh.GradDot(given).attribute(wh.Loss()).values
    np.testing.assert_allclose(
        found, wh.GradDot(plain(given)).attribute(wh.Loss()).values
    )


class Reading(Dataset):
    """Samples that are read when used, and count how often."""

    def __init__(self):
        self.data, self.reads = images(), 0

    def __len__(self):
        return N

    def __getitem__(self, i):
        self.reads += 1
        return self.data[0][i], self.data[1][i]


@pytest.mark.parametrize("in_memory", [True, False])
def test_data_and_features_above_memory(monkeypatch, in_memory):
    monkeypatch.setattr("whence.samples.IN_MEMORY_BYTES", 0)
    if not in_memory:
        monkeypatch.setattr("whence.frozen.IN_MEMORY_BYTES", 0)
    data, net = Reading(), network()
    given = objective(net, "out.*", data)
    influence = wh.Influence(given, damping=1e-2)
    wh.GradDot(given).self_influence()  # labels and features are read
    data.reads = net.stem.seen = 0
    target = wh.Loss(*images(2))
    found = influence.attribute(target).values
    assert data.reads < N
    assert net.stem.seen < N
    expected = wh.Influence(objective(network(), "out.*"), damping=1e-2).attribute(
        target
    )
    np.testing.assert_allclose(found, expected.values, rtol=1e-7)


def test_a_sequence_of_layers_and_a_model_that_is_not_split():
    torch.manual_seed(0)
    body = Counting(nn.Sequential(nn.Linear(4, 8), nn.Tanh()))
    net = nn.Sequential(
        body, nn.Sequential(nn.Linear(8, 5), nn.ReLU()), nn.Linear(5, 3)
    ).double()
    x, y = torch.randn(30, 4, dtype=torch.float64), torch.arange(30) % 3
    given = wh.Objective.supervised(
        net, (x, y), nn.CrossEntropyLoss(), parameters=net[2]
    )
    body.seen = 0
    found = wh.GradDot(given).attribute(wh.Loss(x[:3], y[:3])).values
    assert body.seen <= 30 + 10 * 3
    np.testing.assert_allclose(
        found, wh.GradDot(plain(given)).attribute(wh.Loss(x[:3], y[:3]))
    )
