"""The number of threads of a run: what is measured, what is kept, what is put back."""

import json
import time
from dataclasses import dataclass, field

import pytest
import torch

from whence import pinn
from whence.pinn.optimizers.stepper import Progress
from whence.pinn.training import threads

PROBLEM = pinn.zoo.load("diffusion")


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@dataclass(frozen=True)
class Sleeper:
    """An optimizer whose steps last by the number of threads alone, and move θ."""

    seconds: dict
    slept: list = field(default_factory=list)

    def start(self, parameters):
        return self

    def advance(self, objective, iterations):
        seconds = self.seconds[torch.get_num_threads()]
        self.slept.append(seconds)
        time.sleep(seconds)
        objective.parameters.assign(objective.parameters.vector() + 1)
        torch.rand(1)
        return Progress(iterations, None)


class Watcher(pinn.Observer):
    """Notes how many threads torch has in each step."""

    def __init__(self):
        self.seen = set()

    def start(self, objective, iterations):
        return self

    def at_step(self, iteration, row):
        self.seen.add(torch.get_num_threads())


def train(**options):
    watcher = Watcher()
    pinn.train(
        PROBLEM,
        points=40,
        schedule=pinn.GaussNewton(4),
        observers=[watcher],
        progress=False,
        validation=20,
        **options,
    )
    return watcher.seen


@pytest.mark.parametrize(
    ("seconds", "number"),
    [
        ({1: 0.02, 2: 0.01}, 2),
        ({1: 0.01, 2: 0.02}, 1),
        ({1: 0.0202, 2: 0.02}, 1),  # too little gain for a second core
        ({1: 0.004, 2: 0.002}, 2),
        ({1: 0.1, 2: 0.05}, 2),
    ],
)
def test_the_sooner_number_is_chosen_and_nothing_is_left_of_the_trials(
    two_threads, seconds, number
):
    objective = PROBLEM.objective(PROBLEM.network(seed=0), PROBLEM.sample(300, seed=0))
    theta = objective.parameters.vector()
    random = torch.get_rng_state()
    sleeper = Sleeper(seconds)
    assert threads.fastest_number(objective, sleeper) == number
    # By the clock of an idle machine, half a second and one more pair of steps.
    assert sum(sleeper.slept) <= 0.5 + sum(seconds.values())
    assert torch.equal(objective.parameters.vector(), theta)
    assert torch.equal(torch.get_rng_state(), random)
    assert torch.get_num_threads() == 2


def test_one_thread_is_not_measured():
    objective = PROBLEM.objective(PROBLEM.network(seed=0), PROBLEM.sample(40, seed=0))
    assert torch.get_num_threads() == 1
    assert threads.fastest_number(objective, Sleeper({})) == 1


@pytest.mark.parametrize("asked", [None, 1, 2, 3])
def test_a_number_holds_inside_training_alone(two_threads, asked):
    assert train(threads=asked) == {asked or 2}
    assert torch.get_num_threads() == 2


def test_a_run_keeps_its_number(two_threads, tmp_path, monkeypatch):
    monkeypatch.setattr(threads, "fastest_number", lambda objective, stage: 2)
    out = tmp_path / "run"
    train(threads="auto", out=out, max_seconds=1e-9)
    assert json.loads((out / "config.json").read_text())["threads"] == 2

    # On a machine, or at a time, for which one thread would be chosen.
    torch.set_num_threads(1)
    monkeypatch.setattr(threads, "fastest_number", lambda objective, stage: 1)
    with pytest.raises(ValueError, match=r"made with threads = 2, not 1: resume with"):
        train(threads=1, out=out, resume=True)
    assert train(threads="auto", out=out, resume=True, max_seconds=9) == {2}
    assert torch.get_num_threads() == 1


def test_trials_change_no_bit_of_the_run(two_threads, tmp_path, monkeypatch):
    measured = threads.fastest_number

    def one(objective, stage):
        measured(objective, stage)
        return 1

    monkeypatch.setattr(threads, "fastest_number", one)
    train(threads="auto", out=tmp_path / "a")
    train(threads=1, out=tmp_path / "b")
    runs = [pinn.load_run(tmp_path / name) for name in "ab"]
    thetas = [run.objective.parameters.vector() for run in runs]
    assert torch.equal(*thetas)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("many", "unknown number of threads 'many'"),
        (0, "threads must be a positive integer, got 0"),
        (1.5, "threads must be a positive integer, got 1.5"),
        (True, "threads must be a positive integer, got True"),
    ],
)
def test_a_wrong_number_is_an_error_before_any_work(wrong, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        train(threads=wrong, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
