import numpy as np
import oracles
import pytest
import torch
import xarray as xr
from scipy import linalg
from torch import nn
from torch.func import functional_call

from whence.attribution.influence import Influence
from whence.attribution.labels import SIGN
from whence.attribution.quantities import Derivative, Functional, Loss, Output, Residual
from whence.attribution.tiles import regrouped
from whence.curvature.exact import Exact
from whence.curvature.solvers import Damping, Solution
from whence.curvature.spectrum import Spectrum
from whence.objective import Objective
from whence.space import Space
from whence.term import Term

SMALL = {
    "hard": lambda: oracles.burgers_hard(n=7, widths=(2, 4, 1)),
    "soft": lambda: oracles.burgers_soft(n=7, widths=(2, 4, 1)),
    "flow": lambda: oracles.navier_stokes(n=4, widths=(2, 3, 3)),
}


# --- against brute force -----------------------------------------------------------------------


@pytest.mark.parametrize("form", ["primal", "dual"])
@pytest.mark.parametrize("damping", [1e-6, 1e-5, 1e-4, 1e-3])
@pytest.mark.parametrize("name", oracles.CASES)
def test_gauss_newton_influence(name, damping, form):
    oracles.check_influence(oracles.CASES[name], damping=damping, form=form)


@pytest.mark.parametrize("name", oracles.CASES)
def test_many_targets_take_another_road_to_the_same(name):
    oracles.check_influence(oracles.CASES[name], targets=20)


@pytest.mark.parametrize("damping", [1e-6, 1e-3])
@pytest.mark.parametrize("name", SMALL)
def test_hessian_influence(name, damping):
    oracles.check_influence(SMALL[name], damping=damping, curvature="hessian")


@pytest.fixture(name="soft")
def _soft():
    return oracles.burgers_soft()


def influence(case, damping=1e-4, **options):
    return Influence(case.objective, damping=damping, **options)


def test_candidates_that_are_not_in_training(soft):
    points = {
        "initial": oracles.uniform(3, (-1, 0), (1, 0), seed=11),
        "pde": oracles.uniform(12, (-1, 0), (1, 1), seed=12),
    }
    targets = oracles.target_points(soft)
    found = influence(soft).attribute(Output(targets), points)
    gradients = oracles.value_gradients(soft, targets)
    oracles.close(found, oracles.influence(soft, gradients, 1e-4, points=points), 1e-10)
    assert found.term.values.tolist() == ["initial"] * 3 + ["pde"] * 12


def test_loss_targets_and_the_sign(soft):
    """A point's influence on its own loss is positive: without it, its loss grows."""
    found = influence(soft).attribute(Loss())
    gradients, _ = oracles.loss_gradients(soft)
    oracles.close(found, oracles.influence(soft, gradients, 1e-4), 1e-10)
    assert (np.diag(found) > 0).all()


def test_absolute_damping(soft):
    targets = oracles.target_points(soft)
    largest = linalg.eigvalsh(oracles.gauss_newton(soft))[-1]
    one = influence(soft, 1e-3).attribute(Output(targets))
    other = influence(soft, Damping(1e-3 * largest, relative=False)).attribute(
        Output(targets)
    )
    oracles.close(other, one, 1e-10)


# --- ways of asking the same -------------------------------------------------------------------


def quantities(case):
    points = oracles.target_points(case, 5)
    return [
        Output(points),
        Derivative(points, "u_xx"),
        Residual(points, "pde"),
        Loss({"pde": points, "initial": points[:2]}),
        Functional(lambda field: field("u", points).mean()),
    ]


def test_adding_is_the_negative_of_removing(soft):
    for quantity in quantities(soft):
        remove = influence(soft).attribute(quantity)
        add = influence(soft).attribute(quantity, effect="add")
        assert np.array_equal(add, -remove)
        assert (remove.sign, add.sign) == (SIGN["remove"], SIGN["add"])


def test_influence_on_a_sum_is_the_sum_of_influences(soft):
    for quantity in quantities(soft):
        each = influence(soft).attribute(quantity)
        total = influence(soft).attribute_sum(quantity)
        assert total.dims == ("point",)
        oracles.close(total, each.sum("target"), 1e-11)
        assert total.attrs["quantity"] == f"sum of {quantity.label()}"


@pytest.mark.parametrize("block", [1, 2, 5, 100])
def test_blocks_are_the_same_matrix(soft, block):
    for quantity in quantities(soft):
        whole = influence(soft).attribute(quantity)
        blocks = list(influence(soft).attribute_blocks(quantity, block=block))
        assert all(len(b) == block for b in blocks[:-1])
        oracles.close(torch.cat(blocks), whole, 1e-11)


@pytest.mark.parametrize(
    "sizes", [[1], [3, 3, 3], [7], [1, 9, 2], [2, 2, 2, 2, 1], [4, 4]]
)
def test_regrouping_keeps_every_row_in_order(sizes):
    rows = torch.arange(sum(sizes))
    blocks = list(regrouped(iter(rows.split(sizes)), 4))
    assert torch.equal(torch.cat(blocks), rows)
    assert all(len(b) == 4 for b in blocks[:-1])
    assert 0 < len(blocks[-1]) <= 4


def test_more_targets_than_a_block(soft):
    points = oracles.target_points(soft, 600)
    found = influence(soft).attribute(Output(points))
    assert found.shape == (600, 18)
    part = influence(soft).attribute(Output(points[500:503]))
    oracles.close(found[500:503], part, 1e-10)


def test_one_tensor_for_one_term():
    hard = SMALL["hard"]()
    points = oracles.target_points(hard)
    one = influence(hard).attribute(Output(points), points)
    other = influence(hard).attribute(Output(points), {"pde": points})
    assert np.array_equal(one, other)


def test_order_of_points_only_orders_columns(soft):
    points = soft.objective.term("pde").points
    order = torch.randperm(len(points), generator=torch.Generator().manual_seed(0))
    moved = oracles.Case(
        soft.objective.with_points({"pde": points[order]}), soft.residuals, soft.value
    )
    targets = Output(oracles.target_points(soft))
    one = influence(soft).attribute(targets).sel(term="pde")
    other = influence(moved).attribute(targets).sel(term="pde")
    oracles.close(other, one[:, order], 1e-10)


def test_the_factorisation_follows_the_network(soft):
    targets = oracles.target_points(soft)
    asked = influence(soft)
    state = asked.state()
    assert asked.state() is state
    soft.objective.parameters.assign(0.9 * soft.theta)
    assert asked.state() is not state
    found = asked.attribute(Output(targets))
    gradients = oracles.value_gradients(soft, targets)
    oracles.close(found, oracles.influence(soft, gradients, 1e-4), 1e-10)


def test_the_factorisation_follows_parameters_that_are_not_selected():
    case = oracles.burgers_soft(select="4.*")
    asked = influence(case)
    before = asked.state()
    with torch.no_grad():
        case.objective.network[0].weight *= 0.5
    assert asked.state() is not before
    gradients = oracles.value_gradients(case, targets := oracles.target_points(case))
    found = asked.attribute(Output(targets))
    oracles.close(found, oracles.influence(case, gradients, 1e-4), 1e-10)


# --- labels ------------------------------------------------------------------------------------


def test_labels(soft):
    points = oracles.target_points(soft)
    found = influence(soft).attribute(Output(points))
    assert found.dims == ("target", "point")
    assert found.name == "influence"
    joined = torch.cat([t.points for t in soft.objective.terms.values()]).numpy()
    assert np.array_equal(found.x, joined[:, 0])
    assert np.array_equal(found.t, joined[:, 1])
    assert np.array_equal(found.target_x, points[:, 0])
    assert np.array_equal(found.target_t, points[:, 1])
    assert found["quantity"].values.tolist() == ["u"] * 3
    assert (
        found.term.values.tolist() == ["pde"] * 9 + ["initial"] * 5 + ["periodic"] * 4
    )
    assert found["index"].values.tolist() == [*range(9), *range(5), *range(4)]


def test_selection_by_term(soft):
    found = influence(soft).attribute(Output(oracles.target_points(soft)))
    row = found.sel(term="initial")
    assert row.shape == (3, 5)
    assert np.array_equal(row, found[:, 9:14])
    assert np.array_equal(row.x, soft.objective.term("initial").points[:, 0])


def test_attributes_say_what_was_done(soft):
    found = influence(soft).attribute(Output(oracles.target_points(soft)))
    matrix = oracles.gauss_newton(soft)
    gradients, scales = oracles.loss_gradients(soft)
    assert found.attrs["largest_eigenvalue"] == pytest.approx(
        linalg.eigvalsh(matrix)[-1]
    )
    assert found.attrs["relative_damping"] == pytest.approx(1e-4)
    assert found.attrs["gradient_norm"] == pytest.approx(
        np.linalg.norm(scales @ gradients)
    )
    assert found.attrs["loss"] == pytest.approx(float(oracles.loss(soft, soft.theta)))
    assert found.attrs["solver"] == "exact"
    assert found.attrs["solver_form"] == "dual"
    assert found.attrs["solver_residual"] < 1e-9
    assert found.attrs["solver_converged"] == 1
    assert found.attrs["curvature"] == "gauss_newton"
    assert (found.attrs["method"], found.attrs["effect"]) == ("influence", "remove")
    hessian = influence(SMALL["soft"](), curvature="hessian")
    said = hessian.attribute(Output(oracles.target_points(soft))).attrs
    assert said["negative_eigenvalues"] > 0


class Failing:
    """A solver that does not converge in one of two blocks."""

    name = "failing"
    spectrum = Spectrum(damping=0.0, largest_eigenvalue=1.0)

    def factor(self, operator, damping):
        self.asked = 0
        return self

    def solve(self, right):
        self.asked += 1
        residual = [float("nan"), 0.5][self.asked % 2]
        return Solution(torch.zeros_like(right), residual, self.asked % 2 == 0, 0)


def test_failing_to_converge_is_said(soft, monkeypatch):
    monkeypatch.setattr("whence.attribution.tiled.TARGET_BLOCK", 1)
    points = oracles.target_points(soft, 2)
    said = influence(soft, solver=Failing()).attribute(Output(points)).attrs
    assert said["solver_converged"] == 0
    assert np.isnan(said["solver_residual"])


@pytest.mark.filterwarnings("error::zarr.errors.UnstableSpecificationWarning")
@pytest.mark.filterwarnings("ignore:Consolidated metadata")
@pytest.mark.parametrize("kind", ["netcdf", "zarr"])
def test_saved_and_read_back_without_whence(soft, kind, tmp_path):
    for k, quantity in enumerate(quantities(soft)):
        found = influence(soft).attribute(quantity)
        path = tmp_path / f"{k}.{kind}"
        if kind == "netcdf":
            found.to_netcdf(path)
            read = xr.open_dataarray(path)
        else:
            found.to_zarr(path)
            read = xr.open_dataarray(path, engine="zarr")
        with read:
            assert np.array_equal(read, found)
            assert read.dims == found.dims
            assert set(read.coords) == set(found.coords)
            for name in found.coords:
                assert read[name].values.tolist() == found[name].values.tolist()
            assert read.attrs.keys() >= found.attrs.keys()
            assert read.attrs["sign"] == SIGN["remove"]
            assert read.attrs["damping"] == found.attrs["damping"]
            again = read.load().set_xindex("term").sel(term="initial")
            assert np.array_equal(again, found.sel(term="initial"))


# --- closed forms ------------------------------------------------------------------------------


def least_squares(n=12, d=3, weight=1.0):
    """A linear fit at its optimum; x are the first d coordinates, y the last."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(n, d, generator=generator, dtype=torch.float64)
    y = x @ torch.ones(d, 1).double() + torch.randn(n, 1, generator=generator).double()
    network = nn.Linear(d, 1, bias=False).double()

    def residual(tensors, z):
        return functional_call(network, tensors, (z[:, :d],)) - z[:, d:]

    objective = Objective(
        network,
        [Term("data", residual, torch.cat([x, y], 1), weight=weight)],
        space=Space(
            coordinates=(*(f"x{i}" for i in range(d)), "y"),
            evaluate=lambda names: (
                lambda tensors, z: functional_call(network, tensors, (z[:, :d],))
            ),
        ),
    )
    objective.parameters.assign(torch.linalg.lstsq(x, y).solution.reshape(-1))
    return objective, x.numpy(), y.numpy()[:, 0]


@pytest.mark.parametrize("curvature", ["gauss_newton", "hessian"])
@pytest.mark.parametrize("weight", [1.0, 0.25])
def test_linear_least_squares_and_leave_one_out(curvature, weight):
    objective, x, y = least_squares(weight=weight)
    theta = objective.parameters.vector().numpy()
    inverse, error = linalg.inv(x.T @ x), x @ theta - y
    asked = Influence(objective, damping=0.0, curvature=curvature)
    targets = torch.cat([torch.eye(3), torch.zeros(3, 1)], 1).double()  # θ itself
    found = asked.attribute(Output(targets)).values
    oracles.close(found, inverse @ x.T * error, 1e-10)

    # what really happens: refit without each point in turn
    without = []
    for i in range(len(x)):
        keep = np.arange(len(x)) != i
        without.append(np.linalg.lstsq(x[keep], y[keep], rcond=None)[0] - theta)
    leverage = np.einsum("ij,jk,ik->i", x, inverse, x)
    exact = found / (1 - leverage)
    oracles.close(exact, np.stack(without, 1), 1e-10)

    # and with a point added a second time
    twice = []
    for i in range(len(x)):
        more = np.append(np.arange(len(x)), i)
        twice.append(np.linalg.lstsq(x[more], y[more], rcond=None)[0] - theta)
    added = asked.attribute(Output(targets), effect="add").values / (1 + leverage)
    oracles.close(added, np.stack(twice, 1), 1e-10)


def test_first_order_in_the_weight_of_a_point():
    """At weight 1 − ε the exact change is ε·influence / (1 − ε h)."""
    objective, x, y = least_squares()
    theta = objective.parameters.vector().numpy()
    targets = torch.cat([torch.eye(3), torch.zeros(3, 1)], 1).double()
    found = Influence(objective, damping=0.0).attribute(Output(targets)).values
    leverage = np.einsum("ij,jk,ik->i", x, linalg.inv(x.T @ x), x)
    for i, epsilon in ((0, 0.5), (4, 0.1), (7, 1e-2)):
        weights = np.ones(len(x))
        weights[i] -= epsilon
        new = linalg.solve(x.T @ (weights[:, None] * x), x.T @ (weights * y))
        predicted = epsilon * found[:, i] / (1 - epsilon * leverage[i])
        oracles.close(new - theta, predicted, 1e-10)


def test_weights_between_terms_count():
    """Two terms with different N and w are one weighted least-squares problem."""
    one, x, y = least_squares()
    residual, points = one.term("data").residual, one.term("data").points
    terms = [
        Term("a", residual, points[:4], weight=3.0),
        Term("b", residual, points[4:]),
    ]
    objective = Objective(
        one.network,
        terms,
        space=Space(coordinates=one.coordinates, evaluate=one.fields),
    )
    w = np.repeat([3.0 / 4, 1.0 / 8], [4, 8])
    normal = x.T @ (w[:, None] * x)
    theta = linalg.solve(normal, x.T @ (w * y))
    objective.parameters.assign(torch.as_tensor(theta))
    targets = torch.cat([torch.eye(3), torch.zeros(3, 1)], 1).double()
    found = Influence(objective, damping=0.0).attribute(Output(targets)).values
    oracles.close(found, linalg.solve(normal, x.T * w * (x @ theta - y)), 1e-10)
    leverage = w * np.einsum("ij,jk,ik->i", x, linalg.inv(normal), x)
    for i in (0, 9):
        left = w * (np.arange(12) != i)
        new = linalg.solve(x.T @ (left[:, None] * x), x.T @ (left * y))
        oracles.close(new - theta, found[:, i] / (1 - leverage[i]), 1e-10)


# --- retraining a PINN -------------------------------------------------------------------------


def with_ridge(n, widths, strength):
    """Hard-constrained Burgers with a term √strength·θ, which makes the optimum isolated."""
    case = oracles.burgers_hard(n=n, widths=widths)
    network = case.objective.network

    def ridge(tensors, z):
        theta = torch.cat(
            [tensors[n].reshape(-1) for n, _ in network.named_parameters()]
        )
        return strength**0.5 * theta.unsqueeze(0) + 0 * z[:, :1]

    pde = case.objective.term("pde")
    return Objective(
        network,
        [pde, Term("ridge", ridge, pde.points[:1])],
        space=Space(
            coordinates=("x", "t"), outputs=("u",), evaluate=case.objective.fields
        ),
    )


def newton(loss, theta, steps):
    """Minimise by Newton steps on |H| with a backtracking line search."""
    gradient, hessian = torch.func.grad(loss), torch.func.hessian(loss)
    for _ in range(steps):
        g = gradient(theta)
        if g.norm() < 1e-14:
            break
        values, vectors = torch.linalg.eigh(hessian(theta))
        step = -vectors @ ((vectors.T @ g) / values.abs().clamp_min(1e-8))
        size, here, floor = 1.0, loss(theta), 1e-14
        while loss(theta + size * step) > here + floor and size > 1e-6:
            size /= 2
        theta = theta + size * step
    return theta.detach()


@pytest.fixture(scope="module", name="trained")
def _trained():
    objective = with_ridge(n=30, widths=(2, 8, 1), strength=1e-4)

    def loss(theta):
        return objective.loss(objective.parameters.substituted(theta))

    theta = newton(loss, objective.parameters.vector(), 150)
    assert torch.func.grad(loss)(theta).norm() < 1e-12
    assert torch.linalg.eigvalsh(torch.func.hessian(loss)(theta))[0] > 1e-6
    objective.parameters.assign(theta)
    return objective, loss


@pytest.mark.parametrize("i", [0, 11, 29])
def test_retraining_with_another_weight_of_a_point(trained, i):
    """The error of the prediction falls as the square of the change of weight."""
    objective, loss = trained
    theta = objective.parameters.vector()
    targets = torch.tensor([[0.3, 0.5], [-0.6, 0.9]]).double()
    asked = Influence(objective, damping=0.0, curvature="hessian")
    predicted = asked.attribute(Output(targets)).sel(term="pde").values[:, i]
    assert asked.state().spectrum.negative_eigenvalues == 0

    term = objective.term("pde")
    output = objective.fields(("u",))

    def at(theta):
        return output(objective.parameters.substituted(theta), targets)[:, 0]

    errors = []
    steps = np.array([0.2, 0.1, 0.05, 0.025])
    for epsilon in steps:

        def reweighted(theta, epsilon=epsilon):
            tensors = objective.parameters.substituted(theta)
            own = term.residual(tensors, term.points[i : i + 1]).square().sum()
            return loss(theta) - epsilon * own / len(term.points)

        new = newton(reweighted, theta, 12)
        assert torch.func.grad(reweighted)(new).norm() < 1e-11
        real = (at(new) - at(theta)).numpy()
        assert np.abs(real).max() > 1e-7
        errors.append(np.linalg.norm(real - epsilon * predicted))
    slopes = np.diff(np.log(errors)) / np.diff(np.log(steps))
    assert abs(slopes[-1] - 2) < 0.15, (slopes, errors)


# --- errors ------------------------------------------------------------------------------------


def test_errors_name_what_was_given(soft):
    targets = Output(oracles.target_points(soft))
    with pytest.raises(
        ValueError, match=r"unknown curvature 'hesian' \(did you mean 'hessian'\?"
    ):
        Influence(soft.objective, curvature="hesian")
    with pytest.raises(
        ValueError, match="damping must be zero or a positive number, got -1"
    ):
        Influence(soft.objective, damping=-1.0)
    asked = influence(soft)
    for method in (asked.attribute, asked.attribute_sum, asked.attribute_blocks):
        with pytest.raises(
            ValueError, match=r"unknown effect 'removal' \(did you mean 'remove'"
        ):
            list(method(targets, effect="removal"))
        with pytest.raises(
            ValueError, match=r"terms pde, initial, periodic: give points by term"
        ):
            list(method(targets, torch.zeros(2, 2).double()))
        with pytest.raises(
            ValueError, match=r"unknown term 'pd' \(did you mean 'pde'\?\)"
        ):
            list(method(targets, {"pd": torch.zeros(2, 2).double()}))
        with pytest.raises(ValueError, match=r"shape \(n, 2\)"):
            list(method(targets, {"pde": torch.zeros(2, 3).double()}))
    with pytest.raises(ValueError, match="block must be a positive integer"):
        next(asked.attribute_blocks(targets, block=0))
    flow = SMALL["flow"]()
    with pytest.raises(ValueError, match="name one"):
        influence(flow).attribute(Output(oracles.target_points(flow)))


def test_memory_budget_is_an_error_before_any_work(soft):
    asked = influence(soft, solver=Exact(memory_budget=1000))
    with pytest.raises(MemoryError, match="select fewer"):
        asked.attribute(Output(oracles.target_points(soft)))


def test_solve_is_the_damped_inverse(soft):
    right = torch.randn(337, 2, generator=torch.Generator().manual_seed(0)).double()
    matrix = oracles.gauss_newton(soft)
    matrix += 1e-2 * linalg.eigvalsh(matrix)[-1] * np.eye(337)
    found = influence(soft, 1e-2).solve(right).value
    oracles.close(found, linalg.solve(matrix, right.numpy()), 1e-10)


def test_a_matrix_above_the_memory_budget_is_refused_before_any_work():
    objective = SMALL["hard"]().objective
    points = next(iter(objective.terms.values())).points
    influence = Influence(objective, memory_budget=8 * len(points) * 3)
    with pytest.raises(
        MemoryError, match=r"above the memory budget of .*attribute_blocks"
    ):
        influence.attribute(Output(points))
