"""Losses of classifiers with formulas of their own, at one position or at many.

What a network gives at a sample, z of m numbers, may belong to D positions (tokens, pixels) of C
classes each, the classes first, as torch lays them out: ``m = C·D``, number ``c·D + d`` for class
c at position d; or the classes last, as language models have them. A loss is a sum over positions,
so its curvature never needs an m × m matrix.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from whence import _checks
from whence.losses import check_shape, diagonal_column, require_target


@dataclass(frozen=True, eq=False)
class CrossEntropy:
    """The cross-entropy of a softmax, ``ℓ = −scale · Σ_d Σ_c q_dc log softmax(z_d)_c``.

    The target is a class number for each position, then q is one for it (less
    ``label_smoothing``), or q itself, in the shape of the outputs. As
    ``torch.nn.CrossEntropyLoss(reduction="none")``: with class weights each position counts by its
    own weight, where a mean in torch divides by the sum of the weights.

    :meth:`whence.Objective.supervised` sets positions and scale by the data, so that the mean over
    samples is the mean over all positions that count; a loss of torch whose reduction is a mean is
    divided by the sum of their weights, as torch does.

    Parameters
    ----------
    weight:
        A weight for each class, (C,).
    label_smoothing:
        Share of q spread evenly over all classes.
    ignore_index:
        The class number of positions that do not count.
    positions:
        D, the number of positions of a sample.
    scale:
        The factor in front.
    axis:
        The classes' axis in the model's output: 1 as in torch, or -1, the last one.

    Raises
    ------
    ValueError
        If the smoothing is not in 0 … 1, or the axis another one; and where it meets a model, if a
        class weight is negative or not finite, or there is not one for each class.

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
    positions: int = 1
    scale: float = 1.0
    axis: int = 1
    is_convex = True
    spans = True

    def __post_init__(self) -> None:
        if self.axis not in (1, -1):
            raise ValueError(
                f"the axis of the classes must be 1, as in torch, or -1, got {self.axis}"
            )
        _checks.count("the number of positions", self.positions)
        _checks.positive("the scale of a loss", self.scale)
        _checks.positive("label_smoothing", self.label_smoothing, zero=True)
        if self.label_smoothing > 1:
            raise ValueError(
                f"label_smoothing must lie in 0 … 1, got {self.label_smoothing}"
            )

    def _rows(self, values: Tensor) -> Tensor:
        """Return (n, C·D) as (n, D, C)."""
        if self.axis == -1:
            return values.reshape(len(values), self.positions, -1)
        table = values.reshape(len(values), -1, self.positions)
        return table.transpose(1, 2)

    def by_position(self, values: Tensor) -> Tensor:
        """Return the sums over classes of numbers laid out as the outputs, (n, C·D) to (n, D)."""
        return self._rows(values).sum(dim=2)

    def _flat(self, rows: Tensor) -> Tensor:
        """Return (n, D, C) as (n, C·D)."""
        if self.axis == -1:
            return rows.reshape(len(rows), -1)
        return rows.transpose(1, 2).reshape(len(rows), -1)

    def _distribution(self, logits: Tensor, target: Tensor | None) -> Tensor:
        """Return q times the class weights and the scale, (n, D, C)."""
        target = require_target(target)
        n_classes = logits.shape[2]

        if target.dtype.is_floating_point:
            q = target.reshape(len(logits), -1)
            output = self._flat(logits)
            check_shape("class probabilities of a cross-entropy", q, output)
            q = self._rows(q)
        else:
            q = self._one_hot(target, logits)

        # (1 − s) q + s/C, which leaves the positions that do not count at zero.
        smoothing = self.label_smoothing
        if smoothing:
            counted = q.sum(dim=-1, keepdim=True)
            q = (1 - smoothing) * q + smoothing * counted / n_classes

        if self.scale != 1:
            q = self.scale * q
        if self.weight is None:
            return q
        return q * self.weight.to(logits)

    def _one_hot(self, target: Tensor, logits: Tensor) -> Tensor:
        """Return one for each position's class, (n, D, C), and zeros where it is ignored."""
        n, n_positions, n_classes = logits.shape
        if target.numel() != n * n_positions:
            each = f"each of {n} samples"
            if n_positions > 1:
                each = f"each of {n_positions} positions of {n} samples"
            raise ValueError(
                f"targets of a cross-entropy must be one class number for {each}, got shape "
                f"{tuple(target.shape)}"
            )

        target = self.aligned(target.reshape(n, n_positions))
        is_counted = target != self.ignore_index
        # Under vmap numbers cannot be looked at; they were before.
        if not torch._C._functorch.is_batchedtensor(target):
            is_outside = (target < 0) | (target >= n_classes)
            outside = target[is_counted & is_outside]
            if len(outside):
                outputs = "outputs" if n_positions == 1 else "classes"
                raise ValueError(
                    f"class numbers must lie in 0 … {n_classes - 1}, as the model has {n_classes} "
                    f"{outputs}, got {int(outside[0])}"
                )

        # Ignored numbers, which are no classes, count as class 0, with the factor 0.
        classes = torch.where(is_counted, target, torch.zeros_like(target))
        ones = F.one_hot(classes.long(), n_classes).to(logits.dtype)
        factor = is_counted.to(logits.dtype)
        return ones * factor.unsqueeze(-1)

    def aligned(self, target: Tensor) -> Tensor:
        """Return class numbers (n, D) at the positions of their logits: as they are."""
        return target

    def check_weights(self, n_classes: int) -> None:
        """Raise ``ValueError`` unless there is a proper weight for each of so many classes."""
        if self.weight is None:
            return
        if self.weight.shape != (n_classes,):
            raise ValueError(
                f"class weights must be one for each of the model's {n_classes} classes, got "
                f"{self.weight.numel()} in shape {tuple(self.weight.shape)}"
            )
        check_class_weights("class weights", self.weight)

    def counted(self, target: Tensor, weigh: bool) -> float:
        """Return how many positions of these targets count, or the sum of their class weights.

        Of class probabilities every position counts, and by one, as in torch.
        """
        if target.dtype.is_floating_point:
            return float(len(target) * self.positions)

        # As they are compared: the first label of a language model never is.
        aligned = self.aligned(target)
        classes = aligned[aligned != self.ignore_index].long()
        if self.weight is None or not weigh:
            return float(classes.numel())
        self._check_classes(classes)
        by_class = torch.bincount(classes, minlength=len(self.weight))
        return float((by_class.to(self.weight.device) * self.weight.double()).sum())

    def _check_classes(self, classes: Tensor) -> None:
        assert self.weight is not None
        outside = classes[(classes < 0) | (classes >= len(self.weight))]
        if len(outside):
            raise ValueError(
                f"class numbers must lie in 0 … {len(self.weight) - 1}, as there are "
                f"{len(self.weight)} class weights, got {int(outside[0])}"
            )

    def value(self, output: Tensor, target: Tensor | None = None) -> Tensor:
        """Return −Σ q log softmax(z) of each sample."""
        logits = self._rows(output)
        q = self._distribution(logits, target)
        logarithms = logits.log_softmax(dim=-1)
        summed = (q * logarithms).sum(dim=(-2, -1))
        return -summed

    def gradient(self, output: Tensor, target: Tensor | None = None) -> Tensor:
        """Return ``(Σq) softmax(z) − q`` by position."""
        # ∂/∂z of −Σ q (z − log Σ eᶻ) is −q + (Σq) softmax(z).
        logits = self._rows(output)
        q = self._distribution(logits, target)
        total = q.sum(dim=-1, keepdim=True)
        return self._flat(total * logits.softmax(dim=-1) - q)

    def rank(self, outputs: int) -> int:
        """Return how many columns of S are not zero: of a single position all but the last."""
        return max(1, outputs - 1) if self.positions == 1 else outputs

    def curvature_root(self, output: Tensor, target: Tensor | None = None) -> Tensor:
        """Return S by position, whose square is ``Σq (diag p − p pᵀ)`` and whose last column is 0.

        With ``R = diag √p − p √pᵀ`` and ‖√p‖ = 1 it is ``R Rᵀ = diag p − 2 p pᵀ + p pᵀ``. A shift
        of all logits changes nothing, so that a column can be spared: ``R √p = p − p = 0``. With
        the class j of the largest p and ``w = √p + e_j``, ``wᵀw = 2(1 + √p_j)``, the reflection
        ``H = I − w wᵀ/(1 + √p_j)`` maps e_j to −√p, so that R H has the same square and no column
        j. As ``R w = R e_j``, ``R e_k = √p_k (e_k − p)``, its other columns are::

            R H e_k = √p_k (e_k − p − t (e_j − p)),    t = √p_j/(1 + √p_j)

        S is √Σq times that with the last column in the place of column j. Of another class j than
        the likeliest ``1 − p_k`` would cancel.
        """
        if self.positions > 1:
            column = self.curvature_column(output, target)
            return torch.stack([column(k) for k in range(output.shape[1])], dim=2)

        q = self._distribution(self._rows(output), target).squeeze(1)
        root = _power_of_softmax(output, 0.5)
        likeliest = root.argmax(dim=1, keepdim=True)  # j, (n, 1)
        of_likeliest = root.gather(1, likeliest)
        t = of_likeliest / (1 + of_likeliest)
        # Of every class: −(1 − t) p − t e_j, to which column k adds e_k.
        shared = ((t - 1) * root.square()).scatter_add(1, likeliest, -t)
        columns = torch.diag_embed(root) + shared.unsqueeze(2) * root.unsqueeze(1)
        weight = q.sum(dim=-1).sqrt()
        return weight[:, None, None] * _last_moved(columns, likeliest.unsqueeze(1))

    def curvature_column(
        self, output: Tensor, target: Tensor | None = None
    ) -> Callable[[int], Tensor]:
        """Return the columns of :meth:`curvature_root`, k to (n, m), each made when asked for."""
        logits = self._rows(output)
        q = self._distribution(logits, target)
        weight = q.sum(dim=-1).sqrt()  # √Σq, (n, D)
        root = _power_of_softmax(logits, 0.5)  # √p, (n, D, C)
        p = root.square()
        likeliest = root.argmax(dim=2)  # j, (n, D)
        of_likeliest = root.gather(2, likeliest.unsqueeze(2)).squeeze(2)
        share = of_likeliest / (1 + of_likeliest)  # t, (n, D)
        n_classes = p.shape[2]

        def column(k: int) -> Tensor:
            c, d = divmod(k, self.positions)
            if self.axis == -1:
                d, c = divmod(k, n_classes)
            rows = torch.zeros_like(p)
            if c == n_classes - 1:
                return self._flat(rows)

            # √p_k (e_k − p − t (e_j − p)) at position d, and nothing at the others.
            j = likeliest[:, d, None]
            # The last class stands in the place of j.
            of_column = torch.where(j == c, n_classes - 1, c)  # k of each point, (n, 1)
            t = share[:, d, None]
            at_position = (t - 1) * p[:, d]  # (n, C)
            at_position = at_position.scatter_add(1, j, -t)
            at_position = at_position.scatter_add(1, of_column, torch.ones_like(t))
            size = weight[:, d, None] * root[:, d].gather(1, of_column)
            rows[:, d] = size * at_position
            return self._flat(rows)

        return column

    def root_product(
        self, output: Tensor, target: Tensor | None = None
    ) -> Callable[[Tensor], Tensor]:
        """Return ``v ↦ S v``, (n, m) to (n, m): ``√Σq (√p∘u − p (√pᵀu))``, u = Hv, by position."""
        logits = self._rows(output)
        total = self._distribution(logits, target).sum(dim=-1, keepdim=True)
        root = _power_of_softmax(logits, 0.5)
        likeliest = root.argmax(dim=-1, keepdim=True)
        of_likeliest = root.gather(-1, likeliest)

        def product(vectors: Tensor) -> Tensor:
            # By class: that of column j is the last, and of j itself there is no column.
            by_column = self._rows(vectors)
            by_class = by_column.clone()
            by_class[..., -1:] = by_column.gather(-1, likeliest)
            by_class = by_class.scatter(-1, likeliest, 0.0)

            # u = v − w (wᵀv)/(1 + √p_j), where wᵀv = √pᵀv as v_j = 0.
            along = (root * by_class).sum(dim=-1, keepdim=True) / (1 + of_likeliest)
            reflected = (by_class - root * along).scatter_add(-1, likeliest, -along)
            weighted = root * reflected  # √p∘u
            image = weighted - root.square() * weighted.sum(dim=-1, keepdim=True)
            return self._flat(total.sqrt() * image)

        return product

    def curvature_product(
        self, output: Tensor, target: Tensor | None = None
    ) -> Callable[[Tensor], Tensor]:
        """Return ``v ↦ Λv``, (n, m) to (n, m): ``Σq (p∘v − p (pᵀv))`` by position."""
        logits = self._rows(output)
        total = self._distribution(logits, target).sum(dim=-1, keepdim=True)
        p = logits.softmax(dim=-1)

        def product(vectors: Tensor) -> Tensor:
            weighted = p * self._rows(vectors)  # p∘v
            image = weighted - p * weighted.sum(dim=-1, keepdim=True)
            return self._flat(total * image)

        return product

    def whitened_gradient(self, output: Tensor, target: Tensor | None = None) -> Tensor:
        """Return ρ with S ρ = ∂ℓ/∂z by position, or zero where q is; its last entry is 0.

        ``r = (Σq √p − q/√p)/√Σq`` has ``√Σq R r = Σq p − q − p (Σq − Σq)``, which is the gradient,
        and ``√pᵀr = 0``. As H H = I, ρ is ``H r = r − w (wᵀr)/(1 + √p_j)`` with wᵀr = r_j: of
        entry j nothing is left, and that of the last class takes its place.
        """
        logits = self._rows(output)
        q = self._distribution(logits, target)
        total = q.sum(dim=-1, keepdim=True)
        root = _power_of_softmax(logits, 0.5)
        inverse_root = _power_of_softmax(logits, -0.5)

        # Of a class that is impossible 1/√p is infinite: 0 · ∞ must not get into the sum.
        zero = torch.zeros_like(q)
        share = torch.where(q > 0, q * inverse_root, zero)
        of_class = (total * root - share) / total.sqrt()  # r

        likeliest = root.argmax(dim=-1, keepdim=True)
        along = of_class.gather(-1, likeliest) / (1 + root.gather(-1, likeliest))
        whitened = _last_moved(of_class - root * along, likeliest)

        # Positions that do not count have Σq = 0.
        return self._flat(torch.where(total > 0, whitened, zero))


@dataclass(frozen=True, eq=False)
class NextToken(CrossEntropy):
    """The cross-entropy of each token from those before it, as causal language models are trained.

    Logits are (n, tokens, vocabulary), the target the tokens' own numbers (n, tokens), those that
    do not count ``ignore_index``: logits at a token are those of the next one, so labels move by
    one place, and the last logits have none. As ``model(**batch, labels=labels).loss`` of
    transformers, a mean over the tokens that count in all of the data.

    Parameters
    ----------
    weight, label_smoothing, ignore_index, positions, scale:
        As of :class:`CrossEntropy`.
    axis:
        The last one.

    Examples
    --------
    >>> import torch, whence as wh
    >>> logits = torch.tensor([[[2.0, 0.0], [9.0, 9.0]]])
    >>> wh.NextToken(positions=2).value(logits.flatten(1), torch.tensor([[1, 0]]))
    tensor([0.1269])
    """

    axis: int = -1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.axis != -1:
            raise ValueError("the vocabulary of a NextToken loss is the last axis, -1")

    def aligned(self, target: Tensor) -> Tensor:
        """Return the number of each position's next token, (n, D); the last has none."""
        return F.pad(target[:, 1:], (0, 1), value=self.ignore_index)


def _last_moved(values: Tensor, likeliest: Tensor) -> Tensor:
    """Return numbers by class with those of the last in the place of j's, and 0 in theirs."""
    last = values[..., -1:]
    places = likeliest.expand_as(last)
    moved = values.scatter(-1, places, last)
    moved[..., -1] = 0.0
    return moved


def _power_of_softmax(logits: Tensor, exponent: float) -> Tensor:
    """Return pᵉ through the logarithm, as p itself may be zero in floating point."""
    logarithm = logits.log_softmax(dim=-1)
    return (exponent * logarithm).exp()


def check_class_weights(what: str, weight: object) -> None:
    """Raise unless every weight is finite and not negative, and one is positive."""
    if not isinstance(weight, Tensor) or not weight.dtype.is_floating_point:
        raise TypeError(
            f"{what} must be a tensor of real numbers, got {_checks.describe(weight)}"
        )

    bad = ~(torch.isfinite(weight) & (weight >= 0))
    if bool(bad.any()):
        place = int(bad.reshape(-1).nonzero()[0])
        number = float(weight.reshape(-1)[place])
        of = f"class {place}" if weight.numel() > 1 else "all"
        raise ValueError(
            f"{what} must be finite and not negative, got {number} for {of}: give a class that has "
            "no samples any finite weight, such as 0"
        )
    if not bool((weight > 0).any()):
        raise ValueError(f"{what} must not all be zero: no sample would count")


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

    Raises
    ------
    ValueError
        Where it meets a model, if a weight is negative or not finite, or there is not one for each
        component.

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
        y = require_target(target).to(output).reshape(len(output), -1)
        check_shape("targets of a binary cross-entropy", y, output)

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

    def check_weights(self, n_outputs: int) -> None:
        """Raise ``ValueError`` unless there is one weight, or one for each of so many outputs."""
        weight = self.pos_weight
        if weight is None:
            return
        if weight.shape not in ((), (1,), (n_outputs,)):
            raise ValueError(
                f"pos_weight must be one number, or one for each of {n_outputs} outputs, got "
                f"shape {tuple(weight.shape)}"
            )
        check_class_weights("pos_weight", weight)

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

    def curvature_column(
        self, output: Tensor, target: Tensor | None = None
    ) -> Callable[[int], Tensor]:
        """Return the columns of :meth:`curvature_root`, k to (n, m), each made when asked for."""
        return diagonal_column(self._diagonal(output, target))

    def curvature_product(
        self, output: Tensor, target: Tensor | None = None
    ) -> Callable[[Tensor], Tensor]:
        """Return ``v ↦ Λv``, (n, m) to (n, m)."""
        diagonal = self._diagonal(output, target).square()
        return lambda vectors: diagonal * vectors

    def whitened_gradient(self, output: Tensor, target: Tensor | None = None) -> Tensor:
        """Return the gradient divided by the root."""
        gradient = self.gradient(output, target)
        diagonal = self._diagonal(output, target)
        # Where the root underflows the gradient does: zero, not 0/0.
        smallest = torch.finfo(output.dtype).tiny
        return gradient / diagonal.clamp_min(smallest)
