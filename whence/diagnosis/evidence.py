"""What checks look at: a run's objective, fresh points, scales, and where it would still go.

All of it is computed in double precision on a bounded number of points, each thing when a check
first asks for it. Where parameters are changed they are put back.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from whence.diagnosis.reference import Reference
from whence.diagnosis.regions import PlainRegion, region_of
from whence.diagnosis.scales import Scales, rms
from whence.objective import Objective
from whence.pinn.pde.precision import in_double
from whence.pinn.pde.problem import Problem
from whence.pinn.training.load import changed_terms
from whence.points import locations
from whence.refits import refit
from whence.term import Term

MAX_POINTS = 3000
"""Training points that are looked at, or more for a large network."""
ROWS_A_PARAMETER = 3
"""Residuals for each parameter that are enough: with fewer than one, refits meet anything."""
MIN_POINTS = 100
"""Points that a term keeps where there are more in all."""
N_EQUATION = 2000
"""Fresh points of an equation."""
N_CONDITION = 400
"""Fresh points of a condition, which holds on a part of the boundary."""
N_PROBES = 1000
"""Points over the whole domain at which solutions are compared."""
FRESH_SEED = 10_000
"""Seeds of fresh points begin here, apart from those of training."""
STEPS = 15
"""Gauss–Newton steps of a trial refit: from a point that is no minimum the loss falls by orders."""
STALL = 0.01
"""A refit ends where three steps lower the loss by less than a hundredth."""


@dataclass(frozen=True, eq=False)
class State:
    """A network's parameters, and what is wrong at them.

    Parameters
    ----------
    theta:
        The parameters, (P,).
    loss:
        The weighted training loss.
    training:
        Squared residual of each training point by term, (N,).
    fresh:
        The same at fresh points.
    values:
        Outputs at the probes, (n, outputs).
    """

    theta: Tensor
    loss: float
    training: Mapping[str, Tensor]
    fresh: Mapping[str, Tensor]
    values: Tensor


@dataclass(frozen=True, eq=False)
class Evidence:
    """What checks look at.

    Parameters
    ----------
    problem:
        What was solved.
    objective:
        The network with the points it was kept with.
    reference:
        Trusted values, None where there are none.
    seed:
        Of fresh points.
    changed:
        Mean loss as the run recorded it, and as it is now, of each term that is another one now.

    Examples
    --------
    >>> from whence import pinn
    >>> from whence.diagnosis.evidence import Evidence
    >>> problem = pinn.zoo.load("diffusion")
    >>> result = pinn.train(problem, points=50, schedule=pinn.GaussNewton(10), progress=False)
    >>> evidence = Evidence.of(problem, result.objective)
    >>> evidence.trained.loss > evidence.continued.loss, len(evidence.trained.fresh["pde"])
    (True, 2000)
    """

    problem: Problem
    objective: Objective
    reference: Reference | None = None
    seed: int = 0
    changed: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        problem: Problem,
        objective: Objective,
        reference: Reference | None = None,
        seed: int = 0,
        recorded: Mapping[str, float] | None = None,
    ) -> Evidence:
        """Return the evidence on an objective in double precision, of a bounded size."""
        # Of all points, as the run took them.
        changed = changed_terms(objective, recorded or {})
        double = in_double(objective)
        total = double.n_points
        limit = max(MAX_POINTS, rows_that_determine(double))
        kept = {}
        for name, term in double.terms.items():
            n = len(term.points)
            rows = torch.arange(n)
            # Measurements are few, and each may be the one that is wrong.
            if total > limit and term.source != "fixed":
                share = limit / total
                wanted = max(MIN_POINTS, int(share * n))
                generator = torch.Generator().manual_seed(seed)
                order = torch.randperm(n, generator=generator)
                rows = order[:wanted].sort().values
            kept[name] = rows.to(double.parameters.device)

        fewer = double.subset(kept)
        return cls(
            problem,
            fewer,
            reference,
            seed,
            changed,
        )

    # --- points ---

    @cached_property
    def drawn(self) -> tuple[str, ...]:
        """Terms of which fresh points can be drawn."""
        fixed = self.problem.given_terms
        drawn = []
        for name in self.objective.terms:
            # What was added to the problem by hand, it cannot draw.
            is_known = name in self.problem.terms
            if is_known and name not in fixed:
                drawn.append(name)
        return tuple(drawn)

    @cached_property
    def fresh_points(self) -> dict[str, Tensor]:
        """Fresh points by term, (n, d)."""
        points = {}
        for name in self.drawn:
            count = N_CONDITION
            if name in self.problem.equations:
                count = N_EQUATION
            points[name] = self.draw(name, count)
        return points

    def draw(self, name: str, n: int, seed: int = 1) -> Tensor:
        """Return n random points of a term, or as many as it holds at."""
        room = self.problem.room(name)
        if room is not None:
            n = min(n, room)
        # Apart from seeds of training, which are small.
        apart = FRESH_SEED + 100 * self.seed + seed
        points = self.problem.draw(
            name,
            n,
            apart,
            "random",
        )
        return self.like(points)

    def like(self, points: Tensor) -> Tensor:
        """Return points in the number type and on the device of the network."""
        theta = self.objective.parameters.vector()
        return points.to(theta)

    @cached_property
    def probes(self) -> Tensor:
        """Points over the whole domain, (n, d)."""
        points = self.problem.domain.sample(
            N_PROBES,
            "random",
            FRESH_SEED + self.seed,
        )
        return self.like(points)

    @cached_property
    def fresh(self) -> Objective:
        """The objective at fresh points, each of weight 1."""
        return self.with_points(self.fresh_points)

    def with_points(self, points: Mapping[str, Tensor]) -> Objective:
        """Return the objective with other points of some terms, each of weight 1."""
        terms = []
        for name, term in self.objective.terms.items():
            if name in points:
                term = term.with_points(points[name])
            terms.append(term)
        return self.objective.with_terms(terms)

    def evenly_weighed(self, n_equation: int, n_condition: int) -> list[Term]:
        """Return the terms, each of the weight one over its squared scale.

        At so many fresh points and as many of those trained on, which may crowd where it matters.
        """
        points = {}
        for name in self.drawn:
            n = n_condition
            if name in self.problem.equations:
                n = n_equation
            term = self.objective.term(name)
            trained = locations(term.some_points(n, self.seed))
            fresh = self.draw(name, n, seed=2)
            # A condition may hold at a few points only, which then are the same.
            both = torch.cat([trained, fresh])
            points[name] = both.unique(dim=0)

        weights = {}
        for name in self.objective.terms:
            # w_k ‖r_k‖² is then the square of the relative residual.
            scale = self.scales.of(name)
            weights[name] = scale**-2

        # Weights of points go with the points that they belong to.
        weighed = self.with_points(points)
        weighed = weighed.with_weights(weights)
        return list(weighed.terms.values())

    # --- states ---

    @cached_property
    def scales(self) -> Scales:
        """Typical sizes of outputs, fields and terms where training ended."""
        return Scales(
            self.problem,
            self.objective,
            self.fresh_points,
            self.probes,
        )

    @cached_property
    def trained(self) -> State:
        """Where training ended."""
        theta = self.objective.parameters.vector()
        return self.state(theta)

    @cached_property
    def continued(self) -> State:
        """Where a few Gauss–Newton steps on the same loss lead."""
        return self.refitted(self.objective)

    def refitted(self, objective: Objective, steps: int = STEPS) -> State:
        """Return the state to which a few Gauss–Newton steps on some loss lead."""
        # From the network's own parameters, which are put back.
        fit = refit(objective, steps=steps, stall=STALL)
        return self.state(fit.theta)

    def state(self, theta: Tensor) -> State:
        """Return what is wrong at some parameters of the network."""
        outputs = tuple(self.problem.outputs)
        network = self.objective.network
        with self.objective.parameters.at(theta), torch.no_grad():
            training = self.objective.point_losses()
            fresh = self.fresh.point_losses()
            loss = float(self.objective.loss())
            values = self.problem.evaluate(
                network,
                self.probes,
                outputs,
            )
        return State(
            theta,
            loss,
            training,
            fresh,
            values,
        )

    # --- figures ---

    def relative(self, state: State, name: str) -> float:
        """Return the rms residual of a term at fresh points over its scale."""
        # At fresh points, as those trained on flatter.
        squares = state.fresh[name]  # ‖r‖²
        size = float(squares.mean()) ** 0.5
        return size / self.scales.of(name)

    def relative_by_term(self, state: State) -> dict[str, float]:
        """Return the relative residual of each term whose points can be drawn."""
        by_term = {}
        for name in self.drawn:
            by_term[name] = self.relative(state, name)
        return by_term

    def moved(self, before: State, after: State) -> Tensor:
        """Return how far the solution moved at each probe, relative to the outputs' sizes."""
        difference = after.values - before.values  # (n, outputs)
        sizes = torch.tensor(
            list(self.scales.outputs.values()),
            dtype=difference.dtype,
            device=difference.device,
        )
        return difference / sizes

    def change(self, before: State, after: State) -> float:
        """Return how far the solution moved: the largest rms of an output."""
        # Of several outputs the one that moves the furthest.
        moved = self.moved(before, after)
        shares = [rms(column) for column in moved.T]
        return max(shares)

    def region(self, points: Tensor, sizes: Tensor) -> PlainRegion:
        """Return in words where sizes (n,) at points are large."""
        bounds = torch.as_tensor(self.problem.domain.bounds)
        # Without what points carry.
        d = len(self.problem.coordinates)
        places = locations(points)[:, :d]
        return region_of(
            places.double().cpu(),
            sizes.double().cpu(),
            self.problem.coordinates,
            bounds,
        )

    def fresh_region(self, state: State, name: str) -> PlainRegion:
        """Return where a term's squared residuals at fresh points are large."""
        term = self.fresh.term(name)
        squares = state.fresh[name]
        return self.region(locations(term.points), squares)

    def move_region(self, before: State, after: State) -> PlainRegion:
        """Return where the solution moved."""
        moved = self.moved(before, after)
        squares = moved.square().sum(dim=1)
        return self.region(self.probes, squares)


def rows_that_determine(objective: Objective) -> int:
    """Return how many residuals determine a network of so many parameters well."""
    return ROWS_A_PARAMETER * objective.parameters.size
