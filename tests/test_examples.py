"""Every example runs and prints what it promises."""

import runpy
import sys
from pathlib import Path

import pytest

from whence import pinn

FOLDER = Path(__file__).parent.parent / "examples"
SHOWN = {
    "soft_wave.py": "% of the absolute influence",
    "own_flux.py": "removing it changes",
    "weighting_in_torch.py": "tangent kernel   relative error",
    "weighting_in_pina.py": "the same of whence  relative error",
}
NEEDS = {"weighting_in_pina.py": "pina"}
FIGURES = {
    "digits": {
        "losses", "confusion", "extreme_images", "influence_on_one", "influence_on_all",
        "detection", "suspicion_by_label",
    },
    "tabular": {"influence", "detection"},
}  # fmt: skip


def test_every_example_is_run():
    assert {path.name for path in FOLDER.glob("*.py")} == {
        *SHOWN,
        *(f"{n}.py" for n in FIGURES),
    }


@pytest.mark.parametrize("name", SHOWN)
def test_example_of_a_pinn_runs(name, capsys, monkeypatch, tmp_path):
    if name in NEEDS:
        pytest.importorskip(NEEDS[name])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [name, "15"])
    runpy.run_path(str(FOLDER / name), run_name="__main__")
    assert SHOWN[name] in capsys.readouterr().out
    assert not list(tmp_path.iterdir())


def test_a_weighting_in_pina_is_pinas_own(monkeypatch, tmp_path):
    """PINA's class and whence's, through the example's adapter, train to the same error."""
    weighting = pytest.importorskip("pina.weighting")
    monkeypatch.chdir(tmp_path)
    example = runpy.run_path(str(FOLDER / "weighting_in_pina.py"))
    ours = pinn.NeuralTangentKernel(alpha=0.5, estimate="gradient_norm")
    error, weights = example["trained"](example["FromWhence"](ours), 5)
    theirs = weighting.NeuralTangentKernelWeighting(alpha=0.5)
    expected, their_weights = example["trained"](theirs, 5)
    assert weights == pytest.approx(their_weights, rel=1e-4)
    assert error == pytest.approx(expected, rel=1e-4)
    assert weights["boundary"] < 0.3 < 0.7 < weights["D"]


def ran(name, out, *options):
    """What an example's ``main`` returns; its figures are there and not empty."""
    found = runpy.run_path(str(FOLDER / f"{name}.py"))["main"](
        ["--out", str(out), *options]
    )
    assert {path.stem for path in out.iterdir()} == FIGURES[name]
    assert all(path.stat().st_size > 5000 for path in out.glob("*.png"))
    return found


def test_digits(tmp_path, capsys):
    # Half the epochs: enough that the corrupted labels stand out and the ranks are the same.
    found = ran("digits", tmp_path / "out", "--epochs", "12")
    assert found["f1"] > 0.95
    precision = found["average_precision"]
    assert max(precision.values()) == precision["TracIn, on itself"] > 0.9
    assert precision["random"] < 0.2
    accuracy = found["accuracy"]
    assert accuracy["corrupted"] < accuracy["cleaned"] <= accuracy["clean"]
    printed = capsys.readouterr().out
    assert f"Test image {found['target']} is a" in printed
    assert "Test accuracy" in printed


def test_tabular(tmp_path, capsys):
    found = ran("tabular", tmp_path / "out")
    assert found["correlation"] > 0.99
    assert found["average_precision"]["influence, on itself"] > 0.9
    accuracy = found["accuracy"]
    assert accuracy["corrupted"] < accuracy["cleaned"] <= accuracy["clean"]
    printed = capsys.readouterr().out
    assert "Nothing speaks against it" in printed
    assert "one standard deviation" in printed
