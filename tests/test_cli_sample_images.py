"""Pictures beside the tables of ``whence influence`` and ``whence audit`` on image data."""

import numpy as np
import pytest
import torch
import xarray as xr

from whence import cli
from whence.cli import sample_images
from whence.cli.model_file import read

MODEL = """
import torch
from torch import nn

torch.manual_seed(0)
x = torch.rand(40, {shape})
y = torch.arange(40) % 2
data, test = (x[:30], y[:30]), (x[30:], y[30:])
classes = ["cat", "dog"]
model = nn.Sequential(nn.Flatten(), nn.Linear(x[0].numel(), 2))
loss = nn.CrossEntropyLoss()
"""


def write(folder, shape="1, 5, 6"):
    path = folder / "model.py"
    path.write_text(MODEL.format(shape=shape))
    return path


def figures(monkeypatch, name):
    """Have a figure's arguments kept as it is drawn."""
    calls = []
    draw = getattr(sample_images.plots, name)

    def kept(*arguments, **options):
        calls.append(draw(*arguments, **options))
        return calls[-1]

    monkeypatch.setattr(sample_images.plots, name, kept)
    return calls


def captions(figure):
    return [ax.get_xlabel() for ax in figure.axes if ax.images]


@pytest.mark.parametrize("shape", ["1, 5, 6", "3, 5, 6", "5, 6"])
def test_influence_draws_the_most_helpful_and_harmful_images(
    tmp_path, capsys, monkeypatch, shape
):
    calls = figures(monkeypatch, "extreme_images")
    path = write(tmp_path, shape)
    arguments = ["influence", str(path), "--method", "grad_dot", "--sample", "3"]
    assert cli.main(arguments) == 0
    assert "model_influence_images.png" in capsys.readouterr().out
    for kind in ("png", "svg"):
        assert (tmp_path / f"model_influence_images.{kind}").stat().st_size > 5000

    values = xr.open_dataarray(tmp_path / "model_influence.nc").values[0]
    target, *shown = captions(calls[0])
    assert target == "label dog"
    first = int(np.argmax(values))
    assert f"#{first} " in shown[0]
    assert shown[0].startswith(["cat", "dog"][first % 2])

    # Of the image's own numbers; the test sample stands beside it.
    held = [ax.images[0].get_array() for ax in calls[0].axes if ax.images]
    names = read(path).names
    expected = names["test"][0][3].reshape(-1)
    correlation = np.corrcoef(in_order(held[0], shape), expected)[0, 1]
    assert correlation > 0.999


def in_order(image, shape):
    """Numbers of a drawn image in the order of the data, channels in front."""
    array = np.asarray(image)
    return (np.moveaxis(array, -1, 0) if shape.startswith("3") else array).reshape(-1)


def test_influence_on_several_draws_their_mean(tmp_path, monkeypatch):
    calls = figures(monkeypatch, "extreme_images")
    assert cli.main(["influence", str(write(tmp_path)), "--method", "grad_dot"]) == 0
    values = xr.open_dataarray(tmp_path / "model_influence.nc").values.mean(axis=0)
    assert f"#{np.argmax(values)} " in captions(calls[0])[0]
    assert "average influence" in calls[0].get_suptitle()


def test_audit_draws_the_most_suspicious_images(tmp_path, capsys, monkeypatch):
    calls = figures(monkeypatch, "suspicious_images")
    path = write(tmp_path)
    assert cli.main(["audit", str(path), "--by", "loss", "--show", "2"]) == 0
    assert "model_suspects_images.png" in capsys.readouterr().out
    assert (tmp_path / "model_suspects_images.png").stat().st_size > 5000
    table = np.genfromtxt(tmp_path / "model_suspects.csv", delimiter=",", names=True)
    shown = captions(calls[0])
    assert len(shown) == 20
    for text, place in zip(shown, table["index"].astype(int), strict=False):
        assert f"#{place} " in text


def test_rows_of_a_table_have_no_pictures(tmp_path, capsys):
    path = write(tmp_path, "4")
    assert cli.main(["influence", str(path), "--method", "grad_dot"]) == 0
    assert cli.main(["audit", str(path), "--by", "loss"]) == 0
    assert "images:" not in capsys.readouterr().out
    assert not list(tmp_path.glob("*_images.*"))


def test_only_the_images_that_are_drawn_are_read():
    values = np.arange(100.0)
    table = xr.DataArray(torch.tensor(values)[None], dims=("target", "point"))
    chosen = sample_images.extremes(table)
    assert chosen.tolist() == [*range(8), *range(92, 100)]
