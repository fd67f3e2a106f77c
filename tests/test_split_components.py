"""Terms of several components, split into terms of one: nothing else changes."""

import numpy as np
import oracles
import pytest
import torch

import whence as wh
from whence import pinn
from whence.components import split_components

pytestmark = pytest.mark.filterwarnings(
    "ignore::whence.attribution.quality.FarFromMinimum"
)


@pytest.fixture(name="flow", scope="module")
def _flow():
    return oracles.navier_stokes()


def test_loss_gradient_and_curvature_stay(flow):
    split = split_components(flow.objective)
    assert list(split.terms) == ["flow_1", "flow_2", "flow_3", "wall_1", "wall_2"]
    loss, gradient = flow.objective.loss_and_gradient()
    split_loss, split_gradient = split.loss_and_gradient()
    assert split_loss == pytest.approx(loss, rel=1e-13)
    oracles.close(split_gradient, gradient, 1e-12)
    matrix = wh.GaussNewtonMatrix(split).matmat(
        torch.eye(split.parameters.size, dtype=torch.float64)
    )
    oracles.close(matrix, oracles.gauss_newton(flow), 1e-12)


def test_influences_of_components_add_up_to_those_of_the_term(flow):
    points = oracles.target_points(flow, 3)
    quantity = wh.Output(points, "u")
    whole = wh.Influence(flow.objective, damping=1e-4).attribute(quantity)
    influence = wh.Influence(split_components(flow.objective), damping=1e-4)
    parts = influence.attribute(quantity)
    total = sum(parts.sel(term=f"flow_{k}").values for k in (1, 2, 3))
    oracles.close(total, whole.sel(term="flow").values, 1e-9)
    oracles.close(parts.by_place(), whole.by_place(), 1e-9)


def test_the_loss_of_a_component_by_hand(flow):
    split = split_components(flow.objective)
    term = flow.objective.terms["flow"]
    tensors = flow.tensors(flow.theta)
    rows = torch.stack([flow.residuals["flow"](tensors, z) for z in term.points])
    expected = 2.0 * rows[:, 1].square().mean()
    oracles.close(wh.TermLoss("flow_2").values(split), [expected], 1e-12)
    # The term's own name is that of all its components.
    whole = wh.TermLoss("flow").values(split)
    oracles.close(whole, wh.TermLoss("flow").values(flow.objective), 1e-12)


def system():
    problem = pinn.Problem(
        domain=pinn.Interval("x", 0, 1),
        outputs=("u", "v"),
        equations={"ode": lambda u, v, u_x, v_x: (u_x - v, v_x + u)},
        conditions=[
            pinn.Condition("start", on="x_min", residual=lambda u, v: (u, v - 1))
        ],
    )
    network = pinn.MLP([1, 6, 2], seed=0)
    return problem.objective(network, problem.sample({"ode": 8, "start": 1}))


def test_groups_follow_and_points_are_checked_where_the_term_holds():
    split = split_components(system())
    assert split.space.groups["equations"] == ("ode_1", "ode_2")
    assert split.space.groups["conditions"] == ("start_1", "start_2")
    assert split.space.groups["ode"] == ("ode_1", "ode_2")
    influence = wh.Influence(split)
    some = influence.attribute(wh.TermLoss("total"), {"ode_2": [[0.5]]})
    assert some.sizes == {"target": 1, "point": 1}
    with pytest.raises(ValueError, match="outside"):
        influence.attribute(wh.TermLoss("total"), {"ode_2": [[1.5]]})
    drawn = split.draw("ode_1", 5, seed=0)
    assert np.array_equal(drawn, system().draw("ode", 5, seed=0))


def test_terms_of_one_component_stay_as_they_are():
    problem = pinn.zoo.load("burgers")
    objective = problem.objective(problem.network(seed=0), problem.sample(5, seed=0))
    assert split_components(objective) is objective
