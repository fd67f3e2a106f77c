"""Losses of one point as functions of what the network gives there: value, gradient, curvature.

With z the m numbers that the network gives at a point (a residual, or outputs) and y its target,
``ℓ(z, y)`` has the gradient ∂ℓ/∂z and the curvature Λ = ∂²ℓ/∂z² = S Sᵀ. ``whitened_gradient`` is
the ρ of least norm with ``S ρ = ∂ℓ/∂z``.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from whence import _checks

CONVEX = 1e-6
"""Share of the largest eigenvalue of Λ that a negative one may reach by rounding."""


class Loss(Protocol):
    """The loss ℓ of one point, from its m components z and its target y where it has one."""

    @property
    def gauss_newton(self) -> bool:
        """Whether Λ is positive semi-definite, and not zero, so that Gauss–Newton means something.

        Where it is not, attributions use the Hessian.
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
    gauss_newton = True
    spans = True

    def __post_init__(self) -> None:
        _checks.positive("the scale of a loss", self.scale)

    def value(self, output: Tensor, target: Tensor | None = None) -> Tensor:
        """Return ``scale · ‖z − y‖²`` of each row."""
        value = _difference(output, target).square().sum(dim=-1)
        return value if self.scale == 1 else self.scale * value

    def gradient(self, output: Tensor, target: Tensor | None = None) -> Tensor:
        """Return ``2 · scale · (z − y)``."""
        return 2 * self.scale * _difference(output, target)

    def curvature_root(self, output: Tensor, target: Tensor | None = None) -> Tensor:
        """Return √(2·scale)·I for each row."""
        m = output.shape[-1]
        eye = torch.eye(m, dtype=output.dtype, device=output.device)
        return ((2 * self.scale) ** 0.5 * eye).expand(len(output), m, m)

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
    gauss_newton = False
    spans = False

    def __post_init__(self) -> None:
        _checks.positive("the scale of a loss", self.scale)

    def value(self, output: Tensor, target: Tensor | None = None) -> Tensor:
        """Return ``scale · Σ|z − y|`` of each row."""
        return self.scale * _difference(output, target).abs().sum(dim=-1)

    def gradient(self, output: Tensor, target: Tensor | None = None) -> Tensor:
        """Return ``scale · sign(z − y)``."""
        return self.scale * _difference(output, target).sign()

    def curvature_root(self, output: Tensor, target: Tensor | None = None) -> Tensor:
        """Return zeros."""
        return output.new_zeros(len(output), output.shape[-1], output.shape[-1])

    def whitened_gradient(self, output: Tensor, target: Tensor | None = None) -> Tensor:
        """Raise ``ValueError``: there is none."""
        raise ValueError(NO_SPAN)


NO_SPAN = (
    "this loss has gradients where it has no curvature, so exact effects of groups and leverages "
    "are not defined: use method='first_order', or a loss such as wh.Squared() or "
    "wh.CrossEntropy()"
)


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
    gauss_newton = True
    spans = True

    def _distribution(self, output: Tensor, target: Tensor | None) -> Tensor:
        """Return q times the class weights, (n, m)."""
        m = output.shape[-1]
        target = _needed(target)
        if target.dtype.is_floating_point:
            chosen = target.reshape(len(output), -1)
            _same_shape("class probabilities of a cross-entropy", chosen, output)
        else:
            chosen = _one_hot(target.reshape(-1), m, self.ignore_index, output)
        if self.label_smoothing:
            counted = chosen.sum(dim=1, keepdim=True)
            chosen = (
                1 - self.label_smoothing
            ) * chosen + self.label_smoothing * counted / m
        return chosen if self.weight is None else chosen * self.weight.to(output)

    def value(self, output: Tensor, target: Tensor | None = None) -> Tensor:
        """Return −Σ q log softmax(z) of each row."""
        return -(self._distribution(output, target) * output.log_softmax(dim=-1)).sum(
            dim=-1
        )

    def gradient(self, output: Tensor, target: Tensor | None = None) -> Tensor:
        """Return ``(Σq) softmax(z) − q``."""
        q = self._distribution(output, target)
        return q.sum(dim=-1, keepdim=True) * output.softmax(dim=-1) - q

    def curvature_root(self, output: Tensor, target: Tensor | None = None) -> Tensor:
        """Return ``√Σq (diag √p − p √pᵀ)``, whose square is ``Σq (diag p − p pᵀ)``."""
        q = self._distribution(output, target)
        root = (0.5 * output.log_softmax(dim=-1)).exp()
        inner = torch.diag_embed(root) - root.square().unsqueeze(2) * root.unsqueeze(1)
        return q.sum(dim=-1).sqrt()[:, None, None] * inner

    def whitened_gradient(self, output: Tensor, target: Tensor | None = None) -> Tensor:
        """Return ``(Σq √p − q/√p) / √Σq``, or zero where q is."""
        q = self._distribution(output, target)
        total = q.sum(dim=-1, keepdim=True)
        half = 0.5 * output.log_softmax(dim=-1)
        share = torch.where(q > 0, q * (-half).exp(), torch.zeros_like(q))
        return torch.where(
            total > 0, (total * half.exp() - share) / total.sqrt(), torch.zeros_like(q)
        )


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
    gauss_newton = True
    spans = True

    def __post_init__(self) -> None:
        _checks.positive("the scale of a loss", self.scale)

    def _parts(self, output: Tensor, target: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return the weights of log σ(z) and of log σ(−z), each (n, m)."""
        y = _needed(target).to(output).reshape(len(output), -1)
        _same_shape("targets of a binary cross-entropy", y, output)
        if not torch._C._functorch.is_batchedtensor(y) and bool(
            ((y < 0) | (y > 1)).any()
        ):
            raise ValueError(
                "targets of a binary cross-entropy must lie in 0 … 1, got "
                f"{float(y.min()):g} … {float(y.max()):g}"
            )
        weight = 1.0 if self.pos_weight is None else self.pos_weight.to(output)
        return self.scale * weight * y, self.scale * (1 - y)

    def value(self, output: Tensor, target: Tensor | None = None) -> Tensor:
        """Return ℓ of each row."""
        ones, zeros = self._parts(output, target)
        return -(ones * F.logsigmoid(output) + zeros * F.logsigmoid(-output)).sum(
            dim=-1
        )

    def gradient(self, output: Tensor, target: Tensor | None = None) -> Tensor:
        """Return ``w⁻ σ(z) − w⁺ σ(−z)`` with the weights of both classes."""
        ones, zeros = self._parts(output, target)
        return zeros * output.sigmoid() - ones * (-output).sigmoid()

    def _diagonal(self, output: Tensor, target: Tensor | None) -> Tensor:
        ones, zeros = self._parts(output, target)
        return (ones + zeros).sqrt() * (
            0.5 * (F.logsigmoid(output) + F.logsigmoid(-output))
        ).exp()

    def curvature_root(self, output: Tensor, target: Tensor | None = None) -> Tensor:
        """Return the diagonal matrices of ``√((w⁺ + w⁻) σ(z) σ(−z))``."""
        return torch.diag_embed(self._diagonal(output, target))

    def whitened_gradient(self, output: Tensor, target: Tensor | None = None) -> Tensor:
        """Return the gradient divided by the root."""
        tiny = torch.finfo(output.dtype).tiny
        return self.gradient(output, target) / self._diagonal(output, target).clamp_min(
            tiny
        )


@dataclass(frozen=True, eq=False)
class PerSample:
    """Any differentiable loss, from a function ``(outputs, targets) -> (n,)``.

    Gradient and curvature come from automatic differentiation by the outputs, so nothing but the
    values is asked for. Where the curvature of a sample is indefinite, attributions must use the
    Hessian (``curvature="hessian"``).

    Parameters
    ----------
    function:
        The loss of each sample, in torch's terms with ``reduction="none"``. Further axes of the
        result are averaged.
    shape:
        Shape of the model's output for one sample, where it is not (m,).
    gauss_newton:
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
    gauss_newton: bool = True
    spans: bool = field(default=False, init=False)

    def value(self, output: Tensor, target: Tensor | None = None) -> Tensor:
        """Return what the function returns, as (n,)."""
        shaped = (
            output if self.shape is None else output.reshape(len(output), *self.shape)
        )
        value = self.function(shaped, _needed(target))
        if not isinstance(value, Tensor) or not value.ndim or len(value) != len(output):
            got = (
                f"shape {tuple(value.shape)}"
                if isinstance(value, Tensor)
                else repr(value)
            )
            raise ValueError(
                f"a loss must return one number for each of the {len(output)} samples, got {got}: "
                "it is already reduced; give one with reduction='none'"
            )
        return value.flatten(1).mean(dim=1) if value.ndim > 1 else value

    def gradient(self, output: Tensor, target: Tensor | None = None) -> Tensor:
        """Return ∂ℓ/∂z by reverse mode."""
        return self._gradient(output, target, create_graph=False)[0].detach()

    def _gradient(
        self, output: Tensor, target: Tensor | None, *, create_graph: bool
    ) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            z = output.detach().requires_grad_()
            total = self.value(z, target).sum()
            (gradient,) = torch.autograd.grad(total, z, create_graph=create_graph)
        return gradient, z

    def curvature(self, output: Tensor, target: Tensor | None = None) -> Tensor:
        """Return Λ = ∂²ℓ/∂z² of each point, (n, m, m), by reverse mode twice."""
        gradient, z = self._gradient(output, target, create_graph=True)
        if not gradient.requires_grad:
            return output.new_zeros(*output.shape, output.shape[-1])
        columns = [
            torch.autograd.grad(
                gradient[:, k].sum(),
                z,
                retain_graph=True,
                allow_unused=True,
                materialize_grads=True,
            )[0]
            for k in range(z.shape[1])
        ]
        matrix = torch.stack(columns, dim=2)
        return 0.5 * (matrix + matrix.mT)

    def curvature_root(self, output: Tensor, target: Tensor | None = None) -> Tensor:
        """Return V√λ of the eigenvectors and eigenvalues of Λ; a negative one is an error."""
        values, vectors = torch.linalg.eigh(self.curvature(output, target))
        if not bool((values[:, 0] >= -CONVEX * values.abs().amax(dim=1)).all()):
            raise ValueError(
                "this loss is not convex in the model's outputs, so the Gauss–Newton matrix is "
                "indefinite: use Influence(..., curvature='hessian')"
            )
        return vectors * values.clamp_min(0).sqrt().unsqueeze(1)

    def whitened_gradient(self, output: Tensor, target: Tensor | None = None) -> Tensor:
        """Raise ``ValueError``: there need not be one."""
        raise ValueError(NO_SPAN)

    def is_convex(self, output: Tensor, target: Tensor | None) -> bool:
        """Tell whether Λ has no negative and some positive eigenvalue at these points."""
        values = torch.linalg.eigvalsh(self.curvature(output, target))
        largest = values.abs().amax(dim=1)
        return bool((values[:, 0] >= -CONVEX * largest).all()) and bool(
            (largest > 0).any()
        )


# --- losses of torch -----------------------------------------------------------------------------


def loss_of(given: object, output: Tensor, target: Tensor) -> Loss:
    """Return a loss from one of ours, any of ``torch.nn`` or any callable, tried on some samples.

    Parameters
    ----------
    given:
        A loss of :mod:`whence.losses`; a loss module of torch, whose reduction is put aside; a
        function of ``torch.nn.functional`` for which there is such a loss; or a function
        ``(outputs, targets) -> (n,)``.
    output, target:
        What the model gives for some samples, (n, ...), and their targets.

    Raises
    ------
    TypeError
        If it is none of these, or the targets are of the wrong type.
    ValueError
        If it returns one number for all samples, or targets have another shape or range.

    Examples
    --------
    >>> import torch
    >>> from whence.losses import loss_of
    >>> loss_of(torch.nn.MSELoss(), torch.zeros(2, 4), torch.zeros(2, 4))
    Squared(scale=0.25)
    """
    shape = tuple(output.shape[1:])
    flat = output.reshape(len(output), -1)
    if callable(given):
        given = _FUNCTIONS.get(given, given)
    loss = _known(given, shape)
    if loss is None:
        if not callable(given) or isinstance(given, type):
            raise TypeError(
                "loss must be one such as wh.CrossEntropy(), a torch.nn loss or a function "
                f"(outputs, targets) -> (n,), got {_checks.shown(given)}"
            )
        loss = PerSample(_unreduced(given), shape if len(shape) != 1 else None)
    _check_target(loss, output, target)
    try:
        values = loss.value(flat, target)
    except (RuntimeError, IndexError) as error:
        raise type(error)(
            f"the loss cannot compare outputs of shape {tuple(output.shape)} with targets of shape "
            f"{tuple(target.shape)} and {target.dtype}: {error}"
        ) from error
    if isinstance(loss, PerSample):
        if not values.dtype.is_floating_point:
            raise TypeError(f"a loss must return real numbers, got {values.dtype}")
        return replace(loss, gauss_newton=loss.is_convex(flat, target))
    return loss


_FUNCTIONS: dict[Any, nn.Module] = {
    F.cross_entropy: nn.CrossEntropyLoss(),
    F.nll_loss: nn.NLLLoss(),
    F.mse_loss: nn.MSELoss(),
    F.l1_loss: nn.L1Loss(),
    F.smooth_l1_loss: nn.SmoothL1Loss(),
    F.huber_loss: nn.HuberLoss(),
    F.binary_cross_entropy: nn.BCELoss(),
    F.binary_cross_entropy_with_logits: nn.BCEWithLogitsLoss(),
}


def _known(given: object, shape: tuple[int, ...]) -> Loss | None:
    """Return the loss with formulas of its own that stands for one of torch, or None."""
    numbers = int(torch.Size(shape).numel())
    each = 1.0 if getattr(given, "reduction", "mean") == "sum" else 1 / numbers
    if isinstance(
        given, (Squared, Absolute, CrossEntropy, BinaryCrossEntropy, PerSample)
    ):
        return given
    if isinstance(given, nn.CrossEntropyLoss) and len(shape) == 1:
        return CrossEntropy(given.weight, given.label_smoothing, given.ignore_index)
    if (
        isinstance(given, nn.NLLLoss) and len(shape) == 1
    ):  # of a log-softmax, whose sum is one
        return CrossEntropy(given.weight, ignore_index=given.ignore_index)
    if (
        isinstance(given, nn.BCEWithLogitsLoss)
        and given.weight is None
        and len(shape) <= 1
    ):
        return BinaryCrossEntropy(given.pos_weight, scale=each)
    if isinstance(given, nn.MSELoss):
        return Squared(scale=each)
    if isinstance(given, nn.L1Loss):
        return Absolute(scale=each)
    return None


def _unreduced(given: Any) -> Callable[[Tensor, Any], Tensor]:
    """Return a module of torch with its reduction put aside, or the function itself."""
    if (
        not isinstance(given, nn.Module)
        or getattr(given, "reduction", "none") == "none"
    ):
        return given
    each = copy.copy(given)
    each.reduction = "none"  # type: ignore[assignment]
    if given.reduction == "sum":
        return lambda output, target: each(output, target).flatten(1).sum(dim=1)
    return each


def _check_target(loss: Loss, output: Tensor, target: Tensor) -> None:
    if isinstance(loss, CrossEntropy):
        m = output.shape[-1]
        if target.dtype.is_floating_point and tuple(target.shape) != tuple(
            output.shape
        ):
            raise TypeError(
                f"targets of a cross-entropy must be class numbers (integers, shape (n,)) or "
                f"probabilities of shape (n, {m}), got {target.dtype} of shape "
                f"{tuple(target.shape)}: use targets.long()"
            )
        if target.dtype == torch.bool:
            raise TypeError("targets of a cross-entropy must be class numbers, got booleans: use "
                            "targets.long()")  # fmt: skip
        if m < 2:
            raise ValueError(
                "a cross-entropy needs at least two outputs, got one: use "
                "wh.BinaryCrossEntropy() for a single logit"
            )
    elif isinstance(loss, (Squared, Absolute)) and not target.dtype.is_floating_point:
        raise TypeError(
            f"targets of a regression must be real numbers, got {target.dtype}: use "
            "targets.float(), or wh.CrossEntropy() for classes"
        )


def _needed(target: Tensor | None) -> Tensor:
    if target is None:
        raise ValueError(
            "this loss compares with targets: give samples (inputs, target)"
        )
    return target


def _difference(output: Tensor, target: Tensor | None) -> Tensor:
    if target is None:
        return output
    flat = target.to(output.dtype).reshape(len(output), -1)
    _same_shape("targets of a regression", flat, output)
    return output - flat


def _same_shape(what: str, given: Tensor, output: Tensor) -> None:
    if given.shape != output.shape:
        raise ValueError(
            f"{what} must have the shape of the outputs, {tuple(output.shape)}, got "
            f"{tuple(given.shape)}"
        )


def _one_hot(target: Tensor, m: int, ignored: int, like: Tensor) -> Tensor:
    """Return one for each point's class, (n, m), and zeros for points that are ignored."""
    if len(target) != len(like):
        raise ValueError(
            f"targets of a cross-entropy must be one class number for each of {len(like)} samples, "
            f"got {len(target)}"
        )
    kept = target != ignored
    if not torch._C._functorch.is_batchedtensor(target):
        outside = target[kept & ((target < 0) | (target >= m))]
        if len(outside):
            raise ValueError(
                f"class numbers must lie in 0 … {m - 1}, as the model has {m} outputs, got "
                f"{int(outside[0])}"
            )
    safe = torch.where(kept, target, torch.zeros_like(target)).long()
    return F.one_hot(safe, m).to(like.dtype) * kept.to(like.dtype).unsqueeze(1)
