"""EKFAC against the blocks of the dense curvature, and against K-FAC written out in NumPy."""

import functools
import math

import numpy as np
import oracles
import pytest
import torch
from scipy import linalg
from torch import nn
from torch.func import functional_call, grad, vmap

from whence.curvature.conjugate_gradient import ConjugateGradient
from whence.curvature.exact import Exact
from whence.curvature.failures import SingularSystem
from whence.curvature.kronecker import EKFAC
from whence.curvature.operators import GaussNewtonMatrix, Hessian
from whence.curvature.solvers import Damping
from whence.objective import Objective, Term
from whence.pinn.fields import FieldMap

LIMITS = (2000, 1)


def random(*shape, seed=0):
    return torch.randn(
        shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )


def factor(objective, damping=1e-3, **options):
    return EKFAC(**options).factor(GaussNewtonMatrix(objective), Damping(damping))


def inverse(state):
    """The approximate inverse as a matrix."""
    size = state._system.size
    return state.precondition(torch.eye(size, dtype=torch.float64)).numpy()


def places(objective):
    """Where the parameters of each layer are in θ, each layer as a matrix (out, in + 1)."""
    modules, start = {}, 0
    for name, parameter in objective.network.named_parameters():
        if name in objective.parameters.names:
            index = np.arange(start, start + parameter.numel()).reshape(
                len(parameter), -1
            )
            modules.setdefault(name.rpartition(".")[0], []).append(index)
            start += parameter.numel()
    return [np.concatenate(parts, axis=1) for parts in modules.values()]


def damped_inverse(blocks, matrix, objective, damping=1e-3):
    """The inverse of a block-diagonal matrix plus λ, relative to the eigenvalues of ``matrix``."""
    shift = damping * linalg.eigvalsh(matrix)[-1]
    total = np.zeros_like(matrix)
    for index, block in zip(places(objective), blocks, strict=True):
        flat = index.ravel()
        total[np.ix_(flat, flat)] = linalg.inv(block + shift * np.eye(len(flat)))
    return total


def diagonal_blocks(matrix, objective):
    return [matrix[np.ix_(i.ravel(), i.ravel())] for i in places(objective)]


def regression(n=12, widths=(2, 5, 4, 3), seed=0, select=None):
    network = oracles.tanh_network(*widths, seed=seed)

    def residual(tensors, z):
        return functional_call(network, tensors, (z,)) - torch.sin(z[:, :1])

    points = oracles.uniform(n, (-1, -1), (1, 1), seed)
    objective = Objective(
        network, [Term("data", residual, points, weight=0.7)], select=select
    )
    return oracles.Case(
        objective,
        {"data": lambda t, z: residual(t, z.unsqueeze(0))[0]},
        lambda t, z: None,
    )


def curved(n=8, terms=1, seed=0, select=None, widths=(2, 6, 1)):
    """A residual linear in u and u_xx, so that the last layer's δ is the same everywhere."""
    network = oracles.tanh_network(*widths, seed=seed)
    fields = FieldMap(network, ("x", "t"), ("u",))
    columns = fields(("u", "u_xx"))

    def pde(tensors, z):
        u, u_xx = columns(tensors, z).unbind(1)
        return (u + 0.3 * u_xx - z[:, 1]).unsqueeze(1)

    def by_hand(tensors, z):
        u = lambda at: functional_call(network, tensors, (at,))[0]  # noqa: E731
        return (u(z) + 0.3 * grad(lambda at: grad(u)(at)[0])(z)[0] - z[1]).unsqueeze(0)

    def data(tensors, z):
        return fields(("u",))(tensors, z)

    given = [Term("pde", pde, oracles.uniform(n, (-1, 0), (1, 1), seed))]
    if terms == 2:
        points = oracles.uniform(max(1, n // 2), (-1, 0), (1, 0), seed + 1)
        given.append(Term("data", data, points, weight=30.0))
    objective = Objective(
        network, given, coordinates=("x", "t"), fields=fields, select=select
    )
    residuals = {"pde": by_hand, "data": lambda t, z: functional_call(network, t, (z,))}
    return oracles.Case(objective, residuals, None)


# --- where it is exact -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make",
    [
        functools.partial(oracles.burgers_hard, n=1, widths=(2, 7, 6, 1)),
        functools.partial(curved, n=1, widths=(2, 5, 4, 1)),
        functools.partial(oracles.burgers_hard, n=1, widths=(2, 9, 1), select="2.*"),
        functools.partial(
            oracles.burgers_hard, n=1, widths=(2, 9, 1), select="*.weight"
        ),
        functools.partial(
            oracles.burgers_hard, n=1, widths=(2, 9, 5, 1), select="*.bias"
        ),
        functools.partial(regression, n=1),
    ],
)
def test_one_point_is_exact_within_layers(make):
    case = make()
    matrix = oracles.gauss_newton(case)
    blocks = diagonal_blocks(matrix, case.objective)
    expected = damped_inverse(blocks, matrix, case.objective)
    oracles.close(inverse(factor(case.objective)), expected, 1e-10)


@pytest.mark.parametrize("terms", [1, 2])
def test_one_layer_is_exact_where_its_outputs_derivatives_are_the_same_everywhere(
    terms,
):
    case = curved(n=20, terms=terms, select="2.*")
    matrix = oracles.gauss_newton(case)
    shift = 1e-3 * linalg.eigvalsh(matrix)[-1] * np.eye(len(matrix))
    right = random(len(matrix), 3)
    solution = factor(case.objective).solve(right)
    oracles.close(solution.value, linalg.inv(matrix + shift) @ right.numpy(), 1e-10)
    assert solution.residual < 1e-10
    assert solution.converged
    assert solution.iterations == 0


def test_one_layer_is_the_exact_solver():
    case = regression(n=9, widths=(2, 3))
    operator, right = GaussNewtonMatrix(case.objective), random(9, 4)
    states = [
        s.factor(operator, Damping(1e-4)) for s in (EKFAC(), Exact(form="primal"))
    ]
    oracles.close(*(state.solve(right).value for state in states), 1e-10)
    found, expected = (state.spectrum for state in states)
    assert found.damping == pytest.approx(expected.damping, rel=1e-10)
    assert (found.blocks, found.full_blocks) == (1, 0)


@pytest.mark.parametrize("limit", LIMITS)
def test_more_right_hand_sides_than_parameters(limit):
    network = nn.Linear(3, 1, dtype=torch.float64)
    points = random(9, 3)
    objective = Objective(
        network, [Term("data", lambda t, z: functional_call(network, t, (z,)), points)]
    )
    rows = np.concatenate([points.numpy(), np.ones((9, 1))], axis=1)
    matrix = 2 / 9 * rows.T @ rows
    right = random(4, 40)
    solution = factor(objective, block_limit=limit).solve(right)
    shift = 1e-3 * linalg.eigvalsh(matrix)[-1] * np.eye(4)
    oracles.close(solution.value, linalg.inv(matrix + shift) @ right.numpy(), 1e-10)
    assert (solution.value.abs().amax(dim=1) > 0).all()


# --- what it approximates ----------------------------------------------------------------------


def kfac_with_corrected_eigenvalues(case, points):
    """Blocks Q diag(s) Qᵀ of plain regression: the rows at biases are the δ, inputs by hand."""
    rows = oracles.jacobian(case, scaled=True)
    components = len(rows) // len(points)
    tensors = {
        n: p.detach().numpy() for n, p in case.objective.network.named_parameters()
    }
    hidden, blocks = points.numpy(), []
    for k, index in enumerate(places(case.objective)):
        inputs = np.concatenate([hidden, np.ones((len(hidden), 1))], axis=1)
        inputs = np.repeat(inputs, components, axis=0)
        deltas = rows[:, index[:, -1]]
        left = linalg.eigh(deltas.T @ deltas)[1]
        right = linalg.eigh(inputs.T @ inputs)[1]
        basis = np.kron(left, right)
        values = np.square(rows[:, index.ravel()] @ basis).sum(axis=0)
        blocks.append(basis * values @ basis.T)
        hidden = np.tanh(
            hidden @ tensors[f"{2 * k}.weight"].T + tensors[f"{2 * k}.bias"]
        )
    return blocks


@pytest.mark.parametrize("limit", LIMITS)
def test_plain_regression_is_kfac_with_corrected_eigenvalues(limit):
    case = regression()
    blocks = kfac_with_corrected_eigenvalues(case, case.objective.term("data").points)
    expected = damped_inverse(blocks, oracles.gauss_newton(case), case.objective)
    oracles.close(inverse(factor(case.objective, block_limit=limit)), expected, 1e-10)


def test_plain_regression_agrees_with_curvlinops():
    curvlinops = pytest.importorskip("curvlinops")
    case = regression()
    objective, points = case.objective, case.objective.term("data").points
    operator = curvlinops.EKFACLinearOperator(
        objective.network,
        nn.MSELoss(reduction="sum"),
        list(objective.network.parameters()),
        [(points, torch.zeros(len(points), 3).double())],
        fisher_type="type-2",
        separate_weight_and_bias=False,
        check_deterministic=False,
    )
    scale = objective.term("data").scale  # of a point in our loss, 1 in theirs
    dense = (
        scale
        * (operator @ torch.eye(objective.parameters.size).double()).detach().numpy()
    )
    blocks = diagonal_blocks(dense, objective)
    expected = damped_inverse(blocks, oracles.gauss_newton(case), objective)
    oracles.close(inverse(factor(objective)), expected, 1e-10)


def test_channels_are_paired_as_if_points_were_independent():
    """Of r = u·u_x + u_xx, u = v·tanh(Wz + b): the sum over all pairs of points, each row mixed."""
    case = oracles.burgers_hard(n=1, widths=(2, 4, 1), select="0.*")
    network = case.objective.network
    columns = FieldMap(network, ("x", "t"), ("u",))(("u", "u_x", "u_xx"))

    def residual(tensors, z):
        u, u_x, u_xx = columns(tensors, z).unbind(1)
        return (u * u_x + u_xx).unsqueeze(1)

    points = oracles.uniform(6, (-1, 0), (1, 1))
    objective = Objective(network, [Term("pde", residual, points)], select="0.*")
    out, shift = (p.detach() for p in network[2].parameters())

    def by_outputs(outputs):
        s, s_x, s_xx = outputs  # of the first layer, and its derivatives by x
        h = torch.tanh(s)
        f1, f2 = 1 - h**2, -2 * h * (1 - h**2)
        u = out[0] @ h + shift[0]
        return u * (out[0] @ (f1 * s_x)) + out[0] @ (f2 * s_x**2 + f1 * s_xx)

    weight, bias = (p.detach() for p in network[0].parameters())
    outputs = torch.stack(
        [points @ weight.T + bias, weight[:, 0].expand(6, 4), torch.zeros(6, 4)], dim=1
    )
    deltas = math.sqrt(2 / 6) * vmap(grad(by_outputs))(outputs).numpy()
    inputs = np.zeros((6, 3, 3))  # point, channel, (x, t, 1)
    inputs[:, 0, :2], inputs[:, 0, 2], inputs[:, 1, 0] = points.numpy(), 1.0, 1.0
    mixed = np.einsum("rco,sci->rsoi", deltas, inputs).reshape(36, 12)
    true = np.einsum("rco,rci->roi", deltas, inputs).reshape(6, 12)
    basis = linalg.eigh(mixed.T @ mixed / 6)[1]
    block = basis * np.square(true @ basis).sum(axis=0) @ basis.T
    index = places(objective)[0].ravel()
    matrix = np.zeros((12, 12))
    matrix[np.ix_(index, index)] = true.T @ true
    oracles.close(GaussNewtonMatrix(objective).dense(), matrix, 1e-12)
    expected = damped_inverse([block], matrix, objective)
    oracles.close(inverse(factor(objective)), expected, 1e-10)


def shampoo_with_corrected_eigenvalues(case):
    """Blocks in the eigenvectors of the partial traces of the true blocks."""
    blocks = []
    matrix = oracles.gauss_newton(case)
    for index, block in zip(
        places(case.objective), diagonal_blocks(matrix, case.objective), strict=True
    ):
        four = block.reshape(*index.shape, *index.shape)
        left = linalg.eigh(np.einsum("oipi->op", four))[1]
        right = linalg.eigh(np.einsum("oioj->ij", four))[1]
        basis = np.kron(left, right)
        blocks.append(basis * np.einsum("pj,pq,qj->j", basis, block, basis) @ basis.T)
    return blocks


@pytest.mark.parametrize("make", [oracles.burgers_hard, curved])
def test_large_layers_take_the_partial_traces_of_their_curvature(make):
    case = make(n=5)
    expected = damped_inverse(
        shampoo_with_corrected_eigenvalues(case),
        oracles.gauss_newton(case),
        case.objective,
    )
    oracles.close(inverse(factor(case.objective, block_limit=1)), expected, 1e-9)


SMALL = {
    "soft": functools.partial(oracles.burgers_soft, n=6, widths=(2, 6, 5, 1)),
    "flow": functools.partial(oracles.navier_stokes, n=4, widths=(2, 5, 4, 3)),
    "hard": functools.partial(oracles.burgers_hard, n=5, widths=(2, 6, 1)),
    "regression": regression,
    "part": functools.partial(
        oracles.burgers_soft, n=6, widths=(2, 6, 5, 1), select="2.weight"
    ),
}


@pytest.mark.parametrize("limit", LIMITS)
@pytest.mark.parametrize("name", SMALL)
def test_eigenvalues_are_the_curvature_along_the_basis(name, limit):
    """Soft Burgers uses each layer twice in its periodic term, flow has three components."""
    case = SMALL[name]()
    matrix = oracles.gauss_newton(case)
    state = factor(case.objective, block_limit=limit)
    approximate = linalg.inv(inverse(state)) - state.spectrum.damping * np.eye(
        len(matrix)
    )
    assert np.trace(approximate) == pytest.approx(np.trace(matrix), rel=1e-10)
    blocks = diagonal_blocks(matrix, case.objective)
    for block, index, true in zip(
        state._blocks, places(case.objective), blocks, strict=True
    ):
        eye = torch.eye(index.size, dtype=torch.float64)
        basis = block.basis.back(eye.view(-1, *index.shape)).flatten(1).T.numpy()
        oracles.close(basis.T @ basis, eye, 1e-12)
        expected = np.einsum("pj,pq,qj->j", basis, true, basis)
        oracles.close(block.eigenvalues.flatten(), expected, 1e-12)
    full = [s for s in map(np.size, places(case.objective)) if limit > 1]
    assert state.spectrum.full_blocks == (0 if name == "regression" else len(full))


@pytest.mark.parametrize("limit", LIMITS)
@pytest.mark.parametrize("name", SMALL)
def test_chunks_and_order_of_points_do_not_matter(name, limit):
    case = SMALL[name]()
    expected = inverse(factor(case.objective, block_limit=limit))
    chunked = GaussNewtonMatrix(case.objective, chunk=3)
    found = EKFAC(limit).factor(chunked, Damping(1e-3))
    oracles.close(inverse(found), expected, 1e-10)
    turned = {name: term.points.flip(0) for name, term in case.objective.terms.items()}
    other = case.objective.with_points(turned)
    oracles.close(inverse(factor(other, block_limit=limit)), expected, 1e-10)


@pytest.mark.parametrize("limit", LIMITS)
def test_rows_are_cut_to_the_cache_without_a_trace(limit, monkeypatch):
    case = SMALL["soft"]()
    expected = inverse(factor(case.objective, block_limit=limit))
    monkeypatch.setattr("whence.curvature.layer_rows.BLOCK_NUMBERS", 200)
    oracles.close(inverse(factor(case.objective, block_limit=limit)), expected, 1e-10)


def test_layers_with_too_many_pairs_of_channels_are_products(monkeypatch):
    monkeypatch.setattr("whence.curvature.kronecker_bases.MOMENT_NUMBERS", 10)
    assert factor(SMALL["soft"]().objective).spectrum.full_blocks == 0
    assert factor(SMALL["regression"]().objective).spectrum.full_blocks == 0


@pytest.mark.parametrize("limit", LIMITS)
def test_the_residual_is_that_of_the_whole_system(limit):
    case = oracles.burgers_soft(n=6, widths=(2, 6, 5, 1))
    matrix, right = oracles.gauss_newton(case), random(59, 2)
    state = factor(case.objective, block_limit=limit)
    solution = state.solve(right)
    shift = 1e-3 * linalg.eigvalsh(matrix)[-1] * np.eye(59)
    error = right.numpy() - (matrix + shift) @ solution.value.numpy()
    expected = (linalg.norm(error, axis=0) / linalg.norm(right.numpy(), axis=0)).max()
    assert solution.residual == pytest.approx(expected, rel=1e-8)
    assert expected > 1e-2


# --- layers of all kinds -----------------------------------------------------------------------


class Network(nn.Module):
    def __init__(self, forward, **parts):
        super().__init__()
        for name, part in parts.items():
            setattr(self, name, part)
        self._forward = forward
        self.double()

    def forward(self, x):
        return self._forward(self, x)


def of(network, n=1, select=None, points=None):
    points = random(n, 2, seed=3) if points is None else points
    return Objective(
        network,
        [Term("data", lambda t, z: functional_call(network, t, (z,)), points)],
        select=select,
    )


def brute_force(objective):
    """The Gauss–Newton matrix of a supervised objective by plain autograd."""
    parameters, term = objective.parameters, objective.term("data")
    total = 0.0
    for z in term.points:
        rows = torch.autograd.functional.jacobian(
            lambda t, z=z: term.residual(parameters.substituted(t), z.unsqueeze(0))[0],
            parameters.vector(),
        )
        total = total + 2 * term.scale * rows.T @ rows
    return total.numpy()


def exact_within(objective, groups):
    """Assert that one point is exact within groups of parameters, named by their places in θ."""
    matrix = brute_force(objective)
    blocks = np.zeros_like(matrix)
    slices = objective.parameters.slices
    for group in groups:
        index = np.concatenate(
            [np.arange(slices[n].start, slices[n].stop) for n in group]
        )
        blocks[np.ix_(index, index)] = matrix[np.ix_(index, index)]
    shift = 1e-3 * linalg.eigvalsh(matrix)[-1] * np.eye(len(matrix))
    oracles.close(inverse(factor(objective)), linalg.inv(blocks + shift), 1e-10)


def twice(m, x):
    return m.b(torch.tanh(m.b(torch.tanh(m.a(x)))))


def apart(m, x):
    return m.c(torch.tanh(m.b(torch.tanh(m.a(x)))))


@pytest.fixture(name="parts")
def _parts():
    torch.manual_seed(0)
    return {"a": nn.Linear(2, 4), "b": nn.Linear(4, 4), "c": nn.Linear(4, 4)}


def test_a_layer_used_twice(parts):
    groups = [("a.weight", "a.bias"), ("b.weight", "b.bias")]
    exact_within(of(Network(twice, a=parts["a"], b=parts["b"])), groups)


def test_one_weight_with_two_biases(parts):
    parts["c"].weight = parts["b"].weight
    exact_within(
        of(Network(apart, **parts)),
        [("a.weight", "a.bias"), ("b.weight", "b.bias", "c.bias")],
    )


def test_one_bias_with_two_weights(parts):
    parts["c"].bias = parts["b"].bias
    groups = [("a.weight", "a.bias"), ("b.weight",), ("c.weight",), ("b.bias",)]
    exact_within(of(Network(apart, **parts)), groups)


def test_a_layer_that_nothing_depends_on(parts):
    network = Network(lambda m, x: m.b(torch.tanh(m.a(x))), **parts)
    groups = [("a.weight", "a.bias"), ("b.weight", "b.bias")]
    exact_within(of(network), groups)
    with pytest.raises(SingularSystem, match="singular"):
        factor(of(network), 0.0)


def test_positions_that_share_a_layer(parts):
    def forward(m, x):
        copies = torch.stack([x * j for j in range(1, 4)], dim=1)
        return m.b(torch.tanh(m.a(copies))).square().sum(1)

    groups = [("a.weight", "a.bias"), ("b.weight", "b.bias")]
    exact_within(of(Network(forward, a=parts["a"], b=parts["b"])), groups)


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
    ).double()
    return of(network, select=select, points=random(n, 25))


def test_convolutions():
    groups = [("1.weight", "1.bias"), ("3.weight",), ("6.weight", "6.bias")]
    exact_within(convolutions(1), groups)


def mixed(n, seed=4):
    """Normalisation, a convolution in groups and an embedding, besides linear layers."""
    torch.manual_seed(seed)

    def forward(m, x):
        seen = m.conv(torch.tanh(m.layer(m.first(x))).unflatten(1, (2, 3)))
        words = torch.tanh(m.table((4 * x).long() % 5)).mean(1)
        return m.head(torch.cat([m.batch(seen).flatten(1), words], dim=1))

    network = Network(
        forward,
        first=nn.Linear(2, 6), layer=nn.LayerNorm(6), conv=nn.Conv1d(2, 4, 2, groups=2),
        batch=nn.BatchNorm1d(4), table=nn.Embedding(5, 3), head=nn.Linear(11, 2),
    ).eval()  # fmt: skip
    for module in (network.layer, network.batch):
        nn.init.normal_(module.weight)
    return of(network, points=random(n, 2).abs())


OWN = [
    ("layer.weight", "layer.bias"),
    ("conv.weight", "conv.bias"),
    ("batch.weight", "batch.bias"),
    ("table.weight",),
]


def test_normalisation_embedding_and_groups_of_one_point():
    exact_within(
        mixed(1), [("first.weight", "first.bias"), *OWN, ("head.weight", "head.bias")]
    )


@pytest.mark.parametrize("limit", LIMITS)
def test_layers_with_a_block_of_their_own(limit):
    """Exact at many points; above the limit its diagonal is."""
    objective = mixed(9)
    matrix, state = brute_force(objective), factor(objective, block_limit=limit)
    found = inverse(state)
    assert state.spectrum.blocks == 6
    for group in OWN:
        slices = [objective.parameters.slices[name] for name in group]
        index = np.concatenate([np.arange(s.start, s.stop) for s in slices])
        block = matrix[np.ix_(index, index)]
        block = block if limit > 1 else np.diag(np.diag(block))
        expected = linalg.inv(block + state.spectrum.damping * np.eye(len(index)))
        oracles.close(found[np.ix_(index, index)], expected, 1e-10)


def test_a_shift_alone_and_one_matrix_for_words_in_and_out():
    objective = mixed(9)
    alone = of(
        objective.network, select="layer.bias", points=objective.term("data").points
    )
    matrix, state = brute_force(alone), factor(alone)
    oracles.close(
        inverse(state), linalg.inv(matrix + state.spectrum.damping * np.eye(6)), 1e-10
    )
    torch.manual_seed(0)
    network = Network(
        lambda m, x: m.out(torch.tanh(m.table((4 * x).long() % 5)).mean(1)),
        table=nn.Embedding(5, 3), out=nn.Linear(3, 5),
    )  # fmt: skip
    network.out.weight = network.table.weight
    tied = of(network, points=random(7, 2).abs())
    matrix, state = brute_force(tied), factor(tied)
    oracles.close(
        inverse(state), linalg.inv(matrix + state.spectrum.damping * np.eye(20)), 1e-10
    )


def test_many_positions():
    objective = convolutions(7, select="1.*")
    matrix = brute_force(objective)
    case = oracles.Case(objective, {}, None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(oracles, "gauss_newton", lambda case: matrix)
        blocks = shampoo_with_corrected_eigenvalues(case)
    expected = damped_inverse(blocks, matrix, objective)
    oracles.close(inverse(factor(objective, block_limit=1)), expected, 1e-9)


def test_float32():
    network = oracles.tanh_network(2, 5, 1).float()
    objective = of(network, points=random(20, 2).float())
    solution = factor(objective, 1e-2).solve(torch.ones(21, 1))
    assert solution.value.dtype == torch.float32
    assert solution.value.isfinite().all()


# --- as a preconditioner -----------------------------------------------------------------------


def test_conjugate_gradients_are_quicker_with_it():
    """In regression; the layers of an equation's residual depend too much on each other."""
    objective = of(oracles.tanh_network(5, 10, 10, 2), points=random(600, 5))
    operator = GaussNewtonMatrix(objective).cached(2**30)
    right = operator.matmat(random(operator.size, 2))
    plain, better = (
        ConjugateGradient(rtol=1e-6, preconditioner=p)
        .factor(operator, Damping(1e-7))
        .solve(right)
        for p in (None, EKFAC())
    )
    assert better.converged
    assert better.iterations < 0.9 * plain.iterations


# --- errors ------------------------------------------------------------------------------------


def test_a_hessian_is_an_error():
    case = oracles.burgers_hard(n=3, widths=(2, 3, 1))
    with pytest.raises(
        ValueError, match=r"EKFAC needs a Gauss–Newton .* wh.ConjugateGradient\(\)"
    ):
        EKFAC().factor(Hessian(case.objective), Damping(1e-3))


def test_parameters_of_other_layers_are_named():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(2, 4), nn.PReLU(), nn.Linear(4, 1)).double()
    with pytest.raises(
        ValueError, match=r"uses elsewhere 1\.weight of PReLU: .*Sketched"
    ):
        factor(of(network))
    assert factor(of(network, select="[02].*")).spectrum.blocks == 2
    scale = nn.Parameter(torch.tensor(2.0))
    outside = Network(lambda m, x: m.scale * m.a(x), scale=scale, a=nn.Linear(2, 4))
    with pytest.raises(
        ValueError, match=r"'data' uses elsewhere scale of Network: select other"
    ):
        factor(of(outside))


def test_residuals_whose_layers_cannot_be_followed_are_an_error(parts):
    case = oracles.burgers_hard(n=3, widths=(2, 3, 1), derivatives="autograd")
    with pytest.raises(ValueError, match="term 'pde'"):
        factor(case.objective)
    network = parts["a"].double()

    def by_autograd(tensors, z):
        z = z.clone().requires_grad_(True)
        return torch.autograd.grad(
            functional_call(network, tensors, (z,)).sum(), z, create_graph=True
        )[0]

    with pytest.raises(ValueError, match=r"torch\.autograd\.grad: use wh"):
        factor(Objective(network, [Term("data", by_autograd, random(3, 2))]))


def test_what_is_not_finite_is_an_error():
    objective = regression().objective
    with torch.no_grad():
        objective.network[0].weight[0, 0] = float("nan")
    with pytest.raises(ValueError, match="not finite"):
        factor(objective)


@pytest.mark.parametrize("limit", LIMITS)
def test_singular_without_damping_is_an_error(limit):
    with pytest.raises(SingularSystem, match=r"singular .* raise the damping"):
        factor(oracles.burgers_hard(n=2).objective, 0.0, block_limit=limit)


def test_no_curvature_at_all():
    network = nn.Linear(2, 1).double()
    term = Term(
        "data", lambda t, z: 0 * functional_call(network, t, (z,)), random(3, 2)
    )
    objective = Objective(network, [term])
    with pytest.raises(ValueError, match="damping"):
        factor(objective)
    state = EKFAC().factor(GaussNewtonMatrix(objective), Damping(2.0, relative=False))
    oracles.close(inverse(state), np.eye(3) / 2, 1e-14)


def test_options_are_checked():
    with pytest.raises(ValueError, match="block_limit must be a positive integer"):
        EKFAC(block_limit=0)
    with pytest.raises(ValueError, match="memory_budget"):
        EKFAC(memory_budget=-1)
