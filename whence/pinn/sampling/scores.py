"""Scores of candidate points: which to train on next.

Sources: influence score, Naujoks et al., arXiv 2506.16443; residual, Lu et al. 2021 and Wu et
al., arXiv 2207.10289 (which also gives the selection by distribution); grad-dot, Charpiat et
al. 2019.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from whence import _checks
from whence._files import PathLike, make_folder, read_arrays, write_atomically
from whence.attribution.influence import Influence
from whence.attribution.quantities import Loss, Quantity, aggregate_gradient
from whence.curvature.exact import Exact
from whence.curvature.solvers import Damping, Solver, default_damping
from whence.jacobian import gradient_products, point_gradients
from whence.objective import Objective

Candidates = Tensor | Mapping[str, Tensor]
Sign = Literal["abs", "positive", "negative"]
SIGNS = ("abs", "positive", "negative")
SCORE_DAMPING, SCORE_TOLERANCE = 1e-6, 1e-10


class Score(Protocol):
    """Gives every candidate point a number, not negative: the larger, the more wanted."""

    def score(self, objective: Objective, candidates: Candidates) -> Tensor:
        """Return one value per candidate, shape (n,)."""


def by_term(objective: Objective, candidates: Candidates) -> dict[str, Tensor]:
    """Return candidates by term; a plain tensor belongs to the first term."""
    if isinstance(candidates, Tensor):
        candidates = {next(iter(objective.terms)): candidates}
    if not isinstance(candidates, Mapping) or not candidates:
        raise TypeError(
            f"candidates must be a tensor of shape (n, {len(objective.coordinates)}), or such "
            f"tensors by term, got {_checks.shown(candidates)}"
        )
    for name in candidates:
        objective.term(name)
    return {
        name: objective.placed(f"the candidates of term {name!r}", points, name)
        for name, points in candidates.items()
    }


def _signed(values: Tensor, sign: Sign) -> Tensor:
    if sign == "abs":
        return values.abs()
    return values.clamp_min(0) if sign == "positive" else (-values).clamp_min(0)


def _test_loss(
    objective: Objective, terms: Mapping[str, Tensor], n: int, seed: int
) -> Loss:
    """Return the losses at n fresh uniform test points of each scored term."""
    return Loss(
        {
            name: objective.draw(name, n, spawn(seed, 1 + k))
            for k, name in enumerate(terms)
        }
    )


def spawn(seed: int, k: int) -> int:
    """Return a seed that is independent of the others made from the same one."""
    return int(np.random.SeedSequence([seed, k]).generate_state(1)[0])


@dataclass(frozen=True, eq=False)
class InfluenceScore:
    """Influence of training on a candidate x⁺ on a quantity, by default the loss at test points.

    ``abs_of_sum``: ``|Σ_t ∇f_tᵀ(A + λI)⁻¹∇ℓ(x⁺)|`` (the paper's formula), one solve and one
    product J·v for any number of candidates. ``sum_of_abs``: ``Σ_t |∇f_tᵀ(A + λI)⁻¹∇ℓ(x⁺)|``
    (the paper's code). Before the absolute value, positive means that adding the point lowers the
    quantity, to first order.

    Parameters
    ----------
    n_test:
        Fresh uniform points of each scored term at which the test loss is taken.
    reduce:
        ``"abs_of_sum"`` or ``"sum_of_abs"``.
    sign:
        ``"abs"``: the size. ``"positive"``, ``"negative"``: that part only, zero elsewhere.
    quantity:
        Any quantity of interest in place of the test loss: goal-oriented sampling.
    damping:
        λ as in :class:`whence.Influence`; by default 1e-6 relative (1e-4 in float32): candidates
        lie outside the training set, and weak damping scores little but how far outside.
    solver:
        Solver as in :class:`whence.Influence`.
    seed:
        Seed of the test points.

    Examples
    --------
    >>> from whence import pinn
    >>> problem = pinn.zoo.load("diffusion")
    >>> objective = problem.objective(problem.network(seed=0), problem.sample(50, seed=0))
    >>> pinn.InfluenceScore(n_test=20).score(objective, problem.draw("pde", 7, seed=1)).shape
    torch.Size([7])
    """

    n_test: int = 1000
    reduce: Literal["abs_of_sum", "sum_of_abs"] = "abs_of_sum"
    sign: Sign = "abs"
    quantity: Quantity | None = None
    damping: float | Damping | None = None
    solver: Solver | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        _checks.count("n_test", self.n_test)
        _checks.one_of("reduction", self.reduce, ("abs_of_sum", "sum_of_abs"))
        _checks.one_of("sign", self.sign, SIGNS)

    def score(self, objective: Objective, candidates: Candidates) -> Tensor:
        """Return one value per candidate, shape (n,)."""
        terms = by_term(objective, candidates)
        quantity = self.quantity or _test_loss(objective, terms, self.n_test, self.seed)
        weakest = max(SCORE_DAMPING, default_damping(objective.parameters.dtype))
        damping = weakest if self.damping is None else self.damping
        solver = self.solver or Exact(tolerance=SCORE_TOLERANCE)
        influence = Influence(objective, solver=solver, damping=damping)
        if self.reduce == "abs_of_sum":
            gradient = aggregate_gradient(quantity, objective)
            vector = influence.solve(gradient.unsqueeze(1)).value
            products = [
                gradient_products(objective.terms[n], objective.parameters, p, vector)[
                    :, 0
                ]
                for n, p in terms.items()
            ]
            return _signed(torch.cat(products), self.sign)
        vectors = [influence.solve(g.T).value for g in quantity.gradients(objective)]
        solved = torch.cat(vectors, dim=1)
        totals = []
        for name, points in terms.items():
            parts = point_gradients(objective.terms[name], objective.parameters, points)
            totals += [
                _signed(lin.rows(s) @ solved, self.sign).sum(1) for _, lin, s in parts
            ]
        return torch.cat(totals)


@dataclass(frozen=True)
class ResidualScore:
    """Norm of the residual ‖r(x⁺)‖ (RAR, residual-based adaptive refinement)."""

    def score(self, objective: Objective, candidates: Candidates) -> Tensor:
        """Return one value per candidate, shape (n,)."""
        tensors = objective.parameters.tensors()
        norms = [
            torch.linalg.vector_norm(
                objective.terms[name].residual(tensors, part), dim=1
            )
            for name, points in by_term(objective, candidates).items()
            for part in points.split(2000)
        ]
        return torch.cat(norms).detach()


@dataclass(frozen=True)
class GradDotScore:
    """Alignment with the test gradient, ``∇L_testᵀ ∇ℓ(x⁺)``, L_test a sum over test points.

    Parameters
    ----------
    n_test:
        Fresh uniform test points of each scored term.
    sign:
        ``"abs"``, ``"positive"`` or ``"negative"`` part.
    seed:
        Seed of the test points.
    """

    n_test: int = 1000
    sign: Sign = "abs"
    seed: int = 0

    def __post_init__(self) -> None:
        _checks.count("n_test", self.n_test)
        _checks.one_of("sign", self.sign, SIGNS)

    def score(self, objective: Objective, candidates: Candidates) -> Tensor:
        """Return one value per candidate, shape (n,)."""
        terms = by_term(objective, candidates)
        loss = _test_loss(objective, terms, self.n_test, self.seed)
        gradient = aggregate_gradient(loss, objective).unsqueeze(1)
        products = [
            gradient_products(objective.terms[n], objective.parameters, p, gradient)[
                :, 0
            ]
            for n, p in terms.items()
        ]
        return _signed(torch.cat(products), self.sign)


@dataclass(frozen=True)
class OutputGradScore:
    """Steepness of the solution, ``‖∇_x u(x⁺)‖₂`` over all outputs and coordinates."""

    def score(self, objective: Objective, candidates: Candidates) -> Tensor:
        """Return one value per candidate, shape (n,)."""
        names = tuple(
            f"{u}_{c}" for u in objective.outputs for c in objective.coordinates
        )
        slopes, tensors = objective.fields(names), objective.parameters.tensors()
        norms = [
            torch.linalg.vector_norm(slopes(tensors, part), dim=1)
            for points in by_term(objective, candidates).values()
            for part in points.split(2000)
        ]
        return torch.cat(norms).detach()


@dataclass(frozen=True)
class LossGradScore:
    """Size of the loss gradient by the parameters, ``‖∇_θ ℓ(x⁺)‖₂``."""

    def score(self, objective: Objective, candidates: Candidates) -> Tensor:
        """Return one value per candidate, shape (n,)."""
        norms = [
            torch.linalg.vector_norm(linear.rows(seed), dim=1)
            for name, points in by_term(objective, candidates).items()
            for _, linear, seed in point_gradients(
                objective.terms[name], objective.parameters, points
            )
        ]
        return torch.cat(norms)


@dataclass(frozen=True)
class RandomScore:
    """The same score for every candidate: selection by distribution is then uniform."""

    def score(self, objective: Objective, candidates: Candidates) -> Tensor:
        """Return one value per candidate, shape (n,)."""
        joined = torch.cat(list(by_term(objective, candidates).values()))
        return torch.ones_like(joined[:, 0])


def check_scores(scores: Tensor) -> None:
    """Raise ``ValueError`` unless there is a finite number for each point."""
    if not isinstance(scores, Tensor) or scores.ndim != 1:
        given = (
            tuple(scores.shape) if isinstance(scores, Tensor) else type(scores).__name__
        )
        raise ValueError(
            f"scores must be a tensor of shape (n,), one for each point, got {given}"
        )
    bad = ~torch.isfinite(scores)
    if bool(bad.any()):
        raise ValueError(
            f"scores must be finite: {int(bad.sum())} of {len(scores)} are NaN or infinite, the "
            f"first is that of candidate {int(bad.nonzero()[0])}"
        )


@dataclass(frozen=True, eq=False)
class SavedScore:
    """Scores computed ahead: candidates of one term with a value each.

    ``save`` writes them, ``load`` reads them back; resampling with a saved score draws from
    its own candidates.

    Examples
    --------
    >>> import torch, tempfile, pathlib
    >>> from whence import pinn
    >>> saved = pinn.SavedScore("pde", torch.zeros(2, 2), torch.tensor([1.0, 2.0]))
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "scores.npz"
    >>> saved.save(path)
    >>> pinn.SavedScore.load(path).values
    tensor([1., 2.], dtype=torch.float64)
    """

    term: str
    candidates: Tensor
    values: Tensor

    def __post_init__(self) -> None:
        _checks.points("the candidates", self.candidates, "d")
        check_scores(self.values)
        if self.values.shape != self.candidates.shape[:1]:
            raise ValueError(
                f"expected one value for each of {len(self.candidates)} candidates, got shape "
                f"{tuple(self.values.shape)}"
            )

    def score(self, objective: Objective, candidates: Candidates) -> Tensor:
        """Return the saved values; other candidates than the saved ones are an error."""
        given = by_term(objective, candidates)
        own = self.candidates.to(
            next(iter(given.values()))
        )  # float32 training rounds them
        if list(given) != [self.term] or not torch.equal(given[self.term], own):
            raise ValueError(
                f"these scores were saved for {len(self.candidates)} other candidates of term "
                f"{self.term!r}: score their own `candidates`, or compute new scores"
            )
        return self.values

    def save(self, path: PathLike) -> None:
        """Write the scores as a compressed ``.npz``, through a temporary file and a rename."""
        path = Path(path)
        held = io.BytesIO()
        np.savez_compressed(
            held,
            candidates=self.candidates.detach().cpu().numpy(),
            values=self.values.detach().cpu().numpy(),
            term=np.asarray(json.dumps(self.term)),
        )
        make_folder(path.parent)
        write_atomically(path, held.getvalue())

    @classmethod
    def load(cls, path: PathLike) -> SavedScore:
        """Read scores written by :meth:`save`; nothing in the file can run code.

        A file that is damaged or holds something else is a ``ValueError`` that names it.
        """
        held = read_arrays(Path(path))
        missing = sorted({"candidates", "values", "term"} - set(held))
        if missing:
            raise ValueError(
                f"{path} holds no saved scores: {', '.join(missing)} missing"
            )
        try:
            return cls(
                json.loads(str(held["term"])),
                torch.from_numpy(held["candidates"].astype(np.float64)),
                torch.from_numpy(held["values"].astype(np.float64)),
            )
        except (TypeError, ValueError) as error:
            raise ValueError(f"{path} holds no saved scores: {error}") from None
