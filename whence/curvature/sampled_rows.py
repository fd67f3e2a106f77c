"""A few random combinations of each point's rows of J in the place of all of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from whence.cotangents import ManyCotangents
from whence.curvature.layer_rows import RowSource
from whence.jacobian import Rows

SEED = 0


class SampledRows:
    """Rows ``√(1/s)·Σ_r ε_r J_r`` of each point, s of them, with signs ε drawn at random.

    As ``E[ε εᵀ] = I``, the sum of their squares is in the mean that of all rows of the point:
    ``E[J̃ᵀJ̃] = JᵀJ = A``. A pass through the network is then backward s times, not as often as the
    point has rows, ten for a classifier of ten classes. It is what a label drawn from the network's
    own distribution does for a Fisher matrix (Martens, arXiv 1412.1193, §5), with signs in the
    place of labels, so that any convex loss has it. The same signs are drawn at every pass.

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
        like = cotangents[0]
        shape = (self._count, len(like), len(cotangents))
        bits = torch.randint(0, 2, shape, generator=generator)
        signs = (2.0 * bits - 1.0).to(like) / self._count**0.5

        if isinstance(cotangents, ManyCotangents):
            return [cotangents.combined(of_sample) for of_sample in signs]
        columns = torch.stack(list(cotangents), dim=2)  # (n, m, rows)
        # Σ_r ε_r c_r of each point and sample.
        combinations = torch.einsum("nmr,snr->snm", columns, signs)
        return list(combinations)
