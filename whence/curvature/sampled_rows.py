"""A few rows of each point in the place of all: its leading ones, and the others combined."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.nn.functional import normalize

from whence.cotangents import ManyCotangents
from whence.curvature.layer_rows import RowSource
from whence.jacobian import Rows

SEED = 0
SQUARINGS = 3
POWER_STEPS = 4
"""Towards a leading direction, by ``(SᵀS)^8``; nothing but the variance depends on them."""


class SampledRows:
    """s rows of each point whose squares are in the mean those of all: ``E[J̃ᵀJ̃] = JᵀJ = A``.

    A pass through the network is then backward s times, not as often as the point has rows, ten for
    a classifier of ten classes. Rows are ``cᵀ∂r/∂θ`` for the columns c of a root of the loss's
    curvature Λ, and any root will do. Of one whose first s columns are close to ``√λ_k q_k``, by
    the leading eigenvectors of Λ, s − 1 are kept, and the others are added up with signs ε drawn at
    random, as ``E[ε εᵀ] = I``: what varies with the signs are products of two of them, which are
    small where Λ is nearly of rank s, as that of a classifier between few classes is. s columns or
    fewer are all kept.

    A label drawn from the network's own distribution does the same for a Fisher matrix (Martens,
    arXiv 1412.1193, §5), with more variance, and of log-likelihoods only. Of so many outputs that
    Λ is not made (language models) a row is ``√(1/s)·Σ_k ε_k J_k``, s times. The same signs are
    drawn at every pass, and combinations of few outputs kept for the next.

    Parameters
    ----------
    root:
        J, whose rows are combined.
    count:
        s, rows of each point.

    Examples
    --------
    >>> import torch, whence as wh
    >>> from whence.jacobian import Jacobian
    >>> from whence.curvature.sampled_rows import SampledRows
    >>> model = torch.nn.Linear(2, 3)
    >>> term = wh.Term("data", lambda tensors, z: torch.func.functional_call(model, tensors, (z,)),
    ...                torch.ones(5, 2))
    >>> root = Jacobian(wh.Objective(model, [term]), scaled=True)
    >>> [len(rows) for rows, _ in root.blocks()], [len(r) for r, _ in SampledRows(root, 1).blocks()]
    ([15], [5])
    """

    def __init__(self, root: RowSource, count: int) -> None:
        self.objective = root.objective
        self.parameters = root.parameters
        self._root = root
        self._count = count
        self._kept: dict[int, list[Tensor]] = {}

    def blocks(self) -> Iterator[tuple[Rows, Tensor]]:
        """Yield ``(rows, an empty right-hand side)`` block by block, as those of J come."""
        for k, (rows, right) in enumerate(self._root.blocks()):
            cotangents = self._combined(k, rows.cotangents)
            sampled = Rows(rows.linear, cotangents, rows.start, rows.term)
            yield sampled, right.new_empty(0)

    def _combined(self, block: int, cotangents: Sequence[Tensor]) -> list[Tensor]:
        """Return s combinations of the cotangents of the points of a block, each (n, m)."""
        if block in self._kept:
            return self._kept[block]

        # Signs are drawn on the processor, so that every device draws the same.
        generator = torch.Generator().manual_seed(SEED + block)
        if isinstance(cotangents, ManyCotangents):
            # Of so many outputs they would fill the memory.
            return self._of_many(cotangents, generator)
        self._kept[block] = self._of_few(cotangents, generator)
        return self._kept[block]

    def _of_many(
        self, cotangents: ManyCotangents, generator: torch.Generator
    ) -> list[Tensor]:
        """Return s combinations with random signs."""
        n, m = cotangents[0].shape
        signs = drawn((self._count, n, m), cotangents[0], generator)
        weights = signs / self._count**0.5
        return [cotangents.combined(of_sample) for of_sample in weights]

    def _of_few(
        self, cotangents: Sequence[Tensor], generator: torch.Generator
    ) -> list[Tensor]:
        """Return leading columns of the root and a combination of the others."""
        if len(cotangents) <= self._count:
            return list(cotangents)

        n = len(cotangents[0])
        root = torch.stack(list(cotangents), dim=2)  # (n, m, rows)
        leading, left = leading_columns(root, self._count)
        kept, last = leading.tensor_split([self._count - 1], dim=2)
        others = torch.cat([last, left], dim=2)
        _, _, n_others = others.shape
        signs = drawn((n, n_others), others, generator)
        # Σ_k ε_k c_k of each point.
        combination = torch.einsum("nmk,nk->nm", others, signs)
        return [*kept.unbind(2), combination]


def leading_columns(root: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return columns close to ``√λ_k q_k`` of ``S Sᵀ``, (n, m, count), and what is left of S.

    Side by side they are a root of ``S Sᵀ`` to rounding, however close the former are to
    eigenvectors: S loses a direction v at a time, and of any unit vector it is
    ``(Sv)(Sv)ᵀ + S(I − vvᵀ)(I − vvᵀ)Sᵀ = S Sᵀ``. The rank of what is left falls by one each time.

    Examples
    --------
    >>> import torch
    >>> from whence.curvature.sampled_rows import leading_columns
    >>> leading, left = leading_columns(torch.tensor([[[1.0, -1.0], [-1.0, 1.0]]]), 1)
    >>> round(leading.square().sum().item(), 5), round(left.abs().max().item(), 5)
    (4.0, 0.0)
    """
    columns = []
    left = root
    for _ in range(count):
        direction = leading_direction(left)
        column = left @ direction
        left = left - column @ direction.mT
        columns.append(column)
    return torch.cat(columns, dim=2), left


def leading_direction(root: Tensor) -> Tensor:
    """Return unit vectors (n, k, 1) close to the leading eigenvectors of ``SᵀS``; 0 of S = 0."""
    # Sizes of losses' curvatures are anything: powers must neither vanish nor overflow.
    power = with_unit_diagonal(root.mT @ root)
    for _ in range(SQUARINGS):
        power = with_unit_diagonal(power @ power)

    # Of the columns of Σ_k λ_k^p q_k q_kᵀ that of the largest diagonal entry has most of q_1.
    points = torch.arange(len(root), device=root.device)
    pivot = power.diagonal(dim1=1, dim2=2).argmax(dim=1)
    direction = power[points, pivot].unsqueeze(2)
    tiny = torch.finfo(root.dtype).tiny
    for _ in range(POWER_STEPS):
        direction = normalize(power @ direction, dim=1, eps=tiny)
    return direction


def with_unit_diagonal(squares: Tensor) -> Tensor:
    """Return matrices (n, k, k) over the largest entry of their diagonals; 0 stays 0."""
    largest = squares.diagonal(dim1=1, dim2=2).amax(dim=1)
    tiny = torch.finfo(squares.dtype).tiny
    return squares / largest.clamp(min=tiny).view(-1, 1, 1)


def drawn(shape: tuple[int, ...], like: Tensor, generator: torch.Generator) -> Tensor:
    """Return signs, each 1 or −1 as likely."""
    bits = torch.randint(0, 2, shape, generator=generator)
    return (2.0 * bits - 1.0).to(like)
