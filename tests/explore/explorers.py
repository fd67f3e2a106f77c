"""A small run that is served, for the tests of the explorer."""

from contextlib import contextmanager

import numpy as np
from trainings import small

from whence import pinn
from whence.explore import Session
from whence.explore.answers import Answers
from whence.explore.run_questions import RunQuestions
from whence.explore.server import Explorer


def small_run(**options):
    return pinn.train(
        small("burgers", "soft"),
        points={"pde": 200, "initial_u": 20, "dirichlet_u": 30},
        schedule=[pinn.GaussNewton(15)],
        progress=False,
        **options,
    )


def served(*results):
    """Serve the page of a run, or of two that are compared."""
    return sessions_served(*[Session(result) for result in results])


@contextmanager
def sessions_served(*sessions):
    """Serve the page of sessions."""
    runs = [Answers(session, resolution=21) for session in sessions]
    with Explorer(RunQuestions(*runs), port=0) as explorer:
        explorer.start()
        yield explorer


def ode():
    """Return a problem of one coordinate: u' = −u."""
    return pinn.Problem(
        domain=pinn.Interval("x", 0, 1),
        outputs=("u",),
        equations={"pde": lambda u, u_x: u_x + u},
        solution=lambda x: np.exp(-x),
    )


def line_run(**options):
    """Return a small run of one coordinate."""
    return pinn.train(
        ode(),
        pinn.MLP([1, 8, 1], seed=0),
        points=40,
        schedule=[pinn.GaussNewton(10)],
        progress=False,
        **options,
    )


def space():
    """Return a problem of three coordinates of which one is time: u = x + 2·y on a line of t."""
    domain = (
        pinn.Interval("x", 0, 1) * pinn.Interval("y", 0, 2) * pinn.Interval("t", 0, 4)
    )
    return pinn.Problem(
        domain=domain,
        outputs=("u",),
        equations={"pde": lambda u, u_t, u_x: u_t + u_x - u},
        solution=lambda x, y, t: np.exp(t) * (1 + 0 * x * y),
        time="t",
    )


def space_run(**options):
    """Return a small run of three coordinates."""
    return pinn.train(
        space(),
        pinn.MLP([3, 8, 1], seed=0),
        points=120,
        schedule=[pinn.GaussNewton(4)],
        progress=False,
        **options,
    )
