"""EKFAC against the blocks of the dense curvature, and against K-FAC written out in NumPy."""

import functools
import math

import numpy as np
import oracles
import pytest
import torch
from layer_blocks import (
    LIMITS,
    damped_inverse,
    diagonal_blocks,
    factor,
    inverse,
    of,
    places,
    shampoo_with_corrected_eigenvalues,
)
from matrices import random
from scipy import linalg
from torch import nn
from torch.func import functional_call, grad, vmap

from whence.curvature.conjugate_gradient import ConjugateGradient
from whence.curvature.exact import Exact
from whence.curvature.kronecker import EKFAC
from whence.curvature.operators import GaussNewtonMatrix
from whence.curvature.solvers import Damping
from whence.objective import Objective
from whence.pinn.pde.fields import FieldMap
from whence.space import Space
from whence.term import Term


def regression(n=12, widths=(2, 5, 4, 3), seed=0, select=None):
    network = oracles.tanh_network(*widths, seed=seed)

    def residual(tensors, z):
        return functional_call(network, tensors, (z,)) - torch.sin(z[:, :1])

    points = oracles.uniform(n, (-1, -1), (1, 1), seed)
    term = Term("data", residual, points, weight=0.7)
    objective = Objective(network, [term], select=select)
    by_hand = {"data": lambda t, z: residual(t, z.unsqueeze(0))[0]}
    return oracles.Case(objective, by_hand, lambda t, z: None)


def curved(n=8, terms=1, seed=0, select=None, widths=(2, 6, 1)):
    """A residual linear in u and u_xx, so that the last layer's δ is the same everywhere."""
    network = oracles.tanh_network(*widths, seed=seed)
    fields = FieldMap(network, ("x", "t"), ("u",))
    columns = fields(("u", "u_xx"))

    def pde(tensors, z):
        u, u_xx = columns(tensors, z).unbind(1)
        return (u + 0.3 * u_xx - z[:, 1]).unsqueeze(1)

    def data(tensors, z):
        return fields(("u",))(tensors, z)

    def pde_by_hand(tensors, z):
        def u(at):
            return functional_call(network, tensors, (at,))[0]

        def u_x(at):
            return grad(u)(at)[0]

        u_xx = grad(u_x)(z)[0]
        return (u(z) + 0.3 * u_xx - z[1]).unsqueeze(0)

    def data_by_hand(tensors, z):
        return functional_call(network, tensors, (z,))

    points = oracles.uniform(n, (-1, 0), (1, 1), seed)
    chosen = [Term("pde", pde, points)]
    if terms == 2:
        edge = oracles.uniform(max(1, n // 2), (-1, 0), (1, 0), seed + 1)
        chosen.append(Term("data", data, edge, weight=30.0))
    objective = Objective(
        network,
        chosen,
        select=select,
        space=Space(coordinates=("x", "t"), evaluate=fields),
    )
    by_hand = {"pde": pde_by_hand, "data": data_by_hand}
    return oracles.Case(objective, by_hand, None)


# --- where it is exact -------------------------------------------------------------------------

HARD = functools.partial(oracles.burgers_hard, n=1)
ONE_POINT = [
    functools.partial(HARD, widths=(2, 7, 6, 1)),
    functools.partial(curved, n=1, widths=(2, 5, 4, 1)),
    functools.partial(HARD, widths=(2, 9, 1), select="2.*"),
    functools.partial(HARD, widths=(2, 9, 1), select="*.weight"),
    functools.partial(HARD, widths=(2, 9, 5, 1), select="*.bias"),
    functools.partial(regression, n=1),
]


@pytest.mark.parametrize("make", ONE_POINT)
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
    shifted = matrix + 1e-3 * linalg.eigvalsh(matrix)[-1] * np.eye(len(matrix))
    right = random(len(matrix), 3)
    solution = factor(case.objective).solve(right)
    oracles.close(solution.value, linalg.inv(shifted) @ right.numpy(), 1e-10)
    assert solution.residual < 1e-10
    assert solution.converged
    assert solution.iterations == 0


def test_one_layer_is_the_exact_solver():
    case = regression(n=9, widths=(2, 3))
    operator = GaussNewtonMatrix(case.objective)
    right = random(9, 4)
    ekfac = EKFAC().factor(operator, Damping(1e-4))
    exact = Exact(form="primal").factor(operator, Damping(1e-4))
    oracles.close(ekfac.solve(right).value, exact.solve(right).value, 1e-10)

    damping = ekfac.spectrum.damping
    assert damping == pytest.approx(exact.spectrum.damping, rel=1e-10)
    assert (ekfac.spectrum.blocks, ekfac.spectrum.full_blocks) == (1, 0)


@pytest.mark.parametrize("limit", LIMITS)
def test_more_right_hand_sides_than_parameters(limit):
    points = random(9, 3)
    objective = of(nn.Linear(3, 1, dtype=torch.float64), points)
    right = random(4, 40)
    solution = factor(objective, block_limit=limit).solve(right)

    rows = np.concatenate([points.numpy(), np.ones((9, 1))], axis=1)
    matrix = 2 / 9 * rows.T @ rows
    shifted = matrix + 1e-3 * linalg.eigvalsh(matrix)[-1] * np.eye(4)
    oracles.close(solution.value, linalg.inv(shifted) @ right.numpy(), 1e-10)
    assert (solution.value.abs().amax(dim=1) > 0).all()


# --- what it approximates ----------------------------------------------------------------------


def kfac_with_corrected_eigenvalues(case, points):
    """Blocks Q diag(s) Qᵀ of plain regression: the rows at biases are the δ, inputs by hand."""
    rows = oracles.jacobian(case, scaled=True)
    components = len(rows) // len(points)
    parameters = dict(case.objective.network.named_parameters())
    tensors = {name: p.detach().numpy() for name, p in parameters.items()}

    hidden = points.numpy()
    blocks = []
    for k, index in enumerate(places(case.objective)):
        inputs = np.concatenate([hidden, np.ones((len(hidden), 1))], axis=1)
        inputs = np.repeat(inputs, components, axis=0)
        deltas = rows[:, index[:, -1]]

        left = linalg.eigh(deltas.T @ deltas)[1]
        right = linalg.eigh(inputs.T @ inputs)[1]
        basis = np.kron(left, right)
        coordinates = rows[:, index.ravel()] @ basis
        values = np.square(coordinates).sum(axis=0)
        blocks.append(basis * values @ basis.T)

        weight = tensors[f"{2 * k}.weight"]
        bias = tensors[f"{2 * k}.bias"]
        hidden = np.tanh(hidden @ weight.T + bias)
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
    objective = case.objective
    term = objective.term("data")
    operator = curvlinops.EKFACLinearOperator(
        objective.network,
        nn.MSELoss(reduction="sum"),
        list(objective.network.parameters()),
        [(term.points, torch.zeros(len(term.points), 3).double())],
        fisher_type="type-2",
        separate_weight_and_bias=False,
        check_deterministic=False,
    )

    # A point has the factor w/N in our loss, 1 in theirs.
    eye = torch.eye(objective.parameters.size).double()
    dense = term.scale * (operator @ eye).detach().numpy()
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
    weight, bias = (p.detach() for p in network[0].parameters())
    out, shift = (p.detach() for p in network[2].parameters())

    # The residual as a function of the first layer's outputs and their derivatives by x.
    def by_outputs(outputs):
        s, s_x, s_xx = outputs
        h = torch.tanh(s)
        f1 = 1 - h**2
        f2 = -2 * h * (1 - h**2)
        u = out[0] @ h + shift[0]
        u_x = out[0] @ (f1 * s_x)
        u_xx = out[0] @ (f2 * s_x**2 + f1 * s_xx)
        return u * u_x + u_xx

    outputs = torch.stack(
        [points @ weight.T + bias, weight[:, 0].expand(6, 4), torch.zeros(6, 4)], dim=1
    )
    deltas = math.sqrt(2 / 6) * vmap(grad(by_outputs))(outputs).numpy()

    inputs = np.zeros((6, 3, 3))  # point, channel, (x, t, 1)
    inputs[:, 0, :2] = points.numpy()
    inputs[:, 0, 2] = 1.0
    inputs[:, 1, 0] = 1.0

    # The model pairs δ of one point with a of another; the eigenvalues are those of true rows.
    mixed = np.einsum("rco,sci->rsoi", deltas, inputs).reshape(36, 12)
    true = np.einsum("rco,rci->roi", deltas, inputs).reshape(6, 12)
    basis = linalg.eigh(mixed.T @ mixed / 6)[1]
    values = np.square(true @ basis).sum(axis=0)
    block = basis * values @ basis.T

    index = places(objective)[0].ravel()
    matrix = np.zeros((12, 12))
    matrix[np.ix_(index, index)] = true.T @ true
    oracles.close(GaussNewtonMatrix(objective).dense(), matrix, 1e-12)
    expected = damped_inverse([block], matrix, objective)
    oracles.close(inverse(factor(objective)), expected, 1e-10)


@pytest.mark.parametrize("make", [oracles.burgers_hard, curved])
def test_large_layers_take_the_partial_traces_of_their_curvature(make):
    case = make(n=5)
    matrix = oracles.gauss_newton(case)
    blocks = shampoo_with_corrected_eigenvalues(matrix, case.objective)
    expected = damped_inverse(blocks, matrix, case.objective)
    oracles.close(inverse(factor(case.objective, block_limit=1)), expected, 1e-9)


SOFT = functools.partial(oracles.burgers_soft, n=6, widths=(2, 6, 5, 1))
SMALL = {
    "soft": SOFT,
    "flow": functools.partial(oracles.navier_stokes, n=4, widths=(2, 5, 4, 3)),
    "hard": functools.partial(oracles.burgers_hard, n=5, widths=(2, 6, 1)),
    "regression": regression,
    "part": functools.partial(SOFT, select="2.weight"),
}


@pytest.mark.parametrize("limit", LIMITS)
@pytest.mark.parametrize("name", SMALL)
def test_eigenvalues_are_the_curvature_along_the_basis(name, limit):
    """Soft Burgers uses each layer twice in its periodic term, flow has three components."""
    case = SMALL[name]()
    matrix = oracles.gauss_newton(case)
    state = factor(case.objective, block_limit=limit)
    damping = state.spectrum.damping
    approximate = linalg.inv(inverse(state)) - damping * np.eye(len(matrix))
    assert np.trace(approximate) == pytest.approx(np.trace(matrix), rel=1e-10)

    indices = places(case.objective)
    true_blocks = diagonal_blocks(matrix, case.objective)
    for block, index, true in zip(state._blocks, indices, true_blocks, strict=True):
        eye = torch.eye(index.size, dtype=torch.float64)
        basis = block.basis.back(eye.view(-1, *index.shape)).flatten(1).T.numpy()
        oracles.close(basis.T @ basis, eye, 1e-12)
        expected = np.einsum("pj,pq,qj->j", basis, true, basis)
        oracles.close(block.eigenvalues.flatten(), expected, 1e-12)

    full = len(indices) if limit > 1 and name != "regression" else 0
    assert state.spectrum.full_blocks == full


@pytest.mark.parametrize("limit", LIMITS)
@pytest.mark.parametrize("name", SMALL)
def test_chunks_and_order_of_points_do_not_matter(name, limit):
    objective = SMALL[name]().objective
    expected = inverse(factor(objective, block_limit=limit))
    chunked = GaussNewtonMatrix(objective, chunk=3)
    state = EKFAC(limit, coupled=0).factor(chunked, Damping(1e-3))
    oracles.close(inverse(state), expected, 1e-10)

    turned = {name: term.points.flip(0) for name, term in objective.terms.items()}
    other = objective.with_points(turned)
    oracles.close(inverse(factor(other, block_limit=limit)), expected, 1e-10)


@pytest.mark.parametrize("limit", LIMITS)
def test_rows_are_cut_to_the_cache_without_a_trace(limit, monkeypatch):
    objective = SMALL["soft"]().objective
    expected = inverse(factor(objective, block_limit=limit))
    monkeypatch.setattr("whence.curvature.layer_rows.BLOCK_NUMBERS", 200)
    oracles.close(inverse(factor(objective, block_limit=limit)), expected, 1e-10)


@pytest.mark.parametrize("name", ["soft", "regression"])
def test_layers_with_too_many_pairs_of_channels_are_products(name, monkeypatch):
    monkeypatch.setattr("whence.curvature.kronecker_bases.MOMENT_NUMBERS", 10)
    assert factor(SMALL[name]().objective).spectrum.full_blocks == 0


@pytest.mark.parametrize("limit", LIMITS)
def test_the_residual_is_that_of_the_whole_system(limit):
    case = SMALL["soft"]()
    matrix = oracles.gauss_newton(case)
    right = random(59, 2)
    solution = factor(case.objective, block_limit=limit).solve(right)

    shifted = matrix + 1e-3 * linalg.eigvalsh(matrix)[-1] * np.eye(59)
    error = right.numpy() - shifted @ solution.value.numpy()
    relative = linalg.norm(error, axis=0) / linalg.norm(right.numpy(), axis=0)
    assert solution.residual == pytest.approx(relative.max(), rel=1e-8)
    assert relative.max() > 1e-2


# --- as a preconditioner -----------------------------------------------------------------------


def test_conjugate_gradients_are_quicker_with_it():
    """In regression; the layers of an equation's residual depend too much on each other."""
    objective = of(oracles.tanh_network(5, 10, 10, 2), random(600, 5))
    operator = GaussNewtonMatrix(objective).cached(2**30)
    right = operator.matmat(random(operator.size, 2))

    def solution(preconditioner):
        solver = ConjugateGradient(rtol=1e-6, preconditioner=preconditioner)
        return solver.factor(operator, Damping(1e-7)).solve(right)

    better = solution(EKFAC(coupled=0))
    assert better.converged
    assert better.iterations < 0.9 * solution(None).iterations


def test_eigenvectors_that_single_precision_does_not_find_come_from_double(monkeypatch):
    network = oracles.tanh_network(2, 5, 1, seed=0).float()

    def residual(tensors, z):
        return functional_call(network, tensors, (z,))

    points = oracles.uniform(9, (-1, -1), (1, 1), 0).float()
    operator = GaussNewtonMatrix(Objective(network, [Term("data", residual, points)]))

    def inverted():
        state = EKFAC().factor(operator, Damping(0.1))
        return state.precondition(torch.eye(operator.size)).numpy()

    expected = inverted()
    plain = torch.linalg.eigh

    def fails_in_single(matrix):
        if matrix.dtype is torch.float32:
            raise torch.linalg.LinAlgError("failed to converge")
        return plain(matrix)

    monkeypatch.setattr(torch.linalg, "eigh", fails_in_single)
    found = inverted()
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)
