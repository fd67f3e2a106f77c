"""The size of the residual: residual-based adaptive refinement."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from whence.catalogue import SCORES
from whence.objective import Objective
from whence.pinn.sampling.scores.base import Candidates, candidate_blocks


@SCORES.named("residual")
@dataclass(frozen=True)
class ResidualScore:
    """Norm of the residual ‖r(x⁺)‖ (RAR, residual-based adaptive refinement).

    Lu et al. 2021, doi 10.1137/19M1274067; Wu et al. 2022, arXiv 2207.10289, which also gives the
    selection by distribution.
    """

    is_pointwise = True

    def score(self, objective: Objective, candidates: Candidates) -> Tensor:
        """Return one value per candidate, shape (n,)."""
        tensors = objective.parameters.tensors()
        norms = []
        for term, points in candidate_blocks(objective, candidates):
            residual = term.residual(tensors, points)  # (n, m)
            norms.append(torch.linalg.vector_norm(residual, dim=1))
        return torch.cat(norms).detach()
