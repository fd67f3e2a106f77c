"""Methods on more points than a block holds, of three terms, and targets of them."""

import os
import signal

import torch

import whence as wh
from whence import pinn
from whence.attribution import bands, on_disk, tiled
from whence.attribution.on_disk import write_part

N = 2500
"""Points: three blocks of 1000, the last one smaller."""


def objective(constraints="soft", n=N, seed=0):
    problem = pinn.zoo.load("diffusion", constraints)
    network = pinn.MLP([2, 6, 6, 1], seed=seed)
    points = {"pde": n, "initial_u": 30, "dirichlet_u": 20}
    if constraints == "hard":
        points = {"pde": n}
    drawn = {
        term: problem.draw(term, count, seed=seed, method="random")
        for term, count in points.items()
    }
    return problem.objective(network, drawn)


def targets(n=5):
    return wh.Output(torch.linspace(0.1, 0.9, 2 * n, dtype=torch.float64).reshape(n, 2))


def states(network):
    moved = {k: t + 0.1 for k, t in network.state_dict().items()}
    return [dict(network.state_dict()), moved]


MAKE = {
    "influence": wh.Influence,
    "grad_dot": wh.GradDot,
    "grad_cos": wh.GradCos,
    "tracin": lambda of: wh.TracIn(of, states(of.network), [0.1, 0.2]),
    "empirical": lambda of: wh.EmpiricalInfluence(of, directions=3),
}


# --- in a process of its own, which is narrow for good -------------------------------------------


def attribute_and_die(out):
    """Attribute into a folder, and be killed when three parts are written."""
    bands.CHUNK_POINTS = 1000
    tiled.TARGET_BLOCK = 2
    written = []

    def write(job, part):
        write_part(job, part)
        written.append(part)
        if len(written) == 3:
            os.kill(os.getpid(), signal.SIGKILL)

    on_disk.write_part = write
    wh.Influence(objective()).attribute(targets(), out=out)


def attribute_share(out, share):
    """Attribute one of two shares into a folder."""
    bands.CHUNK_POINTS = 1000
    tiled.TARGET_BLOCK = 2
    influence = wh.Influence(objective())
    influence.attribute_share(targets(), out=out, share=share, of=2)
