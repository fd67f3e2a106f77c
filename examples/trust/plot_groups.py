"""
Groups: the exact effect and the sum of influences
==================================================

Points that say the same replace each other, so the sum of their influences is not what happens when
all of them go. ``group_influence`` has the exact effect in the Gauss-Newton model.
"""

# %%
import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import nn

import whence as wh

generator = np.random.default_rng(0)
design = torch.tensor(generator.standard_normal((80, 6)))
y = design @ torch.tensor(generator.standard_normal((6, 1)))
y += 0.3 * torch.tensor(generator.standard_normal((80, 1)))

fit = torch.linalg.lstsq(design, y).solution
model = nn.Linear(6, 1, bias=False).double()
with torch.no_grad():
    model.weight.copy_(fit.T)

# %%
# Groups of 1 to 40 rows that lie next to each other along the first column.
order = np.argsort(design[:, 0].numpy())
groups = {
    f"{size} rows from {start}": order[start : start + size].tolist()
    for size in (1, 5, 10, 20, 40)
    for start in range(0, 41, 8)
}
target = wh.Output(torch.ones(1, 6).double())
influence = wh.Influence(model, (design, y), wh.Squared(), damping=0.0)
exact = wh.group_influence(influence, target, groups).values[0]
summed = wh.group_influence(influence, target, groups, method="first_order").values[0]

true = []
for rows in groups.values():
    kept = np.setdiff1d(np.arange(80), rows)
    again = torch.linalg.lstsq(design[kept], y[kept]).solution
    true.append(float((again - fit).sum()))
print(f"largest error of the exact effect: {np.abs(exact - true).max():.1e}")

# %%
figure, ax = plt.subplots(figsize=(5.2, 4.6), layout="constrained")
sizes = [len(rows) for rows in groups.values()]
ax.axline((0, 0), slope=1, color="0.7", linewidth=1)
ax.scatter(true, summed, s=sizes, color="#E69F00", label="sum of influences")
ax.scatter(true, exact, s=sizes, color="#0072B2", label="exact group effect")
ax.set(xlabel="change after refitting", ylabel="predicted change")
ax.set_title("larger marks: larger groups", fontsize=9)
ax.grid(color="0.9")
ax.legend(frameon=False)
figure
