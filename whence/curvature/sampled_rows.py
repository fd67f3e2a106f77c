"""A few rows of each point in the place of all: its leading ones, and the others combined."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from whence.cotangents import ManyCotangents
from whence.curvature.layer_rows import RowSource
from whence.jacobian import Rows

SEED = 0


class SampledRows:
    """s rows of each point whose squares are in the mean those of all: ``E[J̃ᵀJ̃] = JᵀJ = A``.

    A pass through the network is then backward s times, not as often as the point has rows, ten for
    a classifier of ten classes. Rows are ``cᵀ∂r/∂θ`` for the columns c of a root of the loss's
    curvature Λ, and any root will do. With columns ``√λ_k q_k`` by the eigenvectors of Λ the first
    s − 1 are kept, and the others are added up with signs ε drawn at random, as ``E[ε εᵀ] = I``:
    what varies with the signs are products of two of them, which are small where Λ is nearly of
    rank s, as that of a classifier between few classes is. s columns or fewer are all kept.

    A label drawn from the network's own distribution does the same for a Fisher matrix (Martens,
    arXiv 1412.1193, §5), with more variance, and of log-likelihoods only. Of so many outputs that
    Λ is not made (language models) a row is ``√(1/s)·Σ_k ε_k J_k``, s times. The same signs are
    drawn at every pass.

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

    def blocks(self) -> Iterator[tuple[Rows, Tensor]]:
        """Yield ``(rows, an empty right-hand side)`` block by block, as those of J come."""
        # Signs are drawn on the processor, so that every device draws the same.
        generator = torch.Generator().manual_seed(SEED)
        for rows, right in self._root.blocks():
            cotangents = self._combined(rows.cotangents, generator)
            sampled = Rows(rows.linear, cotangents, rows.start, rows.term)
            yield sampled, right.new_empty(0)

    def _combined(
        self, cotangents: Sequence[Tensor], generator: torch.Generator
    ) -> list[Tensor]:
        """Return s combinations of a point's cotangents, each (n, m)."""
        n = len(cotangents[0])
        if isinstance(cotangents, ManyCotangents):
            shape = (self._count, n, len(cotangents))
            signs = drawn(shape, cotangents[0], generator)
            weights = signs / self._count**0.5
            return [cotangents.combined(of_sample) for of_sample in weights]

        root = torch.stack(list(cotangents), dim=2)  # (n, m, rows)
        columns = leading_columns(root)
        if columns.shape[2] <= self._count:
            return list(columns.unbind(2))

        kept, others = columns.tensor_split([self._count - 1], dim=2)
        _, _, left = others.shape
        signs = drawn((n, left), columns, generator)
        # Σ_k ε_k c_k of each point.
        combination = torch.einsum("nmk,nk->nm", others, signs)
        return [*kept.unbind(2), combination]


def leading_columns(root: Tensor) -> Tensor:
    """Return the columns ``√λ_k q_k`` of ``S Sᵀ`` for roots S (n, m, k), the largest first.

    Examples
    --------
    >>> import torch
    >>> from whence.curvature.sampled_rows import leading_columns
    >>> columns = leading_columns(torch.tensor([[[1.0, -1.0], [-1.0, 1.0]]]))
    >>> [round(size, 6) for size in columns.square().sum(dim=1)[0].tolist()]
    [4.0, 0.0]
    """
    # S = U Σ Vᵀ, so that S Sᵀ = (U Σ)(U Σ)ᵀ.
    directions, sizes, _ = torch.linalg.svd(root, full_matrices=False)
    return directions * sizes.unsqueeze(1)


def drawn(shape: tuple[int, ...], like: Tensor, generator: torch.Generator) -> Tensor:
    """Return signs, each 1 or −1 as likely."""
    bits = torch.randint(0, 2, shape, generator=generator)
    return (2.0 * bits - 1.0).to(like)
