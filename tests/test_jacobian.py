import numpy as np
import oracles
import pytest
import torch
from torch import nn
from torch.func import functional_call

from whence import linearization
from whence.classification import CrossEntropy
from whence.jacobian import (
    LARGE_NETWORK,
    Jacobian,
    gradient_products,
    point_gradients,
    row_blocks,
)
from whence.linearization import linearize
from whence.objective import Objective
from whence.parameters import Parameters
from whence.points import MAX_ROW_BYTES, blocks, linearized_at_once
from whence.space import Space
from whence.term import Term

LAYERS, FUNCTION, REVERSE = (
    linearization.LayerLinearization,
    linearization.FunctionLinearization,
    linearization.ReverseLinearization,
)


@pytest.fixture(params=oracles.CASES, name="case")
def _case(request):
    return oracles.CASES[request.param]()


def random(*shape, seed=0):
    return torch.randn(
        shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )


# --- the Jacobian of an objective --------------------------------------------------------------


@pytest.mark.parametrize("scaled", [False, True])
def test_rows_products_and_kernel_against_brute_force(case, scaled):
    expected = oracles.jacobian(case, scaled)
    found = Jacobian(case.objective, scaled=scaled)
    rows, size = expected.shape
    assert found.shape == (rows, size)
    v, u = random(size), random(rows)
    oracles.close(found.dense(), expected, 1e-12)
    oracles.close(found.matvec(v), expected @ v.numpy(), 1e-12)
    oracles.close(found.rmatvec(u), expected.T @ u.numpy(), 1e-12)
    oracles.close(found.gram(), expected @ expected.T, 1e-12)
    oracles.close(found.row_norms(), np.linalg.norm(expected, axis=1), 1e-12)


@pytest.mark.parametrize("derivatives", ["jets", "autograd"])
@pytest.mark.parametrize("name", oracles.CASES)
def test_both_paths_agree(name, derivatives):
    """Layers and jets against torch.func: two derivations of the same rows."""
    case, other = oracles.CASES[name](), oracles.CASES[name](derivatives=derivatives)
    tolerance = 1e-12
    for term, twin in zip(
        case.objective.terms.values(), other.objective.terms.values(), strict=True
    ):
        parameters = case.objective.parameters
        fast = linearize(term.residual, parameters, term.points)
        assert isinstance(fast, LAYERS)
        slow = FUNCTION(
            twin.residual, other.objective.parameters, twin.points, fast.value
        )
        reverse = REVERSE(twin.residual, other.objective.parameters, twin.points)
        seed, vectors = random(*fast.value.shape), random(parameters.size, 3)
        for exact in (slow, reverse):
            oracles.close(fast.rows(seed), exact.rows(seed), tolerance)
            oracles.close(
                fast.matvec(vectors, seed), exact.matvec(vectors, seed), tolerance
            )
            oracles.close(fast.rmatvec(seed), exact.rmatvec(seed), tolerance)
        oracles.close(reverse.value, fast.value, tolerance)


def test_derivatives_by_autograd_take_the_function_path():
    case = oracles.burgers_hard(derivatives="autograd")
    term = case.objective.term("pde")
    assert isinstance(
        linearize(term.residual, case.objective.parameters, term.points), FUNCTION
    )
    oracles.close(Jacobian(case.objective).dense(), oracles.jacobian(case), 1e-12)


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("chunk", [1, 2, 4, 9, 100])
def test_chunks_change_nothing(case, chunk, scaled):
    whole = Jacobian(case.objective, scaled=scaled)
    parts = Jacobian(case.objective, scaled=scaled, chunk=chunk)
    rows, size = whole.shape
    u, v = random(rows), random(size)
    tolerance = 1e-12
    oracles.close(parts.dense(), whole.dense(), tolerance)
    oracles.close(parts.matvec(v), whole.matvec(v), tolerance)
    oracles.close(parts.rmatvec(u), whole.rmatvec(u), tolerance)
    oracles.close(parts.row_norms(), whole.row_norms(), tolerance)
    blocks = list(parts.blocks())
    oracles.close(torch.cat([b for _, b in blocks]), parts.residual(), tolerance)


def test_order_of_points_only_orders_rows(case):
    term = next(iter(case.objective.terms.values()))
    order = torch.randperm(len(term.points), generator=torch.Generator().manual_seed(3))
    one = row_blocks(term.residual, case.objective.parameters, term.points)
    other = row_blocks(
        term.residual, case.objective.parameters, term.points[order], size=2
    )
    oracles.close(torch.cat(list(other)), torch.cat(list(one))[order], 1e-12)


def test_right_hand_side_makes_the_gradient(case):
    gradients, scales = oracles.loss_gradients(case)
    found = Jacobian(case.objective, scaled=True)
    oracles.close(found.rmatvec(found.residual()), scales @ gradients, 1e-12)
    oracles.close(case.objective.loss_and_gradient()[1], scales @ gradients, 1e-12)


@pytest.mark.parametrize("columns", [1, 3, 20])
@pytest.mark.parametrize("chunk", [None, 4])
def test_products_with_loss_gradients(case, columns, chunk):
    gradients, _ = oracles.loss_gradients(case)
    objective, start = case.objective, 0
    vectors = random(objective.parameters.size, columns)
    for term in objective.terms.values():
        expected = gradients[start : start + len(term.points)]
        start += len(term.points)
        found = gradient_products(
            term, objective.parameters, term.points, vectors, chunk
        )
        oracles.close(found, expected @ vectors.numpy(), 1e-12)
        rows = [
            linear.rows(seed)
            for _, linear, seed in point_gradients(
                term, objective.parameters, term.points, chunk
            )
        ]
        oracles.close(torch.cat(rows), expected, 1e-12)


@pytest.mark.parametrize("select", ["0.*", "2.weight", "4.bias", "*.bias"])
@pytest.mark.parametrize("scaled", [False, True])
def test_selected_parameters(select, scaled):
    case = oracles.burgers_soft(select=select)
    found = Jacobian(case.objective, scaled=scaled)
    expected = oracles.jacobian(case, scaled)
    oracles.close(found.dense(), expected, 1e-12)
    v, u = random(found.shape[1]), random(found.shape[0])
    oracles.close(found.matvec(v), expected @ v.numpy(), 1e-12)
    oracles.close(found.rmatvec(u), expected.T @ u.numpy(), 1e-12)
    everything = oracles.burgers_soft()
    columns = [
        everything.objective.parameters.slices[n] for n in found.parameters.names
    ]
    whole = oracles.jacobian(everything, scaled)
    oracles.close(
        found.dense(), np.concatenate([whole[:, s] for s in columns], axis=1), 1e-12
    )


class Mahalanobis:
    """ℓ(r) = ½ rᵀMr with a full M: curvature that mixes components."""

    m = torch.tensor([[2.0, 0.7, 0.1], [0.7, 1.0, -0.3], [0.1, -0.3, 1.5]]).double()

    is_convex = spans = True

    def value(self, r, y=None):
        return 0.5 * ((r @ self.m) * r).sum(1)

    def gradient(self, r, y=None):
        return r @ self.m

    def curvature_root(self, r, y=None):
        return torch.linalg.cholesky(self.m).expand(len(r), 3, 3)

    def whitened_gradient(self, r, y=None):
        return r @ torch.linalg.cholesky(self.m)


def test_any_loss():
    case = oracles.navier_stokes(n=4)
    term = case.objective.term("flow")
    objective = Objective(
        case.objective.network,
        [Term("flow", term.residual, term.points, weight=3.0, loss=Mahalanobis())],
        space=Space(coordinates=("x", "y")),
    )
    rows, values = oracles.point_jacobians(case, case.residuals["flow"], term.points)
    m = Mahalanobis.m.numpy()
    found = Jacobian(objective, scaled=True, chunk=3)
    matrix = sum(3.0 / 4 * j.T @ m @ j for j in rows)
    oracles.close(found.dense().T @ found.dense(), matrix, 1e-12)
    gradient = sum(3.0 / 4 * j.T @ m @ r for j, r in zip(rows, values, strict=True))
    oracles.close(found.rmatvec(found.residual()), gradient, 1e-12)
    oracles.close(objective.loss_and_gradient()[1], gradient, 1e-12)
    v = random(found.shape[1])
    oracles.close(found.rmatvec(found.matvec(v)), matrix @ v.numpy(), 1e-12)


# --- any pointwise function --------------------------------------------------------------------

N = 6
Z = random(N, 2, seed=5)


def of_network(network):
    return lambda tensors, z: functional_call(network, tensors, (z,))


def agrees(network, path, function=None, points=Z, select=None):
    """Check every product of ``linearize`` against plain autograd, one point at a time."""
    function = function or of_network(network)
    parameters = Parameters(network, select)
    theta = parameters.vector()
    each = [
        torch.autograd.functional.jacobian(
            lambda t, z=z: function(parameters.substituted(t), z.unsqueeze(0))[0], theta
        )
        for z in points
    ]
    rows = torch.stack(each)
    found = linearize(function, parameters, points)
    assert type(found) is path
    oracles.close(found.value, function(parameters.tensors(), points).detach(), 1e-14)
    seed, vectors = random(*rows.shape[:2]), random(parameters.size, 3)
    expected = torch.einsum("nmp,nm->np", rows, seed)
    oracles.close(found.rows(seed), expected, 1e-12)
    oracles.close(found.matvec(vectors, seed), expected @ vectors, 1e-12)
    oracles.close(found.rmatvec(seed), expected.sum(0), 1e-12)
    return rows


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def test_supervised_network():
    agrees(oracles.tanh_network(2, 5, 3), LAYERS)


@pytest.mark.parametrize("select", ["0.weight", "0.bias", "2.*", "2.bias"])
def test_part_of_a_supervised_network(select):
    agrees(oracles.tanh_network(2, 5, 3), LAYERS, select=select)


@pytest.mark.parametrize("points", [Z[:1], Z[:2]])
def test_as_few_points_as_inputs(points):
    agrees(oracles.tanh_network(2, 5, 2), LAYERS, points=points)


def test_without_bias():
    network = nn.Sequential(
        nn.Linear(2, 3, bias=False), nn.Tanh(), nn.Linear(3, 1)
    ).double()
    agrees(network, LAYERS)


def test_convolution():
    network = nn.Sequential(
        nn.Unflatten(1, (1, 2)), nn.Conv1d(1, 3, 2, padding=1), nn.Tanh(), nn.Flatten()
    )
    agrees(nn.Sequential(network, nn.Linear(9, 2)).double(), LAYERS)


def test_layer_norm_and_softplus():
    network = nn.Sequential(
        nn.Linear(2, 4), nn.LayerNorm(4), nn.Softplus(), nn.Linear(4, 1)
    )
    agrees(network.double(), LAYERS)


class Module(nn.Module):
    """Two layers and a forward pass given as a function of the module and the points."""

    def __init__(self, forward, **parts):
        super().__init__()
        self.a, self.b = nn.Linear(2, 4), nn.Linear(4, 4)
        for name, part in parts.items():
            if isinstance(part, torch.Tensor) and not isinstance(part, nn.Parameter):
                self.register_buffer(name, part)
            else:
                setattr(self, name, part)
        self._forward = forward
        self.double()

    def forward(self, x):
        return self._forward(self, x)


def test_tied_weights_and_a_layer_used_twice():
    def forward(m, x):
        return m.b(torch.tanh(m.b(torch.tanh(m.a(x)))))

    network = Module(forward)
    agrees(network, LAYERS)
    tied = Module(
        lambda m, x: m.c(torch.tanh(m.b(torch.tanh(m.a(x))))), c=nn.Linear(4, 4)
    )
    tied.c.weight = tied.b.weight
    agrees(tied, LAYERS)
    assert Parameters(tied).size == 12 + 20 + 4


def test_unused_parameters_have_zero_columns():
    network = Module(lambda m, x: m.a(x), spare=nn.Parameter(torch.ones(3)))
    rows = agrees(network, LAYERS)
    parameters = Parameters(network)
    assert not rows[..., parameters.slices["b.weight"]].any()
    assert not rows[..., parameters.slices["spare"]].any()


def test_output_that_depends_on_nothing_selected():
    network = Module(lambda m, x: m.a(x))
    parameters = Parameters(network, "b.*")
    for function in (of_network(network), lambda tensors, z: z):
        found = linearize(function, parameters, Z)
        seed = torch.ones_like(found.value)
        assert not found.rows(seed).any()
        assert not found.matvec(random(20, 2), seed).any()
        assert not found.rmatvec(seed).any()


def test_parameters_used_outside_linear_layers():
    scale = nn.Parameter(torch.tensor(2.0))
    agrees(Module(lambda m, x: m.scale * torch.tanh(m.a(x)), scale=scale), LAYERS)
    agrees(Module(lambda m, x: torch.tanh(m.a(x)) @ m.b.weight.T), LAYERS)
    agrees(
        Module(lambda m, x: torch.sigmoid(m.a(x)) ** m.scale.exp(), scale=scale), LAYERS
    )
    alone = Module(lambda m, x: torch.sigmoid(x) ** m.scale.exp(), scale=scale)
    agrees(alone, FUNCTION, select="scale")
    frozen = Module(lambda m, x: m.scale * torch.tanh(m.a(x)), scale=scale)
    agrees(frozen, LAYERS, select="a.*")


def test_parameter_written_into_a_tensor():
    def forward(m, x):
        out = torch.ones(len(x), 4, dtype=x.dtype)
        out[:, 1] = m.scale
        return m.a(x) * out

    network = Module(forward, scale=nn.Parameter(torch.tensor(2.0)))
    found = linearize(of_network(network), Parameters(network, "scale"), Z)
    expected = torch.zeros(N, 1).double() + network.a(Z)[:, 1:2]
    oracles.close(found.rows(torch.ones(N, 4).double()), expected.detach(), 1e-14)


def test_parameters_as_the_input_of_a_layer():
    def forward(m, x):
        return torch.tanh(m.a(x)) * m.b(m.codes).sum(0)

    agrees(Module(forward, codes=nn.Parameter(torch.randn(N, 4))), FUNCTION)


def test_activations_in_place():
    layers = [
        nn.Linear(2, 4),
        nn.ReLU(inplace=True),
        nn.Linear(4, 4),
        nn.ReLU(inplace=True),
    ]
    agrees(nn.Sequential(*layers[:2], nn.Linear(4, 2)).double(), LAYERS)
    agrees(nn.Sequential(*layers, nn.Linear(4, 2)).double(), LAYERS)


def test_input_of_a_layer_overwritten_later_is_an_error_as_in_training():
    def forward(m, x):
        h = 1.0 * m.a(x)
        g = m.b(h)
        h.mul_(0.0)
        return g

    network = Module(forward)
    found = linearize(of_network(network), Parameters(network), Z)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        found.rows(torch.ones(N, 4).double())


def test_a_table_with_as_many_rows_as_points_is_not_points():
    """As in operator networks: a layer evaluated on a fixed grid of N rows."""

    def forward(m, x):
        return torch.tanh(m.a(x)) @ torch.tanh(m.b(m.grid)).T

    agrees(Module(forward, grid=torch.randn(N, 4)), FUNCTION)
    agrees(Module(forward, grid=torch.randn(N + 1, 4)), FUNCTION)


@pytest.mark.parametrize("k", [3, N])
def test_points_in_another_axis(k):
    def forward(m, x):
        copies = torch.stack([x * j for j in range(1, k + 1)])  # (k, n, 2)
        return (m.b(torch.tanh(m.a(copies))) * copies[..., :1]).sum(0)

    agrees(Module(forward), LAYERS)


@pytest.mark.parametrize("k", [3, N])
def test_points_in_front_of_more_axes(k):
    def forward(m, x):
        copies = torch.stack([x * j for j in range(1, k + 1)], dim=1)  # (n, k, 2)
        return m.b(torch.tanh(m.a(copies))).square().sum(1)

    agrees(Module(forward), LAYERS)


def test_points_folded_into_more_rows():
    def forward(m, x):
        twice = torch.cat([x, -x], dim=1).reshape(-1, 2)
        return m.b(torch.tanh(m.a(twice))).reshape(len(x), -1)

    agrees(Module(forward), LAYERS)


def test_weight_without_a_row_axis():
    def forward(m, x):
        return nn.functional.linear(x, m.w).unsqueeze(1) * m.a(x)

    agrees(Module(forward, w=nn.Parameter(torch.randn(2))), LAYERS)


def test_gradient_stopped_inside():
    agrees(Module(lambda m, x: m.b(m.a(x).detach()) * m.a(x)), LAYERS)
    with torch.no_grad():
        agrees_under = linearize(
            of_network(net := Module(lambda m, x: m.a(x))), Parameters(net), Z
        )
    assert agrees_under.rows(torch.ones(N, 4).double()).any()


def by_autograd(network):
    def residual(tensors, z):
        z = z.clone().requires_grad_(True)
        u = functional_call(network, tensors, (z,))
        (first,) = torch.autograd.grad(u.sum(), z, create_graph=True)
        (second,) = torch.autograd.grad(first[:, 0].sum(), z, create_graph=True)
        return u * first[:, 1:] - second[:, :1]

    return residual


def test_a_residual_that_differentiates_by_itself():
    network = oracles.tanh_network(2, 5, 1)
    agrees(network, REVERSE, by_autograd(network))
    # ... and one that uses a parameter outside layers first, so that two paths would do
    other = Module(lambda m, x: (torch.tanh(m.a(x)) @ m.b.weight.T)[:, :1])
    agrees(other, REVERSE, by_autograd(other))
    grad = torch.func.grad

    def residual(tensors, z):
        u = lambda at: functional_call(network, tensors, (at,))[0]  # noqa: E731
        return torch.func.vmap(grad(u))(z)

    agrees(network, FUNCTION, residual)


@pytest.mark.parametrize("scaled", [False, True])
def test_the_jacobian_of_an_objective_by_every_path(scaled):
    """One term each through layers, functions and plain reverse mode, ragged chunks."""
    network = oracles.tanh_network(2, 5, 2)

    def by_function(tensors, z):
        return of_network(network)(tensors, z) * tensors["0.bias"][0]

    terms = [
        Term("layers", of_network(network), Z),
        Term("function", by_function, Z[:5], weight=2.0),
        Term("reverse", by_autograd_of_sum(network), Z[:3], weight=0.5),
    ]
    found = Jacobian(Objective(network, terms), scaled=scaled, chunk=2)
    parameters = Parameters(network)
    expected = []
    for term in terms:
        factor = (2 * term.scale) ** 0.5 if scaled else 1.0
        each = [
            torch.autograd.functional.jacobian(
                lambda t, z=z, f=term.residual: f(
                    parameters.substituted(t), z.unsqueeze(0)
                )[0],
                parameters.vector(),
            )
            for z in term.points
        ]
        expected.append(factor * torch.cat(each))
    expected = torch.cat(expected)
    u, v = random(len(expected)), random(parameters.size)
    oracles.close(found.dense(), expected, 1e-12)
    oracles.close(found.matvec(v), expected @ v, 1e-12)
    oracles.close(found.rmatvec(u), expected.T @ u, 1e-12)
    oracles.close(found.gram(), expected @ expected.T, 1e-12)
    oracles.close(
        torch.cat([rows.dense() for rows, _ in found.blocks()]), expected, 1e-12
    )


def by_autograd_of_sum(network):
    def residual(tensors, z):
        z = z.clone().requires_grad_(True)
        u = functional_call(network, tensors, (z,))
        (first,) = torch.autograd.grad(u[:, 0].sum(), z, create_graph=True)
        return first * u

    return residual


def test_large_kernels_are_whole():
    points = oracles.uniform(150, (-1, -1), (1, 1))
    network = oracles.tanh_network(2, 3, 2)
    found = Jacobian(Objective(network, [Term("data", of_network(network), points)]))
    rows = found.dense()
    oracles.close(found.gram(), rows @ rows.T, 1e-13)


def test_float32():
    network = oracles.tanh_network(2, 5, 1).float()
    found = linearize(of_network(network), Parameters(network), Z.float())
    assert found.rows(torch.ones(N, 1)).dtype == torch.float32


# --- errors ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "function",
    [
        lambda network, tensors, z: functional_call(network, tensors, (z,))[:, 0],
        lambda network, tensors, z: functional_call(network, tensors, (z,)) - z[:, 0],
        lambda network, tensors, z: functional_call(network, tensors, (z,)).sum(
            0, keepdim=True
        ),
    ],
)
def test_a_function_that_is_not_pointwise_is_an_error(function):
    network = oracles.tanh_network(2, 5, 1)
    with pytest.raises(
        ValueError, match=r"must return shape \(n, m\), each row from its own"
    ):
        linearize(lambda t, z: function(network, t, z), Parameters(network), Z)


@pytest.mark.parametrize("chunk", [0, -1, 2.5])
def test_chunk_must_be_a_positive_integer(chunk):
    case = oracles.burgers_hard()
    with pytest.raises(ValueError, match="chunk must be a positive integer"):
        Jacobian(case.objective, chunk=chunk)


def test_chunks_cover_every_point_once_and_stay_small():
    parameters = Parameters(nn.Linear(1000, 1000))
    points = torch.zeros(2500, 1)
    size = linearized_at_once(points, parameters.size)
    parts = [block.part for block in blocks(points, size)]
    assert [i for p in parts for i in range(2500)[p]] == list(range(2500))
    assert all((p.stop - p.start) * parameters.size * 8 <= MAX_ROW_BYTES for p in parts)


def test_products_of_many_vectors_go_layer_by_layer_in_a_large_network():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(40, 250), nn.Tanh(), nn.Linear(250, 400), nn.Tanh(), nn.Linear(400, 3)
    )
    model = model.double()
    x = torch.randn(7, 40, dtype=torch.float64)
    made = Objective.supervised(model, (x, torch.arange(7) % 3), CrossEntropy())
    assert made.parameters.size >= LARGE_NETWORK
    (term,) = made.terms.values()

    vectors = torch.randn(made.parameters.size, 20, dtype=torch.float64)
    found = gradient_products(term, made.parameters, term.points, vectors)
    rows = []
    for _, linear, cotangent in point_gradients(term, made.parameters, term.points):
        rows.append(linear.rows(cotangent))
    expected = torch.cat(rows) @ vectors
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)
