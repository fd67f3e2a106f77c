"""Losses of one point as functions of what the network gives there: value, gradient, curvature.

With z the m numbers that the network gives at a point (a residual, or outputs) and y its target,
``ℓ(z, y)`` has the gradient ∂ℓ/∂z and the curvature Λ = ∂²ℓ/∂z² = S Sᵀ. ``whitened_gradient`` is
the ρ of least norm with ``S ρ = ∂ℓ/∂z``.

With J = ∂z/∂θ, rows ``Sᵀ J`` have the Gauss–Newton matrix ``JᵀΛJ`` for their product, and ρ on the
right-hand side the gradient: ``(SᵀJ)ᵀ ρ = Jᵀ S ρ = Jᵀ ∂ℓ/∂z``.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils import _pytree as pytree

from whence import _checks
from whence.outputs import OutputLayout, Targets

NEGLIGIBLE = 1e-6
"""Share of the largest eigenvalue of Λ that a negative one may reach by rounding, at least."""
JUDGED_NUMBERS = 2**22
"""Numbers of the curvatures of samples by which a loss is judged to be convex."""
JUDGED_DENSE = 512
"""Most outputs for which that is done by all eigenvalues, not by those at the ends."""
JUDGED_STEPS = 40
"""Products by which those at the ends are found."""
EXHAUSTED = 1e-9
"""Share of a vector below which what is left of it is rounding."""
JUDGED_SAMPLES = 4
"""Samples by which it is judged in any case."""
NOT_CONVEX = (
    "this loss is not convex in the model's outputs, so the Gauss–Newton matrix is indefinite: use "
    "Influence(..., curvature='hessian')"
)
NO_SPAN = (
    "this loss has gradients where it has no curvature, so exact effects of groups and leverages "
    "are not defined: use method='first_order', or a loss such as wh.Squared() or "
    "wh.CrossEntropy()"
)


class Loss(Protocol):
    """The loss ℓ of one point, from its m components z and its target y where it has one.

    A loss of your own is any class with the two properties and the four methods below; it needs no
    base class.

    Examples
    --------
    Half the squared norm, which is ``wh.Squared(0.5)``:

    >>> import torch
    >>> class Half:
    ...     is_convex = True
    ...     spans = True
    ...     def value(self, output, target=None):
    ...         return 0.5 * output.square().sum(-1)
    ...     def gradient(self, output, target=None):
    ...         return output
    ...     def curvature_root(self, output, target=None):
    ...         m = output.shape[1]
    ...         return torch.eye(m, dtype=output.dtype).expand(len(output), m, m)
    ...     def whitened_gradient(self, output, target=None):
    ...         return output
    >>> Half().value(torch.tensor([[3.0, 4.0]]))
    tensor([12.5000])
    """

    @property
    def is_convex(self) -> bool:
        """Whether Λ is positive semi-definite, and not zero, so that Gauss–Newton means something.

        Where it is False, attributions use the Hessian. A loss that is piecewise linear in z, such
        as :class:`Absolute`, is convex in the usual sense, but has no curvature: False.
        """

    @property
    def spans(self) -> bool:
        """Whether ∂ℓ always lies in the range of S, so that there is a whitened gradient."""

    def value(self, output: Tensor, target: Tensor | None = None) -> Tensor:
        """Return ℓ of each point: (n, m) to (n,)."""

    def gradient(self, output: Tensor, target: Tensor | None = None) -> Tensor:
        """Return ∂ℓ/∂z of each point: (n, m) to (n, m)."""

    def curvature_root(self, output: Tensor, target: Tensor | None = None) -> Tensor:
        """Return S with S Sᵀ = ∂²ℓ/∂z² of each point: (n, m) to (n, m, m)."""

    def whitened_gradient(self, output: Tensor, target: Tensor | None = None) -> Tensor:
        """Return ρ with S ρ = ∂ℓ/∂z of each point: (n, m) to (n, m)."""


# --- regression ----------------------------------------------------------------------------------


@runtime_checkable
class WithoutMatrix(Protocol):
    """A loss whose curvature needs no matrix (m, m), so that m may be large.

    What :class:`Loss` asks for and two methods more: closed forms of Λv and of columns of S.
    """

    def curvature_product(
        self, output: Tensor, target: Tensor | None = None
    ) -> Callable[[Tensor], Tensor]:
        """Return ``v ↦ Λv`` of each point, (n, m) to (n, m)."""

    def curvature_column(
        self, output: Tensor, target: Tensor | None = None
    ) -> Callable[[int], Tensor]:
        """Return the columns of S, number k to (n, m), each made when it is asked for."""


@runtime_checkable
class WithRootProduct(Protocol):
    """A loss that has a closed form of Sv, of which a combination of many columns is one."""

    def root_product(
        self, output: Tensor, target: Tensor | None = None
    ) -> Callable[[Tensor], Tensor]:
        """Return ``v ↦ S v`` of each point, (n, m) to (n, m)."""


@runtime_checkable
class WithRank(Protocol):
    """A loss whose last columns of S are zero, so that a point has fewer rows than outputs."""

    def rank(self, outputs: int) -> int:
        """Return how many columns of S are not zero, of so many outputs of a point."""


def diagonal_column(diagonal: Tensor) -> Callable[[int], Tensor]:
    """Return the columns of diagonal matrices, k to (n, m), from their diagonals (n, m)."""

    def column(k: int) -> Tensor:
        table = torch.zeros_like(diagonal)
        table[:, k] = diagonal[:, k]
        return table

    return column


@dataclass(frozen=True)
class Squared:
    """The squared norm ``ℓ = scale · ‖z − y‖²`` (no factor ½); without target y is zero.

    Parameters
    ----------
    scale:
        The factor in front, 1/m for ``torch.nn.MSELoss``, the mean over components.

    Examples
    --------
    >>> import torch, whence as wh
    >>> wh.Squared().value(torch.tensor([[3.0, 4.0]]))
    tensor([25.])
    """

    scale: float = 1.0
    is_convex = True
    spans = True

    def __post_init__(self) -> None:
        _checks.positive("the scale of a loss", self.scale)

    def value(self, output: Tensor, target: Tensor | None = None) -> Tensor:
        """Return ``scale · ‖z − y‖²`` of each row."""
        difference = _difference(output, target)
        value = difference.square().sum(dim=-1)
        # Of a PINN each step comes here: no pass over memory for nothing.
        if self.scale == 1:
            return value

        return self.scale * value

    def gradient(self, output: Tensor, target: Tensor | None = None) -> Tensor:
        """Return ``2 · scale · (z − y)``."""
        return 2 * self.scale * _difference(output, target)

    def curvature_root(self, output: Tensor, target: Tensor | None = None) -> Tensor:
        """Return √(2·scale)·I for each row, as Λ = 2·scale·I."""
        n, m = output.shape
        eye = torch.eye(
            m,
            dtype=output.dtype,
            device=output.device,
        )
        root = (2 * self.scale) ** 0.5
        return (root * eye).expand(n, m, m)

    def curvature_column(
        self, output: Tensor, target: Tensor | None = None
    ) -> Callable[[int], Tensor]:
        """Return the columns of √(2·scale)·I, k to (n, m), each made when asked for."""
        root = (2 * self.scale) ** 0.5
        return diagonal_column(torch.full_like(output, root))

    def curvature_product(
        self, output: Tensor, target: Tensor | None = None
    ) -> Callable[[Tensor], Tensor]:
        """Return ``v ↦ 2·scale·v``."""
        return lambda vectors: 2 * self.scale * vectors

    def whitened_gradient(self, output: Tensor, target: Tensor | None = None) -> Tensor:
        """Return √(2·scale)·(z − y)."""
        return (2 * self.scale) ** 0.5 * _difference(output, target)


@dataclass(frozen=True)
class Absolute:
    """The absolute error ``ℓ = scale · Σ|z − y|``.

    Its curvature in z is zero wherever there is one, so attributions use the Hessian, where all
    curvature is the network's own; gradient methods need none.

    Examples
    --------
    >>> import torch, whence as wh
    >>> wh.Absolute().value(torch.tensor([[3.0, 4.0]]), torch.tensor([[1.0, 5.0]]))
    tensor([3.])
    """

    scale: float = 1.0
    is_convex = False
    spans = False

    def __post_init__(self) -> None:
        _checks.positive("the scale of a loss", self.scale)

    def value(self, output: Tensor, target: Tensor | None = None) -> Tensor:
        """Return ``scale · Σ|z − y|`` of each row."""
        sizes = _difference(output, target).abs()
        return self.scale * sizes.sum(dim=-1)

    def gradient(self, output: Tensor, target: Tensor | None = None) -> Tensor:
        """Return ``scale · sign(z − y)``."""
        signs = _difference(output, target).sign()
        return self.scale * signs

    def curvature_root(self, output: Tensor, target: Tensor | None = None) -> Tensor:
        """Return zeros."""
        n, m = output.shape
        return output.new_zeros(n, m, m)

    def whitened_gradient(self, output: Tensor, target: Tensor | None = None) -> Tensor:
        """Raise ``ValueError``: there is none."""
        raise ValueError(NO_SPAN)


def _difference(output: Tensor, target: Tensor | None) -> Tensor:
    """Return z − y (n, m), or z where there is no target."""
    if target is None:
        return output

    flat = target.to(output.dtype).reshape(len(output), -1)
    check_shape("targets of a regression", flat, output)
    return output - flat


# --- any other -----------------------------------------------------------------------------------


class PerSample:
    """Any differentiable loss, from a function ``(outputs, targets) -> (n,)``.

    Gradient and curvature come from automatic differentiation with respect to the outputs, so
    nothing but the values is asked for. Where the curvature of a sample is indefinite, attributions
    must use the Hessian (``curvature="hessian"``).

    Parameters
    ----------
    function:
        The loss of each sample, in torch's terms with ``reduction="none"``. Further axes of the
        result are averaged.
    shape:
        Shape of the model's output for one sample, where it is not (m,), or where several outputs
        lie in a row.
    is_convex:
        Whether the loss is convex in the outputs, and not linear; see :class:`Loss`.
    is_elementwise:
        Whether it is a sum over outputs of functions of one output each, so that Λ is diagonal.
    caveat:
        What results should say of it, such as that another form of it does better.

    Examples
    --------
    >>> import torch
    >>> from whence.losses import PerSample
    >>> loss = PerSample(torch.nn.HuberLoss(reduction="none"))
    >>> loss.curvature_root(torch.tensor([[0.5], [3.0]]), torch.zeros(2, 1)).flatten().tolist()
    [1.0, 0.0]
    """

    spans = False

    def __init__(
        self,
        function: Callable[..., Tensor],
        shape: tuple[int, ...] | OutputLayout | None = None,
        is_convex: bool = True,
        *,
        is_elementwise: bool = False,
        caveat: str = "",
    ) -> None:
        self.function = function
        self.shape = shape
        self.is_elementwise = is_elementwise
        self.caveat = caveat
        self._is_convex: bool | None = is_convex
        self._judged_by: tuple[Tensor, Any] | None = None

    @property
    def is_convex(self) -> bool:
        """Whether Λ is positive semi-definite and not zero, found at first use."""
        if self._is_convex is None:
            assert self._judged_by is not None
            self._is_convex = self._is_convex_in_double(*self._judged_by)
            self._judged_by = None
        return self._is_convex

    def judged_by(self, output: Tensor, target: Targets) -> PerSample:
        """Return the same loss, whose convexity will be found from some of these samples.

        Whether a function is convex cannot be told from it, but where it is used. Nothing is
        computed until :attr:`is_convex` is asked for.
        """
        m = output.shape[1]
        most = max(JUDGED_SAMPLES, JUDGED_NUMBERS // m**2)
        # Evenly spread, as data may be sorted.
        step = -(-len(output) // most)
        judged = copy.copy(self)
        judged._is_convex = None
        some = pytree.tree_map(lambda tensor: tensor[::step].clone(), target)
        judged._judged_by = (output[::step].detach().clone(), some)
        return judged

    def value(self, output: Tensor, target: Tensor | None = None) -> Tensor:
        """Return what the function returns, as (n,)."""
        n = len(output)
        shaped: Any = output
        if isinstance(self.shape, OutputLayout):
            shaped = self.shape.restored(output)
        elif self.shape is not None:
            shaped = output.reshape(n, *self.shape)

        value = self.function(shaped, require_target(target))
        if not isinstance(value, Tensor) or not value.ndim or len(value) != n:
            described = repr(value)
            if isinstance(value, Tensor):
                described = f"shape {tuple(value.shape)}"
            raise ValueError(
                f"a loss must return one number for each of the {n} samples, got {described}: "
                "it is already reduced; give one with reduction='none'"
            )

        if value.ndim == 1:
            return value
        return value.flatten(1).mean(dim=1)

    def gradient(self, output: Tensor, target: Tensor | None = None) -> Tensor:
        """Return ∂ℓ/∂z by reverse mode."""
        gradient, _ = self._gradient(output, target, create_graph=False)
        return gradient.detach()

    def _gradient(
        self, output: Tensor, target: Tensor | None, *, create_graph: bool
    ) -> tuple[Tensor, Tensor]:
        """Return ∂ℓ/∂z and the z by which it can be differentiated again, both (n, m)."""
        with torch.enable_grad():
            z = output.detach().requires_grad_()
            # ∂(Σ_i ℓ_i)/∂z_i = ∂ℓ_i/∂z_i, as a sample's loss depends on its own z alone.
            # A copy, as functions may write to what they are given.
            total = self.value(z.clone(), target).sum()
            if not total.requires_grad:
                raise ValueError(
                    "the loss has no gradient with respect to the outputs: it must be made of "
                    "differentiable functions of them, without detach() or argmax()"
                )
            (gradient,) = torch.autograd.grad(total, z, create_graph=create_graph)
        return gradient, z

    def curvature_product(
        self, output: Tensor, target: Tensor | None = None
    ) -> Callable[[Tensor], Tensor]:
        """Return ``v ↦ Λv``, (n, m) to (n, m), by reverse mode twice."""
        gradient, z = self._gradient(output, target, create_graph=True)
        if not gradient.requires_grad:  # linear in z
            return torch.zeros_like

        def product(vectors: Tensor) -> Tensor:
            # Λ is symmetric, so that vᵀΛ is Λv.
            (image,) = torch.autograd.grad(
                gradient,
                z,
                grad_outputs=vectors,
                retain_graph=True,
                allow_unused=True,
                materialize_grads=True,
            )
            return image.detach()

        return product

    def curvature(self, output: Tensor, target: Tensor | None = None) -> Tensor:
        """Return Λ = ∂²ℓ/∂z² of each point, (n, m, m), by reverse mode twice."""
        product = self.curvature_product(output, target)
        columns = []
        for k in range(output.shape[1]):
            unit = torch.zeros_like(output)
            unit[:, k] = 1
            columns.append(product(unit))

        # Symmetric but for rounding, which eigenvalues would take for more.
        matrix = torch.stack(columns, dim=2)
        return 0.5 * (matrix + matrix.mT)

    def curvature_column(
        self, output: Tensor, target: Tensor | None = None
    ) -> Callable[[int], Tensor]:
        """Return the columns of :meth:`curvature_root`, k to (n, m)."""
        if not self.is_elementwise:
            root = self.curvature_root(output, target)
            return lambda k: root[:, :, k]

        # Of a diagonal Λ the product with ones is the diagonal.
        diagonal = self.curvature_product(output, target)(torch.ones_like(output))
        if not bool((diagonal >= -NEGLIGIBLE * diagonal.abs().max()).all()):
            raise ValueError(NOT_CONVEX)
        return diagonal_column(diagonal.clamp_min(0).sqrt())

    def curvature_root(self, output: Tensor, target: Tensor | None = None) -> Tensor:
        """Return V√λ of the eigenvectors and eigenvalues of Λ; a negative one is an error."""
        values, vectors = torch.linalg.eigh(self.curvature(output, target))
        if not _are_semidefinite(values):
            raise ValueError(NOT_CONVEX)

        roots = values.clamp_min(0).sqrt()
        return vectors * roots.unsqueeze(1)

    def whitened_gradient(self, output: Tensor, target: Tensor | None = None) -> Tensor:
        """Raise ``ValueError``: there need not be one."""
        raise ValueError(NO_SPAN)

    def _is_convex_in_double(self, output: Tensor, target: Any) -> bool:
        """Whether Λ has no negative and some positive eigenvalue, in double precision if it may."""
        of_target = pytree.tree_map(
            lambda tensor: tensor.double() if tensor.is_floating_point() else tensor,
            target,
        )
        try:
            return self.is_convex_at(output.double(), of_target)
        except RuntimeError:
            # A function with numbers of its own, such as class weights, may take no other dtype.
            return self.is_convex_at(output, target)

    def is_convex_at(self, output: Tensor, target: Tensor | None) -> bool:
        """Whether Λ has no negative and some positive eigenvalue at these points."""
        if self.is_elementwise:
            product = self.curvature_product(output, target)
            values, _ = product(torch.ones_like(output)).sort(dim=1)
        elif output.shape[1] <= JUDGED_DENSE:
            values = torch.linalg.eigvalsh(self.curvature(output, target))
        else:
            values = self._krylov_eigenvalues(output, target)

        has_curvature = bool((values > 0).any())
        return has_curvature and _are_semidefinite(values, output.shape[1])

    def _krylov_eigenvalues(self, output: Tensor, target: Tensor | None) -> Tensor:
        """Return Ritz values of Λ of each point, ascending, (n, steps), from products alone.

        They lie between Λ's smallest and largest eigenvalue, and the outermost come near these
        first (Lanczos's iteration with full orthogonalization; Golub & Van Loan 2013, chapter 10).
        """
        product = self.curvature_product(output, target)
        generator = torch.Generator().manual_seed(0)
        start = torch.randn(output.shape, generator=generator, dtype=torch.float64)
        vector = F.normalize(start.to(output), dim=1)

        basis = torch.stack([vector], dim=2)  # (n, m, 1) and more with each step
        images = []
        for _ in range(JUDGED_STEPS):
            image = product(vector)
            images.append(image)
            rest = image.unsqueeze(2)
            for _ in range(2):  # the second time takes off what rounding left
                rest = rest - basis @ (basis.mT @ rest)

            # Nothing is left where the vectors so far span an invariant subspace.
            length = rest.norm(dim=1, keepdim=True)
            is_left = length > EXHAUSTED * image.norm(dim=1)[:, None, None]
            rest = torch.where(is_left, rest / length, torch.zeros_like(rest))
            basis = torch.cat([basis, rest], dim=2)
            vector = rest.squeeze(2)

        projected = basis[:, :, :-1].mT @ torch.stack(images, dim=2)
        return torch.linalg.eigvalsh(0.5 * (projected + projected.mT))


def _are_semidefinite(eigenvalues: Tensor, size: int | None = None) -> bool:
    """Whether none of n matrices has a negative eigenvalue beyond rounding: ascending, (n, m).

    ``size`` is that of the matrices, where not all of their eigenvalues are given.
    """
    smallest = eigenvalues[:, 0]
    largest = eigenvalues.abs().amax(dim=1)
    # Eigenvalues of m × m matrices are known to about m machine precisions of the largest.
    m = size or eigenvalues.shape[1]
    rounding = max(NEGLIGIBLE, m * torch.finfo(eigenvalues.dtype).eps)
    is_semidefinite = smallest >= -rounding * largest
    return bool(is_semidefinite.all())


# --- checks --------------------------------------------------------------------------------------


def require_target(target: Targets) -> Targets:
    """Return the target; none is an error."""
    if target is None:
        raise ValueError(
            "this loss compares with targets: give samples (inputs, target)"
        )
    return target


def check_shape(what: str, values: Tensor, output: Tensor) -> None:
    """Raise ``ValueError`` unless values have the shape of the outputs."""
    if values.shape != output.shape:
        raise ValueError(
            f"{what} must have the shape of the outputs, {tuple(output.shape)}, got "
            f"{tuple(values.shape)}"
        )
