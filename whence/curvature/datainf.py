"""DataInf: the mean of each row's own inverse in place of the inverse of their mean."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from whence.catalogue import SOLVERS
from whence.curvature.failures import needs_rows, undamped
from whence.curvature.lanczos import largest_eigenvalue
from whence.curvature.operators import Curvature, Damped
from whence.curvature.solvers import (
    Damping,
    Solution,
    State,
    direct_solution,
)
from whence.curvature.spectrum import Spectrum
from whence.jacobian import Jacobian
from whence.parameters import Parameters


@dataclass(frozen=True, kw_only=True)
class LayersSpectrum(Spectrum):
    """In how many ``layers`` the curvature was inverted, each by itself."""

    layers: int


@SOLVERS.named()
@dataclass(frozen=True)
class DataInf:
    """The inverse harmonic mean, layer by layer (Kwon et al. 2023, arXiv 2310.00902).

    For each layer ``1/R Σ_r (R j_r j_rᵀ + λI)⁻¹ = (I − Σ_r j_r j_rᵀ / (λ + R‖j_r‖²)) / λ`` over the
    R rows j of the scaled Jacobian, where the exact inverse is that of their sum ``Σ_r j_r j_rᵀ``.
    The two agree for one row only; the error grows with the variance between rows. Where the paper
    has gradients of the loss (the empirical Fisher matrix), here are the rows of Gauss–Newton.

    Raises
    ------
    ValueError
        If the operator is a Hessian.
    SingularSystem
        If the damping is zero, which is a ValueError, too.

    Examples
    --------
    >>> import torch, whence as wh
    >>> network = torch.nn.Linear(1, 1, bias=False, dtype=torch.float64)
    >>> def residual(tensors, z):
    ...     return torch.func.functional_call(network, tensors, (z,))
    >>> points = torch.tensor([[3.0]], dtype=torch.float64)
    >>> operator = wh.GaussNewtonMatrix(wh.Objective(network, [wh.Term("data", residual, points)]))
    >>> state = wh.DataInf().factor(operator, wh.Damping(2.0, relative=False))
    >>> value = state.solve(torch.tensor([[5.0]], dtype=torch.float64)).value   # 5/(18 + 2)
    >>> round(float(value), 9)
    0.25
    """

    name = "datainf"

    def factor(self, operator: Curvature, damping: Damping) -> State:
        """Find λ; the rows are made again in each solve."""
        root = operator.root()
        if root is None:
            raise needs_rows("DataInf", "or wh.ConjugateGradient()")

        largest = largest_eigenvalue(operator.matvec, operator.size, operator.like())
        absolute = damping.resolve(largest)
        if absolute == 0:
            raise undamped("DataInf", "it inverts the curvature of each row by itself")
        return _HarmonicMean(Damped(operator, absolute), root, largest)


class _HarmonicMean:
    """The mean over rows of ``(R j jᵀ + λI)⁻¹``, layer by layer."""

    def __init__(self, system: Damped, root: Jacobian, largest: float) -> None:
        self._system = system
        self._root = root
        self._layers = layer_columns(root.parameters)
        self.spectrum = LayersSpectrum(
            solver=DataInf.name,
            damping=system.damping,
            largest_eigenvalue=largest,
            layers=len(self._layers),
        )

    def solve(self, right: Tensor) -> Solution:
        value = right.clone()
        damping = self._system.damping
        count = self._root.shape[0]

        # Sherman & Morrison, for one row j of R:
        #     (R j jᵀ + λI)⁻¹ b = (b − j · R (jᵀb) / (λ + R ‖j‖²)) / λ,
        # and in the mean over the R rows the factor R cancels:
        #     x = (b − Σ_r j_r (j_rᵀb) / (λ + R ‖j_r‖²)) / λ.
        for block, _ in self._root.blocks():
            rows = block.dense()  # (r, P)

            for columns in self._layers:
                part = rows[:, columns]  # (r, parameters of the layer)
                norms = part.square().sum(dim=1)
                weights = 1 / (damping + count * norms)
                products = part @ right[columns]  # (r, K)
                value[columns] -= part.T @ (weights[:, None] * products)
        value /= damping

        return direct_solution(self._system, right, value)


def layer_columns(parameters: Parameters) -> list[Tensor]:
    """Return for each module the places in θ of its own parameters."""
    layers: dict[str, list[Tensor]] = {}
    for name, columns in parameters.slices.items():
        # "block.0.weight" belongs to the module "block.0".
        module, _, _ = name.rpartition(".")
        places = torch.arange(columns.start, columns.stop, device=parameters.device)
        layers.setdefault(module, []).append(places)
    return [torch.cat(places) for places in layers.values()]
