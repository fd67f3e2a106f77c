"""EKFAC of layers of all kinds, and where it is refused."""

import numpy as np
import oracles
import pytest
import torch
from layer_blocks import (
    LIMITS,
    Network,
    damped_inverse,
    factor,
    inverse,
    of,
    shampoo_with_corrected_eigenvalues,
)
from matrices import random
from scipy import linalg
from torch import nn
from torch.func import functional_call

from whence.curvature.failures import SingularSystem
from whence.curvature.kronecker import EKFAC
from whence.curvature.operators import GaussNewtonMatrix, Hessian
from whence.curvature.solvers import Damping
from whence.objective import Objective
from whence.term import Term


def points_of(n):
    return random(n, 2, seed=3)


def brute_force(objective):
    """The Gauss–Newton matrix of a supervised objective by plain autograd."""
    parameters = objective.parameters
    term = objective.term("data")
    total = 0.0
    for z in term.points:

        def residual(theta, z=z):
            return term.residual(parameters.substituted(theta), z.unsqueeze(0))[0]

        rows = torch.autograd.functional.jacobian(residual, parameters.vector())
        total = total + 2 * term.scale * rows.T @ rows
    return total.numpy()


def places_of(objective, names):
    """Where the parameters of these names are in θ."""
    slices = [objective.parameters.slices[name] for name in names]
    return np.concatenate([np.arange(s.start, s.stop) for s in slices])


def exact_within(objective, groups):
    """Assert that one point is exact within groups of parameters, named by their places in θ."""
    matrix = brute_force(objective)
    blocks = np.zeros_like(matrix)
    for names in groups:
        index = places_of(objective, names)
        block = np.ix_(index, index)
        blocks[block] = matrix[block]
    shift = 1e-3 * linalg.eigvalsh(matrix)[-1] * np.eye(len(matrix))
    oracles.close(inverse(factor(objective)), linalg.inv(blocks + shift), 1e-10)


# --- linear layers -----------------------------------------------------------------------------


def twice(m, x):
    hidden = torch.tanh(m.a(x))
    return m.b(torch.tanh(m.b(hidden)))


def apart(m, x):
    hidden = torch.tanh(m.a(x))
    return m.c(torch.tanh(m.b(hidden)))


@pytest.fixture(name="parts")
def _parts():
    torch.manual_seed(0)
    return {"a": nn.Linear(2, 4), "b": nn.Linear(4, 4), "c": nn.Linear(4, 4)}


def test_a_layer_used_twice(parts):
    network = Network(twice, a=parts["a"], b=parts["b"])
    groups = [("a.weight", "a.bias"), ("b.weight", "b.bias")]
    exact_within(of(network, points_of(1)), groups)


def test_one_weight_with_two_biases(parts):
    parts["c"].weight = parts["b"].weight
    groups = [("a.weight", "a.bias"), ("b.weight", "b.bias", "c.bias")]
    exact_within(of(Network(apart, **parts), points_of(1)), groups)


def test_one_bias_with_two_weights(parts):
    parts["c"].bias = parts["b"].bias
    groups = [("a.weight", "a.bias"), ("b.weight",), ("c.weight",), ("b.bias",)]
    exact_within(of(Network(apart, **parts), points_of(1)), groups)


def test_a_layer_that_nothing_depends_on(parts):
    network = Network(lambda m, x: m.b(torch.tanh(m.a(x))), **parts)
    objective = of(network, points_of(1))
    groups = [("a.weight", "a.bias"), ("b.weight", "b.bias")]
    exact_within(objective, groups)
    with pytest.raises(SingularSystem, match="singular"):
        factor(objective, 0.0)


def test_positions_that_share_a_layer(parts):
    def forward(m, x):
        copies = torch.stack([x * j for j in range(1, 4)], dim=1)
        return m.b(torch.tanh(m.a(copies))).square().sum(1)

    network = Network(forward, a=parts["a"], b=parts["b"])
    groups = [("a.weight", "a.bias"), ("b.weight", "b.bias")]
    exact_within(of(network, points_of(1)), groups)


# --- convolutions ------------------------------------------------------------------------------


def convolutions(n, select=None):
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Unflatten(1, (1, 5, 5)),
        nn.Conv2d(1, 3, 3, padding=1),
        nn.Tanh(),
        nn.Conv2d(3, 2, 2, stride=2, bias=False),
        nn.Tanh(),
        nn.Flatten(),
        nn.Linear(8, 2),
    )
    return of(network.double(), random(n, 25), select)


def test_convolutions():
    groups = [("1.weight", "1.bias"), ("3.weight",), ("6.weight", "6.bias")]
    exact_within(convolutions(1), groups)


def test_many_positions():
    objective = convolutions(7, select="1.*")
    matrix = brute_force(objective)
    blocks = shampoo_with_corrected_eigenvalues(matrix, objective)
    expected = damped_inverse(blocks, matrix, objective)
    oracles.close(inverse(factor(objective, block_limit=1)), expected, 1e-9)


# --- layers whose rows are no sums of outer products -------------------------------------------


def mixed(n, seed=4):
    """Normalisation, a convolution in groups and an embedding, besides linear layers."""
    torch.manual_seed(seed)

    def forward(m, x):
        normal = torch.tanh(m.layer(m.first(x)))
        seen = m.batch(m.conv(normal.unflatten(1, (2, 3))))
        words = torch.tanh(m.table((4 * x).long() % 5)).mean(1)
        return m.head(torch.cat([seen.flatten(1), words], dim=1))

    network = Network(
        forward,
        first=nn.Linear(2, 6),
        layer=nn.LayerNorm(6),
        conv=nn.Conv1d(2, 4, 2, groups=2),
        batch=nn.BatchNorm1d(4),
        table=nn.Embedding(5, 3),
        head=nn.Linear(11, 2),
    ).eval()
    for module in (network.layer, network.batch):
        nn.init.normal_(module.weight)
    return of(network, random(n, 2).abs())


BY_THEMSELVES = [
    ("layer.weight", "layer.bias"),
    ("conv.weight", "conv.bias"),
    ("batch.weight", "batch.bias"),
    ("table.weight",),
]


def test_normalization_embedding_and_groups_of_one_point():
    linear = [("first.weight", "first.bias"), ("head.weight", "head.bias")]
    exact_within(mixed(1), [*BY_THEMSELVES, *linear])


@pytest.mark.parametrize("limit", LIMITS)
def test_layers_with_a_block_of_their_own(limit):
    """Exact at many points; above the limit its diagonal is."""
    objective = mixed(9)
    matrix = brute_force(objective)
    state = factor(objective, block_limit=limit)
    whole = inverse(state)
    assert state.spectrum.blocks == 6

    for names in BY_THEMSELVES:
        index = places_of(objective, names)
        block = matrix[np.ix_(index, index)]
        if limit == 1:
            block = np.diag(np.diag(block))
        expected = linalg.inv(block + state.spectrum.damping * np.eye(len(index)))
        oracles.close(whole[np.ix_(index, index)], expected, 1e-10)


def exact(objective):
    """Assert that the factorisation is that of the whole matrix."""
    matrix = brute_force(objective)
    state = factor(objective)
    shifted = matrix + state.spectrum.damping * np.eye(len(matrix))
    oracles.close(inverse(state), linalg.inv(shifted), 1e-10)


def test_a_shift_alone():
    objective = mixed(9)
    points = objective.term("data").points
    exact(of(objective.network, points, select="layer.bias"))


def test_one_matrix_for_words_in_and_out():
    def forward(m, x):
        words = m.table((4 * x).long() % 5)
        return m.out(torch.tanh(words).mean(1))

    torch.manual_seed(0)
    network = Network(forward, table=nn.Embedding(5, 3), out=nn.Linear(3, 5))
    network.out.weight = network.table.weight
    exact(of(network, random(7, 2).abs()))


def test_float32():
    network = oracles.tanh_network(2, 5, 1).float()
    objective = of(network, random(20, 2).float())
    solution = factor(objective, 1e-2).solve(torch.ones(21, 1))
    assert solution.value.dtype == torch.float32
    assert solution.value.isfinite().all()


# --- errors ------------------------------------------------------------------------------------


def test_a_hessian_is_an_error():
    hessian = Hessian(oracles.burgers_hard(n=3, widths=(2, 3, 1)).objective)
    message = r"EKFAC needs a Gauss–Newton .* wh.ConjugateGradient\(\)"
    with pytest.raises(ValueError, match=message):
        EKFAC().factor(hessian, Damping(1e-3))


def test_parameters_of_other_kinds_are_blocks_of_their_own():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(2, 4), nn.PReLU(), nn.Linear(4, 1)).double()
    assert factor(of(network, points_of(1))).spectrum.blocks == 3
    assert factor(of(network, points_of(1), select="[02].*")).spectrum.blocks == 2


def test_parameters_without_any_layer_are_named():
    scale = nn.Parameter(torch.tensor(2.0))
    outside = Network(lambda m, x: m.scale.exp() * x, scale=scale)
    message = r"'data' uses elsewhere scale of Network: select other"
    with pytest.raises(ValueError, match=message):
        factor(of(outside, points_of(1)))


def test_residuals_whose_layers_cannot_be_followed_are_an_error(parts):
    case = oracles.burgers_hard(n=3, widths=(2, 3, 1), derivatives="autograd")
    with pytest.raises(ValueError, match="term 'pde'"):
        factor(case.objective)

    network = parts["a"].double()

    def by_autograd(tensors, z):
        z = z.clone().requires_grad_(True)
        total = functional_call(network, tensors, (z,)).sum()
        return torch.autograd.grad(total, z, create_graph=True)[0]

    objective = Objective(network, [Term("data", by_autograd, random(3, 2))])
    with pytest.raises(ValueError, match=r"torch\.autograd\.grad: use wh"):
        factor(objective)


def test_what_is_not_finite_is_an_error():
    objective = of(oracles.tanh_network(2, 5, 3), points_of(12))
    with torch.no_grad():
        objective.network[0].weight[0, 0] = float("nan")
    with pytest.raises(ValueError, match="not finite"):
        factor(objective)


@pytest.mark.parametrize("limit", LIMITS)
def test_singular_without_damping_is_an_error(limit):
    objective = oracles.burgers_hard(n=2).objective
    with pytest.raises(SingularSystem, match=r"singular .* raise the damping"):
        factor(objective, 0.0, block_limit=limit)


def without_effect(network):
    """An objective whose residual no parameter moves."""

    def residual(tensors, z):
        return 0 * functional_call(network, tensors, (z,))

    return Objective(network, [Term("data", residual, random(3, 2))])


def test_no_curvature_at_all():
    objective = without_effect(nn.Linear(2, 1).double())
    with pytest.raises(SingularSystem, match="damping"):
        factor(objective)

    operator = GaussNewtonMatrix(objective)
    state = EKFAC().factor(operator, Damping(2.0, relative=False))
    oracles.close(inverse(state), np.eye(3) / 2, 1e-14)


def test_options_are_checked():
    with pytest.raises(ValueError, match="block_limit must be a positive integer"):
        EKFAC(block_limit=0)
    with pytest.raises(ValueError, match="memory_budget"):
        EKFAC(memory_budget=-1)
