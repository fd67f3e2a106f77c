"""SOAP is the package's, on the network's own matrices."""

import sys

import pytest
import torch

from whence import pinn


def small():
    problem = pinn.zoo.load("diffusion")
    return problem.objective(pinn.MLP([2, 8, 8, 1], seed=0), problem.sample(40, seed=0))


def of_both(steps):
    """Return what so many steps come to here, and in the package."""
    packaged = pytest.importorskip("pytorch_optimizer.optimizer.soap")
    objective = small()
    reference = small()
    network = reference.network
    optimizer = packaged.SOAP(
        reference.parameters.live().values(), lr=1e-2, weight_decay=0.0
    )
    for _ in range(steps):
        optimizer.zero_grad()
        reference.loss(dict(network.named_parameters())).backward()
        optimizer.step()

    pinn.SOAP(steps, lr=1e-2).start(objective.parameters).advance(objective, steps)
    return objective, reference


def test_steps_are_those_of_the_package():
    # The eleventh is the first with bases that were renewed. The package rounds these to single
    # precision, which from then on magnifies the last digits, by as much as the processor has it.
    objective, reference = of_both(11)
    torch.testing.assert_close(
        objective.parameters.vector(),
        reference.parameters.vector(),
        rtol=0,
        atol=1e-7,
    )
    objective, reference = of_both(25)
    assert float(objective.loss()) == pytest.approx(float(reference.loss()), rel=1e-2)


def test_the_package_is_named_where_it_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "pytorch_optimizer", None)
    monkeypatch.setitem(sys.modules, "pytorch_optimizer.optimizer.soap", None)
    with pytest.raises(ImportError, match=r"pytorch-optimizer: .*whence\[soap\]"):
        pinn.SOAP(5).start(small().parameters)


def test_the_state_of_another_network_is_refused():
    objective = small()
    stepper = pinn.SOAP(5).start(objective.parameters)
    stepper.advance(objective, 2)
    state = stepper.state()
    name = next(name for name in state.tensors if name.startswith("Q/"))
    state.tensors[name] = state.tensors[name][:-1]
    with pytest.raises(ValueError, match="state of another network"):
        pinn.SOAP(5).start(objective.parameters).restore(state)


@pytest.mark.parametrize(
    "wrong", [{"lr": -1.0}, {"betas": (0.9, 1.0)}, {"update_every": 0}]
)
def test_wrong_options_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        pinn.SOAP(5, **wrong)
