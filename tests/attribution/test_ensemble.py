"""Means over members, and TRAK against its formula written out."""

import numpy as np
import oracles
import pytest
import torch
from torch import nn

import whence as wh
from whence.curvature.sketched import Sketched
from whence.evaluation import datamodel, linear_datamodeling_score, random_subsets


def data(n=20):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(n, 3, generator=generator, dtype=torch.float64)
    return x, torch.arange(n) % 3


def model(seed):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 3)).double()


def member(seed, kind=wh.Influence):
    return kind(model(seed), data(), nn.CrossEntropyLoss())


def test_an_ensemble_is_the_mean_of_its_members():
    members = [member(0), member(1), member(2, wh.GradDot)]
    ensemble = wh.Ensemble(members)
    quantity = wh.Loss(data(4))
    parts = [each.attribute(quantity).values for each in members]
    oracles.close(ensemble.attribute(quantity).values, np.mean(parts, axis=0), 1e-12)
    oracles.close(
        ensemble.self_influence().values,
        np.mean([each.self_influence().values for each in members], axis=0),
        1e-12,
    )
    some = ensemble.attribute(quantity, wh.TrainingPoints([4, 1]))
    oracles.close(some.values, np.mean(parts, axis=0)[:, [1, 4]], 1e-12)

    scaled = wh.Ensemble(members, scale="target").attribute(quantity)
    sizes = [np.sqrt((part**2).mean(axis=1, keepdims=True)) for part in parts]
    expected = np.mean([p / s for p, s in zip(parts, sizes, strict=True)], axis=0)
    oracles.close(scaled.values, expected, 1e-12)
    with pytest.raises(ValueError, match="leave points= out"):
        wh.Ensemble(members, scale="target").self_influence(wh.TrainingPoints([1]))
    with pytest.raises(ValueError, match="no sums over layers"):
        ensemble.attribute(quantity, by_layer=True)
    assert scaled.attrs["members"] == 3
    assert scaled.attrs["methods"] == "grad_dot, influence"


def test_members_that_do_not_fit():
    with pytest.raises(ValueError, match="one or more methods"):
        wh.Ensemble([])
    with pytest.raises(ValueError, match="one or more methods"):
        wh.Ensemble(member(0))
    with pytest.raises(TypeError, match="must be a method"):
        wh.Ensemble([member(0), model(0)])
    fewer = wh.GradDot(model(0), data(10), nn.CrossEntropyLoss())
    with pytest.raises(ValueError, match="member 1 has"):
        wh.Ensemble([member(0), fewer])


def margins(network, x, y):
    logits = network(x)
    p = torch.softmax(logits, 1).gather(1, y[:, None])[:, 0]
    return (p / (1 - p)).log(), p


def rows(network, values):
    flat = [
        torch.autograd.grad(v, network.parameters(), retain_graph=True) for v in values
    ]
    return torch.stack([torch.cat([g.reshape(-1) for g in row]) for row in flat])


def test_trak_is_its_formula():
    """(1/N) ∇fᵀ(A + λI)⁻¹∇ℓ without a projection, A of margins, with ∇ℓ = −(1 − p)∇m."""
    network = model(0)
    x, y = data()
    size = sum(parameter.numel() for parameter in network.parameters())

    m, p = margins(network, x, y)
    phi = rows(network, m)
    kernel = phi.T @ phi / len(x)
    lam = 1e-3 * float(torch.linalg.eigvalsh(kernel)[-1])
    shifted = kernel + lam * torch.eye(size, dtype=torch.float64)
    loss = nn.CrossEntropyLoss(reduction="none")
    targets = rows(network, loss(network(x[:4]), y[:4]))
    losses = -(1 - p.detach())[:, None] * phi
    expected = targets @ torch.linalg.solve(shifted, losses.T) / len(x)

    trak = wh.TRAK(network, data(), nn.CrossEntropyLoss(), dimension=size, damping=1e-3)
    # A square projection is a change of basis, but not an orthogonal one: the identity is.
    exact = wh.Influence(trak._margins, damping=1e-3)
    vectors = exact.transform_gradients(targets.T)[0]
    oracles.close(vectors.T @ losses.T / len(x), expected, 1e-8)
    projected = trak.attribute(wh.Loss((x[:4], y[:4])))
    assert np.corrcoef(projected.values.ravel(), expected.numpy().ravel())[0, 1] > 0.7


def test_trak_takes_one_pass_over_the_samples(monkeypatch):
    """No product with A: neither for its largest eigenvalue nor for a residual."""
    x, y = data()
    network = model(0)
    trak = wh.TRAK(network, (x, y), nn.CrossEntropyLoss(), dimension=6, damping=0.1)

    phi = rows(network, margins(network, x, y)[0])
    sketch = Sketched(6, seed=0).draw(phi.shape[1], phi[0]).dense()
    inner = sketch.T @ phi.T @ phi @ sketch / len(x)
    inner.diagonal().add_(0.1 * torch.linalg.eigvalsh(inner)[-1])
    loss = nn.CrossEntropyLoss(reduction="none")
    losses = rows(network, loss(network(x), y))
    expected = losses @ sketch @ torch.linalg.solve(inner, sketch.T @ losses.T) / len(x)

    def refuse(*_):
        raise AssertionError("a product with A")

    monkeypatch.setattr(wh.GaussNewtonMatrix, "matmat", refuse)
    monkeypatch.setattr(wh.GaussNewtonMatrix, "matvec", refuse)
    oracles.close(trak.attribute(wh.Loss()).values, expected, 1e-10)


def test_trak_is_of_classifiers():
    network = nn.Linear(2, 1)
    with pytest.raises(ValueError, match=r"wh\.Sketched"):
        wh.TRAK(network, (torch.rand(5, 2), torch.rand(5, 1)), nn.MSELoss())
    binary = wh.TRAK(
        network,
        (torch.rand(6, 2), (torch.arange(6) % 2).float()[:, None]),
        nn.BCEWithLogitsLoss(),
        dimension=2,
    )
    assert binary.attribute(wh.Loss()).shape == (6, 6)


def test_a_datamodel_predicts_subsets_that_it_has_not_seen():
    rng = np.random.default_rng(0)
    subsets = random_subsets(12, 80, seed=1)
    effects = rng.standard_normal((12, 2)) * (rng.random((12, 2)) < 0.5)
    actual = subsets @ effects + 0.05 * rng.standard_normal((80, 2))
    fitted = datamodel(subsets[:60], actual[:60])
    assert fitted.attrs["method"] == "datamodel"
    score = linear_datamodeling_score(fitted, subsets[60:], actual[60:])
    assert score.attrs["mean"] > 0.95
    with pytest.raises(ValueError, match="at least 8 subsets"):
        datamodel(subsets[:5], actual[:5])
    with pytest.raises(ValueError, match="booleans"):
        datamodel(subsets.astype(int), actual)
