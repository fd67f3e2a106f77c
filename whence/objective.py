"""The objective: the weighted terms of a loss and the network that they depend on.

``L(θ) = Σ_k w_k · (1/N_k) · Σ_i ℓ_k(r_k(z_i; θ))`` with terms k, points z_i and residuals r_k. For
supervised data the points are samples, the residual is what the model gives, and ℓ compares it
with the sample's target; a penalty ``(c/2)‖θ‖²`` on the selected parameters may be added.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from whence import _checks
from whence.arrays import ArrayLike, to_locations
from whence.evaluator import Eager, Evaluator, LossAndGradient
from whence.frozen import head_of
from whence.losses import Loss
from whence.model_checks import (
    check_labels_are_others,
    check_samples_apart,
    first_output,
    samples_at_once,
)
from whence.model_loss import own_loss
from whence.outputs import table_of
from whence.parameters import Parameters, Select
from whence.points import (
    Points,
    Pointwise,
    are_samples,
    blocks,
    evaluated_at_once,
    locations,
)
from whence.samples import Data, Samples, samples_of
from whence.shared_pass import passes_of
from whence.space import NumberedNames, Space
from whence.summed_losses import LossByOutput
from whence.supervised import ModelFunction, logits_function
from whence.term import Term
from whence.torch_losses import loss_of, of_logits

LossLike = Loss | nn.Module | Callable[[Any, Any], Tensor] | LossByOutput
"""A loss of whence, of ``torch.nn``, a function ``(outputs, targets) -> (n,)``, or several."""
PointsLike = ArrayLike | Data
"""Points as users have them: tensors, arrays, lists, data frames, data sets, loaders."""


@dataclass(frozen=True, eq=False, init=False)
class Objective:
    """The weighted terms of a loss and the network they depend on.

    It does not change: :meth:`with_points`, :meth:`with_weights` and the like return another one
    of the same network, at whose current parameters all results are taken.

    Parameters
    ----------
    network:
        The trained (or training) module.
    terms:
        One or more :class:`Term` of different names.
    select:
        Which parameters θ stands for, see :class:`whence.parameters.Parameters`.
    space:
        Coordinates, outputs and fields, see :class:`whence.Space`; by default coordinates x0, x1,
        … and the one ``output`` of the network.
    evaluator:
        How L(θ) and ∇L(θ) are computed, see :mod:`whence.evaluator`.
    weight_decay:
        c of the penalty ``(c/2)‖θ‖²`` on the selected parameters, which is part of L.

    Raises
    ------
    TypeError
        If the terms are no :class:`Term`.
    ValueError
        If there are no terms, they share a name, or their points are not (n, d), finite, and of
        the parameters' dtype and device.

    Examples
    --------
    A linear least-squares fit, the smallest objective there is:

    >>> import torch, whence as wh
    >>> from torch.func import functional_call
    >>> network = torch.nn.Linear(1, 1, bias=False, dtype=torch.float64)
    >>> xy = torch.tensor([[1.0, 2.0], [2.0, 3.0]], dtype=torch.float64)
    >>> def residual(tensors, z):
    ...     return functional_call(network, tensors, (z[:, :1],)) - z[:, 1:]
    >>> objective = wh.Objective(network, wh.Term("data", residual, xy))
    >>> objective.parameters.assign(torch.tensor([1.5], dtype=torch.float64))
    >>> float(objective.loss())          # mean of 0.5² and 0²
    0.125
    """

    network: nn.Module
    parameters: Parameters
    terms: Mapping[str, Term]
    space: Space
    evaluator: Evaluator
    weight_decay: float

    def __init__(
        self,
        network: nn.Module,
        terms: Term | Iterable[Term],
        *,
        select: Select = None,
        space: Space | None = None,
        evaluator: Evaluator | None = None,
        weight_decay: float = 0.0,
    ) -> None:
        _checks.positive("weight_decay", weight_decay, zero=True)
        members = (terms,) if isinstance(terms, Term) else tuple(terms)
        parameters = Parameters(network, select)
        check_terms(members)
        space = space or Space()
        points = members[0].points
        if isinstance(points, Tensor):
            space = space.with_coordinates(members[0].locations.shape[-1])

        self._set(
            network=network,
            parameters=parameters,
            terms={term.name: term for term in members},
            space=space,
            evaluator=evaluator or Eager(),
            weight_decay=float(weight_decay),
        )
        for term in members:
            self._check_points(term)

    def _set(self, **attributes: object) -> None:
        # The dataclass is frozen for all but its own making.
        for name, value in attributes.items():
            object.__setattr__(self, name, value)

    @classmethod
    def supervised(
        cls,
        model: nn.Module,
        data: Data,
        loss: LossLike | None = None,
        *,
        parameters: Select = None,
        batch_size: int | None = None,
        weight_decay: float = 0.0,
    ) -> Objective:
        """Return ``(1/N) Σ ℓ(f(x), y) + (c/2)‖θ‖²``, what a model of inputs and targets minimizes.

        Results hold for the model in evaluation mode (no dropout, running statistics in batch
        normalization), whatever mode it is in; the mode itself is left alone.

        Parameters
        ----------
        model:
            Any module that returns a tensor (n, ...), an object with such ``.logits``, or several
            tensors by name or in order.
        data:
            Tensors, arrays or data frames ``(inputs, ..., target)``; a map-style ``Dataset`` of
            such tuples; or a ``DataLoader`` that does not shuffle. A mapping of inputs becomes
            keyword arguments; in place of a tuple a mapping with ``labels`` (or ``label``,
            ``targets``) among the inputs, as tokenizers and their loaders make it. A target may
            be several tensors by name or in order. Numbers that are not integers are brought to
            the parameters' dtype, all to their device. Data above 512 MiB are read again in each
            pass.
        loss:
            ``wh.CrossEntropy()`` and the like; ``wh.NextToken()`` of causal language models; any
            loss of ``torch.nn``, whose reduction is put aside; or a function
            ``(outputs, targets) -> (n,)``. ``BCELoss`` of a model that ends in a sigmoid is
            ``BCEWithLogitsLoss`` of what comes before it. Of several outputs a loss for each, such
            as ``{"class": nn.CrossEntropyLoss(), "boxes": (5.0, nn.L1Loss())}``, or a function of
            all. By default the model's own, which it returns as ``.loss`` for labels.
        parameters:
            Which parameters θ stands for: a pattern on names (``"fc.*"``), several, a module of
            the model, a predicate, or ``None`` for all that require a gradient.
        batch_size:
            Samples evaluated at once: by default 1000 rows of a table, or 256 images, fewer where
            the layers' outputs would take more than a GiB.
        weight_decay:
            c of the penalty ``(c/2)‖θ‖²`` on the selected parameters that the model was trained
            with, as ``weight_decay`` of ``torch.optim.SGD``. It is part of loss, gradient and
            curvature, and stays where samples are left out.

        Raises
        ------
        TypeError
            If the model's output, the data, the targets or the loss are of the wrong type.
        ValueError
            If no parameter is selected, they mix dtypes or devices, the loss is already reduced,
            the data change between passes, shapes do not fit, or the output at a sample depends on
            the other samples of its batch.

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
        function = ModelFunction(model)
        tensors = selected.tensors()
        if batch_size is None:
            batch_size = samples_at_once(function, tensors, samples)
        samples = samples.in_batches(batch_size)

        # One batch is evaluated, which shows the shape of the output and whether the loss fits.
        probe = samples[: samples.batch_size]
        output = first_output(function, tensors, probe, samples)  # (n, ...)
        if probe.target is None:
            raise ValueError("the data have no targets: give Samples(inputs, target)")
        check_samples_apart(function, tensors, probe)

        # A loss of probabilities that end in a sigmoid is one of logits, which has formulas.
        evaluated = function
        of_logits_instead = of_logits(loss)
        if of_logits_instead is not None:
            before = logits_function(function, tensors, probe)
            if before is not None:
                evaluated, loss = before, of_logits_instead
                output = before.output(tensors, probe)

        # Frozen layers before the selected parameters are evaluated once.
        if evaluated is function and loss is not None:
            kept = head_of(function, selected, samples)
            if kept is not None:
                evaluated, samples = kept

        if loss is None:
            evaluated, of_outputs = own_loss(
                evaluated, tensors, probe, output, samples.targets()
            )
        else:
            of_outputs = loss_of(
                loss,
                output,
                probe.target,
                samples.targets(),
                classes_last=function.returns_logits(tensors, probe),
            )
            check_labels_are_others(of_outputs, probe)
        term = Term("data", evaluated, samples, loss=of_outputs)

        row = output[:1] if isinstance(output, Tensor) else table_of(output)[:1]
        m = row.numel()
        names: Sequence[str] = NumberedNames(m) if m > 1 else ("output",)
        space = space_of_outputs(function, names)
        return cls(
            model, term, select=parameters, space=space, weight_decay=weight_decay
        )

    def _check_points(self, term: Term) -> None:
        """Raise unless a term's points are of this space, and where the parameters are."""
        if isinstance(term.points, Samples):
            return

        what = f"the points of term {term.name!r}"
        n_columns = len(self.coordinates) + len(term.carried)
        _checks.points(what, term.points, n_columns)
        like = self.parameters
        if (term.points.dtype, term.points.device) != (like.dtype, like.device):
            raise ValueError(
                f"{what} are {term.points.dtype} on {term.points.device}, the parameters "
                f"{like.dtype} on {like.device}: bring one to the other, such as points.to(weight)"
            )

    # --- what it is made of ---

    @property
    def coordinates(self) -> tuple[str, ...]:
        """Names of the points' columns; none of samples."""
        return self.space.coordinates

    @property
    def outputs(self) -> Sequence[str]:
        """Names of the network's outputs."""
        return self.space.outputs

    @property
    def has_samples(self) -> bool:
        """Whether the points are samples of supervised data."""
        return any(are_samples(term.points) for term in self.terms.values())

    @property
    def n_points(self) -> int:
        """Number of training points over all terms."""
        return sum(len(term.points) for term in self.data_terms.values())

    @property
    def data_terms(self) -> Mapping[str, Term]:
        """The terms that have training points: all but penalties."""
        terms = self.terms.items()
        return {name: term for name, term in terms if term.source != "penalty"}

    def term(self, name: str) -> Term:
        """Return the term called ``name``; an unknown name is an error that lists the terms."""
        _checks.one_of("term", name, self.terms)
        return self.terms[name]

    def locations(self, name: str) -> Tensor:
        """Return the points (n, d) of a term; samples have none and are a ``TypeError``."""
        return self.term(name).locations

    def fields(self, names: Sequence[str]) -> Pointwise:
        """Return the pointwise function with the named outputs or derivatives as columns."""
        return self.space.fields(self.network, tuple(names))

    def draw(self, name: str, n: int, seed: int, method: str = "random") -> Tensor:
        """Return n fresh points (n, d) of a term, in the dtype and on the device of its points.

        Of a term whose points are fixed, as measurements are, at most n of these.
        """
        term = self.term(name)
        like = term.points
        if term.source == "fixed":
            # There are no others: some of those that there are.
            return locations(term.some_points(n, seed))
        drawn = self.space.draw(name, n, seed, method)  # float64, on the CPU
        return drawn.to(locations(like))

    def prepare(self, what: str, points: PointsLike, term: str | None = None) -> Points:
        """Return checked points in the dtype and on the device of the parameters.

        They have shape (n, d), or are samples where those of the term are. Points that are not
        finite, or lie where the term does not hold (without one: where the network has no
        meaning), are an error that begins with ``what``.
        """
        name = next(iter(self.terms)) if term is None else term
        training_points = self.term(name).points
        like = self.parameters

        if isinstance(training_points, Samples):
            # Without a term they are inputs alone: there is no loss to compare a target by.
            samples = samples_of(
                what, points, like.dtype, like.device, targets=term is not None
            )
            # Other functions than the term's have no use for its features.
            samples = samples.without_kept()
            return samples.in_batches(training_points.batch_size)

        # Checked in the precision given: float32 would move points off a boundary.
        columns = self.coordinates
        if term is not None:
            columns = (*columns, *self.term(term).carried)
        rows = to_locations(what, points, columns)
        self.space.check(term, rows)
        return rows.to(dtype=like.dtype, device=like.device)

    # --- the same with something else ---

    def with_terms(self, terms: Iterable[Term]) -> Objective:
        """Return the same objective with these terms; they are taken as they are."""
        return self._changed(terms={term.name: term for term in terms})

    def with_evaluator(self, evaluator: Evaluator) -> Objective:
        """Return the same objective whose losses and gradients come from ``evaluator``."""
        return self._changed(evaluator=evaluator)

    def with_space(self, space: Space) -> Objective:
        """Return the same objective, of whose points, fields and terms ``space`` knows."""
        return self._changed(space=space)

    def with_weight_decay(self, weight_decay: float) -> Objective:
        """Return the same objective with the penalty ``(c/2)‖θ‖²`` of this c; 0 for none."""
        _checks.positive("weight_decay", weight_decay, zero=True)
        return self._changed(weight_decay=float(weight_decay))

    def _changed(self, **attributes: object) -> Objective:
        # Without the checks of the constructor, which took place when this one was made.
        other = object.__new__(Objective)
        other._set(**vars(self))
        other._set(**attributes)
        return other

    def with_points(self, points: Mapping[str, PointsLike]) -> Objective:
        """Return the same objective with other points for the named terms; each weighs 1."""
        terms = dict(self.terms)
        for name, rows in points.items():
            prepared = self.prepare(f"the points of term {name!r}", rows, name)
            # Weights of single points belong to the points that were.
            terms[name] = terms[name].with_points(prepared)
        return self.with_terms(terms.values())

    def subset(self, indices: Mapping[str, Tensor]) -> Objective:
        """Return the same objective with these training points only; terms keep their weight w."""
        terms = dict(self.terms)
        for name, chosen in indices.items():
            terms[name] = self.term(name).part(chosen)

        return self.with_terms(terms.values())

    def with_weights(self, weights: Mapping[str, float | Tensor]) -> Objective:
        """Return the same objective with other weights for the named terms.

        A number is the weight w of a term, whose points then weigh the same; a tensor (N,) holds
        the weight of each of its points, ``w·m_i`` with w = 1.
        """
        terms = dict(self.terms)
        for name, weight in weights.items():
            term = self.term(name)
            # A tensor of one number is the weight of the term.
            if isinstance(weight, Tensor) and weight.ndim:
                terms[name] = replace(term, weight=1.0, point_weights=weight)
            else:
                terms[name] = replace(term, weight=float(weight), point_weights=None)

        return self.with_terms(terms.values())

    def with_base_weights(self, weights: Mapping[str, Tensor]) -> Objective:
        """Return the same objective with other base weights b_i (N,) for the named terms."""
        terms = dict(self.terms)
        like = self.parameters.vector()
        for name, values in weights.items():
            terms[name] = replace(self.term(name), base_weights=values.to(like))
        return self.with_terms(terms.values())

    # --- losses and gradients ---

    def point_losses(
        self, tensors: Mapping[str, Tensor] | None = None
    ) -> dict[str, Tensor]:
        """Return the unweighted loss ``ℓ_k(z_i)`` of each point, (N_k,), by term."""
        # Detached unless the caller gives tensors to differentiate with respect to.
        values = self.parameters.tensors() if tensors is None else dict(tensors)
        parts: dict[str, list[Tensor]] = {name: [] for name in self.terms}

        for shared in passes_of(self.terms.values()):
            size = evaluated_at_once(shared.points, values)
            for block in blocks(shared.points, size):
                residuals = shared.residuals(values, block.points)  # (n, m) each
                for term, residual in zip(shared.terms, residuals, strict=True):
                    parts[term.name].append(term.value(residual, block.points))  # (n,)

        return {name: torch.cat(losses) for name, losses in parts.items()}

    def losses(self, tensors: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
        """Return the unweighted mean loss of each term, ``(1/N_k) Σ_i ℓ_k``, by name."""
        point_losses = self.point_losses(tensors)  # ℓ_k(z_i), by term
        return {name: values.mean() for name, values in point_losses.items()}

    def loss(self, tensors: Mapping[str, Tensor] | None = None) -> Tensor:
        """Return L(θ), a scalar; at the network's parameters unless others are given."""
        values = self.parameters.tensors() if tensors is None else tensors
        loss = self.total(self.point_losses(values))
        if not self.weight_decay:
            return loss

        squares = [values[name].square().sum() for name in self.parameters.names]
        return loss + 0.5 * self.weight_decay * torch.stack(squares).sum()

    def total(self, point_losses: Mapping[str, Tensor]) -> Tensor:
        """Return the weighted sum of the terms' mean losses, without a penalty."""
        means = []
        for name, values in point_losses.items():
            term = self.terms[name]
            weights = term.total_weights
            if weights is not None:
                values = values * weights
            # w_k · (1/N_k) Σ_i m_i b_i ℓ_k(z_i)
            means.append(term.weight * values.mean())

        return torch.stack(means).sum()

    def loss_and_gradient(self) -> tuple[float, Tensor]:
        """Return L(θ) and ∇L(θ), shape (P,), at the network's parameters.

        Examples
        --------
        >>> from whence import pinn
        >>> problem = pinn.zoo.load("burgers")
        >>> objective = problem.objective(problem.network(seed=0), problem.sample(50, seed=0))
        >>> loss, gradient = objective.loss_and_gradient()
        >>> loss == float(objective.loss()), gradient.shape
        (True, torch.Size([2241]))
        """
        loss, gradient = self.evaluator.loss_and_gradient(self.parameters, self.terms)
        if not self.weight_decay:
            return loss, gradient

        theta = self.parameters.vector()
        penalty = 0.5 * self.weight_decay * float(theta.square().sum())
        return loss + penalty, gradient + self.weight_decay * theta

    def term_losses(self) -> dict[str, float]:
        """Return ``(1/N_k) Σ_i m_i ℓ_k(z_i)`` of each term, without its weight w_k."""
        return self.evaluator.term_losses(self.parameters, self.terms)

    def term_gradients(self) -> dict[str, LossAndGradient]:
        """Return :meth:`term_losses` and their gradients (P,), without the weights w_k.

        Examples
        --------
        >>> from whence import pinn
        >>> problem = pinn.zoo.load("burgers", "soft")
        >>> points = problem.sample({"pde": 20, "initial_u": 5, "dirichlet_u": 5}, seed=0)
        >>> objective = problem.objective(problem.network(seed=0), points, {"initial_u": 3.0})
        >>> total = 0
        >>> for name, (_, gradient) in objective.term_gradients().items():
        ...     total = total + objective.term(name).weight * gradient
        >>> total.allclose(objective.loss_and_gradient()[1])
        True
        """
        return self.evaluator.term_gradients(self.parameters, self.terms)

    def traces(self) -> dict[str, float]:
        """Return ``Tr K_kk = Σ_i ‖∇r_k(z_i)‖²`` of each term."""
        return self.evaluator.traces(self.parameters, self.terms)


def space_of_outputs(function: ModelFunction, names: Sequence[str]) -> Space:
    """Return the space whose fields are the outputs of a model, under these names."""
    # Two steps: the fields of the space are columns of the model's outputs.
    columns = Space(outputs=names)
    return replace(columns, evaluate=lambda of: columns.columns(function, of))


def check_terms(terms: Sequence[Term]) -> None:
    """Raise unless these are one or more terms of different names."""
    if not terms:
        raise ValueError("an objective needs at least one term")

    for term in terms:
        if not isinstance(term, Term):
            raise TypeError(
                f"the terms of an objective must be Terms, got {_checks.describe(term)}"
            )

    names = [term.name for term in terms]
    if len(set(names)) < len(names):
        listed = ", ".join(map(repr, names))
        raise ValueError(
            f"the terms of an objective need different names, got {listed}"
        )
