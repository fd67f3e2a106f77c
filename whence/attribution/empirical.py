"""EmpiricalIF: how the losses of points change together when the parameters are moved a little."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from whence import _checks
from whence.attribution.arguments import PointsByTerm, PreparedPoints
from whence.attribution.labels import Attributes, Effect
from whence.attribution.method import Method
from whence.attribution.quantities import Quantity
from whence.attribution.tiles import Solved, Tile
from whence.catalogue import METHODS
from whence.curvature.solvers import MEMORY_BUDGET
from whence.jacobian import point_gradients
from whence.objective import LossLike, Objective
from whence.parameters import Select
from whence.points import Points, blocks, evaluated_at_once
from whence.samples import Data
from whence.term import Term

RELATIVE_RADIUS = 1e-2
"""Length of a step relative to that of the parameters."""


@METHODS.named()
class EmpiricalInfluence(Method):
    """Changes of targets and of points' losses, multiplied, as the parameters move.

    Entry (target f, point z of term k) is
    ``(w_k/N_k) · mean_δ [f(θ̂+δ) − f(θ̂)]·[ℓ_k(z; θ̂+δ) − ℓ_k(z; θ̂)]`` over steps δ of length r:
    up and down the gradient of f, or random directions and their opposites, the same for all
    targets (EmpiricalIF of Liu et al. 2022, NeurIPS 35, with the factor w/N). With a learning
    rate η the steps are ±η∇f, so that each target's is as long as its own gradient says. It needs
    no gradients of points and no solver, and sees the losses as they are, not linearized.

    Parameters
    ----------
    objective:
        What was trained, or a model.
    data, loss:
        Of a model, what it was trained on and for, see
        :class:`whence.attribution.method.Method`.
    parameters:
        Of a model, which parameters to move.
    radius:
        r, the Euclidean length of δ; by default a hundredth of that of θ̂.
    learning_rate:
        η, for steps ±η∇f in place of those of one length: steps of gradient descent and ascent.
    directions:
        ``"gradient"``, or the number of random directions.
    both:
        Whether each direction is taken both ways.
    seed:
        Of the random directions.
    memory_budget:
        Bytes that a result may take (2 GiB).

    Raises
    ------
    ValueError
        If a number is not positive, the directions are others, or a learning rate comes with a
        radius or with random directions.

    Examples
    --------
    >>> import torch, whence as wh
    >>> model = torch.nn.Linear(1, 1, bias=False, dtype=torch.float64)
    >>> _ = torch.nn.init.zeros_(model.weight)
    >>> x, y = torch.tensor([[1.0], [2.0]]).double(), torch.tensor([[1.0], [-1.0]]).double()
    >>> method = wh.EmpiricalInfluence(model, (x, y), wh.Squared(), radius=0.1)
    >>> method.attribute(wh.Loss()).values.round(4)     # (∓0.2 + 0.01)², (∓0.2 + 0.01)(±0.4 + 0.04)
    array([[ 0.0201, -0.0398],
           [-0.0398,  0.0808]])
    """

    name = "empirical"
    movable = False
    sums_over_parameters = False

    def __init__(
        self,
        objective: Objective | nn.Module,
        data: Data | None = None,
        loss: LossLike | None = None,
        *,
        parameters: Select = None,
        radius: float | None = None,
        learning_rate: float | None = None,
        directions: Literal["gradient"] | int = "gradient",
        both: bool = True,
        seed: int = 0,
        memory_budget: int = MEMORY_BUDGET,
    ) -> None:
        super().__init__(
            objective, data, loss, parameters=parameters, memory_budget=memory_budget
        )
        if radius is not None:
            _checks.positive("radius", radius)
        if isinstance(directions, str):
            _checks.one_of("directions", directions, ("gradient",))
        else:
            _checks.count("directions", directions)

        if learning_rate is not None:
            _checks.positive("learning_rate", learning_rate)
            check_along_gradients(radius, directions)

        self.radius = radius
        self.learning_rate = learning_rate
        self.directions = directions
        self.both = both
        self.seed = seed

    def length(self) -> float:
        """Return r, the length of a step."""
        if self.radius is not None:
            return self.radius
        norm = float(self.objective.parameters.vector().norm())
        # θ̂ = 0 has no length to be relative to: r is then RELATIVE_RADIUS itself.
        return RELATIVE_RADIUS * (norm or 1.0)

    def transform_gradients(self, gradients: Tensor) -> tuple[Tensor, Solved]:
        """Return the gradients as they are: directions to step along."""
        return gradients, Solved()

    def description(self) -> Attributes:
        """Return the length of the steps and their directions."""
        if self.learning_rate is not None:
            return {"learning_rate": self.learning_rate, "directions": "gradient"}
        return {"radius": self.length(), "directions": self.directions}

    def block_size(self, points: Points) -> int:
        """Return how many of these points have their losses taken at once."""
        return evaluated_at_once(points)

    def tiles(
        self,
        quantity: Quantity,
        points: PointsByTerm | None = None,
        effect: Effect = "remove",
    ) -> Iterator[Tile]:
        """Yield an attribution target by target, or of random directions all at once."""
        prepared = self.prepare_points(points)
        # Entries are effects of removal, to which those of adding are opposite.
        sign = -1.0 if effect == "add" else 1.0
        if isinstance(self.directions, str):
            yield from self._along_gradients(quantity, prepared, sign)
        else:
            yield self._along_random(quantity, prepared, sign, self.directions)

    def _along_gradients(
        self, quantity: Quantity, points: PreparedPoints, sign: float
    ) -> Iterator[Tile]:
        before = quantity.values(self.objective)
        losses_before = self._losses(points)
        every_point = slice(0, len(losses_before))
        k = 0
        for block in self.packed_gradients(quantity):
            for gradient in block:
                steps = self._steps_along(gradient)
                row = torch.zeros_like(losses_before)
                for step in steps:
                    with self._moved(step):
                        value = quantity.values(self.objective)[k]
                        losses = self._losses(points)
                    # [f(θ̂+δ) − f(θ̂)]·[ℓ(z; θ̂+δ) − ℓ(z; θ̂)] for every point z
                    change = value - before[k]
                    row += change * (losses - losses_before) / len(steps)

                target = slice(k, k + 1)
                yield Tile(target, every_point, sign * row[None])
                k += 1

    def _along_random(
        self,
        quantity: Quantity,
        points: PreparedPoints,
        sign: float,
        n_directions: int,
    ) -> Tile:
        before = quantity.values(self.objective)
        losses_before = self._losses(points)
        shape = (len(before), len(points))
        self.check_size(*shape)

        total = losses_before.new_zeros(shape)
        n_steps = 0
        for step in self._random_steps(n_directions):
            with self._moved(step):
                values = quantity.values(self.objective)
                losses = self._losses(points)
            # The same step for all targets and points: an outer product of their changes.
            total.addr_(values - before, losses - losses_before)
            n_steps += 1

        n_targets, n_all = shape
        values = total * (sign / n_steps)
        return Tile(slice(0, n_targets), slice(0, n_all), values)

    def _random_steps(self, n_directions: int) -> Iterator[Tensor]:
        generator = np.random.default_rng(self.seed)
        like = self.objective.parameters.vector()
        for _ in range(n_directions):
            # Normal numbers favor no direction; NumPy's are the same on every device.
            direction = generator.standard_normal(len(like))
            yield from self._steps_along(torch.as_tensor(direction).to(like))

    def _steps_along(self, direction: Tensor) -> list[Tensor]:
        """Return steps of length r, or η∇f, along a direction and against it; zero along zero."""
        if self.learning_rate is not None:
            factor = self.learning_rate
        else:
            norm = float(direction.norm())
            factor = self.length() / norm if norm else 0.0
        step = direction * factor
        if self.both:
            return [step, -step]
        return [step]

    def _moved(self, step: Tensor) -> AbstractContextManager[None]:
        parameters = self.objective.parameters
        return parameters.at(parameters.vector() + step)

    def _losses(self, points: PreparedPoints) -> Tensor:
        """Return ``(w/N)·ℓ`` of each point, (n,)."""
        tensors = self.objective.parameters.tensors()
        parts = []
        for name, of_term in points.by_term.items():
            term = self.objective.terms[name]
            for block in blocks(of_term):
                scale = points.scale(name, block.part)
                residual = term.residual(tensors, block.points)
                losses = term.value(residual, block.points).detach()
                parts.append(scale * losses)
        return torch.cat(parts)

    def self_products(self, term: Term, points: Points) -> tuple[Tensor, Solved]:
        """Return the mean squared change of each point's loss in steps along its gradient."""
        values = []
        for i in range(len(points)):
            point = points[i : i + 1]
            values.append(self._mean_square_change(term, point))
        return torch.stack(values), Solved()

    def _mean_square_change(self, term: Term, point: Points) -> Tensor:
        gradients = point_gradients(term, self.objective.parameters, point)
        _, linear, cotangent = next(gradients)
        (gradient,) = linear.rows(cotangent)

        before = self._loss_at(term, point)
        changes = []
        for step in self._steps_along(gradient):
            with self._moved(step):
                after = self._loss_at(term, point)
            changes.append(after - before)
        return torch.cat(changes).square().mean()  # mean_δ [ℓ(θ̂+δ) − ℓ(θ̂)]²

    def _loss_at(self, term: Term, point: Points) -> Tensor:
        residual = term.residual(self.objective.parameters.tensors(), point)
        return term.value(residual, point).detach()


def check_along_gradients(radius: float | None, directions: object) -> None:
    """Raise ``ValueError`` where steps of a learning rate cannot be what is wanted."""
    if radius is not None:
        raise ValueError(
            "learning_rate makes steps as long as gradients and radius makes all alike: give one "
            "of the two"
        )
    if directions != "gradient":
        raise ValueError(
            "learning_rate is for steps along gradients, which random directions do not have: "
            "leave out directions, or give their length as radius"
        )
