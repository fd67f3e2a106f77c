"""
Where one value of Burgers' equation comes from
===============================================

Train a small network and draw the influence of every training point on one value of its solution.
"""

# %%
import whence as wh
from whence import pinn

problem = pinn.zoo.load("burgers")
result = pinn.train(
    problem,
    pinn.MLP([2, 16, 16, 1], seed=0),
    points=300,
    schedule=pinn.GaussNewton(80),
    progress=False,
)
result.plot()

# %%
# Influence.
row = wh.Influence(result.objective).attribute(wh.Output([[0.1, 0.5]]))
row.plot(problem=problem)
