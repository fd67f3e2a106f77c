"""An index against its formula written out, and what it refuses."""

import json

import numpy as np
import oracles
import pytest
import torch
from torch import nn

import whence as wh
from whence.cli import main
from whence.curvature.layer_rows import layer_matrices
from whence.index.projection import Projection
from whence.jacobian import Jacobian


class Tokens(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(12, 8)
        self.norm = nn.LayerNorm(8)
        self.layer = nn.Linear(8, 8)
        self.head = nn.Linear(8, 12, bias=False)

    def forward(self, x):
        hidden = self.embedding(x)
        mixed = hidden.cumsum(1) / torch.arange(1, x.shape[1] + 1)[:, None]
        return self.head(torch.tanh(self.layer(self.norm(mixed))))


def sequences(n=30, length=7):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 12, (n, length), generator=generator)


def objective():
    torch.manual_seed(0)
    x = sequences()
    return wh.Objective.supervised(
        Tokens().double(), {"x": x, "labels": x}, wh.NextToken()
    )


def some(k):
    x = sequences()[:k]
    return wh.Loss({"x": x, "labels": x})


def test_without_a_projection_it_is_the_formula(tmp_path):
    """(1/N) ∇fᵀ(F + λI)⁻¹∇ℓ with F the mean of ∇ℓ∇ℓᵀ, λ a share of its mean eigenvalue."""
    case = objective()
    size = case.parameters.size
    index = wh.GradientIndex.build(case, tmp_path / "i", dimension=size, damping=0.3)
    assert index.projection.size == size
    rows = torch.cat(list(some(30).gradients(case)))
    fisher = rows.T @ rows / 30
    shifted = fisher + 0.3 * fisher.diagonal().mean() * torch.eye(size)
    expected = rows[:4] @ torch.linalg.solve(shifted, rows.T) / 30
    # Gradients are kept in single precision.
    found = index.attribute(some(4))
    oracles.close(found.values, expected, 1e-5)
    assert found.attrs["effect"] == "remove"
    assert found.dims == ("target", "point")
    assert found.quality().caveats


def test_a_projection_keeps_inner_products_in_the_mean():
    case = objective()
    layers = layer_matrices(Jacobian(case))
    rows = torch.cat(list(some(30).gradients(case)))
    exact = (rows[:5] @ rows.T).numpy().ravel()
    products = []
    for seed in range(100):
        projection = Projection.draw(layers, 32, seed, rows)
        assert projection.size < case.parameters.size
        projected = projection.of_vectors(rows.T)
        products.append((projected[:5] @ projected.T).numpy().ravel())
    mean = np.mean(products, axis=0)
    assert np.corrcoef(products[0], exact)[0, 1] > 0.6
    assert np.corrcoef(mean, exact)[0, 1] > 0.98
    assert (mean @ exact) / (exact @ exact) == pytest.approx(1, abs=0.1)


def test_factors_and_gradients_have_the_same_projection(tmp_path):
    case = objective()
    index = wh.GradientIndex.build(case, tmp_path / "i", dimension=24)
    rows = torch.cat(list(some(30).gradients(case)))
    projected = index.projection.of_vectors(rows.T)
    oracles.close(index._gradients, projected, 1e-5)
    # Lifted vectors have the products with gradients that vectors have with projections.
    vectors = torch.randn(2, index.projection.size, dtype=torch.float64)
    lifted = index.projection.lifted(vectors, case.parameters.size)
    oracles.close(rows @ lifted, projected @ vectors.T, 1e-10)


def test_positions_add_up_to_the_sample(tmp_path):
    case = objective()
    index = wh.GradientIndex.build(case, tmp_path / "i", dimension=24)
    found = index.attribute(some(3))
    for place in (0, 11):
        positions = index.positions(some(3), place)
        assert positions.shape == (3, 7)
        assert not positions[:, -1].any()  # nothing follows the last token
        oracles.close(positions.sum(1), found.values[:, place], 1e-5)


def test_a_stopped_build_is_gone_on_with(tmp_path, monkeypatch):
    monkeypatch.setattr("whence.index.gradient_index.CHUNK", 8)
    case = objective()
    whole = wh.GradientIndex.build(case, tmp_path / "whole").attribute(some(2))

    made = []
    from whence.index import gradient_index

    make = gradient_index.projected_gradients

    def stopping(objective, projection, points, size):
        made.append(len(points))
        if len(made) == 3:
            raise KeyboardInterrupt
        return make(objective, projection, points, size)

    monkeypatch.setattr(gradient_index, "projected_gradients", stopping)
    with pytest.raises(KeyboardInterrupt):
        wh.GradientIndex.build(case, tmp_path / "i")
    with pytest.raises(FileNotFoundError, match="complete"):
        wh.GradientIndex.open(tmp_path / "i", case)
    monkeypatch.setattr(gradient_index, "projected_gradients", make)
    again = wh.GradientIndex.build(case, tmp_path / "i")
    oracles.close(again.attribute(some(2)).values, whole.values, 1e-6)
    state = json.loads((tmp_path / "i" / "progress.json").read_text())
    assert state["done"] == 30


def test_another_model_or_other_data_are_refused(tmp_path):
    case = objective()
    wh.GradientIndex.build(case, tmp_path / "i")
    with pytest.raises(ValueError, match="its dimension is 64"):
        wh.GradientIndex.build(case, tmp_path / "i", dimension=16)
    with torch.no_grad():
        case.network.layer.bias.add_(1.0)
    with pytest.raises(ValueError, match="its parameters"):
        wh.GradientIndex.open(tmp_path / "i", case)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="no index"):
        wh.GradientIndex.build(case, tmp_path / "other")
    with pytest.raises(FileNotFoundError, match="no complete index"):
        wh.GradientIndex.open(tmp_path / "none", case)


def test_bad_calls(tmp_path):
    case = objective()
    index = wh.GradientIndex.build(case, tmp_path / "i")
    with pytest.raises(ValueError, match="from 0 to 29"):
        index.positions(some(1), 30)
    with pytest.raises(ValueError, match="dimension"):
        wh.GradientIndex.build(case, tmp_path / "j", dimension=0)
    model = nn.Linear(3, 1)
    regression = wh.Objective.supervised(
        model, (torch.rand(6, 3), torch.rand(6, 1)), wh.Squared()
    )
    of_numbers = wh.GradientIndex.build(regression, tmp_path / "k")
    with pytest.raises(ValueError, match="tokens or pixels"):
        of_numbers.positions(wh.Output(torch.rand(1, 3)), 0)


FILE = """
import torch
from torch import nn
import whence as wh

torch.manual_seed(0)
texts = ["red wine", "red rose", "blue sea ", "blue sky "]
texts = [text[:8] for text in texts]
rows = torch.tensor([list(text.encode()) for text in texts])
data = {"x": rows, "labels": rows}
encode = lambda text: {k: torch.tensor([list(text.encode())]) for k in ("x", "labels")}
test = encode("blue sea")

class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(128, 8)
        self.head = nn.Linear(8, 128)
    def forward(self, x):
        return self.head(self.embedding(x))

model = Model()
loss = wh.NextToken()
"""


def test_the_commands(tmp_path, capsys):
    file = tmp_path / "words.py"
    file.write_text(FILE)
    assert main(["query", str(file), "--text", "red wine"]) == 2
    assert "whence index" in capsys.readouterr().err
    assert main(["index", str(file), "--dimension", "16"]) == 0
    printed = capsys.readouterr().out
    assert "4 points" in printed
    assert (tmp_path / "words.index" / "index.json").exists()

    assert main(["query", str(file), "--text", "red wine", "--show", "1"]) == 0
    printed = capsys.readouterr().out
    assert "helps" in printed
    assert "point 0  red wine" in printed
    assert "answered in" in printed
    assert main(["query", str(file), "--sample", "0", "--show", "1"]) == 0
    assert "point 2  blue sea" in capsys.readouterr().out

    # As many as there are points: each helps or harms, but not both.
    assert main(["query", str(file), "--text", "red wine", "--show", "4"]) == 0
    lines = capsys.readouterr().out.splitlines()[1:-1]
    assert len(lines) == 4
    for line in lines:
        title, value = line.split()[:2]
        assert (float(value) > 0) == (title == "helps")

    file.write_text(FILE + "texts = texts[:3]\n")
    assert main(["query", str(file), "--text", "red wine"]) == 2
    assert "each of 4 training points, got 3" in capsys.readouterr().err
    assert main(["query", str(file)]) == 2
    assert "either --text or --sample" in capsys.readouterr().err
