"""
Solvers compared
================

Nine solvers apply the inverse curvature. Each carries the true residual of its solve; an
approximation with a large one ranks points differently from the exact answer.
"""

# %%
import time

import matplotlib.pyplot as plt
import numpy as np
from scipy.stats import spearmanr

import whence as wh
from whence import pinn

problem = pinn.zoo.load("diffusion")
result = pinn.train(
    problem,
    pinn.MLP([2, 24, 24, 1], seed=0),
    points=600,
    schedule=pinn.GaussNewton(40),
    progress=False,
)
targets = wh.Output(problem.domain.sample(20, "sobol", seed=1))
SOLVERS = {
    "exact": wh.Exact(),
    "conjugate gradients": wh.ConjugateGradient(preconditioner=wh.Nystrom(100)),
    "Nyström, rank 300": wh.Nystrom(300),
    "Nyström, rank 30": wh.Nystrom(30),
    "Arnoldi, rank 30": wh.Arnoldi(30),
    "EKFAC": wh.EKFAC(),
    "DataInf": wh.DataInf(),
    "sketched, 256": wh.Sketched(256),
}

# %%
rows, seconds, residuals = {}, {}, {}
for name, solver in SOLVERS.items():
    start = time.perf_counter()
    influence = wh.Influence(result.objective, solver=solver, damping=1e-9)
    table = influence.attribute(targets)
    seconds[name] = time.perf_counter() - start
    rows[name] = table.values
    residuals[name] = table.attrs["solver_residual"]

agreement = {
    name: np.mean(
        [spearmanr(a, b).statistic for a, b in zip(row, rows["exact"], strict=True)]
    )
    for name, row in rows.items()
}

# %%
# The residual tells which answers are not to be trusted, without knowing the exact one.
figure, (left, right) = plt.subplots(
    1, 2, figsize=(9, 3.8), sharey=True, layout="constrained"
)
labels = [f"{name} ({seconds[name]:.1f} s)" for name in SOLVERS]
left.barh(labels, list(residuals.values()), color="#E69F00")
left.set(xscale="log", xlabel="relative residual of the solve")
bars = right.barh(labels, list(agreement.values()), color="#0072B2")
right.bar_label(bars, fmt="%.2f", padding=3, fontsize=8)
right.set(
    xlabel="agreement with the exact answer",
    xlim=(min(0, min(agreement.values())), 1.15),
)
left.invert_yaxis()
figure.suptitle("damping 1e-9, 20 targets", fontsize=10)
figure
