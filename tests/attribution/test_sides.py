"""Influences solved for at the points: one solve for one point, whatever the targets."""

from dataclasses import replace

import numpy as np
import oracles
import pytest
import torch

import whence as wh
from whence.attribution import reductions
from whence.attribution.quantities import Derivative, Functional, Loss, Output, Residual
from whence.curvature.exact import Exact

pytestmark = pytest.mark.filterwarnings(
    "ignore::whence.attribution.quality.FarFromMinimum"
)

DAMPING = 1e-4
EXACT = 1e-10
CHOSEN = {
    "hard": {"pde": [4]},
    "soft": {"periodic": [2], "pde": [5, 1]},
    "flow": {"flow": [3], "wall": [True, False, True]},
}
"""Training points of each case, in some order and by a mask."""
PLACES = {"hard": [4], "soft": [1, 5, 16], "flow": [3, 7, 9]}
"""The same among all points of the case."""


class CountingInfluence(wh.Influence):
    """Counts the right-hand sides that are solved for."""

    solved = 0

    def solve(self, vectors):
        self.solved += vectors.shape[1]
        return super().solve(vectors)


def counting(case, **options):
    return CountingInfluence(case.objective, damping=DAMPING, **options)


@pytest.fixture(name="soft", scope="module")
def _soft():
    return oracles.burgers_soft()


# --- against brute force -----------------------------------------------------------------------


@pytest.mark.parametrize("form", ["primal", "dual"])
@pytest.mark.parametrize("name", oracles.CASES)
def test_training_points_cost_one_solve_each(name, form):
    case = oracles.CASES[name]()
    targets = oracles.target_points(case, 40)
    influence = counting(case, solver=Exact(form=form))
    quantity = Output(targets, case.objective.outputs[0])
    found = influence.attribute(quantity, wh.TrainingPoints(CHOSEN[name]))
    assert (
        influence.solved <= len(PLACES[name]) + 1
    )  # and the step that judges a minimum

    gradients = oracles.value_gradients(case, targets)
    expected = oracles.influence(case, gradients, DAMPING)[:, PLACES[name]]
    oracles.close(found, expected, EXACT)
    assert found.attrs["solver_residual"] < 1e-9


@pytest.mark.parametrize("n_targets", [2, 30])
def test_points_that_are_not_in_training(soft, n_targets):
    points = {"pde": oracles.uniform(5, (-1, 0), (1, 1), seed=12)}
    targets = oracles.target_points(soft, n_targets)
    influence = counting(soft)
    found = influence.attribute(Output(targets), points)
    assert influence.solved <= min(n_targets, 5) + 1
    gradients = oracles.value_gradients(soft, targets)
    expected = oracles.influence(soft, gradients, DAMPING, points=points)
    oracles.close(found, expected, EXACT)


@pytest.mark.parametrize("form", ["primal", "dual"])
@pytest.mark.parametrize("name", oracles.CASES)
def test_self_influence_is_the_diagonal(name, form):
    case = oracles.CASES[name]()
    influence = counting(case, solver=Exact(form=form))
    found = influence.self_influence()
    gradients, _ = oracles.loss_gradients(case)
    expected = np.diag(oracles.influence(case, gradients, DAMPING))
    oracles.close(found, expected, EXACT)
    if form == "dual":
        assert influence.solved <= 1, "one solve by rows serves all points"


@pytest.mark.parametrize("curvature", ["gauss_newton", "hessian"])
def test_self_influence_within_memory_or_of_a_hessian(curvature, monkeypatch):
    case = oracles.burgers_soft(n=7, widths=(2, 4, 1))
    influence = counting(case, curvature=curvature)
    influence.state()
    influence.memory_budget = 8 * case.objective.parameters.size
    monkeypatch.setattr("whence.attribution.tiled.COPIES", 1)
    found = influence.self_influence(wh.TrainingPoints({"pde": [2, 3], "initial": [0]}))
    gradients, _ = oracles.loss_gradients(case)
    expected = np.diag(oracles.influence(case, gradients, DAMPING, curvature))
    oracles.close(found, expected[[2, 3, 7]], EXACT)
    oracles.close(influence.self_influence(), expected, EXACT)


# --- every way to ask --------------------------------------------------------------------------


def quantities(case):
    points = oracles.target_points(case, 30)
    return {
        "output": Output(points),
        "function": Output(points, lambda u, x: u * x),
        "derivative": Derivative(points, "u_xx"),
        "components": Residual(points, "periodic"),
        "losses": Loss({"periodic": points, "initial": points[:2]}),
        "total": Loss({"pde": points}, reduce="sum"),
        "functional": Functional(lambda field: field("u", points).mean()),
    }


NAMES = [
    "output",
    "function",
    "derivative",
    "components",
    "losses",
    "total",
    "functional",
]


@pytest.mark.parametrize("name", NAMES)
def test_every_quantity_at_a_point(soft, name):
    quantity = quantities(soft)[name]
    influence = counting(soft)
    whole = influence.attribute(quantity)
    chosen = wh.TrainingPoints({"pde": [5], "initial": [1]})
    found = influence.attribute(quantity, chosen)
    oracles.close(found, whole.values[:, [5, 10]], EXACT)
    add = influence.attribute(quantity, chosen, effect="add")
    assert np.array_equal(add, -found)
    total = influence.attribute_sum(quantity, chosen)
    oracles.close(total, found.sum("target"), EXACT)


@pytest.mark.parametrize("columns", [1, 3, 20])
@pytest.mark.parametrize("name", NAMES)
def test_products_are_those_of_the_gradients(soft, name, columns):
    quantity = quantities(soft)[name]
    objective = soft.objective
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(
        objective.parameters.size, columns, generator=generator, dtype=torch.float64
    )
    gradients = torch.cat(list(quantity.gradients(objective)))
    if hasattr(quantity, "products"):
        products = torch.cat(list(quantity.products(objective, vectors)))
        oracles.close(products, gradients @ vectors, 1e-12)
    else:
        assert name == "functional"


def test_labels_and_weights_are_those_of_training(soft):
    weights = torch.linspace(0, 2, 9, dtype=torch.float64)
    term = replace(soft.objective.term("pde"), point_weights=weights)
    others = list(soft.objective.terms.values())[1:]
    objective = soft.objective.with_terms([term, *others])
    influence = wh.Influence(objective, damping=DAMPING)
    quantity = Output(oracles.target_points(soft, 30))
    whole = influence.attribute(quantity)
    found = influence.attribute(
        quantity, wh.TrainingPoints({"initial": [3], "pde": [7, 0]})
    )
    assert found["term"].values.tolist() == ["pde", "pde", "initial"]
    assert found["index"].values.tolist() == [0, 7, 3]
    assert np.array_equal(found["x"], whole["x"][[0, 7, 12]])
    oracles.close(found, whole.values[:, [0, 7, 12]], EXACT)
    assert not found.values[:, 0].any(), "a point of weight zero has no influence"

    own = influence.self_influence()
    chosen = influence.self_influence(wh.TrainingPoints({"pde": [0, 7]}))
    oracles.close(chosen, own[[0, 7]], EXACT)


def test_blocks_files_and_reductions(soft, tmp_path):
    influence = counting(soft)
    quantity = Output(oracles.target_points(soft, 30))
    chosen = wh.TrainingPoints({"pde": [5, 6], "initial": [1]})
    found = influence.attribute(quantity, chosen)
    blocks = list(influence.attribute_blocks(quantity, chosen, block=7))
    assert [len(block) for block in blocks] == [7, 7, 7, 7, 2]
    assert np.array_equal(torch.cat(blocks), found)
    stored = influence.attribute(quantity, chosen, out=tmp_path / "a.zarr")
    assert np.array_equal(stored, found)
    top = reductions.top(influence, quantity, 1, chosen)
    assert np.array_equal(top.highest[:, 0], found.max("point"))
    mean = reductions.reduced(influence, quantity, over="point", points=chosen)
    oracles.close(mean, found.mean("point"), EXACT)


def test_every_method_takes_training_points(soft):
    quantity = Output(oracles.target_points(soft, 4))
    objective = soft.objective
    chosen = wh.TrainingPoints({"pde": [5, 6], "periodic": [1]})
    state = objective.network.state_dict()
    methods = [
        wh.GradDot(objective),
        wh.GradCos(objective),
        wh.TracIn(objective, [state]),
        wh.EmpiricalInfluence(objective),
    ]
    for method in methods:
        whole = method.attribute(quantity)
        found = method.attribute(quantity, chosen)
        oracles.close(found, whole.values[:, [5, 6, 15]], EXACT)
    moved = wh.GradDot(objective).attribute(quantity, chosen, effect="perturb")
    everywhere = wh.GradDot(objective).attribute(quantity, effect="perturb")
    oracles.close(moved, everywhere.values[:, [5, 6, 15]], EXACT)


def test_solutions_that_do_not_fit_are_solved_by_target(soft):
    influence = counting(soft)
    quantity = Output(oracles.target_points(soft, 12))
    chosen = wh.TrainingPoints({"pde": [5, 6, 7]})
    found = influence.attribute(quantity, chosen)
    influence.memory_budget = 2 * 8 * soft.objective.parameters.size
    influence.solved = 0
    oracles.close(influence.attribute(quantity, chosen), found, EXACT)
    assert influence.solved == 12


@pytest.mark.parametrize(
    ("members", "error", "message"),
    [
        ({"pdf": [0]}, ValueError, "did you mean 'pde'"),
        (
            {"pde": [9]},
            ValueError,
            "the choice of training points, term 'pde'.* 0 … 8, got 9",
        ),
        ({"pde": [1, 1]}, ValueError, "each point once, got index 1 2 times"),
        ({"pde": [0.5]}, TypeError, "must be integers or booleans"),
        ({"pde": []}, ValueError, "the choice of training points has no points"),
        ([0], ValueError, "give indices by term"),
    ],
)
def test_points_that_are_none_of_training(soft, members, error, message):
    influence = counting(soft)
    quantity = Output(oracles.target_points(soft))
    with pytest.raises(error, match=message):
        influence.attribute(quantity, wh.TrainingPoints(members))
    assert influence.solved == 0
