"""Problems: equations by signature, conditions of every kind, points and objectives."""

import dataclasses
import math

import pytest
import torch

import whence as wh
from whence import pinn

SQUARE = pinn.Rectangle(("x", "y"), (0.0, 0.0), (1.0, 2.0))
STRIP = pinn.Interval("x", 0, 1) * pinn.Interval("t", 0, 1)


class Known(torch.nn.Module):
    """A "network" that is a known function plus a parameter: u = a·x² + x·t."""

    def __init__(self) -> None:
        super().__init__()
        self.a = torch.nn.Parameter(torch.tensor(3.0, dtype=torch.float64))

    def forward(self, z):
        x, t = z[..., 0], z[..., 1]
        return (self.a * x**2 + x * t).unsqueeze(-1)


def values_of(problem, network, term, points):
    objective = problem.objective(network, {term: points})
    return (
        objective.terms[term].residual(objective.parameters.tensors(), points).detach()
    )


def strip(**options):
    return pinn.Problem(STRIP, ("u",), {"pde": lambda u_t, u_xx: u_t - u_xx}, **options)


def named(*outputs):
    return pinn.Problem(STRIP, outputs, {"pde": lambda u: u})


def normal_beside_coordinate_n():
    domain = pinn.Interval("n", 0, 1) * pinn.Interval("x", 0, 1)
    wall = pinn.Neumann(u=0.0, on="x")
    return pinn.Problem(domain, ("u",), {"pde": lambda u_n: u_n}, conditions=[wall])


def test_equation_gets_exact_derivatives():
    problem = pinn.Problem(
        STRIP,
        ("u",),
        {"pde": lambda x, t, u, u_x, u_t, u_xx, u_xt: u_x * u_xt + u_xx * t + u - x},
    )
    points = problem.draw("pde", 20, seed=1)
    x, t = points.unbind(1)
    expected = (6 * x + t) * 1 + 6 * t + 3 * x**2 + x * t - x
    found = values_of(problem, Known(), "pde", points)[:, 0]
    torch.testing.assert_close(found, expected, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        (pinn.Initial(u=lambda x: x), lambda x, t: 3 * x**2 - x),
        (pinn.Initial(u_t=0.5), lambda x, t: x - 0.5),
        (pinn.Dirichlet(u=lambda t: t, on="x_max"), lambda x, t: 3 + t - t),
        (pinn.Neumann(u=1.0, on="x_min"), lambda x, t: -t - 1),
        (pinn.Neumann(u=1.0, on="x_max"), lambda x, t: 6 + t - 1),
        (
            pinn.Robin(u=lambda t: t, on="x_max", value_factor=2.0, normal_factor=0.5),
            lambda x, t: 2 * (3 + t) + 0.5 * (6 + t) - t,
        ),
        (pinn.Periodic("u", along="x"), lambda x, t: 0 - (3 + t)),
        (pinn.Periodic("u_x", along="x"), lambda x, t: t - (6 + t)),
        (
            pinn.Condition("c", on=lambda x: x == 1.0, residual=lambda u_x, t: u_x * t),
            lambda x, t: (6 + t) * t,
        ),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_conditions_against_closed_forms(condition, expected):
    problem = strip(conditions=[condition])
    points = problem.draw(condition.name, 15, seed=2)
    found = values_of(problem, Known(), condition.name, points)[:, 0]
    torch.testing.assert_close(
        found, expected(*points.unbind(1)), rtol=1e-12, atol=1e-12
    )


def test_normals_of_a_disk_enter_neumann():
    domain = pinn.Disk(("x", "y"), (0.0, 0.0), 2.0)
    condition = pinn.Neumann(u=0.0, on="disk")
    problem = pinn.Problem(
        domain, ("u",), {"pde": lambda u_x: u_x}, conditions=[condition]
    )
    points = problem.draw("neumann_u", 12, seed=0)
    x, y = points.unbind(1)
    found = values_of(problem, Known(), "neumann_u", points)[:, 0]
    torch.testing.assert_close(
        found, ((6 * x + y) * x + x * y) / 2, rtol=1e-12, atol=1e-12
    )


def test_several_outputs_components_and_terms():
    problem = pinn.Problem(
        SQUARE,
        ("u", "v"),
        {"momentum": lambda u, v_x: (u, u * v_x), "mass": lambda u_x, v_y: u_x + v_y},
        conditions=[
            pinn.Dirichlet(u=0.0, on="y"),
            pinn.Dirichlet(v=1.0, on=("x_min", "y_max")),
        ],
    )
    assert problem.terms == ("momentum", "mass", "dirichlet_u", "dirichlet_v")
    counts = {"momentum": 30, "mass": 20, "dirichlet_u": 8, "dirichlet_v": 9}
    points = problem.sample(counts, seed=0)
    objective = problem.objective(pinn.MLP([2, 8, 2], seed=0), points, {"mass": 3.0})
    losses = objective.losses()
    total = (
        losses["momentum"]
        + 3 * losses["mass"]
        + losses["dirichlet_u"]
        + losses["dirichlet_v"]
    )
    assert float(objective.loss()) == pytest.approx(float(total), rel=1e-14)
    assert objective.n_points == 67


# Conditions that an ansatz does not meet by itself: what the loss asks for in both kinds.
REMAINING = {
    "drift_diffusion": {"periodic_u_x"},  # both ends' values are given, slopes follow
    "euler_bernoulli": {"free"},
    "inverse_heat": {"sensors"},
    "korteweg_de_vries": {"periodic_u", "periodic_u_x", "periodic_u_xx"},
    "kuramoto_sivashinsky": {
        "periodic_u", "periodic_u_x", "periodic_u_xx", "periodic_u_xxx"
    },
    "l_shape": {"boundary"},
    "linear_elasticity": {"held", "pulled"},
    "navier_stokes": {
        "noslip_u", "noslip_v", "inflow_u", "inflow_v", "outflow_u", "outflow_v"
    },
    "poisson_5d": {"dirichlet_u"},
}  # fmt: skip
REMAINING["navier_stokes_dimensional"] = REMAINING["navier_stokes"]


def drawn(problem, term, n, seed):
    """Points of a term: n of them, or all where it holds at few."""
    return problem.draw(term, min(n, problem.room(term) or n), seed)


@pytest.mark.parametrize("name", pinn.zoo.names())
def test_ansatz_meets_conditions_for_any_network(name):
    hard, soft = pinn.zoo.load(name), pinn.zoo.load(name, "soft")
    network = hard.network(seed=3)
    ansatz = dataclasses.replace(soft, ansatz=hard.ansatz, unknowns=hard.unknowns)
    left = set(soft.terms) - set(soft.equations) - REMAINING.get(name, set())
    for term in left:
        points = drawn(soft, term, 50, seed=1)
        worst = values_of(ansatz, hard.model(network), term, points).abs().max()
        assert worst < 1e-12, term


@pytest.mark.parametrize("name", pinn.zoo.names())
@pytest.mark.parametrize("constraints", ["hard", "soft"])
def test_both_derivative_paths_agree_on_the_zoo(name, constraints):
    problem = pinn.zoo.load(name, constraints)
    nested = dataclasses.replace(problem, derivatives="autograd")
    network = problem.model(problem.network(seed=0))
    # Fourth derivatives are sums of larger numbers.
    allowed = 1e-12 if name not in FOURTH_ORDER else 1e-10
    for term in set(problem.terms) - set(problem.given_terms):
        points = drawn(problem, term, 30, seed=4)
        a, b = (values_of(p, network, term, points) for p in (problem, nested))
        assert float((a - b).abs().max()) <= allowed * float(b.abs().max())


FOURTH_ORDER = ("euler_bernoulli", "kuramoto_sivashinsky", "lid_driven_cavity")
# Central differences of sixth order on the offsets −3..3.
SIXTH = {-3: -1 / 60, -2: 3 / 20, -1: -3 / 4, 1: 3 / 4, 2: -3 / 20, 3: 1 / 60}
# What remains of an equation beside its largest part: differences of higher order lose more, and
# the cavity's reference is known to about 1e-5.
REMAINDERS = {
    "euler_bernoulli": 1e-4, "korteweg_de_vries": 1e-4, "kuramoto_sivashinsky": 1e-4,
    "lid_driven_cavity": 2e-2,
}  # fmt: skip


def differences(problem, points, output, index, h):
    """Differentiate an output of the reference along each coordinate of an index in turn."""
    if not index:
        return problem.reference(points)[:, output]
    k, *rest = index
    total = 0.0
    for offset, factor in SIXTH.items():
        moved = points.clone()
        moved[:, k] += offset * h[k]
        total = total + factor * differences(problem, moved, output, rest, h)
    return total / h[k]


# Piecewise polynomials have no differences of high order: tests/pinn/zoo/test_navier_stokes.py.
IN_PIECES = ("navier_stokes", "navier_stokes_dimensional")


@pytest.mark.parametrize("name", [n for n in pinn.zoo.names() if n not in IN_PIECES])
def test_reference_solves_the_zoo_problem(name):
    """The reference must satisfy the zoo's own equation: differences of it do."""
    problem = pinn.zoo.load(name, "soft")
    low, high = torch.from_numpy(problem.domain.bounds)
    share = 5e-3 if name in REMAINDERS else 1e-3
    h = share * (high - low)
    points = problem.domain.sample(400, "random", seed=5)
    # As far inside as differences of fourth order reach.
    inside = problem.domain.contains(points, -float(12 * h.max()))
    points = points[inside][:25]
    assert len(points) > 10

    (equation,) = problem.equations.values()
    names = problem.fields_of(next(iter(problem.equations)))
    fields = {}
    for field in names:
        parsed = problem.parse(field)
        if parsed.coordinate is not None:
            fields[field] = points[:, parsed.coordinate]
        elif parsed.symbol is not None:
            fields[field] = torch.full((len(points),), 0.3)  # the only unknown there is
        else:
            fields[field] = differences(problem, points, parsed.output, parsed.index, h)

    residual = equation(*(fields[n] for n in names))
    parts = residual if isinstance(residual, tuple) else (residual,)
    scale = max(float(values.abs().max()) for values in fields.values())
    for part in parts:
        assert float(part.abs().median()) < REMAINDERS.get(name, 1e-5) * scale


def test_relative_l2_of_a_perfect_and_a_zero_network():
    problem = pinn.Problem(
        STRIP, ("u",), {"pde": lambda u_t: u_t}, solution=lambda x, t: 3 * x**2 + x * t
    )
    grid = problem.domain.sample(50, "grid")
    network = Known()
    assert problem.relative_l2(network, grid) < 1e-15
    with torch.no_grad():
        network.a.zero_()
    x, t = grid.unbind(1)
    expected = (3 * x**2).norm() / (3 * x**2 + x * t).norm()
    assert problem.relative_l2(network, grid) == pytest.approx(
        float(expected), rel=1e-12
    )


def test_sampling_is_reproducible_and_differs_by_term_and_seed():
    problem = pinn.zoo.load("wave", "soft")
    counts = dict.fromkeys(problem.terms, 20)
    a, b, c = (problem.sample(counts, seed=s) for s in (1, 1, 2))
    for term in problem.terms:
        assert torch.equal(a[term], b[term])
        assert not torch.equal(a[term], c[term])
    assert not torch.equal(a["initial_u"], a["initial_u_t"])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: pinn.Problem(STRIP, ("u",), {"pde": lambda u_z: u_z}),
            "unknown name 'u_z'",
        ),
        (lambda: pinn.Problem(STRIP, ("u",), {"pde": lambda w: w}), "unknown name 'w'"),
        (
            lambda: pinn.Problem(STRIP, ("u",), {"pde": lambda *args: 0}),
            "name each argument",
        ),
        (lambda: pinn.Problem(STRIP, ("u",), {}), "at least one equation"),
        (lambda: strip(ansatz=lambda x, v: v), "argument of the ansatz 'v'"),
        (
            lambda: strip(conditions=[pinn.Dirichlet(u=0.0, on="y")]),
            "part of the boundary 'y'",
        ),
        (lambda: strip(conditions=[pinn.Dirichlet(w=0.0, on="x")]), "unknown name 'w'"),
        (lambda: strip(conditions=[pinn.Periodic("u", along="z")]), "'z'"),
        (
            lambda: strip(conditions=[pinn.Initial(u=0.0, name="pde")]),
            "a name of its own",
        ),
        (lambda: strip().sample({"pdf": 3}), "did you mean 'pde'"),
        (
            lambda: strip(conditions=[pinn.Initial(u=0.0)]).sample(3),
            "give a count for each",
        ),
        (
            lambda: strip(conditions=[pinn.Initial(u=0.0)]).sample({"pde": 3}),
            "'initial_u'",
        ),
        (lambda: strip().sample({"pde": 0}), "number of points of term 'pde'"),
        (lambda: named("u", "x"), "names of their own"),
        (lambda: named("u", "u"), "names of their own"),
        (lambda: named("u", "u_x"), "output 'u_x' reads as a derivative"),
        (lambda: named("u", "u_n"), "output 'u_n' reads as a derivative"),
        (
            lambda: normal_beside_coordinate_n(),
            "a coordinate called 'n' makes ambiguous",
        ),
        (lambda: strip().network(), "names no architecture"),
        (lambda: strip().reference(torch.zeros(1, 2)), "no reference solution"),
        (lambda: pinn.zoo.load("burger"), "did you mean 'burgers'"),
        (lambda: pinn.zoo.load("burgers", "firm"), "constraints 'firm'"),
        (
            lambda: pinn.Problem(
                SQUARE, ("u",), {"pde": lambda u: u}, conditions=[pinn.Initial(u=0.0)]
            ),
            "needs a time coordinate",
        ),
    ],
)
def test_errors_name_what_was_given(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_points_outside_the_domain_are_refused():
    with pytest.raises(ValueError, match="1 of 2 points of term 'pde' lie outside"):
        strip().objective(Known(), {"pde": torch.tensor([[0.5, 0.5], [1.5, 0.5]])})


def test_wrong_shapes_from_user_functions_are_named():
    points = torch.rand(4, 2, dtype=torch.float64)
    bad = pinn.Problem(STRIP, ("u",), {"pde": lambda u: u.sum()})
    with pytest.raises(
        ValueError, match=r"equation 'pde' must return a tensor of shape \(2,\)"
    ):
        values_of(bad, Known(), "pde", points)
    ansatz = strip(ansatz=lambda x, u: (u, u))
    with pytest.raises(ValueError, match="the ansatz must return 1"):
        values_of(ansatz, Known(), "pde", points)
    wide = strip()
    with pytest.raises(ValueError, match="the network must map"):
        values_of(wide, pinn.MLP([2, 4, 3]), "pde", points)
    with pytest.raises(TypeError, match="takes one field by keyword"):
        pinn.Dirichlet(u=0.0, v=0.0, on="x")
    assert math.isfinite(float(values_of(strip(), Known(), "pde", points).sum()))


@pytest.mark.parametrize("derivatives", ["jets", "autograd"])
@pytest.mark.parametrize(
    "network", [Known(), pinn.MLP([2, 6, 1], seed=0)], ids=["known", "mlp"]
)
def test_normal_derivatives_in_the_jacobian_and_the_hessian(derivatives, network):
    """Also where rows come through vmap, which NumPy's normals cannot see."""
    walls = [pinn.Neumann(u=0.5, on="x"), pinn.Periodic("u_x", along="x")]
    problem = strip(conditions=walls, derivatives=derivatives)
    objective = problem.objective(
        network, problem.sample(dict.fromkeys(problem.terms, 6), seed=0)
    )
    rows, right = wh.Jacobian(objective, scaled=True).system()
    live = objective.parameters.live()
    chosen = list(live.values())
    grads = torch.autograd.grad(objective.loss(live), chosen, materialize_grads=True)
    expected = torch.cat([g.reshape(-1) for g in grads])
    torch.testing.assert_close(rows.T @ right, expected, rtol=1e-10, atol=1e-12)
    assert bool(torch.isfinite(wh.Hessian(objective).dense()).all())


def test_points_take_the_networks_dtype_and_an_ansatz_may_return_a_list():
    problem = pinn.Problem(
        SQUARE,
        ("u", "v"),
        {"pde": lambda u, v_x: u - v_x},
        ansatz=lambda x, u, v: [x * u, v],
    )
    points = problem.sample(9, seed=0)
    network = pinn.MLP([2, 4, 2], seed=0, dtype=torch.float32)
    objective = problem.objective(network, points)
    assert objective.terms["pde"].points.dtype == torch.float32
    assert objective.with_points(points).terms["pde"].points.dtype == torch.float32
    columns = objective.fields(("u",))(
        objective.parameters.tensors(), points["pde"].float()
    )
    raw = network(points["pde"].float()).detach()
    assert torch.equal(columns[:, 0], points["pde"][:, 0].float() * raw[:, 0])


def test_trying_the_functions_leaves_points_and_parameters_alone():
    seen = []

    def pde(u, x):
        seen.append(x)
        return u - x

    problem = strip(ansatz=lambda x, u: x * u)
    problem = dataclasses.replace(problem, equations={"pde": pde})
    points = problem.sample(9, seed=0)
    before, network = points["pde"].clone(), pinn.MLP([2, 4, 1], seed=0)
    state = {name: p.detach().clone() for name, p in network.named_parameters()}
    objective = problem.objective(network, points)
    # First at two points, then at several together and one by one.
    assert {tuple(x.shape) for x in seen} == {(2,), (5,), (1,)}
    assert torch.equal(objective.terms["pde"].points, before)
    assert all(torch.equal(p, state[name]) for name, p in network.named_parameters())
    assert all(p.grad is None for p in network.parameters())


def test_normals_are_found_at_float32_points_of_a_large_domain():
    domain = pinn.Interval("x", 0, 1000.1) * pinn.Interval("t", 0, 1)
    wall = pinn.Neumann(u=0.0, on="x_max")
    problem = pinn.Problem(domain, ("u",), {"pde": lambda u_t: u_t}, conditions=[wall])
    points = {
        name: p.float()
        for name, p in problem.sample({"pde": 5, "neumann_u": 5}).items()
    }
    objective = problem.objective(pinn.MLP([2, 4, 1], seed=0).float(), points)
    assert math.isfinite(float(objective.loss()))


def test_terms_keep_the_problems_order():
    problem = strip(conditions=[pinn.Initial(u=0.0)])
    points = problem.sample({"initial_u": 3, "pde": 4}, seed=0)
    objective = problem.objective(Known(), dict(reversed(points.items())))
    assert tuple(objective.terms) == problem.terms


def test_outputs_given_as_one_string_are_refused():
    with pytest.raises(TypeError, match="tuple of names"):
        pinn.Problem(STRIP, "uv", {"pde": lambda u: u})
