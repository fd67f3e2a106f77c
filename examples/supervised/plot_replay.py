"""
Replaying a training
====================

An influence function asks what a sample does to a minimum, a replay what it did to the training
that was. Here both predict what leaving samples out of the same training really does.
"""

# %%
import matplotlib.pyplot as plt
import numpy as np
import torch
from scipy.stats import spearmanr
from sklearn.datasets import load_breast_cancer
from torch import nn

import whence as wh

table = load_breast_cancer()
x = torch.tensor((table.data - table.data.mean(0)) / table.data.std(0)).float()
y = torch.tensor(table.target)
train = x[:200], y[:200]

torch.manual_seed(0)
model = nn.Sequential(nn.Linear(30, 16), nn.Tanh(), nn.Linear(16, 2))
optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
run = wh.train(model, train, nn.CrossEntropyLoss(), optimizer, epochs=10, batch_size=20)

# %%
# The answer to explain is the loss of the worst of some test samples. Fifty times a twentieth of the
# samples is left out: each of them then weighs nothing, and everything else is as it was. The
# predictions are sums over those left out.
with torch.no_grad():
    losses = nn.functional.cross_entropy(model(x[400:]), y[400:], reduction="none")
worst = 400 + int(losses.argmax())
test = x[worst : worst + 1], y[worst : worst + 1]
rng = np.random.default_rng(0)
left_out = np.stack([rng.permutation(200) < 10 for _ in range(50)])
loss = wh.Loss(test)
before = loss.values(run.objective)
actual = []
for mask in left_out:
    other = run.retrained(torch.tensor(~mask).float())
    with torch.no_grad():
        after = nn.functional.cross_entropy(other(test[0]), test[1])
    actual.append(float(after - before))

methods = {
    "replay": wh.Replay(run),
    "influence function": wh.Influence(run.objective, damping=1e-2),
}
figure, axes = plt.subplots(1, 2, figsize=(8, 3.8), sharey=True, layout="constrained")
for ax, (name, method) in zip(axes, methods.items(), strict=True):
    predicted = left_out @ method.attribute(loss).values[0]
    ax.plot(predicted, actual, "o", color="#0072B2", markersize=4)
    ends = [min(actual), max(actual)]
    ax.plot(ends, ends, color="0.6", linewidth=1, zorder=0)
    rank = spearmanr(predicted, actual).statistic
    ax.set(title=f"{name}: rank correlation {rank:.2f}", xlabel="predicted change")
axes[0].set_ylabel("change of the test loss after retraining")
figure

# %%
# Where the network is far from a minimum, the sizes of an influence function mean little; those
# of the replay are those of the training.
print(wh.Replay(run).attribute(loss).quality())
