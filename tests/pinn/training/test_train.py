"""Training end to end: runs on disk, resuming, starting from a run, resampling, limits."""

import contextlib
import dataclasses
import functools
import json
import shutil
import time

import numpy as np
import pytest
import torch
from trainings import assert_same_run, contents, go, needs_compiler, small

from whence import compilation, pinn
from whence.compilation import Compiled
from whence.pinn.training import compile as compiling
from whence.pinn.training import loop, monitor
from whence.pinn.training import run_folder as runs

FILES = {
    "config.json",
    "history.csv",
    "points.npz",
    "changes.safetensors",
    "checkpoint.safetensors",
    "state.json",
    "summary.json",
    ".lock",
}


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
    assert {"seconds", "stage", "points", "loss", "loss_pde", "validation_loss"} <= set(
        rows[0]
    )
    assert rows[-1]["relative_l2"] < rows[0]["relative_l2"]
    state = json.loads((tmp_path / "run" / "state.json").read_text())
    assert state["place"]["iteration"] == 60


def test_every_point_is_recorded_with_its_times(tmp_path):
    resample = pinn.Resample(
        pinn.ResidualScore(), n=5, every=2, update="replace", candidates=50
    )
    result = go(
        tmp_path / "run", schedule=[pinn.GaussNewton(7)], resample=resample, keep="last"
    )
    arrays = runs.RunFolder(tmp_path / "run").points()
    entered, left = arrays["pde:entered"], arrays["pde:left"]
    assert np.array_equal(np.unique(entered, return_counts=True)[1], [40, 5, 5, 5])
    assert sorted(np.unique(left)) == [-1, 2, 4, 6]
    # The first points leave by chance, so that training has them in another order.
    present = arrays["pde"][left < 0]
    trained_on = result.objective.terms["pde"].points.numpy()
    assert sorted(present.tolist()) == sorted(trained_on.tolist())


def test_kept_network_is_that_of_least_validation_loss(tmp_path):
    result = go(tmp_path / "run")
    best = min(result.history, key=lambda row: row["validation_loss"])
    assert result.summary["kept_iteration"] == best["iteration"]
    assert result.summary["validation_loss"] == pytest.approx(
        best["validation_loss"], rel=1e-12
    )
    network = pinn.load_network(small().network(), tmp_path / "run")
    for a, b in zip(network.parameters(), result.network.parameters(), strict=True):
        assert torch.equal(a, b)
    points = pinn.load_points(tmp_path / "run")
    assert torch.equal(points["pde"], result.objective.terms["pde"].points)


class Counted(Compiled):
    made = 0

    def __init__(self, *args):
        type(self).made += 1
        super().__init__(*args)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Undisturbed runs, compiled or not, in chunks of five steps, and how often was compiled."""

    @functools.cache
    def trained(compile):
        folder = tmp_path_factory.mktemp("whole") / "run"
        with pytest.MonkeyPatch.context() as patched:
            in_chunks(patched)
            patched.setattr(compiling, "Compiled", Counted)
            patched.setattr(Counted, "made", 0)
            copy_at(35, folder, patched)
            return folder, go(folder, compile=compile), Counted.made

    return trained


def copy_at(iteration, folder, patched):
    """Copy a run's folder to ``at_35`` beside it just after the checkpoint of that iteration."""
    save = loop.Loop._save

    def copied(run, *arguments):
        save(run, *arguments)
        if run.place.iteration == iteration:
            shutil.copytree(folder, folder.with_name(f"at_{iteration}"))

    patched.setattr(loop, "CHECKPOINT_SECONDS", 0.0)
    patched.setattr(loop.Loop, "_save", copied)


def in_chunks(patched):
    for stage in (pinn.Adam, pinn.LBFGS):
        patched.setattr(stage, "chunk", 5)


@contextlib.contextmanager
def cut_at(iteration):
    """Let training be interrupted by its first checkpoint from an iteration on."""
    save = loop.Loop._save

    def cut(run, *arguments):
        save(run, *arguments)
        if run.place.iteration >= iteration:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as cutting:
        cutting.setattr(loop, "CHECKPOINT_SECONDS", 0.0)
        cutting.setattr(loop.Loop, "_save", cut)
        with pytest.raises(KeyboardInterrupt):
            yield


@pytest.mark.parametrize("stop_at", [5, 35, 40, 52])
def test_a_run_cut_short_resumes_to_the_same_bits(
    tmp_path, monkeypatch, whole, stop_at
):
    """Cut within each stage, as a kill just after a checkpoint would."""
    folder, undisturbed, _ = whole(False)
    in_chunks(monkeypatch)
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", 0.0)
    with cut_at(stop_at):
        go(tmp_path / "cut", compile=False)
    resumed = go(tmp_path / "cut", resume=True, compile=False)
    assert torch.equal(
        resumed.objective.parameters.vector(), undisturbed.objective.parameters.vector()
    )
    assert_same_run(folder, tmp_path / "cut")


@needs_compiler
def test_a_compiled_run_resumes_to_the_same_bits(tmp_path, monkeypatch, whole):
    """From what lay on disk at iteration 35, compiled anew."""
    folder, undisturbed, made = whole(True)
    assert made == 1
    in_chunks(monkeypatch)
    cut = shutil.copytree(folder.with_name("at_35"), tmp_path / "cut")
    assert not (cut / "summary.json").exists()
    resumed = go(cut, resume=True, compile=True)
    assert torch.equal(
        resumed.objective.parameters.vector(), undisturbed.objective.parameters.vector()
    )
    assert_same_run(folder, cut)


def test_time_limit_and_resume_to_the_end(tmp_path):
    cut = go(tmp_path / "run", max_seconds=1e-6)
    assert not cut.summary["finished"]
    assert cut.summary["stopped_by"] == "time limit"
    done = go(tmp_path / "run", resume=True)
    assert done.summary["finished"]
    whole = go()
    assert torch.equal(
        done.objective.parameters.vector(), whole.objective.parameters.vector()
    )


def test_a_criterion_stops_at_a_row_and_resumes_to_the_same_bits(tmp_path):
    whole = go(tmp_path / "whole")
    rows = []

    def stop(row):
        rows.append(row)
        return row["iteration"] >= 52

    cut = go(tmp_path / "run", observers=[pinn.Stop(stop)])
    assert cut.summary["stopped_by"] == "stop criterion"
    assert not cut.summary["finished"]
    assert cut.history[-1]["iteration"] == rows[-1]["iteration"] == 55
    assert all("relative_l2" in row for row in rows)
    assert go(tmp_path / "run", resume=True).summary["finished"]
    assert_same_run(tmp_path / "whole", tmp_path / "run")
    assert whole.summary["stopped_by"] == "schedule finished"


def test_resuming_with_a_time_limit_that_is_reached_is_refused(tmp_path):
    go(tmp_path / "run", max_seconds=1e-6)
    before = contents(tmp_path / "run")
    with pytest.raises(ValueError, match="give a larger limit"):
        go(tmp_path / "run", max_seconds=1e-6, resume=True)
    assert contents(tmp_path / "run") == before
    go(tmp_path / "run", resume=True)
    assert go(tmp_path / "run", max_seconds=1e-6, resume=True).summary["finished"]


@needs_compiler
@pytest.mark.parametrize("compile", ["auto", True, False])
def test_one_compilation_serves_every_round(monkeypatch, whole, compile):
    _, eager, _ = whole(False)
    _, trained, made = whole(compile)
    assert trained.summary["loss"] == pytest.approx(eager.summary["loss"], rel=0.05)
    assert eager.summary["rounds"] == 5
    assert made == (compile is True)
    if compile == "auto":
        monkeypatch.setattr(compiling, "Compiled", Counted)
        monkeypatch.setattr(Counted, "made", 0)
        monkeypatch.setattr(compiling.Work, "pays_for_compilation", lambda work: True)
        # How often is the question: what is traced does for what would be compiled.
        monkeypatch.setattr(compilation, "compiled", lambda name, graph, given: graph)
        go(compile="auto")
        go(compile="auto", schedule=[pinn.GaussNewton(2)])
        assert Counted.made == 1


def test_what_cannot_be_compiled_is_said_once_and_trained_eagerly(
    tmp_path, monkeypatch, capfd
):
    problem = dataclasses.replace(
        small(), architecture=dropping, derivatives="autograd"
    )
    options = {"schedule": [pinn.Adam(4)], "resample": None, "problem": problem}
    with pytest.raises(
        ValueError, match="compile=True, but the gradient cannot be compiled: "
    ):
        go(tmp_path / "run", compile=True, **options)
    assert not any(tmp_path.iterdir())
    monkeypatch.setattr(compiling.Work, "pays_for_compilation", lambda work: True)
    assert go(tmp_path / "run", **options).summary["finished"]
    assert capfd.readouterr().err.count("training without compilation: ") == 1


def dropping(seed):
    """A network that draws random numbers whenever it is called."""
    return torch.nn.Sequential(
        pinn.MLP([2, 10, 10, 4], seed=seed), torch.nn.Dropout(0.2), Sum()
    )


class Sum(torch.nn.Module):
    def forward(self, x):
        return x.sum(dim=-1, keepdim=True)


def test_a_network_with_dropout_resumes_to_the_same_bits(tmp_path, monkeypatch):
    problem = dataclasses.replace(
        small(), architecture=dropping, derivatives="autograd"
    )
    options = {
        "schedule": [pinn.Adam(20), pinn.LBFGS(10)],
        "resample": pinn.Resample(pinn.ResidualScore(), n=3, every=5, candidates=20),
        "validation": 20,
    }
    in_chunks(monkeypatch)
    whole = go(tmp_path / "whole", problem, **options)
    assert go(None, problem, seed=1, **options).summary["loss"] != whole.summary["loss"]
    with cut_at(0):
        go(tmp_path / "cut", problem, **options)
    for stop_at in (5, 12, 21):
        torch.rand(7)
        with cut_at(stop_at):
            go(tmp_path / "cut", problem, resume=True, **options)
    go(tmp_path / "cut", problem, resume=True, **options)
    assert_same_run(tmp_path / "whole", tmp_path / "cut")


def test_training_leaves_the_random_numbers_of_the_caller_alone():
    state = torch.get_rng_state()
    go(schedule=[pinn.Adam(2)])
    assert torch.equal(torch.get_rng_state(), state)


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


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"schedule": []}, "at least one optimizer"),
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
        (
            {"resample": pinn.Resample(pinn.ResidualScore(), terms=("pdf",))},
            "did you mean 'pde'",
        ),
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
    assert torch.equal(
        again.objective.parameters.vector(), whole.objective.parameters.vector()
    )
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare" / ".config.json.123.tmp").write_text("{")
    assert go(tmp_path / "bare", schedule=[pinn.Adam(2)]).summary["finished"]


def test_a_stop_leaves_no_trace_in_the_resumed_run(tmp_path, monkeypatch):
    """The row logged because a run stops here must not become what the resumed run keeps."""
    options = {"schedule": [pinn.GaussNewton(8)], "resample": None}
    validation = monitor.Monitor.validation_loss
    best_at_stop = iter([1.0, 0.1])  # as if the state at the stop were the best ever
    monkeypatch.setattr(
        monitor.Monitor,
        "validation_loss",
        lambda *a: next(best_at_stop, validation(*a)),
    )
    cut = go(tmp_path / "run", max_seconds=1e-6, **options)
    assert cut.summary["kept_iteration"] == 1
    monkeypatch.setattr(monitor.Monitor, "validation_loss", lambda *a: 2.0)
    resumed = go(tmp_path / "run", resume=True, **options)
    assert [row["iteration"] for row in resumed.history] == [0, 5, 8]
    assert resumed.summary["kept_iteration"] == 0


def test_seconds_of_a_row_count_the_steps_before_it(monkeypatch):
    advance = pinn.GaussNewton(1).start(go().objective.parameters).__class__.advance

    def slow(stepper, *arguments):
        time.sleep(0.05)
        return advance(stepper, *arguments)

    monkeypatch.setattr(
        "whence.pinn.optimizers.gauss_newton.GaussNewtonStepper.advance", slow
    )
    rows = go(schedule=[pinn.GaussNewton(5)]).history
    assert rows[0]["seconds"] == 0
    assert rows[-1]["seconds"] >= 0.25


def test_a_schedule_finished_at_the_limit_is_finished():
    result = go(schedule=[pinn.GaussNewton(1)], max_seconds=1e-6)
    assert result.summary["finished"]
    assert result.summary["stopped_by"] == "schedule finished"


def pitted():
    """A problem with no residual on two lines, x = 1/4 and x = 3/4, which random points miss."""

    def pde(u, x):
        off = (x - 0.25).abs() * (x - 0.75).abs()
        return u - 1.0 + 0 * torch.sqrt(off - 1e-6)

    square = pinn.Rectangle(("x", "y"), (0.0, 0.0), (1.0, 1.0))
    return pinn.Problem(
        square,
        ("u",),
        {"pde": pde},
        name="pitted",
        architecture=lambda seed: pinn.MLP([2, 10, 1], seed=seed),
    )


FAILING = [pinn.Adam(400, lr=0.1), pinn.LBFGS(100), pinn.GaussNewton(20)]


@pytest.mark.parametrize("optimizer", FAILING, ids=lambda o: type(o).__name__)
@pytest.mark.parametrize("keep", ["best", "last"])
def test_a_loss_that_breaks_ends_the_run_in_its_last_good_state(
    tmp_path, capfd, optimizer, keep
):
    """Points where the loss is NaN enter with the first resampling round."""
    bad = torch.tensor([[0.25, 0.5], [0.75, 0.5]], dtype=torch.float64)
    resample = pinn.Resample(
        pinn.SavedScore("pde", bad, torch.ones(2)), n=2, every=5, terms=("pde",)
    )
    problem = pitted()
    points = {"pde": problem.draw("pde", 10, seed=0)}
    schedule = [optimizer, pinn.GaussNewton(50)]
    options = {
        "points": points,
        "schedule": schedule,
        "resample": resample,
        "keep": keep,
    }
    result = go(tmp_path / "run", problem, **options)
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["stopped_by"] == "loss not finite"
    assert not summary["finished"]
    assert (
        "at iteration 5 with the points just drawn the loss is nan"
        in summary["failure"]
    )
    assert "2 of 12 points: row 10 (x = 0.75, y = 0.5), row 11" in summary["failure"]
    assert summary["failure"] in capfd.readouterr().err
    assert len(result.objective.terms["pde"].points) == 10
    assert np.isfinite(float(result.objective.loss()))
    assert all(np.isfinite(row["loss"]) for row in result.history)
    # Going on can only meet the same again, so a resume says the same.
    again = go(tmp_path / "run", problem, resume=True, **options)
    assert {**again.summary, "seconds": 0} == {**result.summary, "seconds": 0}


def walled():
    """A problem that pulls u to 2, but has no residual where u > 1."""

    def pde(u):
        return (2.0 - u) + 0 * torch.sqrt(1.0 - u)

    square = pinn.Rectangle(("x", "y"), (0.0, 0.0), (1.0, 1.0))
    return pinn.Problem(
        square,
        ("u",),
        {"pde": pde},
        name="walled",
        architecture=lambda seed: pinn.MLP([2, 10, 1], seed=seed),
    )


@pytest.mark.parametrize("chunk", [1, 3])
def test_a_last_step_that_breaks_the_loss_is_gone_back_over(
    tmp_path, monkeypatch, chunk
):
    """With one step a round, the round that meets the bad loss begins in it.

    Resumed from any of its checkpoints, the run ends in the same state.
    """
    monkeypatch.setattr(pinn.Adam, "chunk", chunk)
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", 0.0)
    save, copies = loop.Loop._save, []

    def copying(run, *arguments):
        save(run, *arguments)
        copies.append(shutil.copytree(tmp_path / "whole", tmp_path / str(len(copies))))

    options = {"schedule": [pinn.Adam(500, lr=0.01)], "resample": None, "keep": "last"}
    with monkeypatch.context() as patched:
        patched.setattr(loop.Loop, "_save", copying)
        result = go(tmp_path / "whole", walled(), **options)
    assert result.summary["stopped_by"] == "loss not finite"
    assert "points: row " in result.summary["failure"]
    assert result.summary["iterations"] > 0
    assert np.isfinite(float(result.objective.loss()))
    assert result.summary["loss"] == float(result.objective.loss())
    assert len(copies) > 2
    for copy in copies:
        go(copy, walled(), resume=True, **options)
        assert_same_run(tmp_path / "whole", copy)


def test_a_stage_that_ends_in_a_broken_loss_ends_the_run():
    problem, options = walled(), {"resample": None, "keep": "last"}
    broken_at = go(None, problem, schedule=[pinn.Adam(500, lr=0.01)], **options).summary
    steps = int(broken_at["failure"].split()[2])
    last = [pinn.Adam(steps, lr=0.01), pinn.GaussNewton(5)]
    for schedule in (last, last[:1]):
        summary = go(None, problem, schedule=schedule, **options).summary
        assert summary["stopped_by"] == "loss not finite"
        assert summary["failure"].startswith(
            f"at iteration {steps} the loss is nan: term 'pde'"
        )
        assert summary["iterations"] < steps


def test_a_run_that_breaks_in_a_step_goes_no_further(tmp_path):
    schedule = [pinn.Adam(30, lr=1e200), pinn.GaussNewton(5)]
    result = go(tmp_path / "run", schedule=schedule, keep="last", resample=None)
    assert result.summary["stopped_by"] == "loss not finite"
    assert result.summary["iterations"] == 0
    assert (
        "term 'pde' is not finite at 40 of 40 points: row 0 ("
        in result.summary["failure"]
    )
    assert result.summary["loss"] == result.history[0]["loss"]


def test_a_loss_not_finite_before_any_step_is_an_error_that_leaves_nothing(tmp_path):
    points = {"pde": torch.tensor([[0.1, 0.5], [0.75, 0.5]], dtype=torch.float64)}
    with pytest.raises(
        ValueError, match=r"before any step, .* row 1 \(x = 0.75, y = 0.5\)"
    ):
        go(tmp_path / "run", problem=pitted(), points=points, resample=None)
    assert not (tmp_path / "run").exists()
