"""Brute-force float64 oracles, and small problems that carry their own.

Nothing here uses jets, layers, chunks or solvers of whence: derivatives by coordinates are
nested ``torch.func`` at one point, the Jacobian is ``jacrev`` point by point, curvature is
dense and the linear systems are NumPy's. A :class:`Case` holds the objective under test beside
the same residuals written out again by hand.
"""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from scipy import linalg
from torch import nn
from torch.func import functional_call, grad, hessian, jacfwd, jacrev, vmap

from whence.attribution.influence import Influence
from whence.attribution.quantities import Output
from whence.curvature.exact import Exact
from whence.objective import Objective
from whence.pinn.pde.fields import FieldMap
from whence.space import Space
from whence.term import Term

NU = 0.01 / math.pi


@dataclass
class Case:
    """An objective, and by hand ``residuals[term](tensors, z (d,)) -> (m,)`` and the outputs."""

    objective: Objective
    residuals: dict[str, Callable]
    value: Callable

    @property
    def theta(self):
        return self.objective.parameters.vector()

    def tensors(self, theta):
        """Name the parts of θ without Parameters: in the order of ``named_parameters``."""
        selected = set(self.objective.parameters.names)
        found, start = {}, 0
        for name, parameter in self.objective.network.named_parameters():
            found[name] = parameter.detach()
            if name in selected:
                found[name] = theta[start : start + parameter.numel()].view(
                    parameter.shape
                )
                start += parameter.numel()
        return found


def tanh_network(*widths, seed=0):
    generator = torch.Generator().manual_seed(seed)
    layers = []
    for inputs, outputs in itertools.pairwise(widths):
        linear = nn.Linear(inputs, outputs, dtype=torch.float64)
        with torch.no_grad():
            for parameter, size in ((linear.weight, 1.5), (linear.bias, 0.5)):
                noise = torch.randn(
                    parameter.shape, generator=generator, dtype=torch.float64
                )
                parameter.copy_(noise * size / math.sqrt(inputs))
        layers += [linear, nn.Tanh()]
    return nn.Sequential(*layers[:-1])


def uniform(n, low, high, seed=0):
    generator = torch.Generator().manual_seed(seed)
    low, high = (
        torch.tensor(low, dtype=torch.float64),
        torch.tensor(high, dtype=torch.float64),
    )
    return low + (high - low) * torch.rand(
        n, len(low), generator=generator, dtype=torch.float64
    )


# --- problems ----------------------------------------------------------------------------------


def burgers_hard(n=9, widths=(2, 16, 16, 1), derivatives="jets", seed=0, select=None):
    """Burgers with initial and boundary values in the ansatz −sin πx + (1−x²) t u."""
    network = tanh_network(*widths, seed=seed)
    fields = FieldMap(
        network,
        ("x", "t"),
        ("u",),
        ansatz=lambda x, t, u: -torch.sin(math.pi * x) + (1 - x**2) * t * u,
        derivatives=derivatives,
    )
    columns = fields(("u", "u_t", "u_x", "u_xx"))

    def pde(tensors, z):
        u, u_t, u_x, u_xx = columns(tensors, z).unbind(1)
        return (u_t + u * u_x - NU * u_xx).unsqueeze(1)

    def value(tensors, z):
        x, t = z
        raw = functional_call(network, tensors, (z,))
        return -torch.sin(math.pi * x) + (1 - x**2) * t * raw

    def by_hand(tensors, z):
        u = lambda at: value(tensors, at)[0]  # noqa: E731
        first, second = grad(u)(z), hessian(u)(z)
        return (first[1] + u(z) * first[0] - NU * second[0, 0]).unsqueeze(0)

    objective = Objective(
        network,
        [Term("pde", pde, uniform(n, (-1, 0), (1, 1), seed))],
        select=select,
        space=Space(coordinates=("x", "t"), outputs=("u",), evaluate=fields),
    )
    return Case(objective, {"pde": by_hand}, value)


def burgers_soft(n=9, widths=(2, 16, 16, 1), derivatives="jets", seed=0, select=None):
    """Burgers with a pde, an initial and a two-component periodic term; N and w all differ."""
    network = tanh_network(*widths, seed=seed)
    fields = FieldMap(network, ("x", "t"), ("u",), derivatives=derivatives)
    columns, both = fields(("u", "u_t", "u_x", "u_xx")), fields(("u", "u_x"))
    left, right = (
        torch.tensor([[-1.0, 0.0]]).double(),
        torch.tensor([[1.0, 0.0]]).double(),
    )
    keep_t = torch.tensor([[0.0, 1.0]]).double()

    def pde(tensors, z):
        u, u_t, u_x, u_xx = columns(tensors, z).unbind(1)
        return (u_t + u * u_x - NU * u_xx).unsqueeze(1)

    def initial(tensors, z):
        return fields(("u",))(tensors, z) + torch.sin(math.pi * z[:, :1])

    def periodic(tensors, z):
        return both(tensors, z * keep_t + left) - both(tensors, z * keep_t + right)

    def value(tensors, z):
        return functional_call(network, tensors, (z,))

    def pde_by_hand(tensors, z):
        u = lambda at: value(tensors, at)[0]  # noqa: E731
        first, second = jacfwd(u)(z), jacfwd(jacfwd(u))(z)
        return (first[1] + u(z) * first[0] - NU * second[0, 0]).unsqueeze(0)

    def initial_by_hand(tensors, z):
        return value(tensors, z) + torch.sin(math.pi * z[:1])

    def periodic_by_hand(tensors, z):
        def side(x):
            at = torch.stack([x, z[1]])
            first = grad(lambda where: value(tensors, where)[0])(at)
            return torch.stack([value(tensors, at)[0], first[0]])

        return side(-torch.ones_like(z[0])) - side(torch.ones_like(z[0]))

    objective = Objective(
        network,
        [
            Term("pde", pde, uniform(n, (-1, 0), (1, 1), seed), weight=1.0),
            Term(
                "initial", initial, uniform(5, (-1, 0), (1, 0), seed + 1), weight=10.0
            ),
            Term(
                "periodic", periodic, uniform(4, (-1, 0), (-1, 1), seed + 2), weight=0.5
            ),
        ],
        select=select,
        space=Space(coordinates=("x", "t"), outputs=("u",), evaluate=fields),
    )
    residuals = {
        "pde": pde_by_hand,
        "initial": initial_by_hand,
        "periodic": periodic_by_hand,
    }
    return Case(objective, residuals, value)


def navier_stokes(n=7, widths=(2, 10, 10, 3), derivatives="jets", seed=0, select=None):
    """Steady two-dimensional Navier–Stokes: momentum in both directions, continuity."""
    network = tanh_network(*widths, seed=seed)
    fields = FieldMap(network, ("x", "y"), ("u", "v", "p"), derivatives=derivatives)
    names = [
        "u",
        "v",
        "u_x",
        "u_y",
        "v_x",
        "v_y",
        "p_x",
        "p_y",
        "u_xx",
        "u_yy",
        "v_xx",
        "v_yy",
    ]
    columns = fields(names)

    def flow(tensors, z):
        u, v, u_x, u_y, v_x, v_y, p_x, p_y, u_xx, u_yy, v_xx, v_yy = columns(
            tensors, z
        ).unbind(1)
        along_x = u * u_x + v * u_y + p_x - 0.1 * (u_xx + u_yy)
        along_y = u * v_x + v * v_y + p_y - 0.1 * (v_xx + v_yy)
        return torch.stack([along_x, along_y, u_x + v_y], dim=1)

    def wall(tensors, z):
        return fields(("u", "v"))(tensors, z)

    def value(tensors, z):
        return functional_call(network, tensors, (z,))

    def flow_by_hand(tensors, z):
        f = lambda at: value(tensors, at)  # noqa: E731
        (u, v, _), first, second = f(z), jacfwd(f)(z), hessian(f)(z)
        laplacian = second[:, 0, 0] + second[:, 1, 1]
        along = u * first[:2, 0] + v * first[:2, 1] + first[2] - 0.1 * laplacian[:2]
        return torch.cat([along, (first[0, 0] + first[1, 1]).unsqueeze(0)])

    objective = Objective(
        network,
        [
            Term("flow", flow, uniform(n, (0, 0), (1, 1), seed), weight=2.0),
            Term("wall", wall, uniform(3, (0, 0), (1, 0), seed + 1), weight=5.0),
        ],
        select=select,
        space=Space(coordinates=("x", "y"), outputs=("u", "v", "p"), evaluate=fields),
    )
    residuals = {"flow": flow_by_hand, "wall": lambda tensors, z: value(tensors, z)[:2]}
    return Case(objective, residuals, value)


CASES = {"hard": burgers_hard, "soft": burgers_soft, "flow": navier_stokes}


# --- brute force -------------------------------------------------------------------------------


def point_jacobians(case, residual, points):
    """∂r/∂θ point by point, (n, m, P), and the residuals (n, m), as NumPy arrays."""

    def at(theta, z):
        return residual(case.tensors(theta), z)

    theta = case.theta
    rows = vmap(lambda z: jacrev(at)(theta, z))(points)
    return rows.numpy(), vmap(lambda z: at(theta, z))(points).numpy()


def jacobian(case, scaled=False):
    """Every row, term by term, point by point, component by component."""
    blocks = []
    for name, term in case.objective.terms.items():
        rows, _ = point_jacobians(case, case.residuals[name], term.points)
        factor = math.sqrt(2 * term.weight / len(term.points)) if scaled else 1.0
        blocks.append(factor * rows.reshape(-1, rows.shape[-1]))
    return np.concatenate(blocks)


def gauss_newton(case):
    """Σ_k w_k/N_k Σ_i 2 JᵢᵀJᵢ."""
    total = 0.0
    for name, term in case.objective.terms.items():
        for row in point_jacobians(case, case.residuals[name], term.points)[0]:
            total = total + term.weight / len(term.points) * 2 * row.T @ row
    return total


def loss(case, theta):
    """L(θ), point by point."""
    tensors, total = case.tensors(theta), 0.0
    for name, term in case.objective.terms.items():
        for z in term.points:
            squared = case.residuals[name](tensors, z).square().sum()
            total = total + term.weight / len(term.points) * squared
    return total


def loss_hessian(case):
    """∂²L/∂θ² by reverse over reverse."""
    return torch.autograd.functional.hessian(
        lambda t: loss(case, t), case.theta
    ).numpy()


def loss_gradients(case, points=None):
    """∇ℓ(z) of every point and the w/N in front of it: (n, P), (n,)."""
    chosen = (
        {n: t.points for n, t in case.objective.terms.items()}
        if points is None
        else points
    )
    gradients, scales = [], []
    for name, given in chosen.items():
        term = case.objective.terms[name]
        rows, values = point_jacobians(case, case.residuals[name], given)
        gradients.append(2 * np.einsum("nmp,nm->np", rows, values))
        scales += [term.weight / len(term.points)] * len(given)
    return np.concatenate(gradients), np.asarray(scales)


def value_gradients(case, points, component=0):
    """∇f of an output at points, (T, P)."""

    def at(theta, z):
        return case.value(case.tensors(theta), z)[component]

    theta = case.theta
    return vmap(lambda z: jacrev(at)(theta, z))(points).numpy()


def inverse_times(matrix, right):
    """A⁻¹ B by the dense inverse, corrected by residuals in extended precision."""
    inverse = linalg.inv(matrix)
    solution = inverse @ right
    for _ in range(3):
        left = right - matrix.astype(np.longdouble) @ solution.astype(np.longdouble)
        solution = solution + inverse @ left.astype(float)
    return solution


def influence(case, target_gradients, damping, curvature="gauss_newton", points=None):
    """(w/N)·∇fᵀ(H+λI)⁻¹∇ℓ, the effect of removal; λ relative to the largest eigenvalue."""
    matrix = gauss_newton(case) if curvature == "gauss_newton" else loss_hessian(case)
    largest = np.abs(linalg.eigvalsh(matrix)).max()
    matrix = matrix + damping * largest * np.eye(len(matrix))
    gradients, scales = loss_gradients(case, points)
    return target_gradients @ inverse_times(matrix, (scales[:, None] * gradients).T)


def close(found, expected, tolerance):
    """Assert agreement relative to the largest entry of what is expected."""
    found, expected = np.asarray(found), np.asarray(expected)
    assert found.shape == expected.shape, (found.shape, expected.shape)
    worst, scale = np.abs(found - expected).max(), np.abs(expected).max()
    assert worst <= tolerance * scale, (
        f"off by {worst:.2e}, {worst / scale:.2e} of the largest"
    )


def target_points(case, n=3):
    first = next(iter(case.objective.terms.values())).points
    return uniform(
        n, first.min(0).values.tolist(), first.max(0).values.tolist(), seed=7
    )


def check_influence(
    make,
    *,
    damping=1e-4,
    form="auto",
    targets=3,
    tolerance=1e-10,
    curvature="gauss_newton",
):
    """Assert that influences are the oracle's; test_mutations shows that it can fail."""
    case = make()
    points = target_points(case, targets)
    found = Influence(
        case.objective, damping=damping, solver=Exact(form=form), curvature=curvature
    ).attribute(Output(points, case.objective.outputs[0]))
    expected = influence(case, value_gradients(case, points), damping, curvature)
    close(found, expected, tolerance)


def derivative(function, at, h):
    """Return ``f′(x)`` by five points, ``(f(x−2h) − 8f(x−h) + 8f(x+h) − f(x+2h))/(12h)``."""
    near = function(at + h) - function(at - h)
    far = function(at + 2 * h) - function(at - 2 * h)
    return (8 * near - far) / (12 * h)
