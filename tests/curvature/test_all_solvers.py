"""What every solver has in common, whatever it approximates."""

import warnings

import oracles
import pytest
import torch
from matrices import random

import whence as wh
from whence.curvature.operators import GaussNewtonMatrix
from whence.curvature.solvers import Damping

SOLVERS = {
    "exact, primal": wh.Exact("primal"),
    "exact, dual": wh.Exact("dual"),
    "conjugate gradients": wh.ConjugateGradient(rtol=1e-12),
    "conjugate gradients alone": wh.ConjugateGradient(rtol=1e-12, preconditioner=None),
    "conjugate gradients, streamed": wh.ConjugateGradient(
        rtol=1e-12, memory_budget=100_000
    ),
    "lissa": wh.LiSSA(50),
    "arnoldi": wh.Arnoldi(3),
    "nystrom": wh.Nystrom(3),
    "ekfac": wh.EKFAC(),
    "datainf": wh.DataInf(),
    "sketched": wh.Sketched(12),
    "auto": wh.Automatic(),
}
EACH = pytest.mark.parametrize("solver", SOLVERS.values(), ids=SOLVERS)


def solved(solver, objective, right, chunk=None):
    operator = GaussNewtonMatrix(objective, chunk=chunk)
    return solver.factor(operator, Damping(1e-2)).solve(right)


def shuffled(objective):
    generator = torch.Generator().manual_seed(1)
    points = {}
    for name, term in objective.terms.items():
        order = torch.randperm(len(term.points), generator=generator)
        points[name] = term.points[order]
    return objective.with_points(points)


# --- solutions ---------------------------------------------------------------------------------


@EACH
@pytest.mark.parametrize("name", ["soft", "flow"])
def test_chunks_and_the_order_of_points_do_not_matter(solver, name):
    objective = oracles.CASES[name]().objective
    right = random(objective.parameters.size, 5)
    expected = solved(solver, objective, right).value

    same = [(objective, 2), (objective, 5), (shuffled(objective), None)]
    for other, chunk in same:
        value = solved(solver, other, right, chunk).value
        oracles.close(value, expected, 1e-10)


@EACH
def test_right_hand_sides_do_not_see_each_other(solver):
    objective = oracles.burgers_soft().objective
    right = random(objective.parameters.size, 12)
    whole = solved(solver, objective, right).value
    parts = [solved(solver, objective, part).value for part in right.split(5, dim=1)]
    oracles.close(torch.cat(parts, dim=1), whole, 1e-10)


@EACH
def test_the_residual_is_that_of_the_full_system(solver):
    objective = oracles.burgers_soft().objective
    right = random(objective.parameters.size, 3)
    operator = GaussNewtonMatrix(objective)
    state = solver.factor(operator, Damping(1e-2))
    solution = state.solve(right)

    damping = state.spectrum.damping
    matrix = operator.dense() + damping * torch.eye(operator.size, dtype=torch.float64)
    error = right - matrix @ solution.value
    residual = float((error.norm(dim=0) / right.norm(dim=0)).max())
    assert solution.residual == pytest.approx(residual, rel=0.05, abs=1e-11)


@EACH
def test_more_right_hand_sides_than_parameters_leave_no_row_zero(solver):
    network = oracles.tanh_network(3, 1)
    points = random(9, 3)

    def residual(tensors, z):
        return torch.func.functional_call(network, tensors, (z,))

    objective = wh.Objective(network, [wh.Term("data", residual, points)])
    assert objective.parameters.size == 4
    if isinstance(solver, wh.Sketched):
        solver = wh.Sketched(3, nonzeros=1)

    value = solved(solver, objective, random(4, 40, seed=2)).value
    assert value.shape == (4, 40)
    assert bool((value.norm(dim=0) > 0).all())


@EACH
def test_more_right_hand_sides_than_parameters_of_a_problem(solver):
    objective = oracles.burgers_soft(n=6, widths=(2, 1)).objective
    assert objective.parameters.size == 3
    if isinstance(solver, wh.Sketched):
        solver = wh.Sketched(2, nonzeros=1)
    elif isinstance(solver, wh.Arnoldi | wh.Nystrom):
        solver = type(solver)(2)

    right = random(3, 40)
    value = solved(solver, objective, right).value
    assert value.shape == right.shape
    assert bool((value.norm(dim=0) > 0).all())


# --- errors ------------------------------------------------------------------------------------


@EACH
def test_parameters_that_are_not_finite_are_an_error(solver):
    objective = oracles.burgers_soft().objective
    with torch.no_grad():
        objective.network[0].weight[0, 0] = float("nan")
    right = random(objective.parameters.size, 2)
    with pytest.raises(ValueError, match="not finite"):
        solved(solver, objective, right)


# --- attributions ------------------------------------------------------------------------------


@EACH
def test_the_attribution_says_how_it_was_made(solver):
    case = oracles.burgers_soft()
    influence = wh.Influence(case.objective, solver=solver, damping=1e-2)
    output = wh.Output(oracles.target_points(case))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", wh.FarFromMinimum)
        attribution = influence.attribute(output)

    attributes = attribution.attrs
    assert attributes["solver"] in {solver.name, "exact"}
    assert attributes["relative_damping"] == pytest.approx(1e-2)
    assert attributes["gradient_norm"] > 0
    assert attributes["largest_eigenvalue"] > 0
    assert attributes["solver_residual"] >= 0
    assert str(attribution.quality())


@EACH
def test_every_fact_of_a_spectrum_is_an_attribute(solver, tmp_path):
    case = oracles.burgers_soft()
    influence = wh.Influence(case.objective, solver=solver, damping=1e-2)
    spectrum = influence.state().spectrum
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", wh.FarFromMinimum)
        attribution = influence.attribute(wh.Output(oracles.target_points(case)))

    for name, value in spectrum.attributes().items():
        assert isinstance(value, str | int | float)
        assert attribution.attrs[name] == value
    attribution.reset_index("term").to_netcdf(tmp_path / "attribution.nc")


def test_damping_may_be_chosen_by_refits():
    network = oracles.tanh_network(2, 3, 1)
    data = torch.cat([random(40, 2), random(40, 1, seed=3)], dim=1)

    def residual(tensors, z):
        return torch.func.functional_call(network, tensors, (z[:, :2],)) - z[:, 2:]

    objective = wh.Objective(network, [wh.Term("data", residual, data)])
    objective.parameters.assign(wh.refit(objective, steps=300).theta)
    damping = wh.Influence(objective, damping=wh.LeaveOneOut()).damping
    assert damping == wh.damping_from_refits(objective).damping
    assert damping.relative
