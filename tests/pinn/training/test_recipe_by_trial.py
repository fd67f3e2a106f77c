"""Recipes chosen by trials."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from whence import cli, pinn
from whence.pinn.training.choices import recipe_of_choice
from whence.pinn.training.trials import is_linear

FILE = """
import math
import torch
from whence import pinn

problem = pinn.Problem(
    name="waves",
    domain=pinn.Interval("x", 0, 1),
    outputs=("u",),
    equations={"pde": lambda x, u_xx: u_xx + math.pi**2 * torch.sin(math.pi * x)},
    conditions=(pinn.Dirichlet(u=0.0, on="x"),),
)
"""


@pytest.fixture(scope="module")
def problem_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file that defines a linear problem, and no recipe."""
    path = tmp_path_factory.mktemp("own") / "waves.py"
    path.write_text(FILE)
    return path


@pytest.fixture
def whence(capfd: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    """Run the command line here; return its exit code and what it says."""

    def run(*arguments: object) -> tuple[int, str]:
        code = cli.main([*map(str, arguments)])
        return code, capfd.readouterr().err

    return run


@pytest.mark.parametrize(
    ("name", "linear"),
    [
        ("diffusion", True),
        ("wave", True),
        ("linear_elasticity", True),
        ("burgers", False),
        ("lorenz", False),
    ],
)
def test_linear_problems_are_told_from_others(name: str, linear: bool) -> None:
    for constraints in ("hard", "soft"):
        problem = pinn.zoo.load(name, constraints)
        network = recipe_of_choice(problem, "features:sin:10:200").network
        assert network is not None
        assert is_linear(problem, network(0)) is linear


def test_a_choice_gives_the_recipe_that_its_name_says() -> None:
    problem = pinn.zoo.load("burgers")
    recipe = recipe_of_choice(problem, "slabs:tanh:20:500:0.1:1e-11")
    assert isinstance(recipe.slabs, pinn.Slabs)
    assert (recipe.slabs.length, recipe.slabs.tolerance) == (0.1, 1e-11)
    assert recipe.points == {"pde": 4000}
    assert recipe.network is not None
    network = recipe.network(0)
    assert isinstance(network, pinn.RandomFeatures)
    assert (network.layers, network.scale) == ((2, 500, 1), 20.0)
    assert recipe_of_choice(problem, "features:sin:4:300").slabs is None
    growing = recipe_of_choice(problem, "growing")
    assert growing.schedule == pinn.growing_recipe(problem).schedule


@pytest.mark.parametrize(
    "choice",
    [
        "fast",
        "growing:3",
        "features",
        "features:sin:4",
        "features:sin:x:300",
        "features:sin:4:300:0.1:1e-9",
        "slabs:tanh:20:500:0.1",
    ],
)
def test_a_choice_that_is_none_is_refused(choice: str) -> None:
    with pytest.raises(ValueError, match=f"a recipe is chosen as .*{choice}"):
        recipe_of_choice(pinn.zoo.load("burgers"), choice)


def test_slabs_need_a_time() -> None:
    with pytest.raises(ValueError, match="is chosen as"):
        recipe_of_choice(pinn.zoo.load("helmholtz"), "slabs:tanh:20:500:0.1:1e-9")


def test_unknowns_are_left_to_the_own_network() -> None:
    automatic = pinn.automatic_recipe(pinn.zoo.load("inverse_heat"), seconds=5)
    assert automatic.choice == "growing"
    assert "unknowns" in automatic.reasons[0]


def test_a_steep_nonlinear_problem_is_cut_into_slabs() -> None:
    automatic = pinn.automatic_recipe(pinn.zoo.load("burgers"), seconds=20)
    assert automatic.choice.startswith("slabs:tanh:20:300:0.1:")
    assert automatic.recipe.slabs is not None


def test_a_file_without_a_recipe_has_one_chosen_and_keeps_it(
    whence: Callable[..., tuple[int, str]], problem_file: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    flags = ("--max-seconds", 30, "--quiet")
    code, messages = whence("train", problem_file, "--out", out, *flags)
    assert code == 0, messages
    assert "chosen: --recipe features:" in messages
    assert json.loads((out / "summary.json").read_text())["loss"] < 1e-15

    command = json.loads((out / "config.json").read_text())["command"]
    assert command[-2] == "--recipe"
    code, messages = whence("train", problem_file, "--out", out, "--resume", *flags)
    assert code == 0, messages
    # It is not chosen again.
    assert "chosen" not in messages


def test_little_time_and_flags_of_training_leave_trials_out(
    whence: Callable[..., tuple[int, str]], problem_file: Path, tmp_path: Path
) -> None:
    cases = {
        "short": ("--max-seconds", 1),
        "set": ("--schedule", "adam:3", "--max-seconds", 60),
    }
    for name, flags in cases.items():
        out = tmp_path / name
        code, messages = whence("train", problem_file, "--out", out, "--quiet", *flags)
        assert code == 0, messages
        assert "chosen" not in messages


def test_a_recipe_beside_flags_of_training_is_refused(
    whence: Callable[..., tuple[int, str]], problem_file: Path
) -> None:
    flags = ("--recipe", "features:sin:4:200", "--schedule", "adam:3")
    code, messages = whence("train", problem_file, *flags)
    assert code != 0
    assert "leave out the flags" in messages
