"""Equations split into named components: terms of their own, at the same points, in one pass."""

import oracles
import pytest
import torch

import whence as wh
from whence import pinn
from whence.jacobian import Jacobian
from whence.pinn.helpers import advect, div, field_equation, grad, vector
from whence.pinn.pde.slab import slab_problem
from whence.shared_pass import passes_of

SQUARE = pinn.Rectangle(("x", "y"), (0.0, 0.0), (1.0, 1.0))
NAMES = ("continuity", "momentum_x", "momentum_y")
COUNTS = {**dict.fromkeys(NAMES, 14), "inflow": 6}


def flow(u, v, u_x, u_y, v_x, v_y, p_x, p_y):
    """Return mass and momentum."""
    return u_x + v_y, u * u_x + v * u_y + p_x, u * v_x + v * v_y + p_y


@field_equation
def flow_of_fields(u, v, p):
    velocity = vector(u, v)
    momentum = advect(velocity, velocity) + grad(p)
    return (div(velocity), *momentum)


def problem(equations):
    inflow = pinn.Dirichlet(u=1.0, on="x_min", name="inflow")
    return pinn.Problem(SQUARE, ("u", "v", "p"), equations, conditions=[inflow])


def objective(equations, weights=None):
    made = problem(equations)
    counts = {name: COUNTS.get(name, 14) for name in made.terms}
    points = made.sample(counts, seed=0)
    # Its points follow its place among the terms.
    points["inflow"] = made.draw("inflow", 6)
    return made.objective(pinn.MLP([2, 6, 3], seed=1), points, weights)


def shared(made):
    return [[term.name for term in one.terms] for one in passes_of(made.terms.values())]


@pytest.mark.parametrize("equation", [flow, flow_of_fields])
def test_components_are_the_columns_of_the_whole_at_the_same_points(equation):
    split = objective({NAMES: equation})
    whole = objective({"flow": equation})
    assert shared(split) == [list(NAMES), ["inflow"]]
    losses = split.losses()
    assert tuple(losses) == (*NAMES, "inflow")
    assert float(split.loss()) == pytest.approx(float(whole.loss()), rel=1e-13)
    oracles.close(split.loss_and_gradient()[1], whole.loss_and_gradient()[1], 1e-12)
    # Rows of the whole go point by point, those of components term by term.
    rows = Jacobian(whole).dense()[: 3 * 14].view(14, 3, -1)
    expected = rows.transpose(0, 1).reshape(3 * 14, -1)
    oracles.close(Jacobian(split).dense()[: 3 * 14], expected, 1e-12)


def test_separate_functions_under_names_share_a_pass_too():
    separate = {
        "continuity": lambda u_x, v_y: u_x + v_y,
        "momentum_x": lambda u, v, u_x, u_y, p_x: u * u_x + v * u_y + p_x,
        "momentum_y": lambda u, v, v_x, v_y, p_y: u * v_x + v * v_y + p_y,
    }
    made = objective(separate)
    assert shared(made) == [list(NAMES), ["inflow"]]
    oracles.close(
        Jacobian(made).dense(), Jacobian(objective({NAMES: flow})).dense(), 1e-12
    )


def test_one_pass_through_the_network_serves_all_components():
    made = objective({NAMES: flow})
    calls = []
    hook = made.network.register_forward_hook(lambda *_: calls.append(1))
    made.loss()
    hook.remove()
    assert len(calls) == 2  # the components', the condition's


def test_components_of_a_part_of_the_domain_share_their_points():
    left = pinn.Equation(flow, where=lambda x: x < 0.5)
    made = objective({NAMES: left, "everywhere": lambda u_x: u_x})
    assert shared(made) == [list(NAMES), ["everywhere"], ["inflow"]]
    assert float(made.locations("momentum_y")[:, 0].max()) < 0.5


def test_a_part_in_time_keeps_the_components():
    strip = pinn.Interval("x", 0, 1) * pinn.Interval("t", 0, 1)
    pair = ("first", "second")
    equations = {pair: lambda u_t, u_x, v_t: (u_t + u_x, v_t)}
    start = pinn.Initial(u=0.0)
    made = pinn.Problem(strip, ("u", "v"), equations, conditions=[start])
    assert slab_problem(made, 0.0, 0.5, None).terms == made.terms


def test_a_run_has_a_loss_a_weight_and_points_for_each(tmp_path):
    made = problem({NAMES: flow})
    options = {
        "points": COUNTS,
        "schedule": pinn.GaussNewton(6),
        "weights": {"momentum_x": 3.0},
        "resample": pinn.Resample(pinn.ResidualScore(), n=2, every=3, candidates=30),
        "weighting": pinn.NeuralTangentKernel(update_every=3),
        "validation": 20,
        "progress": False,
        "out": tmp_path / "run",
    }
    result = pinn.train(made, pinn.MLP([2, 6, 3], seed=0), **options)
    for name in NAMES:
        assert f"loss_{name}" in result.history.columns
        assert f"weight_{name}" in result.history.columns
        assert len(result.objective.locations(name)) == 16
    assert shared(result.objective) == [list(NAMES), ["inflow"]]

    loaded = pinn.load_run(tmp_path / "run", problem=made)
    assert shared(loaded.objective) == [list(NAMES), ["inflow"]]
    assert torch.equal(loaded.objective.loss(), result.objective.loss())

    influence = wh.Influence(loaded.objective, damping=1e-2)
    scores = influence.attribute(wh.Loss({"momentum_y": [[0.5, 0.5]]}))
    assert scores.by_term()["term"].values.tolist() == [*NAMES, "inflow"]


# --- what cannot be split -----------------------------------------------------------------------


@pytest.mark.parametrize("names", [NAMES[:2], (*NAMES, "energy")])
def test_a_number_of_components_that_is_not_that_of_names_is_an_error(names):
    with pytest.raises(
        ValueError, match=rf"the {len(names)} equations .* 3 component"
    ) as caught:
        objective({names: flow})
    assert "fails" not in str(caught.value)
    assert all(name in str(caught.value) for name in names)


@pytest.mark.parametrize(
    ("equations", "kind", "words"),
    [
        ({(): flow}, ValueError, "empty tuple"),
        ({("a", "b", "a"): flow}, ValueError, "2 terms are called 'a'"),
        ({"a": flow, ("a", "b", "c"): flow}, ValueError, "2 terms are called 'a'"),
        ({("a", "inflow", "c"): flow}, ValueError, "2 terms are called 'inflow'"),
        ({("a", 3, "c"): flow}, TypeError, "must be text, got 3"),
    ],
)
def test_names_that_cannot_be_are_errors_at_construction(equations, kind, words):
    with pytest.raises(kind, match=words):
        problem(equations)


def test_a_component_of_a_wrong_shape_is_named():
    with pytest.raises(
        ValueError, match=r"equation 'second' must return a tensor of shape"
    ):
        objective({("first", "second"): lambda u_x, u: (u_x, u.sum())})
