"""A package outside of whence adds one thing of each kind by entry points, really installed."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from warm_process import commands

PLUGIN = Path(__file__).parent / "plugin"
ADDED = {
    "problems": "decay",
    "networks": "bilinear",
    "samplings": "diagonal",
    "scores": "distance",
    "selections": "every_other",
    "resamplers": "shuffle",
    "optimizers": "descent",
    "weightings": "by_loss",
    "settings": "brief",
    "solvers": "diagonal_only",
    "methods": "plain_products",
    "quantities": "energy",
}
OPTIONS = [
    "--points", "pde=20", "initial_u=5", "--constraints", "soft", "--network", "bilinear",
    "--sampling", "diagonal", "--schedule", "descent:20", "--descent.lr", "0.02",
    "--weighting", "by_loss", "--by-loss.power", "0.25", "--resampler", "resample",
    "--resample.every", "5", "--resample.n", "3", "--resample.candidates", "30",
    "--score", "distance", "--distance.power", "2", "--select", "every_other", "--quiet",
]  # fmt: skip


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Install the package into a folder of its own, by pip."""
    folder = tmp_path_factory.mktemp("plugin")
    source = folder / "source"
    for path in PLUGIN.rglob("*"):
        if path.suffix in (".py", ".toml"):
            target = source / path.relative_to(PLUGIN)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    subprocess.run(
        [
            sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index",
            "--no-build-isolation", "--target", str(folder / "site"), str(source),
        ],
        check=True,
    )  # fmt: skip
    return folder / "site"


@pytest.fixture(scope="module")
def whence(site, tmp_path_factory):
    """The command line, where the package is installed; each command is a process."""
    with commands(tmp_path_factory.mktemp("printed"), PYTHONPATH=str(site)) as run:
        yield run


@pytest.fixture(scope="module")
def run(whence, tmp_path_factory):
    out = tmp_path_factory.mktemp("run") / "run"
    done = whence("train", "decay", "--out", out, *OPTIONS)
    assert done.returncode == 0, done.stderr
    return out


def test_everything_is_in_the_catalogue(whence):
    shown = whence("catalogue").stdout
    for name in ADDED.values():
        assert f"  {name} " in shown


def test_everything_is_in_the_help(whence):
    shown = " ".join(whence("train", "--help").stdout.split())
    for flag in ("--distance.power", "--descent.momentum", "--by-loss.power"):
        assert flag in shown
    for name in ("bilinear", "diagonal", "every_other", "shuffle"):
        assert name in shown
    shown = whence("influence", "--help").stdout
    assert "plain_products" in shown
    assert "diagonal_only" in shown


def test_its_parts_are_used(run):
    config = json.loads((run / "config.json").read_text())
    assert config["problem"] == "decay"
    assert config["architecture"]["name"] == "bilinear"
    assert config["sampling"] == "diagonal"
    assert config["schedule"] == [
        {"kind": "Descent", "iterations": 20, "lr": 0.02, "momentum": 0.9}
    ]
    assert config["weighting"]["power"] == 0.25
    assert config["resample"]["score"] == {"kind": "DistanceScore", "power": 2.0}
    assert config["resample"]["selection"] == {"kind": "EveryOther"}
    assert json.loads((run / "summary.json").read_text())["rounds"] == 3


def test_a_run_resumes_to_the_same_bits(whence, run, tmp_path):
    cut = tmp_path / "cut"
    stopped = whence("train", "decay", "--out", cut, *OPTIONS, "--max-seconds", "1e-6")
    assert stopped.returncode == 0, stopped.stderr
    assert not json.loads((cut / "summary.json").read_text())["finished"]
    resumed = whence("train", cut, "--resume", "--max-seconds", "1000")
    assert resumed.returncode == 0, resumed.stderr
    loss, expected = (
        json.loads((folder / "summary.json").read_text())["loss"]
        for folder in (cut, run)
    )
    assert loss == expected


AT = ("--at", "0.5", "0.5")
# Its method needs no solver.
VERBS = (
    ("influence", "--of", "energy", "--solver", "diagonal_only", *AT),
    ("influence", "--method", "plain_products", *AT),
    ("score", "--score", "distance", "--candidates", "20"),
    ("plot",),
)


def test_every_verb_works_from_the_run_alone(whence, run):
    for verb, *options in VERBS:
        done = whence(verb, run, *options)
        assert done.returncode == 0, done.stderr
    assert (run / "influence.nc").exists()
    assert whence("problems", "decay").returncode == 0


def test_other_resamplers_work(whence, tmp_path):
    done = whence(
        "train", "decay", "--out", tmp_path / "run", "--points", "pde=10",
        "--schedule", "gauss_newton:6", "--resampler", "shuffle", "--shuffle.every", "2",
        "--quiet",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["rounds"] == 2


def test_classes_are_names_of_the_package(site):
    code = (
        "from whence import pinn; import whence as wh; "
        "print(pinn.DistanceScore(2.0), pinn.Descent(3), wh.Energy.__name__)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(site)},
    )
    assert "DistanceScore(power=2.0)" in done.stdout
    assert "Energy" in done.stdout


def test_a_setting_trains(whence, tmp_path):
    out = tmp_path / "run"
    done = whence("train", "decay", "--setting", "brief", "--out", out, "--quiet")
    assert done.returncode == 0, done.stderr
    assert json.loads((out / "summary.json").read_text())["iterations"] == 6
