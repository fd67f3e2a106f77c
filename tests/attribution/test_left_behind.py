"""What a killed attribution leaves, and an output that takes nothing more."""

import subprocess
import sys

import pytest
import torch
from torch import nn

import whence as wh
from whence._lock import locked

SLOW = """
import sys, time, torch, whence as wh
x, y = torch.rand(6, 3), torch.arange(6) % 2
objective = wh.Objective.supervised(torch.nn.Linear(3, 2), (x, y), torch.nn.CrossEntropyLoss())
method = wh.GradDot(objective)
tiles = method.tiles
def slow(*arguments):
    for tile in tiles(*arguments):
        print("started", flush=True)
        time.sleep(60)
        yield tile
method.tiles = slow
method.attribute(wh.Loss(), out=sys.argv[1])
"""


@pytest.fixture
def method():
    x, y = torch.rand(6, 3), torch.arange(6) % 2
    return wh.GradDot(
        wh.Objective.supervised(nn.Linear(3, 2), (x, y), nn.CrossEntropyLoss())
    )


def test_folders_of_killed_processes_are_removed(method, tmp_path):
    out = tmp_path / "scores[1].zarr"
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW, str(out)], stdout=subprocess.PIPE
    )
    assert process.stdout.readline() == b"started\n"
    (left,) = tmp_path.iterdir()

    # While it lives nothing is taken from it.
    method.attribute(wh.Loss(), out=tmp_path / "other.zarr")
    assert left.is_dir()
    process.kill()
    process.wait()
    process.stdout.close()
    assert left.is_dir()

    held = tmp_path / ".scores[1].zarr.1.tmp"
    held.mkdir()
    with locked(held):
        method.attribute(wh.Loss(), out=out)
        names = {path.name for path in tmp_path.iterdir()}
    assert names == {"scores[1].zarr", "other.zarr", held.name}


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

    # A wrong call is still an error.
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [*command, "--at", "1"], stdout=full, stderr=full, check=False
        )
    assert done.returncode == 2
