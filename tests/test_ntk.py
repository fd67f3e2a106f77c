"""The tangent kernel against the rows it does without."""

import weakref

import oracles
import pytest
import torch

from whence import pinn
from whence.jacobian import Jacobian
from whence.linearization import LayerLinearization
from whence.ntk import TangentKernel
from whence.objective import Objective
from whence.term import Term


def soft(widths):
    problem = pinn.zoo.load("wave", "soft")
    counts = dict(zip(problem.terms, (130, 20, 31, 40), strict=True))
    points = problem.sample(counts, seed=0)
    return problem.objective(pinn.MLP(widths, seed=0), points, {"initial_u": 3.0})


def flow():
    """Two equation components of three outputs: each point has two rows."""

    def momentum(u, v, p, u_x, u_y, u_xx):
        return u * u_x + v * u_y + p - u_xx, u_y - p

    square = pinn.Rectangle(("x", "y"), (0, 0), (1, 1))
    problem = pinn.Problem(square, ("u", "v", "p"), {"momentum": momentum})
    network = pinn.MLP([2, 60, 60, 3], seed=0)
    return problem.objective(network, problem.sample(70, seed=1))


OBJECTIVES = {
    "wide": lambda: soft([2, 80, 80, 1]),
    "narrow": lambda: soft([2, 6, 6, 1]),
    "components": flow,
    "oracle": lambda: oracles.burgers_soft().objective,
}


def close_to_the_largest(value, expected, tolerance):
    error = float((value - expected).abs().max())
    assert error <= tolerance * float(expected.abs().max())


# --- against rows ------------------------------------------------------------------------------


@pytest.mark.parametrize("scaled", [True, False])
@pytest.mark.parametrize("name", OBJECTIVES)
def test_kernel_against_rows(name, scaled):
    objective = OBJECTIVES[name]()
    kernel = TangentKernel(objective, scaled=scaled)
    rows, right = Jacobian(objective, scaled=scaled).system()
    close_to_the_largest(kernel.gram, rows @ rows.T, 1e-13)
    torch.testing.assert_close(kernel.gram, kernel.gram.T, rtol=1e-13, atol=0)
    torch.testing.assert_close(kernel.right, right, rtol=1e-13, atol=0)

    generator = torch.Generator().manual_seed(0)
    vector = torch.randn(len(right), dtype=torch.float64, generator=generator)
    close_to_the_largest(kernel.rmatvec(vector), rows.T @ vector, 1e-12)


def test_wide_layers_take_the_thin_form_and_narrow_ones_their_rows():
    assert TangentKernel(soft([2, 80, 80, 1]))._thin
    assert not TangentKernel(soft([2, 6, 6, 1]))._thin


# --- layers used twice, and in some terms only -------------------------------------------------


class Twice(torch.nn.Module):
    """A wide layer that is used twice."""

    def __init__(self):
        super().__init__()
        self.start = torch.nn.Linear(2, 70)
        self.again = torch.nn.Linear(70, 70)
        self.end = torch.nn.Linear(70, 1)

    def forward(self, x):
        hidden = torch.tanh(self.start(x))
        hidden = torch.tanh(self.again(hidden))
        return self.end(torch.tanh(self.again(hidden)))


class Scaled(Twice):
    """The same, with a parameter outside layers."""

    def __init__(self):
        super().__init__()
        self.factor = torch.nn.Parameter(torch.tensor(1.5))

    def forward(self, x):
        return self.factor * super().forward(x)


@pytest.mark.parametrize("kind", [Twice, Scaled])
def test_a_layer_used_twice_and_a_parameter_outside_layers(kind):
    torch.manual_seed(0)
    network = kind().double()

    def residual(tensors, z):
        return torch.func.functional_call(network, dict(tensors), (z,))

    points = torch.rand(30, 2, dtype=torch.float64)
    objective = Objective(network, [Term("data", residual, points)])
    rows = Jacobian(objective, scaled=True).dense()
    close_to_the_largest(TangentKernel(objective).gram, rows @ rows.T, 1e-13)


class Branches:
    """Two wide networks in one, and points for terms of them."""

    def __init__(self, n):
        parts = {name: oracles.tanh_network(2, 40, 40, 1) for name in ("a", "b")}
        self.networks = torch.nn.ModuleDict(parts)
        generator = torch.Generator().manual_seed(0)
        self.points = torch.rand(n, 2, generator=generator, dtype=torch.float64)

    def value(self, name, tensors, z):
        prefix = f"{name}."
        tensors = {
            key.removeprefix(prefix): tensor
            for key, tensor in tensors.items()
            if key.startswith(prefix)
        }
        return torch.func.functional_call(self.networks[name], tensors, (z,))


def check(objective):
    """Assert that kernel and rows are those of the Jacobian; return them."""
    rows = Jacobian(objective, scaled=True).dense()
    kernel = TangentKernel(objective)
    oracles.close(kernel.gram, rows @ rows.T, 1e-12)
    oracles.close(kernel.dense(), rows, 1e-12)
    return kernel, rows


@pytest.mark.parametrize("order", [1, -1])
def test_a_layer_used_twice_in_one_term_and_not_in_another(order):
    """One sub-network for each term, the first used at two places."""
    branches = Branches(7)

    def difference(tensors, z):
        return branches.value("a", tensors, z) - branches.value("a", tensors, -z)

    def other(tensors, z):
        return branches.value("b", tensors, z)

    terms = [
        Term("a", difference, branches.points),
        Term("b", other, branches.points),
    ]
    check(Objective(branches.networks, terms[::order]))


@pytest.mark.parametrize("always", [True, False])
def test_weights_that_are_thin_in_the_first_blocks_alone(always):
    """Terms of both networks, then of one alone: the other's weight is not thin there."""
    branches = Branches(6)

    def both(tensors, z):
        return branches.value("a", tensors, z) + branches.value("b", tensors, z)

    def one(tensors, z):
        product = branches.value("a", tensors, z) * branches.value("a", tensors, -z)
        rest = branches.value("b", tensors, z) if always else 0.0
        return product + rest

    terms = [
        Term("both", both, branches.points),
        Term("one", one, branches.points + 1),
    ]
    kernel, rows = check(Objective(branches.networks, terms))
    assert len(kernel._thin) == (2 if always else 0)

    vector = torch.linspace(-1, 1, 12, dtype=torch.float64)
    oracles.close(kernel.rmatvec(vector), rows.T @ vector, 1e-12)


# --- memory ------------------------------------------------------------------------------------


@pytest.mark.parametrize("widths", [[2, 80, 80, 1], [2, 6, 6, 1]])
def test_no_graph_stays_alive_from_one_block_to_the_next(widths, monkeypatch):
    alive = weakref.WeakSet()
    counts = []
    make = LayerLinearization.__init__

    def noted(self, *args, **options):
        counts.append(len(alive))
        alive.add(self)
        make(self, *args, **options)

    monkeypatch.setattr(LayerLinearization, "__init__", noted)
    monkeypatch.setattr("whence.points.MAX_LINEARIZED", 50)
    TangentKernel(soft(widths))
    assert len(counts) >= 5
    assert max(counts) <= 1  # the one of the block before, until the next is made
    assert not alive
