"""Small trainings, and what must be the same of two."""

import dataclasses
import shutil

import numpy as np
import pytest
import torch
import xarray as xr

from whence import pinn
from whence.pinn.training import run_folder as runs

needs_compiler = pytest.mark.skipif(
    shutil.which("g++") is None, reason="needs a C++ compiler"
)


def small(name="diffusion", constraints="hard"):
    return dataclasses.replace(
        pinn.zoo.load(name, constraints),
        architecture=lambda seed: pinn.MLP([2, 10, 10, 1], seed=seed),
    )


def go(out=None, problem=None, **options):
    given = {
        "points": 40,
        "schedule": [pinn.Adam(30), pinn.LBFGS(20), pinn.GaussNewton(10)],
        "resample": pinn.Resample(
            pinn.InfluenceScore(n_test=30), n=3, every=10, candidates=60
        ),
        "validation": 100,
        "progress": False,
        **options,
    }
    return pinn.train(problem or small(), out=out, **given)


def contents(folder):
    """What must be the same after a run that was cut and resumed, bit for bit."""
    run = runs.RunFolder(folder)
    checkpoint = run.checkpoint()
    tensors = {
        n: (t.dtype, t.shape, t.numpy().tobytes())
        for n, t in checkpoint.tensors.items()
    }
    points = {n: (a.dtype, a.shape, a.tobytes()) for n, a in run.points().items()}
    history = [{**row, "seconds": None} for row in run.history()]
    place = {**checkpoint.numbers["place"], "seconds": None}
    summary = {**run.summary(), "seconds": None}
    return {
        "tensors": tensors,
        "points": points,
        "history": history,
        "optimizer": checkpoint.numbers["optimizer"],
        "place": place,
        "summary": summary,
    }


def assert_same_run(one, other):
    one, other = contents(one), contents(other)
    for what, expected in one.items():
        assert other[what] == expected, what


def scores(seed=0):
    drawn = torch.rand(50, 2, generator=torch.Generator().manual_seed(seed)).double()
    return pinn.SavedScore("pde", drawn, drawn.sum(dim=1))


def attribution(scale=1.0):
    values = scale * np.arange(30.0)
    return xr.DataArray(
        values, dims="point", coords={"x": ("point", values + 1)}, name="influence"
    )
