"""Losses of whole terms and of groups: their values, gradients, and what points do to them."""

import dataclasses

import numpy as np
import oracles
import pytest
import torch
from torch.func import jacrev

import whence as wh
from whence import pinn

pytestmark = pytest.mark.filterwarnings(
    "ignore::whence.attribution.quality.FarFromMinimum"
)

GROUPS = {"equations": ("pde",), "conditions": ("initial", "periodic")}
NAMES = ("periodic", "equations", "conditions", "total")


@pytest.fixture(name="case", scope="module")
def _case():
    """Three terms, whose weights all differ, those of the points of one too."""
    case = oracles.burgers_soft(n=9, widths=(2, 8, 1))
    objective = case.objective
    weights = torch.linspace(0.5, 3.0, 5).double()
    terms = dict(objective.terms)
    terms["initial"] = dataclasses.replace(terms["initial"], point_weights=weights)
    grouped = wh.Space(("x", "t"), ("u",), objective.space.evaluate, GROUPS)
    case.objective = wh.Objective(objective.network, terms.values(), space=grouped)
    return case


def losses_by_hand(case, theta):
    """w_k/N_k Σ_i m_i ‖r_k(z_i)‖² of each term, point by point."""
    tensors = case.tensors(theta)
    losses = {}
    for name, term in case.objective.terms.items():
        weights = torch.ones(len(term.points)).double()
        if term.point_weights is not None:
            weights = term.point_weights
        total = 0.0
        for z, weight in zip(term.points, weights, strict=True):
            total = total + weight * case.residuals[name](tensors, z).square().sum()
        losses[name] = term.weight / len(term.points) * total
    return losses


def targets_by_hand(case, theta):
    losses = losses_by_hand(case, theta)
    conditions = losses["initial"] + losses["periodic"]
    total = losses["pde"] + conditions
    return torch.stack([losses["periodic"], losses["pde"], conditions, total])


def test_values_and_gradients_against_the_loss_written_out(case):
    quantity = wh.TermLoss(*NAMES)
    oracles.close(
        quantity.values(case.objective), targets_by_hand(case, case.theta), 1e-12
    )
    gradients = jacrev(lambda theta: targets_by_hand(case, theta))(case.theta)
    (rows,) = quantity.gradients(case.objective)
    oracles.close(rows, gradients, 1e-11)
    labels = ["loss periodic", "loss equations", "loss conditions", "total loss"]
    assert quantity.targets(case.objective)["quantity"].tolist() == labels
    assert quantity.label() == ", ".join(labels)


def test_influence_on_terms_against_dense_algebra(case):
    found = wh.Influence(case.objective, damping=1e-4).attribute(wh.TermLoss(*NAMES))
    gradients = jacrev(lambda theta: targets_by_hand(case, theta))(case.theta).numpy()

    rows, scales = oracles.loss_gradients(case)
    weights = np.ones(len(scales))
    weights[9:14] = case.objective.terms["initial"].point_weights.numpy()
    matrix = 0.0
    for name, term in case.objective.terms.items():
        jacobians, _ = oracles.point_jacobians(case, case.residuals[name], term.points)
        of_points = term.point_weights
        for k, row in enumerate(jacobians):
            weight = 1.0 if of_points is None else float(of_points[k])
            matrix = matrix + 2 * weight * term.scale * row.T @ row
    largest = np.linalg.eigvalsh(matrix).max()
    matrix = matrix + 1e-4 * largest * np.eye(len(matrix))
    right = ((scales * weights)[:, None] * rows).T
    expected = gradients @ oracles.inverse_times(matrix, right)
    oracles.close(found, expected, 1e-9)
    # Each target is linear in the terms: the sum of all is the whole loss.
    oracles.close(found[1] + found[2], found[3], 1e-9)


def test_every_term_by_default_and_the_penalty_in_the_total(case):
    every = wh.TermLoss()
    losses = losses_by_hand(case, case.theta)
    oracles.close(every.values(case.objective), list(losses.values()), 1e-12)
    assert every.label() == "loss of each term"
    of_objective = wh.TermLoss.of_objective(case.objective, None)
    assert of_objective.names == ("pde", "initial", "periodic")

    decayed = case.objective.with_weight_decay(0.1)
    total = wh.TermLoss("total")
    loss, gradient = decayed.loss_and_gradient()
    assert float(total.values(decayed)) == pytest.approx(loss, rel=1e-14)
    (row,) = total.gradients(decayed)
    oracles.close(row[0], gradient, 1e-12)


def test_a_problem_knows_its_equations_and_conditions():
    problem = pinn.zoo.load("navier_stokes")
    points = problem.sample(dict.fromkeys(problem.terms, 6), seed=0)
    del points["outflow_v"]
    network = pinn.MLP([2, 6, 3], seed=0)
    objective = problem.objective(network, points)
    members = wh.TermLoss("equations", "conditions").members(objective)
    assert members["equations"] == ("continuity", "momentum_x", "momentum_y")
    # Terms without points are no part of the loss.
    assert "outflow_v" not in members["conditions"]
    assert len(members["conditions"]) == 5


def test_a_term_of_the_name_of_a_group_comes_first(case):
    terms = list(case.objective.terms.values())
    terms[1] = dataclasses.replace(terms[1], name="total")
    named = wh.Objective(case.objective.network, terms, space=case.objective.space)
    expected = losses_by_hand(case, case.theta)["initial"]
    oracles.close(wh.TermLoss("total").values(named)[0], expected, 1e-12)


def test_bad_names(case):
    influence = wh.Influence(case.objective)
    with pytest.raises(ValueError, match="did you mean 'periodic'"):
        influence.attribute(wh.TermLoss("periodc"))
    with pytest.raises(TypeError, match="names of terms or groups"):
        wh.TermLoss(["pde"])
    with pytest.raises(ValueError, match="leave the point out"):
        wh.TermLoss.of_objective(case.objective, [[0.0, 0.0]])
    hard = pinn.zoo.load("burgers")
    objective = hard.objective(hard.network(seed=0), hard.sample(5, seed=0))
    with pytest.raises(ValueError, match="no conditions: its terms are pde"):
        wh.TermLoss("conditions").targets(objective)
