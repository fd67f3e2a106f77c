"""Replays of runs of pinn.train against finite differences of whole runs."""

from dataclasses import replace

import numpy as np
import oracles
import pytest
import torch

import whence as wh
from whence import pinn
from whence.pinn.training.stepped_on import SteppedOn

PROBLEM = pinn.zoo.load("diffusion", "soft")
POINTS = PROBLEM.sample(dict.fromkeys(PROBLEM.terms, 12), seed=0)
AT = torch.tensor([[0.3, 0.2], [0.6, 0.4]], dtype=torch.float64)
PLACES = (("pde", 2), ("initial_u", 7))


def train(schedule, points=POINTS, **options):
    options = {"keep": "last", **options}
    return pinn.train(
        PROBLEM,
        points=points,
        network=pinn.MLP([2, 8, 1], seed=0),
        schedule=schedule,
        compile=False,
        progress=False,
        **options,
    )


def really(schedule, term, place, h, **options):
    """Return ``−∂f/∂w`` by runs in which a point of a term has another weight."""

    def values(weight):
        weights = torch.ones(12, dtype=torch.float64)
        weights[place] = weight
        points = {**POINTS, term: pinn.WeightedPoints(POINTS[term], weights)}
        run = train(schedule, points, **options)
        return torch.as_tensor(run.solution(AT)).reshape(-1)

    return -oracles.derivative(values, 1.0, h)


@pytest.mark.parametrize(
    "schedule",
    [
        [pinn.Adam(12, lr=1e-2)],
        [pinn.Adam(6, lr=1e-2), pinn.Adam(6, lr=1e-3, batch_size=5)],
        [pinn.GaussNewton(4)],
        [pinn.GaussNewton(4, form="primal", damping=1e-2)],
        [pinn.Adam(5, lr=1e-2), pinn.GaussNewton(4)],
    ],
    ids=["adam", "stages_and_batches", "gauss_newton", "primal", "adam_gauss_newton"],
)
def test_steps_are_differentiated_as_they_were_taken(schedule):
    run = train(schedule)
    effects = wh.Replay(run).attribute(wh.Output(AT))
    for term, place in PLACES:
        actual = really(schedule, term, place, 1e-4)
        error = effects.sel(term=term).values[:, place] - actual.numpy()
        assert np.linalg.norm(error) < 1e-5 * float(actual.norm())


def test_weights_of_terms_and_the_kept_network():
    schedule = [pinn.Adam(10, lr=1e-2)]
    options = {"weights": {"initial_u": 5.0}, "keep": "best"}
    run = train(schedule, **options)
    assert run.steps().n_steps == run.summary["kept_iteration"]
    effects = wh.Replay(run).attribute(wh.Output(AT))
    term, place = PLACES[1]
    actual = really(schedule, term, place, 1e-4, **options)
    error = effects.sel(term=term).values[:, place] - actual.numpy()
    assert np.linalg.norm(error) < 1e-5 * float(actual.norm())


def test_renewed_points_are_known_by_where_they_are():
    """Points that come again in another order, as after a renewal, are the same points."""
    run = train([pinn.Adam(8, lr=1e-2)])
    whole = wh.Replay(run).attribute(wh.Output(AT))
    order = torch.randperm(12, generator=torch.Generator().manual_seed(0))
    points = {"pde": POINTS["pde"][order], "initial_u": POINTS["initial_u"][order]}
    renewed = SteppedOn()
    renewed.note(0, run.objective)
    renewed.note(3, run.objective.with_points(points))
    objectives = renewed.objectives(run.objective)
    run.trained = replace(run.trained, objectives=objectives)
    oracles.close(wh.Replay(run).attribute(wh.Output(AT)).values, whole.values, 1e-8)


def test_resampling():
    schedule = [pinn.Adam(12, lr=1e-2)]
    counts = dict.fromkeys(PROBLEM.terms, 12)
    run = train(schedule, points=counts, resample=pinn.Resample(every=6))
    assert run.trained.objectives.begun == [0, 6]
    effects = wh.Replay(run).attribute(wh.Output(AT))
    assert effects.sizes["point"] == run.objective.n_points
    # Without the first six steps nothing changes for points that came after them.
    entered = run.points["pde:entered"][run.points["pde:left"] == -1]
    assert (effects.sel(term="pde").values[:, entered == 6] != 0).all()


def test_a_minimum_that_is_none_is_said():
    with pytest.warns(wh.FarFromMinimum, match=r"LBFGS.*GaussNewton"):
        wh.Replay(train([pinn.LBFGS(3)])).attribute(wh.Output(AT))


def test_steps_are_kept_as_long_as_they_fit(monkeypatch):
    weighting = pinn.ResidualBasedAttention()
    run = train([pinn.Adam(6, lr=1e-2)], weighting=weighting)
    assert len(run.trained.objectives.begun) > 1
    assert np.isfinite(wh.Replay(run).attribute(wh.Output(AT))).all()
    monkeypatch.setattr("whence.pinn.training.stepped_on.MAX_BYTES", 2000)
    run = train([pinn.Adam(6, lr=1e-2)], weighting=weighting)
    with pytest.raises(ValueError, match="weights of single points"):
        wh.Replay(run).attribute(wh.Output(AT))


def test_what_cannot_be_replayed():
    with pytest.raises(ValueError, match="LBFGS cannot be replayed"):
        train([pinn.LBFGS(3), pinn.Adam(3)]).steps()
    with pytest.raises(ValueError, match="acceleration=True"):
        train([pinn.GaussNewton(2, acceleration=True)]).steps()


@pytest.mark.parametrize("keep", ["last", "best"])
def test_a_run_read_from_a_folder(tmp_path, keep):
    schedule = [pinn.Adam(5, lr=1e-2, batch_size=5), pinn.GaussNewton(3)]
    weighted = pinn.WeightedPoints(POINTS["pde"], torch.linspace(0.5, 1.5, 12))
    points = {**POINTS, "pde": weighted}
    run = train(schedule, points, out=tmp_path / "run", keep=keep, weights={"pde": 2.0})
    read = pinn.load_run(
        tmp_path / "run", problem=PROBLEM, network=pinn.MLP([2, 8, 1], seed=5)
    )
    assert [type(stage) for stage in read.trained.schedule] == [
        pinn.Adam,
        pinn.GaussNewton,
    ]
    effects = wh.Replay(run).attribute(wh.Output(AT))
    again = wh.Replay(read).attribute(wh.Output(AT))
    assert effects.values.tobytes() == again.values.tobytes()


def test_a_run_that_was_resumed_is_replayed_from_its_folder(tmp_path):
    schedule = [pinn.Adam(6, lr=1e-2), pinn.Adam(6, lr=1e-3)]
    cut = train(schedule, out=tmp_path / "run", max_seconds=1e-6)
    assert cut.summary["iterations"] < 12
    resumed = train(schedule, out=tmp_path / "run", resume=True)
    whole = wh.Replay(train(schedule)).attribute(wh.Output(AT))
    again = pinn.load_run(
        tmp_path / "run", problem=PROBLEM, network=pinn.MLP([2, 8, 1], seed=5)
    )
    read = wh.Replay(again)
    assert read.attribute(wh.Output(AT)).values.tobytes() == whole.values.tobytes()
    again = wh.Replay(resumed).attribute(wh.Output(AT))
    assert again.values.tobytes() == whole.values.tobytes()
