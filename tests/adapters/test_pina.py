"""A PINA solver as an objective: its own residuals, exact influences, callbacks that reach it."""

import logging
import warnings

import pytest
import torch
from dense import assert_same, dense_influence

pytest.importorskip("pina")

import pina_solvers as solvers
from pina import Condition, LabelTensor, Trainer
from pina.callback import R3Refinement
from pina.equation import Equation
from pina.operator import grad
from pina.optim import TorchOptimizer
from pina.problem import BaseProblem
from pina.solver import PINN, SupervisedSolver
from pina.weighting import ScalarWeighting

import whence as wh
from whence import pinn
from whence.adapters.pina import (
    PointsReachLoss,
    Refinement,
    TermWeighting,
    UseOptimizer,
    from_solver,
)
from whence.jacobian import Jacobian
from whence.linearization import LayerLinearization, linearize


@pytest.fixture(autouse=True, scope="module")
def double():
    """PINA takes torch's default number type."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


@pytest.fixture(params=solvers.SOLVERS)
def solver(request):
    return solvers.SOLVERS[request.param]()


@pytest.fixture
def fitted(tmp_path):
    """Return what trains a solver, without noise."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)

    def fit(solver, epochs, *callbacks, **options):
        trainer = Trainer(
            solver, max_epochs=epochs, accelerator="cpu", default_root_dir=tmp_path,
            logger=False, enable_checkpointing=False, enable_progress_bar=False,
            enable_model_summary=False, callbacks=list(callbacks), **options,
        )  # fmt: skip
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            trainer.train()
        return trainer

    return fit


def test_residuals_are_pinas(solver):
    objective = from_solver(solver)
    tensors = objective.parameters.tensors()
    theirs = solvers.own_residuals(solver, objective)
    assert list(theirs) == list(objective.terms)
    for name, term in objective.terms.items():
        ours = term.residual(tensors, term.points).detach()
        assert_same(ours, theirs[name].detach(), 1e-12)


def test_influence_is_that_of_the_dense_formula(solver):
    objective = from_solver(solver)
    residuals = solvers.own_residuals(solver, objective)
    places = 0.2 + 0.6 * torch.rand(2, len(objective.coordinates))
    inputs = LabelTensor(places, list(objective.coordinates))
    outputs = solver.forward(inputs).as_subclass(torch.Tensor)[:, 0]
    unknown = getattr(solver.problem, "unknown_parameters", {})
    parameters = [*solver.model.parameters(), *unknown.values()]
    weights = {name: term.weight for name, term in objective.terms.items()}
    expected = dense_influence(parameters, residuals, weights, outputs, 1e-4)

    influence = wh.Influence(objective, solver=wh.Exact(), damping=1e-4)
    effects = influence.attribute(wh.Output(places, objective.outputs[0]))
    assert_same(effects.values, expected, 1e-8)


def test_an_equation_of_derivatives_goes_through_layers():
    """Only what differentiates an expression is taken point by point."""
    for name, make in solvers.SOLVERS.items():
        objective = from_solver(make())
        for term in objective.terms.values():
            linear = linearize(term.residual, objective.parameters, term.points)
            by_layers = isinstance(linear, LayerLinearization)
            assert by_layers is (name != "expression"), (name, term.name)


def test_unknown_parameters_are_shared():
    solver = solvers.inverse()
    objective = from_solver(solver)
    with torch.no_grad():
        solver.problem.unknown_parameters["rate"].fill_(3.0)
    assert float(objective.parameters.tensors()["variables.rate.theta"]) == 3.0
    assert float(next(iter(objective.fields(("rate",))(
        objective.parameters.tensors(), torch.zeros(1, 1)
    )))) == 3.0  # fmt: skip


def test_weights_are_the_solvers():
    solver = solvers.poisson()
    weighted = PINN(
        solver.problem, solver.model, weighting=ScalarWeighting({"low": 5.0, "D": 0.5})
    )
    weights = {name: t.weight for name, t in from_solver(weighted).terms.items()}
    assert weights == {"low": 5.0, "left": 1.0, "D": 0.5}


def test_points_set_aside_are_no_training_points(fitted):
    solver = solvers.poisson(n=20)
    fitted(solver, 1, train_size=0.5, val_size=0.5)
    assert {n: len(t.points) for n, t in from_solver(solver).terms.items()} == {
        "low": 2, "left": 2, "D": 10,
    }  # fmt: skip


def test_fresh_points_lie_in_the_domain():
    objective = from_solver(solvers.hard())
    points = objective.draw("t0", 4, seed=0)
    assert points.shape == (4, 2)
    assert bool((points[:, objective.coordinates.index("t")] == 0).all())
    objective.with_points({"t0": points})
    with pytest.raises(ValueError, match="'t0' lie outside"):
        objective.with_points({"t0": points + 0.5})


# --- training ------------------------------------------------------------------------------------


class Seen(UseOptimizer):
    """Notes the points that each batch's loss is made of."""

    def __init__(self):
        self.points = []

    def on_fit_start(self, trainer, solver):
        pass

    def on_train_batch_start(self, trainer, solver, batch, batch_idx):
        self.points.append(dict(batch)["D"]["input"].detach().clone())


@pytest.mark.parametrize("batch_size", [None, 5])
def test_refined_points_reach_the_loss(fitted, batch_size):
    """Those of the batches are those of the condition, which the refinement has renewed."""
    solver = solvers.poisson(n=10)
    seen = Seen()
    resample = pinn.Resample(pinn.ResidualScore(), n=5, every=2, candidates=40)
    # Rounds follow epochs 2 and 4; epoch 5 is the last.
    reload = 0 if batch_size is None else 1
    fitted(
        solver, 6, Refinement(resample), seen, batch_size=batch_size,
        reload_dataloaders_every_n_epochs=reload,
    )  # fmt: skip
    now = solver.problem.conditions["D"].data.input
    assert len(now) == 20
    last = seen.points[-(1 if batch_size is None else 4) :]
    rows = {tuple(row) for part in last for row in part.reshape(-1, 2).tolist()}
    assert rows == {tuple(row) for row in now.tolist()}
    assert len(from_solver(solver).terms["D"].points) == 20


def test_added_points_need_batches_that_are_counted_again(fitted):
    resample = pinn.Resample(pinn.ResidualScore(), n=5, every=2, candidates=40)
    with pytest.raises(ValueError, match="reload_dataloaders_every_n_epochs=1"):
        fitted(solvers.poisson(n=10), 2, Refinement(resample), batch_size=5)


def test_refinement_leaves_validation_points_alone(fitted):
    solver = solvers.poisson(n=20)
    resample = pinn.Resample(
        pinn.InfluenceScore(), n=4, every=1, candidates=30, update="replace"
    )
    before = {}

    class Before(Seen):
        def on_train_start(self, trainer, solver):
            rows = trainer.datamodule.split_idxs["D"]["val"]
            before["val"] = solver.problem.conditions["D"].data.input[rows].clone()

    trainer = fitted(
        solver, 4, Refinement(resample), Before(), train_size=0.5, val_size=0.5
    )
    rows = trainer.datamodule.split_idxs["D"]["val"]
    after = solver.problem.conditions["D"].data.input[rows]
    assert torch.equal(after.tensor, before["val"].tensor)
    assert len(solver.problem.conditions["D"].data.input) == 20


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"terms": ("data",)}, "term to resample 'data'"),
        ({"at_start": True}, "at_start"),
    ],
)
def test_what_pinas_loop_has_no_place_for(fitted, options, message):
    resample = pinn.Resample(
        pinn.ResidualScore(), n=2, every=1, candidates=20, **options
    )
    with pytest.raises(ValueError, match=message):
        fitted(solvers.inverse(), 2, Refinement(resample))


def test_points_stay_after_the_last_round_of_several_conditions(fitted):
    solver = solvers.poisson(n=10)
    resample = pinn.Resample(
        pinn.ResidualScore(), n=2, every=1, candidates=20, rounds=2, terms=("D", "low")
    )
    refinement = Refinement(resample)
    fitted(solver, 5, refinement)
    assert refinement.round == 2
    sizes = {name: len(c.data.input) for name, c in solver.problem.conditions.items()}
    assert sizes == {"low": 9, "left": 5, "D": 14}


def test_pinas_own_refinement_is_mended(fitted):
    """R3 keeps points of large residual; without the mend the loss never sees the new ones."""

    class R3(PointsReachLoss, R3Refinement):
        pass

    for kind, reaches in ((R3Refinement, False), (R3, True)):
        solver = solvers.poisson(n=10)
        seen = Seen()
        fitted(solver, 4, kind(sample_every=1), seen)
        changed = not torch.equal(seen.points[0].tensor, seen.points[-1].tensor)
        assert changed is reaches


def test_weights_by_the_kernel(fitted):
    solver = solvers.poisson()
    weighting = TermWeighting(pinn.NeuralTangentKernel(update_every=100))
    weighted = PINN(solver.problem, solver.model, weighting=weighting)
    expected = pinn.NeuralTangentKernel().renew(from_solver(solver))
    fitted(weighted, 1)
    assert weighting.last_saved_weights() == pytest.approx(expected)


def test_gauss_newton_trains_in_pinas_loop(fitted):
    solver = solvers.inverse()
    fitted(solver, 60, UseOptimizer(pinn.GaussNewton(60)))
    assert float(from_solver(solver).loss()) < 1e-8
    rate = solver.problem.unknown_parameters["rate"]
    assert float(rate.detach()) == pytest.approx(2.0, abs=0.05)


# --- what cannot be converted --------------------------------------------------------------------


def test_what_is_no_solver():
    with pytest.raises(TypeError, match="expected a solver of PINA"):
        from_solver(torch.nn.Linear(1, 1))


def test_a_domain_without_points():
    solver = solvers.poisson()
    solver.problem.discretised_domains.pop("D")
    with pytest.raises(ValueError, match="'D' has no points as yet"):
        from_solver(solver)


def test_a_solver_without_conditions():
    solver = solvers.poisson()
    solver.problem.conditions.clear()
    try:
        with pytest.raises(ValueError, match="no conditions"):
            from_solver(solver)
    finally:
        # The conditions are the class's, which others share.
        assert solvers.poisson().problem.conditions


def test_another_loss():
    solver = solvers.poisson()
    other = PINN(solver.problem, solver.model, loss=torch.nn.L1Loss())
    with pytest.raises(ValueError, match="L1Loss"):
        from_solver(other)


def decaying(kind, **options):
    solver = solvers.poisson()
    optimizer = TorchOptimizer(kind, lr=1e-3, **options)
    return PINN(solver.problem, solvers.model(2), optimizer=optimizer)


def test_decay_by_the_optimizer_is_a_penalty():
    assert from_solver(decaying(torch.optim.Adam)).weight_decay == 0
    penalized = decaying(torch.optim.Adam, weight_decay=0.25)
    assert from_solver(penalized).weight_decay == 0.25
    apart = decaying(torch.optim.AdamW)  # which has a decay by default
    with pytest.raises(ValueError, match="apart from the loss"):
        from_solver(apart)
    assert from_solver(apart, weight_decay=0.5).weight_decay == 0.5


def test_an_entry_of_an_unknown_parameter_has_rows_of_its_own():
    """The first entry of a column of equal numbers has the right value, and another gradient."""

    def equation(input_, output_, params_):
        slope = grad(output_, input_, components=["u"], d=["x"])
        return slope * params_["rate"][0] - output_.extract(["u"])

    solver = solvers.inverse()
    plain = next(iter(from_solver(solver).terms.values()))
    solver.problem.conditions["D"].equation = Equation(equation)
    objective = from_solver(solver)
    term = next(iter(objective.terms.values()))
    rows = Jacobian(objective.with_terms([term])).dense()
    assert_same(rows, Jacobian(objective.with_terms([plain])).dense(), 1e-10)


def test_targets_of_some_outputs_are_named():
    class Half(BaseProblem):
        input_variables = ["x"]
        output_variables = ["u", "v"]
        conditions = {
            "data": Condition(
                input=LabelTensor(torch.rand(4, 1), ["x"]),
                target=LabelTensor(torch.rand(4, 1), ["u"]),
            )
        }

    with pytest.raises(ValueError, match=r"1 column.s. for the outputs u, v"):
        from_solver(SupervisedSolver(Half(), solvers.model(1, 2)))
