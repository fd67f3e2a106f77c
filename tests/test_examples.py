"""Every example runs and prints what it promises."""

import runpy
import sys
from pathlib import Path

import pytest

EXAMPLES = sorted((Path(__file__).parent.parent / "examples").glob("*.py"))
SHOWN = {"soft_wave.py": "% of the absolute influence", "own_flux.py": "removing it changes"}


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.name)
def test_example_runs(path, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [str(path), "15"])
    runpy.run_path(str(path), run_name="__main__")
    assert SHOWN[path.name] in capsys.readouterr().out
