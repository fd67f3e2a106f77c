"""Training with weights that change: what is logged, kept and multiplied, and resuming."""

import copy
import dataclasses
import json
import os
import signal

import numpy as np
import pytest
import torch
from trainings import assert_same_run, go, needs_compiler, small

from whence import pinn
from whence.compilation import Compiled
from whence.evaluator import Remembering
from whence.jacobian import Jacobian
from whence.pinn.training import loop
from whence.pinn.training import run_folder as runs
from whence.pinn.training.monitor import Monitor

TERMS = ("pde", "initial_u", "dirichlet_u")
WEIGHTINGS = {
    "Fixed": pinn.Fixed({"initial_u": 20.0}),
    "Linear": pinn.Linear({"initial_u": 20.0}, {"pde": 3.0}, iterations=20),
    "NTK": pinn.NeuralTangentKernel(update_every=4),
    "NTK mean": pinn.NeuralTangentKernel(estimate="mean_trace"),
    "NTK once": pinn.NeuralTangentKernel(estimate="mean_trace", once=True),
    "NTK gradient": pinn.NeuralTangentKernel(estimate="gradient_norm"),
    "GradientNorm": pinn.GradientNorm(update_every=3),
    "LearningRateAnnealing": pinn.LearningRateAnnealing(update_every=7),
    "ReLoBRaLo": pinn.ReLoBRaLo(alpha=0.9, rho=0.5),
    "SoftAdapt": pinn.SoftAdapt(),
    "SelfAdaptive": pinn.SelfAdaptive(lr=0.1),
    "vRBA": pinn.ResidualBasedAttention(lr=0.1, decay=0.95),
    "Causal": pinn.Causal(windows=4, threshold=0.5, update_every=2),
}
OPTIMIZERS = {
    "Adam": pinn.Adam(12, lr=1e-2),
    "LBFGS": pinn.LBFGS(12),
    "GaussNewton": pinn.GaussNewton(8),
}
MIXED = (pinn.Adam(14), pinn.LBFGS(9), pinn.GaussNewton(5))
ADDING = pinn.Resample(pinn.ResidualScore(), n=3, every=10, candidates=60)
MOVING = dataclasses.replace(ADDING, update="replace", every=5)


def train(out=None, weighting=None, **options):
    given = {
        "problem": small("diffusion", "soft"),
        "points": {"pde": 30, "initial_u": 10, "dirichlet_u": 12},
        "schedule": MIXED,
        "resample": None,
        "validation": 50,
        "compile": False,
        **options,
    }
    return go(out, weighting=weighting, **given)


@pytest.fixture(autouse=True)
def _rows(monkeypatch):
    for stage in (pinn.Adam, pinn.LBFGS):
        monkeypatch.setattr(stage, "chunk", 5)
        monkeypatch.setattr(stage, "log_every", 4)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("name", WEIGHTINGS)
def test_every_weighting_trains_with_every_optimizer(tmp_path, name, optimizer):
    given = WEIGHTINGS[name]
    before = copy.deepcopy(given.state_dict())
    result = train(
        tmp_path / "run", given, schedule=[OPTIMIZERS[optimizer]], keep="last"
    )
    assert given.state_dict() == before == {"calls": 0}
    assert result.summary["finished"]
    first, last = result.history[0], result.history[-1]
    assert sum(last[f"loss_{n}"] for n in TERMS) < sum(
        first[f"loss_{n}"] for n in TERMS
    )
    rows = runs.RunFolder(tmp_path / "run").history()
    assert rows == result.history
    for row in rows:
        assert all(np.isfinite(row[f"weight_{n}"]) for n in TERMS)
        if name not in ("SelfAdaptive", "vRBA", "Causal"):
            total = sum(row[f"weight_{n}"] * row[f"loss_{n}"] for n in TERMS)
            assert row["loss"] == pytest.approx(total, rel=1e-12)
    assert [first[f"weight_{n}"] for n in TERMS] == [1.0, 1.0, 1.0]
    assert [last[f"weight_{n}"] for n in TERMS] != [1.0, 1.0, 1.0]


@pytest.mark.parametrize("name", WEIGHTINGS)
def test_the_config_names_the_weighting_with_its_options(tmp_path, name):
    given = WEIGHTINGS[name]
    train(tmp_path / "run", given, schedule=[pinn.GaussNewton(1)])
    config = json.loads((tmp_path / "run" / "config.json").read_text())["weighting"]
    assert config["kind"] == type(given).__name__
    fields = {f.name: getattr(given, f.name) for f in dataclasses.fields(given)}
    # Options that came later are named where they are not left as they were.
    for field in dataclasses.fields(given):
        if field.metadata.get("later") and fields[field.name] == field.default:
            del fields[field.name]
    assert config == {"kind": type(given).__name__} | json.loads(json.dumps(fields))
    with pytest.raises(ValueError, match="was made with weighting = "):
        train(
            tmp_path / "run",
            pinn.Fixed({}),
            schedule=[pinn.GaussNewton(1)],
            resume=True,
        )


def cut_and_resumed(folder, monkeypatch, stop_at, **options):
    """Kill a run just after a checkpoint, twice, and let it go on."""
    save = loop.Loop._save
    for at, resume in ((stop_at, False), (stop_at + 8, True)):

        def cut(run, *arguments, at=at):
            if run.place.iteration >= at:
                save(run, *arguments)
                raise KeyboardInterrupt

        with monkeypatch.context() as cutting:
            cutting.setattr(loop, "CHECKPOINT_SECONDS", 0.0)
            cutting.setattr(loop.Loop, "_save", cut)
            with pytest.raises(KeyboardInterrupt):
                train(folder, resume=resume, **options)
    return train(folder, resume=True, **options)


def weighting_state(folder):
    checkpoint = runs.RunFolder(folder).checkpoint()
    tensors = {n: t.tolist() for n, t in checkpoint.group("weighting").items()}
    return {**checkpoint.numbers["weighting"], **tensors}


@pytest.mark.parametrize(
    ("name", "resample"),
    [(name, MOVING) for name in WEIGHTINGS]
    + [
        ("NTK", None),
        ("NTK", ADDING),
        ("SelfAdaptive", None),
        ("SelfAdaptive", ADDING),
    ],
)
def test_a_run_cut_short_resumes_to_the_same_bits(
    tmp_path, monkeypatch, name, resample
):
    options = {"weighting": WEIGHTINGS[name], "resample": resample}
    whole = train(tmp_path / "whole", **options)
    stop_at = 15 if resample is MOVING else 3
    resumed = cut_and_resumed(tmp_path / "cut", monkeypatch, stop_at, **options)
    assert torch.equal(
        resumed.objective.parameters.vector(), whole.objective.parameters.vector()
    )
    assert_same_run(tmp_path / "whole", tmp_path / "cut")
    assert weighting_state(tmp_path / "cut") == weighting_state(tmp_path / "whole")
    kept = pinn.load_weights(tmp_path / "cut")
    for term, held in whole.objective.terms.items():
        each = held.weight if held.point_weights is None else held.point_weights
        assert torch.equal(kept[term], torch.as_tensor(each, dtype=torch.float64))


@pytest.mark.parametrize("name", ["NTK", "ReLoBRaLo", "SelfAdaptive", "Causal"])
def test_a_step_that_is_interrupted_is_taken_back_with_its_weights(
    tmp_path, monkeypatch, name
):
    """Ctrl-C in the midst of steps, once weights were renewed: the run stands before them."""
    options = {"weighting": WEIGHTINGS[name], "resample": MOVING}
    train(tmp_path / "whole", **options)
    take = loop.Loop._take

    pressed = []

    def interrupted(run, stepper, steps):
        if run.place.iteration >= 12 and not pressed:
            pressed.append(os.kill(os.getpid(), signal.SIGINT))
        return take(run, stepper, steps)

    with monkeypatch.context() as cutting:
        cutting.setattr(loop.Loop, "_take", interrupted)
        cut = train(tmp_path / "cut", **options)
    assert cut.summary["stopped_by"] == "interrupted"
    assert cut.summary["iterations"] == 12
    train(tmp_path / "cut", resume=True, **options)
    assert_same_run(tmp_path / "whole", tmp_path / "cut")


def test_a_weighting_that_breaks_ends_the_run_in_its_last_good_state(tmp_path, capfd):
    class Breaking(pinn.GradientNorm):
        def renew_weights(self, terms):
            found = super().renew_weights(terms)
            return found if self._state["calls"] < 6 else {**found, "pde": float("nan")}

    result = train(tmp_path / "run", Breaking(update_every=2), schedule=[pinn.Adam(20)])
    assert result.summary["stopped_by"] == "loss not finite"
    message = "at iteration 6 the weight of term 'pde' came out as nan"
    assert message in result.summary["failure"]
    assert message in capfd.readouterr().err
    assert all(np.isfinite(row["weight_pde"]) for row in result.history)
    assert bool(torch.isfinite(result.objective.parameters.vector()).all())


# --- what weights do ----------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_fixed_weights_train_as_weights_do(optimizer):
    given = {"initial_u": 30.0, "pde": 0.5}
    options = {"schedule": [OPTIMIZERS[optimizer]], "keep": "last"}
    one = train(weighting=pinn.Fixed(given), **options)
    other = train(weights=given, **options)
    for ours, theirs in zip(one.history[1:], other.history[1:], strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-10)
    theta = other.objective.parameters.vector()
    torch.testing.assert_close(
        one.objective.parameters.vector(), theta, rtol=1e-10, atol=1e-12
    )
    for name, term in other.objective.terms.items():
        assert one.objective.term(name).weight == term.weight


@pytest.mark.parametrize("name", WEIGHTINGS)
def test_weights_given_are_further_factors(name):
    """In the first step all measures are equal, so the weights differ by what is given."""
    given = {"initial_u": 4.0, "pde": 0.5}
    options = {"schedule": [pinn.GaussNewton(1)], "keep": "last"}
    plain, both = (
        train(weighting=WEIGHTINGS[name], weights=w, **options) for w in (None, given)
    )
    for term in TERMS:
        factor = given.get(term, 1.0)
        assert both.history[0][f"weight_{term}"] == factor
        now, expected = (r.history[-1][f"weight_{term}"] for r in (both, plain))
        assert now == pytest.approx(factor * expected, rel=1e-14)


def objective_at_start(weights=None):
    problem = small("diffusion", "soft")
    points = problem.sample({"pde": 30, "initial_u": 10, "dirichlet_u": 12}, seed=0)
    return problem.objective(problem.network(0), points, weights)


@pytest.mark.parametrize("form", ["primal", "dual"])
@pytest.mark.parametrize("name", WEIGHTINGS)
def test_a_gauss_newton_step_is_that_of_the_weighted_objective(name, form):
    """The step by hand: ``−(JᵀJ + μI)⁻¹∇L`` with a row ``√(2 w m/N)·∂r`` for each residual."""
    step = pinn.GaussNewton(1, damping=10.0, form=form)
    result = train(weighting=WEIGHTINGS[name], schedule=[step], keep="last")
    objective = objective_at_start()
    theta = objective.parameters.vector()
    weights = copy.deepcopy(WEIGHTINGS[name]).update(objective)
    rows, right = [], []
    for term in objective.terms.values():
        alone = Jacobian(objective.with_terms([term]))
        each = torch.as_tensor(weights[term.name], dtype=torch.float64)
        factor = (2 * each / len(term.points)).sqrt().expand(len(term.points))
        rows.append(factor[:, None] * alone.dense())
        right.append(factor * alone.residual().squeeze())
    rows, right = torch.cat(rows).numpy(), torch.cat(right).numpy()
    mu = 10.0 * (rows**2).sum() / len(rows)
    delta = np.linalg.solve(rows.T @ rows + mu * np.eye(len(theta)), -rows.T @ right)
    found = (result.objective.parameters.vector() - theta).numpy()
    np.testing.assert_allclose(found, delta, rtol=0, atol=1e-9 * np.abs(delta).max())
    for name_, term in result.objective.terms.items():
        held = term.weight if term.point_weights is None else term.point_weights
        np.testing.assert_allclose(held, weights[name_], rtol=1e-14)


def test_adam_follows_the_weights_of_each_step():
    """The loop by hand: weights, gradient of the weighted sum, a step of ``torch.optim.Adam``."""
    weighting, steps = pinn.ReLoBRaLo(alpha=0.5, rho=0.5, temperature=1.0), 10
    schedule = [pinn.Adam(steps, lr=1e-2)]
    result = train(weighting=weighting, schedule=schedule, keep="last")
    objective = objective_at_start()
    adam = torch.optim.Adam(objective.network.parameters(), lr=1e-2)
    for _ in range(steps):
        losses = objective.losses(dict(objective.network.named_parameters()))
        weights = weighting.update(losses)
        adam.zero_grad()
        sum(weights[n] * loss for n, loss in losses.items()).backward()
        adam.step()
    found = result.objective.parameters.vector()
    torch.testing.assert_close(
        found, objective.parameters.vector(), rtol=1e-9, atol=1e-12
    )


# --- points -------------------------------------------------------------------------------------


def test_a_round_changes_no_weight_of_a_kept_point(monkeypatch):
    rounds = []
    renew = loop.Loop._renew_points

    def noting(run):
        before = run.objective.term("pde")
        renew(run)
        rounds.append((before, run.objective.term("pde")))

    monkeypatch.setattr(loop.Loop, "_renew_points", noting)
    options = {"schedule": [pinn.GaussNewton(17)], "resample": MOVING}
    train(weighting=pinn.SelfAdaptive(lr=0.3), weights={"pde": 2.0}, **options)
    assert len(rounds) == 3
    for before, after in rounds:
        kept = 0
        for point, weight in zip(after.points, after.point_weights, strict=True):
            distances = (before.points - point).square().sum(1)
            kept += int(distances.min() == 0)
            assert float(weight) == float(before.point_weights[distances.argmin()])
        assert kept == 27
        assert len(torch.unique(after.point_weights)) > 10


def test_causal_weights_after_a_round_are_those_of_the_windows():
    options = {"resample": MOVING, "schedule": [pinn.GaussNewton(12)], "keep": "last"}
    result = train(weighting=pinn.Causal((10.0,), windows=3), **options)
    term = result.objective.term("pde")
    assert len(torch.unique(term.point_weights)) <= 3
    order = term.points[:, 1].argsort()
    assert bool((term.point_weights[order].diff() <= 0).all())
    assert float(term.point_weights.max()) == 1.0


def test_hard_constraints_and_single_precision():
    options = {
        "problem": small(),
        "points": 40,
        "dtype": torch.float32,
        "resample": MOVING,
    }
    for name in ("NTK", "GradientNorm", "SelfAdaptive", "Causal"):
        result = train(weighting=WEIGHTINGS[name], **options)
        assert result.summary["finished"]
        each = result.objective.term("pde").point_weights
        assert each is None or each.dtype == torch.float32


# --- compiled -----------------------------------------------------------------------------------


@needs_compiler
def test_compiled_and_eager_agree():
    """Weights of terms are outside of what is compiled, those of points an argument of it."""
    line = pinn.Interval("x", 0, 1)
    equations, conditions = (
        {"pde": lambda u, u_x: u_x + u},
        [pinn.Dirichlet(u=1.0, on="x")],
    )
    problem = pinn.Problem(line, ("u",), equations, conditions=conditions)
    points = problem.sample({"pde": 20, "dirichlet_u": 2}, seed=0)
    objective = problem.objective(pinn.MLP([1, 6, 1], seed=0), points)
    compiled = objective.with_evaluator(Compiled(objective))
    eager = objective.with_evaluator(Remembering())
    for weighting in (
        pinn.GradientNorm(0.5, update_every=1),
        pinn.SelfAdaptive(lr=0.5),
        pinn.ReLoBRaLo(),
    ):
        pair = [copy.deepcopy(weighting) for _ in range(2)]
        start = objective.parameters.vector()
        for k in range(3):
            objective.parameters.assign(start * (1 - 0.1 * k))
            found = []
            for own, each in zip(pair, (compiled, eager), strict=True):
                weighted = each.with_weights(own.update(each))
                found.append(weighted.loss_and_gradient())
            assert found[0][0] == pytest.approx(found[1][0], rel=1e-11)
            torch.testing.assert_close(found[0][1], found[1][1], rtol=1e-10, atol=1e-11)
        objective.parameters.assign(start)


@needs_compiler
def test_a_compiled_run_trains_as_an_eager_one_does():
    options = {
        "problem": small(),
        "points": 40,
        "schedule": [pinn.Adam(12)],
        "resample": ADDING,
        "keep": "last",
        "weighting": pinn.SelfAdaptive(lr=0.5),
    }
    one, other = (train(compile=compile, **options) for compile in (True, False))
    found, expected = (r.objective.parameters.vector() for r in (one, other))
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(
        one.objective.term("pde").point_weights,
        other.objective.term("pde").point_weights,
        rtol=1e-8,
        atol=0,
    )


def test_the_best_network_is_judged_under_the_weights_of_the_moment(monkeypatch):
    """By each network's own weights an early one has the least loss, as the weights only grow."""
    problem, seen = pinn.zoo.load("diffusion", "soft"), []
    validation = Monitor.validation_loss

    def noted(self, objective):
        value = validation(self, objective)
        weights = {name: term.mean_weight for name, term in objective.terms.items()}
        seen.append((weights, objective.parameters.vector(), value))
        return value

    monkeypatch.setattr(Monitor, "validation_loss", noted)
    growing = pinn.Linear(
        {}, {"initial_u": 1e4, "dirichlet_u": 1e4}, 1000, update_every=50
    )
    result = pinn.train(
        problem,
        pinn.MLP([2, 8, 1], seed=0),
        points=dict.fromkeys(problem.terms, 20),
        schedule=[pinn.Adam(500, lr=1e-2)],
        weighting=growing,
        validation=50,
        progress=False,
    )
    least = min(result.history, key=lambda row: row["validation_loss"])
    assert least["iteration"] < result.summary["kept_iteration"]
    best = seen[0][1]
    for now, before in zip(seen[1::2], seen[2::2], strict=True):
        assert now[0] == before[0]
        assert torch.equal(before[1], best)
        best = now[1] if now[2] < before[2] else best
    assert torch.equal(result.objective.parameters.vector(), best)
