"""
A good and a broken network side by side
========================================

Both give a smooth answer and a small loss. Where the answers come from is not the same: on one
scale, the value at a front rests on the points that characteristics bring there; with ten times the
viscosity hardly any point matters.
"""

# %%
import math

import torch

import whence as wh
from whence import pinn, plots
from whence.diagnosis.indicators import Causality, Proximity, measure

TARGET = wh.Output([[0.05, 0.8]])


def attributed(viscosity):
    """Train Burgers' equation; return the problem and its influences."""
    problem = pinn.Problem(
        name="burgers",
        domain=pinn.Interval("x", -1, 1) * pinn.Interval("t", 0, 1),
        outputs=("u",),
        equations={"pde": lambda u, u_t, u_x, u_xx: u_t + u * u_x - viscosity * u_xx},
        ansatz=lambda x, t, u: -torch.sin(math.pi * x) + (1 - x**2) * t * u,
    )
    result = pinn.train(
        problem,
        pinn.MLP([2, 20, 20, 1], seed=0),
        points=400,
        schedule=pinn.GaussNewton(60),
        progress=False,
    )
    print(f"viscosity {viscosity}: loss {result.summary['loss']:.1e}")
    return problem, wh.Influence(result.objective)


runs = {"good": attributed(0.03), "broken": attributed(0.3)}
problem = runs["good"][0]
rows = {
    name: influence.attribute(TARGET).isel(target=0)
    for name, (_, influence) in runs.items()
}
plots.compared_influence(rows, problem)

# %%
# In numbers, over 200 targets: the share of influence from earlier times, and from nearby. The lines
# are what the places of the points alone would give. Both runs take four fifths from the past, where
# half of the points lie: an indicator tells models apart only where physics does.
places = problem.domain.sample(200, "sobol", seed=2)
indicators = {"causality": Causality(), "proximity": Proximity()}
numbers = {
    name: measure(influence.attribute(wh.Output(places, "u")), indicators)
    for name, (_, influence) in runs.items()
}
plots.indicator_bars(numbers)
