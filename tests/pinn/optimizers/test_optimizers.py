"""Optimizers: closed forms, new points at the next step, saved state, failures that speak."""

import pytest
import torch

import whence as wh
from whence import pinn

EVERY = [
    pinn.Adam(4),
    pinn.LBFGS(4),
    pinn.BFGS(4),
    pinn.SSBFGS(4),
    pinn.SSBroyden(4),
    pinn.GaussNewton(4),
    pinn.GaussNewton(4, acceleration=True, momentum=0.5, damping_rule="ratio"),
    pinn.GaussNewton(4, sketch_rows=38, sketch_columns=60, momentum=0.5),
    pinn.NNCG(4, update_every=4),
    pinn.SOAP(4, update_every=2),
]


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

    return wh.Objective(
        network, [wh.Term("data", residual, data)], space=wh.Space(coordinates="abcd")
    ), data


def test_adam_is_torch_adam():
    objective = small()
    theta = objective.parameters.vector().requires_grad_()
    reference = torch.optim.Adam([theta], lr=1e-2)
    for _ in range(5):
        reference.zero_grad()
        objective.loss(objective.parameters.substituted(theta)).backward()
        reference.step()
    pinn.Adam(5, lr=1e-2).start(objective.parameters).advance(objective, 5)
    torch.testing.assert_close(
        objective.parameters.vector(), theta.detach(), rtol=1e-12, atol=0
    )


@pytest.mark.parametrize(
    ("form", "n"), [("primal", 6), ("auto", 6), ("dual", 2), ("auto", 2), ("primal", 2)]
)
def test_gauss_newton_solves_least_squares_in_one_step(form, n):
    objective, data = linear(n)
    stepper = pinn.GaussNewton(1, damping=1e-11, form=form).start(objective.parameters)
    stepper.advance(objective, 1)
    left = data[:, :3] @ objective.parameters.vector() - data[:, 3]
    best = (
        data[:, :3] @ torch.linalg.lstsq(data[:, :3], data[:, 3]).solution - data[:, 3]
    )
    assert float((left - best).abs().max()) < 1e-8


def test_primal_and_dual_steps_agree():
    a, b = small(), small()
    pinn.GaussNewton(1, form="primal").start(a.parameters).advance(a, 1)
    pinn.GaussNewton(1, form="dual").start(b.parameters).advance(b, 1)
    torch.testing.assert_close(
        a.parameters.vector(), b.parameters.vector(), rtol=1e-8, atol=1e-11
    )


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
            objective = objective.with_points(
                {"pde": objective.draw("pde", 40, seed=77)}
            )
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


def broken(after, points=3, slope=1.0):
    """An objective that pulls θ to 10, but whose loss is not finite once θ passes a bound.

    Its points are 1, 1/2, 1/3, …, so that the first row is the first to break.
    """
    network = torch.nn.Linear(1, 1, bias=False, dtype=torch.float64)
    z = 1 / torch.arange(1, points + 1, dtype=torch.float64).unsqueeze(1)

    def residual(tensors, z):
        value = torch.func.functional_call(network, tensors, (z,))
        return slope * (10.0 - value / z) + 0 * torch.sqrt(after - value)

    objective = wh.Objective(
        network, [wh.Term("data", residual, z)], space=wh.Space(coordinates="z")
    )
    objective.parameters.assign(torch.tensor([0.5], dtype=torch.float64))
    return objective


def kinked():
    """An objective with a finite loss, the gradient of which is not: √|x| at x = 0, row 1."""
    network = torch.nn.Linear(1, 1, bias=False, dtype=torch.float64)
    z = torch.tensor([[1.0], [0.0]], dtype=torch.float64)

    def residual(tensors, z):
        return torch.sqrt(torch.func.functional_call(network, tensors, (z,)).abs())

    return wh.Objective(
        network, [wh.Term("data", residual, z)], space=wh.Space(coordinates="z")
    )


def test_lbfgs_recovers_from_going_too_far_once():
    """Its first trial of step 1 along the gradient overshoots; the memory restarts, no failure."""
    objective = broken(after=4.0, slope=3.0)
    stepper = pinn.LBFGS(5, lr=10.0).start(objective.parameters)
    progress = stepper.advance(objective, 5)
    assert "went too far" in progress.messages[0]
    assert (
        "term 'data' is not finite at 2 of 3 points: row 0 (z = 1), row 1"
        in progress.messages[0]
    )
    assert progress.failure is None
    assert not progress.finished
    assert float(objective.parameters.vector()) == 0.5


def test_lbfgs_that_goes_too_far_again_and_again_fails():
    objective = broken(after=0.6, slope=3.0)
    stepper = pinn.LBFGS(5, lr=10.0).start(objective.parameters)
    assert stepper.advance(objective, 5).failure is None
    progress = stepper.advance(objective, 5)
    assert progress.finished
    assert "row 0 (z = 1)" in progress.failure
    assert float(objective.parameters.vector()) == 0.5


def test_lbfgs_counts_the_iterations_it_took():
    objective, _ = linear(6)
    stepper = pinn.LBFGS(100).start(objective.parameters)
    counted = [stepper.advance(objective, 20).iterations for _ in range(3)]
    assert counted[0] < 20
    assert all(0 <= count <= 20 for count in counted)


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


@pytest.mark.parametrize("optimizer", EVERY, ids=lambda o: type(o).__name__)
def test_a_loss_not_finite_at_the_start_fails_and_says_where(optimizer):
    objective = broken(after=0.2)
    progress = optimizer.start(objective.parameters).advance(objective, 4)
    assert progress.finished
    assert progress.iterations == 0
    assert (
        "the loss is nan: term 'data' is not finite at 2 of 3 points"
        in progress.failure
    )
    assert "row 0 (z = 1), row 1 (z = 0.5)" in progress.failure
    assert float(objective.parameters.vector()) == 0.5


@pytest.mark.parametrize("optimizer", EVERY, ids=lambda o: type(o).__name__)
def test_a_gradient_not_finite_fails_and_says_where(optimizer):
    objective = kinked()
    before = objective.parameters.vector()
    progress = optimizer.start(objective.parameters).advance(objective, 4)
    assert progress.finished
    assert (
        "but its gradient is not finite: the gradient of term 'data'"
        in progress.failure
    )
    assert "at 1 of 2 points: row 1 (z = 0)" in progress.failure
    assert torch.equal(objective.parameters.vector(), before)


@pytest.mark.parametrize(
    ("optimizer", "wrong"), [(pinn.Adam(4), "exp_avg"), (pinn.LBFGS(4), "d")]
)
def test_the_state_of_another_network_is_refused(optimizer, wrong):
    objective = small()
    stepper = optimizer.start(objective.parameters)
    stepper.advance(objective, 2)
    state = stepper.state()
    state.tensors[wrong] = state.tensors[wrong][:-1]
    with pytest.raises(ValueError, match=f"optimizer's '{wrong}' has shape"):
        optimizer.start(objective.parameters).restore(state)


@pytest.mark.parametrize("optimizer", EVERY, ids=lambda o: type(o).__name__)
def test_a_state_is_not_changed_by_later_steps(optimizer):
    """Otherwise a state kept in memory could not be gone back to."""
    objective = small()
    stepper = optimizer.start(objective.parameters)
    stepper.advance(objective, 3)
    state = stepper.state()
    before = {name: tensor.clone() for name, tensor in state.tensors.items()}
    stepper.advance(objective, 3)
    again = optimizer.start(objective.parameters)
    again.restore(state)
    again.advance(objective, 3)
    assert all(
        torch.equal(tensor, before[name]) for name, tensor in state.tensors.items()
    )


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


def test_adam_takes_back_its_steps_when_the_loss_breaks():
    objective = broken(after=1.0)
    stepper = pinn.Adam(10, lr=0.3).start(objective.parameters)
    progress = stepper.advance(objective, 9)
    assert progress.finished
    assert 0 < progress.iterations < 9
    assert (
        "the loss is nan: term 'data' is not finite at 1 of 3 points: row 0"
        in progress.failure
    )
    assert float(objective.parameters.vector()) == 0.5


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
