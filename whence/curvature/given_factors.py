"""A solver by factors that are there already: eigenpairs, Kronecker factors, or an inverse."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from whence import _checks
from whence.catalogue import SOLVERS
from whence.curvature.failures import check_finite, undamped
from whence.curvature.lanczos import Eigenpairs, largest_eigenvalue
from whence.curvature.lowrank import LowRankState
from whence.curvature.operators import Curvature, Damped
from whence.curvature.solvers import Damping, Solution, State, direct_solution
from whence.curvature.spectrum import Spectrum
from whence.parameters import Parameters

Inverse = Callable[[Tensor], Tensor]
"""``V ↦ (A + λI)⁻¹V``, (P, K) to (P, K)."""
KroneckerFactors = Mapping[str, tuple[Tensor, Tensor]]
"""Factors of the inputs and of the outputs of each layer, by the name of its module."""
LARGEST = 1e-8
"""How exact the largest eigenvalue is, to which damping is relative."""
ORTHONORMAL = 1e-3
"""How far products of eigenvectors may be from those of an orthonormal basis."""


@SOLVERS.named()
@dataclass(frozen=True, eq=False)
class GivenFactors:
    """The inverse by factors that were computed elsewhere: no factoring, the same answers.

    One of three. Eigenpairs ``U, Λ`` give ``U(Λ + λ)⁻¹Uᵀ + (I − UUᵀ)/λ``, as :class:`Arnoldi` does.
    Kronecker factors ``F`` of the inputs and ``G`` of the outputs of each layer give the inverse of
    ``G ⊗ F + λI``, layer by layer: of a matrix M (out, in) that of ``GMF + λM``. An inverse is
    called with vectors. Residuals are those of the true system, so that factors of another network,
    or of another scale, show.

    Parameters
    ----------
    eigenpairs:
        Eigenvectors of A (P, r), orthonormal, and eigenvalues (r,).
    kronecker:
        For the module of each layer F (in, in) and G (out, out), whose Kronecker product is of the
        scale of A, the mean over the training points: the axes are those of the weight, the first
        for G and all others for F; of a layer with a bias F is (in + 1, in + 1), the bias last.
    inverse:
        ``V ↦ (A + λI)⁻¹V`` for columns (P, K), in the order of ``objective.parameters``. λ is its
        own: the damping that stands beside it is what residuals are taken with.
    complement:
        Of eigenpairs, whether directions outside are damped, or dropped.

    Raises
    ------
    TypeError
        If an inverse is no function, or a factor no tensor.
    ValueError
        If not one of the three is given, shapes do not suit the parameters, eigenvectors are not
        orthonormal, or layers have no factors.
    SingularSystem
        If the damping is zero where it is needed; this is a ValueError, too.

    Examples
    --------
    >>> import torch, whence as wh
    >>> model = torch.nn.Linear(2, 1, bias=False, dtype=torch.float64)
    >>> x, y = torch.rand(20, 2).double(), torch.rand(20, 1).double()
    >>> objective = wh.Objective.supervised(model, (x, y), wh.Squared())
    >>> factors = 2 * x.T @ x / 20, torch.eye(1).double()       # of Gauss–Newton, exactly
    >>> solver = wh.GivenFactors(kronecker={"": factors})
    >>> given = wh.Influence(objective, solver=solver).attribute(wh.Loss())
    >>> exact = wh.Influence(objective).attribute(wh.Loss())
    >>> bool(abs(given - exact).max() < 1e-9 * abs(exact).max())
    True
    """

    eigenpairs: Eigenpairs | None = None
    kronecker: KroneckerFactors | None = None
    inverse: Inverse | None = None
    complement: bool = True
    name = "given_factors"

    def __post_init__(self) -> None:
        names = ("eigenpairs", "kronecker", "inverse")
        chosen = [name for name in names if getattr(self, name) is not None]
        if len(chosen) != 1:
            raise ValueError(
                "GivenFactors needs one of eigenpairs=(vectors, values), kronecker={layer: (F, G)} "
                f"and inverse=function, got {' and '.join(chosen) or 'none'}"
            )
        if self.inverse is not None and not callable(self.inverse):
            raise TypeError(
                "inverse must be a function V ↦ (A + λI)⁻¹V, got "
                f"{_checks.describe(self.inverse)}"
            )
        _checks.boolean("complement", self.complement)

    def factor(self, operator: Curvature, damping: Damping) -> State:
        """Check the factors, and find λ."""
        if self.eigenpairs is not None:
            pairs = checked_eigenpairs(self.eigenpairs, operator)
            trace = operator.trace()
            share = float(pairs[1].sum()) / trace if trace else 1.0
            return LowRankState(self, operator, pairs, damping, share)

        largest = largest_eigenvalue(
            operator.matvec, operator.size, operator.like(), LARGEST
        )
        absolute = damping.resolve(largest)
        if self.inverse is not None:
            system = Damped(operator, absolute)
            return GivenInverse(self.inverse, system, largest)

        assert self.kronecker is not None
        parameters = operator.objective.parameters
        layers = checked_layers(self.kronecker, parameters, operator.like())
        return KroneckerInverse(layers, operator, absolute, largest)


def checked_eigenpairs(pairs: Eigenpairs, operator: Curvature) -> Eigenpairs:
    """Return eigenpairs as tensors like the parameters, those of largest magnitude first."""
    if not isinstance(pairs, (tuple, list)) or len(pairs) != 2:
        raise TypeError(
            f"eigenpairs must be (vectors, values), got {_checks.describe(pairs)}"
        )
    vectors, values = pairs
    for what, tensor in (("eigenvectors", vectors), ("eigenvalues", values)):
        check_factor(what, tensor)
    size = operator.size
    shapes_suit = vectors.ndim == 2 and values.shape == vectors.shape[1:]
    if not shapes_suit or len(vectors) != size or not 0 < len(values) <= size:
        raise ValueError(
            f"eigenpairs must have shapes ({size}, r) and (r,) for {size} parameters, got "
            f"{tuple(vectors.shape)} and {tuple(values.shape)}"
        )

    order = values.abs().argsort(descending=True)
    vectors = vectors[:, order].to(operator.like())
    gram = vectors.T @ vectors
    eye = torch.eye(len(values), dtype=gram.dtype, device=gram.device)
    distance = float((gram - eye).abs().max())
    if distance > ORTHONORMAL:
        raise ValueError(
            "eigenvectors must be orthonormal columns, but their products differ from those of "
            f"such by up to {distance:.1e}: are they rows, or of another length?"
        )
    return vectors, values[order].to(operator.like())


def check_factor(what: str, tensor: object) -> None:
    """Raise unless a factor is a tensor of finite numbers."""
    if not isinstance(tensor, Tensor):
        raise TypeError(f"{what} must be a tensor, got {_checks.describe(tensor)}")
    if not bool(torch.isfinite(tensor).all()):
        raise ValueError(f"{what} must be finite, but some numbers are not")


class GivenInverse:
    """An inverse by a function."""

    def __init__(self, inverse: Inverse, system: Damped, largest: float) -> None:
        self._inverse = inverse
        self._system = system
        self.spectrum = Spectrum(
            solver=GivenFactors.name,
            damping=system.damping,
            largest_eigenvalue=largest,
        )

    def solve(self, right: Tensor) -> Solution:
        """Return what the function gives, with its residual in the true system."""
        value = self._inverse(right)
        if not isinstance(value, Tensor) or value.shape != right.shape:
            raise ValueError(
                f"inverse must return a tensor of the shape that it is given, "
                f"{tuple(right.shape)}, got {_checks.shape_of(value)}"
            )
        value = value.detach().to(right)
        check_finite(value)
        return direct_solution(self._system, right, value)


@dataclass(frozen=True)
class LayerFactors:
    """The eigenvectors of a layer's two factors, and where its matrix stands in θ."""

    places: Tensor
    """Of the matrix (out, in), the bias in its last column, row by row."""
    inner: Eigenpairs
    outer: Eigenpairs

    @property
    def values(self) -> Tensor:
        """The eigenvalues of ``G ⊗ F``, (out, in)."""
        return torch.outer(self.outer[1], self.inner[1])

    def solve(self, right: Tensor, damping: float) -> Tensor:
        """Return ``(G ⊗ F + λI)⁻¹`` of the layer's rows of right-hand sides, (out · in, K)."""
        left_vectors, right_vectors = self.outer[0], self.inner[0]
        shape = (len(left_vectors), len(right_vectors))
        matrices = right.T.reshape(-1, *shape)  # (K, out, in)

        # With G = QΓQᵀ and F = PΦPᵀ: GMF + λM = B is Γ_o C_oi Φ_i + λ C_oi = (QᵀBP)_oi for
        # C = QᵀMP.
        coordinates = left_vectors.T @ matrices @ right_vectors
        coordinates = coordinates / (self.values + damping)
        solved = left_vectors @ coordinates @ right_vectors.T
        return solved.reshape(len(matrices), -1).T


def checked_layers(
    kronecker: KroneckerFactors, parameters: Parameters, like: Tensor
) -> list[LayerFactors]:
    """Return each layer's factors, decomposed; layers without factors are an error."""
    tensors: dict[str, dict[str, str]] = {}
    for name in parameters.names:
        module, _, kind = name.rpartition(".")
        tensors.setdefault(module, {})[kind] = name

    missing = [repr(module) for module in tensors if module not in kronecker]
    unknown = [repr(module) for module in kronecker if module not in tensors]
    if missing or unknown:
        known = ", ".join(repr(module) for module in tensors)
        problem = f"no factors for {', '.join(missing)}" if missing else ""
        if unknown:
            problem = f"factors for {', '.join(unknown)}, which have no parameters here"
        raise ValueError(
            f"kronecker must have the factors of every layer ({known}), but has {problem}: leave "
            "layers out by parameters="
        )

    layers = []
    for module, kinds in tensors.items():
        inner, outer = kronecker[module]
        places = matrix_places(module, kinds, parameters)
        out, columns = places.shape
        layers.append(
            LayerFactors(
                places.reshape(-1).to(like.device),
                decomposed(f"F of {module!r}", inner, columns, like),
                decomposed(f"G of {module!r}", outer, out, like),
            )
        )
    return layers


def matrix_places(
    module: str, kinds: Mapping[str, str], parameters: Parameters
) -> Tensor:
    """Return where in θ each entry of a layer's matrix (out, in) stands, the bias last."""
    if "weight" not in kinds or set(kinds) > {"weight", "bias"}:
        raise ValueError(
            f"Kronecker factors are of layers with a weight and a bias, but {module!r} has "
            f"{', '.join(kinds)}: leave it out by parameters="
        )
    name = kinds["weight"]
    shape = parameters.shape(name)
    if len(shape) < 2:
        raise ValueError(
            f"Kronecker factors are of matrices, but {name!r} has shape {tuple(shape)}: leave it "
            "out by parameters="
        )
    part = parameters.slices[name]
    places = torch.arange(part.start, part.stop).reshape(shape[0], -1)
    if "bias" in kinds:
        bias = parameters.slices[kinds["bias"]]
        column = torch.arange(bias.start, bias.stop).unsqueeze(1)
        places = torch.cat([places, column], dim=1)
    return places


def decomposed(what: str, factor: object, size: int, like: Tensor) -> Eigenpairs:
    """Return eigenvectors and eigenvalues of a symmetric factor, those below zero as zero."""
    check_factor(what, factor)
    assert isinstance(factor, Tensor)
    if factor.shape != (size, size):
        raise ValueError(
            f"{what} must have shape ({size}, {size}), got {tuple(factor.shape)}"
        )
    # In double precision: small eigenvalues count where the damping is small.
    matrix = factor.detach().to(device=like.device, dtype=torch.float64)
    values, vectors = torch.linalg.eigh(0.5 * (matrix + matrix.T))
    return vectors.to(like), values.clamp_min(0).to(like)


class KroneckerInverse:
    """The inverse of ``G ⊗ F + λI``, layer by layer."""

    def __init__(
        self,
        layers: list[LayerFactors],
        operator: Curvature,
        damping: float,
        largest: float,
    ) -> None:
        self._layers = layers
        self._operator = operator
        self._system = Damped(operator, damping)
        smallest = min(float(layer.values.min()) for layer in layers)
        if smallest + damping <= 0:
            raise undamped(
                "GivenFactors", "a product of the factors has a zero eigenvalue"
            )
        self.spectrum = Spectrum(
            solver=GivenFactors.name,
            damping=damping,
            largest_eigenvalue=largest,
        )

    def redamped(self, damping: float) -> KroneckerInverse:
        """Return the state with this absolute λ: the factors are decomposed."""
        largest = self.spectrum.largest_eigenvalue
        return KroneckerInverse(self._layers, self._operator, damping, largest)

    def solve(self, right: Tensor) -> Solution:
        """Return the layers' solutions, with their residual in the true system."""
        value = torch.zeros_like(right)
        for layer in self._layers:
            part = layer.solve(right[layer.places], self._system.damping)
            value[layer.places] = part
        return direct_solution(self._system, right, value)
