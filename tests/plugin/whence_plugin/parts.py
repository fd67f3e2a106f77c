"""A network, a sampling, a score, a selection and so on, as small as they can be."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

import whence as wh
from whence import pinn
from whence.attribution.method import Method
from whence.attribution.tiles import Solved
from whence.curvature.solvers import Solution
from whence.pinn.optimizers import OptimizerState, Progress


class Bilinear(nn.Module):
    """A product of two linear functions through a hyperbolic tangent."""

    def __init__(self, inputs: int = 2, seed: int = 0):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        weights = torch.randn(2, inputs, inputs, generator=generator).double()
        self.inputs = inputs
        self.first = nn.Parameter(weights[0])
        self.second = nn.Parameter(weights[1, :1])

    def forward(self, x):
        """Return the output, (n, 1)."""
        hidden = torch.tanh(nn.functional.linear(x, self.first))
        return nn.functional.linear(hidden, self.second)

    def options(self):
        """Return what makes it again."""
        return {"inputs": self.inputs}

    @classmethod
    def from_options(cls, options):
        """Return a network of the same architecture."""
        return cls(**options)


class Diagonal:
    """Points on the diagonal of the unit cube."""

    may_return_fewer = False
    is_ordered = True

    def points(self, n, dimension, seed):
        """Return points of the unit cube, (n, dimension)."""
        along = (np.arange(n) + 0.5) / n
        return np.repeat(along[:, None], dimension, axis=1)


@dataclass(frozen=True)
class DistanceScore:
    """Distance of a candidate from the origin, to some power.

    Parameters
    ----------
    power:
        Exponent of the distance.
    """

    power: float = 1.0

    def score(self, objective, candidates):
        """Return one value per candidate, (n,)."""
        points = torch.cat(list(candidates.values()))
        return points.norm(dim=1) ** self.power


@dataclass(frozen=True)
class EveryOther:
    """Every other candidate."""

    def select(self, scores, n, seed):
        """Return n row numbers."""
        return torch.arange(len(scores))[::2][:n]


@dataclass(frozen=True)
class Shuffle:
    """As many new points as there are."""

    every: int = 5

    def check(self, objective):
        """Any objective will do."""

    def update_points(self, objective, round, seed):
        """Return new points of the first term."""
        name = next(iter(objective.terms))
        n = len(objective.terms[name].points)
        return {name: objective.draw(name, n, seed + round)}


@dataclass(frozen=True)
class Descent:
    """Gradient descent with momentum.

    Parameters
    ----------
    iterations:
        Steps of this stage.
    lr:
        Step length.
    momentum:
        Share of the former step.
    """

    iterations: int
    lr: float = 1e-2
    momentum: float = 0.9
    chunk = 5
    log_every = 5
    by_gradient = True

    def start(self, parameters):
        """Return a stepper."""
        return DescentStepper(self, parameters)


class DescentStepper:
    """Gradient descent at work."""

    def __init__(self, options, parameters):
        self.options = options
        self.parameters = parameters
        self.velocity = torch.zeros_like(parameters.vector())

    def advance(self, objective, iterations):
        """Take steps."""
        for _ in range(iterations):
            _, gradient = objective.loss_and_gradient()
            self.velocity = self.options.momentum * self.velocity - gradient
            step = self.options.lr * self.velocity
            self.parameters.assign(self.parameters.vector() + step)
        return Progress(iterations, None)

    def state(self):
        """Return the velocity."""
        return OptimizerState({"velocity": self.velocity.clone()})

    def restore(self, state):
        """Take up the velocity."""
        self.velocity = state.tensors["velocity"].clone()


@dataclass(eq=False)
class ByLoss(pinn.Weighting):
    """Weights in proportion to the terms' losses.

    Parameters
    ----------
    power:
        Exponent of the loss.
    update_every:
        Steps between two updates.
    """

    power: float = 0.5
    update_every: int = 5

    def renew_weights(self, terms):
        """Return the new weights."""
        return {name: 1 + loss**self.power for name, loss in terms.losses().items()}


@dataclass(frozen=True)
class DiagonalOnly:
    """Solves by the diagonal of the curvature alone."""

    name = "diagonal_only"

    def factor(self, operator, damping):
        """Return what solves."""
        diagonal = operator.dense().diagonal()
        shift = damping.resolve(float(diagonal.max()))
        return DiagonalState(diagonal, shift)


class DiagonalState:
    """A diagonal that can be divided by."""

    def __init__(self, diagonal, shift):
        largest = float(diagonal.max())
        self.diagonal = diagonal + shift
        self.spectrum = wh.Spectrum(damping=shift, largest_eigenvalue=largest)

    def solve(self, right):
        """Return the solution of some systems."""
        return Solution(right / self.diagonal[:, None], 0.0, True, 1)


class PlainProducts(Method):
    """Products of gradients, as they are."""

    name = "plain_products"

    def __init__(self, objective):
        super().__init__(objective, memory_budget=2**30)

    def transform_gradients(self, gradients):
        """Leave the gradients as they are."""
        return gradients, Solved()


@dataclass(frozen=True, eq=False)
class Energy(wh.Output):
    """The square of the first output at given points."""

    @classmethod
    def of_objective(cls, objective, points):
        """Return the energy at these points."""
        return cls(points, lambda u: u**2)


class Brief:
    """A few steps of Adam on a few points."""

    constraints = "soft"

    def recipe(self, problem):
        """Return how a problem is trained."""
        points = dict.fromkeys(problem.terms, 5)
        return pinn.Recipe(points, (pinn.Adam(3),), None, None, cycles=2)
