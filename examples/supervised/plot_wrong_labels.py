"""
Wrong labels in images
======================

A tenth of the labels of 500 handwritten digits are made wrong. What holds a wrong label up is that
image alone: its influence on itself is large. So is its loss, as long as the network has not learnt
it by heart.
"""

# %%
import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn

import whence as wh
from whence import plots
from whence.evaluation import detection, label_report, suspects

digits = load_digits()
generator = np.random.default_rng(0)
chosen = generator.permutation(len(digits.target))[:500]
x = torch.tensor(digits.data[chosen] / 16, dtype=torch.float32)
true = digits.target[chosen]

wrong = np.zeros(500, dtype=bool)
wrong[generator.choice(500, 50, replace=False)] = True
shifted = (true + generator.integers(1, 10, 500)) % 10
y = torch.tensor(np.where(wrong, shifted, true))

torch.manual_seed(0)
model = nn.Sequential(nn.Linear(64, 24), nn.ReLU(), nn.Linear(24, 10))
optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
for _ in range(400):
    optimizer.zero_grad()
    nn.functional.cross_entropy(model(x), y).backward()
    optimizer.step()
fitted = float((model(x).argmax(dim=1) == y).float().mean())
print(f"{100 * fitted:.0f} % of the labels, wrong ones among them, are learnt")

# %%
# Three rankings, and how many wrong labels are found when looking at so many images.
objective = wh.Objective.supervised(model, (x, y), nn.CrossEntropyLoss())
influence = wh.Influence(objective)
rankings = {
    "influence on itself": suspects(influence),
    "GradDot on itself": suspects(wh.GradDot(objective)),
    "the loss alone": suspects(influence, "loss"),
}
plots.detection({name: detection(table, wrong) for name, table in rankings.items()})

# %%
# The mean suspicion by label, of wrong and of right ones.
plots.label_report(label_report(rankings["influence on itself"], wrong))
