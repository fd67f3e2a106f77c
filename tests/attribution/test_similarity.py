"""Similarities of activations, against activations taken by hand."""

import numpy as np
import oracles
import pytest
import torch
import xarray as xr
from torch import nn

import whence as wh
from whence import pinn

DOUBLE = torch.float64


def network():
    torch.manual_seed(0)
    layers = nn.Linear(3, 5), nn.Tanh(), nn.BatchNorm1d(5), nn.Linear(5, 2)
    model = nn.Sequential(*layers).double()
    model[2].running_mean.uniform_(-1, 1)
    return model


def data(n, seed):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 3, generator=generator, dtype=DOUBLE)
    return x, torch.arange(n) % 2


TRAIN, TEST = data(300, 1), data(6, 2)


def method(model=None, **options):
    return wh.RepresentationSimilarity(
        model or network(), TRAIN, nn.CrossEntropyLoss(), **options
    )


def expected(until, similarity):
    with torch.no_grad():
        hidden = network().eval()[:until]
        rows = [hidden(x).numpy() for x, _ in (TEST, TRAIN)]
    if similarity == "cosine":
        rows = [h / np.linalg.norm(h, axis=1, keepdims=True) for h in rows]
    return rows[0] @ rows[1].T


@pytest.mark.parametrize("similarity", ["cosine", "dot"])
def test_what_the_last_layer_takes_is_compared(similarity):
    found = method(similarity=similarity).attribute(wh.Loss(*TEST))
    oracles.close(found, expected(3, similarity), 1e-12)
    assert found.attrs["method"] == "representation_similarity"
    assert found.attrs["scale"] == "none"
    assert "no predicted change" in found.attrs["sign"]
    assert "whatever the labels" in str(found.quality())


@pytest.mark.parametrize(("layer", "until"), [("0", 1), ("1", 2), ("3", 4)])
def test_what_a_named_layer_gives_is_compared(layer, until):
    found = method(layer=layer).attribute(wh.Loss(*TEST))
    oracles.close(found, expected(until, "cosine"), 1e-12)
    assert found.attrs["layer"] == layer


def test_the_interface_is_that_of_all_methods(tmp_path):
    made = method(similarity="dot")
    whole = made.attribute(wh.Loss(*TEST))
    oracles.close(made.attribute(wh.Loss(*TEST), effect="add"), -whole.values, 1e-14)
    some = made.attribute(wh.Loss(*TEST), wh.TrainingPoints([3, 270]))
    oracles.close(some, whole.values[:, [3, 270]], 1e-12)

    # Aggregates are sums of activations; every output of a sample is a target.
    oracles.close(made.attribute_sum(wh.Loss(*TEST)), whole.values.sum(axis=0), 1e-12)
    mean = made.attribute(wh.Loss(*TEST, reduce="mean"))
    oracles.close(mean.values[0], whole.values.mean(axis=0), 1e-12)
    output = wh.Output(TEST[0], "output_1")
    both = made.attribute([wh.Loss(*TEST), output])
    oracles.close(both.values[6:], whole.values, 1e-12)

    own = made.self_influence()
    oracles.close(own, np.diag(made.attribute(wh.Loss())), 1e-12)
    oracles.close(method().self_influence(), np.ones(300), 1e-12)

    out = tmp_path / "similarities.zarr"
    on_disk = made.attribute(wh.Loss(*TEST), out=out)
    assert np.array_equal(on_disk.values, whole.values)
    assert isinstance(on_disk, xr.DataArray)


def test_an_ensemble_takes_it():
    members = [method(similarity="dot"), method(layer="1", similarity="dot")]
    found = wh.Ensemble(members).attribute(wh.Loss(*TEST))
    mean = (expected(3, "dot") + expected(2, "dot")) / 2
    oracles.close(found, mean, 1e-12)


# --- sequences and images ----------------------------------------------------------------------


class Tagger(nn.Module):
    """Tokens to classes, by the mean of what an embedding gives."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(7, 4)
        self.head = nn.Linear(4, 2)

    def forward(self, tokens):
        return self.head(self.embedding(tokens)).mean(dim=1)


def test_tokens_are_averaged_or_compared_one_by_one():
    torch.manual_seed(0)
    model = Tagger().double()
    tokens = torch.randint(0, 7, (9, 5))
    train = tokens, torch.arange(9) % 2
    target = wh.Loss(tokens[:2], train[1][:2])
    embedded = model.embedding(tokens).detach()
    for positions, h in (("mean", embedded.mean(dim=1)), ("all", embedded.flatten(1))):
        made = wh.RepresentationSimilarity(
            model, train, nn.CrossEntropyLoss(), similarity="dot", positions=positions
        )
        oracles.close(made.attribute(target), h[:2] @ h.T, 1e-12)

    shorter = wh.Loss(tokens[:2, :3], train[1][:2])
    with pytest.raises(
        ValueError, match="length 20, those of targets 12: compare means"
    ):
        made.attribute(shorter)


def test_channels_of_images_are_averaged_over_pixels():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 3, 2), nn.Flatten(), nn.Linear(12, 2)).double()
    x, y = torch.randn(8, 1, 3, 3, dtype=DOUBLE), torch.arange(8) % 2
    made = wh.RepresentationSimilarity(
        model, (x, y), nn.CrossEntropyLoss(), layer="0", similarity="dot"
    )
    h = model[0](x).detach().mean(dim=(2, 3))
    oracles.close(made.attribute(wh.Loss()), h @ h.T, 1e-12)


def test_features_that_are_kept_are_no_hindrance():
    """Of a model whose last layer alone is explained, the others are not evaluated again."""
    frozen = wh.Objective.supervised(
        network(), TRAIN, nn.CrossEntropyLoss(), parameters="3.*"
    )
    wh.GradDot(frozen).attribute(wh.Loss(*TEST))
    found = wh.RepresentationSimilarity(frozen, layer="0").attribute(wh.Loss(*TEST))
    oracles.close(found, expected(1, "cosine"), 1e-12)


# --- errors ------------------------------------------------------------------------------------


def test_a_sample_without_activation_is_like_none():
    model = nn.Sequential(nn.ReLU(), nn.Linear(2, 2)).double()
    x = torch.tensor([[-1.0, -1.0], [1.0, 0.0]], dtype=DOUBLE)
    made = wh.RepresentationSimilarity(
        model, (x, torch.tensor([0, 1])), nn.CrossEntropyLoss()
    )
    assert made.attribute(wh.Loss()).values.tolist() == [[0.0, 0.0], [0.0, 1.0]]


def test_bad_calls():
    with pytest.raises(ValueError, match=r"layer.*'4'"):
        method(layer="4")
    with pytest.raises(ValueError, match="similarity"):
        method(similarity="euclidean")
    with pytest.raises(ValueError, match="positions"):
        method(positions="last")
    with pytest.raises(ValueError, match="compares samples, so that quantities"):
        method().attribute(wh.TermLoss("data"))

    unused = nn.Sequential(nn.Linear(3, 2))
    unused.other = nn.Linear(3, 2)
    unused.forward = lambda x: unused[0](x)
    unused.double()
    with pytest.raises(ValueError, match="layer 'other' was not called"):
        method(unused, layer="other").attribute(wh.Loss(*TEST))

    problem = pinn.zoo.load("wave", "hard")
    objective = problem.objective(pinn.MLP([2, 4, 1], seed=0), problem.sample(5))
    with pytest.raises(ValueError, match=r"wh\.GradCos"):
        wh.RepresentationSimilarity(objective)
