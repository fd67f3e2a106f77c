"""A run that starts from another takes its network and its points; limits of given schedules."""

import shutil

import numpy as np
import pytest
import torch
from trainings import assert_same_run, go, small

from whence import cli, pinn

SCHEDULE = pinn.GaussNewton(4)
TINY = ["--schedule", "gauss_newton:3", "--quiet"]


def soft():
    return small("wave", "soft")


def counts(problem):
    return {name: 8 + k for k, name in enumerate(problem.terms)}


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """A run of four terms, of which one was given points in a corner."""
    out = tmp_path_factory.mktemp("start") / "first"
    corner = np.random.default_rng(0).uniform(0.1, 0.2, (9, 2))
    points = counts(soft()) | {"pde": corner}
    go(out, soft(), points=points, schedule=SCHEDULE, resample=None, keep="last")
    return out


def test_terms_left_out_take_the_points_of_the_run(first, tmp_path):
    rows = pinn.load_points(first)
    second = go(
        tmp_path / "second", soft(), points={"initial_u": 21}, schedule=SCHEDULE,
        resample=None, start=first, seed=5, keep="last",
    )  # fmt: skip
    terms = second.objective.terms
    assert len(terms["initial_u"].points) == 21
    for name in ("pde", "initial_u_t", "dirichlet_u"):
        assert torch.equal(terms[name].points, rows[name])
    assert terms["pde"].source == "given"  # as in the first run
    assert terms["dirichlet_u"].source == terms["initial_u"].source == "drawn"

    # Two runs further what was given is known from the folder between.
    third = go(
        problem=soft(), points=None, schedule=SCHEDULE, resample=None,
        start=tmp_path / "second", dtype=torch.float32,
    )  # fmt: skip
    sources = {name: term.source for name, term in third.objective.terms.items()}
    given = [name for name, source in sources.items() if source == "given"]
    assert given == ["pde"]
    assert torch.equal(third.objective.terms["pde"].points, rows["pde"].float())


def test_points_taken_over_are_not_held_out(first):
    options = {"schedule": SCHEDULE, "resample": None, "start": first}
    for share in (0.2, {"pde": 0.2}):
        with pytest.raises(ValueError, match=r"hold_out.*'pde'.*pinn.load_points"):
            go(problem=soft(), points=None, hold_out=share, **options)

    points = {"pde": pinn.load_points(first)["pde"]}
    result = go(problem=soft(), points=points, hold_out=0.2, **options)
    assert len(result.objective.terms["pde"].points) == 7


def test_carried_points_are_renewed_and_validated_as_drawn_ones(tmp_path):
    first = go(tmp_path / "first")
    replace = pinn.Resample(pinn.ResidualScore(), n=9, every=2, update="replace")
    options = {"schedule": SCHEDULE, "resample": replace, "keep": "last", "seed": 3}
    second = go(points=None, start=tmp_path / "first", **options)
    # As many as the first run had in the end, with what its resampling added.
    kept = first.objective.terms["pde"].points
    held = second.objective.terms["pde"].points
    assert len(held) == len(kept) > 40
    assert int((held[:, None] == kept).all(-1).any(-1).sum()) == len(kept) - 9

    # The same seed draws the same validation points, whatever is trained on.
    again = go(points=40, start=tmp_path / "first", **options)
    losses = [run.history[0]["validation_loss"] for run in (second, again)]
    assert losses[0] == losses[1]


def test_a_cut_run_resumes_without_the_one_it_started_from(tmp_path):
    first, whole, cut = (tmp_path / name for name in ("first", "whole", "cut"))
    go(first, schedule=SCHEDULE)
    options = {"points": None, "start": first, "resample": None, "progress": False}
    go(whole, schedule=[pinn.Adam(500)], compile=False, **options)
    limited = {"schedule": [pinn.Adam(500)], "compile": False, **options}
    stopped = go(cut, max_seconds=0.05, **limited)
    assert stopped.summary["stopped_by"] == "time limit"
    shutil.rmtree(first)
    go(cut, resume=True, **limited)
    assert_same_run(whole, cut)


def test_terms_without_points_are_named(first, tmp_path):
    with pytest.raises(ValueError, match=r"no count for term 'pde'"):
        go(points=None)
    with pytest.raises(ValueError, match=r"no points for term 'pde': every term needs"):
        go(points={})
    plain = go(tmp_path / "plain", small("wave"))
    assert plain.path is not None
    with pytest.raises(ValueError, match=r"'initial_u'.*has points of pde only: give"):
        go(problem=soft(), points=None, start=plain.path, schedule=SCHEDULE)

    # A term of the same name on another domain.
    line = pinn.Problem(pinn.Interval("x", 0, 1), ("u",), {"pde": lambda u_xx: u_xx})
    config = {"points": {"pde": 3}}
    folder = pinn.RunFolder(tmp_path / "line")
    folder.create(config)
    shutil.copy(plain.path / "checkpoint.safetensors", tmp_path / "line")
    from whence.pinn.training.start import starting_points

    with pytest.raises(ValueError, match=r"have 2 coordinates, those of '.*' 1: give"):
        starting_points(line, None, tmp_path / "line", 0, "random")


def test_command_line_starts_at_the_points_of_a_run(tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    begin = ["train", "burgers", "--out", str(first), "--points", "pde=37"]
    assert cli.main([*begin, *TINY]) == 0
    # Another seed draws others: the same only where they are carried over.
    go_on = ["train", "burgers", "--out", str(second), "--start", str(first)]
    assert cli.main([*go_on, "--seed", "4", "--resampler", "none", *TINY]) == 0
    rows = pinn.load_points(first)["pde"]
    assert torch.equal(pinn.load_points(second)["pde"], rows)

    shutil.rmtree(first)
    assert cli.main(["train", str(second), "--resume"]) == 0


@pytest.mark.parametrize(
    ("flags", "limit"),
    [
        (["--recipe", "own_network"], 420.0),
        (["--schedule", "adam:7"], None),
        (["--schedule", "adam:7", "--max-seconds", "5"], 5.0),
        (["--recipe", "own_network", "--max-seconds", "5"], 5.0),
    ],
)
def test_a_recipe_limits_its_own_schedule_only(flags, limit, monkeypatch, tmp_path):
    from whence.cli import train as command

    asked = {}

    class Stopped(Exception):
        pass

    def record(*arguments, **options):
        asked.update(options)
        raise Stopped

    monkeypatch.setattr(command, "train", record)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Stopped):
        cli.main(["train", "burgers", *flags])
    assert asked["max_seconds"] == limit
