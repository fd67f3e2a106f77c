"""The Jacobian J = ∂r/∂θ of residuals at points by parameters: the one object of this library.

:class:`Jacobian` stacks the rows of an objective: term by term, point by point, component by
component. Rows are made in chunks that stay in the processor's cache, each by
:func:`whence.linearization.linearize`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from whence import _checks
from whence.linearization import Factor, LayerLinearization, Linearization, linearize
from whence.objective import Objective, Points, Pointwise, Term, at_once
from whence.parameters import Parameters

CHUNK_POINTS = 1000
CHUNK_PARAMETERS = 4_000_000
CHUNK_BYTES = 256 * 2**20
SELF_PRODUCT_BLOCKS = 8
FEW_VECTORS = 16
"""Up to so many vectors, products with J go without its rows."""


def chunks(
    points: Points, parameters: Parameters, size: int | None = None
) -> Iterator[slice]:
    """Yield slices that cover the points, small enough for the cache and for memory."""
    n, most = len(points), at_once(points, CHUNK_POINTS)
    cached = max(CHUNK_POINTS // 4, CHUNK_PARAMETERS // parameters.size)
    fits = max(1, CHUNK_BYTES // (8 * parameters.size))
    step = size or min(most, cached, fits)
    for start in range(0, n, step):
        yield slice(start, min(start + step, n))


@dataclass(frozen=True, eq=False)
class Rows:
    """Rows of a Jacobian at some points, point by point and for each point seed by seed.

    ``seeds`` has one (n, m) tensor for every row that a point contributes.
    """

    linear: Linearization
    seeds: Sequence[Tensor]

    def __len__(self) -> int:
        return len(self.linear.value) * len(self.seeds)

    def dense(self, out: Tensor | None = None) -> Tensor:
        """Return the rows, (len, P), in ``out``."""
        if len(self.seeds) == 1:
            return self.linear.rows(self.seeds[0], out=out)
        if out is None:
            return torch.stack(
                [self.linear.rows(s) for s in self.seeds], dim=1
            ).flatten(0, 1)
        block = out.view(len(self.linear.value), len(self.seeds), -1)
        for k, seed in enumerate(self.seeds):
            self.linear.rows(seed, out=block[:, k])
        return out

    def factors(self) -> list[Factor] | None:
        """Return what the rows multiply out, or None where not all comes from linear layers."""
        if not isinstance(self.linear, LayerLinearization):
            return None
        each = [self.linear.factors(seed) for seed in self.seeds]
        alike = len({tuple(f.columns.start for f in factors) for factors in each}) == 1
        return (
            [_interleaved(same) for same in zip(*each, strict=True)] if alike else None
        )


def row_blocks(
    function: Pointwise, parameters: Parameters, points: Points, size: int | None = None
) -> Iterator[Tensor]:
    """Yield the Jacobian of ``function`` in blocks of points, each (n, m, P)."""
    for part in chunks(points, parameters, size):
        linear = linearize(function, parameters, points[part])
        rows = Rows(linear, list(_units(linear.value))).dense()
        yield rows.view(len(linear.value), -1, parameters.size)


def _units(value: Tensor) -> Iterator[Tensor]:
    for k in range(value.shape[1]):
        unit = torch.zeros_like(value)
        unit[:, k] = 1.0
        yield unit


class Jacobian:
    """The residual Jacobian of an objective at its current parameters.

    Row order is term by term, point by point, component by component; R rows in all.
    With ``scaled=True`` point i of term k stands for ``√(w_k/N_k)·Sᵢᵀ Jᵢ`` with S the root of
    the loss's curvature, so that ``JᵀJ`` is the Gauss–Newton matrix of the objective.

    Parameters
    ----------
    objective:
        What to differentiate.
    scaled:
        Whether rows carry the square root of weight, 1/N and loss curvature.
    chunk:
        Points differentiated at a time; by default about 1000, fewer for large networks.

    Examples
    --------
    >>> import torch, whence as wh
    >>> from torch.func import functional_call
    >>> network = torch.nn.Linear(2, 1, bias=False, dtype=torch.float64)
    >>> def residual(tensors, z):
    ...     return functional_call(network, tensors, (z,))
    >>> points = torch.tensor([[1.0, 2.0], [3.0, 4.0]], dtype=torch.float64)
    >>> J = wh.Jacobian(wh.Objective(network, [wh.Term("data", residual, points)]))
    >>> J.dense()                              # of a linear network: the points themselves
    tensor([[1., 2.],
            [3., 4.]], dtype=torch.float64)
    >>> J.gram()
    tensor([[ 5., 11.],
            [11., 25.]], dtype=torch.float64)
    """

    def __init__(
        self, objective: Objective, *, scaled: bool = False, chunk: int | None = None
    ) -> None:
        if chunk is not None:
            _checks.count("chunk", chunk)
        self.objective = objective
        self.parameters = objective.parameters
        self.scaled = scaled
        self.chunk = chunk

    def _parts(self) -> Iterator[tuple[Term, slice, Linearization]]:
        for term in self.objective.terms.values():
            for part in chunks(term.points, self.parameters, self.chunk):
                yield (
                    term,
                    part,
                    linearize(term.residual, self.parameters, term.points[part]),
                )

    def _seeds(self, term: Term, part: slice, value: Tensor) -> list[Tensor]:
        """Return one seed (n, m) per row that a point contributes."""
        if not self.scaled:
            return list(_units(value))
        root = _times(term.curvature_root(value, term.points[part]), term.scales(part))
        return list(root.unbind(2))

    def residual(self) -> Tensor:
        """Return the stacked right-hand side ρ (R,) that belongs to the rows.

        Unscaled: the residuals. Scaled: ``√(w/N)·S⁻¹∂ℓ``, so that ``Jᵀρ`` is the gradient of L.
        """
        parts = []
        for term in self.objective.terms.values():
            for points, scale in term.parts(at_once(term.points)):
                value = term.residual(self.parameters.tensors(), points).detach()
                parts.append(
                    self._right_hand_side(term, points, scale, value).reshape(-1)
                )
        return torch.cat(parts)

    def _right_hand_side(
        self, term: Term, points: Points, scale: float | Tensor, value: Tensor
    ) -> Tensor:
        return (
            _times(term.whitened_gradient(value, points), scale)
            if self.scaled
            else value
        )

    def blocks(self) -> Iterator[tuple[Rows, Tensor]]:
        """Yield ``(rows, right-hand side (len(rows),))`` chunk by chunk, in row order.

        Of a loss without whitened gradients the scaled right-hand side is empty.
        """
        for term, part, linear in self._parts():
            right = linear.value.new_empty(0)
            if term.loss.spans or not self.scaled:
                points, scale = term.points[part], term.scales(part)
                right = self._right_hand_side(term, points, scale, linear.value)
            yield Rows(linear, self._seeds(term, part, linear.value)), right.reshape(-1)

    def dense(self) -> Tensor:
        """Return every row, shape (R, P)."""
        return self.system()[0]

    def system(self) -> tuple[Tensor, Tensor]:
        """Return every row (R, P) and the right-hand side (R,), written in place chunk by chunk."""
        theta = self.parameters.vector()
        rows, right, start = theta.new_empty(self.shape), [], 0
        for block, part in self.blocks():
            block.dense(out=rows[start : start + len(block)])
            right.append(part)
            start += len(block)
        return rows, torch.cat(right)

    def matvec(self, vector: Tensor) -> Tensor:
        """Return ``J v`` (R,) without materialising a row."""
        parts = []
        for term, part, linear in self._parts():
            seeds = self._seeds(term, part, linear.value)
            each = [linear.matvec(vector.unsqueeze(1), s).squeeze(1) for s in seeds]
            parts.append(torch.stack(each, dim=1).reshape(-1))
        return torch.cat(parts)

    def rmatvec(self, vector: Tensor) -> Tensor:
        """Return ``Jᵀ u`` (P,) without materialising a row."""
        total = vector.new_zeros(self.parameters.size)
        start = 0
        for term, part, linear in self._parts():
            seeds = self._seeds(term, part, linear.value)
            n = linear.value.shape[0] * len(seeds)
            weights = vector[start : start + n].reshape(-1, len(seeds)).unbind(1)
            seed = sum(
                (s * w.unsqueeze(1) for s, w in zip(seeds, weights, strict=True)),
                start=torch.zeros_like(linear.value),
            )
            total += linear.rmatvec(seed)
            start += n
        return total

    def normal_product(self, vectors: Tensor) -> Tensor:
        """Return ``JᵀJ V`` (P, K) in one pass over the points; many columns go through the rows."""
        total = torch.zeros_like(vectors)
        for term, part, linear in self._parts():
            seeds = self._seeds(term, part, linear.value)
            if vectors.shape[1] > FEW_VECTORS:
                rows = Rows(linear, seeds).dense()
                total.addmm_(rows.T, rows @ vectors)
            else:
                for seed in seeds:
                    total += linear.rmatmat(linear.matvec(vectors, seed), seed)
        return total

    def gram(self) -> Tensor:
        """Return ``J Jᵀ`` (R, R), the (scaled) neural tangent kernel."""
        return self_product(self.dense())

    def row_norms(self) -> Tensor:
        """Return the Euclidean norm of each row, shape (R,)."""
        return torch.cat(list(self._squared_norms().values())).sqrt()

    def traces(self) -> dict[str, float]:
        """Return by term the sum of its rows' squared norms, the trace of its part of ``JJᵀ``."""
        return {name: float(each.sum()) for name, each in self._squared_norms().items()}

    def _squared_norms(self) -> dict[str, Tensor]:
        found: dict[str, list[Tensor]] = {}
        for term, part, linear in self._parts():
            seeds = self._seeds(term, part, linear.value)
            each = torch.stack([linear.squared_norms(seed) for seed in seeds], dim=1)
            found.setdefault(term.name, []).append(each.reshape(-1))
        return {name: torch.cat(parts) for name, parts in found.items()}

    def by_point(self, values: Tensor) -> Tensor:
        """Return the sums of ``values`` (R, K) over the rows of each point, (points, K)."""
        parts, start = [], 0
        for term in self.objective.terms.values():
            n = len(term.points)
            end = start + n * self._components(term)
            parts.append(values[start:end].view(n, -1, values.shape[1]).sum(dim=1))
            start = end
        return torch.cat(parts)

    def counts(self) -> dict[str, int]:
        """Return the number of rows of each term."""
        terms = self.objective.terms.items()
        return {name: len(term.points) * self._components(term) for name, term in terms}

    def _components(self, term: Term) -> int:
        return term.residual(self.parameters.tensors(), term.points[:1]).shape[1]

    @property
    def shape(self) -> tuple[int, int]:
        """(R, P)."""
        return sum(self.counts().values()), self.parameters.size


def _times(values: Tensor, scale: float | Tensor) -> Tensor:
    """Return ``√scale`` times the values of each point; a scale for all, or one for each (n,)."""
    if isinstance(scale, Tensor):
        return values * scale.sqrt().view(-1, *[1] * (values.ndim - 1))
    return values * scale**0.5


def self_product(rows: Tensor) -> Tensor:
    """Return ``rows @ rows.T``, (n, n); only blocks on and below the diagonal are multiplied."""
    n = len(rows)
    product = rows.new_empty(n, n)
    step = max(64, -(-n // SELF_PRODUCT_BLOCKS))
    for i in range(0, n, step):
        end = min(i + step, n)
        product[i:end, :end] = rows[i:end] @ rows[:end].T
        product[:i, i:end] = product[i:end, :i].T
    return product


def _interleaved(factors: Sequence[Factor]) -> Factor:
    """Join the factors of a point's m rows so that row order is point by point."""
    if len(factors) == 1:
        return factors[0]
    left = torch.stack([f.left for f in factors], dim=2).flatten(1, 2)
    rights = [f.right for f in factors if f.right is not None]
    right = torch.stack(rights, dim=2).flatten(1, 2) if rights else None
    return Factor(factors[0].columns, left, right)


def point_gradients(
    term: Term, parameters: Parameters, points: Points, chunk: int | None = None
) -> Iterator[tuple[slice, Linearization, Tensor]]:
    """Yield ``(part, linearization, ∂ℓ)``: with seed ∂ℓ its rows are ∇ℓ(z) at ``points[part]``."""
    for part in chunks(points, parameters, chunk):
        chosen = points[part]
        linear = linearize(term.residual, parameters, chosen)
        yield part, linear, term.gradient(linear.value, chosen)


def gradient_products(
    term: Term,
    parameters: Parameters,
    points: Points,
    vectors: Tensor,
    chunk: int | None = None,
) -> Tensor:
    """Return ``∇ℓ(z_i)ᵀ V`` for every point: vectors (P, K) to (n, K), no row materialised.

    Many vectors at once are cheaper through the rows of a chunk than one by one; both are exact.
    """
    parts = []
    for _, linear, seed in point_gradients(term, parameters, points, chunk):
        if vectors.shape[1] > FEW_VECTORS:
            parts.append(linear.rows(seed) @ vectors)
        else:
            parts.append(linear.matvec(vectors, seed))
    return torch.cat(parts)
