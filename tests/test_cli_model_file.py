"""``whence influence`` and ``whence audit`` on a Python file of the user's own."""

import numpy as np
import pytest
import torch
import xarray as xr
from matplotlib.figure import Figure

from whence import cli
from whence.plots import style

MODEL = """
import torch
from torch import nn

torch.manual_seed(0)
y = torch.arange(120) % 3
x = torch.randn(120, 4) + 4.0 * torch.eye(3, 4)[y]
data, test = (x[:100], y[:100].clone()), (x[100:], y[100:])
corrupted = torch.zeros(100, dtype=torch.bool)
corrupted[::10] = True
data[1][corrupted] = (data[1][corrupted] + 1) % 3
model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
loss = nn.CrossEntropyLoss()
optimizer = torch.optim.Adam(model.parameters(), lr=0.03)
checkpoints, learning_rates = [], 0.03
for step in range(60):
    optimizer.zero_grad()
    loss(model(data[0]), data[1]).backward()
    optimizer.step()
    if step in (29, 59):
        checkpoints.append({n: t.clone() for n, t in model.state_dict().items()})
"""


@pytest.fixture(name="file")
def _file(tmp_path):
    path = tmp_path / "model.py"
    path.write_text(MODEL)
    return path


@pytest.mark.parametrize(
    "method", ["influence", "tracin", "grad_dot", "grad_cos", "empirical"]
)
def test_influence(file, method, capsys):
    assert (
        cli.main(["influence", str(file), "--sample", "3", "7", "--method", method])
        == 0
    )
    printed = capsys.readouterr().out
    found = xr.open_dataarray(file.parent / "model_influence.nc")
    assert found.shape == (2, 100)
    assert found.attrs["method"] == method
    assert found.target_index.values.tolist() == [3, 7]
    assert "quality:" in printed
    assert "model_influence.nc" in printed
    for kind in ("png", "svg"):
        assert (file.parent / f"model_influence.{kind}").stat().st_size > 5000


def test_an_output_of_every_test_sample(file):
    assert (
        cli.main(["influence", str(file), "--of", "output_2", "--effect", "add"]) == 0
    )
    found = xr.open_dataarray(file.parent / "model_influence.nc")
    assert found.shape == (20, 100)
    assert set(found["quantity"].values) == {"output_2"}
    assert found.attrs["effect"] == "add"


@pytest.mark.parametrize("by", ["self_influence", "validation", "loss"])
def test_audit(file, by, capsys):
    out = file.parent / "found" / "bad.csv"
    arguments = ["audit", str(file), "--by", by, "--show", "4", "--out", str(out)]
    assert cli.main(arguments) == 0
    printed = capsys.readouterr().out
    table = np.genfromtxt(out, delimiter=",", names=True)
    assert len(table) == 100
    assert (np.diff(table["suspicion"]) <= 0).all()
    found = np.isin(table["index"][:10], np.arange(0, 100, 10)).mean()
    assert found >= (0.3 if by == "validation" else 0.8), "by chance it is 0.1"
    assert f"{found:.0%}".replace("%", " %") + " are among the first 10" in printed
    assert "n_corrupted" in printed
    assert (out.parent / "bad.png").stat().st_size > 5000


def test_a_file_without_known_truth_and_without_test(file, capsys):
    text = (
        file.read_text().replace("corrupted", "bad").replace("test = ", "held_out = ")
    )
    file.write_text(text.replace("data, held_out =", "data, held_out ="))
    assert cli.main(["audit", str(file)]) == 0
    assert "known to be bad" not in capsys.readouterr().out
    assert cli.main(["influence", str(file)]) == 2
    assert "names no test data" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("influence {} --sample 20", "--sample must lie in 0 … 19, got 20"),
        ("influence {} --at 0.5", "--at is for a run"),
        ("influence {} --of output_9", "unknown --of 'output_9'"),
        ("influence {} --method grad_dot --damping 0.1", "--damping does nothing"),
        (
            "influence {} --method grad_dot --curvature hessian",
            "--curvature does nothing",
        ),
        ("influence {} --method tracn", "did you mean 'tracin'"),
        ("influence {} --out scores.txt", "ends in .nc"),
        ("audit {} --out scores.txt", "ends in .csv"),
        ("audit {} --show -1", "--show must not be negative"),
        ("audit {}.missing", "there is no file"),
    ],
)
def test_wrong_options(file, arguments, says, capsys, tmp_path):
    assert cli.main(arguments.format(file).split()) == 2
    assert says in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["model.py"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("model = 3", "has no 'data'"),
        ("modle = data = loss = 3", "has no 'model' (did you mean 'modle'?)"),
        ("model = data = loss = 3", "torch.nn.Module"),
        (MODEL.replace("checkpoints,", "states,").replace("checkpoints.", "states."),
         "needs checkpoints"),
    ],
)  # fmt: skip
def test_wrong_files(file, text, says, capsys):
    file.write_text(text)
    assert cli.main(["influence", str(file), "--method", "tracin"]) == 2
    assert says in capsys.readouterr().err


def test_the_random_state_of_the_file_is_its_own(file):
    """The same file gives the same numbers again."""
    values = []
    for _ in range(2):
        torch.rand(3)
        assert cli.main(["influence", str(file), "--sample", "0"]) == 0
        values.append(xr.load_dataarray(file.parent / "model_influence.nc").values)
    assert (values[0] == values[1]).all()


REGRESSION = """
import torch
from torch import nn

torch.manual_seed(0)
x = torch.randn(190, 5)
y = (x @ torch.randn(5, {outputs}) + 0.1 * torch.randn(190, {outputs})){shape}
data, test = (x[:150], y[:150]), (x[150:], y[150:])
corrupted = torch.arange(150) % 10 == 0
model = nn.Linear(5, {outputs}){end}
loss = {loss}
weight_decay = 1e-3
"""
MANY_CLASSES = """
import torch
from torch import nn

torch.manual_seed(0)
y = torch.cat([torch.arange(70), torch.randint(0, 70, (230,))])
x = torch.randn(300, 6)
data, test = (x[:250], y[:250]), (x[250:], y[250:])
model, loss = nn.Linear(6, 70), nn.CrossEntropyLoss()
"""


@pytest.mark.parametrize("loss", ["nn.MSELoss()", "nn.HuberLoss()"])
@pytest.mark.parametrize("outputs", [1, 2])
def test_regressions_are_put_into_ranges(tmp_path, capsys, loss, outputs):
    path = tmp_path / "model.py"
    path.write_text(REGRESSION.format(outputs=outputs, loss=loss, shape="", end=""))
    assert cli.main(["influence", str(path)]) == 0
    printed = capsys.readouterr().out
    assert "weight decay 0.001" in printed
    assert "label" not in printed
    found = xr.open_dataarray(tmp_path / "model_influence.nc")
    assert found.shape == (40, 150)
    assert (tmp_path / "model_influence.png").exists() == (outputs == 1)

    assert cli.main(["audit", str(path)]) == 0
    printed = capsys.readouterr().out
    assert "quality: Solver exact" in printed
    table = (tmp_path / "model_suspects.csv").read_text().splitlines()[0]
    if outputs == 1:
        assert table == "rank,suspicion,loss,prediction,residual,value,index"
    assert "label" not in table + printed


def test_the_largest_of_many_classes_are_drawn(tmp_path, capsys):
    path = tmp_path / "model.py"
    path.write_text(MANY_CLASSES)
    assert cli.main(["influence", str(path), "--sample", "4"]) == 0
    printed = capsys.readouterr().out
    assert "of 70 values of label the 20 most frequent are shown" in printed
    assert (tmp_path / "model_influence.png").stat().st_size > 5000


def test_an_audit_of_an_untrained_network_says_so(file, capsys):
    file.write_text(file.read_text().replace("range(60)", "range(0)"))
    assert cli.main(["audit", str(file)]) == 0
    assert "far from a minimum" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["influence", "audit"])
def test_a_former_result_is_kept(file, capsys, monkeypatch, command):
    # Figures lie beside their results, but are a few letters: to draw takes longest.
    monkeypatch.setattr(Figure, "savefig", lambda self, to, **_: to.write(b"drawn"))
    monkeypatch.setattr(style, "arrange", lambda figure: None)
    suffix = {"influence": "influence.nc", "audit": "suspects.csv"}[command]
    for _ in range(3):
        assert cli.main([command, str(file), "--method", "grad_dot"]) == 0
    stem, ending = suffix.split(".")
    names = {p.name for p in file.parent.glob(f"*.{ending}")}
    assert names == {f"model_{stem}{n}.{ending}" for n in ("", "-2", "-3")}
    capsys.readouterr()

    given = [
        command,
        str(file),
        "--method",
        "grad_dot",
        "--out",
        str(file.parent / f"a.{ending}"),
    ]
    assert cli.main(given) == 0
    first = (file.parent / f"a.{ending}").read_bytes()
    assert cli.main(given) == 2
    error = capsys.readouterr().err
    assert "name another file by --out, or write over it by --overwrite" in error
    assert (file.parent / f"a.{ending}").read_bytes() == first
    assert cli.main([*given, "--overwrite"]) == 0


def test_a_slow_file_is_told_to_load_weights(file, capsys, monkeypatch):
    monkeypatch.setattr("whence.cli.model_file.SLOW_FILE", 0.0)
    assert cli.main(["audit", str(file), "--by", "loss"]) == 0
    assert "load_state_dict(torch.load('weights.pt'))" in capsys.readouterr().out
