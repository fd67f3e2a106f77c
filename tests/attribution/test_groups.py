import numpy as np
import oracles
import pytest
import torch
import xarray as xr
from scipy import linalg
from torch import nn
from torch.func import functional_call

from whence.attribution import solved_rows as module
from whence.attribution.groups import group_influence
from whence.attribution.influence import Influence
from whence.attribution.leverage import cooks_distance, leverage
from whence.attribution.quantities import Loss, Output
from whence.curvature.exact import Exact
from whence.curvature.solvers import Damping, Solution
from whence.curvature.spectrum import Spectrum
from whence.evaluation.leaving_out import leave_out
from whence.objective import Objective
from whence.refits import refit
from whence.space import Space
from whence.subsets import drop_points, members
from whence.term import Term

SIZES = {"data": 9, "first": 7, "both": 6}
WEIGHTS = {"data": 3.0, "first": 0.5, "both": 1.0}


class Linear:
    """Linear least squares of three terms, one of two components, and the same in NumPy.

    Points are (x0, x1, y0, y1); θ is the weight (2, 2), row by row, and the bias.
    """

    def __init__(self, minimum=True):
        generator = torch.Generator().manual_seed(3)
        self.network = nn.Linear(2, 2).double()

        def data(tensors, z):
            return functional_call(self.network, tensors, (z[:, :2],)) - z[:, 2:]

        def first(tensors, z):
            return data(tensors, z)[:, :1]

        def both(tensors, z):
            return data(tensors, z).sum(1, keepdim=True)

        points = {
            n: torch.randn(k, 4, generator=generator).double() for n, k in SIZES.items()
        }
        functions = {"data": data, "first": first, "both": both}
        self.objective = Objective(
            self.network,
            [Term(n, functions[n], points[n], weight=WEIGHTS[n]) for n in SIZES],
            space=Space(
                coordinates=("x0", "x1", "y0", "y1"),
                outputs=("a", "b"),
                evaluate=lambda names: (
                    lambda tensors, z: functional_call(
                        self.network, tensors, (z[:, :2],)
                    )[:, [("a", "b").index(n) for n in names]]
                ),
            ),
        )
        mixed = {"data": np.eye(2), "first": np.eye(2)[:1], "both": np.ones((1, 2))}
        rows, right, owner = [], [], []
        for name, given in points.items():
            z, mix = given.numpy(), mixed[name]
            for i in range(len(z)):
                scale = np.sqrt(2 * WEIGHTS[name] / SIZES[name])
                design = np.hstack([np.kron(np.eye(2), z[i, :2]), np.eye(2)])
                rows.append(scale * mix @ design)
                right.append(scale * mix @ z[i, 2:])
                owner += [(name, i)] * len(mix)
        self.rows, self.right, self.owner = (
            np.vstack(rows),
            np.concatenate(right),
            owner,
        )
        start = torch.randn(6, generator=generator).double()
        self.theta = self.fit() if minimum else start.numpy()
        self.objective.parameters.assign(torch.as_tensor(self.theta))

    def kept(self, removed):
        return np.array([i not in removed.get(n, ()) for n, i in self.owner])

    def fit(self, removed=(), ridge=0.0, center=None):
        """Minimise ½‖Jθ − t‖² + ridge/2 ‖θ − center‖² over the rows that stay."""
        keep = self.kept(dict(removed))
        rows, right = self.rows[keep], self.right[keep]
        if ridge:
            rows = np.vstack([rows, np.sqrt(ridge) * np.eye(6)])
            right = np.concatenate([right, np.sqrt(ridge) * center])
        return np.linalg.lstsq(rows, right, rcond=None)[0]


GROUPS = {
    "one point": {"data": [4]},
    "two terms": {"first": [0, 6], "data": [1, 8, 3]},
    "a whole term": {"both": range(6)},
    "all kinds": {"both": [5], "data": [0, 2], "first": [2, 3, 4]},
}
TARGETS = torch.tensor(
    [[0.5, -1.0, 0, 0], [2.0, 0.3, 0, 0], [-1.0, -1.0, 0, 0]]
).double()
AT_TARGETS = np.hstack(
    [TARGETS[:, :2].numpy(), np.zeros((3, 2)), np.ones((3, 1)), np.zeros((3, 1))]
)
"""Output a is θ·(x0, x1, 0, 0, 1, 0)."""


def everything(objective):
    return {n: np.arange(len(t.points)) for n, t in objective.terms.items()}


# --- against refitting -------------------------------------------------------------------------


@pytest.mark.parametrize("minimum", [True, False])
def test_exact_removal_is_the_refit_of_linear_least_squares(minimum):
    """From anywhere: away from the minimum it is the change of the minimum."""
    case = Linear(minimum)
    found = group_influence(
        Influence(case.objective, damping=0.0), Output(TARGETS, "a"), GROUPS
    )
    assert found.dims == ("target", "group")
    assert found.group.values.tolist() == list(GROUPS)
    assert found["size"].values.tolist() == [1, 5, 6, 6]
    whole = case.fit()
    refits = np.stack([case.fit(g) - whole for g in GROUPS.values()], axis=1)
    oracles.close(found.values, AT_TARGETS @ refits, 1e-10)


@pytest.mark.parametrize("form", ["primal", "dual"])
@pytest.mark.parametrize("minimum", [True, False])
def test_with_damping_it_is_the_refit_held_to_where_it_was(minimum, form):
    case, ridge = Linear(minimum), 0.3
    influence = Influence(
        case.objective, damping=Damping(ridge, relative=False), solver=Exact(form=form)
    )
    found = group_influence(influence, Output(TARGETS, "a"), GROUPS)
    whole = case.fit(ridge=ridge, center=case.theta)
    refits = [
        case.fit(g, ridge=ridge, center=case.theta) - whole for g in GROUPS.values()
    ]
    oracles.close(found.values, AT_TARGETS @ np.stack(refits, axis=1), 1e-10)


def test_single_points_are_the_closed_form_of_leave_one_out():
    """Of one component: the influence over 1 − h."""
    case = Linear()
    influence = Influence(case.objective, damping=0.0)
    singles = {f"{n}{i}": {n: [i]} for n in ("first", "both") for i in range(SIZES[n])}
    found = group_influence(influence, Output(TARGETS, "a"), singles)
    first_order = influence.attribute(Output(TARGETS, "a")).values[:, SIZES["data"] :]
    hat = case.rows @ np.linalg.inv(case.rows.T @ case.rows) @ case.rows.T
    oracles.close(
        found.values, first_order / (1 - np.diag(hat)[2 * SIZES["data"] :]), 1e-10
    )


@pytest.mark.filterwarnings("ignore:The network is far from a minimum")
@pytest.mark.parametrize("damping", [0.0, 1e-3])
def test_first_order_is_the_sum_of_influences(damping):
    case = Linear(minimum=False)
    influence = Influence(case.objective, damping=damping)
    found = group_influence(
        influence, Output(TARGETS, "b"), GROUPS, method="first_order"
    )
    each = influence.attribute(Output(TARGETS, "b"))
    for name, group in GROUPS.items():
        chosen = [
            i
            for i, (t, k) in enumerate(
                zip(each.term.values, each["index"].values, strict=True)
            )
            if k in group.get(t, ())
        ]
        oracles.close(found.sel(group=name), each.values[:, chosen].sum(1), 1e-12)
    exact = group_influence(influence, Output(TARGETS, "b"), GROUPS)
    assert np.abs(exact - found).max() > 0.1 * np.abs(found).max()


def test_first_order_and_exact_agree_for_small_weights():
    """Their difference falls with the weight of the term squared, as it should."""
    case, differences = Linear(), []
    for weight in (1e-3, 1e-4):
        objective = case.objective.with_weights({"both": weight})
        objective.parameters.assign(refit(objective).theta)
        influence = Influence(objective, damping=0.0)
        exact, first = (
            group_influence(
                influence, Output(TARGETS, "a"), {"g": {"both": [1, 4]}}, method=method
            )
            for method in ("exact", "first_order")
        )
        differences.append(float(np.abs(exact - first).max()))
    assert 50 < differences[0] / differences[1] < 200


def test_any_quantity_and_any_loss():
    """A quadratic loss of other scale is other weights; Loss() has targets at every point."""

    class Doubled:
        is_convex = spans = True

        def value(self, r, y=None):
            return 2 * r.square().sum(-1)

        def gradient(self, r, y=None):
            return 4 * r

        def curvature_root(self, r, y=None):
            m = r.shape[1]
            return (2 * torch.eye(m, dtype=r.dtype)).expand(len(r), m, m)

        def whitened_gradient(self, r, y=None):
            return 2 * r

    case = Linear()
    half = case.objective.with_weights({n: w / 2 for n, w in WEIGHTS.items()})
    terms = [
        Term(t.name, t.residual, t.points, weight=t.weight, loss=Doubled())
        for t in half.terms.values()
    ]
    same = Objective(
        case.network,
        terms,
        space=Space(coordinates=("x0", "x1", "y0", "y1"), outputs=("a", "b")),
    )
    expected = group_influence(Influence(case.objective, damping=1e-2), Loss(), GROUPS)
    found = group_influence(Influence(same, damping=1e-2), Loss(), GROUPS)
    assert found.shape == (sum(SIZES.values()), len(GROUPS))
    oracles.close(found, 2 * expected.values, 1e-10)


def test_a_small_pinn_against_refits_held_to_where_it_was():
    case = oracles.burgers_soft(n=40, widths=(2, 6, 1))
    objective = case.objective
    objective.parameters.assign(refit(objective, steps=60).theta)
    influence = Influence(objective, damping=1e-3)
    rng = np.random.default_rng(0)
    chosen = {f"g{k}": {"pde": rng.choice(40, 8, replace=False)} for k in range(6)}
    chosen["edge"] = {"initial": [0, 1], "periodic": [2]}
    output = Output(oracles.target_points(case, 8))
    anchor = influence.state().spectrum.damping
    actual = leave_out(objective, output, chosen, anchor=anchor).values
    exact, first = (
        group_influence(influence, output, chosen, method=m).values
        for m in ("exact", "first_order")
    )
    error, baseline = (
        np.linalg.norm(p - actual) / np.linalg.norm(actual) for p in (exact, first)
    )
    assert error < 0.1
    assert error < 0.3 * baseline


def test_any_solver_will_do_and_what_it_says_is_reported():
    class Inverse:
        name = "inverse"

        def factor(self, operator, damping):
            self.spectrum = Spectrum(damping=damping.value, largest_eigenvalue=1.0)
            self.inverse = torch.linalg.inv(operator.dense())
            return self

        def solve(self, right):
            return Solution(self.inverse @ right, 1e-9, False, 1, "far too slow")

    case = Linear()
    expected = group_influence(Influence(case.objective, damping=0.0), Loss(), GROUPS)
    found = group_influence(
        Influence(case.objective, damping=0.0, solver=Inverse()), Loss(), GROUPS
    )
    oracles.close(found, expected, 1e-10)
    assert (found.attrs["solver"], found.attrs["solver_residual"]) == ("inverse", 1e-9)
    assert (found.attrs["solver_converged"], found.attrs["solver_message"]) == (
        0,
        "far too slow",
    )
    assert (expected.attrs["solver_converged"], expected.attrs["model"]) == (1, "exact")
    assert expected.attrs["method"] == "group_influence"
    assert expected.attrs["damping"] == 0.0
    assert expected.attrs["loss"] == pytest.approx(float(case.objective.loss()))


def test_blocks_change_nothing(monkeypatch):
    case = Linear()

    def all_three():
        influence = Influence(case.objective, damping=1e-6)
        found = group_influence(influence, Output(TARGETS, "a"), GROUPS)
        return (
            found.values,
            leverage(influence).values,
            cooks_distance(influence).values,
        )

    expected = all_three()
    monkeypatch.setattr(module, "MAX_ROW_BYTES", 8 * module.COPIES * 6 * 2)
    for found, same in zip(all_three(), expected, strict=True):
        oracles.close(found, same, 1e-12)


# --- leverage and Cook's distance --------------------------------------------------------------


@pytest.mark.parametrize(
    ("form", "ridge"), [("primal", 0.0), ("primal", 0.2), ("dual", 0.2)]
)
def test_leverage_is_the_diagonal_of_the_hat_matrix(form, ridge):
    case = Linear()
    damping = Damping(ridge, relative=False)
    found = leverage(
        Influence(case.objective, damping=damping, solver=Exact(form=form))
    )
    matrix = case.rows.T @ case.rows + ridge * np.eye(6)
    hat = np.diag(case.rows @ np.linalg.solve(matrix, case.rows.T))
    owners = list(dict.fromkeys(case.owner))
    expected = [
        sum(h for h, o in zip(hat, case.owner, strict=True) if o == own)
        for own in owners
    ]
    oracles.close(found, expected, 1e-10)
    assert found.attrs["effective_parameters"] == pytest.approx(hat.sum(), rel=1e-10)
    if not ridge:
        assert found.attrs["effective_parameters"] == pytest.approx(6, rel=1e-10)
    assert list(zip(found.term.values, found["index"].values, strict=True)) == owners
    points = torch.cat([t.points for t in case.objective.terms.values()]).numpy()
    assert np.array_equal(found.y1, points[:, 3])
    assert found.sel(term="both").sizes["point"] == SIZES["both"]


def test_cooks_distance_is_that_of_linear_regression():
    """e² h / (p s² (1 − h)²), Cook (1977), with s² the unbiased estimate."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(15, 3, generator=generator).double()
    y = torch.randn(15, 1, generator=generator).double()
    network = nn.Linear(3, 1, bias=False).double()

    def residual(tensors, z):
        return functional_call(network, tensors, (z[:, :3],)) - z[:, 3:]

    objective = Objective(
        network, Term("data", residual, torch.cat([x, y], 1), weight=0.7)
    )
    theta = torch.linalg.lstsq(x, y).solution
    objective.parameters.assign(theta[:, 0])
    e = (x @ theta - y)[:, 0].numpy()
    h = np.diag(x.numpy() @ np.linalg.pinv(x.numpy()))
    s2 = e @ e / (15 - 3)
    found = cooks_distance(Influence(objective, damping=0.0))
    oracles.close(found, e**2 * h / (3 * s2 * (1 - h) ** 2), 1e-10)
    assert found.attrs["effective_parameters"] == pytest.approx(3)
    objective.parameters.assign(theta[:, 0] + 1)  # the distance is one of minima
    oracles.close(cooks_distance(Influence(objective, damping=0.0)), found, 1e-9)


@pytest.mark.parametrize("ridge", [0.0, 0.2])
def test_cooks_distance_of_several_terms_by_refits(ridge):
    case = Linear()
    expected = []
    for owner in dict.fromkeys(case.owner):
        change = case.fit({owner[0]: [owner[1]]}, ridge, case.theta) - case.theta
        expected.append(np.square(case.rows @ change).sum())
    matrix = case.rows.T @ case.rows
    p = np.trace(matrix @ np.linalg.inv(matrix + ridge * np.eye(6)))
    s2 = np.square(case.rows @ case.theta - case.right).sum() / (len(case.rows) - p)
    found = cooks_distance(
        Influence(case.objective, damping=Damping(ridge, relative=False))
    )
    oracles.close(found, np.array(expected) / (p * s2), 1e-10)


@pytest.mark.parametrize("kind", ["groups", "leverage"])
def test_saved_and_read_back(kind, tmp_path):
    influence = Influence(Linear().objective, damping=1e-3)
    found = (
        leverage(influence)
        if kind == "leverage"
        else group_influence(influence, Output(TARGETS, "a"), GROUPS)
    )
    found.to_netcdf(tmp_path / "found.nc")
    with xr.open_dataarray(tmp_path / "found.nc") as read:
        assert np.array_equal(read, found)
        assert read.attrs["damping"] == found.attrs["damping"]
        for name in found.coords:
            assert read[name].values.tolist() == found[name].values.tolist()


# --- which points ------------------------------------------------------------------------------


def test_indices_masks_tensors_and_order_are_the_same_points():
    objective = Linear().objective
    mask = np.zeros(9, dtype=bool)
    mask[[1, 4]] = True
    for given in (
        [4, 1],
        (1, 4),
        np.array([4, 1]),
        torch.tensor([1, 4]),
        mask,
        torch.tensor(mask),
    ):
        found = members(objective, "it", {"first": [], "data": given})
        assert list(found) == ["data"]
        assert found["data"].tolist() == [1, 4]


def test_dropping_points_leaves_the_others_their_weight():
    case = Linear(minimum=False)
    removed = {"data": [0, 5], "first": [6], "both": range(6)}
    fewer = drop_points(case.objective, removed)
    assert list(fewer.terms) == ["data", "first"]
    assert [len(t.points) for t in fewer.terms.values()] == [7, 6]
    assert fewer.term("data").scale == pytest.approx(3.0 / 9, rel=1e-15)
    gone = 0.0
    for name, indices in removed.items():
        term = case.objective.term(name)
        residual = term.residual(
            case.objective.parameters.tensors(), term.points[list(indices)]
        )
        gone += WEIGHTS[name] / SIZES[name] * float(residual.detach().square().sum())
    whole, left = float(case.objective.loss()), float(fewer.loss())
    assert left == pytest.approx(whole - gone, rel=1e-13)
    assert gone > 0.1 * whole
    assert len(case.objective.term("data").points) == 9


# --- errors ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "error", "said"),
    [
        (
            {"data": [1, 3, 1]},
            ValueError,
            r"the group 'g', term 'data'.* got index 1 2 times",
        ),
        ({"data": [9]}, ValueError, r"must lie in 0 … 8, got 9"),
        ({"data": [-1]}, ValueError, r"must lie in 0 … 8, got -1"),
        ({"data": [True, False]}, ValueError, r"mask must have length 9, got 2"),
        ({"data": [0.5]}, TypeError, r"integers or booleans, got float64"),
        ({"data": [[1]]}, ValueError, r"a list or a vector"),
        ({"data": []}, ValueError, r"the group 'g' has no points"),
        ({}, ValueError, r"the group 'g' has no points"),
        ({"dta": [1]}, ValueError, r"unknown term 'dta' \(did you mean 'data'\?\)"),
        ([1, 2], ValueError, r"has terms data, first, both; give indices by term"),
    ],
)
def test_errors_of_groups_name_what_was_given(given, error, said):
    influence = Influence(Linear().objective)
    with pytest.raises(error, match=said):
        group_influence(
            influence, Output(TARGETS, "a"), {"fine": {"data": [1]}, "g": given}
        )


def test_errors_come_before_work():
    case = Linear()

    class Never:
        name = "never"

        def factor(self, operator, damping):
            raise AssertionError("work was done")

        def solve(self, right):
            raise AssertionError("work was done")

    lazy = Influence(case.objective, solver=Never())
    output = Output(TARGETS, "a")
    with pytest.raises(
        ValueError, match=r"unknown method 'exct' \(did you mean 'exact'"
    ):
        group_influence(lazy, output, GROUPS, method="exct")
    with pytest.raises(TypeError, match="must be a quantity"):
        group_influence(lazy, "loss", GROUPS)
    for given in ({}, [0, 1]):
        with pytest.raises(ValueError, match="groups must map names to points"):
            group_influence(lazy, output, given)
    hessian = Influence(case.objective, curvature="hessian", solver=Never())
    for ask in (leverage, cooks_distance, lambda i: group_influence(i, output, GROUPS)):
        with pytest.raises(
            ValueError, match=r"Gauss–Newton matrix, got .*curvature='hessian'"
        ):
            ask(hessian)
    tight = Influence(case.objective, solver=Never(), memory_budget=2000)
    with pytest.raises(
        MemoryError, match=r"of up to 8 rows .* above the memory budget"
    ):
        group_influence(tight, output, GROUPS)


def alone(small=1.0):
    """Points of which the last alone determines the second parameter."""
    x = [[1.0, 0.0, 1.1], [2.0, 0.0, 2.3], [3.0, 0.0, 2.8], [1.0, small, 0.5]]
    x = torch.tensor(x, dtype=torch.float64)
    network = nn.Linear(2, 1, bias=False).double()

    def residual(tensors, z):
        return functional_call(network, tensors, (z[:, :2],)) - z[:, 2:]

    objective = Objective(
        network,
        Term("data", residual, x),
        space=Space(
            evaluate=lambda names: (
                lambda tensors, z: functional_call(network, tensors, (z[:, :2],))
            )
        ),
    )
    objective.parameters.assign(refit(objective).theta)
    return objective


@pytest.mark.parametrize("small", [1.0, 1e-2, 1e-4, 1e-5])
def test_removing_what_nothing_else_determines_is_an_error_that_says_so(small):
    """However little it determines it by."""
    objective = alone(small)
    output = Output(objective.term("data").points, "output")
    exactly = Influence(objective, damping=0.0)
    assert leverage(exactly).values[-1] == pytest.approx(1, abs=1e-5)
    said = (
        r"removing the group 'last' .* raise the damping, or use method='first_order'"
    )
    with pytest.raises(ValueError, match=said):
        group_influence(exactly, output, {"fine": [0, 1], "last": [2, 3]})
    with pytest.raises(
        ValueError, match=r"removing point 3 of term 'data' .* raise the damping"
    ):
        cooks_distance(exactly)
    assert np.isfinite(group_influence(exactly, output, {"fine": [0, 1]})).all()
    for influence, method in (
        (exactly, "first_order"),
        (Influence(objective, damping=1e-3), "exact"),
    ):
        assert np.isfinite(
            group_influence(influence, output, {"last": [3]}, method)
        ).all()


def test_cooks_distance_without_anything_to_compare_with():
    objective = alone()
    two = drop_points(objective, [0, 1])
    with pytest.raises(ValueError, match=r"no other point determines"):
        cooks_distance(Influence(two, damping=0.0))
    consistent = objective.with_points(
        {"data": torch.tensor([[1.0, 0, 0], [0, 1, 0], [1, 1, 0], [1, 2, 0]]).double()}
    )
    consistent.parameters.assign(torch.zeros(2).double())
    with pytest.raises(ValueError, match="all of them are zero"):
        cooks_distance(Influence(consistent, damping=0.0))


def test_wide_networks_have_fewer_residuals_than_parameters():
    case = oracles.burgers_hard(n=9)
    influence = Influence(case.objective, damping=1e-4)
    matrix = oracles.gauss_newton(case)
    damping = 1e-4 * linalg.eigvalsh(matrix)[-1]
    rows = oracles.jacobian(case, scaled=True)
    hat = rows @ oracles.inverse_times(matrix + damping * np.eye(len(matrix)), rows.T)
    oracles.close(leverage(influence), np.diag(hat), 1e-8)
