"""The triangular factor of the residual Jacobian, made block by block: ``J = QR`` without Q.

The normal equations square the condition of J: singular values below ``√ε`` of the largest are
lost in ``JᵀJ``, and in ``JJᵀ`` alike. R keeps those down to ``ε``, which is what lets a last layer
of many features be solved to ten digits. Q is never made: of it only ``Qᵀρ`` is needed, which is
what becomes of ρ where it stands as one more column of J (Golub & Van Loan, Matrix Computations,
section 5.3). Blocks of rows are joined to the factor one after another, so that memory does not
grow with the number of points (Demmel et al., SIAM J. Sci. Comput. 34, 2012).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from whence.jacobian import Jacobian
from whence.objective import Objective

ROWS_PER_FACTOR = 3
"""Rows that are joined to the factor at once, in units of its columns."""
MIN_JOINED = 2048
"""Least rows that are joined at once: small factorizations cost more in calls."""


@dataclass(frozen=True, eq=False)
class Triangle:
    """What a least-squares problem in J comes down to: ``‖Jδ + ρ‖² = ‖Rδ + z‖² + left²``.

    Parameters
    ----------
    factor:
        R, (P, P), upper triangular.
    right:
        ``z = Qᵀρ``, (P,).
    left:
        Norm of the part of ρ that no δ reaches.
    n_rows:
        Rows of J.

    Examples
    --------
    >>> import torch
    >>> from whence.triangular import Triangle
    >>> J = torch.tensor([[3.0, 1.0], [0.0, 2.0], [4.0, 1.0]], dtype=torch.float64)
    >>> rho = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    >>> triangle = Triangle.of_rows(J, rho)
    >>> bool(torch.allclose(triangle.factor.T @ triangle.factor, J.T @ J))
    True
    >>> triangle.least_squares(1e-12).allclose(torch.linalg.lstsq(J, -rho).solution)
    True
    """

    factor: Tensor
    right: Tensor
    left: float
    n_rows: int

    @classmethod
    def of_rows(cls, rows: Tensor, right: Tensor) -> Triangle:
        """Return the triangle of rows (R, P) and their right-hand side (R,)."""
        table = torch.cat([rows, right.unsqueeze(1)], dim=1)
        return cls._of_factor(_factor(table), len(rows))

    @classmethod
    def of_objective(
        cls, objective: Objective, columns: Tensor | None = None
    ) -> Triangle:
        """Return that of an objective's scaled Jacobian, where ``JᵀJ`` is the Gauss–Newton matrix.

        Parameters
        ----------
        objective:
            Whose Jacobian, at its network's parameters.
        columns:
            The order of the columns, (P,); by default that of the parameters.
        """
        jacobian = Jacobian(objective, scaled=True)
        like = jacobian.parameters.vector()

        def ordered() -> Iterator[tuple[Tensor, Tensor]]:
            for block, right in jacobian.blocks():
                rows = block.dense()
                if columns is not None:
                    rows = rows[:, columns]
                yield rows, right

        return cls.of_blocks(ordered(), like)

    @classmethod
    def of_blocks(
        cls, blocks: Iterable[tuple[Tensor, Tensor]], like: Tensor
    ) -> Triangle:
        """Return the triangle of rows that come in blocks, joined one after another.

        Parameters
        ----------
        blocks:
            Rows (n, P) and their right-hand side (n,).
        like:
            Vector (P,) of the same dtype and device as the rows.
        """
        n_columns = len(like)
        joined = max(MIN_JOINED, ROWS_PER_FACTOR * n_columns)
        # Room for the factor so far and the rows to join, with ρ as the last column.
        room = n_columns + 1
        table = like.new_zeros(room + joined, n_columns + 1)
        n_rows = 0
        filled = 0

        for rows, right in blocks:
            n_rows += len(rows)
            start = 0
            while start < len(rows):
                end = min(len(rows), start + len(table) - filled)
                part = table[filled : filled + end - start]
                part[:, :-1] = rows[start:end]
                part[:, -1] = right[start:end]
                filled += end - start
                start = end
                if filled == len(table):
                    filled = _join(table, filled)

        filled = _join(table, filled)
        return cls._of_factor(table[:filled], n_rows)

    @classmethod
    def _of_factor(cls, factor: Tensor, n_rows: int) -> Triangle:
        """Return the triangle from the factor of the table whose last column is ρ."""
        n_columns = factor.shape[1] - 1
        square = factor.new_zeros(n_columns + 1, n_columns + 1)
        square[: len(factor)] = factor
        left = abs(float(square[-1, -1]))
        return cls(square[:-1, :-1], square[:-1, -1], left, n_rows)

    def least_squares(self, ridge: float) -> Tensor:
        """Return δ of least ``‖Rδ + z‖² + ridge²·‖Dδ‖²``, (P,), D the norms of J's columns.

        Columns of very different sizes count alike. A ridge of ``1e-13`` keeps out what rounding
        alone makes of directions that J does not see. Below ten units in the last place it would
        not, and counts as that.
        """
        sizes = self.factor.norm(dim=0)
        sizes = torch.where(sizes > 0, sizes, torch.ones_like(sizes))
        scaled = self.factor / sizes
        ridge = max(ridge, 10 * torch.finfo(scaled.dtype).eps)
        return _ridge_solution(scaled, self.right, ridge) / sizes

    def damped(self, shift: float, moved: Tensor | None = None) -> Tensor:
        """Return δ of least ``‖Rδ + z‖² + shift·‖δ + d‖²``, (P,), with d zero unless given.

        The normal equations of that are ``(JᵀJ + shift·I) δ = −(Jᵀρ + shift·d)``.
        """
        if moved is None:
            return _ridge_solution(self.factor, self.right, shift**0.5)

        # In e = δ + d: ‖Re + (z − Rd)‖² + shift·‖e‖².
        right = self.right - self.factor @ moved
        return _ridge_solution(self.factor, right, shift**0.5) - moved

    def solve(self, shift: float, vector: Tensor) -> Tensor:
        """Return ``(JᵀJ + shift·I)⁻¹ v``, (P,), by the factor of ``[R; √shift·I]``."""
        ridge = torch.zeros_like(self.factor)
        ridge.diagonal().fill_(shift**0.5)

        # JᵀJ + shift·I = UᵀU.
        table = torch.cat([self.factor, ridge])
        upper = _factor(table)

        # U⁻¹(U⁻ᵀv), by one triangle and the other.
        column = vector.unsqueeze(1)
        half = torch.linalg.solve_triangular(upper.T, column, upper=False)
        whole = torch.linalg.solve_triangular(upper, half, upper=True)
        return whole.squeeze(1)


def _ridge_solution(factor: Tensor, right: Tensor, ridge: float) -> Tensor:
    """Return δ of least ``‖Rδ + z‖² + ridge²·‖δ‖²``, by a factor of ``[R; ridge·I]``."""
    n = factor.shape[1]
    table = factor.new_zeros(2 * n, n + 1)
    table[:n, :n] = factor
    table[:n, n] = right
    table[n:, :n].diagonal().fill_(ridge)

    joined = _factor(table)
    upper = joined[:n, :n]
    column = joined[:n, n:]
    return -torch.linalg.solve_triangular(upper, column, upper=True).squeeze(1)


def _join(table: Tensor, filled: int) -> int:
    """Replace the filled rows of a table by their factor; return how many rows that has."""
    factor = _factor(table[:filled])
    table[: len(factor)] = factor
    return len(factor)


def _factor(table: Tensor) -> Tensor:
    """Return R of ``table = QR``, (min(rows, columns), columns)."""
    _, factor = torch.linalg.qr(table, mode="r")
    return factor
