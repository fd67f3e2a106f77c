"""
Leave one out: the ground truth
===============================

An influence predicts what leaving a point out does. Here thirty points really are left out, one at
a time, and the network is trained again each time.
"""

# %%
import whence as wh
from whence import pinn, plots

problem = pinn.zoo.load("diffusion")
network = pinn.MLP([2, 8, 8, 1], seed=0)
result = pinn.train(
    problem, network, points=120, schedule=pinn.GaussNewton(60), progress=False
)

# A weight decay gives the loss one minimum, to which every refit returns.
objective = result.objective.with_weight_decay(1e-5)
wh.refit(objective, steps=100, curvature="hessian")

# %%
target = wh.Output([[0.4, 0.6]])
chosen = {"pde": list(range(0, 120, 4))}
influence = wh.Influence(objective, damping=0.0, curvature="hessian")
predicted = influence.attribute(target)
retrained = wh.leave_one_out(
    objective, target, chosen, curvature="hessian", progress=False
)
plots.leave_one_out(predicted, retrained)
