"""Losses are compared up to the rounding of residuals that nearly vanish."""

import torch

from whence.adapters.agreement import disagreements
from whence.objective import Objective


def test_rounding_of_a_trained_residual_is_no_disagreement():
    model = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.ones_(model.weight)
    data = (torch.ones(3, 1), torch.ones(3, 1))
    objective = Objective.supervised(model, data, torch.nn.MSELoss())

    def losses(shift, scale=1.0):
        def at_present():
            residual = float(objective.parameters.vector()) - 1 + shift
            return {"data": scale * residual**2}

        return at_present

    # 1e-5 of the loss's root is 10 % at the minimum and nothing elsewhere.
    assert disagreements(objective, losses(1e-5), losses(1.1e-5)) == {}
    assert list(disagreements(objective, losses(1e-5), losses(1e-5, 2))) == ["data"]
    assert list(disagreements(objective, losses(0.1), losses(0.2))) == ["data"]
    assert float(objective.parameters.vector()) == 1.0
