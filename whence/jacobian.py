"""The Jacobian J = ∂r/∂θ of residuals at points with respect to parameters: the core object.

:class:`Jacobian` stacks the rows of an objective: term by term, point by point, component by
component. Rows are made in blocks that stay in the processor's cache, each by
:func:`whence.linearization.linearize`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from whence import _checks
from whence.cotangents import ManyCotangents, times_root
from whence.evaluator import unit_cotangents
from whence.linearization import (
    Factor,
    LayerLinearization,
    Linearization,
    linearize,
)
from whence.objective import Objective
from whence.output_products import MANY_OUTPUTS, are_by_layers, normal_product
from whence.parameters import Parameters
from whence.points import (
    Block,
    Points,
    Pointwise,
    are_samples,
    blocks,
    evaluated_at_once,
    linearized_at_once,
)
from whence.shared_pass import SharedPass, passes_of
from whence.symmetric_products import self_product
from whence.term import Term

T = TypeVar("T")

MAX_VECTORS = 16
"""Up to so many vectors, products with J go without its rows."""
SOME_OUTPUTS = 4
"""Outputs of a point from which products with a few vectors go through them, of large networks."""
LARGE_NETWORK = 100_000
"""Parameters of a large network."""
MIN_THROUGH_OUTPUTS = 64
"""Least points that go through the outputs at once: of fewer calls cost more than products."""
MANY_ROWS_BYTES = 2**30
"""Bytes of the rows of a block of points that have many outputs."""


def linearized_blocks(
    function: Pointwise, parameters: Parameters, points: Points, size: int | None = None
) -> Iterator[tuple[Block, Linearization]]:
    """Yield the points in blocks that suit the cache, each with its linearization.

    Every product with J goes through the points in this way.

    Parameters
    ----------
    function:
        Pointwise function to differentiate.
    parameters:
        θ.
    points:
        Where.
    size:
        Points of a block; by default about 1000, fewer for large networks.
    """
    step = size or linearized_at_once(points, parameters.size)
    for block in blocks(points, step):
        yield block, linearize(function, parameters, block.points)


@dataclass(frozen=True, eq=False)
class Rows:
    """Rows of a Jacobian at some points, point by point and for each point cotangent by cotangent.

    ``cotangents`` has one (n, m) tensor for every row that a point contributes, ``start`` is the
    number of the first row among those of the Jacobian, ``term`` the term that they are of.
    """

    linear: Linearization
    cotangents: Sequence[Tensor]
    start: int = 0
    term: str = ""

    def __len__(self) -> int:
        return len(self.linear.value) * len(self.cotangents)

    def dense(self, out: Tensor | None = None) -> Tensor:
        """Return the rows, (len, P), in ``out``."""
        n = len(self.linear.value)
        m = len(self.cotangents)
        if m == 1:
            return self.linear.rows(self.cotangents[0], out=out)

        if out is None:
            parts = [self.linear.rows(cotangent) for cotangent in self.cotangents]
            table = torch.stack(parts, dim=1)  # (n, m, P)
            return table.flatten(0, 1)  # point by point, and for each point m rows

        # The same order, written in place: row c of every point lies m rows apart.
        table = out.view(n, m, -1)
        for k, cotangent in enumerate(self.cotangents):
            self.linear.rows(cotangent, out=table[:, k])
        return out

    def matmat(self, vectors: Tensor) -> Tensor:
        """Return the products with vectors, (P, K) to (len, K): of a few, without a row."""
        product = self.linear.matvec
        if vectors.shape[1] > MAX_VECTORS:
            is_large = len(vectors) >= LARGE_NETWORK
            if not (is_large and isinstance(self.linear, LayerLinearization)):
                return self.dense() @ vectors
            product = self.linear.matmat

        by_cotangent = [product(vectors, c) for c in self.cotangents]
        table = torch.stack(by_cotangent, dim=1)  # (n, m, K)
        return table.flatten(0, 1)

    def factors(self) -> list[Factor] | None:
        """Return what the rows multiply out, or None where not all comes from linear layers."""
        if not isinstance(self.linear, LayerLinearization):
            return None

        by_cotangent = [self.linear.factors(c) for c in self.cotangents]

        # A layer that a cotangent does not reach has no factor: rows then differ in columns.
        columns = set()
        for factors in by_cotangent:
            columns.add(tuple(factor.columns.start for factor in factors))
        if len(columns) != 1:
            return None

        by_layer = zip(*by_cotangent, strict=True)
        return [interleaved(factors) for factors in by_layer]


def row_blocks(
    function: Pointwise, parameters: Parameters, points: Points, size: int | None = None
) -> Iterator[Tensor]:
    """Yield the Jacobian of ``function`` in blocks of points, each (n, m, P)."""
    for _, linear in linearized_blocks(function, parameters, points, size):
        cotangents = list(unit_cotangents(linear.value))
        rows = Rows(linear, cotangents).dense()  # (n·m, P)
        yield rows.view(len(linear.value), -1, parameters.size)


@dataclass(frozen=True, eq=False)
class _TermBlock:
    """A term's rows at a block of points, among those of the pass that it shares.

    ``linear`` is of the residuals of all terms of the pass side by side, ``columns`` are the term's
    components among them, ``start`` is the number of its first row here, in row order.
    """

    term: Term
    block: Block
    linear: Linearization
    columns: slice
    start: int

    @property
    def value(self) -> Tensor:
        """The term's residuals, (n, m)."""
        return self.linear.value[:, self.columns]

    def widened(self, cotangent: Tensor) -> Tensor:
        """Return a cotangent (n, m) of the term as one of the pass, zero for other terms."""
        if cotangent.shape == self.linear.value.shape:
            return cotangent
        wide = torch.zeros_like(self.linear.value)
        wide[:, self.columns] = cotangent
        return wide


class Jacobian:
    """The residual Jacobian of an objective at its current parameters.

    Row order is term by term, point by point, component by component; R rows in all.
    With ``scaled=True`` point i of term k stands for ``√(w_k m_i/N_k)·Sᵢᵀ Jᵢ`` with S the root of
    the loss's curvature, so that ``JᵀJ`` is the Gauss–Newton matrix of the objective. Of a
    cross-entropy between C classes that are C − 1 rows for each point.

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
        self._widths: dict[str, int] | None = None
        self._is_by_layers: bool | None = None

    def _linearized(self) -> Iterator[list[_TermBlock]]:
        """Yield blocks of points, each with the rows of all terms that share a pass there.

        Row order is term by term, so that blocks of such terms say where their rows stand.
        """
        widths = self.widths()
        components = self.components()
        starts = self.starts()
        for shared in passes_of(self.objective.terms.values()):
            size = self.chunk or self._points_at_once(shared.terms[0])
            parts = linearized_blocks(
                shared.function, self.parameters, shared.points, size
            )
            for block, linear in parts:
                members = []
                first = 0
                for term in shared.terms:
                    name = term.name
                    start = starts[name] + block.part.start * components[name]
                    columns = slice(first, first + widths[name])
                    members.append(_TermBlock(term, block, linear, columns, start))
                    first = columns.stop
                yield members

    def _term_blocks(self) -> Iterator[_TermBlock]:
        """Yield the rows of :meth:`_linearized` term by term in each block."""
        for members in self._linearized():
            yield from members

    def _points_at_once(self, term: Term) -> int | None:
        """Return how many points of many outputs are linearized at once; None of few."""
        # Points with coordinates are those of equations, which have a few components.
        if not are_samples(term.points) or not self.has_many_outputs:
            return None
        m = self.components()[term.name]
        size = linearized_at_once(term.points, self.parameters.size)
        row_bytes = m * self.parameters.size * self.parameters.dtype.itemsize
        return max(1, min(size, MANY_ROWS_BYTES // row_bytes))

    @property
    def has_many_outputs(self) -> bool:
        """Whether points have so many outputs that products go through them, not by rows."""
        if not self.objective.has_samples:
            return False
        return max(self.widths().values()) > MANY_OUTPUTS

    def _cotangents(self, part: _TermBlock) -> Sequence[Tensor]:
        """Return one cotangent (n, m) per row that a point contributes, as wide as its pass."""
        columns = self.cotangents(part.term, part.block, part.value)
        if isinstance(columns, ManyCotangents):
            return columns
        return [part.widened(column) for column in columns]

    def cotangents(self, term: Term, block: Block, value: Tensor) -> Sequence[Tensor]:
        """Return one cotangent (n, m) per row of a term's point, from residuals (n, m) there."""
        if value.shape[1] > MANY_OUTPUTS:
            return ManyCotangents(term, block, value, self.scaled)
        if not self.scaled:
            return list(unit_cotangents(value))

        # Columns of √(w m/N)·S, as row c of a point is √(w m/N)·S[:, c]ᵀ ∂r/∂θ.
        root = term.curvature_root(value, block.points)  # S, (n, m, m)
        scaled = times_root(root, term.scales(block.part))
        return list(scaled.unbind(2))[: self._rank(term, value.shape[1])]

    def _rank(self, term: Term, width: int) -> int:
        """Return how many rows a point of a term with so many outputs has."""
        # A column of S that is zero would be a row that is.
        is_reduced = self.scaled and width <= MANY_OUTPUTS
        return term.rank(width) if is_reduced else width

    def residual(self) -> Tensor:
        """Return the stacked right-hand side ρ (R,) that belongs to the rows.

        Unscaled: the residuals. Scaled: ``√(w/N)·S⁻¹∂ℓ``, so that ``Jᵀρ`` is the gradient of L.
        """
        tensors = self.parameters.tensors()
        terms = self.objective.terms
        parts: dict[str, list[Tensor]] = {name: [] for name in terms}

        for shared in passes_of(terms.values()):
            for block in blocks(shared.points):
                values = shared.residuals(tensors, block.points)
                for term, value in zip(shared.terms, values, strict=True):
                    right = self._right_hand_side(term, block, value.detach())
                    parts[term.name].append(right)

        return torch.cat([right for rights in parts.values() for right in rights])

    def _right_hand_side(self, term: Term, block: Block, value: Tensor) -> Tensor:
        """Return a block's part of ρ, flat."""
        if not self.scaled:
            return value.reshape(-1)
        # With S ρ′ = ∂ℓ the row √(w/N)·Sᵀ∂r/∂θ times √(w/N)·ρ′ is (w/N)·∂ℓᵀ∂r/∂θ.
        whitened = term.whitened_gradient(value, block.points)  # ρ′, (n, m)
        n_rows = self._rank(term, value.shape[1])
        return times_root(whitened[:, :n_rows], term.scales(block.part)).flatten()

    def blocks(self) -> Iterator[tuple[Rows, Tensor]]:
        """Yield ``(rows, right-hand side (len(rows),))`` block by block.

        Terms at the same points take turns: ``rows.start`` says where the rows stand in row order.
        Of a loss without whitened gradients the scaled right-hand side is empty.
        """
        for part in self._term_blocks():
            right = part.value.new_empty(0)
            if part.term.loss.spans or not self.scaled:
                right = self._right_hand_side(part.term, part.block, part.value)
            cotangents = self._cotangents(part)
            rows = Rows(part.linear, cotangents, part.start, part.term.name)
            yield rows, right

    def dense(self) -> Tensor:
        """Return every row, shape (R, P)."""
        rows, _ = self.system()
        return rows

    def system(self) -> tuple[Tensor, Tensor]:
        """Return every row (R, P) and the right-hand side (R,), written in place block by block."""
        # One allocation of R·P numbers: to join blocks would need room for them twice.
        rows = self.parameters.vector().new_empty(self.shape)
        right: dict[int, Tensor] = {}

        for block, part in self.blocks():
            block.dense(out=rows[block.start : block.start + len(block)])
            right[block.start] = part

        return rows, torch.cat(in_row_order(right))

    def matvec(self, vector: Tensor) -> Tensor:
        """Return ``J v`` (R,) without materialising a row."""
        parts: dict[int, Tensor] = {}
        for part in self._term_blocks():
            rows = Rows(part.linear, self._cotangents(part))
            product = rows.matmat(vector.unsqueeze(1))  # (len, 1)
            parts[part.start] = product.squeeze(1)

        return torch.cat(in_row_order(parts))

    def second_derivative(self, vector: Tensor, length: float = 0.1) -> Tensor:
        """Return ``d²/dε² r(θ + εv)`` (R,), scaled as the rows are, by central differences.

        Its error is of second order in ``length``, the ε of the difference.
        """
        theta = self.parameters.vector()
        ahead = self.parameters.substituted(theta + length * vector)
        behind = self.parameters.substituted(theta - length * vector)
        parts: dict[int, Tensor] = {}

        for members in self._linearized():
            linear = members[0].linear
            points = members[0].block.points
            shared = SharedPass(tuple(part.term for part in members))
            # r″ = (r(θ + εv) − 2r(θ) + r(θ − εv)) / ε², of each component of each term.
            after = torch.cat(shared.residuals(ahead, points), dim=1).detach()
            before = torch.cat(shared.residuals(behind, points), dim=1).detach()
            second = (after - 2 * linear.value + before) / length**2

            for part in members:
                columns = []
                for cotangent in self._cotangents(part):
                    weighted = second * cotangent
                    columns.append(weighted.sum(dim=1))
                table = torch.stack(columns, dim=1)  # (n, m), in row order when flat
                parts[part.start] = table.reshape(-1)

        return torch.cat(in_row_order(parts))

    def rmatvec(self, vector: Tensor) -> Tensor:
        """Return ``Jᵀ u`` (P,) without materialising a row."""
        total = vector.new_zeros(self.parameters.size)

        for members in self._linearized():
            linear = members[0].linear
            # Jᵀu is linear in the cotangents: their sum, each times its part of u, in one pass.
            combined = torch.zeros_like(linear.value)
            for part in members:
                cotangents = self._cotangents(part)
                n_rows = len(part.block) * len(cotangents)
                of_term = vector[part.start : part.start + n_rows]
                weights = of_term.reshape(-1, len(cotangents))  # (n, m)
                for cotangent, weight in zip(
                    cotangents, weights.unbind(1), strict=True
                ):
                    combined += cotangent * weight.unsqueeze(1)
            total += linear.rmatvec(combined)

        return total

    def normal_product(self, vectors: Tensor) -> Tensor:
        """Return ``JᵀJ V`` (P, K) in one pass over the points; many columns go through the rows."""
        total = torch.zeros_like(vectors)
        if self.has_many_outputs or self._is_less_through_outputs(vectors):
            for term in self.objective.terms.values():
                size = None
                if not self.has_many_outputs:
                    size = self.chunk or self._through_outputs_at_once(term)
                total += normal_product(
                    term, self.parameters, vectors, scaled=self.scaled, size=size
                )
            return total

        for part in self._term_blocks():
            cotangents = self._cotangents(part)
            linear = part.linear
            if vectors.shape[1] > MAX_VECTORS:
                # V → JV → Jᵀ(JV) by the rows of the block.
                rows = Rows(linear, cotangents).dense()
                total.addmm_(rows.T, rows @ vectors)
                continue

            # JᵀJ = Σ_c J_cᵀJ_c over the cotangents c: V → J_cV → J_cᵀ(J_cV).
            for cotangent in cotangents:
                image = linear.matvec(vectors, cotangent)  # (n, K)
                total += linear.rmatmat(image, cotangent)

        return total

    def _through_outputs_at_once(self, term: Term) -> int:
        """Return how many points go through the outputs at once, forward and backward."""
        size = max(
            MIN_THROUGH_OUTPUTS, linearized_at_once(term.points, self.parameters.size)
        )
        return min(size, evaluated_at_once(term.points))

    def _is_less_through_outputs(self, vectors: Tensor) -> bool:
        """Whether products with a few vectors take fewer passes through outputs than by rows."""
        # Forward and backward for each vector: by rows it is a pass backward for each output.
        is_large = self.parameters.size >= LARGE_NETWORK and self.objective.has_samples
        if vectors.shape[1] > MAX_VECTORS or not is_large:
            return False
        if min(self.widths().values()) < SOME_OUTPUTS:
            return False
        if self._is_by_layers is None:
            # What is not made of layers may have no derivatives forward.
            terms = self.objective.terms.values()
            self._is_by_layers = are_by_layers(terms, self.parameters)
        return self._is_by_layers

    def gram(self) -> Tensor:
        """Return ``J Jᵀ`` (R, R), the (scaled) neural tangent kernel."""
        return self_product(self.dense())

    def row_norms(self) -> Tensor:
        """Return the Euclidean norm of each row, shape (R,)."""
        return torch.cat(list(self._squared_norms().values())).sqrt()

    def traces(self) -> dict[str, float]:
        """Return by term the sum of its rows' squared norms, the trace of its part of ``JJᵀ``."""
        squares = self._squared_norms()
        return {name: float(values.sum()) for name, values in squares.items()}

    def _squared_norms(self) -> dict[str, Tensor]:
        """Return by term the squared norm of each of its rows."""
        parts: dict[str, list[Tensor]] = {name: [] for name in self.objective.terms}
        for part in self._term_blocks():
            columns = [part.linear.squared_norms(c) for c in self._cotangents(part)]
            table = torch.stack(columns, dim=1)  # (n, m)
            parts[part.term.name].append(table.reshape(-1))

        return {name: torch.cat(values) for name, values in parts.items()}

    def by_point(self, values: Tensor) -> Tensor:
        """Return the sums of ``values`` (R, K) over the rows of each point, (points, K)."""
        parts = []
        start = 0

        for name, n_rows in self.counts().items():
            n_points = len(self.objective.terms[name].points)
            rows = values[start : start + n_rows]
            table = rows.view(n_points, -1, values.shape[1])  # (n, m, K)
            parts.append(table.sum(dim=1))
            start += n_rows

        return torch.cat(parts)

    def starts(self) -> dict[str, int]:
        """Return the number of the first row of each term."""
        starts = {}
        start = 0
        for name, count in self.counts().items():
            starts[name] = start
            start += count
        return starts

    def counts(self) -> dict[str, int]:
        """Return the number of rows of each term."""
        counts = {}
        for name, m in self.components().items():
            counts[name] = len(self.objective.terms[name].points) * m
        return counts

    def components(self) -> dict[str, int]:
        """Return how many rows a point of each term has.

        They are the components of its residual, but for scaled rows of a loss whose curvature is of
        lower rank: those of a cross-entropy between C classes are C − 1.
        """
        terms = self.objective.terms
        return {name: self._rank(terms[name], m) for name, m in self.widths().items()}

    def widths(self) -> dict[str, int]:
        """Return the number m of residual components of each term."""
        if self._widths is None:
            tensors = self.parameters.tensors()
            widths = dict.fromkeys(self.objective.terms, 0)
            for shared in passes_of(self.objective.terms.values()):
                values = shared.residuals(tensors, shared.points[:1])  # (1, m) each
                for term, value in zip(shared.terms, values, strict=True):
                    widths[term.name] = value.shape[1]
            self._widths = widths
        return dict(self._widths)

    @property
    def shape(self) -> tuple[int, int]:
        """(R, P)."""
        n_rows = sum(self.counts().values())
        return n_rows, self.parameters.size


def in_row_order(parts: Mapping[int, T]) -> list[T]:
    """Return parts in row order, by the numbers of their first rows."""
    return [parts[start] for start in sorted(parts)]


def interleaved(factors: Sequence[Factor]) -> Factor:
    """Join the factors of a point's m rows so that row order is point by point."""
    if len(factors) == 1:
        return factors[0]

    # m times (c, n, out) to (c, n, m, out) to (c, n·m, out).
    left = torch.stack([factor.left for factor in factors], dim=2).flatten(1, 2)
    rights = [factor.right for factor in factors if factor.right is not None]
    if not rights:  # a bias has none
        return Factor(factors[0].columns, left, None)

    right = torch.stack(rights, dim=2).flatten(1, 2)
    return Factor(factors[0].columns, left, right)


def point_gradients(
    term: Term, parameters: Parameters, points: Points, size: int | None = None
) -> Iterator[tuple[Block, Linearization, Tensor]]:
    """Yield ``(block, linearization, ∂ℓ)``: with the cotangent ∂ℓ its rows are ∇ℓ(z)."""
    for block, linear in linearized_blocks(term.residual, parameters, points, size):
        yield block, linear, term.gradient(linear.value, block.points)


def gradient_products(
    term: Term,
    parameters: Parameters,
    points: Points,
    vectors: Tensor,
    size: int | None = None,
) -> Tensor:
    """Return ``∇ℓ(z_i)ᵀ V`` for every point: vectors (P, K) to (n, K), no row materialised.

    Many vectors at once are cheaper through the rows of a block than one by one, of large networks
    through those of one layer at a time; all are exact.
    """
    is_large = size is None and parameters.size >= LARGE_NETWORK
    if is_large and are_by_layers([term], parameters):
        # Rows of a layer are made for some points at a time: nothing else limits them.
        size = linearized_at_once(points, 1)

    parts = []
    for _, linear, cotangent in point_gradients(term, parameters, points, size):
        # A row is ∇ℓ of a point.
        gradients = Rows(linear, [cotangent])
        parts.append(gradients.matmat(vectors))

    return torch.cat(parts)
