"""
Unknown numbers with confidence intervals
=========================================

Mass, damping and stiffness: an oscillator is seen fourteen times, with noise. Damping and frequency
come out with standard errors, and with the ellipse in which both lie.
"""

# %%
import matplotlib.pyplot as plt
import numpy as np
import torch

import whence as wh
from whence import pinn

SIGMA = 0.08
generator = np.random.default_rng(1)
t = np.sort(generator.uniform(0, 6, 14))
truth = {"d": 0.2, "w": 2.0}
phase = np.sqrt(truth["w"] ** 2 - truth["d"] ** 2)


def exact(t):
    """Return the oscillation that starts at 1 at rest."""
    swing = np.cos(phase * t) + truth["d"] / phase * np.sin(phase * t)
    return np.exp(-truth["d"] * t) * swing


seen = exact(t) + SIGMA * generator.standard_normal(14)
problem = pinn.Problem(
    domain=pinn.Interval("t", 0, 6),
    outputs=("y",),
    equations={"ode": lambda y, y_t, y_tt, d, w: y_tt + 2 * d * y_t + w**2 * y},
    conditions=[pinn.Data("seen", t[:, None], y=seen, sigma=SIGMA)],
    unknowns={"d": pinn.Unknown(0.1), "w": pinn.Unknown(1.8, positive=True)},
    ansatz=lambda t, y: 1 + t**2 * y,
)
result = pinn.train(
    problem,
    pinn.MLP([1, 24, 24, 1], bounds=problem.domain.bounds, seed=0),
    points={"ode": 120},
    schedule=pinn.GaussNewton(150),
    progress=False,
)
for name in ("d", "w"):
    unknown = result.unknowns[name]
    low, high = unknown.interval(0.95)
    print(f"{unknown!r}; 95 %: {low:.3f} to {high:.3f}; true {truth[name]}")

# %%
# The solution has standard errors of its own, which grow where nothing was measured.
grid = np.linspace(0, 6, 200)[:, None]
values = np.asarray(result.solution(grid)).ravel()
errors = result.unknowns.standard_errors(wh.Output(torch.tensor(grid)))
errors = np.asarray(errors).ravel()

covariance = np.asarray(result.unknowns.covariance())
center = np.array([float(result.unknowns[name].value) for name in ("d", "w")])
angle = np.linspace(0, 2 * np.pi, 200)
# 5.99 is the 95 % quantile of chi squared with two degrees of freedom.
factor = np.linalg.cholesky(covariance) * np.sqrt(5.99)
ellipse = center[:, None] + factor @ np.stack([np.cos(angle), np.sin(angle)])

figure, (left, right) = plt.subplots(
    1, 2, figsize=(9.5, 3.6), layout="constrained", width_ratios=(1.6, 1)
)
left.fill_between(
    grid[:, 0], values - 2 * errors, values + 2 * errors, color="#56B4E9", alpha=0.5
)
left.plot(grid, values, color="#0072B2", label="network, ±2 standard errors")
left.plot(t, seen, "o", color="#D55E00", markersize=4, label="measured")
left.set(xlabel="t", ylabel="y")
left.legend(frameon=False)
right.plot(*ellipse, color="#0072B2", label="95 % region")
right.plot(*center, "o", color="#0072B2", label="estimate")
right.plot(truth["d"], truth["w"], "*", color="#D55E00", markersize=12, label="truth")
right.set(xlabel="damping d", ylabel="frequency w")
right.margins(y=0.3)
right.legend(frameon=False, ncols=3, loc="upper center", fontsize=8)
figure
