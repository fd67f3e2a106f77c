"""EmpiricalIF: how the losses of points change together when the parameters are moved a little."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from whence import _checks
from whence.attribution.method import Effect, Method, Solved, Tile, count
from whence.attribution.quantities import Quantity
from whence.catalogue import METHODS
from whence.curvature.solvers import MEMORY_BUDGET
from whence.jacobian import point_gradients
from whence.objective import Objective
from whence.points import Points, blocks
from whence.term import Term

RELATIVE_RADIUS = 1e-2


@METHODS.named()
class EmpiricalInfluence(Method):
    """Changes of targets and of points' losses, multiplied, as the parameters move.

    Entry (target f, point z of term k) is
    ``(w_k/N_k) · mean_δ [f(θ̂+δ) − f(θ̂)]·[ℓ_k(z; θ̂+δ) − ℓ_k(z; θ̂)]`` over steps δ of length r:
    up and down the gradient of f, or random directions and their opposites, the same for all
    targets (EmpiricalIF of Liu et al. 2022, NeurIPS 35, with the factor w/N). It needs no
    gradients of points and no solver, and sees the losses as they are, not linearised.

    Parameters
    ----------
    objective:
        What was trained.
    radius:
        r, the Euclidean length of δ; by default a hundredth of that of θ̂.
    directions:
        ``"gradient"``, or the number of random directions.
    both:
        Whether each direction is taken both ways.
    seed:
        Of the random directions.
    memory_budget:
        Bytes that a result may take (2 GiB).

    Examples
    --------
    >>> import torch, whence as wh
    >>> model = torch.nn.Linear(1, 1, bias=False, dtype=torch.float64)
    >>> _ = torch.nn.init.zeros_(model.weight)
    >>> x, y = torch.tensor([[1.0], [2.0]]).double(), torch.tensor([[1.0], [-1.0]]).double()
    >>> objective = wh.Objective.supervised(model, (x, y), wh.Squared())
    >>> method = wh.EmpiricalInfluence(objective, radius=0.1)
    >>> method.attribute(wh.Loss()).values.round(4)     # (∓0.2 + 0.01)², (∓0.2 + 0.01)(±0.4 + 0.04)
    array([[ 0.0201, -0.0398],
           [-0.0398,  0.0808]])
    """

    name = "empirical"
    movable = False

    def __init__(
        self,
        objective: Objective,
        *,
        radius: float | None = None,
        directions: Literal["gradient"] | int = "gradient",
        both: bool = True,
        seed: int = 0,
        memory_budget: int = MEMORY_BUDGET,
    ) -> None:
        super().__init__(objective, memory_budget)
        if radius is not None:
            _checks.positive("radius", radius)
        if isinstance(directions, str):
            _checks.one_of("directions", directions, ("gradient",))
        else:
            _checks.count("directions", directions)
        self.radius, self.directions, self.both, self.seed = (
            radius,
            directions,
            both,
            seed,
        )

    def length(self) -> float:
        """Return r, the length of a step."""
        if self.radius is not None:
            return self.radius
        return RELATIVE_RADIUS * (
            float(self.objective.parameters.vector().norm()) or 1.0
        )

    def tiles(
        self, quantity: Quantity, points: Any = None, effect: Effect = "remove"
    ) -> Iterator[Tile]:
        """Yield an attribution target by target, or of random directions block by block."""
        chosen = self._chosen(points)
        sign = -1.0 if effect == "add" else 1.0
        if isinstance(self.directions, str):
            yield from self._along_gradients(quantity, chosen, sign)
        else:
            yield from self._along_random(quantity, chosen, sign)

    def _along_gradients(
        self, quantity: Quantity, chosen: dict[str, Points], sign: float
    ) -> Iterator[Tile]:
        before = quantity.values(self.objective)
        base, k = self._losses(chosen), 0
        for block in self._packed_gradients(quantity):
            for gradient in block:
                row = torch.zeros_like(base)
                steps = self._both_ways(gradient)
                for step in steps:
                    with self._moved(step):
                        change = quantity.values(self.objective)[k] - before[k]
                        row += change * (self._losses(chosen) - base) / len(steps)
                yield Tile(slice(k, k + 1), slice(0, len(row)), sign * row[None])
                k += 1

    def _along_random(
        self, quantity: Quantity, chosen: dict[str, Points], sign: float
    ) -> Iterator[Tile]:
        before, base = quantity.values(self.objective), self._losses(chosen)
        n = count(chosen)
        self._check_size(len(before), n)
        total, steps = base.new_zeros(len(before), n), 0
        for step in self._random_steps():
            with self._moved(step):
                change = quantity.values(self.objective) - before
                total.addr_(change, self._losses(chosen) - base)
            steps += 1
        yield Tile(slice(0, len(before)), slice(0, n), total * (sign / steps))

    def _random_steps(self) -> Iterator[Tensor]:
        assert not isinstance(self.directions, str)
        generator = np.random.default_rng(self.seed)
        like = self.objective.parameters.vector()
        for _ in range(self.directions):
            drawn = torch.as_tensor(generator.standard_normal(len(like))).to(like)
            yield from self._both_ways(drawn)

    def _both_ways(self, direction: Tensor) -> list[Tensor]:
        """Return steps of length r along a direction and against it; none along zero."""
        norm = float(direction.norm())
        step = direction * (self.length() / norm if norm else 0.0)
        return [step, -step] if self.both else [step]

    def _moved(self, step: Tensor) -> Any:
        parameters = self.objective.parameters
        return parameters.at(parameters.vector() + step)

    def _losses(self, chosen: dict[str, Points]) -> Tensor:
        """Return ``(w/N)·ℓ`` of each point, (n,)."""
        tensors, found = self.objective.parameters.tensors(), []
        for name, points in chosen.items():
            term = self.objective.terms[name]
            for part, scale in self._scaled(term, points):
                found.append(
                    scale * term.value(term.residual(tensors, part), part).detach()
                )
        return torch.cat(found)

    def _own_loss(self, term: Term, points: Points) -> Tensor:
        residual = term.residual(self.objective.parameters.tensors(), points)
        return term.value(residual, points).detach()

    def _scaled(
        self, term: Term, points: Points
    ) -> Iterator[tuple[Points, float | Tensor]]:
        if points is term.points:
            for block in term.blocks():
                yield block.points, term.scales(block.part)
            return
        for block in blocks(points):
            yield block.points, term.scale

    def _self_products(self, term: Term, points: Points) -> tuple[Tensor, Solved]:
        values = []
        for i in range(len(points)):
            one = points[i : i + 1]
            found = point_gradients(term, self.objective.parameters, one)
            gradient = next(linear.rows(seed)[0] for _, linear, seed in found)
            base, steps = self._own_loss(term, one), self._both_ways(gradient)
            changes = []
            for step in steps:
                with self._moved(step):
                    changes.append(self._own_loss(term, one) - base)
            values.append(torch.cat(changes).square().mean())
        return torch.stack(values), Solved()

    def _applied(self, gradients: Tensor) -> tuple[Tensor, Solved]:
        return gradients, Solved()

    def _description(self) -> dict[str, str | int | float]:
        return {"radius": self.length(), "directions": self.directions}
