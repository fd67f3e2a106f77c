"""Replays from folders of runs whose points and weights changed: whole, cut, killed, damaged."""

import os
import shutil
import signal
import warnings

import numpy as np
import oracles
import pytest
import safetensors.torch
import torch

import whence as wh
from whence import pinn
from whence.pinn.training import loop
from whence.pinn.training.integrity import CHANGED
from whence.pinn.training.load import ProblemChanged
from whence.pinn.training.replayed_folder import KEPT
from whence.pinn.training.run_folder import CHANGES, RunFolder

PROBLEM = pinn.zoo.load("diffusion", "soft")
COUNTS = dict.fromkeys(PROBLEM.terms, 12)
AT = torch.tensor([[0.3, 0.2]], dtype=torch.float64)
SCHEDULES = {
    "adam": [pinn.Adam(5, lr=1e-2)],
    "batches": [pinn.Adam(5, lr=1e-2, batch_size=5)],
    "stages": [pinn.Adam(3, lr=1e-2, batch_size=5), pinn.GaussNewton(3)],
    "early": [pinn.GaussNewton(60), pinn.Adam(4, lr=1e-3, batch_size=2)],
}
RANDOM = pinn.Resample(pinn.RandomScore(), n=4, every=2, candidates=20)
IMPORTANT = pinn.Resample(
    pinn.ResidualScore(),
    pinn.Proportional(k=1, c=1),
    n=4,
    every=2,
    candidates=20,
    importance=True,
)
CHANGING = {
    "resampling": {"resample": RANDOM},
    "weighting": {"weighting": pinn.GradientNorm(update_every=2)},
    "both": {"resample": IMPORTANT, "weighting": pinn.ReLoBRaLo()},
    "by_point": {"resample": RANDOM, "weighting": pinn.ResidualBasedAttention()},
}


def train(out=None, schedule="stages", points=COUNTS, **options):
    return pinn.train(
        PROBLEM,
        points=points,
        network=pinn.MLP([2, 6, 1], seed=0),
        schedule=SCHEDULES[schedule],
        out=out,
        validation=20,
        **{"keep": "last", "compile": False, "progress": False, **options},
    )


def read(folder):
    return pinn.load_run(folder, PROBLEM, pinn.MLP([2, 6, 1], seed=5))


def effects(run):
    return wh.Replay(run).attribute(wh.Output(AT)).values


def equal(first, second):
    return effects(first).tobytes() == effects(second).tobytes()


def damaged(folder):
    return [state for state in pinn.check_run(folder) if state.problem]


@pytest.mark.parametrize(
    ("schedule", "changes"),
    [
        ("adam", "resampling"),
        ("batches", "resampling"),
        ("batches", "weighting"),
        ("stages", "weighting"),
        ("adam", "both"),
        ("stages", "both"),
        ("stages", "by_point"),
    ],
)
def test_the_folder_says_all_that_the_result_does(tmp_path, schedule, changes):
    run = train(tmp_path / "run", schedule, **CHANGING[changes])
    assert len(run.trained.objectives.begun) > 2
    again = read(tmp_path / "run")
    assert again.trained.objectives.begun == run.trained.objectives.begun
    assert np.isfinite(effects(run)).all()
    assert equal(run, again)
    assert not damaged(tmp_path / "run")


def test_the_best_network_is_replayed_on_what_led_to_it(tmp_path):
    """Its points may be others than the last ones."""
    run = train(tmp_path / "run", "adam", keep="best", **CHANGING["both"])
    assert equal(run, read(tmp_path / "run"))


def test_a_stage_that_ends_early_is_replayed_as_far_as_it_went(tmp_path):
    """Of few points Gauss–Newton soon comes to a loss that is zero but for rounding."""
    result = train(tmp_path / "run", "early", points=dict.fromkeys(PROBLEM.terms, 3))
    assert 10 < result.trained.ends[0] < 60
    again = read(tmp_path / "run")
    assert again.trained.ends == list(result.trained.ends)

    # Raises unless the steps, taken again, lead to the network that was kept.
    assert np.isfinite(effects(again)).all()


def test_effects_are_those_of_whole_runs(tmp_path):
    """Points that are given stay, those of the equation are drawn again, weights go their way."""
    points = PROBLEM.sample(COUNTS, seed=0)["initial_u"]
    changes = {
        "resample": RANDOM,
        "weighting": pinn.Linear({"pde": 1.0}, {"pde": 3.0}, 6, update_every=2),
    }

    def run_of(weight, out=None):
        weights = torch.ones(12, dtype=torch.float64)
        weights[7] = weight
        weighted = pinn.WeightedPoints(points, weights)
        return train(out, points={**COUNTS, "initial_u": weighted}, **changes)

    def values(weight):
        return torch.as_tensor(run_of(weight).solution(AT)).reshape(-1)

    run_of(1.0, tmp_path / "run")
    actual = -oracles.derivative(values, 1.0, 1e-4)
    predicted = wh.Replay(read(tmp_path / "run")).attribute(wh.Output(AT))
    error = predicted.sel(term="initial_u").values[:, 7] - actual.numpy()
    assert np.linalg.norm(error) < 1e-5 * float(actual.norm())


# Cut and killed


@pytest.mark.parametrize("changes", ["resampling", "both", "by_point"])
def test_a_run_cut_at_every_step_is_the_same(tmp_path, changes):
    """By its time limit, again and again."""
    whole = train(tmp_path / "whole", **CHANGING[changes])
    options = {"out": tmp_path / "cut", **CHANGING[changes]}
    cut = train(max_seconds=1e-6, **options)
    n_cuts = 1
    while not cut.summary["finished"]:
        assert equal(cut, read(tmp_path / "cut"))
        seconds = cut.summary["seconds"] + 1e-3
        cut = train(max_seconds=seconds, resume=True, **options)
        n_cuts += 1
    assert n_cuts > 2
    assert equal(whole, read(tmp_path / "cut"))
    assert equal(whole, cut)
    changes = [RunFolder(tmp_path / name).changes() for name in ("whole", "cut")]
    assert changes[0].digest() == changes[1].digest()


def test_a_summary_of_an_earlier_end_says_nothing(tmp_path):
    """As it stands beside the checkpoint of a run that was resumed and killed."""
    options = {"out": tmp_path / "run", **CHANGING["both"]}
    cut = train(max_seconds=1e-6, **options)
    earlier = (tmp_path / "run" / "summary.json").read_bytes()
    resumed = train(resume=True, **options)
    (tmp_path / "run" / "summary.json").write_bytes(earlier)
    with warnings.catch_warnings():
        warnings.simplefilter("error", ProblemChanged)
        again = read(tmp_path / "run")
    assert again.summary == {}
    assert again.trained.kept > cut.summary["kept_iteration"]
    assert equal(resumed, again)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="children are forked")
def test_a_run_killed_at_any_file_is_the_same(tmp_path, monkeypatch):
    """Whatever was written after the last checkpoint counts once."""
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr(pinn.Adam, "chunk", 1)
    options = {"schedule": "adam", **CHANGING["both"]}
    whole = effects(train(**options))
    replace = os.replace
    n_replayed = 0

    # Each checkpoint is five files, after one for the configuration: the second and third.
    for n in range(7, 17):
        folder = tmp_path / str(n)
        calls = []

        def killing(*arguments, n=n, calls=calls):
            calls.append(arguments)
            if len(calls) == n:
                os.kill(os.getpid(), signal.SIGKILL)
            replace(*arguments)

        child = os.fork()
        if not child:
            try:
                monkeypatch.setattr(os, "replace", killing)
                train(folder, **options)
            finally:
                os._exit(0)
        status = os.waitpid(child, 0)[1]
        assert os.waitstatus_to_exitcode(status) == -signal.SIGKILL

        killed = read(folder)
        assert killed.trained.kept == killed.steps().n_steps > 0
        n_replayed += np.isfinite(effects(killed)).all()
        train(folder, resume=True, **options)
        assert effects(read(folder)).tobytes() == whole.tobytes()
        assert not damaged(folder)
    assert n_replayed == 10


# What is refused


@pytest.fixture(name="run", scope="module")
def _run(tmp_path_factory):
    """The folder of a run that was cut, only to be copied."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    train(folder, max_seconds=1e-6, **CHANGING["both"])
    return folder


@pytest.fixture(name="copy")
def _copy(run, tmp_path):
    return shutil.copytree(run, tmp_path / "copy")


def changed_byte(path):
    content = bytearray(path.read_bytes())
    content[-5] ^= 0xFF
    path.write_bytes(bytes(content))


def cut_short(path):
    path.write_bytes(path.read_bytes()[:-9])


def no_tensors(path):
    path.write_bytes(safetensors.torch.save({"a": torch.zeros(1)}))


@pytest.mark.parametrize("damage", [changed_byte, cut_short, no_tensors])
def test_a_damaged_file_is_refused_by_name(copy, damage):
    damage(copy / CHANGES)
    with pytest.raises(ValueError, match=rf"copy.*{CHANGES} is damaged"):
        read(copy).steps()
    (state,) = damaged(copy)
    assert state.name == CHANGES
    with pytest.raises(ValueError, match=rf"{CHANGES} is damaged.*or remove it to go"):
        train(copy, resume=True, **CHANGING["both"])


def test_the_file_of_another_run_is_refused(copy, tmp_path):
    train(tmp_path / "other", seed=1, max_seconds=1e-6, **CHANGING["both"])
    shutil.copy(tmp_path / "other" / CHANGES, copy / CHANGES)
    message = rf"{CHANGES} is damaged: it does not fit checkpoint.safetensors"
    with pytest.raises(ValueError, match=message):
        read(copy).steps()
    with pytest.raises(ValueError, match=message):
        train(copy, resume=True, **CHANGING["both"])


def test_a_file_that_says_less_than_it_must_is_refused(copy):
    """With a digest that fits."""
    folder = RunFolder(copy)
    for lacking in ("points.begun/pde", "weights.sizes/pde"):
        changes = folder.changes()
        whole = folder.changes()
        del changes.tensors[lacking]
        folder.write_changes(changes)
        with pytest.raises(ValueError, match=rf"{CHANGES} is damaged: 'pde'"):
            read(copy).steps()
        folder.write_changes(whole)
    changes = folder.changes()
    changes.tensors["points.begun/pde"] += 1
    folder.write_changes(changes)
    with pytest.raises(ValueError, match=rf"{CHANGES} is damaged: points of term"):
        read(copy).steps()


def test_without_the_file_a_run_goes_on_and_is_not_replayed(copy, capsys):
    (copy / CHANGES).unlink()
    with pytest.raises(ValueError, match=rf"{CHANGES} is missing"):
        read(copy).steps()
    assert [state.name for state in damaged(copy)] == [CHANGES]
    resumed = train(copy, resume=True, **CHANGING["both"])
    assert f"{CHANGES} is missing" in capsys.readouterr().err
    for run in (resumed, read(copy)):
        with pytest.raises(ValueError, match=r"was removed: train it again"):
            run.steps()
    assert not damaged(copy)


def test_a_folder_of_an_older_version_is_refused_and_goes_on(copy):
    folder = RunFolder(copy)
    checkpoint = folder.checkpoint()
    for number in (CHANGED, KEPT):
        del checkpoint.numbers[number]
    folder.write_checkpoint(checkpoint)
    (copy / CHANGES).unlink()
    assert not damaged(copy)
    message = "older version of whence.*train it again with this version"
    with pytest.raises(ValueError, match=message):
        read(copy).steps()
    resumed = train(copy, resume=True, **CHANGING["both"])
    assert resumed.summary["finished"]
    for run in (resumed, read(copy)):
        with pytest.raises(ValueError, match=message):
            run.steps()


def test_what_did_not_change_is_replayed_from_folders_of_older_versions(tmp_path):
    run = train(tmp_path / "run")
    folder = RunFolder(tmp_path / "run")
    assert not (folder.path / CHANGES).exists()
    checkpoint = folder.checkpoint()
    del checkpoint.numbers[KEPT]
    folder.write_checkpoint(checkpoint)
    assert equal(run, read(folder))
    (folder.path / "summary.json").unlink()
    with pytest.raises(ValueError, match="it has not ended: go on with it"):
        read(folder).steps()


def test_slabs_are_not_replayed(copy):
    folder = RunFolder(copy)
    folder.write_summary({**folder.summary(), "march": {"trainings": []}})
    with pytest.raises(ValueError, match=r"pinn\.Slabs.*train all times at once"):
        read(copy).steps()


def test_changes_that_do_not_fit_are_said(tmp_path, monkeypatch):
    monkeypatch.setattr("whence.pinn.training.stepped_on.MAX_BYTES", 2000)
    options = {"out": tmp_path / "run", **CHANGING["by_point"]}
    train(max_seconds=1e-6, **options)
    run = train(resume=True, **options)
    for result in (run, read(tmp_path / "run")):
        with pytest.raises(ValueError, match="weights of single points"):
            result.steps()
    assert not damaged(tmp_path / "run")
