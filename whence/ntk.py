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

import torch
from torch import Tensor

from whence import _checks
from whence.curvature.lanczos import largest_eigenvalues
from whence.jacobian import Jacobian
from whence.objective import Objective
from whence.symmetric_products import mirror, self_product
from whence.thin_rows import ThinRows


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
    kernel = TangentKernel(objective, scaled=scaled)

    # Rows go term by term.
    spans = {}
    start = 0
    for name, count in Jacobian(objective).counts().items():
        spans[name] = slice(start, start + count)
        start += count

    parts = {}
    for first, rows in spans.items():
        for second, columns in spans.items():
            parts[first, second] = kernel.gram[rows, columns]
    return parts


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
        # K = JJᵀ = U Σ² Uᵀ. The eigenvalues of K itself would have an error of ε times the
        # largest; those of J squared have ε² only.
        singular_values = torch.linalg.svdvals(jacobian.dense())
        values: Tensor = singular_values.square()
        return values

    _checks.count("k", k)
    most = min(jacobian.shape)
    if k >= most:
        raise ValueError(
            f"k must be below the number of eigenvalues, {most}, got {k}: leave it out"
        )

    def product(vector: Tensor) -> Tensor:
        # Of JᵀJ, which has the same eigenvalues: v → Jv → JᵀJv.
        column = vector.unsqueeze(1)
        return jacobian.normal_product(column).squeeze(1)

    like = jacobian.parameters.vector()
    tolerance = 1e-10
    if like.dtype is not torch.float64:
        tolerance = 1e-5
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
    rates = {}
    for name, trace in traces(objective, scaled=True).items():
        # The trace is the sum of the rates of the term's modes, one for each residual.
        rates[name] = trace / counts[name]
    return rates


def condition_number(
    objective: Objective, term: str | None = None, *, rtol: float | None = None
) -> float:
    """Return the ratio of the largest to the smallest eigenvalue of the scaled kernel.

    Eigenvalues below ``rtol`` times the largest count as zero and are left out: by default those
    that rounding cannot tell from it, ``(max(R, P)·ε)²``.
    """
    values = spectrum(objective, term)
    if rtol is None:
        # Singular values have an error of max(R, P) · ε of the largest; these are their squares.
        longest = max(Jacobian(_alone(objective, term)).shape)
        rounding = longest * torch.finfo(values.dtype).eps
        rtol = rounding**2

    largest = values[0]
    nonzero = values[values > rtol * largest]
    if len(nonzero) == 0:
        return 1.0
    return float(nonzero[0] / nonzero[-1])


def _alone(objective: Objective, term: str | None) -> Objective:
    """Return the objective with one term, or with all of them."""
    if term is None:
        return objective
    return objective.with_terms([objective.term(term)])


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
        thin_rows = ThinRows(Jacobian(objective, scaled=scaled))
        self.right = thin_rows.right
        self._rows = thin_rows.rows
        self._direct = thin_rows.direct
        self._thin = thin_rows.layers

        # K is the sum of the layers' parts. Those of thin layers are made on and below the
        # diagonal only.
        self.gram = self_product(self._rows)
        for layer in self._thin:
            layer.add_products(layer, self.gram, lower=True)
        if self._thin:
            mirror(self.gram)

    def dense(self) -> Tensor:
        """Return J, shape (R, P)."""
        if not self._thin:
            return self._rows

        rows = self._rows.new_empty(len(self._rows), self.size)
        rows[:, self._direct] = self._rows
        for layer in self._thin:
            rows[:, layer.columns] = layer.rows()
        return rows

    def matmat(self, vectors: Tensor) -> Tensor:
        """Return ``J V``, (P, K) to (R, K), without the rows of thin layers."""
        if not self._thin:
            return self._rows @ vectors

        total = self._rows @ vectors[self._direct]
        for layer in self._thin:
            total += layer.matmat(vectors[layer.columns])
        return total

    def rmatmat(self, vectors: Tensor) -> Tensor:
        """Return ``Jᵀ Y``, (R, K) to (P, K), without the rows of thin layers."""
        if not self._thin:
            return self._rows.T @ vectors
        return torch.stack([self.rmatvec(vector) for vector in vectors.unbind(1)], 1)

    def rmatvec(self, vector: Tensor) -> Tensor:
        """Return ``Jᵀ y``, shape (P,)."""
        total = vector.new_zeros(self.size)
        total[self._direct] = self._rows.T @ vector
        for layer in self._thin:
            total[layer.columns] = layer.rmatvec(vector)
        return total
