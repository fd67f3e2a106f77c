"""pyDVL's influence functions by whence: change the import line and nothing else.

``from pydvl.influence.torch import CgInfluence`` becomes ``from whence.compat.pydvl import
CgInfluence``, and so for every name of ``pydvl.influence``, ``pydvl.influence.torch`` and
``pydvl.influence.torch.util`` that is here. pyDVL itself is not needed.

**Scale and sign.** Entry (test sample t, training sample i) is, as pyDVL's,

    ``+∇ℓ(z_t)ᵀ (H + λI)⁻¹ ∇ℓ(z_i)``,   H = (1/N) Σ ∇²ℓ,

with λ absolute (``regularization``) and without the factor 1/N: N times an entry of
:class:`whence.Influence`, whose sign it has. Positive: training on z_i lowers the loss at z_t, and
removing it would raise that by the entry over N. ``mode="perturbation"`` is
``+∇ℓ(z_t)ᵀ (H + λI)⁻¹ ∂ₓ∇ℓ(z_i)``, −N times ``effect="perturb"``: moving the input by δ changes
the loss at z_t by minus the entry times δ over N.

**Where pyDVL is wrong, this is right** (pyDVL 0.10):

- ``CgInfluence`` with more right-hand sides than parameters returns rows of zeros there. Here the
  system is solved: exactly where the matrices fit in memory, by conjugate gradients above that.
- ``SecondOrderMode.GAUSS_NEWTON`` is the empirical Fisher matrix there, ``Σ ∇ℓ∇ℓᵀ``, in
  ``DirectInfluence`` divided by a wrong number. Here it is the Gauss–Newton matrix ``JᵀΛJ``.
- ``EkfacInfluence`` takes the square root of the predicted probabilities for the Fisher matrix
  there. Here factors and eigenvalues are those of the Gauss–Newton matrix, always corrected.
- ``LissaInfluence`` draws a batch for each step there, so that it wobbles about its answer. Here
  each step takes all of the data.
- A loss reduced by ``sum`` makes the Hessian there the mean of the sums of batches, so that λ
  means another thing for each size of a batch. Here, as for a mean, it is the mean over samples.
- A Nyström sketch of an indefinite Hessian is shifted by its most negative eigenvalue there. Here a
  low rank of a Hessian is that of its eigenvalues of largest magnitude.

The model is evaluated in evaluation mode, whatever mode it is in.
"""

from __future__ import annotations

from torch import nn

from whence import _checks
from whence.compat.influence_model import (
    BlockMode,
    BlockStructure,
    InfluenceFunctionModel,
    InfluenceMode,
    Regularization,
    SecondOrderMode,
)
from whence.compat.lazy_chunks import (
    NestedTorchCatAggregator,
    SequentialInfluenceCalculator,
    TorchCatAggregator,
    TorchNumpyConverter,
)
from whence.compat.shared import LossFunction
from whence.curvature.automatic import Automatic
from whence.curvature.kronecker import EKFAC
from whence.curvature.lissa import LiSSA
from whence.curvature.lowrank import Arnoldi, Nystrom
from whence.curvature.solvers import Solver, default_tolerance

__all__ = [
    "ArnoldiInfluence",
    "BlockMode",
    "CgInfluence",
    "DirectInfluence",
    "EkfacInfluence",
    "InfluenceMode",
    "JacobiPreconditioner",
    "LissaInfluence",
    "NestedTorchCatAggregator",
    "NystroemPreconditioner",
    "NystroemSketchInfluence",
    "SecondOrderMode",
    "SequentialInfluenceCalculator",
    "TorchCatAggregator",
    "TorchNumpyConverter",
]


class DirectInfluence(InfluenceFunctionModel):
    """The system solved by factoring the dense curvature, :class:`whence.Exact`.

    Parameters
    ----------
    model, loss, regularization, block_structure, second_order_mode, hessian_regularization:
        As in :class:`InfluenceFunctionModel`.

    Examples
    --------
    The script is pyDVL's, but for where the name comes from:

    >>> import torch
    >>> from torch.utils.data import DataLoader, TensorDataset
    >>> from whence.compat.pydvl import DirectInfluence
    >>> model = torch.nn.Linear(1, 1, bias=False, dtype=torch.float64)
    >>> _ = torch.nn.init.zeros_(model.weight)
    >>> x, y = torch.tensor([[1.0], [2.0]]).double(), torch.tensor([[1.0], [1.0]]).double()
    >>> influence = DirectInfluence(model, torch.nn.MSELoss(), regularization=1.0)
    >>> influence = influence.fit(DataLoader(TensorDataset(x, y), 2))
    >>> influence.influences(x, y).numpy().round(4)     # gradients −2 and −4, H + λ = 2·2.5 + 1
    array([[0.6667, 1.3333],
           [1.3333, 2.6667]])
    """


class JacobiPreconditioner:
    """Asks for the diagonal as preconditioner; here the solver chooses its own.

    A preconditioner changes how soon conjugate gradients are done, and not what they answer.
    """

    def __init__(self, num_samples_estimator: int = 1) -> None:
        _checks.count("num_samples_estimator", num_samples_estimator)


class NystroemPreconditioner:
    """Asks for a low rank as preconditioner; here the solver chooses its own.

    A preconditioner changes how soon conjugate gradients are done, and not what they answer.
    """

    def __init__(self, rank: int) -> None:
        _checks.count("rank", rank)


class CgInfluence(InfluenceFunctionModel):
    """The system solved to all digits, or by conjugate gradients where memory does not allow that.

    :class:`whence.Automatic` solves, every right-hand side, also where there are more of them than
    parameters (pyDVL's returns zeros there), and where the Hessian has negative eigenvalues, which
    conjugate gradients are not made for.

    Parameters
    ----------
    model, loss, regularization, block_structure, second_order_mode, hessian_regularization:
        As in :class:`InfluenceFunctionModel`.
    rtol, atol, maxiter, progress, precompute_grad, preconditioner, solve_simultaneously, \
warn_on_max_iteration:
        How pyDVL iterates. What is solved here is solved at least as well; what is not is warned
        of.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: LossFunction,
        regularization: Regularization = None,
        rtol: float = 1e-4,
        atol: float = 1e-6,
        maxiter: int | None = None,
        progress: bool = False,
        precompute_grad: bool = False,
        preconditioner: object | None = None,
        solve_simultaneously: bool = False,
        warn_on_max_iteration: bool = True,
        block_structure: BlockStructure = BlockMode.FULL,
        second_order_mode: SecondOrderMode = SecondOrderMode.HESSIAN,
        *,
        hessian_regularization: Regularization = None,
    ) -> None:
        super().__init__(
            model,
            loss,
            regularization,
            block_structure,
            second_order_mode,
            hessian_regularization=hessian_regularization,
        )

    def solver(self) -> Solver:
        """Return the exact solver where its matrices fit, else conjugate gradients."""
        return Automatic()


class LissaInfluence(InfluenceFunctionModel):
    """The truncated Neumann series, :class:`whence.LiSSA`, with all of the data in each step.

    pyDVL's steps ``h ← b + (1 − d)h − (H + λI)h/s`` come to rest where
    ``(H + (λ + d·s)I)(h/s) = b``: ``dampen`` d adds d·s to λ, here too. The scale of the series
    itself, which changes no answer, is chosen here such that it converges.

    Parameters
    ----------
    model, loss, regularization, block_structure, second_order_mode, hessian_regularization:
        As in :class:`InfluenceFunctionModel`.
    maxiter:
        Steps.
    dampen, scale:
        d and s.
    rtol:
        Relative residual at which to stop, as far as it is below whence's own.
    progress, warn_on_max_iteration:
        Taken, and of no effect: what is not solved is warned of.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: LossFunction,
        regularization: Regularization = None,
        maxiter: int = 1000,
        dampen: float = 0.0,
        scale: float = 10.0,
        rtol: float = 1e-4,
        progress: bool = False,
        warn_on_max_iteration: bool = True,
        block_structure: BlockStructure = BlockMode.FULL,
        second_order_mode: SecondOrderMode = SecondOrderMode.HESSIAN,
        *,
        hessian_regularization: Regularization = None,
    ) -> None:
        _checks.count("maxiter", maxiter)
        _checks.positive("dampen", dampen, zero=True)
        _checks.positive("scale", scale)
        self.maxiter = maxiter
        self.dampen = dampen
        self.scale = scale
        self.rtol = rtol
        super().__init__(
            model,
            loss,
            regularization,
            block_structure,
            second_order_mode,
            hessian_regularization=hessian_regularization,
        )

    def further_damping(self) -> float:
        """Return d·s."""
        return self.dampen * self.scale

    def solver(self) -> Solver:
        """Return the series."""
        dtype = next(self.model.parameters()).dtype
        tolerance = min(self.rtol, default_tolerance(dtype))
        return LiSSA(iterations=self.maxiter, tolerance=tolerance)


class ArnoldiInfluence(InfluenceFunctionModel):
    """The eigenvalues of largest magnitude alone, :class:`whence.Arnoldi`.

    As pyDVL's it answers nothing outside their eigenvectors, unless ``use_woodbury``.

    Parameters
    ----------
    model, loss, regularization, block_structure, second_order_mode, hessian_regularization:
        As in :class:`InfluenceFunctionModel`.
    rank:
        Eigenvalues; of a model, or a block, of fewer parameters all of them.
    krylov_dimension, tol, max_iter, eigen_computation_on_gpu:
        How pyDVL finds them. Here they have all digits.
    use_woodbury:
        Whether directions outside are divided by λ, which must then be positive, or dropped.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: LossFunction,
        regularization: Regularization = None,
        rank: int = 10,
        krylov_dimension: int | None = None,
        tol: float = 1e-6,
        max_iter: int | None = None,
        eigen_computation_on_gpu: bool = False,
        block_structure: BlockStructure = BlockMode.FULL,
        second_order_mode: SecondOrderMode = SecondOrderMode.HESSIAN,
        use_woodbury: bool = False,
        *,
        hessian_regularization: Regularization = None,
    ) -> None:
        _checks.count("rank", rank)
        self.rank = rank
        self.use_woodbury = use_woodbury
        super().__init__(
            model,
            loss,
            regularization,
            block_structure,
            second_order_mode,
            hessian_regularization=hessian_regularization,
        )

    def solver(self) -> Solver:
        """Return the low rank."""
        return Arnoldi(self.rank, complement=self.use_woodbury)


class NystroemSketchInfluence(InfluenceFunctionModel):
    """A low rank of the curvature, directions outside divided by λ.

    Of a Gauss–Newton matrix it is :class:`whence.Nystrom`; of a Hessian, which may be indefinite,
    :class:`whence.Arnoldi`, the best low rank there is.

    Parameters
    ----------
    model, loss, block_structure, second_order_mode, hessian_regularization:
        As in :class:`InfluenceFunctionModel`.
    regularization:
        λ, positive.
    rank:
        Of the approximation.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: LossFunction,
        regularization: Regularization = None,
        rank: int = 10,
        block_structure: BlockStructure = BlockMode.FULL,
        second_order_mode: SecondOrderMode = SecondOrderMode.HESSIAN,
        *,
        hessian_regularization: Regularization = None,
    ) -> None:
        _checks.count("rank", rank)
        self.rank = rank
        super().__init__(
            model,
            loss,
            regularization,
            block_structure,
            second_order_mode,
            hessian_regularization=hessian_regularization,
        )

    def solver(self) -> Solver:
        """Return the low rank."""
        if self.curvature == "hessian":
            return Arnoldi(self.rank)
        return Nystrom(self.rank)


class EkfacInfluence(InfluenceFunctionModel):
    """Kronecker factors of each layer's curvature, :class:`whence.EKFAC`, for cross-entropy.

    Eigenvalues are always corrected, and any layer that EKFAC knows may be among them, not linear
    ones alone.

    Parameters
    ----------
    model:
        A classifier that returns logits.
    update_diagonal:
        Taken, and of no effect.
    hessian_regularization:
        λ.
    progress:
        Taken, and of no effect.
    """

    def __init__(
        self,
        model: nn.Module,
        update_diagonal: bool = False,
        hessian_regularization: float = 0.0,
        progress: bool = False,
    ) -> None:
        super().__init__(
            model,
            nn.CrossEntropyLoss(),
            hessian_regularization,
            BlockMode.FULL,
            SecondOrderMode.GAUSS_NEWTON,
        )

    def solver(self) -> Solver:
        """Return EKFAC of independent layers, as pyDVL has it."""
        return EKFAC(coupled=0)
