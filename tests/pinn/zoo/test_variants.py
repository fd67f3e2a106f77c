"""Variants of the zoo's problems: what differs, how they are trained, and where that is kept."""

import dataclasses
import json
import math

import pytest
import torch

from whence import cli, pinn
from whence.catalogue import PROBLEMS
from whence.cli.sources import source_of
from whence.cli.train import GROUPS, Options, folder_of
from whence.cli.training import Training
from whence.pinn.training.problem_file import read_problem_file

VARIED = [name for name in PROBLEMS if len(pinn.zoo.variants(name)) > 1]
CASES = [(name, v) for name in VARIED for v in pinn.zoo.variants(name) if v != "good"]
KINDS = ("hard", "soft")
WITH_ANSATZ = [name for name in VARIED if pinn.zoo.load(name).ansatz is not None]

FILE = """
from dataclasses import replace
from whence import pinn

problem = pinn.Problem(
    name="decay",
    domain=pinn.Interval("t", 0, 1),
    outputs=("u",),
    equations={"ode": lambda u, u_t: u_t + u},
    ansatz=lambda t, u: 1 + t * u,
)
growth = {"ode": lambda u, u_t: u_t - u}
VARIANTS = {"broken": pinn.Variant("grows", lambda p: replace(p, equations=growth))}
"""


def training(*words):
    options = cli.parsed(Options, "train", list(words))
    return Training(options, GROUPS, source_of(options.problem))


def objective(problem):
    """A network of the problem's at a few points."""
    terms = [term for term in problem.terms if term not in problem.given_terms]
    counts = {term: min(5, problem.room(term) or 5) for term in terms}
    return problem.objective(problem.network(seed=2), problem.sample(counts, seed=0))


# --- what differs -------------------------------------------------------------------------------


def test_six_problems_have_a_bad_and_a_broken_variant():
    wanted = {"diffusion", "burgers", "allen_cahn", "wave", "drift_diffusion"}
    wanted |= {"poisson_disk"}
    assert wanted <= set(VARIED)
    for name in wanted:
        assert list(pinn.zoo.variants(name)) == ["good", "bad", "broken"]


@pytest.mark.parametrize("constraints", KINDS)
@pytest.mark.parametrize(("name", "variant"), CASES)
def test_a_variant_differs_in_its_problem_or_its_recipe(name, variant, constraints):
    good = pinn.zoo.load(name, constraints)
    changed = pinn.zoo.load(name, constraints, variant)
    assert (changed.name, changed.label) == (name, f"{name} ({variant})")
    assert changed.terms == good.terms
    assert changed.solution == good.solution

    recipe = pinn.zoo.recipe(name, constraints, variant)
    assert set(recipe.points) == set(changed.terms)
    loss = float(objective(changed).loss())
    assert math.isfinite(loss)
    is_other = loss != float(objective(good).loss())
    assert is_other == (variant != "bad")
    is_trained_otherwise = recipe != pinn.zoo.recipe(name, constraints)
    assert is_trained_otherwise or variant != "bad"


@pytest.mark.parametrize("name", WITH_ANSATZ)
def test_the_ansatz_of_a_broken_problem_meets_its_conditions(name):
    hard, soft = (pinn.zoo.load(name, kind, "broken") for kind in KINDS)
    both = dataclasses.replace(soft, ansatz=hard.ansatz)
    losses = objective(both).losses()
    # Both ends' values are given, slopes follow from the equation.
    left = set(losses) - set(hard.equations) - {"periodic_u_x"}
    for term in left:
        assert float(losses[term]) < 1e-24, term


@pytest.mark.parametrize("constraints", KINDS)
def test_broken_waves_are_those_of_swapped_conditions(constraints):
    problem = pinn.zoo.load("wave", constraints, "broken")
    recipe = pinn.zoo.recipe("wave", constraints, "broken")
    result = pinn.train(
        problem,
        recipe.network(0),
        points=recipe.points,
        schedule=recipe.schedule,
        weights=recipe.weights,
        progress=False,
    )
    points = problem.domain.sample(200, "random", seed=3)
    x, t = points.unbind(1)
    pi = math.pi
    # A mode sin kπx of velocity 1 goes as sin(2kπt)/(2kπ).
    slow = torch.sin(pi * x) * torch.sin(2 * pi * t) / (2 * pi)
    fast = torch.sin(4 * pi * x) * torch.sin(8 * pi * t) / (8 * pi)
    expected = slow + fast / 2
    assert (result.solution(points)[:, 0] - expected).abs().max() < 1e-5
    # The reference is the right one: a loss of nothing, a solution of another problem.
    assert result.summary["loss"] < 1e-8
    assert result.summary["relative_l2"] > 0.5


def test_good_is_the_problem_as_it_is():
    assert pinn.zoo.load("wave", variant="good").label == "wave"
    assert pinn.zoo.load("helmholtz", variant="good").variant is None


@pytest.mark.parametrize(
    ("name", "variant", "words"),
    [
        (
            "burgers",
            "brokn",
            "variant of burgers 'brokn' .*'broken'.* 'good', 'bad', 'broken'",
        ),
        ("helmholtz", "broken", "variant of helmholtz 'broken': choose 'good'"),
    ],
)
def test_an_unknown_variant_is_an_error_that_lists_what_there_is(name, variant, words):
    for call in (pinn.zoo.load, pinn.zoo.recipe):
        with pytest.raises(ValueError, match=words):
            call(name, variant=variant)
    with pytest.raises(ValueError, match=words):
        training(name, "--variant", variant)


# --- on the command line and in a run -----------------------------------------------------------


def test_bad_is_the_published_poor_training():
    made = training("diffusion", "--variant", "bad", "--constraints", "soft")
    assert made.points() == {"pde": 10, "initial_u": 2, "dirichlet_u": 2}
    assert made.schedule() == [pinn.Adam(15000, lr=1e-3), pinn.LBFGS(5000)]
    assert made.resampler() is None
    assert made.network() is None
    # Flags count on top.
    made = training("diffusion", "--variant", "bad", "--schedule", "adam:5")
    assert made.schedule() == [pinn.Adam(5)]
    assert made.points() == {"pde": 10}


@pytest.mark.parametrize("flag", [("--setting", "paper"), ("--recipe", "growing")])
def test_two_ways_to_train_exclude_each_other(flag):
    with pytest.raises(ValueError, match=r"says? how to train|both say how to train"):
        training("diffusion", "--variant", "bad", *flag)
    assert (
        training("diffusion", "--variant", "broken", *flag).problem.variant == "broken"
    )


def test_a_run_keeps_its_variant(tmp_path, capsys):
    out = tmp_path / "run"
    words = [
        "--variant",
        "broken",
        "--points",
        "pde=20",
        "--schedule",
        "gauss_newton:2",
    ]
    words += ["--resampler", "none", "--quiet", "--out", str(out)]
    assert cli.main(["train", "burgers", *words]) == 0
    assert "burgers (broken): relative L2" in capsys.readouterr().out

    assert json.loads((out / "config.json").read_text())["variant"] == "broken"
    loaded = pinn.load_run(out)
    assert loaded.problem.label == "burgers (broken)"
    assert loaded.summary["variant"] == "broken"
    expected = pinn.zoo.load("burgers", variant="broken").equations["pde"]
    assert loaded.problem.equations["pde"] is expected

    # Of another variant it is another run.
    changed = ["good" if word == "broken" else word for word in words]
    assert cli.main(["train", "burgers", *changed, "--resume"]) == 2
    assert "variant = 'broken', not None" in capsys.readouterr().err
    assert cli.main(["train", str(out), "--resume", "--quiet"]) == 0


def test_a_run_from_python_keeps_its_variant(tmp_path):
    problem = pinn.zoo.load("wave", "soft", "broken")
    counts = {term: min(4, problem.room(term) or 4) for term in problem.terms}
    pinn.train(
        problem,
        pinn.MLP([2, 4, 1], seed=0),
        points=counts,
        schedule=pinn.GaussNewton(1),
        progress=False,
        out=tmp_path / "run",
    )
    loaded = pinn.load_run(tmp_path / "run").problem
    assert (loaded.label, loaded.ansatz) == ("wave (broken)", None)


def test_the_folder_is_called_after_the_variant():
    named = training("wave", "--variant", "bad", "--seed", "3").options
    assert str(folder_of(named)) == "runs/wave-bad-3"
    plain = training("wave", "--variant", "good").options
    assert str(folder_of(plain)) == "runs/wave-0"


def test_problems_says_what_is_wrong(capsys):
    assert cli.main(["problems", "drift_diffusion"]) == 0
    assert "broken: wrong sign: the drift" in capsys.readouterr().out


# --- variants of a file -------------------------------------------------------------------------


def test_a_file_lists_variants_of_its_own(tmp_path):
    path = tmp_path / "decay.py"
    path.write_text(FILE)
    out = tmp_path / "run"
    words = [
        "--variant",
        "broken",
        "--points",
        "ode=20",
        "--schedule",
        "gauss_newton:60",
    ]
    words += ["--resampler", "none", "--quiet", "--out", str(out)]
    assert cli.main(["train", str(path), *words]) == 0
    result = pinn.load_run(out)
    assert result.problem.label == "decay (broken)"
    assert result.solution([[1.0]])[0, 0] == pytest.approx(math.e, rel=1e-4)


@pytest.mark.parametrize(
    ("listed", "kind", "words"),
    [
        ("'broken'", TypeError, "must be pinn.Variant by name"),
        ("{'broken': 'wrong'}", TypeError, "must be pinn.Variant by name"),
        ("{3: VARIANTS['broken']}", TypeError, "must be pinn.Variant by name"),
        ("{'good': VARIANTS['broken']}", ValueError, "choose another name"),
    ],
)
def test_what_is_no_variant_is_refused(tmp_path, listed, kind, words):
    path = tmp_path / "decay.py"
    path.write_text(f"{FILE}\nVARIANTS = {listed}\n")
    with pytest.raises(kind, match=words):
        read_problem_file(path).problem(None, "broken")


@pytest.mark.parametrize(
    ("options", "kind", "words"),
    [
        ({"summary": " "}, TypeError, "in words"),
        ({"summary": "odd", "problem": 3}, TypeError, "problem must be a function"),
        ({"summary": "odd", "recipe": 3}, TypeError, "recipe must be a function"),
        ({"summary": "odd"}, ValueError, "differs in nothing"),
    ],
)
def test_a_variant_that_says_nothing_is_refused(options, kind, words):
    with pytest.raises(kind, match=words):
        pinn.Variant(**options)
