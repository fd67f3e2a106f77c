"""Losses, terms and the objective: the weighted sum of squares (or of any loss) to explain.

``L(θ) = Σ_k w_k · (1/N_k) · Σ_i ℓ_k(r_k(z_i; θ))`` with terms k, points z_i and residuals r_k.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor, nn

from whence import _checks
from whence.parameters import Parameters, Select

Pointwise = Callable[[Mapping[str, Tensor], Tensor], Tensor]
"""``f(parameters by name, points (n, d)) -> (n, m)``, each row from its own point alone."""

Fields = Callable[[Sequence[str]], Pointwise]
"""``fields(("u", "u_x"))`` returns the pointwise function with those columns."""

Draw = Callable[[str, int, int, str], Tensor]
"""``draw(term, n, seed, method)`` returns n fresh points (n, d) where the term holds."""

Inside = Callable[[str | None, Tensor], None]
"""``inside(term, points)`` raises ``ValueError`` for points where the term does not hold.

Without a term: for points where the network has no meaning.
"""


Evaluation = Callable[["Objective"], tuple[float, Tensor]]
"""Returns L(θ) and ∇L(θ), shape (P,), at the network's parameters."""


BLOCK_POINTS = 4000
"""Points of a term evaluated at once: memory does not grow with their number."""


class Loss(Protocol):
    """The loss ℓ of one point as a function of its m residual components."""

    def value(self, residual: Tensor) -> Tensor:
        """Return ℓ(r) of each point: (n, m) to (n,)."""

    def gradient(self, residual: Tensor) -> Tensor:
        """Return ∂ℓ/∂r of each point: (n, m) to (n, m)."""

    def curvature_root(self, residual: Tensor) -> Tensor:
        """Return S with S Sᵀ = ∂²ℓ/∂r² of each point: (n, m) to (n, m, m)."""


@dataclass(frozen=True)
class Squared:
    """The squared norm, ℓ(r) = ‖r‖² (no factor ½), so ∂ℓ = 2r and ∂²ℓ = 2I.

    Examples
    --------
    >>> import torch, whence as wh
    >>> wh.Squared().value(torch.tensor([[3.0, 4.0]]))
    tensor([25.])
    """

    def value(self, residual: Tensor) -> Tensor:
        """Return ‖r‖² of each row."""
        return residual.square().sum(dim=-1)

    def gradient(self, residual: Tensor) -> Tensor:
        """Return 2r."""
        return 2 * residual

    def curvature_root(self, residual: Tensor) -> Tensor:
        """Return √2·I for each row."""
        m = residual.shape[-1]
        eye = torch.eye(m, dtype=residual.dtype, device=residual.device)
        return (2**0.5 * eye).expand(len(residual), m, m)


@dataclass(frozen=True)
class Term:
    """One named part of the loss: ``w · mean_i ℓ(r(z_i))`` over its points.

    Parameters
    ----------
    name:
        How results refer to it.
    residual:
        Pointwise function ``(parameters by name, points) -> (n, m)``.
    points:
        The training points of the term, shape (N, d).
    weight:
        w ≥ 0.
    loss:
        ℓ, by default :class:`Squared`.
    components:
        Names of the m residual components, by default ``("0", "1", …)``.
    """

    name: str
    residual: Pointwise
    points: Tensor
    weight: float = 1.0
    loss: Loss = Squared()

    def __post_init__(self) -> None:
        _checks.positive(f"the weight of term {self.name!r}", self.weight, zero=True)
        if not callable(self.residual):
            raise TypeError(
                f"the residual of term {self.name!r} must be a function of parameters and points, "
                f"got {_checks.shown(self.residual)}"
            )
        _checks.points(f"the points of term {self.name!r}", self.points, "d")

    @property
    def scale(self) -> float:
        """w/N, the factor in front of each point's loss."""
        return self.weight / len(self.points)


class Objective:
    """The weighted terms of a loss and the network they depend on.

    Parameters
    ----------
    network:
        The trained (or training) module; results are taken at its current parameters.
    terms:
        One or more :class:`Term` of different names.
    select:
        Which parameters θ stands for, see :class:`whence.parameters.Parameters`.
    coordinates:
        Names of the d columns of the points.
    outputs:
        Names of the network's outputs.
    fields:
        ``fields(names)`` returns the pointwise function that computes the named outputs or
        derivatives; by default the columns of ``network(points)``.
    draw:
        ``draw(term, n, seed, method)`` returns fresh points of a term, where there are any.
    inside:
        ``inside(term, points)`` raises for points where a term does not hold, where that is known.

    Raises
    ------
    ValueError
        If terms share a name, or their points are not (n, d), finite, and of the parameters'
        dtype and device.

    Examples
    --------
    A linear least-squares fit, the smallest objective there is:

    >>> import torch, whence as wh
    >>> from torch.func import functional_call
    >>> network = torch.nn.Linear(1, 1, bias=False, dtype=torch.float64)
    >>> xy = torch.tensor([[1.0, 2.0], [2.0, 3.0]], dtype=torch.float64)
    >>> def residual(tensors, z):
    ...     return functional_call(network, tensors, (z[:, :1],)) - z[:, 1:]
    >>> objective = wh.Objective(network, [wh.Term("data", residual, xy)], coordinates=("x", "y"))
    >>> objective.parameters.assign(torch.tensor([1.5], dtype=torch.float64))
    >>> float(objective.loss())          # mean of 0.5² and 0²
    0.125
    """

    def __init__(
        self,
        network: nn.Module,
        terms: Iterable[Term],
        *,
        select: Select = None,
        coordinates: Sequence[str] | None = None,
        outputs: Sequence[str] = ("output",),
        fields: Fields | None = None,
        draw: Draw | None = None,
        inside: Inside | None = None,
    ) -> None:
        self.network = network
        self.parameters = Parameters(network, select)
        given = (terms,) if isinstance(terms, Term) else tuple(terms)
        for term in given:
            if not isinstance(term, Term):
                raise TypeError(
                    f"the terms of an objective must be Terms, got {_checks.shown(term)}"
                )
        self.terms = {term.name: term for term in given}
        if not self.terms:
            raise ValueError("an objective needs at least one term")
        if len(self.terms) < len(given):
            names = ", ".join(repr(term.name) for term in given)
            raise ValueError(f"the terms of an objective need different names, got {names}")
        first = next(iter(self.terms.values())).points
        if coordinates is None:
            coordinates = tuple(f"x{i}" for i in range(first.shape[-1]))
        self.coordinates = tuple(coordinates)
        self.outputs = tuple(outputs)
        self._fields = fields or _columns(network, self.outputs)
        self._draw = draw
        self._inside = inside
        self.evaluation: Evaluation | None = None
        for term in self.terms.values():
            self._check_kind(term)

    def _check_kind(self, term: Term) -> None:
        what = f"the points of term {term.name!r}"
        _checks.points(what, term.points, len(self.coordinates))
        like = self.parameters
        if (term.points.dtype, term.points.device) != (like.dtype, like.device):
            raise ValueError(
                f"{what} are {term.points.dtype} on {term.points.device}, the parameters "
                f"{like.dtype} on {like.device}: bring one to the other, such as points.to(weight)"
            )

    def term(self, name: str) -> Term:
        """Return the term called ``name``; an unknown name is an error that lists the terms."""
        _checks.one_of("term", name, self.terms)
        return self.terms[name]

    def fields(self, names: Sequence[str]) -> Pointwise:
        """Return the pointwise function with the named outputs or derivatives as columns."""
        return self._fields(tuple(names))

    def placed(self, what: str, points: Tensor, term: str | None = None) -> Tensor:
        """Return checked points (n, d) in the dtype and on the device of the parameters.

        Points that are not finite, or lie where the term does not hold (without one: where the
        network has no meaning), are an error that begins with ``what``.
        """
        given = _checks.points(what, points, len(self.coordinates))
        if self._inside is not None:
            self._inside(term, given)
        return given.to(dtype=self.parameters.dtype, device=self.parameters.device)

    def draw(self, name: str, n: int, seed: int, method: str = "random") -> Tensor:
        """Return n fresh points (n, d) of a term, in the dtype and on the device of its points."""
        points = self.term(name).points
        if self._draw is None:
            raise ValueError(
                f"no fresh points of term {name!r} can be drawn: this objective has fixed data"
            )
        return self._draw(name, n, seed, method).to(points)

    def with_points(self, points: Mapping[str, Tensor]) -> Objective:
        """Return the same objective with other points for the named terms."""
        for name in points:
            self.term(name)
        placed = {n: self.placed(f"the points of term {n!r}", p, n) for n, p in points.items()}
        terms = [
            replace(term, points=placed[name]) if name in placed else term
            for name, term in self.terms.items()
        ]
        return self._with_terms(terms)

    def with_weights(self, weights: Mapping[str, float]) -> Objective:
        """Return the same objective with other weights for the named terms."""
        for name in weights:
            self.term(name)
        terms = [replace(t, weight=weights.get(n, t.weight)) for n, t in self.terms.items()]
        return self._with_terms(terms)

    def with_evaluation(self, evaluation: Evaluation | None) -> Objective:
        """Return the same objective whose L and ∇L together come from ``evaluation``."""
        other = self._with_terms(list(self.terms.values()))
        other.evaluation = evaluation
        return other

    def _with_terms(self, terms: Sequence[Term]) -> Objective:
        other = object.__new__(Objective)
        other.__dict__.update(self.__dict__)
        other.terms = {term.name: term for term in terms}
        return other

    def losses(self, tensors: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
        """Return the unweighted mean loss of each term, ``(1/N_k) Σ_i ℓ_k``, by name."""
        values = self.parameters.tensors() if tensors is None else tensors
        return {
            name: term.loss.value(_residual(term, values)).mean()
            for name, term in self.terms.items()
        }

    def loss(self, tensors: Mapping[str, Tensor] | None = None) -> Tensor:
        """Return L(θ), a scalar; at the network's parameters unless others are given."""
        return self.total(self.losses(tensors))

    def total(self, losses: Mapping[str, Tensor]) -> Tensor:
        """Return the weighted sum of the terms' mean losses."""
        parts = [self.terms[name].weight * value for name, value in losses.items()]
        return torch.stack(parts).sum()

    @property
    def n_points(self) -> int:
        """Number of training points over all terms."""
        return sum(len(term.points) for term in self.terms.values())


def _residual(term: Term, tensors: Mapping[str, Tensor]) -> Tensor:
    """Return the residual (n, m) at the term's points; another shape is an error."""
    parts = [term.residual(tensors, part) for part in term.points.split(BLOCK_POINTS)]
    value = parts[0] if len(parts) == 1 else torch.cat(parts)
    if not isinstance(value, Tensor):
        raise TypeError(
            f"the residual of term {term.name!r} must be a tensor, got {type(value).__name__}"
        )
    if value.ndim != 2 or len(value) != len(term.points):
        raise ValueError(
            f"the residual of term {term.name!r} must have shape ({len(term.points)}, m), got "
            f"{tuple(value.shape)}"
        )
    return value


def _columns(network: nn.Module, outputs: tuple[str, ...]) -> Fields:
    """Return fields that are plain columns of ``network(points)``."""

    def fields(names: Sequence[str]) -> Pointwise:
        for name in names:
            _checks.one_of("output", name, outputs)
        columns = [outputs.index(name) for name in names]

        def evaluate(tensors: Mapping[str, Tensor], points: Tensor) -> Tensor:
            values: Tensor = torch.func.functional_call(network, dict(tensors), (points,))
            return values[:, columns]

        return evaluate

    return fields
