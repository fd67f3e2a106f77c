import math

import numpy as np
import oracles
import pytest
import torch
from torch.func import jacrev

from whence.attribution.quantities import (
    Derivative,
    Functional,
    Loss,
    Output,
    Residual,
    aggregate_gradient,
)
from whence.objective import Objective
from whence.term import Term

POINTS = oracles.uniform(5, (-1, 0), (1, 1), seed=3)


def check(case, quantity, functions):
    """``functions`` are f(tensors) -> scalar, one per target, written by hand."""
    objective = case.objective
    expected = [f(case.tensors(case.theta)) for f in functions]
    gradients = [
        jacrev(lambda t, f=f: f(case.tensors(t)))(case.theta) for f in functions
    ]
    oracles.close(quantity.values(objective), torch.stack(expected), 1e-12)
    oracles.close(
        torch.cat(list(quantity.gradients(objective))), torch.stack(gradients), 1e-12
    )
    oracles.close(aggregate_gradient(quantity, objective), sum(gradients), 1e-12)
    targets = quantity.targets(objective)
    assert {len(v) for v in targets.values()} == {len(functions)}
    return targets


def at_each(function, points=POINTS):
    return [lambda tensors, z=z: function(tensors, z) for z in points]


@pytest.fixture(name="case")
def _case():
    return oracles.burgers_soft(n=6, widths=(2, 5, 1))


@pytest.fixture(name="flow")
def _flow():
    return oracles.navier_stokes(n=3, widths=(2, 5, 3))


def test_the_only_output(case):
    targets = check(case, Output(POINTS), at_each(lambda t, z: case.value(t, z)[0]))
    assert list(targets) == ["x", "t", "quantity"]
    assert np.array_equal(targets["t"], POINTS[:, 1])
    assert set(targets["quantity"]) == {"u"}
    assert Output(POINTS).label() == "output"


def test_outputs_by_name(flow):
    for k, name in enumerate("uvp"):
        targets = check(
            flow, Output(POINTS, name), at_each(lambda t, z, k=k: flow.value(t, z)[k])
        )
        assert set(targets["quantity"]) == {name}
    with pytest.raises(
        ValueError, match=r"outputs u, v, p: name one, such as Output\(points, 'u'"
    ):
        Output(POINTS).values(flow.objective)
    with pytest.raises(ValueError, match="unknown output 'w'"):
        Output(POINTS, "w").values(flow.objective)


def test_a_function_of_fields(flow):
    def by_hand(tensors, z):
        u, v, _ = flow.value(tensors, z)
        u_y = jacrev(lambda at: flow.value(tensors, at)[0])(z)[1]
        return z[0] * torch.sqrt(u**2 + v**2) + u_y

    speed = Output(POINTS, lambda u, v, x, u_y: x * (u**2 + v**2).sqrt() + u_y)
    targets = check(flow, speed, at_each(by_hand))
    assert set(targets["quantity"]) == {"f(u, v, x, u_y)"}
    for wrong in (lambda u: u.sum(), lambda u: u.unsqueeze(1), lambda u: u[:2]):
        with pytest.raises(ValueError, match=r"must return shape \(5,\)"):
            Output(POINTS, wrong).values(flow.objective)
    with pytest.raises(ValueError, match=r"unknown name 'u_z'"):
        Output(POINTS, lambda u_z: u_z).values(flow.objective)


@pytest.mark.parametrize("name", ["u_x", "u_t", "u_xx", "u_xt", "u_xxx"])
def test_derivatives(case, name):
    def by_hand(tensors, z):
        f = lambda at: case.value(tensors, at)[0]  # noqa: E731
        for c in name[2:]:
            f = (lambda g, k: lambda at: jacrev(g)(at)[k])(f, "xt".index(c))
        return f(z)

    targets = check(case, Derivative(POINTS, name), at_each(by_hand))
    assert set(targets["quantity"]) == {name}


def test_residuals(case, flow):
    targets = check(
        case,
        Residual(POINTS, "pde"),
        at_each(lambda t, z: case.residuals["pde"](t, z)[0]),
    )
    assert set(targets["quantity"]) == {"residual pde"}
    functions = [
        lambda t, z=z, k=k: flow.residuals["flow"](t, z)[k]
        for z in POINTS
        for k in range(3)
    ]
    targets = check(flow, Residual(POINTS, "flow"), functions)
    assert targets["quantity"][:4].tolist() == [
        f"residual flow {k}" for k in (0, 1, 2, 0)
    ]
    assert np.array_equal(targets["x"], np.repeat(POINTS[:, 0].numpy(), 3))
    with pytest.raises(
        ValueError, match=r"unknown term 'flw' \(did you mean 'flow'\?\)"
    ):
        Residual(POINTS, "flw").values(flow.objective)


def squared(case, name):
    return lambda tensors, z: case.residuals[name](tensors, z).square().sum()


def test_losses_of_points(case):
    given = {"periodic": POINTS[:2], "pde": POINTS}
    functions = [
        *at_each(squared(case, "periodic"), POINTS[:2]),
        *at_each(squared(case, "pde")),
    ]
    targets = check(case, Loss(given), functions)
    assert targets["quantity"].tolist() == ["loss periodic"] * 2 + ["loss pde"] * 5


def test_losses_of_the_training_points(case):
    functions = [
        f
        for name, term in case.objective.terms.items()
        for f in at_each(squared(case, name), term.points)
    ]
    check(case, Loss(), functions)


@pytest.mark.parametrize("reduce", ["sum", "mean"])
def test_reduced_losses(case, reduce):
    def by_hand(tensors):
        total = 0.0
        for name, points in {"pde": POINTS, "initial": POINTS[:2]}.items():
            part = sum(squared(case, name)(tensors, z) for z in points)
            total = total + (part / len(points) if reduce == "mean" else part)
        return total

    quantity = Loss({"pde": POINTS, "initial": POINTS[:2]}, reduce=reduce)
    targets = check(case, quantity, [by_hand])
    assert targets["quantity"].tolist() == [f"{reduce} of losses"]


def test_a_functional(case):
    def of(field):
        return field("u", POINTS).mean() ** 2 + field("u_x", POINTS[:2]).sum()

    def by_hand(tensors):
        u = torch.stack([case.value(tensors, z)[0] for z in POINTS])
        f = lambda at: case.value(tensors, at)[0]  # noqa: E731
        return u.mean() ** 2 + sum(jacrev(f)(z)[0] for z in POINTS[:2])

    targets = check(case, Functional(of, name="odd"), [by_hand])
    assert targets == {"quantity": np.asarray(["odd"])}
    with torch.no_grad():
        (gradient,) = Functional(of).gradients(case.objective)
    assert gradient.any()
    for wrong in (lambda field: field("u", POINTS), lambda field: 1.0):
        with pytest.raises(
            ValueError, match="'functional' must return a scalar tensor"
        ):
            Functional(wrong).values(case.objective)


def test_many_points_come_in_blocks_and_sum_to_the_same(case):
    points = oracles.uniform(2300, (-1, 0), (1, 1))
    quantity = Derivative(points, "u_xx")
    blocks = list(quantity.gradients(case.objective))
    assert [len(b) for b in blocks] == [1000, 1000, 300]
    oracles.close(
        aggregate_gradient(quantity, case.objective), torch.cat(blocks).sum(0), 1e-12
    )


def test_single_precision_stays_single():
    network = oracles.tanh_network(2, 4, 1).float()
    term = Term(
        "data",
        lambda t, z: torch.func.functional_call(network, t, (z,)),
        POINTS.float(),
    )
    objective = Objective(network, [term])
    for quantity in (Output(POINTS.float()), Loss(), Loss(reduce="mean")):
        assert aggregate_gradient(quantity, objective).dtype == torch.float32


def test_points_are_checked(case):
    for bad, error in (
        (torch.zeros(3, 3).double(), ValueError),
        (torch.zeros(0, 2).double(), ValueError),
        (torch.full((2, 2), math.nan), ValueError),
        (torch.zeros(2, 2, dtype=torch.int64), TypeError),
        (np.zeros((2, 2), dtype=str), TypeError),
    ):
        with pytest.raises(error, match="points of a quantity must"):
            list(Output(bad).gradients(case.objective))
    with pytest.raises(ValueError, match="points of term 'pde'"):
        Loss({"pde": torch.zeros(3, 3)}).values(case.objective)
    with pytest.raises(ValueError, match="unknown reduction of a loss 'avg'"):
        Loss(reduce="avg")


def test_points_of_another_dtype_are_taken(case):
    rounded = POINTS.float()
    for make in (Output, lambda p: Derivative(p, "u_x"), lambda p: Loss({"pde": p})):
        found, same = make(rounded), make(rounded.double())
        assert torch.equal(found.values(case.objective), same.values(case.objective))
        for one, other in zip(
            found.gradients(case.objective), same.gradients(case.objective), strict=True
        ):
            assert torch.equal(one, other)
        assert found.targets(case.objective)["x"].dtype == np.float64
