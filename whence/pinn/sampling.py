"""Which points to train on next: scores of candidates, selections, and resampling.

Sources: influence score, Naujoks et al., arXiv 2506.16443; residual, Lu et al. 2021 and Wu et
al., arXiv 2207.10289 (which also gives the selection by distribution); grad-dot, Charpiat et
al. 2019.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
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
from whence.objective import Objective, Term

Candidates = Tensor | Mapping[str, Tensor]
Sign = Literal["abs", "positive", "negative"]
SIGNS = ("abs", "positive", "negative")
SCORE_DAMPING, SCORE_TOLERANCE = 1e-6, 1e-10


class Score(Protocol):
    """Gives every candidate point a number, not negative: the larger, the more wanted."""

    def score(self, objective: Objective, candidates: Candidates) -> Tensor:
        """Return one value per candidate, shape (n,)."""


def _by_term(objective: Objective, candidates: Candidates) -> dict[str, Tensor]:
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


def _test_loss(objective: Objective, terms: Mapping[str, Tensor], n: int, seed: int) -> Loss:
    """Return the losses at n fresh uniform test points of each scored term."""
    return Loss(
        {name: objective.draw(name, n, _spawn(seed, 1 + k)) for k, name in enumerate(terms)}
    )


def _spawn(seed: int, k: int) -> int:
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
        terms = _by_term(objective, candidates)
        quantity = self.quantity or _test_loss(objective, terms, self.n_test, self.seed)
        weakest = max(SCORE_DAMPING, default_damping(objective.parameters.dtype))
        damping = weakest if self.damping is None else self.damping
        solver = self.solver or Exact(tolerance=SCORE_TOLERANCE)
        influence = Influence(objective, solver=solver, damping=damping)
        if self.reduce == "abs_of_sum":
            gradient = aggregate_gradient(quantity, objective)
            vector = influence.solve(gradient.unsqueeze(1)).value
            products = [
                gradient_products(objective.terms[n], objective.parameters, p, vector)[:, 0]
                for n, p in terms.items()
            ]
            return _signed(torch.cat(products), self.sign)
        vectors = [influence.solve(g.T).value for g in quantity.gradients(objective)]
        solved = torch.cat(vectors, dim=1)
        totals = []
        for name, points in terms.items():
            parts = point_gradients(objective.terms[name], objective.parameters, points)
            totals += [_signed(lin.rows(s) @ solved, self.sign).sum(1) for _, lin, s in parts]
        return torch.cat(totals)


@dataclass(frozen=True)
class ResidualScore:
    """Norm of the residual ‖r(x⁺)‖ (RAR, residual-based adaptive refinement)."""

    def score(self, objective: Objective, candidates: Candidates) -> Tensor:
        """Return one value per candidate, shape (n,)."""
        tensors = objective.parameters.tensors()
        norms = [
            torch.linalg.vector_norm(objective.terms[name].residual(tensors, part), dim=1)
            for name, points in _by_term(objective, candidates).items()
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
        terms = _by_term(objective, candidates)
        loss = _test_loss(objective, terms, self.n_test, self.seed)
        gradient = aggregate_gradient(loss, objective).unsqueeze(1)
        products = [
            gradient_products(objective.terms[n], objective.parameters, p, gradient)[:, 0]
            for n, p in terms.items()
        ]
        return _signed(torch.cat(products), self.sign)


@dataclass(frozen=True)
class OutputGradScore:
    """Steepness of the solution, ``‖∇_x u(x⁺)‖₂`` over all outputs and coordinates."""

    def score(self, objective: Objective, candidates: Candidates) -> Tensor:
        """Return one value per candidate, shape (n,)."""
        names = tuple(f"{u}_{c}" for u in objective.outputs for c in objective.coordinates)
        slopes, tensors = objective.fields(names), objective.parameters.tensors()
        norms = [
            torch.linalg.vector_norm(slopes(tensors, part), dim=1)
            for points in _by_term(objective, candidates).values()
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
            for name, points in _by_term(objective, candidates).items()
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
        joined = torch.cat(list(_by_term(objective, candidates).values()))
        return torch.ones_like(joined[:, 0])


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
        _finite(self.values)
        if self.values.shape != self.candidates.shape[:1]:
            raise ValueError(
                f"expected one value for each of {len(self.candidates)} candidates, got shape "
                f"{tuple(self.values.shape)}"
            )

    def score(self, objective: Objective, candidates: Candidates) -> Tensor:
        """Return the saved values; other candidates than the saved ones are an error."""
        given = _by_term(objective, candidates)
        own = self.candidates.to(next(iter(given.values())))  # float32 training rounds them
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
            raise ValueError(f"{path} holds no saved scores: {', '.join(missing)} missing")
        try:
            return cls(
                json.loads(str(held["term"])),
                torch.from_numpy(held["candidates"].astype(np.float64)),
                torch.from_numpy(held["values"].astype(np.float64)),
            )
        except (TypeError, ValueError) as error:
            raise ValueError(f"{path} holds no saved scores: {error}") from None


class Selection(Protocol):
    """Chooses n of the candidates by their scores."""

    def select(self, scores: Tensor, n: int, seed: int) -> Tensor:
        """Return n different row numbers, shape (n,)."""


def _finite(scores: Tensor) -> None:
    if not isinstance(scores, Tensor) or scores.ndim != 1:
        given = tuple(scores.shape) if isinstance(scores, Tensor) else type(scores).__name__
        raise ValueError(f"scores must be a tensor of shape (n,), one for each point, got {given}")
    bad = ~torch.isfinite(scores)
    if bool(bad.any()):
        raise ValueError(
            f"scores must be finite: {int(bad.sum())} of {len(scores)} are NaN or infinite, the "
            f"first is that of candidate {int(bad.nonzero()[0])}"
        )


def _enough(scores: Tensor, n: int) -> Tensor:
    _finite(scores)
    _checks.count("n", n)
    if n > len(scores):
        raise ValueError(f"cannot select {n} of {len(scores)} candidates: raise `candidates`")
    return scores.detach().double().cpu()


@dataclass(frozen=True)
class Proportional:
    """Draw without replacement with probability ``p ∝ s^k / mean(s^k) + c`` (RAD).

    Where all scores vanish the draw is uniform; negative scores are an error.

    Parameters
    ----------
    k:
        Exponent of the score: larger is sharper.
    c:
        Share of the uniform distribution mixed in.

    Examples
    --------
    >>> import torch
    >>> from whence import pinn
    >>> scores = torch.tensor([0.0, 1.0, 0.0, 1.0])
    >>> sorted(pinn.Proportional(k=1, c=0).select(scores, 2, seed=0).tolist())
    [1, 3]
    """

    k: float = 1.0
    c: float = 1.0

    def __post_init__(self) -> None:
        _checks.positive("k", self.k, zero=True)
        _checks.positive("c", self.c, zero=True)

    def select(self, scores: Tensor, n: int, seed: int) -> Tensor:
        """Return n different row numbers, shape (n,)."""
        values = _enough(scores, n)
        if bool((values < 0).any()):
            raise ValueError("Proportional needs scores that are not negative: take their size")
        largest = values.max().clamp_min(torch.finfo(torch.float64).tiny)
        powers = (values / largest) ** self.k
        mean = powers.mean()
        weights = powers / mean + self.c if bool(mean > 0) else torch.ones_like(powers)
        # Gumbel keys draw without replacement in one pass (Efraimidis & Spirakis 2006).
        gumbel = -torch.log(-torch.log(_uniform(len(values), seed)))
        keys = torch.log(weights.clamp_min(1e-300)) + gumbel
        return torch.topk(keys, n).indices


@dataclass(frozen=True)
class TopK:
    """Take the n highest scores; ties go to the earlier candidate.

    Examples
    --------
    >>> import torch
    >>> from whence import pinn
    >>> pinn.TopK().select(torch.tensor([1.0, 3.0, 2.0]), 2, seed=0)
    tensor([1, 2])
    """

    def select(self, scores: Tensor, n: int, seed: int) -> Tensor:
        """Return n different row numbers, shape (n,)."""
        return torch.argsort(_enough(scores, n), descending=True, stable=True)[:n]


def _uniform(n: int, seed: int) -> Tensor:
    drawn = np.random.default_rng(seed).random(n)
    return torch.from_numpy(drawn).clamp(1e-300, 1 - 1e-16)


@dataclass(frozen=True)
class Resample:
    """When and how training points are renewed.

    Every ``every`` iterations, ``candidates`` fresh points of each resampled term are scored and
    ``n`` of them selected. ``add`` puts them beside the present points; once there are
    ``max_points`` of them, the points longest in training leave. ``replace`` lets them
    take the place of the ``n`` points longest in training. No point is trained on twice: candidates
    that are training points already are passed over, so saved ones can run out.

    Parameters
    ----------
    score, selection:
        What makes a candidate wanted, and how wanted ones are chosen.
    n:
        Points selected each time; ``None``: as many as there are (``replace`` only).
    every:
        Iterations between two rounds.
    update:
        ``"add"`` or ``"replace"``.
    candidates:
        Fresh uniform candidates in each round and term.
    max_points:
        Upper limit of points of a term, for ``add``.
    terms:
        Which terms; by default the first equation's, or that of a :class:`SavedScore`.

    Examples
    --------
    >>> from whence import pinn
    >>> resample = pinn.Resample(pinn.ResidualScore(), n=5, candidates=100)
    >>> problem = pinn.zoo.load("diffusion")
    >>> objective = problem.objective(problem.network(seed=0), problem.sample(50, seed=0))
    >>> resample.update_points(objective, round=1, seed=0)["pde"].shape
    torch.Size([55, 2])
    """

    score: Score = InfluenceScore()
    selection: Selection = Proportional(k=2, c=0)
    n: int | None = 10
    every: int = 100
    update: Literal["add", "replace"] = "add"
    candidates: int = 10_000
    max_points: int | None = None
    terms: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        self._check_kinds()
        _checks.count("every", self.every)
        _checks.count("candidates", self.candidates)
        _checks.one_of("update", self.update, ("add", "replace"))
        if self.n is not None:
            _checks.count("n", self.n)
        elif self.update == "add":
            raise ValueError("update='add' needs the number n of points to add")
        if self.max_points is not None:
            _checks.count("max_points", self.max_points)
            if self.update == "replace":
                raise ValueError(
                    "max_points does nothing with update='replace', which keeps the number of "
                    "points: leave it out"
                )
            if self.n is not None and self.n > self.max_points:
                raise ValueError(f"n = {self.n} exceeds max_points = {self.max_points}")
        if self.n is not None and self.n > self._pool_size():
            raise ValueError(
                f"cannot select n = {self.n} of {self._pool_size()} candidates: raise `candidates`"
            )

    def _check_kinds(self) -> None:
        for what, given, method, example in (
            ("score", self.score, "score", "pinn.ResidualScore()"),
            ("selection", self.selection, "select", "pinn.TopK()"),
        ):
            if isinstance(given, type) or not callable(getattr(given, method, None)):
                raise TypeError(f"{what} must be an object such as {example}, got {given!r}")
        if isinstance(self.terms, str):
            raise TypeError(f"terms must be a tuple of names, such as ({self.terms!r},)")

    def _pool_size(self) -> int:
        saved = isinstance(self.score, SavedScore)
        return len(self.score.candidates) if saved else self.candidates  # type: ignore[attr-defined]

    def check(self, objective: Objective) -> None:
        """Raise ``ValueError`` if the objective's points could not be renewed."""
        for name in self._terms(objective):
            present = len(objective.term(name).points)
            if self.n is None and present > self._pool_size():
                raise ValueError(
                    f"cannot renew all {present} points of term {name!r} from "
                    f"{self._pool_size()} candidates: raise `candidates`"
                )
            if isinstance(self.score, SavedScore):
                self._check_saved(self.score, objective, name)
            else:
                objective.draw(name, 1, seed=0)  # which says so where none can be drawn
        if isinstance(self.score, InfluenceScore) and self.score.quantity is not None:
            self.score.quantity.values(objective)

    def _check_saved(self, saved: SavedScore, objective: Objective, name: str) -> None:
        if name != saved.term:
            raise ValueError(
                f"the saved scores are of term {saved.term!r}, not of {name!r}: "
                f"pass terms=({saved.term!r},)"
            )
        _by_term(objective, {name: saved.candidates})
        if isinstance(self.selection, Proportional):
            self.selection.select(saved.values, 1, seed=0)

    def update_points(self, objective: Objective, round: int, seed: int) -> dict[str, Tensor]:
        """Return the renewed points of each resampled term, oldest first.

        Parameters
        ----------
        objective:
            The present objective.
        round, seed:
            Together they determine every random draw, so a run can be repeated and resumed.
        """
        fresh = {}
        for k, name in enumerate(self._terms(objective)):
            term = objective.term(name)
            child = _spawn(seed, 1000 * round + k)
            scorer = self.score
            if isinstance(scorer, SavedScore):
                pool = scorer.candidates.to(term.points)
            else:
                pool = objective.draw(name, self.candidates, child)
                if isinstance(scorer, (InfluenceScore, GradDotScore)):
                    scorer = replace(scorer, seed=_spawn(child, 1))
            scores = scorer.score(objective, {name: pool})
            fresh[name] = self._renewed(term, pool, scores, _spawn(child, 2))
        return fresh

    def _renewed(self, term: Term, pool: Tensor, scores: Tensor, seed: int) -> Tensor:
        """Return the points of a term with new ones selected from ``pool``."""
        new = _new_rows(pool, term.points)
        n = min(len(term.points) if self.n is None else self.n, len(new))
        if n == 0:
            return term.points
        chosen = new[self.selection.select(scores.cpu()[new], n, seed)]
        return self._merged(term, pool[chosen.to(pool.device)])

    def _terms(self, objective: Objective) -> Iterator[str]:
        saved = isinstance(self.score, SavedScore)
        first = self.score.term if saved else next(iter(objective.terms))  # type: ignore[attr-defined]
        yield from self.terms or (first,)

    def _merged(self, term: Term, new: Tensor) -> Tensor:
        if self.update == "replace":
            return torch.cat([term.points[len(new) :], new])
        joined = torch.cat([term.points, new])
        return joined if self.max_points is None else joined[-self.max_points :]


def _new_rows(pool: Tensor, present: Tensor) -> Tensor:
    """Return the row numbers of candidates that are not present, each different one once."""
    again = _checks.repeated(torch.cat([present, pool]))
    return torch.nonzero(~again[len(present) :])[:, 0]


__all__ = [
    "GradDotScore",
    "InfluenceScore",
    "LossGradScore",
    "OutputGradScore",
    "Proportional",
    "RandomScore",
    "Resample",
    "ResidualScore",
    "SavedScore",
    "Score",
    "Selection",
    "TopK",
]
