"""What checks look at: a run's objective, fresh points, scales, and where it would still go.

All of it is computed in double precision on a bounded number of points, each thing when a check
first asks for it. Where parameters are changed they are put back.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from whence.diagnosis.reference import Reference
from whence.diagnosis.regions import PlainRegion, region_of
from whence.diagnosis.scales import Scales, rms
from whence.objective import Objective
from whence.pinn.pde.precision import in_double
from whence.pinn.pde.problem import Problem
from whence.points import locations
from whence.refits import refit
from whence.term import Term

MAX_POINTS = 1500
"""Training points of a term that are looked at: a Gauss–Newton step costs (points)²."""
N_EQUATION = 2000
"""Fresh points of an equation."""
N_CONDITION = 400
"""Fresh points of a condition, which holds on a part of the boundary."""
N_PROBES = 1000
"""Points over the whole domain at which solutions are compared."""
STEPS = 15
"""Gauss–Newton steps of a trial refit: from a point that is no minimum the loss falls by orders."""


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

    @classmethod
    def of(
        cls,
        problem: Problem,
        objective: Objective,
        reference: Reference | None = None,
        seed: int = 0,
    ) -> Evidence:
        """Return the evidence on an objective in double precision, of a bounded size."""
        double = in_double(objective)
        kept = {}
        for name, term in double.terms.items():
            n = len(term.points)
            rows = torch.arange(n)
            # Measurements are few, and each may be the one that is wrong.
            if n > MAX_POINTS and term.source != "fixed":
                generator = torch.Generator().manual_seed(seed)
                rows = torch.randperm(n, generator=generator)[:MAX_POINTS].sort().values
            kept[name] = rows.to(double.parameters.device)
        return cls(problem, double.subset(kept), reference, seed)

    # --- points ---

    @cached_property
    def drawn(self) -> tuple[str, ...]:
        """Terms of which fresh points can be drawn."""
        fixed = self.problem.given_terms
        names = self.objective.terms
        return tuple(n for n in names if n in self.problem.terms and n not in fixed)

    @cached_property
    def fresh_points(self) -> dict[str, Tensor]:
        """Fresh points by term, (n, d)."""
        points = {}
        for name in self.drawn:
            count = N_EQUATION if name in self.problem.equations else N_CONDITION
            points[name] = self.draw(name, count)
        return points

    def draw(self, name: str, n: int, seed: int = 1) -> Tensor:
        """Return n random points of a term, or as many as it holds at."""
        room = self.problem.room(name)
        if room is not None:
            n = min(n, room)
        # Apart from seeds of training, which are small.
        points = self.problem.draw(name, n, 10_000 + 100 * self.seed + seed, "random")
        return points.to(self.objective.parameters.vector())

    @cached_property
    def probes(self) -> Tensor:
        """Points over the whole domain, (n, d)."""
        points = self.problem.domain.sample(N_PROBES, "random", 20_000 + self.seed)
        return points.to(self.objective.parameters.vector())

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
            n = n_equation if name in self.problem.equations else n_condition
            trained = locations(self.objective.term(name).some_points(n, self.seed))
            fresh = self.draw(name, n, seed=2)
            # A condition may hold at a few points only, which then are the same.
            points[name] = torch.cat([trained, fresh]).unique(dim=0)

        weights = {name: self.scales.of(name) ** -2 for name in self.objective.terms}
        weighed = self.with_points(points).with_weights(weights)
        return list(weighed.terms.values())

    # --- states ---

    @cached_property
    def scales(self) -> Scales:
        """Typical sizes of outputs, fields and terms where training ended."""
        return Scales(self.problem, self.objective, self.fresh_points, self.probes)

    @cached_property
    def trained(self) -> State:
        """Where training ended."""
        return self.state(self.objective.parameters.vector())

    @cached_property
    def continued(self) -> State:
        """Where a few Gauss–Newton steps on the same loss lead."""
        return self.refitted(self.objective)

    def refitted(self, objective: Objective, steps: int = STEPS) -> State:
        """Return the state to which a few Gauss–Newton steps on some loss lead."""
        fit = refit(objective, steps=steps)
        return self.state(fit.theta)

    def state(self, theta: Tensor) -> State:
        """Return what is wrong at some parameters of the network."""
        with self.objective.parameters.at(theta), torch.no_grad():
            training = self.objective.point_losses()
            fresh = self.fresh.point_losses()
            loss = float(self.objective.loss())
            outputs = tuple(self.problem.outputs)
            network = self.objective.network
            values = self.problem.evaluate(network, self.probes, outputs)
        return State(theta, loss, training, fresh, values)

    # --- figures ---

    def relative(self, state: State, name: str) -> float:
        """Return the rms residual of a term at fresh points over its scale."""
        mean = float(state.fresh[name].mean())
        return mean**0.5 / self.scales.of(name)

    def relative_by_term(
        self, state: State, but: Iterable[str] = ()
    ) -> dict[str, float]:
        """Return the relative residual of each term whose points can be drawn."""
        left_out = set(but)
        by_term = {}
        for name in self.drawn:
            if name not in left_out:
                by_term[name] = self.relative(state, name)
        return by_term

    def change(self, before: State, after: State) -> float:
        """Return how far the solution moved: the largest rms over the outputs' sizes."""
        moved = after.values - before.values
        shares = []
        for k, size in enumerate(self.scales.outputs.values()):
            shares.append(rms(moved[:, k]) / size)
        return max(shares)

    def region(self, points: Tensor, sizes: Tensor) -> PlainRegion:
        """Return in words where sizes (n,) at points are large."""
        bounds = torch.as_tensor(self.problem.domain.bounds)
        d = len(self.problem.coordinates)
        places = locations(points)[:, :d].double().cpu()
        sizes = sizes.double().cpu()
        return region_of(places, sizes, self.problem.coordinates, bounds)

    def fresh_region(self, state: State, name: str) -> PlainRegion:
        """Return where a term's squared residuals at fresh points are large."""
        return self.region(self.fresh.term(name).points, state.fresh[name])

    def move_region(self, before: State, after: State) -> PlainRegion:
        """Return where the solution moved."""
        moved = after.values - before.values
        sizes = torch.tensor(list(self.scales.outputs.values())).to(moved)
        relative = moved / sizes
        return self.region(self.probes, relative.square().sum(dim=1))
