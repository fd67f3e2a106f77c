import oracles
import pytest
import torch
from torch import nn
from torch.func import functional_call

from whence.losses import Squared
from whence.objective import Objective
from whence.space import Space
from whence.term import Term


def linear(n=4, weight=1.0):
    network = nn.Linear(2, 1).double()
    xy = oracles.uniform(n, (-1, -1, -1), (1, 1, 1))

    def residual(tensors, z):
        return functional_call(network, tensors, (z[:, :2],)) - z[:, 2:]

    return network, Term("data", residual, xy, weight=weight)


@pytest.mark.parametrize("name", oracles.CASES)
def test_loss_is_the_weighted_sum_of_means(name):
    case = oracles.CASES[name]()
    objective = case.objective
    oracles.close(objective.loss(), oracles.loss(case, case.theta), 1e-13)
    for term in objective.terms.values():
        values = [
            case.residuals[term.name](case.tensors(case.theta), z).square().sum()
            for z in term.points
        ]
        oracles.close(objective.losses()[term.name], sum(values) / len(values), 1e-13)
    total = sum(objective.term(n).weight * v for n, v in objective.losses().items())
    oracles.close(objective.total(objective.losses()), total.numpy(), 1e-15)


def test_loss_at_other_parameters_leaves_the_network_alone():
    case = oracles.burgers_soft(widths=(2, 4, 1))
    before = case.theta
    theta = before + 0.1
    found = case.objective.loss(case.objective.parameters.substituted(theta))
    oracles.close(found, oracles.loss(case, theta), 1e-13)
    assert torch.equal(case.theta, before)


def test_the_loss_trains_through_live_parameters():
    case = oracles.burgers_soft(widths=(2, 4, 1))
    objective = case.objective
    objective.loss(objective.parameters.live()).backward()
    found = objective.parameters.flatten(
        {n: p.grad for n, p in objective.network.named_parameters()}
    )
    gradients, scales = oracles.loss_gradients(case)
    oracles.close(found, scales @ gradients, 1e-12)


def test_squared():
    r = torch.tensor([[3.0, 4.0], [1.0, -2.0]], dtype=torch.float64)
    assert Squared().value(r).tolist() == [25.0, 5.0]
    assert torch.equal(Squared().gradient(r), 2 * r)
    root = Squared().curvature_root(r)
    torch.testing.assert_close(
        root @ root.mT, 2 * torch.eye(2).double().expand(2, 2, 2)
    )


def test_other_points_and_weights_make_a_new_objective():
    case = oracles.burgers_soft(widths=(2, 4, 1))
    objective = case.objective
    points = oracles.uniform(3, (-1, 0), (1, 1), seed=9)
    other = objective.with_points({"pde": points}).with_weights({"initial": 0.0})
    assert other.n_points == 3 + 5 + 4
    assert objective.n_points == 9 + 5 + 4
    assert [t.weight for t in other.terms.values()] == [1.0, 0.0, 0.5]
    assert [t.weight for t in objective.terms.values()] == [1.0, 10.0, 0.5]
    assert other.term("pde").scale == pytest.approx(1 / 3)
    moved = oracles.Case(other, case.residuals, case.value)
    oracles.close(other.loss(), oracles.loss(moved, case.theta), 1e-13)


def test_fields_are_the_columns_of_any_network():
    network = nn.Linear(3, 2).double()
    points = torch.ones(4, 3).double()
    term = Term("data", lambda t, z: functional_call(network, t, (z,)), points)
    objective = Objective(network, [term], space=Space(outputs=("a", "b")))
    assert objective.coordinates == ("x0", "x1", "x2")
    found = objective.fields(("b", "a"))(objective.parameters.tensors(), points)
    assert torch.equal(found, network(points)[:, [1, 0]])
    with pytest.raises(ValueError, match=r"unknown output 'c'.*'a', 'b'"):
        objective.fields(("c",))


def test_errors_name_what_was_given():
    network, term = linear()
    names = ("x", "y", "z")
    objective = Objective(network, [term], space=Space(coordinates=names))
    with pytest.raises(
        ValueError, match=r"unknown term 'dat' \(did you mean 'data'\?\)"
    ):
        objective.term("dat")
    with pytest.raises(ValueError, match="unknown term 'pde'"):
        objective.with_points({"pde": term.points})
    with pytest.raises(ValueError, match="unknown term 'pde'"):
        objective.with_weights({"pde": 1.0})
    with pytest.raises(ValueError, match="at least one term"):
        Objective(network, [])
    with pytest.raises(ValueError, match=r"different names, got 'data', 'data'"):
        Objective(network, [term, term], space=Space(coordinates=names))
    with pytest.raises(ValueError, match=r"shape \(n, 2\).*got \(4, 3\)"):
        Objective(network, [term], space=Space(coordinates=("x", "y")))
    with pytest.raises(
        ValueError, match="weight of term 'data' must be zero or a positive"
    ):
        linear(weight=-1.0)
    with pytest.raises(
        ValueError, match=r"points of term 'data' must have shape .* got \(0, 3\)"
    ):
        Term("data", term.residual, torch.zeros(0, 3))
    bad = term.points.clone()
    bad[2, 1] = float("nan")
    with pytest.raises(ValueError, match="the first is row 2"):
        Objective(
            network, [Term("data", term.residual, bad)], space=Space(coordinates=names)
        )
