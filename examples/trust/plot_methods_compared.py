"""
Methods against retraining
==========================

Which method ranks the points as retraining does? Forty samples of a classifier are left out, one
at a time; each method's prediction is correlated with what happened.
"""

# %%
import matplotlib.pyplot as plt
import torch
from sklearn.datasets import make_moons
from torch import nn

import whence as wh
from whence.evaluation import lds_scores, leave_one_out_scores

features, labels = make_moons(120, noise=0.25, random_state=0)
x = torch.tensor(features)
y = torch.tensor(labels)
x_test, y_test = (
    torch.tensor(part) for part in make_moons(20, noise=0.25, random_state=1)
)

torch.manual_seed(0)
model = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 2)).double()
objective = wh.Objective.supervised(
    model, (x, y), nn.CrossEntropyLoss(), weight_decay=1e-2
)
# Adam to the neighbourhood of the minimum, then Newton's steps.
optimizer = torch.optim.Adam(model.parameters(), lr=0.02, weight_decay=1e-2)
for _ in range(600):
    optimizer.zero_grad()
    nn.functional.cross_entropy(model(x), y).backward()
    optimizer.step()
found = wh.refit(objective, steps=100, curvature="hessian")
objective.parameters.assign(found.theta)
print(f"gradient {found.gradient_norm:.0e} after {found.steps} steps of Newton's")

# %%
methods = {
    "influence, Hessian": wh.Influence(objective, damping=0.0, curvature="hessian"),
    "influence, Gauss–Newton": wh.Influence(objective, damping=0.0),
    "EmpiricalInfluence": wh.EmpiricalInfluence(objective),
    "GradDot": wh.GradDot(objective),
    "GradCos": wh.GradCos(objective),
}
losses = wh.Loss(x_test, y_test)
single = leave_one_out_scores(
    methods, losses, list(range(0, 120, 3)), curvature="hessian", progress=False
)
halves = lds_scores(methods, losses, subsets=20, curvature="hessian", progress=False)

# %%
# Leaving out one sample, which influence functions are made for, and half of all, which is far.
figure, ax = plt.subplots(figsize=(7.5, 3.6), layout="constrained")
rows = range(len(methods))
for offset, color, name, scores in (
    (-0.2, "#0072B2", "one sample left out", single),
    (0.2, "#E69F00", "half of them left out (LDS)", halves),
):
    values = scores.score.mean("target").values
    bars = ax.barh(
        [row + offset for row in rows], values, 0.38, color=color, label=name
    )
    ax.bar_label(bars, fmt="%.2f", padding=3, fontsize=8)
ax.set_yticks(rows, methods)
ax.invert_yaxis()
ax.set(
    xlabel="Spearman correlation with retraining, mean over 20 test samples",
    xlim=(None, 1.1),
)
figure.legend(frameon=False, loc="outside lower center", ncols=2)
figure
