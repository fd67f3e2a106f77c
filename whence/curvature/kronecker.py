"""Kronecker-factored curvature, layer by layer, with its eigenvalues corrected."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NoReturn, Protocol

import numpy as np
import torch
from torch import Tensor

from whence import _checks
from whence.autodiff import ReverseLinearization
from whence.curvature.operators import Curvature
from whence.curvature.solvers import (
    MEMORY_BUDGET,
    Damping,
    Solution,
    State,
    describe,
    largest_eigenvalue,
    relative_residual,
    singular,
)
from whence.jacobian import Jacobian
from whence.linearization import (
    LayerLinearization,
    Linearization,
    Use,
    linearize,
)
from whence.objective import Term
from whence.parameters import Parameters

MOMENT_NUMBERS = 4_000_000
"""Moments of all pairs of channels that may be kept for one layer and term."""
BLOCK_NUMBERS = 2**20
"""Numbers that one layer's rows take at a time: they stay in the cache."""


@dataclass(frozen=True)
class EKFAC:
    """The eigenvalue-corrected Kronecker factorisation of each layer's curvature.

    A row of J is ``Σ_c δ_c ⊗ a_c`` at a layer, c running over the derivatives that the residual
    takes of the network, over positions and over several uses of the layer. K-FAC (Martens &
    Grosse 2015, arXiv 1503.05671) takes δ and a as independent over the points; here channels are
    summed exactly, ``Σ_cc′ E[δ_c δ_c′ᵀ] ⊗ E[a_c a_c′ᵀ]``, each term of the objective having its own
    factors (Dangel et al. 2024, arXiv 2405.15603), weight and bias together. Of that only the
    eigenvectors are used: the eigenvalues are the true curvature along them (George et al. 2018,
    arXiv 1806.03884). Layers are taken as independent of each other; of one point a layer of up to
    ``block_limit`` parameters is exact.

    A layer whose rows are no such sums (normalisation, scale and shift together; an embedding; a
    convolution in groups) has its own block of the curvature, exact for any number of points, and
    above ``block_limit`` parameters the diagonal of it.

    Parameters
    ----------
    block_limit:
        A layer with as many parameters or fewer gets the eigenvectors of the sum over channels and
        terms; a larger one those of a Kronecker product, of the partial traces of its curvature
        (or its diagonal, see above). The two are one for a term without derivatives, which is
        ordinary K-FAC.
    memory_budget:
        Bytes that rows kept in memory between products may take; above it they are made anew.

    Raises
    ------
    ValueError
        If the operator is a Hessian, a selected parameter is not that of a linear, convolution,
        normalisation or embedding layer, or the system is singular.

    Examples
    --------
    >>> import torch, whence as wh
    >>> from whence.curvature.kronecker import EKFAC
    >>> network = torch.nn.Linear(1, 1, bias=False, dtype=torch.float64)
    >>> def residual(tensors, z):
    ...     return torch.func.functional_call(network, tensors, (z,))
    >>> points = torch.tensor([[1.0], [3.0]], dtype=torch.float64)
    >>> operator = wh.GaussNewton(wh.Objective(network, [wh.Term("data", residual, points)]))
    >>> state = EKFAC().factor(operator, wh.Damping(0.0))
    >>> round(float(state.solve(torch.tensor([[5.0]], dtype=torch.float64)).value), 9)
    0.5
    """

    block_limit: int = 2000
    memory_budget: int = MEMORY_BUDGET
    name = "ekfac"

    def __post_init__(self) -> None:
        _checks.count("block_limit", self.block_limit)
        _checks.positive("memory_budget", self.memory_budget)

    def factor(self, operator: Curvature, damping: Damping) -> State:
        """Find each layer's eigenvectors, and the curvature along them."""
        root = operator.root()
        if root is None:
            raise ValueError(
                "EKFAC needs a Gauss–Newton operator, not a Hessian: use curvature='gauss_newton', "
                "wh.ConjugateGradient() or wh.Arnoldi()"
            )
        layers = _layers(root)
        blocks = _corrected(root, _bases(root, layers, self.block_limit))
        held = operator.held(self.memory_budget)
        largest = largest_eigenvalue(held.matvec, held.size, held.like())
        return _Factored(held, blocks, damping.resolve(largest), largest)


class _Factored:
    """Each layer's eigenvectors and corrected eigenvalues, and λ."""

    def __init__(
        self,
        operator: Curvature,
        blocks: Sequence[_Block],
        damping: float,
        largest: float,
    ) -> None:
        self._operator = operator
        self._blocks = blocks
        self.damping = damping
        covered = sum(block.eigenvalues.numel() for block in blocks)
        smallest = (
            [0.0] if covered < operator.size else []
        )  # a layer that no residual depends on
        smallest += [float(block.eigenvalues.min()) for block in blocks]
        dtype = operator.like().dtype
        if min(smallest) + damping <= largest * torch.finfo(dtype).eps:
            raise ValueError(singular(damping, operator.size, dtype))
        self.description = describe(
            damping,
            largest,
            blocks=len(blocks),
            full_blocks=sum(isinstance(block.basis, _Full) for block in blocks),
            trace_share=1.0,  # orthogonal bases and true curvatures along them lose nothing
        )

    def precondition(self, right: Tensor) -> Tensor:
        """Return the approximate inverse of ``A + λI`` times the columns of ``right``, (P, K)."""
        value = right / self.damping if self.damping else torch.zeros_like(right)
        for block in self._blocks:
            block.solve(right, self.damping, out=value)
        return value

    def solve(self, right: Tensor) -> Solution:
        """Solve approximately for the columns of ``right``, (P, K); the residual is the true one.

        ``converged`` says that the factorisation could be applied, not that it is exact.
        """
        value = self.precondition(right)
        residual = relative_residual(
            lambda x: self._operator.matmat(x) + self.damping * x, right, value
        )
        return Solution(value, residual, bool(np.isfinite(residual)), 0)


# --- layers ------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Layer:
    """A weight with the biases that are added to its outputs alone, or a bias by itself.

    Its parameters form one matrix (out, in), in which each bias is a column. Where rows are no
    sums of outer products (``outer`` is false), out is 1: there is one channel, the row itself.
    """

    weight: str | None
    biases: tuple[str, ...]
    columns: tuple[slice, ...]
    outputs: int
    inputs: int
    outer: bool

    @property
    def size(self) -> int:
        return self.outputs * self.inputs

    def uses(self, uses: Iterable[Use]) -> list[Use]:
        """Return the uses of this layer among all."""
        if self.weight:
            return [use for use in uses if use.weight == self.weight]
        return [use for use in uses if use.bias in self.biases]

    def channels(self, uses: Sequence[Use], points: slice) -> tuple[Tensor, Tensor]:
        """Return left (n, c, out) and right (n, c, in) at some points, all uses joined."""
        if not self.outer:
            row = self._rows(uses, points).unsqueeze(1)
            return torch.ones_like(row[..., :1]), row
        lefts, rights = [], []
        for use in uses:
            left, right, reached = use.at(points)
            parts = [right] if self.weight else []
            for bias in self.biases:
                column = reached if use.bias == bias else torch.zeros_like(reached)
                parts.append(column.expand(*left.shape[:2], 1))
            lefts.append(left)
            rights.append(torch.cat(parts, dim=2))
        return torch.cat(lefts, dim=1), torch.cat(rights, dim=1)

    def _rows(self, uses: Sequence[Use], points: slice) -> Tensor:
        """Return the rows at some points, (n, size), all uses added up."""
        names = (self.weight, *self.biases) if self.weight else self.biases
        ends = [0, *itertools.accumulate(c.stop - c.start for c in self.columns)]
        parts = [
            (use.weight, use.weight_rows(points)) for use in uses if use.weight in names
        ]
        parts += [
            (use.bias, use.bias_rows(points)) for use in uses if use.bias in names
        ]
        rows = parts[0][1].new_zeros(len(parts[0][1]), self.size)
        for name, part in parts:
            k = names.index(name)
            rows[:, ends[k] : ends[k + 1]] += part
        return rows

    def matrices(self, vectors: Tensor) -> Tensor:
        """Return this layer's part of ``vectors`` (P, K) as matrices (K, out, in)."""
        parts = [
            vectors[c].T.reshape(-1, self.outputs, self._width(c)) for c in self.columns
        ]
        return torch.cat(parts, dim=2)

    def put(self, matrices: Tensor, out: Tensor) -> None:
        """Write matrices (K, out, in) into this layer's part of ``out`` (P, K)."""
        start = 0
        for columns in self.columns:
            end = start + self._width(columns)
            out[columns] = matrices[:, :, start:end].flatten(1).T
            start = end

    def _width(self, columns: slice) -> int:
        return (columns.stop - columns.start) // self.outputs


def _layers(root: Jacobian) -> list[_Layer]:
    """Return the layers, seen at one point of each term."""
    parameters, partners = root.parameters, dict[str, set[str | None]]()
    weights, single = dict[str, None](), set[str | None]()
    for term in root.objective.terms.values():
        linear = linearize(term.residual, parameters, term.points[:1])
        for weight, bias, outer in _by_layers(root, term, linear).layers:
            if weight:
                weights[weight] = None
            if bias:
                partners.setdefault(bias, set()).add(weight)
            if not outer:
                single |= {weight, bias}
    alone = [
        bias for bias, found in partners.items() if found == {None} or len(found) > 1
    ]
    own = {
        w: tuple(b for b, found in partners.items() if found == {w}) for w in weights
    }
    return [
        *(_layer(parameters, weight, biases, single) for weight, biases in own.items()),
        *(_layer(parameters, None, (bias,), single) for bias in alone),
    ]


def _layer(
    parameters: Parameters,
    weight: str | None,
    biases: tuple[str, ...],
    single: set[str | None],
) -> _Layer:
    names = (weight, *biases) if weight else biases
    outer = single.isdisjoint(names)
    outputs = parameters.shape(names[0])[0] if outer else 1
    columns = tuple(parameters.slices[name] for name in names)
    inputs = sum(c.stop - c.start for c in columns) // outputs
    return _Layer(weight, biases, columns, outputs, inputs, outer)


def _by_layers(root: Jacobian, term: Term, linear: Linearization) -> LayerLinearization:
    if not isinstance(linear, LayerLinearization):
        _refuse(root, term, linear)
    return linear


def _refuse(root: Jacobian, term: Term, linear: Linearization) -> NoReturn:
    instead = "use wh.ConjugateGradient() or wh.Sketched()"
    where = (
        "EKFAC needs linear, convolution, normalisation and embedding layers, but the residual of "
        f"term {term.name!r}"
    )
    outside: Sequence[str] = getattr(linear, "outside", ())
    if not outside and isinstance(linear, ReverseLinearization):
        raise ValueError(
            f"{where} differentiates them by torch.autograd.grad: {instead}"
        )
    if not outside:
        raise ValueError(f"{where} does not call them once for each point: {instead}")
    network = root.objective.network
    named = [
        f"{name} of {type(network.get_submodule(name.rpartition('.')[0])).__name__}"
        for name in outside
    ]
    raise ValueError(
        f"{where} uses elsewhere {', '.join(named)}: select other parameters, or {instead}"
    )


def _pieces(
    root: Jacobian, layers: Sequence[_Layer]
) -> Iterator[tuple[_Layer, str, Tensor, Tensor]]:
    """Yield ``(layer, term, left (n, c, out), right (n, c, in))`` for all rows, a few at a time."""
    blocks = root.blocks()
    for term in root.objective.terms.values():
        missing = len(term.points)
        while missing:
            rows, _ = next(blocks)
            n = len(rows.linear.value)
            missing -= n
            linear = _by_layers(root, term, rows.linear)
            for seed in rows.seeds:
                uses = linear.uses(seed)
                for layer in layers:
                    for left, right in _cut(layer, layer.uses(uses), n):
                        yield layer, term.name, left, right


def _cut(layer: _Layer, uses: Sequence[Use], n: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the channels of n rows, as many rows at a time as fit in the cache."""
    if not uses:
        return
    channels = sum(use.channels for use in uses) if layer.outer else 1
    step = max(
        1, BLOCK_NUMBERS // max(layer.size, channels * (layer.outputs + layer.inputs))
    )
    for start in range(0, n, step):
        yield layer.channels(uses, slice(start, start + step))


# --- eigenvectors ------------------------------------------------------------------------------


class _Basis(Protocol):
    """An orthogonal basis of the matrices (out, in) of a layer."""

    def into(self, matrices: Tensor) -> Tensor:
        """Return the coordinates (K, out, in) of matrices (K, out, in)."""

    def back(self, coordinates: Tensor) -> Tensor:
        """Return the matrices with these coordinates."""

    def curvature(self, left: Tensor, right: Tensor) -> Tensor:
        """Return the sum over rows of squared coordinates, (out, in)."""


@dataclass(frozen=True)
class _Product:
    """The basis ``left ⊗ right``."""

    left: Tensor
    right: Tensor

    def into(self, matrices: Tensor) -> Tensor:
        return self.left.T @ matrices @ self.right

    def back(self, coordinates: Tensor) -> Tensor:
        return self.left @ coordinates @ self.right.T

    def curvature(self, left: Tensor, right: Tensor) -> Tensor:
        left, right = left @ self.left, right @ self.right
        if left.shape[1] == 1:
            return left[:, 0].square().T @ right[:, 0].square()
        return (left.mT @ right).square_().sum(dim=0)


@dataclass(frozen=True)
class _Full:
    """Any basis: ``vectors`` (out·in, out·in) has one in each column."""

    vectors: Tensor

    def into(self, matrices: Tensor) -> Tensor:
        return (matrices.flatten(1) @ self.vectors).view(matrices.shape)

    def back(self, coordinates: Tensor) -> Tensor:
        return (coordinates.flatten(1) @ self.vectors.T).view(coordinates.shape)

    def curvature(self, left: Tensor, right: Tensor) -> Tensor:
        return self.into(left.mT @ right).square_().sum(dim=0)


class _Diagonal:
    """The basis of the parameters themselves."""

    def into(self, matrices: Tensor) -> Tensor:
        return matrices.clone()

    def back(self, coordinates: Tensor) -> Tensor:
        return coordinates

    def curvature(self, left: Tensor, right: Tensor) -> Tensor:
        return (left.mT @ right).square_().sum(dim=0)


class _Statistics(Protocol):
    """What is summed over the rows of one layer and term before its eigenvectors are found."""

    def add(self, left: Tensor, right: Tensor) -> None:
        """Add the rows ``Σ_c left[:, c] ⊗ right[:, c]``."""

    def traces(self) -> tuple[Tensor, Tensor]:
        """Return the partial traces of the layer's curvature, (out, out) and (in, in)."""


class _Moments:
    """``Σ_rows δ_c δ_c′ᵀ`` and ``Σ_rows a_c a_c′ᵀ`` for all pairs of channels: the K-FAC model."""

    def __init__(self, layer: _Layer, channels: int, like: Tensor) -> None:
        self.channels = channels
        self._rows = 0
        outputs, inputs = layer.outputs, layer.inputs
        self._left = like.new_zeros(channels, outputs, channels, outputs)
        self._right = like.new_zeros(channels, inputs, channels, inputs)

    def add(self, left: Tensor, right: Tensor) -> None:
        self._rows += len(left)
        for moment, part in (
            (self._left, left.flatten(1)),
            (self._right, right.flatten(1)),
        ):
            moment.view(part.shape[1], -1).addmm_(part.T, part)

    def traces(self) -> tuple[Tensor, Tensor]:
        weights = [
            torch.einsum("cxdx->cd", moment) for moment in (self._right, self._left)
        ]
        left, right = (
            torch.einsum("cxdy,cd->xy", moment, weight / self._rows)
            for moment, weight in zip((self._left, self._right), weights, strict=True)
        )
        return left, right

    def matrix(self) -> Tensor:
        """Return ``1/R Σ_cc′ left_cc′ ⊗ right_cc′``, (out·in, out·in)."""
        pairs, outputs, inputs = (
            self.channels**2,
            self._left.shape[1],
            self._right.shape[1],
        )
        left = self._left.permute(1, 3, 0, 2).reshape(-1, pairs)
        right = self._right.permute(0, 2, 1, 3).reshape(pairs, -1)
        product = (left @ right).view(outputs, outputs, inputs, inputs)
        return product.transpose(1, 2).reshape(outputs * inputs, -1).div_(self._rows)


class _Traces:
    """The partial traces themselves, where there are too many pairs of channels for the model.

    With a row's matrix ``M = Σ_c δ_c a_cᵀ`` they are ``Σ_rows M Mᵀ`` and ``Σ_rows Mᵀ M``, as in
    Shampoo (Gupta et al. 2018, arXiv 1802.09568).
    """

    def __init__(self, layer: _Layer, like: Tensor) -> None:
        self._left = like.new_zeros(layer.outputs, layer.outputs)
        self._right = like.new_zeros(layer.inputs, layer.inputs)

    def add(self, left: Tensor, right: Tensor) -> None:
        channels, outputs, inputs = left.shape[1], left.shape[2], right.shape[2]
        if channels**2 < outputs * inputs:
            self._add(self._left, left, (right @ right.mT) @ left)
            self._add(self._right, right, (left @ left.mT) @ right)
        else:
            matrices = left.mT @ right
            self._add(self._left, matrices.mT, matrices.mT)
            self._add(self._right, matrices, matrices)

    def _add(self, total: Tensor, one: Tensor, other: Tensor) -> None:
        total.addmm_(one.flatten(0, 1).T, other.flatten(0, 1))

    def traces(self) -> tuple[Tensor, Tensor]:
        return self._left, self._right


def _bases(
    root: Jacobian, layers: Sequence[_Layer], block_limit: int
) -> list[tuple[_Layer, _Basis]]:
    """Return the eigenvectors of each layer's model, of layers that a residual depends on."""
    diagonal = [
        layer for layer in layers if not layer.outer and layer.size > block_limit
    ]
    modelled = [layer for layer in layers if layer not in diagonal]
    found: dict[_Layer, dict[tuple[str, int], _Statistics]] = {
        layer: {} for layer in modelled
    }
    for layer, term, left, right in _pieces(root, modelled):
        key = term, left.shape[1]
        if key not in found[layer]:
            found[layer][key] = _statistics(layer, left, block_limit)
        found[layer][key].add(left, right)
    bases: list[tuple[_Layer, _Basis]] = [
        (layer, _basis(layer, list(parts.values()), block_limit))
        for layer, parts in found.items()
        if parts
    ]
    return bases + [(layer, _Diagonal()) for layer in diagonal]


def _statistics(layer: _Layer, left: Tensor, block_limit: int) -> _Statistics:
    channels = left.shape[1]
    numbers = channels**2 * (layer.outputs**2 + layer.inputs**2)
    if channels == 1 or (layer.size <= block_limit and numbers <= MOMENT_NUMBERS):
        return _Moments(layer, channels, left)
    return _Traces(layer, left)


def _basis(layer: _Layer, parts: Sequence[_Statistics], block_limit: int) -> _Basis:
    models = [part for part in parts if isinstance(part, _Moments)]
    one_product = layer.outer and len(parts) == 1 and models and models[0].channels == 1
    if layer.size <= block_limit and len(models) == len(parts) and not one_product:
        return _Full(_eigenvectors(model.matrix() for model in models))
    lefts, rights = zip(*(part.traces() for part in parts), strict=True)
    return _Product(_eigenvectors(lefts), _eigenvectors(rights))


def _eigenvectors(matrices: Iterable[Tensor]) -> Tensor:
    """Return the eigenvectors of the sum of matrices."""
    total = functools.reduce(torch.add, matrices)
    if not bool(torch.isfinite(total).all()):
        raise ValueError(
            "the curvature is not finite: parameters, points or residuals are not"
        )
    vectors: Tensor = torch.linalg.eigh(total).eigenvectors
    return vectors


# --- eigenvalues -------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Block:
    """A layer's basis and the curvature along each of its directions, (out, in)."""

    layer: _Layer
    basis: _Basis
    eigenvalues: Tensor = field(repr=False)

    def solve(self, right: Tensor, damping: float, out: Tensor) -> None:
        """Write this layer's part of the inverse times ``right`` (P, K) into ``out``."""
        coordinates = self.basis.into(self.layer.matrices(right))
        coordinates /= self.eigenvalues + damping
        self.layer.put(self.basis.back(coordinates), out)


def _corrected(root: Jacobian, bases: Sequence[tuple[_Layer, _Basis]]) -> list[_Block]:
    """Return the bases with ``Σ_rows (qᵀ row)²`` for each of their directions q."""
    blocks = {}
    for layer, basis in bases:
        eigenvalues = torch.zeros(
            layer.outputs,
            layer.inputs,
            dtype=root.parameters.dtype,
            device=root.parameters.device,
        )
        blocks[layer] = _Block(layer, basis, eigenvalues)
    for layer, _, left, right in _pieces(root, list(blocks)):
        block = blocks[layer]
        block.eigenvalues.add_(block.basis.curvature(left, right))
    return list(blocks.values())
