"""Losses of one point as functions of what the network gives there: value, gradient, curvature.

With z the m numbers that the network gives at a point (a residual, or outputs) and y its target,
``ℓ(z, y)`` has the gradient ∂ℓ/∂z and the curvature Λ = ∂²ℓ/∂z² = S Sᵀ. ``whitened_gradient`` is
the ρ of least norm with ``S ρ = ∂ℓ/∂z``.

With J = ∂z/∂θ, rows ``Sᵀ J`` have the Gauss–Newton matrix ``JᵀΛJ`` for their product, and ρ on the
right-hand side the gradient: ``(SᵀJ)ᵀ ρ = Jᵀ S ρ = Jᵀ ∂ℓ/∂z``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from whence import _checks

NEGLIGIBLE = 1e-6
"""Share of the largest eigenvalue of Λ that a negative one may reach by rounding."""
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
    _check_shape("targets of a regression", flat, output)
    return output - flat


# --- classification ------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class CrossEntropy:
    """The cross-entropy of a softmax, ``ℓ = −Σ_c q_c log softmax(z)_c`` over m classes.

    The target is a class number for each point, then q is one for it (less ``label_smoothing``),
    or q itself, (n, m). As ``torch.nn.CrossEntropyLoss(reduction="none")``: with class weights each
    point counts by its own weight, where a mean in torch divides by the sum of the weights.

    Parameters
    ----------
    weight:
        A weight for each class, (m,).
    label_smoothing:
        Share of q spread evenly over all classes.
    ignore_index:
        The class number of points that do not count.

    Examples
    --------
    >>> import torch, whence as wh
    >>> logits = torch.tensor([[2.0, 0.0]])
    >>> wh.CrossEntropy().gradient(logits, torch.tensor([0]))          # softmax − one
    tensor([[-0.1192,  0.1192]])
    """

    weight: Tensor | None = None
    label_smoothing: float = 0.0
    ignore_index: int = -100
    is_convex = True
    spans = True

    def _distribution(self, output: Tensor, target: Tensor | None) -> Tensor:
        """Return q times the class weights, (n, m)."""
        n, m = output.shape
        target = _require(target)

        if target.dtype.is_floating_point:
            q = target.reshape(n, -1)
            _check_shape("class probabilities of a cross-entropy", q, output)
        else:
            q = _one_hot(target.reshape(-1), m, self.ignore_index, output)

        # (1 − s) q + s/m, which leaves the points that do not count at zero.
        smoothing = self.label_smoothing
        if smoothing:
            counted = q.sum(dim=1, keepdim=True)
            q = (1 - smoothing) * q + smoothing * counted / m

        if self.weight is None:
            return q
        return q * self.weight.to(output)

    def value(self, output: Tensor, target: Tensor | None = None) -> Tensor:
        """Return −Σ q log softmax(z) of each row."""
        q = self._distribution(output, target)
        logarithms = output.log_softmax(dim=-1)
        summed = (q * logarithms).sum(dim=-1)
        return -summed

    def gradient(self, output: Tensor, target: Tensor | None = None) -> Tensor:
        """Return ``(Σq) softmax(z) − q``."""
        # ∂/∂z of −Σ q (z − log Σ eᶻ) is −q + (Σq) softmax(z).
        q = self._distribution(output, target)
        total = q.sum(dim=-1, keepdim=True)
        p = output.softmax(dim=-1)
        return total * p - q

    def curvature_root(self, output: Tensor, target: Tensor | None = None) -> Tensor:
        """Return ``√Σq (diag √p − p √pᵀ)``, whose square is ``Σq (diag p − p pᵀ)``.

        With ‖√p‖ = 1, ``(diag √p − p √pᵀ)(diag √p − √p pᵀ) = diag p − 2 p pᵀ + p pᵀ``.
        """
        q = self._distribution(output, target)
        root = _power_of_softmax(output, 0.5)
        p = root.square()

        # (n, m, m): diag √p and p √pᵀ.
        diagonal = torch.diag_embed(root)
        outer = p.unsqueeze(2) * root.unsqueeze(1)
        weight = q.sum(dim=-1).sqrt()
        return weight[:, None, None] * (diagonal - outer)

    def whitened_gradient(self, output: Tensor, target: Tensor | None = None) -> Tensor:
        """Return ``(Σq √p − q/√p) / √Σq``, or zero where q is.

        ``(diag √p − p √pᵀ)(Σq √p − q/√p) = Σq p − q − p (Σq − Σq)``, which is the gradient.
        """
        q = self._distribution(output, target)
        total = q.sum(dim=-1, keepdim=True)
        root = _power_of_softmax(output, 0.5)
        inverse_root = _power_of_softmax(output, -0.5)

        # Of a class that is impossible 1/√p is infinite: 0 · ∞ must not get into the sum.
        zero = torch.zeros_like(q)
        share = torch.where(q > 0, q * inverse_root, zero)

        # Points that do not count have Σq = 0.
        whitened = (total * root - share) / total.sqrt()
        return torch.where(total > 0, whitened, zero)


def _power_of_softmax(output: Tensor, exponent: float) -> Tensor:
    """Return pᵉ through the logarithm, as p itself may be zero in floating point."""
    logarithm = output.log_softmax(dim=-1)
    return (exponent * logarithm).exp()


def _one_hot(target: Tensor, m: int, ignored: int, like: Tensor) -> Tensor:
    """Return one for each point's class, (n, m), and zeros for points that are ignored."""
    if len(target) != len(like):
        raise ValueError(
            f"targets of a cross-entropy must be one class number for each of {len(like)} samples, "
            f"got {len(target)}"
        )

    is_counted = target != ignored
    # Under vmap numbers cannot be looked at; they were before.
    if not torch._C._functorch.is_batchedtensor(target):
        is_outside = (target < 0) | (target >= m)
        outside = target[is_counted & is_outside]
        if len(outside):
            raise ValueError(
                f"class numbers must lie in 0 … {m - 1}, as the model has {m} outputs, got "
                f"{int(outside[0])}"
            )

    # Ignored numbers, which are no classes, count as class 0, with the factor 0.
    classes = torch.where(is_counted, target, torch.zeros_like(target))
    ones = F.one_hot(classes.long(), m).to(like.dtype)
    factor = is_counted.to(like.dtype)
    return ones * factor.unsqueeze(1)


@dataclass(frozen=True, eq=False)
class BinaryCrossEntropy:
    """The cross-entropy of sigmoids, ``ℓ = −scale · Σ[w y log σ(z) + (1−y) log σ(−z)]``.

    The m logits z of a point count each by itself.

    Parameters
    ----------
    pos_weight:
        w, a number for each component or one for all.
    scale:
        The factor in front, 1/m for ``torch.nn.BCEWithLogitsLoss``.

    Examples
    --------
    >>> import torch, whence as wh
    >>> wh.BinaryCrossEntropy().gradient(torch.tensor([[0.0]]), torch.tensor([1.0]))  # σ(z) − y
    tensor([[-0.5000]])
    """

    pos_weight: Tensor | None = None
    scale: float = 1.0
    is_convex = True
    spans = True

    def __post_init__(self) -> None:
        _checks.positive("the scale of a loss", self.scale)

    def _weights(self, output: Tensor, target: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return the weights w⁺ of log σ(z) and w⁻ of log σ(−z), each (n, m)."""
        y = _require(target).to(output).reshape(len(output), -1)
        _check_shape("targets of a binary cross-entropy", y, output)

        # Under vmap numbers cannot be looked at; they were before.
        if not torch._C._functorch.is_batchedtensor(y):
            is_outside = (y < 0) | (y > 1)
            if bool(is_outside.any()):
                raise ValueError(
                    "targets of a binary cross-entropy must lie in 0 … 1, got "
                    f"{float(y.min()):g} … {float(y.max()):g}"
                )

        # w⁺ = scale · w · y and w⁻ = scale · (1 − y)
        of_positive: float | Tensor = self.scale
        if self.pos_weight is not None:
            of_positive = self.scale * self.pos_weight.to(output)
        positive = of_positive * y
        negative = self.scale * (1 - y)
        return positive, negative

    def value(self, output: Tensor, target: Tensor | None = None) -> Tensor:
        """Return ℓ of each row."""
        positive, negative = self._weights(output, target)
        # As σ(−z) = 1 − σ(z), without the cancellation of that difference.
        of_positive = positive * F.logsigmoid(output)
        of_negative = negative * F.logsigmoid(-output)
        return -(of_positive + of_negative).sum(dim=-1)

    def gradient(self, output: Tensor, target: Tensor | None = None) -> Tensor:
        """Return ``w⁻ σ(z) − w⁺ σ(−z)`` with the weights of both classes."""
        positive, negative = self._weights(output, target)
        # (log σ(z))′ = σ(−z) and (log σ(−z))′ = −σ(z)
        of_positive = positive * (-output).sigmoid()
        of_negative = negative * output.sigmoid()
        return of_negative - of_positive

    def _diagonal(self, output: Tensor, target: Tensor | None) -> Tensor:
        """Return the diagonal of S: as σ′ = σ(z) σ(−z), Λ is ``(w⁺ + w⁻) σ(z) σ(−z)``."""
        positive, negative = self._weights(output, target)

        # Through logarithms, as σ(z) σ(−z) is zero in floating point long before its root is.
        logarithm = F.logsigmoid(output) + F.logsigmoid(-output)
        root = (0.5 * logarithm).exp()
        return (positive + negative).sqrt() * root

    def curvature_root(self, output: Tensor, target: Tensor | None = None) -> Tensor:
        """Return the diagonal matrices of ``√((w⁺ + w⁻) σ(z) σ(−z))``."""
        return torch.diag_embed(self._diagonal(output, target))

    def whitened_gradient(self, output: Tensor, target: Tensor | None = None) -> Tensor:
        """Return the gradient divided by the root."""
        gradient = self.gradient(output, target)
        diagonal = self._diagonal(output, target)
        # Where the root underflows the gradient does: zero, not 0/0.
        smallest = torch.finfo(output.dtype).tiny
        return gradient / diagonal.clamp_min(smallest)


# --- any other -----------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
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
        Shape of the model's output for one sample, where it is not (m,).
    is_convex:
        Whether the loss is convex in the outputs, and not linear; see :class:`Loss`.

    Examples
    --------
    >>> import torch
    >>> from whence.losses import PerSample
    >>> loss = PerSample(torch.nn.HuberLoss(reduction="none"))
    >>> loss.curvature_root(torch.tensor([[0.5], [3.0]]), torch.zeros(2, 1)).flatten().tolist()
    [1.0, 0.0]
    """

    function: Callable[[Tensor, Any], Tensor]
    shape: tuple[int, ...] | None = None
    is_convex: bool = True
    spans: bool = field(default=False, init=False)

    def value(self, output: Tensor, target: Tensor | None = None) -> Tensor:
        """Return what the function returns, as (n,)."""
        n = len(output)
        shaped = output
        if self.shape is not None:
            shaped = output.reshape(n, *self.shape)

        value = self.function(shaped, _require(target))
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
            total = self.value(z, target).sum()
            (gradient,) = torch.autograd.grad(total, z, create_graph=create_graph)
        return gradient, z

    def curvature(self, output: Tensor, target: Tensor | None = None) -> Tensor:
        """Return Λ = ∂²ℓ/∂z² of each point, (n, m, m), by reverse mode twice."""
        gradient, z = self._gradient(output, target, create_graph=True)
        n, m = output.shape
        if not gradient.requires_grad:  # linear in z
            return output.new_zeros(n, m, m)

        columns = []
        for k in range(m):
            (column,) = torch.autograd.grad(
                gradient[:, k].sum(),
                z,
                retain_graph=True,
                allow_unused=True,
                materialize_grads=True,
            )
            columns.append(column)

        # Symmetric but for rounding, which eigenvalues would take for more.
        matrix = torch.stack(columns, dim=2)
        return 0.5 * (matrix + matrix.mT)

    def curvature_root(self, output: Tensor, target: Tensor | None = None) -> Tensor:
        """Return V√λ of the eigenvectors and eigenvalues of Λ; a negative one is an error."""
        values, vectors = torch.linalg.eigh(self.curvature(output, target))
        if not _are_semidefinite(values):
            raise ValueError(
                "this loss is not convex in the model's outputs, so the Gauss–Newton matrix is "
                "indefinite: use Influence(..., curvature='hessian')"
            )

        roots = values.clamp_min(0).sqrt()
        return vectors * roots.unsqueeze(1)

    def whitened_gradient(self, output: Tensor, target: Tensor | None = None) -> Tensor:
        """Raise ``ValueError``: there need not be one."""
        raise ValueError(NO_SPAN)

    def is_convex_at(self, output: Tensor, target: Tensor | None) -> bool:
        """Whether Λ has no negative and some positive eigenvalue at these points."""
        curvature = self.curvature(output, target)
        values = torch.linalg.eigvalsh(curvature)
        has_curvature = bool((values > 0).any())
        return has_curvature and _are_semidefinite(values)


def _are_semidefinite(eigenvalues: Tensor) -> bool:
    """Whether none of n matrices has a negative eigenvalue beyond rounding: ascending, (n, m)."""
    smallest = eigenvalues[:, 0]
    largest = eigenvalues.abs().amax(dim=1)
    is_semidefinite = smallest >= -NEGLIGIBLE * largest
    return bool(is_semidefinite.all())


# --- checks --------------------------------------------------------------------------------------


def _require(target: Tensor | None) -> Tensor:
    if target is None:
        raise ValueError(
            "this loss compares with targets: give samples (inputs, target)"
        )
    return target


def _check_shape(what: str, values: Tensor, output: Tensor) -> None:
    if values.shape != output.shape:
        raise ValueError(
            f"{what} must have the shape of the outputs, {tuple(output.shape)}, got "
            f"{tuple(values.shape)}"
        )
