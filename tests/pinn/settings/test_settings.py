"""Published settings: their numbers, and the command lines that the documentation shows."""

import re
import shlex
from pathlib import Path

import pytest

from whence import cli, pinn
from whence.catalogue import SETTINGS
from whence.cli.sources import source_of
from whence.cli.train import GROUPS, Options
from whence.cli.training import Training

DOCS = Path(__file__).parents[3] / "docs" / "protocols.md"
PROBLEMS = ["allen_cahn", "burgers", "diffusion", "drift_diffusion", "wave"]


def training(*words):
    options = cli.parsed(Options, "train", list(words))
    return Training(options, GROUPS, source_of(options.problem))


def limit(*words):
    """Most points of a term by the recipe of the problem's own network and what is said on top."""
    return training("wave", "--recipe", "own_network", *words).resampler().max_points


def test_the_limit_of_points_is_the_recipes_where_these_are():
    assert limit() == limit("--resample.n", "20") == limit("--points", "pde=50") == 1000
    # First points beyond it do not leave at once.
    assert limit("--points", "pde=3000") == 3000
    # Who says that points are added, or replaced, says how many there may be.
    assert limit("--resample.update", "add") is None
    assert limit("--resample.update", "replace") is None
    asked = ["--resample.update", "add", "--resample.max-points", "400"]
    assert limit(*asked) == limit("--resample.max-points", "400") == 400


# --- the resampling paper -----------------------------------------------------------------------


@pytest.mark.parametrize("problem", PROBLEMS)
def test_paper(problem):
    made = training(problem, "--setting", "paper")
    is_easy = problem == "diffusion"
    assert made.problem.ansatz is not None
    assert made.points() == {"pde": 30 if is_easy else 1000}
    assert made.schedule() == [pinn.Adam(1000, lr=1e-3), pinn.LBFGS(1000)] * 100
    assert made.max_seconds() is None
    resample = made.resampler()
    assert (resample.n, resample.update) == (1 if is_easy else 10, "add")
    assert (resample.stages, resample.at_start, resample.candidates) == (2, True, 10000)
    assert resample.selection == pinn.Proportional(k=2, c=0)
    assert (resample.score.n_test, resample.score.reduce) == (1000, "sum_of_abs")
    assert made.recipe.keep == "last"


def test_paper_replace():
    resample = training("wave", "--setting", "paper-replace").resampler()
    assert (resample.n, resample.update) == (None, "replace")
    assert resample.selection == pinn.Proportional(k=1, c=1)


def test_flags_count_on_top():
    words = [
        "--cycles",
        "3",
        "--schedule",
        "adam:5",
        "lbfgs:4",
        "adam:2",
        "--lr",
        "0.1",
    ]
    words += ["--points", "pde=7", "--score", "grad_dot", "--grad-dot.n-test", "9"]
    made = training("burgers", "--setting", "paper", *words)
    cycle = [pinn.Adam(5, lr=0.1), pinn.LBFGS(4), pinn.Adam(2, lr=0.1)]
    assert made.schedule() == cycle * 3
    assert made.resampler().stages == 3
    assert made.resampler().score == pinn.GradDotScore(n_test=9)
    assert made.points() == {"pde": 7}

    every = training("burgers", "--setting", "paper", "--resample.every", "50")
    assert (every.resampler().every, every.resampler().stages) == (50, None)
    soft = training("burgers", "--setting", "paper", "--constraints", "soft")
    assert set(soft.points()) == {"pde", "initial_u", "dirichlet_u"}


def test_without_a_setting_all_is_as_before():
    made = training("burgers", "--recipe", "own_network")
    assert made.cycles() == 1
    assert made.resampler().stages is None
    assert (made.recipe.keep, made.test(), made.recipe.validation) == ("best", 0, 2000)


# --- networks to explain ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("problem", "setting", "points", "steps"),
    [
        ("allen_cahn", "good", (2500, 500, 500), [100_000, 25_000]),
        ("allen_cahn", "poor", (2500, 500, 500), [100_000]),
        ("burgers", "good", (2500, 500, 500), [50_000, 12_000]),
        ("burgers", "poor", (500, 100, 100), [50_000, 12_000]),
        ("diffusion", "good", (1000, 100, 100), [15_000, 5000]),
        ("diffusion", "poor", (10, 2, 2), [15_000, 5000]),
        ("drift_diffusion", "good", (1000, 100, 100), [15_000, 5000]),
        ("drift_diffusion", "poor", (200, 20, 20), [15_000, 5000]),
        ("navier_stokes", "good", (7500, 0, 2500), [100_000, 25_000]),
        ("navier_stokes", "poor", (1500, 0, 500), [100_000, 25_000]),
        ("poisson_disk", "good", (2500, 0, 500), [50_000, 12_000]),
        ("poisson_disk", "poor", (100, 0, 20), [15_000, 5000]),
        ("wave", "good", (2500, 500, 500), [100_000, 25_000]),
        ("wave", "poor", (2500, 500, 500), [100_000]),
    ],
)
def test_good_and_poor(problem, setting, points, steps):
    made = training(problem, "--setting", f"pinnfluence-{setting}")
    domain, initial, boundary = points
    assert made.problem.ansatz is None
    for term, count in made.points().items():
        if term in made.problem.equations:
            assert count == domain
        elif term.startswith("initial"):
            assert count == initial
        else:
            assert count == boundary
    assert [stage.iterations for stage in made.schedule()] == steps
    assert made.resampler() is None


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("problem", PROBLEMS)
def test_a_recipe_fits_its_problem(name, problem):
    setting = SETTINGS[name]()
    loaded = pinn.zoo.load(problem, setting.constraints)
    recipe = setting.recipe(loaded)
    assert set(recipe.points) == set(loaded.terms)
    counts = {term: min(2, count) for term, count in recipe.points.items()}
    objective = loaded.objective(loaded.network(seed=0), loaded.sample(counts, seed=0))
    if recipe.resample is not None:
        recipe.resample.check(objective)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["burgers", "--setting", "papr"], "unknown setting 'papr' .did you mean 'paper'"),
        (["helmholtz", "--setting", "pinnfluence-good"], "problem of this setting 'helmholtz'"),
        (["burgers", "--cycles", "0"], "--cycles must be a positive integer"),
        (["burgers", "--test", "-1"], "test must be a non-negative integer"),
        (["burgers", "--threads", "many"], "--threads takes a number such as 4, or auto"),
    ],
)  # fmt: skip
def test_a_wrong_choice_is_one_line(words, message, capsys, tmp_path):
    assert cli.main(["train", *words, "--out", str(tmp_path / "run")]) == 2
    assert re.search(message, capsys.readouterr().err)
    assert not (tmp_path / "run").exists()


# --- what the documentation shows ---------------------------------------------------------------

TINY = "--cycles 2 --schedule adam:2 lbfgs:3 --threads 1 --compile no --quiet"
BLOCK = re.compile(r"```bash\n(.*?)```", re.DOTALL)


def shown_lines():
    text = "".join(BLOCK.findall(DOCS.read_text())).replace("\\\n", " ")
    return [line for line in text.splitlines() if line.startswith("whence ")]


def tiny(words):
    """Return a shown line with so little to do that it ends in a second."""
    if words[0] != "train" or "--resume" in words:
        return words
    small = shlex.split(TINY)
    points = ["pde=12"]
    is_soft = "pinnfluence" in " ".join(words) or "soft" in words
    if is_soft:
        points += ["initial_u=4", "dirichlet_u=4"]
    if "--start" not in words:
        small += ["--points", *points]
    if "--resampler" not in words and not is_soft:
        small += ["--resample.candidates", "40"]
    return [*words, *small]


def test_every_line_shown_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    lines = shown_lines()
    assert len(lines) >= 12
    for line in lines:
        code = cli.main(tiny(shlex.split(line, comments=True)[1:]))
        assert code == 0, f"{line}\n{capsys.readouterr().err}"
