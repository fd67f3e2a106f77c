"""A DeepXDE model as an objective: its own residuals, exact influences, errors that say why."""

import numpy as np
import pytest
import torch
from dense import assert_same, dense_influence

dde = pytest.importorskip("deepxde")

import deepxde_models as models  # noqa: E402

import whence as wh  # noqa: E402
from whence import pinn  # noqa: E402
from whence.adapters import deepxde as adapter  # noqa: E402
from whence.adapters.deepxde import from_model  # noqa: E402
from whence.linearization import LayerLinearization, linearize  # noqa: E402


@pytest.fixture(autouse=True, scope="module")
def double():
    """DeepXDE has one number type at a time, and sets torch's default by it."""
    before = torch.get_default_dtype()
    dde.config.set_default_float("float64")
    yield
    dde.config.set_default_float("float32")
    torch.set_default_dtype(before)


@pytest.fixture(autouse=True)
def seeded():
    """DeepXDE draws from NumPy's global random numbers."""
    np.random.seed(0)


@pytest.fixture(params=models.MODELS)
def model(request):
    return models.MODELS[request.param]()


def test_residuals_are_deepxdes(model):
    objective = from_model(model)
    tensors = objective.parameters.tensors()
    theirs = models.own_residuals(model)
    for term, residual in zip(objective.terms.values(), theirs, strict=True):
        ours = term.residual(tensors, term.points).detach()
        assert ours.shape == residual.shape
        assert_same(ours, residual.detach(), 1e-12)


def test_the_loss_is_deepxdes(model):
    objective = from_model(model)
    data = model.data
    losses = model.outputs_losses_test(
        torch.as_tensor(data.train_x), data.train_y, data.train_aux_vars
    )[1]
    assert float(objective.loss()) == pytest.approx(float(losses.sum()), rel=1e-10)


def test_influence_is_that_of_the_dense_formula(model):
    objective = from_model(model)
    residuals = dict(zip(objective.terms, models.own_residuals(model), strict=True))
    places = torch.as_tensor(model.data.geom.random_points(2))
    outputs = model.net(places.clone().requires_grad_())[:, 0]
    parameters = [*model.net.parameters(), *model.external_trainable_variables]
    weights = {name: term.weight for name, term in objective.terms.items()}
    expected = dense_influence(parameters, residuals, weights, outputs, 1e-4)

    influence = wh.Influence(objective, solver=wh.Exact(), damping=1e-4)
    effects = influence.attribute(wh.Output(places, objective.outputs[0]))
    assert_same(effects.values, expected, 1e-8)


def test_terms_have_names_of_the_field():
    assert list(from_model(models.time_dependent()).terms) == [
        "pde",
        "dirichlet",
        "initial",
    ]
    assert list(from_model(models.flow()).terms) == [
        "pde_1", "pde_2", "dirichlet_u0", "dirichlet_u1",
    ]  # fmt: skip
    assert list(from_model(models.slopes()).terms) == [
        "pde", "neumann", "robin", "periodic_1", "periodic_2", "operator",
    ]  # fmt: skip
    objective = from_model(models.inverse())
    assert list(objective.terms) == ["pde", "measured", "measured_operator"]
    # Unknown numbers by the names that the equation has for them.
    assert {"variables.rate.theta", "variables.source.theta"} < set(
        objective.parameters.names
    )


def test_names_can_be_given():
    model = models.flow()
    names = ["momentum", "mass", "wall_u", "wall_v"]
    objective = from_model(
        model, coordinates=("x", "y"), outputs=("u", "v", "p"), names=names
    )
    assert list(objective.terms) == names
    slope = wh.Influence(objective, damping=1e-3).attribute(
        wh.Derivative([[0.5, 0.5]], "v_y")
    )
    assert slope.shape == (1, objective.n_points)
    with pytest.raises(ValueError, match="outputs must be 3 different"):
        from_model(model, outputs=("u", "v"))


def test_an_equation_of_derivatives_goes_through_layers():
    """Only what differentiates an expression is taken point by point."""
    for name, make in models.MODELS.items():
        objective = from_model(make())
        for term in objective.terms.values():
            linear = linearize(term.residual, objective.parameters, term.points)
            is_expression = (name, term.name) == ("expression", "pde")
            by_layers = isinstance(linear, LayerLinearization)
            assert by_layers is not is_expression, (name, term.name)


def test_parameters_are_shared_with_the_model():
    model = models.inverse()
    objective = from_model(model)
    with torch.no_grad():
        model.external_trainable_variables[0].fill_(3.0)
    assert float(objective.parameters.tensors()["variables.rate.theta"]) == 3.0
    objective.parameters.assign(torch.zeros(objective.parameters.size))
    assert float(model.external_trainable_variables[0]) == 0.0
    assert float(next(model.net.parameters()).abs().max()) == 0.0


def test_fresh_points_lie_where_terms_hold():
    model = models.slopes()
    objective = from_model(model)
    for name in ("pde", "neumann", "robin", "periodic_1", "operator"):
        points = objective.draw(name, 6, seed=3)
        assert len(points) == 6
        objective.with_points({name: points})
        assert points.equal(objective.draw(name, 6, seed=3))
    assert torch.allclose(objective.draw("neumann", 4, 0)[:, 1], torch.ones(4))
    with pytest.raises(ValueError, match="'pde' lie outside"):
        objective.with_points({"pde": [[3.0, 0.0]]})
    with pytest.raises(ValueError, match="lie outside"):
        objective.with_points({"neumann": [[0.0, 0.0]]})


def test_drawing_leaves_numpys_random_numbers_alone():
    objective = from_model(models.time_dependent())
    np.random.seed(7)
    before = np.random.rand()
    np.random.seed(7)
    objective.draw("pde", 3, seed=1)
    assert np.random.rand() == before


# --- training ------------------------------------------------------------------------------------


def train(model, iterations, *callbacks):
    model.train(
        iterations=iterations,
        display_every=iterations,
        callbacks=list(callbacks),
        verbose=0,
    )


def test_the_influence_resampler_replaces_points_of_the_equation():
    model = models.time_dependent()
    before = model.data.train_x.copy()
    resampler = adapter.InfluenceResampler(period=2, n=4, candidates=50)
    train(model, 5, resampler)
    n_conditions = sum(model.data.num_bcs)
    now = model.data.train_x
    assert resampler.round == 2
    assert now.shape == before.shape
    assert np.array_equal(now[:n_conditions], before[:n_conditions])
    rows = {tuple(row) for row in before[n_conditions:]}
    kept = sum(tuple(row) in rows for row in now[n_conditions:])
    assert kept == len(before) - n_conditions - 8


def test_rar_adds_the_points_of_largest_residual():
    model = models.time_dependent()
    n = len(model.data.train_x)
    resampler = adapter.RARResampler(period=3, n=5, candidates=40)
    train(model, 3, resampler)
    assert len(model.data.train_x) == n + 5

    # The model's parameters are those of the round, after which no step was taken.
    objective = from_model(model)
    candidates = objective.draw("pde", 40, seed=11)
    residual = objective.terms["pde"].residual(
        objective.parameters.tensors(), candidates
    )
    added = model.data.train_x_all[-5:]
    own = objective.terms["pde"].residual(
        objective.parameters.tensors(), torch.as_tensor(added)
    )
    assert float(own.abs().mean()) > float(residual.abs().mean())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"terms": ("dirichlet",)}, "term to resample 'dirichlet'"),
        (
            {"importance": True, "selection": pinn.Proportional(k=1, c=1)},
            "importance=True",
        ),
        ({"stages": 2}, "stages and at_start"),
    ],
)
def test_what_deepxdes_loop_has_no_place_for(options, message):
    resample = pinn.Resample(
        pinn.ResidualScore(), n=2, every=1, candidates=20, **options
    )
    with pytest.raises(ValueError, match=message):
        train(models.time_dependent(), 1, adapter.Resampler(resample))


def test_points_stay_after_the_last_round():
    model = models.time_dependent()
    n = len(model.data.train_x)
    resample = pinn.Resample(
        pinn.ResidualScore(), n=2, every=1, candidates=20, rounds=2
    )
    train(model, 4, adapter.Resampler(resample))
    assert len(model.data.train_x) == n + 4


def test_weights_by_the_kernel_multiply_the_compiled_ones():
    plain = models.time_dependent()
    weighted = models.time_dependent(loss_weights=[1, 10, 100])
    for model in (plain, weighted):
        model.data.train_x[:] = plain.data.train_x
        train(
            model, 1, adapter.TermWeighting(pinn.NeuralTangentKernel(update_every=1000))
        )
    # The trace of an unweighted kernel is the same: the weighting's factors are too.
    for factor, a, b in zip(
        [1, 10, 100], plain.loss_weights, weighted.loss_weights, strict=True
    ):
        assert b == pytest.approx(factor * a)
    assert max(plain.loss_weights) > 1.0

    fresh = models.time_dependent()
    fresh.data.train_x[:] = plain.data.train_x
    expected = pinn.NeuralTangentKernel().renew(from_model(fresh))
    for name, weight in zip(expected, plain.loss_weights, strict=True):
        assert weight == pytest.approx(expected[name])


def test_gauss_newton_trains_in_deepxdes_loop():
    model = models.inverse()
    adapter.use_optimizer(model, pinn.GaussNewton(60))
    train(model, 60)
    history, state = model.losshistory, model.train_state
    assert sum(losses_of(model)) < 1e-8
    assert history.steps[-1] == state.step > 0
    numbers = [float(v.detach()) for v in model.external_trainable_variables]
    assert numbers == pytest.approx([2.0, 0.5], abs=1e-2)


def test_an_optimizer_sees_new_points_and_weights():
    model = models.time_dependent()
    start = sum(losses_of(model))
    adapter.use_optimizer(model, pinn.GaussNewton(6))
    train(model, 6, adapter.RARResampler(period=2, n=3, candidates=30))
    assert sum(losses_of(model)) < 0.3 * start
    assert len(from_model(model).terms["pde"].points) == 12 + 6 + 5 + 9


def losses_of(model):
    data = model.data
    return model.outputs_losses_test(
        torch.as_tensor(data.train_x), data.train_y, data.train_aux_vars
    )[1].tolist()


# --- what cannot be converted --------------------------------------------------------------------


def test_a_model_that_is_not_compiled():
    model = models.time_dependent()
    with pytest.raises(ValueError, match="not compiled"):
        from_model(dde.Model(model.data, model.net))


def test_what_is_no_model():
    with pytest.raises(TypeError, match=r"expected a deepxde\.Model"):
        from_model(torch.nn.Linear(1, 1))


def test_another_backend(monkeypatch):
    monkeypatch.setattr(dde.backend, "backend_name", "paddle")
    with pytest.raises(TypeError, match="backend 'paddle'"):
        from_model(models.time_dependent())


def test_another_loss():
    model = models.time_dependent(loss="mean absolute error")
    with pytest.raises(ValueError, match="compile the model with loss='MSE'"):
        from_model(model)


def test_an_unsupported_condition_is_named():
    place = dde.geometry.Rectangle([0, 0], [1, 1])

    class Own(dde.icbc.DirichletBC):
        pass

    edge = Own(place, lambda x: 0 * x[:, :1], lambda _, on: on)
    data = dde.data.PDE(place, lambda x, y: y, [edge], num_domain=4, num_boundary=4)
    with pytest.raises(TypeError, match="class Own have no formula"):
        from_model(models.compiled(data, models.network(2)))


def test_data_that_couple_points_are_named():
    model = models.time_dependent()
    function = dde.data.Function(
        dde.geometry.Interval(0, 1), lambda x: x, num_train=3, num_test=3
    )
    other = dde.Model(function, models.network(1))
    other.compile("adam", lr=1e-3, verbose=0)
    with pytest.raises(TypeError, match="class Function cannot be converted"):
        from_model(other)
    model.net.regularizer = ["l1", 0.1]
    with pytest.raises(ValueError, match="regularizer 'l1'"):
        from_model(model)


def test_a_condition_without_points():
    place = strip = dde.geometry.Interval(0, 1)
    edge = dde.icbc.DirichletBC(place, lambda x: x, lambda _, on: on)
    data = dde.data.PDE(strip, lambda x, y: y, [edge], num_domain=4, num_boundary=0)
    with pytest.raises(ValueError, match="has no training points"):
        from_model(models.compiled(data, models.network(1)))


def test_the_l2_regularizer_is_a_penalty():
    model = models.time_dependent()
    model.net.regularizer = ["l2", 0.25]
    assert from_model(model).weight_decay == 0.25


def test_an_equation_that_couples_its_points():
    place = dde.geometry.Interval(0, 1)
    data = dde.data.PDE(place, lambda x, y: y - torch.mean(y), [], num_domain=6)
    with pytest.raises(ValueError, match="term 'pde'"):
        from_model(models.compiled(data, models.network(1)))
