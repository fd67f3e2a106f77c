"""A loss of probabilities that end in a sigmoid is read as one of logits."""

import functools

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import whence as wh


class Body(nn.Module):
    """A network with a gate, whose output is a logit or its sigmoid, made in several ways."""

    def __init__(self, end):
        super().__init__()
        torch.manual_seed(0)
        self.end = end
        self.a, self.gate, self.b = nn.Linear(3, 5), nn.Linear(3, 5), nn.Linear(5, 1)

    def forward(self, x):
        z = self.b(torch.tanh(self.a(x)) * torch.sigmoid(self.gate(x)))
        return self.end(z)


LOGITS = {"column": lambda z: z, "vector": lambda z: z.squeeze(1)}
X = torch.randn(12, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
Y = (torch.arange(12) % 2).double()
ENDS = {
    "module": ("column", nn.Sigmoid(), nn.BCELoss()),
    "nested": ("column", nn.Sequential(nn.Identity(), nn.Sequential(nn.Sigmoid())), nn.BCELoss()),
    "function": ("column", torch.sigmoid, F.binary_cross_entropy),
    "method": ("vector", lambda z: z.sigmoid().squeeze(1), nn.BCELoss()),
    "summed": ("vector", lambda z: F.sigmoid(z)[:, 0], nn.BCELoss(reduction="sum")),
    "partial": ("column", nn.Sigmoid(), functools.partial(F.binary_cross_entropy, reduction="sum")),
}  # fmt: skip


@pytest.mark.parametrize("name", ENDS)
@pytest.mark.parametrize("curvature", [None, "hessian"])
def test_same_as_logits(name, curvature):
    shape, end, loss = ENDS[name]
    y = Y if shape == "vector" else Y[:, None]
    given = wh.Objective.supervised(Body(end).double(), (X, y), loss)
    reduction = "sum" if name in ("summed", "partial") else "mean"
    logits = wh.Objective.supervised(
        Body(LOGITS[shape]).double(), (X, y), nn.BCEWithLogitsLoss(reduction=reduction)
    )
    assert float(given.loss()) == pytest.approx(float(logits.loss()), rel=1e-12)
    found, expected = (
        wh.Influence(o, damping=1e-2, curvature=curvature).attribute(
            wh.Loss(X[:3], y[:3])
        )
        for o in (given, logits)
    )
    torch.testing.assert_close(*map(torch.as_tensor, (found.values, expected.values)))
    # Outputs are still what the model returns.
    values = wh.Output(X[:3]).values(given)
    torch.testing.assert_close(values, given.network(X[:3]).detach().reshape(-1))


def test_what_cannot_be_read_as_logits_says_so():
    model = Body(lambda z: torch.sigmoid(z).clamp(1e-6, 1 - 1e-6) * 0.999).double()
    objective = wh.Objective.supervised(model, (X, Y[:, None]), nn.BCELoss())
    quality = wh.Influence(objective).attribute(wh.Loss()).quality()
    assert any("let the model return logits" in caveat for caveat in quality.caveats)
    by_hessian = wh.Influence(objective, curvature="hessian").attribute(wh.Loss())
    assert "return logits" not in str(by_hessian.quality())


def test_another_number_of_sigmoids_is_refused():
    class Growing(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Linear(3, 1)
            self.more = False

        def forward(self, x):
            z = torch.sigmoid(self.a(x))
            return torch.sigmoid(z) if self.more else z

    model = Growing().double()
    objective = wh.Objective.supervised(model, (X, Y[:, None]), nn.BCELoss())
    model.more = True
    with pytest.raises(ValueError, match="called 2 sigmoids, and 1 when"):
        objective.loss()
