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
"""Of the signs of the first block; those that follow count up from it."""
SQUARINGS = 3
"""How often ``SᵀS`` is squared: its power 2³ is what a leading direction is found by."""
POWER_STEPS = 4
"""Products with that power. Only the variance depends on either number, not the mean."""


class SampledRows:
    """s rows of each point whose squares are in the mean those of all: ``E[J̃ᵀJ̃] = JᵀJ = A``.

    The rows of a point are ``c_kᵀ ∂f/∂θ``, for the columns c_k (m,) of a root S of the curvature of
    its loss with respect to its m outputs f, ``S Sᵀ = Λ`` (scaled by the weights of the term and of
    the point). Any root will do, as ``JᵀJ = Σ_points ∂f/∂θᵀ S Sᵀ ∂f/∂θ``. S has as many columns as
    the network has outputs, of a classifier one less, and each is a pass backward.

    **Leading columns.** Of a root whose first columns are close to ``√λ_k q_k``, by the leading
    eigenvectors of Λ, s − 1 are kept, and the others are added up with random signs ε_k,
    ``c̃ = Σ_k ε_k c_k``. As ``E[ε_k ε_l]`` is 1 for k = l and 0 otherwise,
    ``E[c̃ c̃ᵀ] = Σ_k c_k c_kᵀ``: nothing is lost in the mean. What varies with the signs are the
    products ``c_k c_lᵀ`` of different columns, which are small where Λ is nearly of rank s, as that
    of a classifier between few classes is: then the others are one column. s columns or fewer are
    all kept.

    **Many outputs.** Where there are so many that Λ is not made (language models), s rows are
    ``c̃/√s`` with signs of their own, over all columns.

    The same signs are drawn at every pass over the points, so that all passes see one matrix. A
    label drawn from the network's own distribution does the same for a Fisher matrix (Martens,
    arXiv 1412.1193, §5), with more variance, and of log-likelihoods only.

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
        # Of each block, as finding leading columns takes longer than to keep them.
        self._kept: dict[int, list[Tensor]] = {}

    def blocks(self) -> Iterator[tuple[Rows, Tensor]]:
        """Yield ``(rows, an empty right-hand side)`` block by block, as those of J come."""
        for block, (rows, right) in enumerate(self._root.blocks()):
            cotangents = self._combined(block, rows.cotangents)
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
            return combined_many(cotangents, self._count, generator)

        combined = combined_few(cotangents, self._count, generator)
        self._kept[block] = combined
        return combined


def combined_many(
    cotangents: ManyCotangents, count: int, generator: torch.Generator
) -> list[Tensor]:
    """Return s = ``count`` combinations ``Σ_k ε_k c_k/√s`` of each point, each (n, m)."""
    # The sum of s squares has the mean Σ_k c_k c_kᵀ if each has that over s.
    n, m = cotangents[0].shape
    signs = random_signs((count, n, m), cotangents[0], generator)
    weights = signs / count**0.5
    return [cotangents.combined(of_sample) for of_sample in weights]


def combined_few(
    cotangents: Sequence[Tensor], count: int, generator: torch.Generator
) -> list[Tensor]:
    """Return the leading s − 1 columns and ``Σ_k ε_k c_k`` of the others, each (n, m)."""
    if len(cotangents) <= count:
        return list(cotangents)

    root = torch.stack(list(cotangents), dim=2)  # S of each point, (n, m, columns)
    leading, remainder = leading_columns(root, count)
    kept, last = leading.tensor_split([count - 1], dim=2)

    # The last leading column and what is left of S are combined.
    others = torch.cat([last, remainder], dim=2)
    n, _, n_others = others.shape
    signs = random_signs((n, n_others), others, generator)
    combination = torch.einsum("nmk,nk->nm", others, signs)
    return [*kept.unbind(2), combination]


def leading_columns(root: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return columns close to ``√λ_k q_k`` of ``S Sᵀ``, and what is left of S.

    Side by side they are a root of ``S Sᵀ`` to rounding, however close the former are to
    eigenvectors: S loses a direction v at a time, and of any unit vector it is
    ``(Sv)(Sv)ᵀ + S(I − vvᵀ)(I − vvᵀ)Sᵀ = S Sᵀ``, as ``I − vvᵀ`` is a projection. The rank of what
    is left falls by one each time.

    Parameters
    ----------
    root:
        S of each point, (n, m, k).
    count:
        How many columns.

    Returns
    -------
    tuple of torch.Tensor
        The columns (n, m, count), the largest first, and the remainder of S, (n, m, k).

    Examples
    --------
    >>> import torch
    >>> from whence.curvature.sampled_rows import leading_columns
    >>> leading, left = leading_columns(torch.tensor([[[1.0, -1.0], [-1.0, 1.0]]]), 1)
    >>> round(leading.square().sum().item(), 5), round(left.abs().max().item(), 5)
    (4.0, 0.0)
    """
    columns = []
    remainder = root
    for _ in range(count):
        # With v an eigenvector of SᵀS, Sv = √λ q by the singular value decomposition of S.
        direction = leading_direction(remainder)  # v, (n, k, 1)
        column = remainder @ direction
        remainder = remainder - column @ direction.mT  # S(I − vvᵀ)
        columns.append(column)
    return torch.cat(columns, dim=2), remainder


def leading_direction(root: Tensor) -> Tensor:
    """Return unit vectors close to the leading eigenvectors of ``SᵀS``, (n, k, 1); 0 of S = 0.

    By the power method: ``(SᵀS)^p = Σ_k λ_k^p v_k v_kᵀ`` turns every vector towards v_1.
    """
    # Sizes of losses' curvatures are anything: powers must neither vanish nor overflow.
    power = with_unit_diagonal(root.mT @ root)
    for _ in range(SQUARINGS):
        power = with_unit_diagonal(power @ power)

    # It begins at a column of the power: column j is Σ_k λ_k^p v_kj v_k, and of all columns that of
    # the largest diagonal entry, Σ_k λ_k^p v_kj², has most of v_1.
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
    divisor = largest.clamp(min=tiny)
    return squares / divisor.view(-1, 1, 1)


def random_signs(
    shape: tuple[int, ...], like: Tensor, generator: torch.Generator
) -> Tensor:
    """Return signs, each 1 or −1 as likely, in the dtype and on the device of ``like``."""
    bits = torch.randint(0, 2, shape, generator=generator)
    signs = 2.0 * bits - 1.0
    return signs.to(like)
