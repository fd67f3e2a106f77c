"""
Leave one out: the ground truth
===============================

An influence predicts what leaving a point out does. Here every point of a small regression really is
left out, one at a time, and the network is trained again each time.
"""

# %%
import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import nn

import whence as wh
from whence import plots

generator = np.random.default_rng(0)
x = torch.tensor(np.sort(generator.uniform(-2, 2, 50)))[:, None]
y = torch.sin(2 * x) + 0.2 * torch.tensor(generator.standard_normal((50, 1)))
y[30] += 1.2

torch.manual_seed(0)
model = nn.Sequential(nn.Linear(1, 8), nn.Tanh(), nn.Linear(8, 1)).double()
# A weight decay gives the loss a minimum to which every refit returns.
objective = wh.Objective.supervised(model, (x, y), wh.Squared(), weight_decay=1e-3)
nearby = wh.refit(objective, steps=200)
objective.parameters.assign(nearby.theta)
found = wh.refit(objective, steps=50, curvature="hessian")
objective.parameters.assign(found.theta)
print(f"gradient {found.gradient_norm:.0e} after {found.steps} of Newton's steps")

# %%
target = wh.Output(torch.tensor([[0.5]]).double())
influence = wh.Influence(objective, damping=0.0, curvature="hessian")
predicted = influence.attribute(target)
retrained = wh.leave_one_out(
    objective, target, list(range(50)), curvature="hessian", progress=False
)
plots.leave_one_out(predicted, retrained)

# %%
# The strongest point, and the fit with and without it.
strongest = int(abs(predicted.values[0]).argmax())
without = wh.drop_points(objective, [strongest])
again = wh.refit(without, curvature="hessian")
grid = torch.linspace(-2, 2, 200).double()[:, None]
with objective.parameters.at(again.theta):
    refitted = model(grid).detach()

figure, ax = plt.subplots(figsize=(6.5, 3.8), layout="constrained")
ax.scatter(x, y, s=14, color="0.6")
ax.scatter(x[strongest], y[strongest], s=50, color="#D55E00", label="strongest point")
ax.plot(grid, model(grid).detach(), color="#0072B2", label="fit")
ax.plot(grid, refitted, "--", color="#D55E00", label="fit without it")
ax.axvline(0.5, color="#009E73", linewidth=0.8, label="where the target is")
ax.set(xlabel="x", ylabel="y")
ax.legend(frameon=False, fontsize=8, loc="lower right")
figure
