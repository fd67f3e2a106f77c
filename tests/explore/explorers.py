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


@contextmanager
def served(result, **options):
    session = Session(result)
    with Explorer(
        RunQuestions(Answers(session, resolution=21)), port=0, **options
    ) as explorer:
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
