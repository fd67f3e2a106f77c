"""Rows of J of every construct that looks beyond its own point, against plain autograd."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import whence as wh
from whence import pinn

LINE = pinn.Interval("x", 0, 1)
PLANE = pinn.Interval("x", 0, 1) * pinn.Interval("t", 0, 2)


def brute_force(objective: wh.Objective) -> Tensor:
    """Return every row of the unscaled Jacobian by one backward pass for each."""
    parameters = objective.parameters
    rows = []
    for term in objective.terms.values():
        for k in range(len(term.points)):
            theta = parameters.vector().requires_grad_()
            value = term.residual(parameters.substituted(theta), term.points[k : k + 1])
            for component in value[0]:
                (row,) = torch.autograd.grad(
                    component, theta, retain_graph=True, materialize_grads=True
                )
                rows.append(row)
    return torch.stack(rows)


class FlatOnly(nn.Module):
    """A network that takes points (n, d) and nothing else."""

    def __init__(self, d: int, m: int) -> None:
        super().__init__()
        self.inner = pinn.MLP([d, 6, m], seed=1)

    def forward(self, z: Tensor) -> Tensor:
        columns = [z[:, k] for k in range(z.shape[1])]
        return self.inner(torch.stack(columns, dim=1))


def of_delay() -> pinn.Problem:
    return pinn.Problem(
        domain=pinn.Interval("t", 0, 2),
        outputs=("y",),
        equations={"ode": lambda y_t, past, slope: y_t + past * slope},
        derived={
            "past": pinn.At("y", t=lambda t: t - 1),
            "slope": pinn.At(lambda y_t, y: y_t * y, t=0.0),
        },
    )


def of_memory() -> pinn.Problem:
    return pinn.Problem(
        domain=PLANE,
        outputs=("u",),
        equations={"pde": lambda u_t, memory, mean, k: u_t - k * memory + mean},
        unknowns={"k": pinn.Unknown(0.7, positive=True)},
        derived={
            "memory": pinn.Integrated(
                lambda u_x, t, t_here: torch.exp(t - t_here) * u_x,
                over={"t": (0.0, "t")},
                nodes=5,
            ),
            "mean": pinn.Average("u", over="x", nodes=6),
        },
    )


def of_integrals() -> pinn.Problem:
    return pinn.Problem(
        domain=PLANE,
        outputs=("u",),
        equations={"pde": lambda u_t, u_xx: u_t - u_xx},
        conditions=[
            pinn.Integral("mass", over="x", of="u", equals=lambda t: 1 + t),
            pinn.Integral("total", over=("x", "t"), of=lambda u, k: k * u**2, equals=1),
            pinn.Integral("flux", over="x_max", of="u_n", equals=0.1, nodes=7),
        ],
        unknowns={"k": pinn.Unknown(0.2, bounds=(0, 1))},
    )


def of_fields() -> pinn.Problem:
    return pinn.Problem(
        domain=PLANE,
        outputs=("u",),
        equations={"pde": lambda u_t, u_x, u_xx, C, C_x: u_t - C * u_xx - C_x * u_x},
        conditions=[
            pinn.Data(
                "sensors",
                [[0.2, 0.1], [0.2, 0.1], [0.7, 1.5]],
                u=[1.0, 1.2, 0.3],
                u_x=[0.1, 0.2, 0.0],
                sigma={"u": [0.1, 0.2, 0.1], "u_x": 0.5},
            ),
            pinn.Data("speed", [[0.5, 1.0]], of=lambda u, C: u * C, equals=[0.3]),
        ],
        unknowns={"C": pinn.Field("C", of=("x",))},
    )


def of_fraction() -> pinn.Problem:
    return pinn.Problem(
        domain=pinn.Interval("t", 0, 1),
        outputs=("y",),
        equations={"ode": lambda half, y: half + y},
        derived={"half": pinn.CaputoDerivative("y", along="t", order=0.5, nodes=8)},
    )


def of_interface() -> pinn.Problem:
    """Two materials with an output and a field of a network of its own."""
    return pinn.Problem(
        domain=pinn.Rectangle(("x", "y"), (0, 0), (1, 1)),
        outputs=("a",),
        equations={
            "below": pinn.Equation(lambda a_xx, a_yy: a_xx + a_yy, lambda y: y < 0.5),
            "above": pinn.Equation(lambda b_xx, b_yy: b_xx + b_yy, lambda y: y > 0.5),
        },
        conditions=[
            pinn.Condition(
                "jump",
                on={"y": 0.5},
                residual=lambda a, b, a_n, b_n: (a - b, a_n - 3 * b_n),
            ),
            pinn.Neumann(a=0.0, on=pinn.Disk(("x", "y"), (0.5, 0.2), 0.1)),
        ],
        unknowns={"b": pinn.Field("b", of=("x", "y"))},
    )


def of_mesh() -> pinn.Problem:
    corners = [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)]
    faces = [(0, 2, 1), (0, 1, 3), (0, 3, 2), (1, 2, 3)]
    return pinn.Problem(
        domain=pinn.Mesh((corners, faces), name="hull"),
        outputs=("u",),
        equations={"pde": lambda u_xx, u_yy, u_zz: u_xx + u_yy + u_zz},
        conditions=[
            pinn.Neumann(u=1.0, on="hull"),
            pinn.Integral("mean", over=None, of="u", equals=0.0, nodes=9),
            pinn.Integral("flux", over="hull", of="u_n", equals=1.0, nodes=8),
        ],
    )


PROBLEMS = {
    "interface": of_interface,
    "mesh": of_mesh,
    "delay": of_delay,
    "memory": of_memory,
    "integrals": of_integrals,
    "fields": of_fields,
    "fraction": of_fraction,
}


@pytest.mark.parametrize("name", PROBLEMS)
@pytest.mark.parametrize("kind", ["any axes", "flat only", "autograd"])
def test_rows_are_those_of_autograd(name: str, kind: str) -> None:
    problem = PROBLEMS[name]()
    d = problem.domain.dimension
    network: nn.Module = pinn.MLP([d, 6, 1], seed=0)
    if kind == "flat only":
        network = FlatOnly(d, 1)
    if kind == "autograd":
        problem = pinn.Problem(
            **{
                key: getattr(problem, key)
                for key in (
                    "domain", "outputs", "equations", "conditions", "unknowns", "derived"
                )
            },
            derivatives="autograd",
        )  # fmt: skip
    counts = {n: 4 for n in problem.terms if n not in problem.given_terms}
    objective = problem.objective(network.double(), problem.sample(counts, seed=0))

    rows = wh.Jacobian(objective).dense()
    expected = brute_force(objective)
    assert float((rows - expected).abs().max()) <= 1e-10 * float(expected.abs().max())
