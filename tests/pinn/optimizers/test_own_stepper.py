"""What docs/optimizers.md shows: a stepper of one's own trains, resumes and has a name."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import trainings

from whence import cli, pinn
from whence.catalogue import OPTIMIZERS

DOCS = Path(__file__).parents[3] / "docs" / "optimizers.md"
BLOCKS = re.findall(r"```python\n(.*?)```", DOCS.read_text(), flags=re.S)


@pytest.fixture(name="shown")
def _shown(monkeypatch):
    """The names of the first block; the catalogue forgets them afterwards."""
    _ = len(OPTIMIZERS)  # it must have read its folder before
    for names in ("_things", "_homes"):
        monkeypatch.setattr(OPTIMIZERS, names, dict(getattr(OPTIMIZERS, names)))
    scope = {"__name__": "shown"}
    exec(compile(BLOCKS[0], "optimizers.md", "exec"), scope)
    return scope


def test_the_blocks_run(shown, capsys):
    assert len(BLOCKS) == 2
    exec(compile(BLOCKS[1], "optimizers.md", "exec"), shown)
    assert "relative error" in capsys.readouterr().out


def test_the_class_and_its_stepper_take_about_twenty_lines():
    body = BLOCKS[0].split("@dataclass")[1]
    assert len([line for line in body.split("\n") if line.strip()]) <= 26


def test_it_is_what_the_protocols_say(shown):
    assert isinstance(shown["Momentum"](5), pinn.Optimizer)
    objective = trainings.small().objective(
        trainings.small().network(0), trainings.small().sample(20, seed=0)
    )
    stepper = shown["Momentum"](5).start(objective.parameters)
    assert isinstance(stepper.advance(objective, 2), pinn.Progress)
    state = stepper.state()
    kept = state.tensors["velocity"].clone()
    stepper.advance(objective, 2)
    assert torch.equal(state.tensors["velocity"], kept)


def test_it_resumes_to_the_same_bits(shown, tmp_path):
    stages = [shown["Momentum"](30), pinn.GaussNewton(2)]
    trainings.go(tmp_path / "whole", schedule=stages)
    trainings.go(tmp_path / "cut", schedule=stages, max_seconds=1e-6)
    trainings.go(tmp_path / "cut", schedule=stages, resume=True)
    trainings.assert_same_run(tmp_path / "whole", tmp_path / "cut")


def test_the_command_line_knows_it(tmp_path):
    """In a process of its own: flags are made once, of what is in the catalogue by then."""
    script = tmp_path / "momentum.py"
    main = "import sys\nfrom whence import cli\nsys.exit(cli.main(sys.argv[1:]))\n"
    script.write_text(f"{BLOCKS[0]}\n{main}")
    command = ["train", "diffusion", "--points", "pde=20", "--schedule", "momentum:4"]
    more = ["--momentum.lr", "0.02", "--quiet", "--out", str(tmp_path / "run")]
    subprocess.run([sys.executable, str(script), *command, *more], check=True)
    (stage,) = pinn.RunFolder(tmp_path / "run").config()["schedule"]
    assert stage["kind"] == "Momentum"
    assert stage["lr"] == 0.02


def test_the_command_line_knows_the_quasi_newton_methods(tmp_path):
    command = ["train", "diffusion", "--points", "pde=20", "--quiet", "--schedule"]
    stages = ["bfgs:4", "ssbfgs:3", "ssbroyden:2", "--ssbroyden.on-resample", "restart"]
    assert cli.main([*command, *stages, "--out", str(tmp_path / "run")]) == 0
    config = pinn.RunFolder(tmp_path / "run").config()["schedule"]
    assert [stage["kind"] for stage in config] == ["BFGS", "SSBFGS", "SSBroyden"]
    assert config[2]["on_resample"] == "restart"
