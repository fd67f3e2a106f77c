"""Terms and the objective: the weighted sum of squares (or of any loss) to explain.

``L(θ) = Σ_k w_k · (1/N_k) · Σ_i ℓ_k(r_k(z_i; θ))`` with terms k, points z_i and residuals r_k. For
supervised data the points are samples, the residual is what the model gives, and ℓ compares it
with the sample's target.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from whence import _checks
from whence.losses import Loss, Squared
from whence.parameters import Parameters, Select
from whence.samples import Samples, samples_of
from whence.torch_losses import loss_of

Points = Any
"""Points of a term: a tensor (n, d), or :class:`whence.samples.Samples`."""

Pointwise = Callable[[Mapping[str, Tensor], Points], Tensor]
"""``f(parameters by name, points) -> (n, m)``, each row from its own point alone."""

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


def at_once(points: Points, most: int = BLOCK_POINTS) -> int:
    """Return how many of these points to evaluate at once: samples have a batch size."""
    return min(most, points.batch_size) if isinstance(points, Samples) else most


def target_of(points: Points) -> Tensor | None:
    """Return what the loss compares with at these points, where there is anything."""
    return points.target if isinstance(points, Samples) else None


@dataclass(frozen=True)
class Term:
    """One named part of the loss: ``w · mean_i m_i ℓ(r(z_i))`` over its points.

    Parameters
    ----------
    name:
        How results refer to it.
    residual:
        Pointwise function ``(parameters by name, points) -> (n, m)``.
    points:
        The training points of the term, shape (N, d), or samples.
    weight:
        w ≥ 0.
    loss:
        ℓ, by default :class:`Squared`.
    point_weights:
        m_i ≥ 0 of each point, (N,); 1 unless given.
    """

    name: str
    residual: Pointwise
    points: Points
    weight: float = 1.0
    loss: Loss = field(default_factory=Squared)
    point_weights: Tensor | None = None

    def __post_init__(self) -> None:
        _checks.positive(f"the weight of term {self.name!r}", self.weight, zero=True)
        if not callable(self.residual):
            raise TypeError(
                f"the residual of term {self.name!r} must be a function of parameters and points, "
                f"got {_checks.shown(self.residual)}"
            )
        if not isinstance(self.points, Samples):
            _checks.points(f"the points of term {self.name!r}", self.points, "d")
        if self.point_weights is not None:
            what = f"the point weights of term {self.name!r}"
            _checks.weights(what, self.point_weights, len(self.points))

    @property
    def scale(self) -> float:
        """w/N, the factor in front of each point's loss where points weigh 1."""
        return self.weight / len(self.points)

    @property
    def mean_weight(self) -> float:
        """W times the mean weight of the points."""
        own = self.point_weights
        return self.weight if own is None else self.weight * float(own.mean())

    def scales(self, part: slice) -> float | Tensor:
        """Return ``(w/N)·m`` of a part of the points: (n,), or a number where all weigh 1."""
        if self.point_weights is None:
            return self.scale
        return self.scale * self.point_weights[part]

    def parts(self, size: int) -> Iterator[tuple[Points, float | Tensor]]:
        """Yield the points in blocks with the factor in front of each point's loss."""
        start = 0
        for points in self.points.split(size):
            yield points, self.scales(slice(start, start + len(points)))
            start += len(points)

    def value(self, residual: Tensor, points: Points) -> Tensor:
        """Return ℓ at these points from their residuals: (n, m) to (n,)."""
        return self.loss.value(residual, target_of(points))

    def gradient(self, residual: Tensor, points: Points) -> Tensor:
        """Return ∂ℓ/∂r at these points: (n, m) to (n, m)."""
        return self.loss.gradient(residual, target_of(points))

    def curvature_root(self, residual: Tensor, points: Points) -> Tensor:
        """Return S with S Sᵀ = ∂²ℓ/∂r² at these points: (n, m) to (n, m, m)."""
        return self.loss.curvature_root(residual, target_of(points))

    def whitened_gradient(self, residual: Tensor, points: Points) -> Tensor:
        """Return ρ with S ρ = ∂ℓ/∂r at these points: (n, m) to (n, m)."""
        return self.loss.whitened_gradient(residual, target_of(points))


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
            raise ValueError(
                f"the terms of an objective need different names, got {names}"
            )
        first = next(iter(self.terms.values())).points
        if coordinates is None:
            width = 0 if isinstance(first, Samples) else first.shape[-1]
            coordinates = tuple(f"x{i}" for i in range(width))
        self.coordinates = tuple(coordinates)
        self.outputs = tuple(outputs)
        self._fields = fields or _columns(_network(network), self.outputs)
        self._draw = draw
        self._inside = inside
        self.evaluation: Evaluation | None = None
        for term in self.terms.values():
            self._check_kind(term)

    @classmethod
    def supervised(
        cls,
        model: nn.Module,
        data: Any,
        loss: Any,
        *,
        parameters: Select = None,
        batch_size: int | None = None,
    ) -> Objective:
        """Return the objective of a model trained on inputs and targets, ``(1/N) Σ ℓ(f(x), y)``.

        Results hold for the model in evaluation mode (no dropout, running statistics in batch
        normalisation), whatever mode it is in; the mode itself is left alone. A penalty
        ``(c/2)‖θ‖²`` on the weights is no term of this sum: give ``damping=wh.Damping(c,
        relative=False)`` to the attribution.

        Parameters
        ----------
        model:
            Any module of one output tensor, (n, ...).
        data:
            Tensors or arrays ``(inputs, ..., target)``; a map-style ``Dataset`` of such tuples; or
            a ``DataLoader`` that does not shuffle. A mapping of inputs becomes keyword arguments.
            Numbers that are not integers are brought to the parameters' dtype, all to their
            device. Data above 512 MiB are read anew in each pass.
        loss:
            ``wh.CrossEntropy()`` and the like; any loss of ``torch.nn``, whose reduction is put
            aside; or a function ``(outputs, targets) -> (n,)``.
        parameters:
            Which parameters θ stands for: a pattern on names (``"fc.*"``), several, a module of
            the model, a predicate, or ``None`` for all that require a gradient.
        batch_size:
            Samples evaluated at once: by default 1000 rows of a table, or 256 images.

        Raises
        ------
        TypeError
            If the model's output, the data, the targets or the loss are of the wrong type.
        ValueError
            If no parameter is selected, they mix dtypes or devices, the loss is already reduced,
            the data change between passes, or shapes do not fit.

        Examples
        --------
        >>> import torch, whence as wh
        >>> model = torch.nn.Linear(3, 2)
        >>> x, y = torch.rand(10, 3), torch.arange(10) % 2
        >>> objective = wh.Objective.supervised(model, (x, y), torch.nn.CrossEntropyLoss())
        >>> bool(objective.loss().isclose(torch.nn.functional.cross_entropy(model(x), y)))
        True
        """
        selected = Parameters(model, parameters)
        samples = samples_of("the data", data, selected.dtype, selected.device)
        samples = samples.in_batches(batch_size)
        probe, run = samples[: samples.batch_size], _Supervised(model)
        output = run.output(selected.tensors(), probe)
        target = probe.target
        if target is None:
            raise ValueError("the data have no targets: give Samples(inputs, target)")
        term = Term("data", run, samples, loss=loss_of(loss, output, target))
        m = output[0].numel()
        names = ("output",) if m == 1 else tuple(f"output_{k}" for k in range(m))
        fields = _columns(run, names)
        return cls(model, [term], select=parameters, outputs=names, fields=fields)

    def _check_kind(self, term: Term) -> None:
        if isinstance(term.points, Samples):
            return
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

    def placed(self, what: str, points: Any, term: str | None = None) -> Points:
        """Return checked points in the dtype and on the device of the parameters.

        They have shape (n, d), or are samples where those of the term are. Points that are not
        finite, or lie where the term does not hold (without one: where the network has no
        meaning), are an error that begins with ``what``.
        """
        held = (
            next(iter(self.terms.values())).points
            if term is None
            else self.term(term).points
        )
        if isinstance(held, Samples):
            like = self.parameters
            placed = samples_of(
                what, points, like.dtype, like.device, targets=term is not None
            )
            return placed.in_batches(held.batch_size)
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
        """Return the same objective with other points for the named terms; each weighs 1."""
        for name in points:
            self.term(name)
        placed = {
            n: self.placed(f"the points of term {n!r}", p, n) for n, p in points.items()
        }
        terms = [
            replace(term, points=placed[name], point_weights=None)
            if name in placed
            else term
            for name, term in self.terms.items()
        ]
        return self._with_terms(terms)

    def at_points(self, indices: Mapping[str, Tensor]) -> Objective:
        """Return the same objective with these training points only; terms keep their weight w."""
        terms = dict(self.terms)
        for name, chosen in indices.items():
            term = self.term(name)
            own = term.point_weights
            each = None if own is None else own[chosen]
            terms[name] = replace(term, points=term.points[chosen], point_weights=each)
        return self._with_terms(list(terms.values()))

    def with_weights(self, weights: Mapping[str, float | Tensor]) -> Objective:
        """Return the same objective with other weights for the named terms.

        A number is the weight w of a term, whose points then weigh the same; a tensor (N,) holds
        the weight of each of its points, ``w·m_i`` with w = 1.
        """
        terms = dict(self.terms)
        for name, given in weights.items():
            term = self.term(name)
            each = given if isinstance(given, Tensor) and given.ndim else None
            weight = 1.0 if each is not None else float(given)
            terms[name] = replace(term, weight=weight, point_weights=each)
        return self._with_terms(list(terms.values()))

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
        return {name: each.mean() for name, each in self.point_losses(tensors).items()}

    def point_losses(
        self, tensors: Mapping[str, Tensor] | None = None
    ) -> dict[str, Tensor]:
        """Return the unweighted loss ``ℓ_k(z_i)`` of each point, (N_k,), by term."""
        values = self.parameters.tensors() if tensors is None else tensors
        return {
            name: torch.cat(
                [
                    term.value(_residual(term, values, part), part)
                    for part in _blocks(term)
                ]
            )
            for name, term in self.terms.items()
        }

    def loss(self, tensors: Mapping[str, Tensor] | None = None) -> Tensor:
        """Return L(θ), a scalar; at the network's parameters unless others are given."""
        return self.total(self.point_losses(tensors))

    def total(self, point_losses: Mapping[str, Tensor]) -> Tensor:
        """Return the weighted sum of the terms' mean losses."""
        means = []
        for name, each in point_losses.items():
            term = self.terms[name]
            own = each if term.point_weights is None else each * term.point_weights
            means.append(term.weight * own.mean())
        return torch.stack(means).sum()

    @property
    def has_samples(self) -> bool:
        """Whether the points are samples of supervised data."""
        return any(isinstance(term.points, Samples) for term in self.terms.values())

    @property
    def n_points(self) -> int:
        """Number of training points over all terms."""
        return sum(len(term.points) for term in self.terms.values())


def _blocks(term: Term) -> Iterable[Points]:
    parts: Iterable[Points] = term.points.split(at_once(term.points))
    return parts


def _residual(term: Term, tensors: Mapping[str, Tensor], points: Points) -> Tensor:
    """Return the residual (n, m) at some of the term's points; another shape is an error."""
    value = term.residual(tensors, points)
    if not isinstance(value, Tensor):
        raise TypeError(
            f"the residual of term {term.name!r} must be a tensor, got {type(value).__name__}"
        )
    if value.ndim != 2 or len(value) != len(points):
        raise ValueError(
            f"the residual of term {term.name!r} must have shape ({len(points)}, m), got "
            f"{tuple(value.shape)}"
        )
    return value


class _Supervised:
    """What a model in evaluation mode gives for samples, flat: (n, m)."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model

    def __call__(self, tensors: Mapping[str, Tensor], samples: Samples) -> Tensor:
        return self.output(tensors, samples).reshape(len(samples), -1)

    def output(self, tensors: Mapping[str, Tensor], samples: Samples) -> Tensor:
        """Return the model's output in its own shape, (n, ...)."""
        given = samples.inputs
        args, kwargs = ((), dict(given)) if isinstance(given, Mapping) else (given, {})
        with evaluating(self.model):
            value = torch.func.functional_call(self.model, dict(tensors), args, kwargs)
        if not isinstance(value, Tensor):
            raise TypeError(
                f"the model must return a tensor, got {type(value).__name__}: wrap it in a module "
                "that returns the one to explain"
            )
        if not value.ndim or len(value) != len(samples):
            raise ValueError(
                f"the model must return an output for each of {len(samples)} samples on the first "
                f"axis, got shape {tuple(value.shape)}"
            )
        return value


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put the parts of a model that are in training mode into evaluation mode for a while."""
    training = [module for module in model.modules() if module.training]
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True


def _network(network: nn.Module) -> Pointwise:
    """Return ``network(points)`` as a function of its parameters."""

    def evaluate(tensors: Mapping[str, Tensor], points: Points) -> Tensor:
        values: Tensor = torch.func.functional_call(network, dict(tensors), (points,))
        return values

    return evaluate


def _columns(network: Pointwise, outputs: tuple[str, ...]) -> Fields:
    """Return fields that are plain columns of what the network gives."""

    def fields(names: Sequence[str]) -> Pointwise:
        for name in names:
            _checks.one_of("output", name, outputs)
        columns = [outputs.index(name) for name in names]

        def evaluate(tensors: Mapping[str, Tensor], points: Points) -> Tensor:
            return network(tensors, points)[:, columns]

        return evaluate

    return fields
