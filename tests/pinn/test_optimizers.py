"""Optimisers: closed forms, new points at the next step, saved state, failures that speak."""

import math

import pytest
import torch

import whence as wh
from whence import pinn

EVERY = [pinn.Adam(4), pinn.LBFGS(4), pinn.GaussNewton(4)]


def small(seed=0, n=40):
    problem = pinn.zoo.load("diffusion")
    network = pinn.MLP([2, 8, 8, 1], seed=seed)
    return problem.objective(network, problem.sample(n, seed=seed))


def linear(n=6):
    """A linear least-squares objective: one Gauss–Newton step solves it."""
    torch.manual_seed(0)
    network = torch.nn.Linear(3, 1, bias=False, dtype=torch.float64)
    data = torch.randn(n, 4, dtype=torch.float64)

    def residual(tensors, z):
        return torch.func.functional_call(network, tensors, (z[:, :3],)) - z[:, 3:]

    return wh.Objective(network, [wh.Term("data", residual, data)], coordinates="abcd"), data


def test_adam_is_torch_adam():
    objective = small()
    theta = objective.parameters.vector().requires_grad_()
    reference = torch.optim.Adam([theta], lr=1e-2)
    for _ in range(5):
        reference.zero_grad()
        objective.loss(objective.parameters.substituted(theta)).backward()
        reference.step()
    pinn.Adam(5, lr=1e-2).start(objective.parameters).advance(objective, 5)
    torch.testing.assert_close(objective.parameters.vector(), theta.detach(), rtol=1e-12, atol=0)


@pytest.mark.parametrize(
    ("form", "n"), [("primal", 6), ("auto", 6), ("dual", 2), ("auto", 2), ("primal", 2)]
)
def test_gauss_newton_solves_least_squares_in_one_step(form, n):
    objective, data = linear(n)
    stepper = pinn.GaussNewton(1, damping=1e-11, form=form).start(objective.parameters)
    stepper.advance(objective, 1)
    left = data[:, :3] @ objective.parameters.vector() - data[:, 3]
    best = data[:, :3] @ torch.linalg.lstsq(data[:, :3], data[:, 3]).solution - data[:, 3]
    assert float((left - best).abs().max()) < 1e-8


def test_primal_and_dual_steps_agree():
    a, b = small(), small()
    pinn.GaussNewton(1, form="primal").start(a.parameters).advance(a, 1)
    pinn.GaussNewton(1, form="dual").start(b.parameters).advance(b, 1)
    torch.testing.assert_close(a.parameters.vector(), b.parameters.vector(), rtol=1e-8, atol=1e-11)


@pytest.mark.parametrize("optimizer", EVERY, ids=lambda o: type(o).__name__)
def test_loss_falls(optimizer):
    objective = small()
    before = float(objective.loss())
    progress = optimizer.start(objective.parameters).advance(objective, 4)
    assert progress.iterations == 4
    assert float(objective.loss()) < before


@pytest.mark.parametrize("optimizer", EVERY, ids=lambda o: type(o).__name__)
def test_next_step_sees_the_new_points(optimizer):
    """After a change of points, one more step equals that of a twin which changed likewise and
    differs from that of a twin which did not."""
    ends = []
    for changed in (True, True, False):
        objective = small()
        stepper = optimizer.start(objective.parameters)
        stepper.advance(objective, 2)
        if changed:
            objective = objective.with_points({"pde": objective.draw("pde", 40, seed=77)})
        stepper.advance(objective, 1)
        ends.append(objective.parameters.vector())
    assert torch.equal(ends[0], ends[1])
    assert not torch.allclose(ends[0], ends[2], rtol=1e-6, atol=0)


@pytest.mark.parametrize("optimizer", EVERY, ids=lambda o: type(o).__name__)
def test_restored_state_goes_on_bit_for_bit(optimizer):
    whole, half = small(), small()
    one = optimizer.start(whole.parameters)
    one.advance(whole, 3)
    one.advance(whole, 3)
    first = optimizer.start(half.parameters)
    first.advance(half, 3)
    held = first.state()
    tensors = {name: tensor.clone() for name, tensor in held.tensors.items()}
    second = optimizer.start(half.parameters)
    second.restore(type(held)(tensors, dict(held.numbers)))
    second.advance(half, 3)
    assert torch.equal(whole.parameters.vector(), half.parameters.vector())


def broken(after):
    """An objective whose loss is not finite once |θ| passes a bound."""
    network = torch.nn.Linear(1, 1, bias=False, dtype=torch.float64)
    points = torch.ones(3, 1, dtype=torch.float64)

    def residual(tensors, z):
        value = torch.func.functional_call(network, tensors, (z,))
        return torch.where(value.abs() > after, value * math.inf, 10.0 - value)

    objective = wh.Objective(network, [wh.Term("data", residual, points)])
    objective.parameters.assign(torch.tensor([0.5], dtype=torch.float64))
    return objective


def test_lbfgs_restarts_after_a_loss_that_is_not_finite():
    objective = broken(after=1.0)
    progress = pinn.LBFGS(5).start(objective.parameters).advance(objective, 5)
    theta = objective.parameters.vector()
    assert bool(torch.isfinite(theta).all())
    assert math.isfinite(float(objective.loss()))
    assert progress.messages or float(theta) != 0.5


def test_lbfgs_says_that_it_stalls_and_ends():
    objective, _ = linear(6)
    pinn.GaussNewton(1, damping=1e-14).start(objective.parameters).advance(objective, 1)
    stepper = pinn.LBFGS(100).start(objective.parameters)
    said, finished = [], False
    for _ in range(10):
        progress = stepper.advance(objective, 20)
        said += progress.messages
        finished = finished or progress.finished
    assert finished
    assert any("stalled" in message for message in said)


@pytest.mark.parametrize("optimizer", [pinn.Adam(4), pinn.GaussNewton(4)], ids=["Adam", "GN"])
def test_infinite_loss_stops_with_a_message(optimizer):
    objective = broken(after=0.1)
    progress = optimizer.start(objective.parameters).advance(objective, 4)
    assert progress.finished
    assert "loss is" in progress.messages[0]
    assert float(objective.parameters.vector()) == 0.5


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: pinn.Adam(0), "iterations"),
        (lambda: pinn.Adam(1, lr=-1.0), "lr"),
        (lambda: pinn.Adam(1, betas=(0.9, 1.0)), "betas"),
        (lambda: pinn.LBFGS(1, history=0), "history"),
        (lambda: pinn.GaussNewton(1, damping=0.0), "damping"),
        (lambda: pinn.GaussNewton(1, form="both"), "form 'both'"),
    ],
)
def test_option_errors(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_adam_goes_back_to_the_last_finite_loss():
    objective = broken(after=1.0)
    stepper = pinn.Adam(10, lr=0.3).start(objective.parameters)
    progress = stepper.advance(objective, 1)
    held = stepper.state()  # as if stopped and resumed at any moment
    stepper = pinn.Adam(10, lr=0.3).start(objective.parameters)
    stepper.restore(held)
    progress = stepper.advance(objective, 9)
    assert progress.finished
    assert "back before the step" in progress.messages[0]
    assert math.isfinite(float(objective.loss()))


def test_lbfgs_restored_just_after_a_change_of_points_goes_on_bit_for_bit():
    ends = []
    for stopped in (False, True):
        objective = small()
        stepper = pinn.LBFGS(8).start(objective.parameters)
        stepper.advance(objective, 4)
        objective = objective.with_points({"pde": objective.draw("pde", 40, seed=77)})
        if stopped:
            held = stepper.state()
            stepper = pinn.LBFGS(8).start(objective.parameters)
            stepper.restore(held)
        stepper.advance(objective, 4)
        ends.append(objective.parameters.vector())
    assert torch.equal(*ends)
