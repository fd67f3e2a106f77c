"""What resampling by influence costs in DeepXDE's own loop, beside its ``PDEPointResampler``.

``python -m benchmarks.deepxde_resampling`` (after ``make bench``): Burgers' equation as in
DeepXDE's example (3 × 20 tanh, 2540 points inside, 80 on the boundary, 160 at the start), Adam,
points renewed every 100 iterations, all of those inside; the loop with whence's
``InfluenceResampler`` and ``RARResampler`` in place of DeepXDE's, in turn. The bar is on the whole
of training.
"""

from __future__ import annotations

import argparse
import os

os.environ.setdefault("DDE_BACKEND", "pytorch")

import deepxde as dde
import numpy as np
import torch

from benchmarks._measure import paired
from whence.adapters.deepxde import InfluenceResampler, RARResampler

MAX_RATIO = 1.3
PERIOD = 100


def burgers() -> dde.Model:
    """Return DeepXDE's model of Burgers' equation."""

    def equation(x, y):
        y_x = dde.grad.jacobian(y, x, i=0, j=0)
        y_t = dde.grad.jacobian(y, x, i=0, j=1)
        y_xx = dde.grad.hessian(y, x, i=0, j=0)
        return y_t + y * y_x - 0.01 / np.pi * y_xx

    space = dde.geometry.Interval(-1, 1)
    place = dde.geometry.GeometryXTime(space, dde.geometry.TimeDomain(0, 0.99))
    edge = dde.icbc.DirichletBC(place, lambda x: 0, lambda _, on: on)
    start = dde.icbc.IC(place, lambda x: -np.sin(np.pi * x[:, 0:1]), lambda _, on: on)
    data = dde.data.TimePDE(
        place,
        equation,
        [edge, start],
        num_domain=2540,
        num_boundary=80,
        num_initial=160,
    )
    torch.manual_seed(0)
    model = dde.Model(data, dde.nn.FNN([2, 20, 20, 20, 1], "tanh", "Glorot normal"))
    model.compile("adam", lr=1e-3, verbose=0)
    return model


def training(resampler, iterations: int):
    """Return a function that trains a new model with a new resampler."""

    def train() -> None:
        burgers().train(
            iterations=iterations,
            display_every=iterations,
            callbacks=[resampler()],
            verbose=0,
        )

    return train


def main() -> None:
    """Print seconds, ratios and the bar."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--iterations", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()

    contestants = {
        "PDEPointResampler": lambda: dde.callbacks.PDEPointResampler(period=PERIOD),
        "InfluenceResampler": lambda: InfluenceResampler(period=PERIOD),
        "RARResampler": lambda: RARResampler(PERIOD, None, update="replace", k=2),
    }
    functions = {
        name: training(make, options.iterations) for name, make in contestants.items()
    }
    timings = paired(functions, options.repeats)
    base = timings["PDEPointResampler"].median
    print("| callback | seconds | by PDEPointResampler |\n| --- | --- | --- |")
    for name, timing in timings.items():
        print(f"| {name} | {timing} | {timing.median / base:.2f}× |")
    ratio = timings["InfluenceResampler"].median / base
    met = "met" if ratio <= MAX_RATIO else "missed"
    print(f"\nInfluenceResampler: {ratio:.2f}×, bar: at most {MAX_RATIO}×: {met}")


if __name__ == "__main__":
    main()
