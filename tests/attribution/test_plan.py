"""What an influence says before it runs."""

import pytest
import torch
from residual_networks import images, objective

import whence as wh
from whence.curvature.costs import solver_cost
from whence.curvature.exact import held_rows_bytes
from whence.jacobian import Jacobian


def shape():
    return Jacobian(objective(), scaled=True).shape


def test_rows_in_memory_where_they_fit():
    rows, size = shape()
    plan = wh.Influence(objective()).plan(wh.Loss())
    assert (plan.solver, plan.form, plan.rank) == ("exact", "dual", None)
    assert (plan.rows, plan.parameters, plan.points, plan.targets) == (rows, size, 6, 6)
    assert plan.bytes == held_rows_bytes(rows, size, 8)
    assert plan.memory_budget == 2**31
    assert plan.seconds > 0


def test_it_says_which_solver_runs():
    """The plan and the attribution name the same."""
    rows, size = shape()
    for budget in (2**31, int(1.6 * rows * size * 8), 4 * size * 8):
        influence = wh.Influence(objective(), damping=1e-3, memory_budget=budget)
        plan = influence.plan()
        spectrum = influence.state().spectrum
        assert plan.solver == spectrum.solver
        assert plan.rank == getattr(spectrum, "rank", None)
        assert plan.bytes <= budget
        assert plan.targets is None
        if plan.form is not None:
            assert plan.form.startswith(spectrum.solver_form)


def test_samples_of_rows_take_fewer_passes():
    def plan(**options):
        solver = wh.EKFAC(**options)
        return wh.Influence(objective(), damping=1e-3, solver=solver).plan()

    # Three passes forward, and as many backward as there are samples.
    assert plan(mc_samples=1).passes == 3 * 2
    assert plan(mc_samples=2).passes == 3 * 3
    assert plan(mc_samples=1).passes < plan().passes


SOLVERS = [
    wh.Exact("primal"),
    wh.EKFAC(),
    wh.Nystrom(4),
    wh.Arnoldi(4),
    wh.ConjugateGradient(),
    wh.ConjugateGradient(preconditioner=None),
    wh.Sketched(20),
]


@pytest.mark.parametrize("solver", SOLVERS, ids=lambda solver: solver.name)
def test_all_solvers_have_costs(solver):
    influence = wh.Influence(objective(), damping=1e-3, solver=solver)
    plan = influence.plan(n_targets=3)
    assert plan.solver == solver.name
    assert plan.bytes > 0
    assert plan.passes >= 1
    more = influence.plan(n_targets=300)
    assert more.passes >= plan.passes
    assert solver.name in str(plan)


def test_passes_are_those_taken():
    """The network is evaluated as often as planned: forward once for each group of layers."""
    rows, size = shape()
    made = objective()
    budget = int(1.6 * rows * size * 8)
    influence = wh.Influence(made, damping=1e-3, memory_budget=budget)
    seen = []
    made.network.register_forward_hook(lambda m, args, out: seen.append(len(out)))
    plan = influence.plan()
    seen.clear()
    influence.state()
    # And once for the residual, and a few points to look at.
    forward = sum(seen) / plan.points
    per_group = 1 + max(Jacobian(made).components().values())
    groups = plan.passes / per_group
    assert groups <= forward <= groups + 4


def test_a_hessian_and_what_is_not_known():
    influence = wh.Influence(objective(), curvature="hessian")
    assert influence.plan().form == "hessian"
    with pytest.raises(ValueError, match="lissa"):
        wh.Influence(objective(), solver=wh.LiSSA()).plan()
    with pytest.raises(ValueError, match="not both"):
        influence.plan(wh.Loss(), n_targets=3)
    with pytest.raises(ValueError, match="n_targets"):
        influence.plan(n_targets=0)


def test_a_kernel_of_hours_is_left_to_others(monkeypatch):
    rows, size = shape()
    operator = wh.GaussNewtonMatrix(objective())
    automatic = wh.Automatic(memory_budget=int(1.6 * rows * size * 8))
    damping = wh.Damping(1e-3)
    assert automatic.choice(operator, damping).name == "exact"
    monkeypatch.setattr("whence.curvature.automatic.MAX_MULTIPLICATIONS", 1e3)
    assert automatic.choice(operator, damping).name == "conjugate_gradient"
    cost = solver_cost(automatic, operator, damping)
    assert cost.solver == "conjugate_gradient"


def test_the_dtype_counts():
    single = wh.Influence(objective(torch.float32)).plan()
    double = wh.Influence(objective()).plan()
    assert 2 * single.bytes == double.bytes
    assert len(images()) == 2
