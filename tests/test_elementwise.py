import itertools

import pytest
import torch
from torch.func import grad

from whence import affine, elementwise, jets
from whence.elementwise import RULES

GENERATOR = torch.Generator().manual_seed(0)
PAIRS = ((0, 0), (0, 1), (1, 1))
DATA = 0.3 + torch.rand(6, 7, 3, generator=GENERATOR, dtype=torch.float64)
COTANGENT = torch.randn(6, 7, 3, generator=GENERATOR, dtype=torch.float64)
POWERS = {f"power {n}": elementwise.power(n) for n in (0.5, 1, 3, -2)}
ALL = {**RULES, **POWERS}


def relative(found, expected):
    found, expected = found.detach(), expected.detach()
    return float(
        (found - expected).abs().max() / expected.abs().max().clamp_min(1e-300)
    )


@pytest.mark.parametrize("rule", ALL.values(), ids=ALL)
def test_each_derivative_is_that_of_the_one_before(rule):
    x = DATA[0].flatten()
    chain = [lambda z: rule(z)[0], *(lambda z, k=k: rule(z)[k]() for k in (1, 2, 3))]
    for lower, upper in itertools.pairwise(chain):
        expected = torch.func.vmap(grad(lambda z, f=lower: f(z)))(x)
        assert relative(upper(x), expected) < 1e-13


@pytest.mark.parametrize("rule", ALL.values(), ids=ALL)
@pytest.mark.parametrize(
    ("channels", "pairs"), [(6, PAIRS), (3, ()), (1, ()), (4, ((1, 1),))]
)
def test_the_fused_chain_rule_and_its_derivative_are_the_composed_ones(
    rule, channels, pairs
):
    inputs = [DATA[:channels].clone().requires_grad_() for _ in range(2)]
    fused = elementwise.chain(rule, inputs[0], pairs)
    composed = elementwise._composed(rule, inputs[1], pairs)
    assert type(fused.grad_fn).__name__ == "_ChainBackward"
    assert relative(fused, composed) < 1e-14
    (ours,) = torch.autograd.grad(fused, inputs[0], COTANGENT[:channels])
    (theirs,) = torch.autograd.grad(composed, inputs[1], COTANGENT[:channels])
    assert relative(ours, theirs) < 1e-14


def test_the_fused_chain_rule_can_be_differentiated_twice():
    def twice(carry):
        data = DATA.clone().requires_grad_()
        (first,) = torch.autograd.grad(carry(data), data, COTANGENT, create_graph=True)
        (second,) = torch.autograd.grad((first**2).sum(), data)
        return second

    tanh = RULES["tanh"]
    found = twice(lambda data: elementwise.chain(tanh, data, PAIRS))
    expected = twice(lambda data: elementwise._composed(tanh, data, PAIRS))
    assert relative(found, expected) < 1e-13


def layer(needed):
    weight = torch.randn(
        4, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64
    )
    tensors = [DATA.clone(), weight, weight[:, 0].clone()]
    return [t.requires_grad_(need) for t, need in zip(tensors, needed, strict=True)]


@pytest.mark.parametrize(
    "needed",
    [
        (True, True, True),
        (False, True, True),
        (True, False, False),
        (False, False, True),
    ],
)
def test_the_fused_linear_layer_and_both_its_derivatives_are_the_composed_ones(needed):
    def derivatives(carry):
        tensors = layer(needed)
        chosen = [t for t, need in zip(tensors, needed, strict=True) if need]
        out = carry(*tensors)
        cotangent = COTANGENT[..., :1].expand(out.shape)
        first = torch.autograd.grad(out**2, chosen, cotangent, create_graph=True)
        second = torch.autograd.grad(sum((f**2).sum() for f in first), chosen)
        plain = torch.autograd.grad(carry(*tensors), chosen, cotangent)
        return [out, *first, *second, *plain]

    lay = jets.layout(PAIRS)

    def fused(data, weight, bias):
        return jets._linear(jets.Jet(data, lay), weight, bias).data

    pairs = zip(derivatives(fused), derivatives(affine._composed), strict=True)
    assert max(relative(ours, theirs) for ours, theirs in pairs) < 1e-13


def test_forward_mode_and_function_transforms_take_the_composed_rule():
    def value(data):
        return elementwise.chain(RULES["tanh"], data, PAIRS)

    tangent = torch.func.jvp(value, (DATA,), (COTANGENT,))[1]
    step = 1e-6
    difference = (value(DATA + step * COTANGENT) - value(DATA - step * COTANGENT)) / (
        2 * step
    )
    assert relative(tangent, difference) < 1e-8
