"""Steps of Levenberg–Marquardt: both forms agree, with each other and with a dense solve."""

import math

import pytest
import torch

import whence as wh
from whence import pinn
from whence.levenberg_marquardt import (
    DualSystem,
    PrimalSystem,
    Step,
    next_damping,
    system_of,
    trial_steps,
)

TIGHT = {"rtol": 1e-10, "atol": 1e-12}


def wide():
    """Fewer residuals than parameters: two terms of other weights, weighted points in one."""
    problem = pinn.zoo.load("burgers", "soft")
    points = problem.sample({"pde": 12, "initial_u": 5, "dirichlet_u": 5}, seed=0)
    weights = {"pde": 2.0, "initial_u": 10.0}
    objective = problem.objective(pinn.MLP([2, 6, 1], seed=0), points, weights)
    return objective.with_weights({"pde": torch.linspace(0.5, 2, 12).double()})


def tall():
    """Fewer parameters than residuals, several components for each point."""
    problem = pinn.Problem(
        pinn.Interval("x", 0, 1) * pinn.Interval("t", 0, 1),
        ("u",),
        {"pde": lambda u, u_t, u_xx: (u_t - u_xx, u**2 - 1)},
    )
    network = pinn.MLP([2, 3, 1], seed=1)
    return problem.objective(network, problem.sample(40, seed=0))


def classified():
    """A loss whose curvature is not the identity, of several outputs."""
    torch.manual_seed(0)
    model = torch.nn.Linear(3, 4).double()
    x = torch.randn(20, 3, dtype=torch.float64)
    y = torch.arange(20) % 4
    return wh.Objective.supervised(model, (x, y), wh.CrossEntropy())


CASES = {"wide": wide, "tall": tall, "classified": classified}


@pytest.fixture(params=CASES.values(), ids=CASES)
def objective(request):
    return request.param()


def dense(objective):
    """Return J (R, P) and ρ (R,) with JᵀJ the Gauss–Newton matrix and Jᵀρ the gradient."""
    return wh.Jacobian(objective, scaled=True).system()


def moved_from(objective):
    """Return a start θ₀ at some distance from θ."""
    theta = objective.parameters.vector()
    generator = torch.Generator().manual_seed(3)
    return theta + 0.1 * torch.randn(len(theta), generator=generator).double()


@pytest.mark.parametrize("form", ["primal", "dual", "triangular"])
@pytest.mark.parametrize("anchor", [0.0, 1e-3, 2.0])
@pytest.mark.parametrize("damping", [1e-4, 1.0, 100.0])
def test_a_step_is_that_of_a_dense_solve(objective, form, anchor, damping):
    theta = objective.parameters.vector()
    start = moved_from(objective)
    rows, rho = dense(objective)
    d = theta - start

    # (JᵀJ + (α + μ)I) δ = −(Jᵀρ + αd)
    matrix = rows.T @ rows + (anchor + damping) * torch.eye(len(theta)).double()
    gradient = rows.T @ rho + anchor * d
    expected = torch.linalg.solve(matrix, -gradient)

    system = system_of(objective, form, anchor=anchor, start=start)
    step = system.solve(damping)
    torch.testing.assert_close(system.gradient, gradient, **TIGHT)
    scale = float(expected.abs().max())
    torch.testing.assert_close(step.delta, expected, rtol=1e-9, atol=1e-10 * scale)
    assert step.damping == damping

    # ½‖ρ‖² − ½‖ρ + Jδ‖² + (α/2)(‖d‖² − ‖d + δ‖²)
    left = rho + rows @ expected
    promised = 0.5 * (rho @ rho - left @ left)
    after = d + expected
    promised += 0.5 * anchor * (d @ d - after @ after)
    assert step.promised == pytest.approx(float(promised), rel=1e-9, abs=1e-12)
    assert step.promised > 0


@pytest.mark.parametrize("anchor", [0.0, 0.5])
@pytest.mark.parametrize("moved", [False, True])
@pytest.mark.parametrize("damping", [1e-3, 1.0])
def test_all_forms_give_the_same_step_and_promise(objective, anchor, moved, damping):
    start = moved_from(objective) if moved else None
    steps = []
    systems = []
    for form in ("dual", "primal", "triangular"):
        system = system_of(objective, form, anchor=anchor, start=start)
        systems.append(system)
        steps.append(system.solve(damping))
    dual = steps[0]
    for system, step in zip(systems[1:], steps[1:], strict=True):
        torch.testing.assert_close(step.delta, dual.delta, **TIGHT)
        assert step.promised == pytest.approx(dual.promised, rel=1e-10)
        mean_diagonal = systems[0].mean_diagonal
        assert system.mean_diagonal == pytest.approx(mean_diagonal, rel=1e-12)
        assert system.scale == pytest.approx(systems[0].scale, rel=1e-12)
        torch.testing.assert_close(system.gradient, systems[0].gradient, **TIGHT)


def test_the_scale_bounds_the_gradient_and_the_diagonal_is_the_kernels(objective):
    rows, rho = dense(objective)
    system = system_of(objective)
    kernel = rows @ rows.T
    assert system.mean_diagonal == pytest.approx(float(kernel.diagonal().mean()))
    assert system.scale == pytest.approx(float(rows.norm() * rho.norm()))
    assert float((rows.T @ rho).norm()) <= system.scale * (1 + 1e-12)


def test_the_gradient_is_that_of_the_objective(objective):
    loss_gradient = objective.loss_and_gradient()[1]
    start = moved_from(objective)
    moved = objective.parameters.vector() - start
    for form in ("primal", "dual", "triangular"):
        gradient = system_of(objective, form).gradient
        torch.testing.assert_close(gradient, loss_gradient, **TIGHT)
        anchored = system_of(objective, form, anchor=0.3, start=start).gradient
        torch.testing.assert_close(anchored, loss_gradient + 0.3 * moved, **TIGHT)


def test_the_smaller_system_is_taken():
    assert isinstance(system_of(wide()), DualSystem)
    assert isinstance(system_of(tall()), PrimalSystem)


def test_the_promise_of_a_linear_model_is_kept():
    """With a squared loss of a linear model there is nothing that the model leaves out."""
    network = torch.nn.Linear(2, 1, dtype=torch.float64)

    def residual(tensors, z):
        return torch.func.functional_call(network, tensors, (z[:, :2],)) - z[:, 2:]

    generator = torch.Generator().manual_seed(0)
    points = torch.randn(9, 3, generator=generator, dtype=torch.float64)
    objective = wh.Objective(network, wh.Term("data", residual, points))
    for form in ("primal", "dual", "triangular"):
        step = system_of(objective, form).solve(0.1)
        before = float(objective.loss())
        theta = objective.parameters.vector()
        tensors = objective.parameters.substituted(theta + step.delta)
        after = float(objective.loss(tensors))
        assert before - after == pytest.approx(step.promised, rel=1e-10)


def test_a_system_that_is_singular_gives_no_step():
    """Two equal rows and next to no damping: neither form can be factored."""
    network = torch.nn.Linear(2, 1, bias=False, dtype=torch.float64)

    def residual(tensors, z):
        return torch.func.functional_call(network, tensors, (z,))

    points = torch.ones(2, 2, dtype=torch.float64)
    objective = wh.Objective(network, wh.Term("data", residual, points))
    for form in ("primal", "dual"):
        assert system_of(objective, form).solve(1e-300) is None
        assert system_of(objective, form).solve(1e-3) is not None


def test_an_unknown_form_names_the_choices():
    with pytest.raises(
        ValueError, match=r"unknown form 'prima'.*did you mean 'primal'"
    ):
        system_of(tall(), "prima")


# --- the damping --------------------------------------------------------------------------------


def test_trials_rise_faster_and_faster():
    steps = []
    for step in trial_steps(system_of(tall()), 1e-3, 2.0):
        steps.append(step)
        if len(steps) == 4:
            break
    dampings = [step.damping for step in steps]
    assert dampings == pytest.approx([1e-3, 2e-3, 8e-3, 64e-3])
    lengths = [float(step.delta.norm()) for step in steps]
    assert lengths == sorted(lengths, reverse=True)


def test_trials_end_and_leave_out_what_cannot_be_solved():
    class Never:
        mean_diagonal = scale = 1.0
        gradient = torch.zeros(1)

        def solve(self, damping):
            return None if damping < 1 else Step(torch.zeros(1), damping, 1.0)

    steps = list(trial_steps(Never(), 0.5, 2.0))
    assert steps[0].damping == 1.0
    assert all(math.isfinite(step.damping) for step in steps)
    assert len(steps) == 19


@pytest.mark.parametrize(
    ("gained", "expected"),
    [
        (0.9, 0.5),
        (0.51, 0.5),
        (0.5, 1.5),
        (0.3, 1.5),
        (0.1, 1.5),
        (0.09, 6.0),
        (0.0, 6.0),
    ],
)
def test_the_damping_follows_the_gain(gained, expected):
    step = Step(torch.zeros(1), damping=1.5, promised=1.0)
    damping = next_damping(step, gained, decrease=3.0, increase=4.0)
    assert damping == pytest.approx(expected)
