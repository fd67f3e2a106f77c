"""The kernel layer by layer, and what is solved with it, against dense rows."""

import numpy as np
import oracles
import pytest
import torch
from matrices import random
from residual_networks import images, network, objective
from torch import nn

import whence as wh
from benchmarks._kinds import KINDS
from whence.attribution.by_kernel import LayerTargets
from whence.curvature.streamed import StreamedDual
from whence.jacobian import Jacobian
from whence.linearization import LayerLinearization
from whence.streamed_kernel import StreamedKernel, stream_plan

BUDGETS = [2**31, 200_000, 20_000]
"""For all layers at once, for some, and for some outputs of a layer."""


def relative(found, expected):
    return float((found - expected).abs().max() / expected.abs().max())


@pytest.mark.parametrize("budget", BUDGETS)
def test_kernel_and_products(budget):
    made = objective()
    rows = Jacobian(made, scaled=True).dense()
    kernel = StreamedKernel(made, budget)
    assert relative(kernel.gram, rows @ rows.T) < 1e-13

    vectors, weights = random(rows.shape[1], 2), random(len(rows), 2)
    assert relative(kernel.matmat(vectors), rows @ vectors) < 1e-13
    assert relative(kernel.rmatmat(weights), rows.T @ weights) < 1e-13

    targets = LayerTargets(wh.Loss(*images(n=3, seed=1)), made, 3)
    dense = torch.cat(list(wh.Loss(*images(n=3, seed=1)).gradients(made)))
    assert relative(kernel.cross(targets.rows, 3), rows @ dense.T) < 1e-12
    combined = targets.combination(torch.ones(3, 1, dtype=torch.float64))
    assert relative(combined[:, 0], dense.sum(0)) < 1e-12


def test_parts_of_layers_fill_the_room():
    jacobian = Jacobian(objective(), scaled=True)
    whole, few, least = (stream_plan(jacobian, budget) for budget in BUDGETS)
    assert len(whole.groups) == 1
    assert len(few.groups) < len(least.groups)
    split = [part for group in least.groups for part in group if part.outputs.start]
    assert split
    assert {part.shape.is_by_inputs for group in whole.groups for part in group} == {
        True,
        False,
    }


def test_terms_with_derivatives_and_shared_points():
    for case in (oracles.burgers_soft(n=7), oracles.burgers_hard(n=7)):
        rows = Jacobian(case.objective, scaled=True).dense()
        kernel = StreamedKernel(case.objective)
        assert relative(kernel.gram, rows @ rows.T) < 1e-12
        weights = random(len(rows), 1)
        assert relative(kernel.rmatmat(weights), rows.T @ weights) < 1e-12


def test_a_weight_that_is_used_twice():
    torch.manual_seed(0)
    shared = nn.Linear(5, 5)
    model = nn.Sequential(shared, nn.Tanh(), shared, nn.Tanh(), nn.Linear(5, 2))
    data = (random(4, 5), random(4, 2))
    made = wh.Objective.supervised(model.double(), data, wh.Squared())
    rows = Jacobian(made, scaled=True).dense()
    assert relative(StreamedKernel(made).gram, rows @ rows.T) < 1e-13


class Several(nn.Module):
    """A layer of each kind that is not used as a plain one."""

    def __init__(self):
        super().__init__()
        self.up = nn.ConvTranspose2d(1, 2, 2, stride=2)
        self.groups = nn.Conv2d(2, 4, 3, groups=2)
        self.swapped = nn.Parameter(0.3 * torch.randn(4, 6))
        self.tied = nn.Parameter(0.3 * torch.randn(6, 6))
        self.scale = nn.Parameter(torch.rand(6))
        self.attention = nn.MultiheadAttention(6, 2, batch_first=True)
        self.free = nn.Parameter(torch.rand(6))
        self.head = nn.Linear(6, 3)

    def forward(self, x):
        h = torch.tanh(self.groups(self.up(x))).flatten(2).transpose(1, 2)
        h = (h @ self.swapped) * self.scale
        h = h @ self.tied + torch.tanh(nn.functional.linear(h, self.tied))
        h, _ = self.attention(h, h, h, need_weights=False)
        return self.head(h.mean(1) * torch.sinh(self.free))


def test_layers_of_other_kinds():
    torch.manual_seed(0)
    model = Several().double().eval()
    data = (random(3, 16).view(3, 1, 4, 4), random(3, 3))
    made = wh.Objective.supervised(model, data, wh.Squared())
    rows = Jacobian(made, scaled=True).dense()
    for budget in BUDGETS:
        assert relative(StreamedKernel(made, budget).gram, rows @ rows.T) < 1e-12


def test_other_networks_are_refused():
    class Free(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(3, dtype=torch.float64))

        def forward(self, x):
            return x * torch.sinh(self.weight)

    data = (random(4, 3), random(4, 3))
    made = wh.Objective.supervised(Free(), data, wh.Squared())
    with pytest.raises(ValueError, match="layers of known kinds"):
        StreamedKernel(made)


# --- what is solved with it --------------------------------------------------------------------

QUANTITIES = {
    "own losses": lambda dtype: wh.Loss(),
    "few": lambda dtype: wh.Loss(*images(dtype, n=2, seed=1)),
    "many": lambda dtype: wh.Loss(*images(dtype, n=40, seed=1)),
    "mean": lambda dtype: wh.Loss(reduce="mean"),
    "output": lambda dtype: wh.Output(images(dtype, n=3, seed=1)[0], "output_1"),
}


def streamed(dtype=torch.float64):
    """An influence whose rows do not fit in memory."""
    made = objective(dtype)
    rows, size = Jacobian(made, scaled=True).shape
    budget = int(1.6 * rows * size * made.parameters.dtype.itemsize)
    return wh.Influence(made, damping=1e-3, memory_budget=budget)


def dense():
    return wh.Influence(objective(), damping=1e-3, solver=wh.Exact("primal"))


def test_it_is_chosen_where_rows_do_not_fit():
    influence = streamed()
    assert isinstance(influence.state(), StreamedDual)
    assert influence.attribute(wh.Loss()).attrs["solver"] == "exact"


@pytest.mark.filterwarnings("ignore::whence.FarFromMinimum")
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 2e-3)]
)
@pytest.mark.parametrize("name", QUANTITIES)
def test_influences(name, dtype, tolerance):
    expected = dense().attribute(QUANTITIES[name](torch.float64))
    found = streamed(dtype).attribute(QUANTITIES[name](dtype))
    largest = np.abs(expected.values).max()
    assert np.abs(found.values - expected.values).max() < tolerance * largest
    assert found.attrs["solver_residual"] < tolerance
    assert found.attrs["predicted_decrease"] == pytest.approx(
        expected.attrs["predicted_decrease"], rel=tolerance
    )


@pytest.mark.filterwarnings("ignore::whence.FarFromMinimum")
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 2e-3)]
)
def test_self_influence_and_other_points(dtype, tolerance):
    own = streamed(dtype).self_influence().values
    expected = dense().self_influence().values
    np.testing.assert_allclose(own, expected, rtol=tolerance, atol=tolerance)

    found = streamed(dtype).attribute(wh.Loss(), images(dtype, n=2, seed=1))
    expected = dense().attribute(wh.Loss(), images(n=2, seed=1)).values
    assert np.abs(found.values - expected).max() < tolerance * np.abs(expected).max()
    assert found.attrs["solver_residual"] < tolerance


def test_points_that_weigh_nothing():
    made = objective()
    term = made.term("data")
    weights = torch.tensor([1.0, 2.0, 0.0, 1.0, 1.0, 1.0], dtype=torch.float64)
    weighted = made.with_terms([wh.Term(
        "data", term.residual, term.points, loss=term.loss, point_weights=weights
    )])  # fmt: skip
    small = wh.Influence(weighted, damping=1e-3, memory_budget=streamed().memory_budget)
    exact = wh.Influence(weighted, damping=1e-3, solver=wh.Exact("primal"))
    found, expected = (i.attribute(wh.Loss()).values for i in (small, exact))
    assert isinstance(small.state(), StreamedDual)
    np.testing.assert_allclose(
        found, expected, rtol=1e-8, atol=1e-9 * np.abs(expected).max()
    )


def test_residuals_are_those_of_the_network():
    """A kernel that is wrong shows in the residual."""
    influence = streamed()
    state = influence.state()
    state._factor.mul_(1.1)
    with pytest.warns(UserWarning, match="the system is not solved"):
        found = influence.attribute(wh.Loss())
    assert found.attrs["solver_residual"] > 0.1
    assert not state.solve_images(random(state._kernel.size, 2)).converged


def test_another_damping_keeps_the_kernel():
    state = streamed().state()
    other = state.redamped(2 * state.spectrum.damping)
    assert other.spectrum.damping == 2 * state.spectrum.damping
    right = random(state._kernel.size, 1)
    solution = other.solve(right)
    assert solution.residual < 1e-9
    exact = wh.Exact("primal").factor(
        wh.GaussNewtonMatrix(objective()),
        wh.Damping(other.spectrum.damping, relative=False),
    )
    assert relative(solution.value, exact.solve(right).value) < 1e-9


def test_products_of_large_networks_go_through_outputs(monkeypatch):
    made = objective()
    jacobian = Jacobian(made, scaled=True)
    vectors = random(made.parameters.size, 3)
    by_rows = jacobian.normal_product(vectors)
    monkeypatch.setattr("whence.jacobian.LARGE_NETWORK", 1)
    monkeypatch.setattr(LayerLinearization, "matvec", None)
    assert relative(jacobian.normal_product(vectors), by_rows) < 1e-13


def test_the_network_of_these_tests_has_statistics():
    assert float(network().norm.running_var.std()) > 0


class Turned(nn.Module):
    """A weight (in, out), and a part of another one, of tokens below each other."""

    def __init__(self):
        super().__init__()
        self.turned, self.parts = nn.Parameter(torch.randn(4, 6)), nn.Linear(6, 9)

    def forward(self, x):
        h = torch.tanh(x.flatten(0, 1) @ self.turned)
        weight, bias = self.parts.weight[3:6], self.parts.bias[3:6]
        return (
            nn.functional.linear(h, weight, bias).unflatten(0, (-1, x.shape[1])).mean(1)
        )


MADE = [
    "turned",
    "segmentation",
    "multi-head attention",
    "image transformer",
    "low-rank adapters, merged",
]


@pytest.mark.parametrize("name", MADE)
@pytest.mark.parametrize("budget", [2**31, 2**20])
def test_models_of_every_kind(name, budget):
    """Points on other axes, transposed weights, shared tables, parameters without a rule."""
    torch.manual_seed(0)
    if name == "turned":
        data = torch.randn(6, 5, 4, dtype=torch.float64), torch.arange(6) % 3
        model, loss = Turned().double(), nn.CrossEntropyLoss()
    else:
        kind = KINDS[name](name)
        model, data, loss = kind.model, kind.data, kind.loss
    made = wh.Objective.supervised(model, data, loss)
    kernel = StreamedKernel(made, budget)
    rows = Jacobian(made, scaled=True).dense()
    assert relative(kernel.gram, rows @ rows.T) <= 1e-12
