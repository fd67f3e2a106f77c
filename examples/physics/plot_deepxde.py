"""
A DeepXDE script, and where its answer comes from
=================================================

Burgers' equation as DeepXDE's own example has it. Three lines ask whence: the model is taken as it
is, with its equation, its conditions and its points.
"""

import deepxde as dde
import numpy as np

import whence as wh
from whence import pinn
from whence.adapters.deepxde import from_model, use_optimizer

dde.config.set_default_float("float64")
dde.config.set_random_seed(0)


def equation(x, y):
    """Return what must vanish everywhere."""
    dy_x = dde.grad.jacobian(y, x, i=0, j=0)
    dy_t = dde.grad.jacobian(y, x, i=0, j=1)
    dy_xx = dde.grad.hessian(y, x, i=0, j=0)
    return dy_t + y * dy_x - 0.03 / np.pi * dy_xx


space = dde.geometry.Interval(-1, 1)
place = dde.geometry.GeometryXTime(space, dde.geometry.TimeDomain(0, 0.99))
edge = dde.icbc.DirichletBC(place, lambda x: 0, lambda _, on_boundary: on_boundary)
start = dde.icbc.IC(
    place, lambda x: -np.sin(np.pi * x[:, 0:1]), lambda _, on_initial: on_initial
)
data = dde.data.TimePDE(
    place, equation, [edge, start], num_domain=600, num_boundary=60, num_initial=100
)
network = dde.nn.FNN([2] + [16] * 2 + [1], "tanh", "Glorot normal")
model = dde.Model(data, network)
model.compile("adam", lr=1e-3)

# %%
# DeepXDE trains it, here by an optimizer of whence in its own loop.
use_optimizer(model, pinn.GaussNewton(80))
model.train(iterations=80, display_every=20)

# %%
# The three lines. The value owes most to points of the equation beside it, and to those on the way
# by which it came there; conditions have little to say on it.
influence = wh.Influence(from_model(model))
effects = influence.attribute(wh.Output([[0.05, 0.8]]))
figure = effects.plot()
