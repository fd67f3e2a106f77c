"""The command line, run as a user runs it, in one small real run."""

import dataclasses
import importlib.metadata
import json
import subprocess
import sys

import numpy as np
import pytest
import torch
import xarray as xr

from whence import cli, pinn
from whence.catalogue import PROBLEMS

TINY = ["--points", "pde=40", "--schedule", "gauss_newton:6", "--quiet"]


def whence(*arguments):
    command = [sys.executable, "-m", "whence.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    out = tmp_path_factory.mktemp("cli") / "run"
    code = cli.main(["train", "burgers", "--out", str(out), "--seed", "3", *TINY])
    assert code == 0
    return out


def test_train_leaves_the_promised_summary(run, capsys):
    summary = json.loads((run / "summary.json").read_text())
    promised = [
        "problem",
        "seed",
        "seconds",
        "iterations",
        "parameters",
        "points",
        "loss",
        "relative_l2",
    ]
    assert set(promised) <= set(summary)
    assert (summary["problem"], summary["seed"], summary["iterations"]) == (
        "burgers",
        3,
        6,
    )
    assert summary["parameters"] == 2241


def test_influence_score_and_plot(run, capsys):
    assert cli.main(["influence", str(run), "--at", "0.1", "0.5"]) == 0
    assert (
        cli.main(["score", str(run), "--candidates", "50", "--influence.n-test", "20"])
        == 0
    )
    assert cli.main(["plot", str(run)]) == 0
    printed = capsys.readouterr().out
    for name in ("influence.nc", "influence.png", "influence.svg", "scores.npz"):
        assert (run / name).is_file(), name
        assert name in printed
    for name in ("solution", "convergence", "points", "influence"):
        assert (run / "figures" / f"{name}.png").stat().st_size > 5000
        assert (run / "figures" / f"{name}.svg").is_file()
    assert "most influential" in printed
    assert "relative L2 error" in printed
    with xr.open_dataarray(run / "influence.nc") as row:
        assert row.dims == ("point",)
        assert float(row["target_x"]) == 0.1
        assert np.isfinite(row).all()
    assert len(pinn.SavedScore.load(run / "scores.npz").values) == 50
    used = [
        "train",
        "burgers",
        "--out",
        str(run.parent / "used"),
        *TINY,
    ]
    used += ["--saved-scores", str(run / "scores.npz"), "--resample.every", "2"]
    assert cli.main([*used, "--resample.n", "4"]) == 0
    points = pinn.load_points(run.parent / "used")["pde"]
    pool = pinn.SavedScore.load(run / "scores.npz").candidates
    assert bool((points[-1] == pool).all(dim=1).any())
    assert not [p.name for p in run.iterdir() if p.name.endswith(".tmp")]


@pytest.mark.parametrize("of", ["u_x", "u_xx", "loss"])
def test_influence_of_other_quantities(run, of, tmp_path):
    assert (
        cli.main(["influence", str(run), "--of", of, "--out", str(tmp_path / "row.nc")])
        == 0
    )
    assert (tmp_path / "row.nc").is_file()


def test_options_reach_the_run(tmp_path):
    out = tmp_path / "run"
    options = ["--score", "residual", "--select", "top_k", "--resample.every", "2"]
    options += [
        "--resample.n",
        "5",
        "--resample.update",
        "replace",
        "--gauss-newton.damping",
        "1",
    ]
    arguments = [
        "train",
        "wave",
        "--constraints",
        "soft",
        "--out",
        str(out),
        *TINY,
        *options,
    ]
    assert cli.main([*arguments, "--seed", "1"]) == 0
    config = json.loads((out / "config.json").read_text())
    assert config["resample"]["score"]["kind"] == "ResidualScore"
    assert config["resample"]["selection"]["kind"] == "TopK"
    assert (config["resample"]["every"], config["resample"]["update"]) == (2, "replace")
    assert config["schedule"][0]["damping"] == 1.0
    assert not config["hard_constraints"]
    assert set(config["points"]) == {"pde", "initial_u", "initial_u_t", "dirichlet_u"}


def test_a_run_in_five_dimensions_is_explained_and_drawn_without_maps(tmp_path, capsys):
    run = tmp_path / "run"
    few = ["--points", "pde=20", "dirichlet_u=20", "--layers", "5", "4", "1"]
    few += ["--schedule", "gauss_newton:2", "--quiet", "--out", str(run)]
    assert cli.main(["train", "poisson_5d", *few]) == 0
    place = ["--at", "0.1", "0.2", "0.3", "0.4", "0.5"]
    assert cli.main(["influence", str(run), *place]) == 0
    assert "no figure: a map needs two coordinates" in capsys.readouterr().out
    assert (run / "influence.nc").is_file()

    assert cli.main(["plot", str(run)]) == 0
    assert "no maps of points and influence" in capsys.readouterr().out
    figures = sorted(path.name for path in (run / "figures").glob("*.png"))
    assert figures == ["convergence.png", "solution.png"]


def test_resume_and_start(run, tmp_path, capsys):
    again = ["train", "burgers", "--out", str(run), "--seed", "3", *TINY]
    assert cli.main(again) == cli.EXIT_ERROR
    assert "already holds a run" in capsys.readouterr().err
    assert cli.main([*again, "--resume"]) == 0
    other = [
        "train",
        "burgers",
        "--out",
        str(tmp_path / "b"),
        "--start",
        str(run),
        *TINY,
    ]
    assert cli.main(other) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["influence", "no/run"], "holds no whence run"),
        (["plot", "no/run"], "holds no whence run"),
        (["score", "no/run"], "holds no whence run"),
        (["train", "wave", "--schedule", "sgd:3"], "--schedule takes KIND:ITERATIONS"),
        (["train", "wave", "--points", "pde:3"], "--points takes TERM=COUNT"),
        (["train", "wave", "--points", "pdf=3"], "did you mean 'pde'"),
        (
            ["train", "wave", "--score", "residual", "--grad-dot.sign", "abs"],
            "--grad-dot.sign does nothing, as no score 'grad_dot' is in use but 'residual'",
        ),
        (["train", "wave", "--max-seconds", "-1"], "max_seconds"),
        (["train", "wave", "--max-seconds", "0"], "max_seconds"),
        (["train", "wave", "--points", "pde=0"], "number of points of term 'pde'"),
        (["train", "wave", "--start", "no/run"], "holds no checkpoint"),
        (["train", "wave", "--device", "tpu"], "device 'tpu' cannot be used"),
        (["train", "wave", "--resume"], "holds no whence run"),
        (
            ["train", "wave", "--adam.lr", "1"],
            "--adam.lr does nothing, as no optimizer 'adam' is in use but 'gauss_newton'",
        ),
        (
            ["train", "wave", "--resampler", "none", "--influence.n-test", "9"],
            "--influence.n-test does nothing, as no score",
        ),
        (
            ["train", "wave", "--resampler", "none", "--resample.n", "9"],
            "--resample.n does nothing",
        ),
        (
            ["train", "wave", "--resampler", "none", "--select", "top_k"],
            "--select does nothing",
        ),
        (
            ["train", "wave", "--resampler", "r3", "--select", "top_k"],
            "--select does nothing with",
        ),
        (
            ["train", "wave", "--resampler", "r3", "--resample.n", "5"],
            "--resample.n does nothing",
        ),
        (
            ["train", "wave", "--score", "residual", "--select", "k_means"],
            "selects by embeddings",
        ),
        (["train", "wave", "--weights", "pde:3"], "--weights takes TERM=NUMBER"),
        (["train", "wave", "--weights", "pdf=3"], "did you mean 'pde'"),
        (
            ["train", "wave", "--weights", "pde=-1"],
            "weight of term 'pde' must be zero or",
        ),
        (["train", "wave", "--ntk.alpha", "0.1"], "as no weighting 'ntk' is in use"),
        (["train", "wave", "--lr", "0.1"], "--lr does nothing, as no adam"),
        (["train", "wave", "--layers", "3", "8", "1"], "must map 2 input(s)"),
        (["train", "wave", "--layers", "2", "8", "1", "--activation", "tan"], "'tanh'"),
        (["train", "wav"], "did you mean 'wave'"),
        (["train", "wave.py"], "there is no file wave.py"),
        (
            ["train", "wave", "--weighting", "ntk", "--relobralo.rho", "0.5"],
            "no weighting 'relobralo' is in use but 'ntk'",
        ),
        (
            ["train", "wave", "--weighting", "ntk", "--ntk.alpha", "2"],
            "alpha must",
        ),
        (
            [
                "train",
                "wave",
                "--weighting",
                "causal",
                "--causal.coordinate",
                "y",
            ],
            "'y'",
        ),
        (["train", "wave", "--spectra-every", "0"], "every must be a positive integer"),
    ],
)
def test_errors_are_one_line_and_leave_nothing(
    arguments, message, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    assert cli.main(arguments) == cli.EXIT_ERROR
    error = capsys.readouterr().err
    assert error.startswith("whence: error: ")
    assert message in error
    assert list(tmp_path.iterdir()) == []


def test_weights_and_spectra_of_a_run(tmp_path, capsys):
    out, points = (
        tmp_path / "run",
        [f"{n}=8" for n in pinn.zoo.load("wave", "soft").terms],
    )
    given = [
        "--constraints",
        "soft",
        "--schedule",
        "adam:20",
        "--resampler",
        "r3",
        "--quiet",
    ]
    given += [
        "--weights",
        "initial_u=2",
        "--weighting",
        "ntk",
        "--spectra-every",
        "20",
    ]
    given += [
        "--ntk.alpha",
        "0.9",
        "--ntk.update-every",
        "10",
    ]
    assert (
        cli.main(["train", "wave", "--out", str(out), "--points", *points, *given]) == 0
    )
    config = json.loads((out / "config.json").read_text())
    assert config["weights"] == {"initial_u": 2.0}
    assert config["weighting"] == {
        "kind": "NeuralTangentKernel",
        "alpha": 0.9,
        "update_every": 10,
        "estimate": "trace",
    }
    assert config["resample"]["kind"] == "R3"
    assert pinn.RunFolder(out).spectra()["iteration"].tolist() == [0, 20]
    weights = pinn.load_weights(out)
    row = next(r for r in pinn.RunFolder(out).history() if r["iteration"] == json.loads(
        (out / "summary.json").read_text())["kept_iteration"])  # fmt: skip
    assert {n: float(w) for n, w in weights.items()} == {
        n: row[f"weight_{n}"] for n in weights
    }
    assert cli.main(["plot", str(out)]) == 0
    assert (out / "figures" / "spectra.png").stat().st_size > 5000
    assert cli.main(["influence", str(out), "--at", "0.1", "0.5"]) == 0


def test_the_seed_of_a_score_moves_its_test_points_too(run, tmp_path, monkeypatch):
    seen = []
    prepared = pinn.GradDotScore.prepared
    monkeypatch.setattr(
        pinn.GradDotScore,
        "prepared",
        lambda s, *a: seen.append(s.seed) or prepared(s, *a),
    )
    out = [
        "--out",
        str(tmp_path / "new" / "scores.npz"),
        "--candidates",
        "9",
        "--seed",
        "4",
    ]
    assert cli.main(["score", str(run), "--score", "grad_dot", *out]) == 0
    assert seen == [4]
    assert (tmp_path / "new" / "scores.npz").is_file()


def test_wrong_places_are_refused(run, capsys):
    of_loss = ["influence", str(run), "--of", "loss", "--at", "0", "0.5"]
    assert cli.main(of_loss) == cli.EXIT_ERROR
    assert "--at does nothing" in capsys.readouterr().err
    assert cli.main(["influence", str(run), "--at", "5", "0.5"]) == cli.EXIT_ERROR
    assert "outside the domain" in capsys.readouterr().err
    assert cli.main(["influence", str(run), "--at", "0.5"]) == cli.EXIT_ERROR
    assert "--at takes 2 numbers (x, t), got 1" in capsys.readouterr().err
    assert cli.main(["influence", str(run), "--out", "x.png"]) == cli.EXIT_ERROR
    assert "ends in .nc" in capsys.readouterr().err
    assert cli.main(["influence", str(run), "--of", "u_z"]) == cli.EXIT_ERROR
    assert "unknown name 'u_z'" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["", *cli.COMMANDS])
def test_help_says_what_each_command_does(command, capsys):
    with pytest.raises(SystemExit) as end:
        cli.main([*command.split(), "--help"])
    assert not end.value.code
    shown = capsys.readouterr().out
    assert "usage: whence" in shown
    # No markup of docstrings or comments.
    for mark in ("ignore[", ":class:", ":func:", "``"):
        assert mark not in shown


def test_help_of_the_installed_command():
    shown = whence("--help")
    assert shown.returncode == 0
    assert "usage: whence" in shown.stdout


def test_problems_lists_the_zoo(capsys):
    assert cli.main(["problems"]) == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in pinn.zoo.names())


def test_unknown_problem_names_the_choices(capsys):
    assert cli.main(["train", "burger"]) == 2
    assert "burgers" in capsys.readouterr().err


def test_version_and_overview(capsys):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"whence {importlib.metadata.version('whence')}\n"
    for arguments, code in (([], 2), (["--help"], 0)):
        with pytest.raises(SystemExit) as ended:
            cli.main(arguments)
        assert ended.value.code == code
        printed = capsys.readouterr()
        assert all(name in printed.out + printed.err for name in cli.COMMANDS)


def test_a_loss_that_is_not_finite_is_an_error(tmp_path, capsys, monkeypatch):
    def broken(u, u_x, u_t, u_xx, t):
        return u_t + u * u_x - u_xx + torch.where(u.abs() > 0.999, u / 0, u)

    problem = dataclasses.replace(pinn.zoo.load("burgers"), equations={"pde": broken})
    monkeypatch.setattr(PROBLEMS["burgers"], "problem", lambda *given: problem)
    out = tmp_path / "run"
    assert cli.main(["train", "burgers", "--out", str(out), *TINY]) == cli.EXIT_ERROR
    assert "term 'pde' is not finite" in capsys.readouterr().err
