"""
An inverse problem with a bad sensor
====================================

The decay rate k of ``y' = -k y`` is found from twelve noisy measurements, one of which is wrong.
Which measurement moves k, and which fits the others least?
"""

# %%
import matplotlib.pyplot as plt
import numpy as np

import whence as wh
from whence import pinn

SIGMA = 0.01
generator = np.random.default_rng(0)
times = np.linspace(0.1, 1.9, 12)
measured = np.exp(-1.3 * times) + SIGMA * generator.standard_normal(12)
measured[8] += 0.1  # ten standard deviations


def fitted(keep):
    """Return the training on some of the measurements."""
    problem = pinn.Problem(
        domain=pinn.Interval("t", 0, 2),
        outputs=("y",),
        equations={"ode": lambda y, y_t, k: y_t + k * y},
        conditions=[
            pinn.Data("sensors", times[keep][:, None], y=measured[keep], sigma=SIGMA)
        ],
        unknowns={"k": pinn.Unknown(0.5, positive=True), "y0": 0.8},
        ansatz=lambda t, y, y0: y0 + t * y,
    )
    return pinn.train(
        problem,
        pinn.MLP([1, 12, 1], seed=0),
        points={"ode": 30},
        schedule=pinn.GaussNewton(60),
        progress=False,
    )


everything = np.arange(12)
result = fitted(everything)
print(result.unknowns["k"])

# %%
# The influence of each measurement on k is what k would change by without it.
influence = wh.Influence(result.objective)
row = influence.attribute(wh.UnknownValue("k")).isel(target=0).sel(term="sensors")

figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
left.bar(range(12), row.values, color="#0072B2")
left.set(xlabel="measurement", ylabel="predicted change of k", title="without it")
right.plot(times, measured, "o", color="#D55E00", label="measured")
grid = np.linspace(0, 2, 100)[:, None]
right.plot(grid, result.solution(grid), color="#0072B2", label="network")
right.set(xlabel="t", ylabel="y")
right.legend(frameon=False)

# %%
# Deviations from the fit without each, in standard errors, name the culprit:
print(result.suspects("sensors").head(3).round(3))

# %%
# Without it, k is right.
print(fitted(np.delete(everything, 8)).unknowns["k"])
