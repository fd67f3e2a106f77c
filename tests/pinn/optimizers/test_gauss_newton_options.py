"""Acceleration, momentum, damping by a ratio and sketches, against closed forms."""

import math

import pytest
import torch

import whence as wh
from whence import pinn
from whence.jacobian import Jacobian
from whence.levenberg_marquardt import Step, damping_by_ratio, system_of

FORMS = ["primal", "dual", "triangular"]


def curved(target, start, slopes=None):
    """Residuals ``sinh(a_i·w) − y_i``, as many as weights: the minimizer is ``A⁻¹ asinh y``."""
    n = len(target)
    slopes = torch.eye(n, dtype=torch.float64) if slopes is None else slopes
    network = torch.nn.Linear(n, 1, bias=False, dtype=torch.float64)
    rows = torch.cat([slopes, target.unsqueeze(1)], dim=1)

    def residual(tensors, z):
        value = torch.func.functional_call(network, tensors, (z[:, :n],))
        return torch.sinh(value) - z[:, n:]

    objective = wh.Objective(network, [wh.Term("data", residual, rows)])
    objective.parameters.assign(start)
    return objective


def small(n=40):
    problem = pinn.zoo.load("burgers")
    return problem.objective(pinn.MLP([2, 5, 1], seed=0), problem.sample(n, seed=0))


# --- acceleration -------------------------------------------------------------------------------


def test_second_derivatives_are_those_of_nested_forward_mode():
    problem = pinn.zoo.load("burgers", "soft")
    points = problem.sample({"pde": 12, "initial_u": 5, "dirichlet_u": 5}, seed=0)
    network = pinn.MLP([2, 6, 1], seed=0)
    objective = problem.objective(network, points, {"pde": 2.0, "initial_u": 10.0})
    theta = objective.parameters.vector()
    v = torch.randn(len(theta), generator=torch.Generator().manual_seed(0)).to(theta)

    def scaled(vector):
        tensors = objective.parameters.substituted(vector)
        parts = []
        for term in objective.terms.values():
            r = term.residual(tensors, term.points).flatten()
            # The loss is w/N Σr²: half of its second derivative is 2w/N.
            parts.append((2 * term.weight / len(term.points)) ** 0.5 * r)
        return torch.cat(parts)

    def along(vector):
        return torch.func.jvp(scaled, (vector,), (v,))[1]

    expected = torch.func.jvp(along, (theta,), (v,))[1]
    jacobian = Jacobian(objective, scaled=True)
    second = jacobian.second_derivative(v, 1e-3)
    torch.testing.assert_close(
        second, expected, rtol=1e-3, atol=1e-4 * float(expected.norm())
    )


@pytest.mark.parametrize("form", FORMS)
def test_an_accelerated_step_is_of_third_order(form):
    """Without damping a step's distance from the minimizer falls as s³, a plain one's as s²."""
    torch.manual_seed(0)
    slopes = torch.eye(3, dtype=torch.float64) + 0.2 * torch.randn(3, 3).double()
    start = torch.tensor([0.5, -0.3, 0.8], dtype=torch.float64)
    direction = torch.tensor([1.0, -0.5, 0.7], dtype=torch.float64)

    def error(size, acceleration):
        target = torch.sinh(slopes @ start) + size * direction
        objective = curved(target, start, slopes)
        options = pinn.GaussNewton(
            1, damping=1e-13, form=form, acceleration=acceleration
        )
        options.start(objective.parameters).advance(objective, 1)
        best = torch.linalg.solve(slopes, torch.asinh(target))
        return float((objective.parameters.vector() - best).norm())

    for acceleration, order in ((False, 2), (True, 3)):
        ratio = error(0.04, acceleration) / error(0.02, acceleration)
        assert math.log2(ratio) == pytest.approx(order, abs=0.35)


def test_a_step_that_bends_too_much_is_taken_back():
    """For one weight 2|δ₂|/|δ₁| = h c|δ₁|/(c² + μ′) … by hand, for every damping tried."""
    start, target = 2.0, math.sinh(0.5)
    r, slope, second = math.sinh(start) - target, math.cosh(start), math.sinh(start)
    # With JᵀJ = 2c²: δ₁ = −2cr/(2c² + μ), and r″ = sinh(w) δ₁² (by differences, to O(h²δ²)).
    mu = 1e-6 * 2 * slope**2
    growth = 2.0
    rejected = 0
    while True:
        shifted = 2 * slope**2 + mu
        first = -2 * slope * r / shifted
        h = 0.1 * first
        difference = (math.sinh(start + h) + math.sinh(start - h) - 2 * second) / 0.01
        bend = -0.5 * 2 * slope * difference / shifted
        if 2 * abs(bend) <= 0.75 * abs(first):
            break
        rejected += 1
        mu, growth = mu * growth, growth * 2

    assert rejected > 0
    objective = curved(
        torch.tensor([target], dtype=torch.float64), torch.tensor([start]).double()
    )
    options = pinn.GaussNewton(1, damping=1e-6, acceleration=True)
    options.start(objective.parameters).advance(objective, 1)
    moved = float(objective.parameters.vector()) - start
    assert moved == pytest.approx(first + bend, rel=1e-9)


@pytest.mark.parametrize("form", FORMS)
def test_a_bend_is_that_of_the_dense_matrix(form):
    objective = small()
    J, _ = Jacobian(objective, scaled=True).system()
    second = torch.rand(len(J), dtype=torch.float64)
    shifted = J.T @ J + 0.2 * torch.eye(J.shape[1], dtype=torch.float64)
    expected = -0.5 * torch.linalg.solve(shifted, J.T @ second)
    bend = system_of(objective, form).bend(0.2, second)
    torch.testing.assert_close(bend, expected, rtol=1e-8, atol=1e-11)


# --- momentum -----------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("anchor", [0.0, 0.3])
def test_a_step_with_momentum_is_the_proximal_one(form, anchor):
    """argmin ½‖Jδ + ρ‖² + (α/2)‖δ + d‖² + (μ/2)‖δ − m‖², and SPRING's own formula."""
    objective = small()
    theta = objective.parameters.vector()
    moved = 0.05 * torch.rand(len(theta), dtype=torch.float64)
    ahead = 0.1 * torch.rand(len(theta), dtype=torch.float64)
    J, rho = Jacobian(objective, scaled=True).system()
    shifted = J.T @ J + (anchor + 0.2) * torch.eye(len(theta), dtype=torch.float64)
    right = -J.T @ rho - anchor * moved + 0.2 * ahead
    expected = torch.linalg.solve(shifted, right)
    system = system_of(objective, form, anchor=anchor, start=theta - moved)
    step = system.solve(0.2, ahead)
    torch.testing.assert_close(step.delta, expected, rtol=1e-8, atol=1e-11)

    if not anchor:
        # φ = m + Jᵀ(JJᵀ + λ)⁻¹(r − Jm) with φ = −δ.
        kernel = J @ J.T + 0.2 * torch.eye(len(J), dtype=torch.float64)
        spring = -ahead + J.T @ torch.linalg.solve(kernel, rho + J @ ahead)
        torch.testing.assert_close(step.delta, -spring, rtol=1e-8, atol=1e-11)
    left = rho + J @ step.delta
    promised = 0.5 * float(rho @ rho - left @ left)
    promised += (
        0.5 * anchor * float(moved @ moved - (moved + step.delta).square().sum())
    )
    assert step.promised == pytest.approx(promised, rel=1e-8)


@pytest.mark.parametrize("form", FORMS)
def test_the_optimizer_goes_on_from_its_last_step(form):
    objective = small()
    stepper = pinn.GaussNewton(9, momentum=0.6, form=form).start(objective.parameters)
    thetas = [objective.parameters.vector()]
    stepper.advance(objective, 1)
    thetas.append(objective.parameters.vector())
    mu = stepper.state().numbers["mu"]
    J, rho = Jacobian(objective, scaled=True).system()
    ahead = 0.6 * (thetas[1] - thetas[0])
    shifted = J.T @ J + mu * torch.eye(len(ahead), dtype=torch.float64)
    expected = torch.linalg.solve(shifted, mu * ahead - J.T @ rho)
    stepper.advance(objective, 1)
    moved = objective.parameters.vector() - thetas[1]
    torch.testing.assert_close(moved, expected, rtol=1e-6, atol=1e-9)


def test_momentum_that_leads_uphill_is_dropped():
    objective = small()
    stepper = pinn.GaussNewton(9, momentum=0.9, damping=1e3).start(objective.parameters)
    stepper.advance(objective, 1)
    state = stepper.state()
    state.tensors["last_step"] = torch.full_like(state.tensors["last_step"], 50.0)
    stepper.restore(state)
    before = float(objective.loss())
    assert not stepper.advance(objective, 1).messages
    assert float(objective.loss()) < before


# --- damping ------------------------------------------------------------------------------------


def test_the_ratio_tends_to_its_target():
    """Where the share gained is a function 1/(1 + 1/μ) of the damping, μ ends where it is t."""
    for target in (0.3, 0.5, 0.8):
        mu = 50.0
        for _ in range(200):
            gained = 1 / (1 + 1 / mu)
            step = Step(torch.ones(1), mu, promised=1.0)
            mu = damping_by_ratio(step, gained, target, decrease=3.0, increase=2.0)
        assert 1 / (1 + 1 / mu) == pytest.approx(target, abs=1e-6)


def test_the_rule_of_the_options_is_the_one_that_is_used():
    objective = small()
    theta = objective.parameters.vector()
    mus = {}
    for rule in ("thresholds", "ratio"):
        objective.parameters.assign(theta)
        options = pinn.GaussNewton(1, damping=1.0, damping_rule=rule, target_ratio=0.9)
        stepper = options.start(objective.parameters)
        system = system_of(objective)
        first = system.solve(system.mean_diagonal)
        loss = float(objective.loss())
        stepper.advance(objective, 1)
        gained = loss - float(objective.loss())
        mus[rule] = stepper.state().numbers["mu"]
    assert mus["ratio"] == pytest.approx(damping_by_ratio(first, gained, 0.9, 3.0, 2.0))
    assert mus["ratio"] != mus["thresholds"]


# --- all of them --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "optimizer",
    [
        pinn.GaussNewton(6, acceleration=True, momentum=0.5, damping_rule="ratio"),
        pinn.GaussNewton(6, sketch_rows=90, sketch_columns=15, momentum=0.5),
        pinn.NNCG(6, rank=5, update_every=4),
        pinn.SOAP(6, update_every=2),
    ],
    ids=["options", "sketches", "nncg", "soap"],
)
def test_runs_resume_from_their_folder_to_the_same_bits(
    optimizer, tmp_path, monkeypatch
):
    monkeypatch.setattr(pinn.training.loop, "CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr(type(optimizer), "chunk", 1)
    options = {"points": 100, "schedule": optimizer, "progress": False}

    def run(**more):
        network = pinn.MLP([2, 5, 1], seed=0)
        return pinn.train(pinn.zoo.load("diffusion"), network, **options, **more)

    whole = run()
    # Three steps in one process, the others in another.
    run(out=tmp_path / "run", observers=[pinn.Stop(lambda row: row["iteration"] >= 3)])
    resumed = run(out=tmp_path / "run", resume=True)
    assert resumed.history["loss"][-1] == whole.history["loss"][-1]
    theta = resumed.objective.parameters.vector()
    assert torch.equal(theta, whole.objective.parameters.vector())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"momentum": 1.0}, "momentum"),
        ({"target_ratio": 0.0}, "target_ratio"),
        ({"damping_rule": "ratios"}, "did you mean 'ratio'"),
        ({"sketch_rows": 0}, "sketch_rows"),
        ({"sketch_rows": 5, "form": "dual"}, "leave form at 'auto'"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        pinn.GaussNewton(5, **options)
