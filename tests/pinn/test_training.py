"""Training end to end: runs on disk, resuming, starting from a run, resampling, limits."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

from whence import pinn
from whence.pinn import runs, training

FILES = {
    "config.json",
    "history.csv",
    "points.npz",
    "checkpoint.safetensors",
    "state.json",
    "summary.json",
}


def small(name="diffusion", constraints="hard"):
    return dataclasses.replace(
        pinn.zoo.load(name, constraints),
        architecture=lambda seed: pinn.MLP([2, 10, 10, 1], seed=seed),
    )


def go(out=None, problem=None, **options):
    given = {
        "points": 40,
        "schedule": [pinn.Adam(30), pinn.LBFGS(20), pinn.GaussNewton(10)],
        "resample": pinn.Resample(pinn.InfluenceScore(n_test=30), n=3, every=10, candidates=60),
        "validation": 100,
        "progress": False,
        **options,
    }
    return pinn.train(problem or small(), out=out, **given)


def test_run_folder_and_summary(tmp_path):
    result = go(tmp_path / "run")
    assert {p.name for p in (tmp_path / "run").iterdir()} == FILES
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary == json.loads(json.dumps(result.summary))
    assert summary["problem"] == "diffusion"
    assert summary["iterations"] == 60
    assert summary["parameters"] == 151
    assert summary["rounds"] == 5  # at 10, 20, …, 50; there is no use in one at the end
    assert summary["max_points"] == 40 + 5 * 3
    assert summary["finished"]
    rows = runs.RunFolder(tmp_path / "run").history()
    assert [r["iteration"] for r in rows] == [0, 30, 50, 55, 60]
    assert {"seconds", "stage", "points", "loss", "loss_pde", "validation_loss"} <= set(rows[0])
    assert rows[-1]["relative_l2"] < rows[0]["relative_l2"]
    state = json.loads((tmp_path / "run" / "state.json").read_text())
    assert state["place"]["iteration"] == 60


def test_every_point_is_recorded_with_its_times(tmp_path):
    resample = pinn.Resample(pinn.ResidualScore(), n=5, every=2, update="replace", candidates=50)
    result = go(tmp_path / "run", schedule=[pinn.GaussNewton(7)], resample=resample, keep="last")
    arrays = runs.RunFolder(tmp_path / "run").points()
    entered, left = arrays["pde_entered"], arrays["pde_left"]
    assert np.array_equal(np.unique(entered, return_counts=True)[1], [40, 5, 5, 5])
    assert sorted(np.unique(left)) == [-1, 2, 4, 6]
    present = arrays["pde"][left < 0]
    assert np.array_equal(present, result.objective.terms["pde"].points.numpy())


def test_kept_network_is_that_of_least_validation_loss(tmp_path):
    result = go(tmp_path / "run")
    best = min(result.history, key=lambda row: row["validation_loss"])
    assert result.summary["kept_iteration"] == best["iteration"]
    assert result.summary["validation_loss"] == pytest.approx(best["validation_loss"], rel=1e-12)
    network = pinn.load_network(small().network(), tmp_path / "run")
    for a, b in zip(network.parameters(), result.network.parameters(), strict=True):
        assert torch.equal(a, b)
    points = pinn.load_points(tmp_path / "run")
    assert torch.equal(points["pde"], result.objective.terms["pde"].points)


@pytest.mark.parametrize("stop_at", [5, 35, 40, 52])
def test_a_run_cut_short_resumes_to_the_same_bits(tmp_path, monkeypatch, stop_at):
    """Cut within each stage, as a kill just after a checkpoint would."""
    whole = go(tmp_path / "whole")
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", 0.0)
    for stage in (pinn.Adam, pinn.LBFGS, pinn.GaussNewton):
        monkeypatch.setattr(stage, "chunk", 5 if stage is not pinn.GaussNewton else 1)
    save = training._Run._save

    def cut(run, *arguments):
        save(run, *arguments)
        if run._place.iteration >= stop_at:
            raise KeyboardInterrupt

    monkeypatch.setattr(training._Run, "_save", cut)
    with pytest.raises(KeyboardInterrupt):
        go(tmp_path / "cut")
    monkeypatch.setattr(training._Run, "_save", save)
    resumed = go(tmp_path / "cut", resume=True)
    assert torch.equal(resumed.objective.parameters.vector(), whole.objective.parameters.vector())
    a, b = (runs.RunFolder(tmp_path / n) for n in ("whole", "cut"))
    assert (a.path / "points.npz").stat().st_size == (b.path / "points.npz").stat().st_size
    for name, rows in a.points().items():
        assert np.array_equal(rows, b.points()[name]), name
    drop = {"seconds"}
    for one, other in zip(a.history(), b.history(), strict=True):
        assert {k: v for k, v in one.items() if k not in drop} == {
            k: v for k, v in other.items() if k not in drop
        }


def test_sigkill_leaves_a_run_that_resumes(tmp_path):
    """Kill a real process while it trains; what it left resumes to an undisturbed end."""
    code = (
        "import sys; from whence.pinn import training; from whence import pinn\n"
        "training.CHECKPOINT_SECONDS = 0.3\n"
        "sys.path.insert(0, sys.argv[2]); import test_training as t\n"
        "t.go(sys.argv[1], schedule=[pinn.GaussNewton(150)])"
    )
    out = tmp_path / "run"
    here = os.path.dirname(__file__)
    process = subprocess.Popen([sys.executable, "-c", code, str(out), here])
    deadline = time.monotonic() + 60
    while not (out / "checkpoint.safetensors").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.3)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (out / "summary.json").exists()
    resumed = go(out, schedule=[pinn.GaussNewton(150)], resume=True)
    assert resumed.summary["finished"]
    whole = go(schedule=[pinn.GaussNewton(150)])
    assert torch.equal(resumed.objective.parameters.vector(), whole.objective.parameters.vector())


def test_time_limit_and_resume_to_the_end(tmp_path):
    cut = go(tmp_path / "run", max_seconds=1e-6)
    assert not cut.summary["finished"]
    assert cut.summary["stopped_by"] == "time limit"
    done = go(tmp_path / "run", resume=True)
    assert done.summary["finished"]
    whole = go()
    assert torch.equal(done.objective.parameters.vector(), whole.objective.parameters.vector())


def test_start_from_a_run(tmp_path):
    first = go(tmp_path / "first")
    second = go(tmp_path / "second", start=tmp_path / "first", seed=5)
    at_start = second.history[0]["relative_l2"]
    assert at_start == pytest.approx(first.summary["relative_l2"], rel=1e-9)
    with pytest.raises(ValueError, match="does not fit"):
        go(network=pinn.MLP([2, 5, 1]), start=tmp_path / "first")


def test_nothing_is_overwritten(tmp_path):
    go(tmp_path / "run", schedule=[pinn.Adam(5)])
    before = {p.name: p.read_bytes() for p in (tmp_path / "run").iterdir()}
    with pytest.raises(FileExistsError, match="already holds a run"):
        go(tmp_path / "run")
    with pytest.raises(ValueError, match="was made with seed = 0, not 1"):
        go(tmp_path / "run", schedule=[pinn.Adam(5)], seed=1, resume=True)
    with pytest.raises(FileNotFoundError, match="holds no whence run"):
        go(tmp_path / "none", resume=True)
    assert not (tmp_path / "none").exists()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").write_text("precious")
    with pytest.raises(FileExistsError, match="not an empty folder"):
        go(tmp_path / "other")
    assert before == {p.name: p.read_bytes() for p in (tmp_path / "run").iterdir()}
    assert not (tmp_path / "none").exists()


def test_damaged_checkpoints_are_refused_by_name(tmp_path):
    go(tmp_path / "run", schedule=[pinn.Adam(5)])
    path = tmp_path / "run" / "checkpoint.safetensors"
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(ValueError, match=r"checkpoint.safetensors is damaged"):
        go(tmp_path / "run", schedule=[pinn.Adam(5)], resume=True)


def test_same_seed_same_run_other_seed_another():
    a, b, c = (go(seed=s).objective.parameters.vector() for s in (0, 0, 1))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)


def test_soft_constraints_weights_and_float32():
    problem = small("wave", "soft")
    counts = dict.fromkeys(problem.terms, 20)
    result = go(
        problem=problem,
        points=counts,
        weights={"initial_u": 10.0},
        schedule=[pinn.GaussNewton(12)],
        dtype=torch.float32,
    )
    row = result.history[-1]
    losses = {n[5:]: v for n, v in row.items() if n.startswith("loss_")}
    assert set(losses) == set(problem.terms)
    expected = sum(v * (10 if n == "initial_u" else 1) for n, v in losses.items())
    assert row["loss"] == pytest.approx(expected, rel=1e-6)
    assert result.summary["rounds"] == 1
    assert result.objective.parameters.dtype == torch.float32
    assert row["loss"] < result.history[0]["loss"]


def test_interrupt_stops_between_steps_and_leaves_a_resumable_run(tmp_path):
    code = (
        "import sys; sys.path.insert(0, sys.argv[2]); import test_training as t\n"
        "from whence import pinn\n"
        "r = t.go(sys.argv[1], schedule=[pinn.GaussNewton(100000)])\n"
        "print(r.summary['stopped_by'])"
    )
    out = tmp_path / "run"
    command = [sys.executable, "-c", code, str(out), os.path.dirname(__file__)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not (out / "config.json").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(1.0)
    process.send_signal(signal.SIGINT)
    printed, _ = process.communicate(timeout=60)
    assert printed.strip() == "interrupted"
    assert runs.RunFolder(out).checkpoint().numbers["place"]["iteration"] > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"schedule": []}, "at least one optimiser"),
        ({"keep": "worst"}, "keep 'worst'"),
        ({"max_seconds": -1.0}, "max_seconds"),
        ({"validation": 0}, "validation"),
        ({"points": {"pdf": 3}}, "did you mean 'pde'"),
        ({"points": {"pde": 0}}, "number of points of term 'pde'"),
        ({"points": {"pde": torch.zeros(2, 3)}}, "shape"),
        ({"sampling": "sobel"}, "sampling method 'sobel'"),
        ({"weights": {"pdf": 1.0}}, "did you mean 'pde'"),
        ({"seed": -1}, "seed"),
        ({"device": "tpu"}, "device 'tpu' cannot be used"),
        ({"network": pinn.MLP([2, 4, 2])}, "the network must map"),
        ({"resample": pinn.Resample(pinn.ResidualScore(), terms=("pdf",))}, "did you mean 'pde'"),
        ({"resume": True}, "needs out="),
    ],
)
def test_option_errors_write_nothing(tmp_path, options, message):
    out = None if "resume" in options else tmp_path / "run"
    with pytest.raises(ValueError, match=message):
        go(out, **options)
    assert not (tmp_path / "run").exists()


def test_a_start_that_does_not_exist_leaves_nothing(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no checkpoint"):
        go(tmp_path / "run", start=tmp_path / "none")
    assert list(tmp_path.iterdir()) == []


def test_points_given_for_some_terms_only_are_refused():
    problem = small("burgers", "soft")
    points = {"pde": problem.draw("pde", 20, seed=0)}
    with pytest.raises(ValueError, match="no points for term 'initial_u'"):
        go(problem=problem, points=points)


def test_a_run_killed_before_its_first_checkpoint_resumes_from_the_start(tmp_path):
    whole = go(tmp_path / "run")
    for path in (tmp_path / "run").iterdir():
        if path.name != "config.json":
            path.unlink()
    again = go(tmp_path / "run", resume=True)
    assert torch.equal(again.objective.parameters.vector(), whole.objective.parameters.vector())
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare" / ".config.json.123.tmp").write_text("{")
    assert go(tmp_path / "bare", schedule=[pinn.Adam(2)]).summary["finished"]


def test_a_stop_leaves_no_trace_in_the_resumed_run(tmp_path, monkeypatch):
    """The row logged because a run stops here must not become what the resumed run keeps."""
    options = {"schedule": [pinn.GaussNewton(8)], "resample": None}
    validation = training._Watch.validation
    best_at_stop = iter([1.0, 0.1])  # as if the state at the stop were the best ever
    monkeypatch.setattr(
        training._Watch, "validation", lambda *a: next(best_at_stop, validation(*a))
    )
    cut = go(tmp_path / "run", max_seconds=1e-6, **options)
    assert cut.summary["kept_iteration"] == 1
    monkeypatch.setattr(training._Watch, "validation", lambda *a: 2.0)
    resumed = go(tmp_path / "run", resume=True, **options)
    assert [row["iteration"] for row in resumed.history] == [0, 5, 8]
    assert resumed.summary["kept_iteration"] == 0


def test_seconds_of_a_row_count_the_steps_before_it(monkeypatch):
    advance = pinn.GaussNewton(1).start(go().objective.parameters).__class__.advance

    def slow(stepper, *arguments):
        time.sleep(0.05)
        return advance(stepper, *arguments)

    monkeypatch.setattr("whence.pinn.optimizers._GaussNewtonStepper.advance", slow)
    rows = go(schedule=[pinn.GaussNewton(5)]).history
    assert rows[0]["seconds"] == 0
    assert rows[-1]["seconds"] >= 0.25


def test_a_schedule_finished_at_the_limit_is_finished():
    result = go(schedule=[pinn.GaussNewton(1)], max_seconds=1e-6)
    assert result.summary["finished"]
    assert result.summary["stopped_by"] == "schedule finished"


def test_a_loss_that_is_not_finite_neither_resamples_nor_ends_the_schedule():
    resample = pinn.Resample(pinn.InfluenceScore(n_test=20), n=5, every=1, candidates=50)
    schedule = [pinn.Adam(30, lr=1e200), pinn.GaussNewton(5)]
    result = go(schedule=schedule, resample=resample)
    assert result.summary["finished"]
    assert result.summary["kept_iteration"] > 1
    assert result.summary["loss"] < 0.9 * result.history[0]["loss"]
