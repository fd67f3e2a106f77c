"""
TracIn and influence functions
==============================

TracIn sums what training on a sample did along the way; an influence function says what the end
depends on. Two moons, and a test sample between them.
"""

# %%
import copy

import matplotlib.pyplot as plt
import numpy as np
import torch
from scipy.stats import spearmanr
from sklearn.datasets import make_moons
from torch import nn

import whence as wh

features, labels = make_moons(200, noise=0.2, random_state=0)
x = torch.tensor(features, dtype=torch.float32)
y = torch.tensor(labels)
torch.manual_seed(0)
model = nn.Sequential(nn.Linear(2, 24), nn.Tanh(), nn.Linear(24, 2))
optimizer = torch.optim.Adam(model.parameters(), lr=0.02, weight_decay=1e-3)
checkpoints = []
for step in range(400):
    optimizer.zero_grad()
    nn.functional.cross_entropy(model(x), y).backward()
    optimizer.step()
    if step % 80 == 79:
        checkpoints.append(copy.deepcopy(model.state_dict()))

# %%
target = torch.tensor([[0.6, 0.1]])
label = model(target).argmax(dim=1)
objective = wh.Objective.supervised(model, (x, y), nn.CrossEntropyLoss())
rows = {
    "influence": wh.Influence(objective, damping=1e-3),
    "TracIn": wh.TracIn(objective, checkpoints, learning_rates=0.02),
}
loss = wh.Loss(target, label)
values = {name: method.attribute(loss).values[0] for name, method in rows.items()}

# Roots, so that one strong sample does not make all others white.
roots = {name: np.sign(row) * np.sqrt(abs(row)) for name, row in values.items()}

figure, axes = plt.subplots(
    1, 2, figsize=(9, 4), sharex=True, sharey=True, layout="constrained"
)
for ax, (name, row) in zip(axes, roots.items(), strict=True):
    limit = abs(row).max()
    for kind, marker in ((0, "o"), (1, "s")):
        mask = labels == kind
        ax.scatter(
            *features[mask].T, c=row[mask], marker=marker, cmap="PuOr_r",
            vmin=-limit, vmax=limit, edgecolor="0.5", linewidth=0.4,
        )  # fmt: skip
    ax.plot(*target[0], "*", color="#009E73", markersize=15, markeredgecolor="black")
    ax.set(title=name, xlabel="orange helps, purple harms", aspect="equal")
figure

# %%
# At the end few samples hold the boundary where the star is; on the way there many did.
for name, row in values.items():
    strongest = np.sort(abs(row))[::-1]
    print(
        f"{name}: the ten strongest have {100 * strongest[:10].sum() / strongest.sum():.0f} %"
    )
agreement = spearmanr(*values.values()).statistic
print(f"Spearman correlation of the two: {agreement:.2f}")
