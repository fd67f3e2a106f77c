"""
Influential rows of a regression
================================

For a linear model, leverage and Cook's distance are what statisticians have drawn since 1977. The
same two functions serve any network.
"""

# %%
import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.datasets import load_diabetes
from torch import nn

import whence as wh

data = load_diabetes()
x = torch.tensor(data.data / data.data.std(axis=0))
y = torch.tensor(data.target[:, None] / data.target.std())
x, y = x[:150], y[:150].clone()
y[7] += 4.0  # a slip of the pen

model = nn.Linear(10, 1).double()
design = torch.cat([x, torch.ones(150, 1).double()], dim=1)
fit = torch.linalg.lstsq(design, y).solution
with torch.no_grad():
    model.weight.copy_(fit[:-1].T)
    model.bias.copy_(fit[-1])

# %%
influence = wh.Influence(model, (x, y), wh.Squared(), damping=0.0)
leverage = wh.leverage(influence).values
cook = wh.cooks_distance(influence).values
residuals = (y - model(x)).detach().numpy().ravel()

figure, ax = plt.subplots(figsize=(6.5, 4), layout="constrained")
drawn = ax.scatter(
    leverage, residuals, c=cook, s=20 + 600 * cook, cmap="viridis", edgecolor="0.4"
)
worst = int(np.argmax(cook))
ax.annotate(
    f"row {worst}", (leverage[worst], residuals[worst]), (8, -4),
    textcoords="offset points",
)  # fmt: skip
ax.axhline(0, color="0.7", linewidth=0.8)
ax.set(xlabel="leverage", ylabel="residual", title="150 rows, 11 parameters")
figure.colorbar(drawn, label="Cook's distance")
figure

# %%
# What three predictions would be without that row: by the influence of a group of one, which of a
# linear model is exact, and by fitting again.
predicted = wh.group_influence(influence, wh.Output(x[:3]), {"row": [worst]})
kept = torch.arange(150) != worst
again = torch.linalg.lstsq(design[kept], y[kept]).solution
print("predicted change", predicted.values.ravel().round(6))
print("after refitting ", (design[:3] @ (again - fit)).numpy().ravel().round(6))
