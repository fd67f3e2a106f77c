"""BFGS and its self-scaled kin: known minima, order of convergence, memory, limits."""

import itertools

import numpy as np
import pytest
import scipy.optimize
import torch
import trainings

import whence as wh
from whence import pinn
from whence.pinn.optimizers import quasi_newton
from whence.pinn.training import loop

METHODS = [pinn.BFGS, pinn.SSBFGS, pinn.SSBroyden]


def ids(method):
    return method.__name__


def of_weights(residual, start, points):
    """An objective whose residual is a function of a vector θ and of the points."""
    network = torch.nn.Linear(len(start), 1, bias=False, dtype=torch.float64)
    term = wh.Term("data", lambda t, z: residual(t["weight"][0], z), points)
    names = [f"z{k}" for k in range(points.shape[1])]
    objective = wh.Objective(network, [term], space=wh.Space(coordinates=names))
    objective.parameters.assign(torch.tensor(start, dtype=torch.float64))
    return objective


def quadratic(n=5, seed=0):
    """A quadratic loss of n parameters, its minimum, and its Hessian."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(2 * n, n + 1, generator=generator, dtype=torch.float64)
    objective = of_weights(
        lambda theta, z: z[:, :n] @ theta.unsqueeze(1) - z[:, n:], [0.5] * n, rows
    )
    minimum = torch.linalg.lstsq(rows[:, :n], rows[:, n]).solution
    # By differences, exact for a quadratic, whatever factor the loss has.
    zero = torch.zeros(n, dtype=torch.float64)
    objective.parameters.assign(zero)
    _, at_zero = objective.loss_and_gradient()
    columns = []
    for unit in torch.eye(n, dtype=torch.float64):
        objective.parameters.assign(unit)
        columns.append(objective.loss_and_gradient()[1] - at_zero)
    objective.parameters.assign(zero + 0.5)
    return objective, minimum, torch.stack(columns)


def rosenbrock(start=(-1.2, 1.0)):
    """10 (θ₁ − θ₀²) and 1 − θ₀: two points of one term."""

    def residual(theta, z):
        valley = 10 * (theta[1] - theta[0] ** 2)
        return z * valley + (1 - z) * (1 - theta[0])

    points = torch.tensor([[1.0], [0.0]], dtype=torch.float64)
    return of_weights(residual, list(start), points)


@pytest.mark.parametrize("method", METHODS, ids=ids)
def test_exact_line_searches_end_at_the_minimum_of_a_quadratic_in_n_steps(method):
    objective, minimum, _ = quadratic()
    stepper = method(5, c1=1e-9, c2=1e-8).start(objective.parameters)
    stepper.advance(objective, 4)
    assert float((objective.parameters.vector() - minimum).norm()) > 1e-4
    stepper.advance(objective, 1)
    assert float((objective.parameters.vector() - minimum).norm()) < 1e-6


def test_the_inverse_hessian_of_a_quadratic_is_found():
    objective, _, hessian = quadratic()
    stepper = pinn.BFGS(5, c1=1e-9, c2=1e-8).start(objective.parameters)
    stepper.advance(objective, 5)
    product = stepper.state().tensors["inverse_hessian"] @ hessian
    error = product - torch.eye(5, dtype=torch.float64)
    assert float(error.abs().max()) < 1e-5


@pytest.mark.parametrize("method", METHODS, ids=ids)
@pytest.mark.parametrize("start", [(-1.2, 1.0), (2.0, -3.0)])
def test_rosenbrock_ends_where_scipy_does(method, start):
    objective = rosenbrock(start)
    evaluated = []

    def loss_and_gradient(theta):
        evaluated.append(theta)
        objective.parameters.assign(torch.from_numpy(theta))
        loss, gradient = objective.loss_and_gradient()
        return loss, gradient.numpy()

    reference = scipy.optimize.minimize(
        loss_and_gradient, np.array(start), jac=True, method="BFGS"
    )
    n_reference = len(evaluated)
    objective.parameters.assign(torch.tensor(start, dtype=torch.float64))
    stepper = method(200).start(objective.parameters)
    progress = stepper.advance(objective, 2 * n_reference)
    theta = objective.parameters.vector().numpy()
    np.testing.assert_allclose(theta, reference.x, atol=1e-4)
    np.testing.assert_allclose(theta, 1.0, atol=1e-7)
    assert progress.failure is None


@pytest.mark.parametrize("method", METHODS, ids=ids)
def test_convergence_is_superlinear(method):
    """The factor by which the distance to the minimum falls tends to 0."""
    objective = rosenbrock((0.9, 0.7))
    stepper = method(100).start(objective.parameters)
    distances = []
    while not distances or distances[-1] > 1e-9:
        stepper.advance(objective, 1)
        distances.append(float((objective.parameters.vector() - 1).norm()))
        assert len(distances) < 60
    near = [d for d in distances if d < 1e-2]
    factors = [b / a for a, b in itertools.pairwise(near)]
    assert min(factors) < 0.01
    # From 1e-2 to 1e-9; a linear rate of a quarter would need 12 steps.
    assert len(near) < 11


@pytest.mark.parametrize("method", METHODS, ids=ids)
def test_few_evaluations_are_spent_on_a_step(method, monkeypatch):
    problem = pinn.zoo.load("diffusion")
    objective = problem.objective(
        pinn.MLP([2, 8, 8, 1], seed=0), problem.sample(60, seed=0)
    )
    count = 0
    measure = wh.Objective.loss_and_gradient

    def counted(self):
        nonlocal count
        count += 1
        return measure(self)

    monkeypatch.setattr(wh.Objective, "loss_and_gradient", counted)
    stepper = method(100).start(objective.parameters)
    for _ in range(5):
        stepper.advance(objective, 20)
    assert count < 145


def with_new_points(objective):
    return objective.with_points({"pde": objective.draw("pde", 40, seed=77)})


def diffusion():
    problem = pinn.zoo.load("diffusion")
    return problem.objective(pinn.MLP([2, 8, 1], seed=0), problem.sample(40, seed=0))


@pytest.mark.parametrize("on_resample", ["keep", "restart"])
def test_memory_over_a_change_of_points(on_resample):
    """ "restart" goes on as a fresh stepper does, "keep" does not; both see the new points."""
    objective = diffusion()
    stepper = pinn.BFGS(20, on_resample=on_resample).start(objective.parameters)
    stepper.advance(objective, 6)
    theta = objective.parameters.vector()
    objective = with_new_points(objective)
    stepper.advance(objective, 3)
    end = objective.parameters.vector()
    objective.parameters.assign(theta)
    pinn.BFGS(20).start(objective.parameters).advance(objective, 3)
    is_fresh = torch.equal(end, objective.parameters.vector())
    assert is_fresh == (on_resample == "restart")


@pytest.mark.parametrize("on_resample", ["keep", "restart"])
@pytest.mark.parametrize("change", [lambda o: o, with_new_points])
def test_restored_before_new_points_it_goes_on_bit_for_bit(on_resample, change):
    options = pinn.SSBroyden(8, on_resample=on_resample)
    ends = []
    for is_stopped in (False, True):
        objective = diffusion()
        stepper = options.start(objective.parameters)
        stepper.advance(objective, 4)
        objective = change(objective)
        if is_stopped:
            state = stepper.state()
            stepper = options.start(objective.parameters)
            stepper.restore(state)
        stepper.advance(objective, 4)
        ends.append(objective.parameters.vector())
    assert torch.equal(*ends)


def test_a_network_changed_in_between_is_measured():
    """θ is read, not remembered."""
    objective, minimum, _ = quadratic()
    stepper = pinn.BFGS(9).start(objective.parameters)
    stepper.advance(objective, 3)
    objective.parameters.assign(minimum + 1)
    loss = float(objective.loss())
    progress = stepper.advance(objective, 1)
    assert progress.loss < loss


def test_another_matrix_is_refused():
    objective, _, _ = quadratic()
    stepper = pinn.BFGS(4).start(objective.parameters)
    stepper.advance(objective, 2)
    state = stepper.state()
    state.tensors["inverse_hessian"] = state.tensors["inverse_hessian"][0]
    with pytest.raises(
        ValueError, match=r"'inverse_hessian' has shape \(5,\), not \(5, 5\)"
    ):
        pinn.BFGS(4).start(objective.parameters).restore(state)


def test_at_a_minimum_the_stage_ends():
    objective, minimum, _ = quadratic()
    stepper = pinn.SSBFGS(100).start(objective.parameters)
    messages = []
    for _ in range(6):
        progress = stepper.advance(objective, 20)
        messages += progress.messages
        if progress.finished:
            break
    assert progress.finished
    assert progress.failure is None
    assert "inverse Hessian restarted" in messages[0]
    assert "any further: its stage ends" in messages[-1]
    theta = objective.parameters.vector()
    torch.testing.assert_close(theta, minimum, rtol=1e-7, atol=1e-7)


def test_a_matrix_that_no_longer_descends_is_mended():
    objective = diffusion()
    stepper = pinn.SSBroyden(20).start(objective.parameters)
    stepper.advance(objective, 12)
    state = stepper.state()
    g = state.tensors["gradient"]
    # An eigenvalue far below zero along the gradient.
    spoilt = state.tensors["inverse_hessian"].clone()
    spoilt -= torch.outer(g, g) * (2 * g @ spoilt @ g / (g @ g) ** 2)
    state.tensors["inverse_hessian"] = spoilt
    state.tensors["product"] = spoilt @ g
    stepper.restore(state)
    before = state.numbers["loss"]
    progress = stepper.advance(objective, 3)
    assert not progress.messages
    assert progress.iterations == 3
    assert progress.loss < before


def pit(radius):
    """A loss with a slope at θ = 1, which is not finite further than ``radius`` from there."""
    points = torch.tensor([[1.0], [0.0]], dtype=torch.float64)

    def residual(theta, z):
        far = (theta - 1).abs() > radius
        return theta + 3 + torch.where(far, torch.nan, 0.0) * z

    return of_weights(residual, [1.0], points)


def test_a_trial_that_is_not_finite_shortens_the_step():
    objective = pit(1e-3)
    progress = pinn.BFGS(5).start(objective.parameters).advance(objective, 1)
    assert progress.iterations == 1
    assert progress.failure is None
    assert 0.999 <= float(objective.parameters.vector()) < 0.9999


def test_a_loss_that_is_finite_nowhere_else_fails_and_says_where():
    objective = pit(1e-40)
    stepper = pinn.BFGS(5).start(objective.parameters)
    progress = stepper.advance(objective, 5)
    assert progress.failure is None
    assert not progress.finished
    assert "went too far: the loss is nan: term 'data'" in progress.messages[0]
    progress = stepper.advance(objective, 5)
    assert progress.finished
    assert "row 0 (z0 = 1)" in progress.failure
    assert float(objective.parameters.vector()) == 1.0


def test_a_stall_after_a_trial_too_far_is_no_failure():
    """The gradient promises what the loss does not keep; further than 0.5 nothing is finite."""
    points = torch.tensor([[1.0], [0.0]], dtype=torch.float64)

    def residual(theta, z):
        far = (theta.detach() - 1).abs() > 0.5
        return 3 + (theta - theta.detach()) + torch.where(far, torch.nan, 0.0) * z

    objective = of_weights(residual, [1.0], points)
    stepper = pinn.BFGS(5).start(objective.parameters)
    assert "found no step that lowers" in stepper.advance(objective, 5).messages[0]
    progress = stepper.advance(objective, 5)
    assert progress.finished
    assert progress.failure is None


def test_too_many_parameters_are_refused_before_any_work(monkeypatch, tmp_path):
    monkeypatch.setattr(quasi_newton, "MAX_PARAMETERS", 150)
    with pytest.raises(ValueError, match=r"151 x 151 .* 0\.0 GB.*pinn\.LBFGS"):
        trainings.go(tmp_path / "run", schedule=[pinn.Adam(10), pinn.SSBroyden(10)])
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("stop_at", [4, 12, 20, 24])
def test_a_run_cut_short_resumes_to_the_same_bits(tmp_path, monkeypatch, stop_at):
    """Cut after a checkpoint of either stage, with new points every 10 steps."""
    options = {"schedule": [pinn.SSBroyden(20), pinn.BFGS(8)]}
    monkeypatch.setattr(pinn.SSBroyden, "chunk", 4)
    monkeypatch.setattr(pinn.BFGS, "chunk", 4)
    trainings.go(tmp_path / "whole", **options)
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", 0.0)
    save = loop.Loop._save

    def cut(run, *arguments):
        save(run, *arguments)
        if run.place.iteration >= stop_at:
            raise KeyboardInterrupt

    with monkeypatch.context() as cutting:
        cutting.setattr(loop.Loop, "_save", cut)
        with pytest.raises(KeyboardInterrupt):
            trainings.go(tmp_path / "cut", **options)
    trainings.go(tmp_path / "cut", resume=True, **options)
    trainings.assert_same_run(tmp_path / "whole", tmp_path / "cut")
