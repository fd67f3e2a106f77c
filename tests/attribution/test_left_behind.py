"""What a killed attribution leaves, and an output that takes nothing more."""

import os
import subprocess
import sys

import pytest
import torch
from torch import nn

import whence as wh
from whence._files import temporary_beside


def test_folders_that_were_never_begun_are_removed(tmp_path):
    x, y = torch.rand(6, 3), torch.arange(6) % 2
    method = wh.GradDot(nn.Linear(3, 2), (x, y), nn.CrossEntropyLoss())

    out = tmp_path / "scores[1].zarr"
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    name = temporary_beside(tmp_path / f".{out.name}.unfinished").name
    left = tmp_path / name.replace(f"-{os.getpid()}.", f"-{dead.pid}.")
    alive = tmp_path / name.replace(f"-{os.getpid()}.", f"-{os.getppid()}.")
    for folder in (left, alive, tmp_path / name):
        folder.mkdir()
    method.attribute(wh.Loss(), out=out)
    assert {path.name for path in tmp_path.iterdir()} == {out.name, alive.name}


MODEL = """
import torch, tqdm
from torch import nn
for _ in tqdm.tqdm(range(2000), mininterval=0): pass
data = test = torch.rand(6, 3), torch.arange(6) % 2
model, loss = nn.Linear(3, 2), nn.CrossEntropyLoss()
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/dev/full is Linux's")
def test_a_full_output_is_no_failure_of_results(tmp_path):
    path = tmp_path / "model.py"
    path.write_text(MODEL)
    command = [sys.executable, "-m", "whence.cli", "influence", str(path)]
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, stdout=full, stderr=full, check=False)
    assert done.returncode == 0
    assert (tmp_path / "model_influence.nc").is_file()
    assert (tmp_path / "model_influence.png").is_file()

    # A wrong call is still an error; of this one it is known before torch is imported.
    wrong = [sys.executable, "-m", "whence.cli", "influences", str(path)]
    with open("/dev/full", "w") as full:
        done = subprocess.run(wrong, stdout=full, stderr=full, check=False)
    assert done.returncode == 2
