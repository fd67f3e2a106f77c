"""Parameters as one vector and back, for modules of random shapes with tied and frozen weights."""

import itertools

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from whence.parameters import Parameters

EACH = settings(deadline=None, max_examples=60)
DTYPE = st.sampled_from([torch.float32, torch.float64])


@st.composite
def modules(draw):
    """Linear layers of random widths, some tied to an earlier one or frozen; never all frozen."""
    widths = draw(st.lists(st.integers(1, 5), min_size=2, max_size=5))
    dtype = draw(DTYPE)
    layers = [
        nn.Linear(a, b, bias=draw(st.booleans()), dtype=dtype)
        for a, b in itertools.pairwise(widths)
    ]
    for layer in layers[1:]:
        twins = [one for one in layers if one.weight.shape == layer.weight.shape]
        layer.weight = draw(st.sampled_from(twins)).weight
    free = draw(st.integers(0, len(layers) - 1))
    for k, layer in enumerate(layers):
        if layer.weight is not layers[free].weight and draw(st.booleans()):
            layers[k].weight.requires_grad_(False)
    return nn.Sequential(*layers)


def numbers(parameters, seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(parameters.size, generator=generator, dtype=parameters.dtype)


SELECT = st.sampled_from(
    [None, "*", "*.weight", lambda name, parameter: parameter.ndim == 2]
)


@EACH
@given(modules(), SELECT, st.integers(0, 99))
def test_a_vector_survives_the_way_there_and_back(module, select, seed):
    parameters = Parameters(module, select)
    theta = numbers(parameters, seed)
    tree = parameters.unflatten(theta)
    assert torch.equal(parameters.flatten(tree), theta)
    assert tuple(tree) == parameters.names
    for name, part in tree.items():
        assert part.shape == parameters.shape(name) == module.get_parameter(name).shape
    assert set(parameters.substituted(theta)) == {
        name for name, _ in module.named_parameters()
    }


@EACH
@given(modules(), SELECT, st.integers(0, 99))
def test_assigned_numbers_are_those_of_the_module(module, select, seed):
    parameters = Parameters(module, select)
    others = {
        name: p.detach().clone()
        for name, p in module.named_parameters()
        if name not in parameters.names
    }
    theta = numbers(parameters, seed)
    parameters.assign(theta)
    assert torch.equal(parameters.vector(), theta)
    assert torch.equal(Parameters(module, select).vector(), theta)
    for name, before in others.items():
        assert torch.equal(module.get_parameter(name), before)
    points = torch.ones(3, module[0].in_features, dtype=parameters.dtype)
    substituted = torch.func.functional_call(
        module, parameters.substituted(theta), (points,)
    )
    assert torch.equal(substituted, module(points))


@EACH
@given(modules())
def test_each_trained_number_counts_once(module):
    parameters = Parameters(module)
    trained = {id(p): p.numel() for p in module.parameters() if p.requires_grad}
    assert parameters.size == sum(trained.values()) == len(parameters.vector())
    assert [s.stop - s.start for s in parameters.slices.values()] == [*trained.values()]
