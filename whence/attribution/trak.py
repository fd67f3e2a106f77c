"""TRAK: influence in a random projection, of the margin by which a classifier decides."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from whence import _checks
from whence.attribution.labels import Attributes
from whence.attribution.method import Method
from whence.attribution.tiles import Solved
from whence.catalogue import METHODS
from whence.classification import BinaryCrossEntropy, CrossEntropy
from whence.curvature.operators import Damped, GaussNewtonMatrix
from whence.curvature.sketched import Projected, Sketched
from whence.curvature.solvers import MEMORY_BUDGET, Damping
from whence.losses import Squared, require_target
from whence.objective import LossLike, Objective
from whence.parameters import Select
from whence.points import Points, target_of
from whence.samples import Data
from whence.term import Term

DIMENSION = 512
"""Columns of the projection, unless another number is asked for, or there are fewer samples."""
DAMPING = 1e-6


@METHODS.named()
class TRAK(Method):
    """Randomly projected gradients of a classifier's margin, with the kernel's inverse between.

    Entry (target f, sample i) is ``(1/N) ∇fᵀS (SᵀAS + λI)⁻¹ Sᵀ∇ℓ_i`` with
    ``A = (1/N) Σ_j ∇m_j ∇m_jᵀ``, m the margin ``log p/(1 − p)`` of a sample's label and S a random
    projection: logistic regression on the projected gradients of the margin (Park et al. 2023,
    arXiv 2303.14186, equation 13, where ``∇ℓ = −(1 − p)∇m``; for the target's margin, as there,
    turn the sign of a loss). The published method is the mean over networks, ``wh.Ensemble([wh.TRAK
    (model, data, loss, seed=k) for k, model in enumerate(models)])``.

    Parameters
    ----------
    objective:
        What was trained, or a model.
    data, loss:
        Of a model, what it was trained on and for, see
        :class:`whence.attribution.method.Method`.
    parameters:
        Of a model, which parameters to attribute by.
    dimension:
        k, the columns of S; by default 512, or half of the samples or all parameters where these
        are fewer.
    damping:
        λ relative to the largest eigenvalue of ``SᵀAS``.
    seed:
        Of S.
    memory_budget:
        Bytes that S, the projected curvature, or a result may take (2 GiB).

    Raises
    ------
    ValueError
        If the loss is not the cross-entropy of one label for each sample.

    Examples
    --------
    >>> import torch, whence as wh
    >>> model = torch.nn.Linear(3, 2)
    >>> x, y = torch.rand(10, 3), torch.arange(10) % 2
    >>> trak = wh.TRAK(model, (x, y), torch.nn.CrossEntropyLoss(), dimension=4)
    >>> trak.attribute(wh.Loss((x[:2], y[:2]))).shape
    (2, 10)
    """

    name = "trak"

    def __init__(
        self,
        objective: Objective | nn.Module,
        data: Data | None = None,
        loss: LossLike | None = None,
        *,
        parameters: Select = None,
        dimension: int | None = None,
        damping: float = DAMPING,
        seed: int = 0,
        memory_budget: int = MEMORY_BUDGET,
    ) -> None:
        super().__init__(
            objective, data, loss, parameters=parameters, memory_budget=memory_budget
        )
        terms = [margin_term(term) for term in self.objective.terms.values()]
        self._margins = self.objective.with_terms(terms).with_weight_decay(0.0)
        self.dimension = self._dimension(dimension)
        self.damping = Damping(damping)
        self.seed = seed
        self._state: Projected | None = None
        self._theta = torch.empty(0)

    def _dimension(self, asked: int | None) -> int:
        if asked is not None:
            _checks.count("dimension", asked)
            return asked
        # With as many columns as samples the kernel would fit them all, and say nothing.
        half = self.objective.n_points // 2
        return max(1, min(DIMENSION, half, self.objective.parameters.size))

    def description(self) -> Attributes:
        """Return the dimension of the projection."""
        return {"dimension": self.dimension, "seed": self.seed}

    def state(self) -> Projected:
        """Return the factored kernel; made at first use and again when the network changed."""
        theta = self.objective.parameters.vector()
        if self._state is None or not torch.equal(theta, self._theta):
            solver = Sketched(
                self.dimension,
                nonzeros=min(4, self.dimension),
                seed=self.seed,
                memory_budget=self.memory_budget,
            )
            operator = GaussNewtonMatrix(self._margins)
            sketch, curvature = solver.projected(operator)
            # That of A itself takes many passes over the samples, this one none.
            largest = float(torch.linalg.eigvalsh(curvature)[-1])
            system = Damped(operator, self.damping.resolve(largest))
            self._state = Projected(solver, system, sketch, curvature, largest)
            self._theta = theta
        return self._state

    def transform_gradients(self, gradients: Tensor) -> tuple[Tensor, Solved]:
        """Return ``S(SᵀAS + λI)⁻¹Sᵀ∇f`` for the columns of gradients (P, K)."""
        # The residual of the unprojected system says nothing of a projection.
        return self.state().inverse(gradients), Solved()


@dataclass(frozen=True, eq=False)
class Margin:
    """The margin ``log p/(1 − p)`` of each sample's label, (n, 1)."""

    term: Term

    def __call__(self, tensors: Mapping[str, Tensor], points: Points) -> Tensor:
        """Return the margins of samples."""
        logits = self.term.residual(tensors, points)  # (n, C)
        target = require_target(target_of(points)).reshape(len(logits), -1)
        if isinstance(self.term.loss, BinaryCrossEntropy):
            return logits * (2 * target.to(logits) - 1)

        # log p/(1 − p) = z_y − log Σ_{c ≠ y} exp z_c
        label = target.long()
        chosen = logits.gather(1, label)
        others = logits.scatter(1, label, -torch.inf)
        return chosen - others.logsumexp(dim=1, keepdim=True)


def margin_term(term: Term) -> Term:
    """Return the term whose residual is the margin of each sample.

    Raises
    ------
    ValueError
        If there is no one label for each sample.
    """
    loss = term.loss
    target = target_of(term.points[:1])
    one_label = target is not None and target[0].numel() == 1
    of_classes = isinstance(loss, (CrossEntropy, BinaryCrossEntropy))
    if not of_classes or not one_label or getattr(loss, "positions", 1) != 1:
        raise ValueError(
            "TRAK is of classifiers with one label for each sample, whose margin it explains: use "
            "wh.Influence(..., solver=wh.Sketched()), which is the same for any loss, got "
            f"{_checks.describe(loss)}"
        )
    return replace(term, residual=Margin(term), loss=Squared(0.5))
