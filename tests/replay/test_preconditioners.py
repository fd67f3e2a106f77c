"""What optimizers multiply gradients with, against what torch does to parameters."""

import pytest
import torch

from whence.replay.preconditioners import preconditioner_of

RATE = 0.1
SGDS = {
    "plain": {},
    "momentum": {"momentum": 0.8},
    "dampening": {"momentum": 0.8, "dampening": 0.5},
    "nesterov": {"momentum": 0.8, "nesterov": True},
    # torch dampens the buffer of the momentum alone.
    "dampening without momentum": {"dampening": 0.5},
}


@pytest.mark.parametrize("options", SGDS.values(), ids=SGDS)
def test_a_gradient_moves_parameters_by_what_it_is_multiplied_with(options):
    """A gradient of 1 in one step, and of 0 in all that follow."""
    parameter = torch.zeros(1, dtype=torch.float64)
    optimizer = torch.optim.SGD([parameter], lr=RATE, **options)
    parameter.grad = torch.zeros_like(parameter)
    optimizer.step()  # without which the buffer would begin at the gradient
    for k in range(200):
        parameter.grad = torch.full_like(parameter, float(k == 0))
        optimizer.step()

    scale = preconditioner_of(optimizer)
    factor = scale(parameter, {}, optimizer.param_groups[0])
    torch.testing.assert_close(-RATE * factor, parameter)


def test_what_maximizes_is_refused():
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=RATE, maximize=True)
    with pytest.raises(ValueError, match="maximize"):
        preconditioner_of(optimizer)


def test_an_optimizer_without_a_formula_is_named():
    optimizer = torch.optim.Rprop([torch.zeros(1)])
    with pytest.raises(ValueError, match=r"Rprop.*one of Adagrad, Adam"):
        preconditioner_of(optimizer)
