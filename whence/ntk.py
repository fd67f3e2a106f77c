"""The neural tangent kernel ``K = J Jᵀ`` of an objective, without the rows of wide layers.

A row of J at a linear layer is ``Σ_c δ_c ⊗ a_c`` over channels c, so the layer's part of the
kernel is ``Σ_cc′ (δ_c·δ′_c′)(a_c·a′_c′)``: two thin products and an elementwise one in place of
a product over all the layer's weights. It is taken where it is the cheaper of the two.

Under gradient flow, ``dθ/dt = −∇L``, the scaled residuals ρ (``Jᵀρ = ∇L``) obey ``dρ/dt = −K ρ``:
the eigenvalues of the scaled kernel are the rates at which the residuals' modes decay (Jacot et al.
2018, arXiv 1806.07572; for PINNs Wang, Yu & Perdikaris 2022, doi 10.1016/j.jcp.2021.110768).
:func:`blocks`, :func:`traces`, :func:`spectrum`, :func:`convergence_rates` and
:func:`condition_number` read that off any objective.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from whence import _checks
from whence.curvature.lanczos import largest_eigenvalues
from whence.jacobian import Jacobian, self_product
from whence.linearization import Factor
from whence.objective import Objective

TILE = 500
Span = tuple[int, int]
"""First column of a weight, and that after its last."""


def blocks(
    objective: Objective, *, scaled: bool = False
) -> dict[tuple[str, str], Tensor]:
    """Return the kernel's blocks ``K_kj = J_k J_jᵀ`` between the residuals of any two terms.

    Rows go point by point, component by component; with ``scaled`` they carry the square roots of
    weight, 1/N and loss curvature, as in :class:`whence.Jacobian`.

    Examples
    --------
    >>> from whence import ntk, pinn
    >>> problem = pinn.zoo.load("burgers", "soft")
    >>> points = problem.sample({"pde": 20, "initial_u": 5, "dirichlet_u": 4})
    >>> objective = problem.objective(problem.network(seed=0), points)
    >>> ntk.blocks(objective)["pde", "initial_u"].shape
    torch.Size([20, 5])
    """
    kernel = TangentKernel(objective, scaled=scaled).gram
    spans, start = {}, 0
    for name, count in Jacobian(objective).counts().items():
        spans[name] = slice(start, start + count)
        start += count
    return {(k, j): kernel[spans[k], spans[j]] for k in spans for j in spans}


def traces(objective: Objective, *, scaled: bool = False) -> dict[str, float]:
    """Return ``Tr K_kk = Σ_i ‖∇r_k(z_i)‖²`` of each term, without kernel or rows.

    Examples
    --------
    >>> import torch, whence as wh
    >>> from whence import ntk
    >>> model = torch.nn.Linear(2, 1, bias=False)
    >>> x, y = torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.zeros(2, 1)
    >>> ntk.traces(wh.Objective.supervised(model, (x, y), wh.Squared()))     # 1 + 4 + 9 + 16
    {'data': 30.0}
    """
    return Jacobian(objective, scaled=scaled).traces()


def spectrum(
    objective: Objective,
    term: str | None = None,
    *,
    k: int | None = None,
    scaled: bool = True,
) -> Tensor:
    """Return the eigenvalues of the kernel, or of one term's block, the largest first.

    Without ``k`` all of them that can differ from zero, ``min(R, P)``, as squares of J's singular
    values: exact down to the square of the rounding error. With ``k`` the k largest by Lanczos
    (ARPACK), from products with J alone, to a relative 1e-10.

    Parameters
    ----------
    objective:
        Whose residuals; its weights and numbers of points count where ``scaled``.
    term:
        One term; by default all together.
    k:
        How many, fewer than ``min(R, P)``.
    scaled:
        Whether rows carry the square roots of weight, 1/N and loss curvature: eigenvalues are then
        rates of convergence under gradient flow.

    Raises
    ------
    ValueError
        If there is no such term, or not k eigenvalues.

    Examples
    --------
    >>> import torch, whence as wh
    >>> from whence import ntk
    >>> model = torch.nn.Linear(2, 1, bias=False)
    >>> x, y = torch.tensor([[3.0, 0.0], [0.0, 4.0]]), torch.zeros(2, 1)
    >>> objective = wh.Objective.supervised(model, (x, y), wh.Squared())
    >>> ntk.spectrum(objective, scaled=False)
    tensor([16.,  9.])
    """
    jacobian = Jacobian(_alone(objective, term), scaled=scaled)
    if k is None:
        values: Tensor = torch.linalg.svdvals(jacobian.dense()).square()
        return values
    _checks.count("k", k)
    most = min(jacobian.shape)
    if k >= most:
        raise ValueError(
            f"k must be below the number of eigenvalues, {most}, got {k}: leave it out"
        )
    return _largest(jacobian, k)


def _largest(jacobian: Jacobian, k: int) -> Tensor:
    """Return the k largest eigenvalues of ``JᵀJ``, which are the kernel's."""
    like = jacobian.parameters.vector()
    tolerance = 1e-10 if like.dtype is torch.float64 else 1e-5

    def product(vector: Tensor) -> Tensor:
        return jacobian.normal_product(vector.unsqueeze(1)).squeeze(1)

    return largest_eigenvalues(product, len(like), like, k, tolerance)


def convergence_rates(objective: Objective) -> dict[str, float]:
    """Return by term the mean rate at which its residuals decay under gradient flow, alone.

    ``Tr K_kk / R_k`` with K scaled and R_k the residuals of term k (Wang et al. 2022, definition
    6.1): terms of very different rates train one after another, and weights can make them equal.

    Examples
    --------
    >>> from whence import ntk, pinn
    >>> problem = pinn.zoo.load("wave", "soft")
    >>> points = problem.sample(dict.fromkeys(problem.terms, 50))
    >>> rates = ntk.convergence_rates(problem.objective(problem.network(seed=0), points))
    >>> max(rates, key=rates.get)
    'dirichlet_u'
    """
    counts = Jacobian(objective).counts()
    return {n: trace / counts[n] for n, trace in traces(objective, scaled=True).items()}


def condition_number(
    objective: Objective, term: str | None = None, *, rtol: float | None = None
) -> float:
    """Return the ratio of the largest to the smallest eigenvalue of the scaled kernel.

    Eigenvalues below ``rtol`` times the largest count as zero and are left out: by default those
    that rounding cannot tell from it, ``(max(R, P)·ε)²``.
    """
    found = spectrum(objective, term)
    if rtol is None:
        most = max(Jacobian(_alone(objective, term)).shape)
        rtol = (most * torch.finfo(found.dtype).eps) ** 2
    kept = found[found > rtol * found[0]]
    return float(kept[0] / kept[-1]) if len(kept) else 1.0


def _alone(objective: Objective, term: str | None) -> Objective:
    return objective if term is None else objective._with_terms([objective.term(term)])


@dataclass(frozen=True)
class _Thin:
    """One layer's rows as ``Σ_c left[c] ⊗ right[c]``: left (c, R, out), right (c, R, in)."""

    columns: slice
    left: Tensor
    right: Tensor

    def add_products(self, other: _Thin, total: Tensor, *, lower: bool = False) -> None:
        """Add this layer's part of ``rows @ other.rows.T`` to ``total``, tile by tile.

        With ``lower`` only the tiles on and below the diagonal are made.
        """
        n, m = total.shape
        for i in range(0, n, TILE):
            rows = slice(i, min(i + TILE, n))
            for j in range(0, rows.stop if lower else m, TILE):
                others = slice(j, min(j + TILE, m))
                tile = total[rows, others]
                for a, b in zip(self.left[:, rows], self.right[:, rows], strict=True):
                    for c, d in zip(
                        other.left[:, others], other.right[:, others], strict=True
                    ):
                        tile.addcmul_(a @ c.T, b @ d.T)

    def rows(self) -> Tensor:
        """Return the rows themselves, (R, columns)."""
        return Factor(self.columns, self.left, self.right).rows()

    def rmatvec(self, vector: Tensor) -> Tensor:
        """Return ``Σ_i vector[i] · row_i`` of this layer, flat."""
        weighted = self.left * vector[None, :, None]
        flat = weighted.reshape(-1, weighted.shape[2]).T @ self.right.reshape(
            -1, self.right.shape[2]
        )
        return flat.reshape(-1)


class TangentKernel:
    """``K = J Jᵀ`` at the current parameters and the products a dual solve needs.

    With ``scaled=True`` rows carry the square roots of weight, 1/N and loss curvature, as in
    :class:`whence.Jacobian`; ``right`` is then ρ with ``Jᵀρ = ∇L`` (Jacot et al. 2018, arXiv
    1806.07572; for PINNs Wang et al. 2022).

    Examples
    --------
    >>> import torch, whence as wh
    >>> from whence.ntk import TangentKernel
    >>> from whence import pinn
    >>> problem = pinn.zoo.load("wave")
    >>> objective = problem.objective(pinn.MLP([2, 50, 50, 1], seed=0), problem.sample(8))
    >>> kernel = TangentKernel(objective)
    >>> J = wh.Jacobian(objective, scaled=True).dense()
    >>> torch.allclose(kernel.gram, J @ J.T)
    True
    """

    def __init__(self, objective: Objective, *, scaled: bool = True) -> None:
        self.size = objective.parameters.size
        self._direct = torch.ones(
            self.size, dtype=torch.bool, device=objective.parameters.device
        )
        pieces, self.right, whole = self._pieces(Jacobian(objective, scaled=scaled))
        thin = sorted(pieces[-1].thin)
        if whole is None:
            self._rows = torch.cat([piece.all_but(thin, self.size) for piece in pieces])
        else:
            self._rows = whole
        self._thin = [
            _joined(span, [piece.thin[span] for piece in pieces]) for span in thin
        ]
        self.gram = self_product(self._rows)
        for part in self._thin:
            part.add_products(part, self.gram, lower=True)
        if self._thin:
            lower = self.gram.tril()
            self.gram = lower + lower.tril(-1).T

    def dense(self) -> Tensor:
        """Return J, shape (R, P)."""
        if not self._thin:
            return self._rows
        rows = self._rows.new_empty(len(self._rows), self.size)
        rows[:, self._direct] = self._rows
        for part in self._thin:
            rows[:, part.columns] = part.rows()
        return rows

    def _pieces(self, jacobian: Jacobian) -> tuple[list[_Piece], Tensor, Tensor | None]:
        """Return what is needed of each block, ρ, and J if no weight is thin in all blocks.

        No block's graph outlives the making of the next. A weight that is not thin in one block is
        left to its rows in all later ones.
        """
        pieces: list[_Piece] = []
        rights: list[Tensor] = []
        whole = None
        for rows, right in jacobian.blocks():
            factors = rows.factors() if not pieces or pieces[-1].thin else None
            thin = _cheaper_thin(factors or [], pieces[-1].thin if pieces else None)
            self._direct = _mask(thin, self.size).to(right.device)
            if thin:
                pieces.append(_Piece(thin, self._direct_rows(factors or [])))
            else:
                whole = _started(jacobian, pieces) if whole is None else whole
                start = sum(len(piece.rows) for piece in pieces)
                pieces.append(
                    _Piece({}, rows.dense(out=whole[start : start + len(rows)]))
                )
            rights.append(right)
        return pieces, torch.cat(rights), whole

    def _direct_rows(self, factors: list[Factor]) -> Tensor:
        """Return the columns of a block's rows that have no thin form, (n, number of them)."""
        place = torch.cumsum(self._direct, 0) - 1
        rows = factors[0].left.new_zeros(
            factors[0].left.shape[1], int(self._direct.sum())
        )
        for factor in factors:
            if bool(self._direct[factor.columns.start]):
                first = int(place[factor.columns.start])
                width = factor.columns.stop - factor.columns.start
                rows[:, first : first + width] += factor.rows()
        return rows

    def rmatvec(self, vector: Tensor) -> Tensor:
        """Return ``Jᵀ y``, shape (P,)."""
        total = vector.new_zeros(self.size)
        total[self._direct] = self._rows.T @ vector
        for part in self._thin:
            total[part.columns] = part.rmatvec(vector)
        return total


@dataclass(frozen=True)
class _Piece:
    """A block of rows: the factors of its thin weights, and all other columns (n, number)."""

    thin: dict[Span, Factor]
    rows: Tensor

    def all_but(self, thin: Sequence[Span], size: int) -> Tensor:
        """Return all columns but those of ``thin``, which are thin here and may be fewer."""
        if len(thin) == len(self.thin):
            return self.rows
        rows = self.rows.new_zeros(len(self.rows), size)
        rows[:, _mask(self.thin, size)] = self.rows
        for span in self.thin.keys() - set(thin):
            rows[:, slice(*span)] = self.thin[span].rows()
        return rows[:, _mask(thin, size)]


def _mask(thin: Iterable[Span], size: int) -> Tensor:
    """Return which columns are those of no thin weight, (size,)."""
    mask = torch.ones(size, dtype=torch.bool)
    for span in thin:
        mask[slice(*span)] = False
    return mask


def _started(jacobian: Jacobian, pieces: Sequence[_Piece]) -> Tensor:
    """Return room for J with the rows of the first pieces in it."""
    whole = torch.empty(
        jacobian.shape,
        dtype=jacobian.parameters.dtype,
        device=jacobian.parameters.device,
    )
    start = 0
    for piece in pieces:
        whole[start : start + len(piece.rows)] = piece.all_but(
            (), jacobian.parameters.size
        )
        start += len(piece.rows)
    return whole


def _cheaper_thin(
    factors: Sequence[Factor], among: Collection[Span] | None
) -> dict[Span, Factor]:
    """Return the factors of weights whose part of the kernel is cheaper through inner products.

    A weight that is used twice is left to its rows, and so is one not ``among`` those given.
    """
    spans = [(factor.columns.start, factor.columns.stop) for factor in factors]
    return {
        span: factor
        for span, factor in zip(spans, factors, strict=True)
        if spans.count(span) == 1
        and _is_cheaper(factor)
        and (among is None or span in among)
    }


def _is_cheaper(factor: Factor) -> bool:
    c, _, o = factor.left.shape
    i = factor.right.shape[2] if factor.right is not None else 0
    return c * c * (o + i) < o * i


def _joined(span: Span, found: Sequence[Factor]) -> _Thin:
    """Return one layer's factors over all blocks; blocks with fewer channels are filled up."""
    channels = max(factor.left.shape[0] for factor in found)
    left = torch.cat([_filled(factor.left, channels) for factor in found], dim=1)
    right = torch.cat(
        [_filled(f.right, channels) for f in found if f.right is not None], dim=1
    )
    return _Thin(slice(*span), left, right)


def _filled(part: Tensor, channels: int) -> Tensor:
    missing = part.new_zeros(channels - part.shape[0], *part.shape[1:])
    return torch.cat([part, missing]) if len(missing) else part
