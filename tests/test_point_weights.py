"""Weights of points against an objective with a term for each point, which needs none."""

from dataclasses import replace

import numpy as np
import oracles
import pytest
import torch

import whence as wh
from whence import subsets
from whence.curvature.lissa import batched
from whence.curvature.operators import GaussNewtonMatrix, Hessian
from whence.evaluation.leaving_out import leave_out
from whence.evaluator import Remembering
from whence.jacobian import Jacobian
from whence.losses import Squared
from whence.ntk import TangentKernel
from whence.objective import Objective
from whence.refits import refit

DAMPING = 1e-4
TOLERANCE = 1e-10


def weighted(case, seed=0, least=0.0):
    """The case's objective with weights of points; one of several terms has none."""
    generator = torch.Generator().manual_seed(seed)
    terms = list(case.objective.terms.values())
    for k, term in enumerate(terms[:-1] or terms):
        each = 2 * torch.rand(
            len(term.points), generator=generator, dtype=torch.float64
        )
        each[1] = least
        terms[k] = replace(term, point_weights=each)
    return case.objective.with_terms(terms)


def one_by_one(objective):
    """The same sum, as a term for each point with the weight w·m/N."""
    terms = []
    for name, term in objective.terms.items():
        each = term.point_weights
        each = torch.ones(len(term.points)) if each is None else each
        for i, (point, m) in enumerate(zip(term.points, each, strict=True)):
            weight = term.weight * float(m) / len(term.points)
            terms.append(
                replace(
                    term,
                    name=f"{name}/{i}",
                    points=point[None],
                    weight=weight,
                    point_weights=None,
                )
            )
    return Objective(
        objective.network,
        terms,
        select=objective.parameters.names,
        space=objective.space,
    )


SMALL = {
    "hard": lambda: oracles.burgers_hard(widths=(2, 6, 6, 1)),
    "soft": lambda: oracles.burgers_soft(widths=(2, 6, 6, 1)),
    "flow": lambda: oracles.navier_stokes(widths=(2, 5, 5, 3)),
}


@pytest.fixture(name="pair", scope="module", params=SMALL)
def _pair(request):
    case = SMALL[request.param]()
    objective = weighted(case)
    return objective, one_by_one(objective), case


@pytest.fixture(name="soft", scope="module")
def _soft():
    objective = weighted(SMALL["soft"]())
    return objective, one_by_one(objective)


def test_loss_and_gradient(pair):
    objective, single, _ = pair
    oracles.close(objective.loss().detach(), single.loss().detach(), 1e-13)
    loss, gradient = objective.loss_and_gradient()
    expected = single.loss_and_gradient()
    assert loss == pytest.approx(expected[0], rel=1e-13)
    oracles.close(gradient, expected[1], 1e-12)
    loss, gradient = objective.with_evaluator(Remembering()).loss_and_gradient()
    assert loss == pytest.approx(expected[0], rel=1e-13)
    oracles.close(gradient, expected[1], 1e-12)


def test_the_loss_by_hand(pair):
    objective, _, case = pair
    total, gradient = 0.0, 0.0
    for name, term in objective.terms.items():
        rows, values = oracles.point_jacobians(case, case.residuals[name], term.points)
        m = (
            np.ones(len(rows))
            if term.point_weights is None
            else term.point_weights.numpy()
        )
        factor = term.weight / len(rows) * m
        total += factor @ (values**2).sum(1)
        gradient = gradient + 2 * np.einsum("n,nmp,nm->p", factor, rows, values)
    assert float(objective.loss()) == pytest.approx(total, rel=1e-12)
    oracles.close(objective.loss_and_gradient()[1], gradient, 1e-11)


def test_gradients_of_terms_leave_out_the_weight_of_the_term_alone(soft):
    objective, single = soft
    weights = {n: t.weight for n, t in objective.terms.items()}
    for name, (loss, gradient) in objective.term_gradients().items():
        own = [t for n, t in single.terms.items() if n.startswith(f"{name}/")]
        expected = single.with_terms(own).loss_and_gradient()
        assert weights[name] * float(loss) == pytest.approx(expected[0], rel=1e-12)
        oracles.close(weights[name] * gradient, expected[1], 1e-12)


def test_the_unweighted_losses_stay_as_they_were(soft):
    objective, _ = soft
    plain = SMALL["soft"]().objective
    for name, loss in objective.losses().items():
        assert float(loss) == pytest.approx(float(plain.losses()[name]), rel=1e-14)


def test_jacobian_and_kernel(pair):
    objective, single, _ = pair
    jacobian, other = Jacobian(objective, scaled=True), Jacobian(single, scaled=True)
    rows, right = jacobian.system()
    expected, expected_right = other.system()
    oracles.close(rows, expected, 1e-12)
    oracles.close(right, expected_right, 1e-12)
    oracles.close(rows.T @ rows, GaussNewtonMatrix(objective).dense(), 1e-12)
    oracles.close(rows.T @ rows, GaussNewtonMatrix(single).dense(), 1e-12)
    oracles.close(rows.T @ right, objective.loss_and_gradient()[1], 1e-12)
    vector = torch.linspace(-1, 1, rows.shape[1], dtype=torch.float64)
    oracles.close(jacobian.matvec(vector), expected @ vector, 1e-11)
    oracles.close(jacobian.rmatvec(right), expected.T @ expected_right, 1e-12)
    oracles.close(
        jacobian.normal_product(vector[:, None]),
        rows.T @ (rows @ vector[:, None]),
        1e-12,
    )
    oracles.close(jacobian.row_norms(), expected.norm(dim=1), 1e-12)
    oracles.close(Jacobian(objective, scaled=True, chunk=2).dense(), expected, 1e-12)
    kernel = TangentKernel(objective)
    oracles.close(kernel.gram, expected @ expected.T, 1e-11)
    oracles.close(kernel.right, expected_right, 1e-12)


def test_unscaled_rows_and_traces_know_no_weights(soft):
    objective, _ = soft
    plain = SMALL["soft"]().objective
    assert torch.equal(Jacobian(objective).dense(), Jacobian(plain).dense())
    assert Jacobian(objective).traces() == Jacobian(plain).traces()


def test_hessian(pair):
    objective, single, _ = pair
    found, expected = Hessian(objective), Hessian(single)
    oracles.close(found.dense(), expected.dense(), TOLERANCE)
    vectors = torch.randn(
        found.size, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64
    )
    oracles.close(found.matmat(vectors), expected.dense() @ vectors, TOLERANCE)


QUANTITIES = {
    "output": lambda: wh.Output(oracles.uniform(3, (0, 0), (1, 1), seed=7)),
    "many outputs": lambda: wh.Output(oracles.uniform(25, (0, 0), (1, 1), seed=7)),
}
METHODS = {
    "influence": lambda o: wh.Influence(o, damping=DAMPING),
    "primal": lambda o: wh.Influence(
        o, damping=DAMPING, solver=wh.Exact(form="primal")
    ),
    "dual": lambda o: wh.Influence(o, damping=DAMPING, solver=wh.Exact(form="dual")),
    "hessian": lambda o: wh.Influence(o, damping=1e-2, curvature="hessian"),
    "TracIn": lambda o: wh.TracIn(o, [o.network.state_dict()], [0.5]),
    "GradDot": lambda o: wh.GradDot(o),
    "GradCos": lambda o: wh.GradCos(o),
    "EmpiricalInfluence": lambda o: wh.EmpiricalInfluence(o),
    "EmpiricalInfluence random": lambda o: wh.EmpiricalInfluence(o, directions=4),
}


@pytest.mark.filterwarnings("ignore::whence.attribution.quality.FarFromMinimum")
@pytest.mark.parametrize("effect", ["remove", "add"])
@pytest.mark.parametrize("quantity", QUANTITIES)
@pytest.mark.parametrize("method", METHODS)
def test_attributions(soft, method, quantity, effect):
    found, expected = (
        METHODS[method](o).attribute(QUANTITIES[quantity](), effect=effect).values
        for o in soft
    )
    oracles.close(found, expected, TOLERANCE)


@pytest.mark.filterwarnings("ignore::whence.attribution.quality.FarFromMinimum")
@pytest.mark.parametrize("method", METHODS)
def test_self_influence(method):
    objective = weighted(SMALL["soft"](), least=0.1)
    both = objective, one_by_one(objective)
    found, expected = (METHODS[method](o).self_influence().values for o in both)
    oracles.close(found, expected, TOLERANCE)


@pytest.mark.filterwarnings("ignore::whence.attribution.quality.FarFromMinimum")
def test_points_that_are_not_in_training_weigh_as_much_as_one_of_weight_one(soft):
    objective, _ = soft
    influence = wh.Influence(objective, damping=DAMPING)
    quantity, term = QUANTITIES["output"](), objective.term("pde")
    everywhere = influence.attribute(quantity).sel(term="pde").values
    alone = influence.attribute(quantity, {"pde": term.points.clone()}).values
    oracles.close(everywhere, alone * term.point_weights.numpy(), TOLERANCE)


GROUP = {"pde": [0, 1, 4], "initial": [2]}


def by_name(chosen):
    return {f"{name}/{i}": [0] for name, indices in chosen.items() for i in indices}


def test_points_left_out_or_kept(soft):
    objective, single = soft
    for make in (
        lambda o, chosen: wh.drop_points(o, chosen),
        lambda o, chosen: subsets.keep_points(o, subsets.members(o, "these", chosen)),
    ):
        found, expected = make(objective, GROUP), make(single, by_name(GROUP))
        assert found.n_points == expected.n_points
        oracles.close(found.loss().detach(), expected.loss().detach(), 1e-12)
        oracles.close(
            found.loss_and_gradient()[1], expected.loss_and_gradient()[1], 1e-12
        )
        rows = Jacobian(found, scaled=True).dense()
        oracles.close(rows, Jacobian(expected, scaled=True).dense(), 1e-12)


@pytest.mark.parametrize("method", ["exact", "first_order"])
def test_groups(soft, method):
    def effects(objective, chosen):
        influence = wh.Influence(objective, damping=DAMPING)
        quantity = QUANTITIES["output"]()
        return wh.group_influence(influence, quantity, {"a": chosen}, method).values

    oracles.close(effects(soft[0], GROUP), effects(soft[1], by_name(GROUP)), TOLERANCE)


@pytest.mark.parametrize("measure", [wh.leverage, wh.cooks_distance])
def test_leverage_and_distance(soft, measure):
    found, expected = (measure(wh.Influence(o, damping=1e-2)).values for o in soft)
    oracles.close(found, expected, TOLERANCE)


def test_batches_keep_the_weights_of_their_points(soft):
    """Over a pass batches have the curvature of all on average: points weigh what they did."""
    objective, _ = soft
    operator = GaussNewtonMatrix(weighted(oracles.burgers_hard(n=12, widths=(2, 6, 1))))
    batches = batched(operator, 4, seed=0)
    mean = sum(next(batches).dense() for _ in range(3)) / 3
    oracles.close(mean, operator.dense(), 1e-12)
    indices = {"pde": torch.tensor([3, 0]), "initial": torch.tensor([1])}
    held = operator.subset({"pde": indices["pde"]}).objective.term("pde")
    assert torch.equal(
        held.point_weights, operator.objective.term("pde").point_weights[[3, 0]]
    )
    fewer = objective.subset(indices)
    assert torch.equal(
        fewer.term("initial").point_weights,
        objective.term("initial").point_weights[[1]],
    )


@pytest.mark.filterwarnings("ignore::whence.attribution.quality.FarFromMinimum")
@pytest.mark.parametrize("batch", [None, 8])
def test_lissa(batch):
    """A batch of as many points as there are is drawn in another order each time."""
    objective = weighted(oracles.burgers_hard(n=8, widths=(2, 4, 1)))
    quantity = QUANTITIES["output"]()
    expected = (
        wh.Influence(one_by_one(objective), damping=0.2).attribute(quantity).values
    )
    solver = wh.LiSSA(iterations=200, batch=batch, tolerance=1e-13)
    found = (
        wh.Influence(objective, damping=0.2, solver=solver).attribute(quantity).values
    )
    oracles.close(found, expected, TOLERANCE)


@pytest.mark.filterwarnings("ignore::whence.attribution.quality.FarFromMinimum")
@pytest.mark.parametrize(
    "solver", [wh.ConjugateGradient(), wh.Nystrom(rank=61), wh.Arnoldi(rank=61)],
    ids=lambda solver: solver.name,
)  # fmt: skip
def test_solvers_that_go_through_products(soft, solver):
    found, expected = (
        wh.Influence(o, damping=1e-2, solver=s).attribute(QUANTITIES["output"]()).values
        for o, s in zip(soft, (solver, wh.Exact()), strict=True)
    )
    oracles.close(found, expected, 1e-7)


def test_refits(soft):
    objective, single = soft
    one, other = (refit(o, steps=8, anchor=1e-3) for o in soft)
    assert one.steps == other.steps == 8
    oracles.close(one.theta, other.theta, 1e-8)
    assert one.loss == pytest.approx(other.loss, rel=TOLERANCE)
    one, other = (refit(o, steps=1) for o in soft)
    oracles.close(one.theta, other.theta, TOLERANCE)

    def changes(objective, chosen):
        options = {"steps": 2, "anchor": 1e-2}
        return leave_out(
            objective, QUANTITIES["output"](), {"a": chosen}, **options
        ).values

    oracles.close(changes(objective, GROUP), changes(single, by_name(GROUP)), 1e-9)


def test_other_losses_and_a_selection_of_parameters():
    case = oracles.burgers_soft(widths=(2, 6, 6, 1), select="2.*")
    terms = [replace(t, loss=Squared(0.3)) for t in weighted(case).terms.values()]
    objective = case.objective.with_terms(terms)
    single = one_by_one(objective)
    oracles.close(
        objective.loss_and_gradient()[1], single.loss_and_gradient()[1], 1e-12
    )
    oracles.close(Hessian(objective).dense(), Hessian(single).dense(), TOLERANCE)


def test_many_points_in_blocks(monkeypatch):
    monkeypatch.setattr("whence.points.MAX_EVALUATED", 4)
    monkeypatch.setattr("whence.evaluator.MAX_EVALUATED", 4)
    objective = weighted(oracles.burgers_hard(n=19, widths=(2, 6, 1)))
    single = one_by_one(objective)
    oracles.close(
        objective.loss_and_gradient()[1], single.loss_and_gradient()[1], 1e-12
    )
    oracles.close(objective.loss().detach(), single.loss().detach(), 1e-12)


# --- an objective with other weights ------------------------------------------------------------


def test_weights_given_as_a_tensor_are_those_of_points():
    objective = SMALL["soft"]().objective
    each = torch.linspace(0, 2, 9, dtype=torch.float64)
    found = objective.with_weights({"pde": each, "initial": 3.0})
    assert (found.term("pde").weight, found.term("initial").weight) == (1.0, 3.0)
    assert torch.equal(found.term("pde").point_weights, each)
    assert objective.term("pde").point_weights is None
    assert found.with_weights({"pde": 2.0}).term("pde").point_weights is None
    ones = objective.with_weights({"pde": torch.ones(9).double()})
    assert float(ones.loss()) == pytest.approx(float(objective.loss()), rel=1e-15)
    fresh = found.with_points({"pde": oracles.uniform(3, (-1, 0), (1, 1))})
    assert fresh.term("pde").point_weights is None


@pytest.mark.parametrize(
    ("each", "message"),
    [
        (
            torch.ones(8),
            r"must be a tensor of shape \(9,\), got Tensor of shape \(8,\)",
        ),
        (torch.ones(9, 1), r"must be a tensor of shape \(9,\)"),
        ([1.0] * 9, r"must be a tensor of shape \(9,\)"),
        (torch.full((9,), -1.0), "not negative: 9 of 9 are not, the first is number 0"),
        (
            torch.tensor([1.0] * 8 + [float("nan")]),
            "1 of 9 are not, the first is number 8",
        ),
    ],
)
def test_what_are_no_weights_of_points_is_refused(each, message):
    term = SMALL["soft"]().objective.term("pde")
    with pytest.raises(
        ValueError, match=f"the point weights of term 'pde' .*{message}"
    ):
        replace(term, point_weights=each)
