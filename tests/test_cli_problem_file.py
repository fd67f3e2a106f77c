"""A user's own problem file on the command line, from training to a plot; and an old run."""

import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import torch

from whence import cli, pinn
from whence.cli import train as train_command
from whence.pinn.training import loop, march
from whence.pinn.training.problem_file import read_problem_file

OLD_RUN = Path(__file__).parent / "data" / "run_format_2"

HEAT = """
import torch
from whence import pinn

problem = pinn.Problem(
    name="heat",
    domain=pinn.Interval("x", 0, 1) * pinn.Interval("t", 0, 1),
    outputs=("u",),
    equations={"pde": lambda u_t, u_xx: u_t - 0.1 * u_xx},
    conditions=[
        pinn.Initial(u=lambda x: torch.sin(torch.pi * x)),
        pinn.Dirichlet(u=0.0, on="x"),
    ],
)
"""

FEW = ["--points", "pde=20", "initial_u=6", "dirichlet_u=6", "--resampler", "none"]
SHORT = [*FEW, "--schedule", "gauss_newton:3", "--quiet"]


def write(folder, text, name="heat.py"):
    path = folder / name
    path.write_text(text)
    return path


def train(file, out, *arguments):
    return cli.main(["train", str(file), "--out", str(out), *arguments])


def theta(run):
    return pinn.load_run(run).objective.parameters.vector()


# --- from training to a plot --------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of a file without a reference solution, with a network by flags."""
    folder = tmp_path_factory.mktemp("file")
    file = write(folder, HEAT)
    flags = ["--layers", "2", "6", "6", "1", "--activation", "sin", "--lr", "0.01"]
    schedule = ["--schedule", "adam:20", "gauss_newton:3", "--quiet"]
    assert train(file, folder / "run", *FEW, *flags, *schedule) == 0
    return folder / "run"


def test_flags_choose_the_network_and_the_optimizer(run):
    config = pinn.RunFolder(run).config()
    options = config["architecture"]["options"]
    assert options["layers"] == [2, 6, 6, 1]
    assert options["activation"] == "sin"
    assert [stage["kind"] for stage in config["schedule"]] == ["Adam", "GaussNewton"]
    assert config["schedule"][0]["lr"] == 0.01


def test_the_folder_holds_the_file_so_that_the_run_stands_alone(run, tmp_path):
    alone = tmp_path / "elsewhere"
    shutil.copytree(run, alone)
    assert (alone / "problem.py").read_text() == HEAT
    result = pinn.load_run(alone)
    assert result.problem.terms == ("pde", "initial_u", "dirichlet_u")
    assert result.network.activation == "sin"


def test_every_command_takes_a_run_without_a_reference(run, tmp_path, capsys):
    out = tmp_path / "out"
    few = ["--candidates", "20", "--influence.n-test", "10"]
    assert cli.main(["score", str(run), *few, "--out", str(out / "s.npz")]) == 0
    assert cli.main(["influence", str(run), "--out", str(out / "i.nc")]) == 0
    assert cli.main(["plot", str(run), "--out", str(out / "figures")]) == 0
    assert cli.main(["problems", str(run / "problem.py")]) == 0
    printed = capsys.readouterr().out
    assert "relative L2" not in printed
    assert "reference    none" in printed
    assert "pde(u_t, u_xx): lambda u_t, u_xx: u_t - 0.1 * u_xx\n" in printed
    for name in ("s.npz", "i.nc", "figures/solution.png", "figures/points.svg"):
        assert (out / name).is_file(), name


def test_a_finished_run_is_resumed_to_the_same(run, capsys):
    before = theta(run)
    assert cli.main(["train", str(run), "--resume"]) == 0
    assert torch.equal(theta(run), before)
    assert "heat: validation loss" in capsys.readouterr().out


def exit_code_of(work):
    """Do some work in a process of its own, forked, as to start one takes longest."""
    child = os.fork()
    if not child:
        try:
            work()
        finally:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_run_killed_after_a_checkpoint_goes_on_to_the_same_bits(
    tmp_path, monkeypatch
):
    """It is resumed by its folder alone: the file has changed in the meantime."""
    file = write(tmp_path, HEAT)
    schedule = ["--schedule", "adam:200", "--compile", "no"]
    arguments = [*FEW, "--layers", "2", "8", "1", *schedule, "--quiet"]
    assert train(file, tmp_path / "whole", *arguments) == 0

    save = loop.Loop._save

    def saved_for_the_last_time(run, *given):
        save(run, *given)
        if run.place.iteration >= 50:
            die()

    # A checkpoint after every round of steps.
    killed = tmp_path / "killed"
    with monkeypatch.context() as patched:
        patched.setattr(loop, "CHECKPOINT_SECONDS", 0.0)
        patched.setattr(loop.Loop, "_save", saved_for_the_last_time)
        code = exit_code_of(lambda: train(file, killed, *arguments))
    assert code == -signal.SIGKILL
    place = pinn.RunFolder(killed).checkpoint().numbers["place"]
    assert 50 <= place["iteration"] < 200

    file.write_text("problem = None")
    assert not (killed / "summary.json").exists()
    assert cli.main(["train", str(killed), "--resume"]) == 0
    assert torch.equal(theta(killed), theta(tmp_path / "whole"))


def test_a_march_killed_before_joining_goes_on_to_the_same_bits(tmp_path, monkeypatch):
    """Its own folder has no configuration yet, but that of its first slab says enough."""
    file = write(tmp_path, HEAT)
    slabs = ["--recipe", "slabs:tanh:4:30:0.4:1e3", "--seed", "2", "--quiet"]
    assert train(file, tmp_path / "whole", *slabs) == 0

    train_slab = march.train

    def killed_in_the_second(*given, out, **options):
        if out.name == "001":
            die()
        return train_slab(*given, out=out, **options)

    run = tmp_path / "run"
    with monkeypatch.context() as patched:
        patched.setattr(march, "train", killed_in_the_second)
        code = exit_code_of(lambda: train(file, run, *slabs))
    assert code == -signal.SIGKILL
    assert [path.name for path in (run / "slabs").iterdir()] == ["000"]
    assert not (run / "config.json").exists()

    file.write_text("problem = None")
    assert cli.main(["train", str(run), "--resume"]) == 0
    assert torch.equal(theta(run), theta(tmp_path / "whole"))
    # What is whole now goes on as any other run does.
    assert cli.main(["train", str(run), "--resume"]) == 0
    assert torch.equal(theta(run), theta(tmp_path / "whole"))


# --- what a file may define ---------------------------------------------------------------------


def test_a_network_by_a_function_of_the_seed(tmp_path):
    text = (
        HEAT
        + "\ndef network(seed):\n    return pinn.MLP([2, 5, 1], 'silu', seed=seed)\n"
    )
    file = write(tmp_path, text)
    assert train(file, tmp_path / "run", *SHORT, "--seed", "4") == 0
    network = pinn.load_run(tmp_path / "run").network
    assert network.layers == (2, 5, 1)
    assert network.activation == "silu"

    # Flags change what they name and leave the rest of the file's network.
    assert train(file, tmp_path / "b", *SHORT, "--activation", "gelu") == 0
    network = pinn.load_run(tmp_path / "b").network
    assert (network.layers, network.activation) == ((2, 5, 1), "gelu")


def test_a_network_of_ones_own_kind(tmp_path):
    text = HEAT + (
        "\nclass Sum(torch.nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.inner = pinn.MLP([2, 4, 1], seed=0)\n"
        "    def forward(self, z):\n"
        "        return self.inner(z) + self.inner(-z)\n"
        "\nnetwork = Sum\n"
    )
    file = write(tmp_path, text)
    assert train(file, tmp_path / "run", *SHORT) == 0
    result = pinn.load_run(tmp_path / "run")
    assert type(result.network).__name__ == "Sum"
    assert result.solution([[0.5, 0.5]]).shape == (1, 1)


def test_without_a_network_it_is_three_layers_of_32_over_the_domain(tmp_path):
    source = read_problem_file(write(tmp_path, HEAT))
    network = source.network(source.problem(), seed=0)
    assert network.layers == (2, 32, 32, 32, 1)
    assert torch.equal(network.bounds, torch.tensor([[0.0, 0], [1, 1]]).double())


def test_a_recipe_says_how_to_train(tmp_path):
    text = HEAT + (
        "\nrecipe = pinn.Recipe(\n"
        "    points={'pde': 15, 'initial_u': 5, 'dirichlet_u': 5},\n"
        "    schedule=(pinn.GaussNewton(2),), resample=None, max_seconds=60.0)\n"
    )
    file = write(tmp_path, text)
    layers = ["--layers", "2", "6", "1", "--quiet"]
    assert train(file, tmp_path / "run", *layers, "--points", "pde=20") == 0
    config = pinn.RunFolder(tmp_path / "run").config()
    assert config["points"] == {"pde": 20, "initial_u": 5, "dirichlet_u": 5}
    assert config["schedule"][0]["iterations"] == 2
    assert config["resample"] is None


def test_a_recipe_with_a_score_of_ones_own(tmp_path):
    """What has no name in the catalogue cannot be changed by flags, and is left as it is."""
    text = HEAT + (
        "\nclass Early:\n"
        "    def score(self, objective, candidates):\n"
        "        return 1 - candidates['pde'][:, 1]\n"
        "\nrecipe = pinn.Recipe(\n"
        "    points={'pde': 15, 'initial_u': 5, 'dirichlet_u': 5},\n"
        "    schedule=(pinn.GaussNewton(4),), max_seconds=60.0,\n"
        "    resample=pinn.Resample(Early(), pinn.TopK(), n=3, every=2, candidates=50))\n"
    )
    file = write(tmp_path, text)
    layers = ["--layers", "2", "6", "1", "--quiet"]
    assert train(file, tmp_path / "run", *layers, "--resample.n", "2") == 0
    points = pinn.load_points(tmp_path / "run")["pde"]
    assert len(points) > 15
    assert bool((points[15:, 1] < 0.2).all())


def test_constraints_reach_functions_of_them(tmp_path):
    text = HEAT.replace("problem =", "soft =") + (
        "\nimport dataclasses\n"
        "def problem(constraints='hard'):\n"
        "    if constraints == 'soft':\n"
        "        return soft\n"
        "    return dataclasses.replace(\n"
        "        soft, conditions=(), ansatz=lambda x, t, u: x * (1 - x) * t * u)\n"
        "def recipe():\n"
        "    return pinn.growing_recipe(soft)\n"
    )
    file = write(tmp_path, text)
    assert train(file, tmp_path / "soft", *SHORT, "--constraints", "soft") == 0
    assert len(pinn.load_run(tmp_path / "soft").problem.terms) == 3
    hard = read_problem_file(file).problem()
    assert hard.terms == ("pde",)


def test_points_of_a_condition_at_an_end_are_as_many_as_there_are(tmp_path):
    text = (
        "from whence import pinn\n"
        "problem = pinn.Problem(\n"
        "    pinn.Interval('x', 0, 1), ('u',), {'pde': lambda u_xx: u_xx - 1},\n"
        "    conditions=[pinn.Dirichlet(u=0.0, on='x_min'), pinn.Neumann(u=0.0, on='x_max')])\n"
    )
    source = read_problem_file(write(tmp_path, text))
    recipe = source.recipe(source.problem())
    assert recipe.points == {"pde": 500, "dirichlet_u": 1, "neumann_u": 1}


# --- what is wrong ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "arguments", "message"),
    [
        ("probelm = 3", [], "must define problem (did you mean 'probelm'?)"),
        ("problem = 3", [], "problem in {file} must be a pinn.Problem"),
        ("problem = lambda: 3", [], "problem in {file} must be a pinn.Problem"),
        ("\nimport nothing_there", [], "{file} fails in line 2: ModuleNotFoundError"),
        ("problem = (", [], "{file} is not valid Python, line 1"),
        (HEAT + "network = 5", [], "network in {file} must be a torch.nn.Module"),
        (HEAT + "recipe = 5", [], "recipe in {file} must be a pinn.Recipe"),
        (HEAT, ["--constraints", "soft"], "leave --constraints out"),
        (
            HEAT + "given = problem\ndef problem():\n    return given",
            ["--constraints", "soft"],
            "takes no constraints",
        ),
        (HEAT, ["--points", "pdf=5"], "did you mean 'pde'"),
        (HEAT, ["--layers", "3", "8", "1"], "must map 2 input(s) (x, t)"),
        (HEAT, ["--activation", "sine"], "did you mean 'sin'"),
        (HEAT, ["--schedule", "adams:5"], "did you mean 'adam'"),
    ],
)
def test_what_is_wrong_is_one_line_and_leaves_nothing(
    text, arguments, message, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    Path("heat.py").write_text(text)
    # Said before recipes are tried, which takes long.
    monkeypatch.setattr(train_command, "automatic_recipe", None)
    assert cli.main(["train", "heat.py", *arguments]) == cli.EXIT_ERROR
    error = capsys.readouterr().err
    assert error.startswith("whence: error: ")
    assert error.count("\n") == 1
    assert message.format(file="heat.py") in error
    assert [path.name for path in tmp_path.iterdir()] == ["heat.py"]


def test_a_file_named_without_its_ending(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("heat.py").write_text(HEAT)
    assert cli.main(["train", "heat"]) == cli.EXIT_ERROR
    assert "name the file, heat.py" in capsys.readouterr().err


def test_a_folder_is_resumed_only_if_that_is_said(run, tmp_path, capsys):
    assert cli.main(["train", str(run)]) == cli.EXIT_ERROR
    assert "go on with a run by --resume" in capsys.readouterr().err
    assert cli.main(["train", str(tmp_path), "--resume"]) == cli.EXIT_ERROR
    assert "holds no whence run" in capsys.readouterr().err


def test_a_changed_file_cannot_resume_by_its_name(tmp_path, capsys):
    file = write(tmp_path, HEAT)
    assert train(file, tmp_path / "run", *SHORT, "--layers", "2", "4", "1") == 0
    file.write_text(HEAT.replace("0.1 *", "0.2 *"))
    again = [*SHORT, "--layers", "2", "4", "1", "--resume"]
    assert train(file, tmp_path / "run", *again) == cli.EXIT_ERROR
    assert "was made with problem_file" in capsys.readouterr().err


# --- a run of the format before -----------------------------------------------------------------

OLD_OPTIONS = {
    "points": {"pde": 12},
    "schedule": [pinn.GaussNewton(10)],
    "resample": pinn.Resample(pinn.ResidualScore(), n=3, every=4, candidates=20),
    "validation": 20,
    "seed": 1,
    "dtype": torch.float32,
    "progress": False,
}
"""How the run under tests/data was made; it was stopped after iteration 5."""


@pytest.fixture
def old_run(tmp_path):
    shutil.copytree(OLD_RUN, tmp_path / "old")
    return tmp_path / "old"


def test_a_run_of_format_2_is_read(old_run):
    result = pinn.load_run(old_run)
    assert result.summary["stopped_by"] == "stop criterion"
    assert result.history["iteration"].tolist() == [0, 5]
    assert len(result.objective.locations("pde")) == 15
    loss = result.history[-1]["loss"]
    assert float(result.objective.loss()) == pytest.approx(loss, rel=1e-4)
    grid = result.problem.domain.sample(10_000, "grid")
    error = result.problem.relative_l2(result.network, grid)
    assert error == pytest.approx(result.summary["relative_l2"], rel=1e-4)


def test_a_run_of_format_2_is_drawn_and_explained(old_run, capsys):
    assert cli.main(["plot", str(old_run)]) == 0
    assert (old_run / "figures" / "solution.png").stat().st_size > 5000
    assert cli.main(["influence", str(old_run), "--at", "0.5", "0.5"]) == 0
    assert "relative L2 error" in capsys.readouterr().out


def test_a_run_of_format_2_goes_on(old_run):
    """It ends where a run does that was never stopped, up to the rounding of another machine."""
    problem = pinn.zoo.load("diffusion")
    resumed = pinn.train(problem, out=old_run, resume=True, **OLD_OPTIONS)
    whole = pinn.train(problem, **OLD_OPTIONS)
    assert resumed.summary["iterations"] == 10
    assert resumed.summary["rounds"] == whole.summary["rounds"]
    np.testing.assert_allclose(
        resumed.history["loss"], whole.history["loss"], rtol=0.05
    )


def test_a_run_of_format_2_cannot_be_resumed_by_its_folder(old_run, capsys):
    assert cli.main(["train", str(old_run), "--resume"]) == cli.EXIT_ERROR
    assert "was not made by whence train" in capsys.readouterr().err
