"""Networks that ``torch.func`` cannot follow: exact by reverse mode, said once, and kept."""

import logging

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

import whence as wh


class Attention(nn.Module):
    """A shared table of positions, and a mask that is made only where one is needed."""

    def __init__(self):
        super().__init__()
        self.words, self.places = nn.Embedding(11, 8), nn.Embedding(16, 8)
        self.register_buffer("place", torch.arange(16)[None])
        self.qkv, self.out = nn.Linear(8, 24), nn.Linear(8, 3)

    def forward(self, ids, mask=None):
        h = self.words(ids) + self.places(self.place[:, : ids.shape[1]])
        q, k, v = self.qkv(h).unflatten(-1, (2, 12)).transpose(1, 2).chunk(3, dim=-1)
        bias = None
        if mask is not None and not mask.all():
            bias = torch.zeros(len(ids), 1, 1, ids.shape[1], dtype=h.dtype)
            bias = bias.masked_fill(mask[:, None, None] == 0, torch.finfo(h.dtype).min)
        a = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        return self.out(a.transpose(1, 2).flatten(2)[:, 0])


class Shared(nn.Module):
    """A function of a parameter shared by all samples, and something done to the features."""

    def __init__(self, kind):
        super().__init__()
        self.kind = kind
        self.a, self.cell = nn.Linear(3, 4), nn.GRUCell(3, 4)
        self.shift, self.b = nn.Parameter(torch.ones(1, 4)), nn.Linear(4, 2)

    def forward(self, x):
        h = torch.tanh(self.a(x) + self.shift.sin())
        if self.kind == "item" and float(x.abs().max()) > 1e3:
            h = 2 * h
        if self.kind == "hidden value" and h.sum() > 1e9:
            h = 2 * h
        if self.kind == "cell":
            h = h + self.cell(x)
        if self.kind == "checkpoint":
            h = checkpoint(torch.tanh, h, use_reentrant=False)
        return self.b(h)


def brute(objective):
    """Return the gradient of every sample's loss alone, (n, P), by autograd."""
    term = objective.term("data")
    live = objective.parameters.live()
    rows = []
    for i in range(len(term.points)):
        alone = term.points[i : i + 1]
        loss = term.value(term.residual(live, alone), alone)[0]
        chosen = [live[name] for name in objective.parameters.names]
        parts = torch.autograd.grad(
            loss, chosen, allow_unused=True, materialize_grads=True
        )
        rows.append(torch.cat([part.flatten() for part in parts]))
    return torch.stack(rows)


def attending():
    ids = torch.randint(1, 11, (9, 6))
    mask = torch.ones(9, 6)
    mask[:4, 4:] = 0
    return Attention(), {"ids": ids, "mask": mask}


KINDS = ["attention", "item", "hidden value", "cell", "checkpoint"]


@pytest.mark.parametrize("kind", KINDS)
def test_exact_said_once_and_kept(kind, caplog):
    torch.manual_seed(0)
    model, inputs = Shared(kind), torch.randn(9, 3, dtype=torch.float64)
    if kind == "attention":
        model, inputs = attending()
    data = inputs, torch.arange(9) % 2
    objective = wh.Objective.supervised(model.double(), data, nn.CrossEntropyLoss())
    gradients = brute(objective)
    with caplog.at_level(logging.WARNING, "whence"):
        products = wh.GradDot(objective).attribute(wh.Loss()).values
        torch.testing.assert_close(
            torch.as_tensor(products), gradients @ gradients.T / 9
        )
        own = wh.GradDot(objective).self_influence().values
        torch.testing.assert_close(torch.as_tensor(own), gradients.square().sum(1) / 9)
    assert sum("reverse mode" in record.message for record in caplog.records) <= 1

    matrix = wh.GaussNewtonMatrix(objective).dense()
    rows = wh.Jacobian(objective, scaled=True).dense()
    torch.testing.assert_close(matrix, rows.T @ rows)
    solved = wh.Influence(objective, damping=1e-2, solver=wh.ConjugateGradient())
    exact = wh.Influence(objective, damping=1e-2, solver=wh.Exact("primal"))
    some = [influence.attribute(wh.Loss()).values for influence in (solved, exact)]
    torch.testing.assert_close(*map(torch.as_tensor, some), rtol=1e-5, atol=1e-8)


def test_attention_has_a_hessian():
    torch.manual_seed(0)
    model, inputs = attending()
    data = inputs, torch.arange(9) % 2
    objective = wh.Objective.supervised(
        model.double(), data, nn.CrossEntropyLoss(), parameters="out.*"
    )
    theta = objective.parameters.vector()

    def loss(vector):
        return objective.loss(objective.parameters.substituted(vector))

    expected = torch.autograd.functional.hessian(loss, theta)
    eye = torch.eye(len(theta), dtype=theta.dtype)
    torch.testing.assert_close(wh.Hessian(objective).matmat(eye), expected)


def test_why_it_is_slow_is_said_once(caplog):
    torch.manual_seed(0)
    data = torch.randn(9, 3), torch.arange(9) % 2
    every = wh.Objective.supervised(Shared("item"), data, nn.CrossEntropyLoss())
    with caplog.at_level(logging.WARNING, "whence"):
        wh.GradDot(every).self_influence()
        wh.GradDot(every).self_influence()
    assert sum("values of its inputs" in r.message for r in caplog.records) == 1


def test_random_numbers_in_evaluation_mode_are_refused():
    class Random(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.shift = nn.Linear(3, 4), nn.Parameter(torch.ones(4))

        def forward(self, x):
            return F.dropout(self.a(x) + self.shift, training=True)

    data = torch.randn(9, 3), torch.arange(9) % 4
    with pytest.raises(ValueError, match=r"F.dropout\(x, training=self.training\)"):
        wh.Objective.supervised(Random(), data, nn.CrossEntropyLoss())
