"""Updates of a dense inverse Hessian: BFGS, and Broyden's family with self-scaling.

After a step s = θ₊ − θ along which the gradient changed by y = ∇L(θ₊) − ∇L(θ), the approximation
B of the Hessian is made to explain the change, B₊s = y, by a change of rank two (Al-Baali 1998):

    B₊ = τ [B − Bs sᵀB/(sᵀBs) + ϑ w wᵀ] + y yᵀ/(yᵀs),
    w  = (sᵀBs)^½ [y/(yᵀs) − Bs/(sᵀBs)].

ϑ chooses a member of Broyden's family (0 is BFGS, 1 is DFP), and τ ≤ 1 shrinks eigenvalues of B
that are too large before the update adds to them. Of the inverse H = B⁻¹ that is

    H₊ = (1/τ) [H − Hy yᵀH/(yᵀHy) + φ v vᵀ] + s sᵀ/(yᵀs),
    v  = (yᵀHy)^½ [s/(yᵀs) − Hy/(yᵀHy)],

in which φ = 1 is BFGS and, with b = sᵀBs/(yᵀs) and h = yᵀHy/(yᵀs), φ = (1 − ϑ)/(1 + (hb − 1)ϑ).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

TINY = 1e-300
MAX_MENDED = 1000
"""Parameters up to which the eigenvalues of H take less than half a second."""
MENDED = 100
"""Least eigenvalue of a mended H, in units of ε λ_max: room for the rounding of the next steps."""


@dataclass(frozen=True)
class Curvatures:
    """What a step met: products of its s and y with each other and through H and B = H⁻¹.

    Parameters
    ----------
    ys, yHy, sBs:
        yᵀs, yᵀHy and sᵀBs.
    """

    ys: float
    yHy: float
    sBs: float

    @property
    def b(self) -> float:
        """sᵀBs/(yᵀs): the curvature that B has along s, over the one that was met."""
        return self.sBs / self.ys

    @property
    def h(self) -> float:
        """yᵀHy/(yᵀs)."""
        return self.yHy / self.ys

    @property
    def are_positive(self) -> bool:
        """Whether all are positive and finite, so that H₊ is positive definite as H is."""
        products = (self.ys, self.yHy, self.sBs)
        return all(0 < product < math.inf for product in products)


@dataclass(frozen=True)
class Change:
    """Which update of the family: τ and φ."""

    tau: float
    phi: float


Choice = Callable[[Curvatures, int], Change]
"""The update to make after a step, of P parameters."""


def plain_bfgs(curvatures: Curvatures, size: int) -> Change:
    """Return BFGS."""
    return Change(tau=1.0, phi=1.0)


def self_scaled_bfgs(curvatures: Curvatures, size: int) -> Change:
    """Return BFGS with τ = min(1, 1/b) (Al-Baali 1998)."""
    return Change(tau=min(1.0, 1.0 / curvatures.b), phi=1.0)


def self_scaled_broyden(curvatures: Curvatures, size: int) -> Change:
    """Return the self-scaled member of Broyden's family of Urbán et al. (arXiv 2405.04230)."""
    b = curvatures.b
    h = curvatures.h
    # hb ≥ 1 by Cauchy and Schwarz, but for rounding.
    a = max(h * b - 1.0, TINY)

    # ϑ = (1 − b)/b lies above 0 where B is too small along s, as a BFGS update leaves it, and
    # below where it is too large; within these bounds the update is well conditioned.
    c = math.sqrt(a / (1.0 + a))
    rho = min(1.0, h * (1.0 - c))
    least = (rho - 1.0) / a
    most = 1.0 / max(rho, TINY)
    theta = max(least, min(most, (1.0 - b) / b))

    # det B₊ = τ^(P−1) (σ/b) det B with σ = 1 + aϑ: τ = σ^(−1/(P−1)) makes up for σ.
    sigma = max(1.0 + a * theta, TINY)
    others = max(size - 1, 1)
    root = sigma ** (-1.0 / others)
    shrinking = min(1.0, 1.0 / b)
    tau = min(shrinking * root, sigma)
    if theta > 0:
        tau = shrinking * min(root, 1.0 / theta)

    return Change(tau, phi=(1.0 - theta) / sigma)


class InverseHessian:
    """A dense approximation H of the inverse Hessian; the identity until the first update.

    An update passes over H once, after one product Hg₊ with the new gradient: Hy = Hg₊ − Hg, and
    H₊g₊ follows from Hg₊ by the change of rank two.

    Parameters
    ----------
    matrix:
        H, (P, P), which stays as it is; None for the identity.

    Examples
    --------
    >>> import torch
    >>> from whence.pinn.optimizers.inverse_hessian import InverseHessian, plain_bfgs
    >>> H = InverseHessian()
    >>> s, y = torch.tensor([1.0, 1.0]), torch.tensor([4.0, 2.0])
    >>> _ = H.update(s, y, y, sBs=2.0, gradient=y, product=y, choose=plain_bfgs)
    >>> bool(torch.allclose(H.times(y), s))
    True
    """

    def __init__(self, matrix: Tensor | None = None) -> None:
        self._matrix = matrix
        # A matrix that someone else has too must not be changed in place.
        self._is_lent = True

    @property
    def is_identity(self) -> bool:
        """Whether there was no update yet."""
        return self._matrix is None

    def lend(self) -> Tensor | None:
        """Return the matrix (P, P), which later updates leave as it is; None for the identity."""
        self._is_lent = True
        return self._matrix

    def times(self, vector: Tensor) -> Tensor:
        """Return Hv, shape (P,)."""
        if self._matrix is None:
            return vector
        return self._matrix @ vector

    def mend(self) -> bool:
        """Raise eigenvalues that rounding has made negative; return whether that was done.

        The identity, and an H of more than ``MAX_MENDED`` rows, stay as they are.
        """
        matrix = self._matrix
        if matrix is None or len(matrix) > MAX_MENDED:
            return False

        symmetric = (matrix + matrix.T) / 2
        values, vectors = torch.linalg.eigh(symmetric)
        # Of eigenvalues below ε λ_max nothing is left but rounding.
        least = MENDED * torch.finfo(matrix.dtype).eps * values[-1]
        raised = values.clamp_min(least)
        self._matrix = (vectors * raised) @ vectors.T
        self._is_lent = False
        return True

    def update(
        self,
        s: Tensor,
        y: Tensor,
        Hy: Tensor,
        sBs: float,
        gradient: Tensor,
        product: Tensor,
        choose: Choice,
    ) -> Tensor:
        """Take up a step, if it met a positive curvature; return H₊g₊, shape (P,).

        Parameters
        ----------
        s, y, Hy:
            Step, change of the gradient, H times that change; shape (P,).
        sBs:
            sᵀBs. A step s = −αHg has Bs = −αg, so that it is −αsᵀg.
        gradient, product:
            g₊ and Hg₊, shape (P,).
        choose:
            Which update of the family.
        """
        ys = float(y @ s)
        if not 0 < ys < math.inf:
            return product

        if self._matrix is None:
            # γI with γ = yᵀs/(yᵀy), the inverse of the curvature just met (Nocedal & Wright, 6.20).
            scale = ys / float(y @ y)
            identity = torch.eye(len(s), dtype=s.dtype, device=s.device)
            self._matrix = identity.mul_(scale)
            self._is_lent = False
            Hy = scale * Hy
            product = scale * product
            sBs = sBs / scale

        curvatures = Curvatures(ys, float(y @ Hy), sBs)
        # Where rounding has spoilt H, it is better left alone.
        if not curvatures.are_positive:
            return product

        change = choose(curvatures, len(s))
        return self._change(s, Hy, curvatures, change, gradient, product)

    def _change(
        self,
        s: Tensor,
        Hy: Tensor,
        curvatures: Curvatures,
        change: Change,
        gradient: Tensor,
        product: Tensor,
    ) -> Tensor:
        """Change H by rank two; return H₊g₊."""
        assert self._matrix is not None
        ys = curvatures.ys
        yHy = curvatures.yHy
        phi = change.phi
        shrunk = 1.0 / change.tau

        # φ v vᵀ multiplied out, so that all is W M Wᵀ with W = [s, Hy] (P, 2):
        #   s sᵀ:             φ yᵀHy/(τ (yᵀs)²) + 1/(yᵀs)
        #   s yᵀH + Hy sᵀ:    −φ/(τ yᵀs)
        #   Hy yᵀH:           −(1 − φ)/(τ yᵀHy)
        both_s = (shrunk * phi * curvatures.h + 1.0) / ys
        mixed = -shrunk * phi / ys
        both_Hy = -shrunk * (1.0 - phi) / yHy

        W = torch.stack([s, Hy], dim=1)  # (P, 2)
        M = s.new_tensor([[both_s, mixed], [mixed, both_Hy]])
        MW = M @ W.T  # (2, P)

        # One pass over H: H/τ + W (M Wᵀ).
        if self._is_lent:
            self._matrix = torch.addmm(self._matrix, W, MW, beta=shrunk)
            self._is_lent = False
        else:
            self._matrix.addmm_(W, MW, beta=shrunk)

        # H₊g₊ = Hg₊/τ + W (M Wᵀ g₊).
        return torch.addmv(product, W, MW @ gradient, beta=shrunk)
