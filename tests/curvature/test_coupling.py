"""EKFAC with coupled directions, against dense matrices."""

import numpy as np
import oracles
import pytest
import torch
from layer_blocks import inverse
from residual_networks import objective
from scipy import linalg
from scipy.stats import spearmanr

import whence as wh
from whence.curvature.coupling import leading_directions
from whence.curvature.kronecker import EKFAC
from whence.curvature.layer_rows import layer_matrices
from whence.curvature.operators import GaussNewtonMatrix
from whence.curvature.solvers import Damping
from whence.jacobian import Jacobian


def factored(made, coupled, damping=1e-3, **options):
    operator = GaussNewtonMatrix(made)
    return EKFAC(coupled=coupled, **options).factor(operator, Damping(damping))


def basis_and_curvatures(made, state):
    """All layers' directions as the columns of one matrix, with their eigenvalues."""
    size = made.parameters.size
    columns, curvatures = [], []
    for block in state._blocks:
        layer = block.layer
        for k in range(layer.size):
            unit = torch.zeros(1, layer.outputs, layer.inputs, dtype=torch.float64)
            unit.view(-1)[k] = 1.0
            column = torch.zeros(size, 1, dtype=torch.float64)
            layer.put(block.basis.back(unit), column)
            columns.append(column[:, 0])
        curvatures.append(block.eigenvalues.flatten())
    return torch.stack(columns, 1).numpy(), torch.cat(curvatures).numpy()


@pytest.mark.parametrize("coupled", [1, 40])
@pytest.mark.parametrize("limit", [2000, 1])
def test_leading_directions_have_the_true_curvature_across_layers(coupled, limit):
    for made in (objective(width=1), oracles.burgers_soft(n=6).objective):
        state = factored(made, coupled, block_limit=limit)
        rows = Jacobian(made, scaled=True).dense().numpy()
        matrix = rows.T @ rows
        basis, curvatures = basis_and_curvatures(made, state)

        # The diagonal along all directions, and the whole matrix along the leading ones.
        along = np.diag(curvatures)
        leading = np.sort(np.argsort(-curvatures, kind="stable")[:coupled])
        block = np.ix_(leading, leading)
        along[block] = (basis.T @ matrix @ basis)[block]
        shift = 1e-3 * linalg.eigvalsh(matrix)[-1] * np.eye(len(matrix))
        # Of columns that no block covers the curvature is zero.
        model = basis @ along @ basis.T
        oracles.close(inverse(state), linalg.inv(model + shift), 1e-8)
        assert state.spectrum.coupled_directions == coupled


def test_all_directions_are_the_exact_answer():
    made = objective(width=1)
    state = factored(made, made.parameters.size)
    rows = Jacobian(made, scaled=True).dense().numpy()
    matrix = rows.T @ rows
    shift = 1e-3 * linalg.eigvalsh(matrix)[-1] * np.eye(len(matrix))
    oracles.close(inverse(state), linalg.inv(matrix + shift), 1e-9)


def test_places_are_those_of_the_largest_curvatures():
    made = objective(width=1)
    operator = GaussNewtonMatrix(made)
    root = operator.root()
    blocks = EKFAC().blocks(root, layer_matrices(root))
    leading = leading_directions(blocks, 7)
    curvatures = torch.cat([block.eigenvalues.flatten() for block in blocks])
    chosen = []
    for block, places in zip(blocks, leading.places, strict=True):
        chosen.extend(block.eigenvalues.flatten()[places].tolist())
    expected = curvatures.sort(descending=True).values[:7].tolist()
    assert sorted(chosen, reverse=True) == pytest.approx(expected)
    assert [span.stop - span.start for span in leading.spans()] == [
        len(places) for places in leading.places
    ]


@pytest.mark.filterwarnings("ignore::whence.FarFromMinimum")
def test_coupled_layers_rank_as_the_exact_answer_does():
    made = objective(width=3)

    def values(solver):
        influence = wh.Influence(made, solver=solver, damping=1e-3)
        return influence.attribute(wh.Loss()).values.ravel()

    exact = values(wh.Exact())
    apart, coupled = (spearmanr(values(EKFAC(coupled=k)), exact)[0] for k in (0, 400))
    assert coupled > 0.95
    assert coupled > apart


def test_options_are_checked():
    with pytest.raises(ValueError, match="coupled must be"):
        EKFAC(coupled=-1)


def test_vectors_may_be_turned_some_at_a_time(monkeypatch):
    whole = inverse(factored(objective(), coupled=40))
    monkeypatch.setattr("whence.curvature.kronecker.LARGE_BLOCK_NUMBERS", 300)
    np.testing.assert_allclose(
        inverse(factored(objective(), coupled=40)), whole, rtol=1e-10, atol=1e-12
    )


def test_points_of_a_large_network_go_by_what_is_kept_of_their_passes(monkeypatch):
    """Rows are made in pieces: a point's passes backward count, which few samples have less of."""
    made = objective()
    root = GaussNewtonMatrix(made).root()
    monkeypatch.setattr("whence.samples.Samples.batch_size", 6)
    # Of a single point the rows of one layer.
    row_bytes = 8 * made.parameters.largest
    monkeypatch.setattr("whence.points.MAX_ROW_BYTES", row_bytes)

    def points_at_once(samples):
        blocks = EKFAC(mc_samples=samples).rows(root).blocks()
        return max(len(rows.linear.value) for rows, _ in blocks)

    assert points_at_once(1) == 1
    monkeypatch.setattr("whence.curvature.kronecker.LARGE_NETWORK", 1)
    assert points_at_once(1) == 6
    assert points_at_once(2) == 3
    # Every point has a row for each of its classes.
    (classes,) = root.components().values()
    assert points_at_once(None) == 6 // classes


def test_targets_of_a_large_network_are_solved_for_as_memory_allows(monkeypatch):
    made = objective()
    damping = 1e-2
    expected = wh.Influence(made, solver=EKFAC(), damping=damping)
    values = expected.attribute(wh.Loss()).values

    for module in ("factored", "tiled"):
        monkeypatch.setattr(f"whence.attribution.{module}.LARGE_NETWORK", 1)
    monkeypatch.setattr("whence.jacobian.LARGE_NETWORK", 1)
    row_bytes = 8 * made.parameters.size
    # Gradients of two targets, their solutions, and as much again.
    budget = 2 * EKFAC.copies * row_bytes
    some = wh.Influence(made, solver=EKFAC(), damping=damping, memory_budget=budget)
    assert some.at_once() == 2
    np.testing.assert_allclose(
        some.attribute(wh.Loss()).values, values, rtol=1e-8, atol=1e-12
    )
