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
    return problem.objective(
        pinn.MLP([2, 60, 60, 3], seed=0), problem.sample(70, seed=1)
    )


OBJECTIVES = {
    "wide": lambda: soft([2, 80, 80, 1]),
    "narrow": lambda: soft([2, 6, 6, 1]),
    "components": flow,
    "oracle": lambda: oracles.burgers_soft().objective,
}


@pytest.mark.parametrize("scaled", [True, False])
@pytest.mark.parametrize("name", OBJECTIVES)
def test_kernel_against_rows(name, scaled):
    objective = OBJECTIVES[name]()
    kernel = TangentKernel(objective, scaled=scaled)
    rows, right = Jacobian(objective, scaled=scaled).system()
    gram = rows @ rows.T
    assert float((kernel.gram - gram).abs().max()) <= 1e-13 * float(gram.abs().max())
    torch.testing.assert_close(kernel.gram, kernel.gram.T, rtol=1e-13, atol=0)
    torch.testing.assert_close(kernel.right, right, rtol=1e-13, atol=0)
    vector = torch.randn(
        len(right), dtype=torch.float64, generator=torch.Generator().manual_seed(0)
    )
    expected = rows.T @ vector
    found = kernel.rmatvec(vector)
    assert float((found - expected).abs().max()) <= 1e-12 * float(expected.abs().max())


def test_wide_layers_take_the_thin_form_and_narrow_ones_their_rows():
    assert TangentKernel(soft([2, 80, 80, 1]))._thin
    assert not TangentKernel(soft([2, 6, 6, 1]))._thin


def test_a_layer_used_twice_and_a_parameter_outside_layers():
    class Twice(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.start, self.again = torch.nn.Linear(2, 70), torch.nn.Linear(70, 70)
            self.end = torch.nn.Linear(70, 1)

        def forward(self, x):
            hidden = torch.tanh(self.again(torch.tanh(self.start(x))))
            return self.end(torch.tanh(self.again(hidden)))

    class Scaled(Twice):
        def __init__(self):
            super().__init__()
            self.factor = torch.nn.Parameter(torch.tensor(1.5))

        def forward(self, x):
            return self.factor * super().forward(x)

    torch.manual_seed(0)
    for network in (Twice().double(), Scaled().double()):

        def residual(tensors, z, network=network):
            return torch.func.functional_call(network, dict(tensors), (z,))

        points = torch.rand(30, 2, dtype=torch.float64)
        objective = Objective(network, [Term("data", residual, points)])
        rows = Jacobian(objective, scaled=True).dense()
        gram = rows @ rows.T
        found = TangentKernel(objective).gram
        assert float((found - gram).abs().max()) <= 1e-13 * float(gram.abs().max())


def test_a_layer_used_twice_in_one_term_and_not_in_another():
    """One sub-network for each term, the first used at two places."""
    networks = torch.nn.ModuleDict(
        {n: oracles.tanh_network(2, 40, 40, 1) for n in ("a", "b")}
    )
    points = torch.rand(
        7, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )

    def part(name, tensors, z):
        own = {
            n[len(name) + 1 :]: t
            for n, t in tensors.items()
            if n.startswith(f"{name}.")
        }
        return torch.func.functional_call(networks[name], own, (z,))

    terms = [
        Term(
            "a",
            lambda tensors, z: part("a", tensors, z) - part("a", tensors, -z),
            points,
        ),
        Term("b", lambda tensors, z: part("b", tensors, z), points),
    ]
    for order in (terms, terms[::-1]):
        objective = Objective(networks, order)
        rows = Jacobian(objective, scaled=True).dense()
        kernel = TangentKernel(objective)
        oracles.close(kernel.gram, rows @ rows.T, 1e-12)
        oracles.close(kernel.dense(), rows, 1e-12)


def two_branches(always):
    """Terms of both wide networks, then of one alone: the other's weight is not thin there."""
    parts = {n: oracles.tanh_network(2, 40, 40, 1) for n in ("a", "b")}
    networks = torch.nn.ModuleDict(parts)
    points = torch.rand(
        6, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )

    def value(name, tensors, z):
        own = {
            n[len(name) + 1 :]: t
            for n, t in tensors.items()
            if n.startswith(f"{name}.")
        }
        return torch.func.functional_call(networks[name], own, (z,))

    def both(tensors, z):
        return value("a", tensors, z) + value("b", tensors, z)

    def one(tensors, z):
        rest = value("b", tensors, z) if always else 0.0
        return value("a", tensors, z) * value("a", tensors, -z) + rest

    return Objective(
        networks, [Term("both", both, points), Term("one", one, points + 1)]
    )


@pytest.mark.parametrize("always", [True, False])
def test_weights_that_are_thin_in_the_first_blocks_alone(always):
    objective = two_branches(always)
    rows = Jacobian(objective, scaled=True).dense()
    kernel = TangentKernel(objective)
    assert len(kernel._thin) == (2 if always else 0)
    oracles.close(kernel.gram, rows @ rows.T, 1e-12)
    oracles.close(kernel.dense(), rows, 1e-12)
    vector = torch.linspace(-1, 1, 12, dtype=torch.float64)
    oracles.close(kernel.rmatvec(vector), rows.T @ vector, 1e-12)


@pytest.mark.parametrize("widths", [[2, 80, 80, 1], [2, 6, 6, 1]])
def test_no_graph_stays_alive_from_one_block_to_the_next(widths, monkeypatch):
    alive, most = weakref.WeakSet(), []
    made = LayerLinearization.__init__

    def noted(self, *args):
        most.append(len(alive))
        alive.add(self)
        made(self, *args)

    monkeypatch.setattr(LayerLinearization, "__init__", noted)
    monkeypatch.setattr("whence.points.MAX_LINEARIZED", 50)
    TangentKernel(soft(widths))
    assert len(most) >= 5
    assert max(most) <= 1  # the one of the block before, until the next is made
    assert not alive
