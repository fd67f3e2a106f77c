"""A compiled DeepXDE model as an objective: the same loss, at the same points."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import deepxde as dde
import numpy as np
import torch
from torch import Tensor

from whence import _checks
from whence.adapters.deepxde.conditions import (
    NAMES,
    ConvertedCondition,
    converted,
)
from whence.adapters.deepxde.space import DeepXDESpace, Place
from whence.adapters.formulas import Formula, Residual, pointwise, remembered
from whence.adapters.variables import WithVariables, name_of
from whence.objective import Objective
from whence.pinn.pde.fields import FieldMap
from whence.pinn.pde.term_function import check_term_uncoupled
from whence.points import Pointwise, locations
from whence.term import Term

DATA = (dde.data.PDE, dde.data.TimePDE)
"""The kinds of data that have an equation and conditions, each at points of their own."""
TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-8}
"""How far, relatively, a term's loss may be from DeepXDE's."""


def from_model(
    model: dde.Model,
    *,
    coordinates: Sequence[str] | None = None,
    outputs: Sequence[str] | None = None,
    names: Sequence[str] | None = None,
) -> Objective:
    """Return the loss of a compiled DeepXDE model, ``Σ_k w_k/N_k Σ_i ‖r_k(z_i)‖²``, as it stands.

    Each residual of the equation and each condition is a term, at DeepXDE's own points and with the
    weight of ``loss_weights``; where a residual has m columns, whose squares DeepXDE averages too,
    the weight is divided by m. Parameters are those of ``model.net`` and, in an inverse problem,
    the ``external_trainable_variables``, by the names that the equation has for them. They are
    shared: what trains the model moves the objective, and what trains the objective the model.

    Derivatives that the equation takes of outputs, and derivatives of these, come in one pass
    through the network; an equation that differentiates an expression goes through autograd as it
    stands, point by point, which is as exact and slower. Either way every term's loss is compared
    with DeepXDE's before it is returned.

    Parameters
    ----------
    model:
        A compiled model of ``dde.data.PDE`` or ``dde.data.TimePDE``, of the PyTorch backend.
    coordinates:
        Names of the columns of the inputs: by default x, y, z, and t where time is the last.
    outputs:
        Names of the network's outputs: by default u, or u0, u1, ….
    names:
        Names of the terms, residuals of the equation first: by default ``pde`` (``pde_1``, …) and
        kinds of conditions such as ``dirichlet``, with the output's name where there are several.

    Returns
    -------
    Objective
        What ``wh.Influence`` and all other methods of whence take.

    Raises
    ------
    TypeError
        If it is no model of DeepXDE, its backend is another one, its data are of another kind, or a
        condition is of a kind that has no formula.
    ValueError
        If the model is not compiled, a condition has no points, names do not fit, a variable has
        no gradient, a residual at a point depends on other points, or a term's loss differs from
        DeepXDE's, as it does where the model is compiled with another loss than mean squares.

    Examples
    --------
    >>> import deepxde as dde, numpy as np, whence as wh  # doctest: +SKIP
    >>> from whence.adapters.deepxde import from_model  # doctest: +SKIP
    >>> objective = from_model(model)  # doctest: +SKIP
    >>> wh.Influence(objective).attribute(wh.Output([[0.5, 0.5]])).plot()  # doctest: +SKIP
    """
    check_model(model)
    data = model.data
    coordinates = coordinate_names(data, coordinates)
    outputs = output_names(model, outputs)
    module = with_variables(model)
    field_map = FieldMap(module, coordinates, outputs, unknowns=module.names)

    equations = equation_residuals(model)
    labels = term_names(len(equations), data.bcs, outputs, names)
    weights = term_weights(model, len(labels))

    equation_rows = data.train_x[sum(data.num_bcs) :]
    parts = [ConvertedCondition(residual, equation_rows) for residual in equations]
    parts += conditions_at_points(data)
    conditions = [None] * len(equations) + list(data.bcs)

    terms = []
    places = {}
    for name, weight, part, bc in zip(labels, weights, parts, conditions, strict=True):
        term, n_columns = term_of(name, weight, part, field_map, module)
        terms.append(term)
        places[name] = Place(data.geom, bc, term.source == "fixed", n_columns)

    first = len(equations)
    groups = {"pde": labels[:first]} if first > 1 else {}
    space = DeepXDESpace(field_map, places, groups)
    objective = Objective(module, terms, space=space, weight_decay=weight_decay(model))
    check_losses(model, objective)
    return objective


def refreshed(objective: Objective, model: dde.Model) -> Objective:
    """Return a model's objective with the points and loss weights that the model has now."""
    data = model.data
    weights = term_weights(model, len(objective.terms))
    n_equations = len(weights) - len(data.bcs)
    space = objective.space
    assert isinstance(space, DeepXDESpace)

    # Points of conditions first, those of the equation last.
    ends = np.cumsum([0, *data.num_bcs])
    terms = []
    for k, (name, term) in enumerate(objective.terms.items()):
        place = space.places[name]
        if k < n_equations:
            points = data.train_x[ends[-1] :]
        else:
            first = ends[k - n_equations]
            points = data.train_x[
                first : first + place.n_rows(data.num_bcs[k - n_equations])
            ]
        if term.source != "fixed":
            rows = torch.as_tensor(points).to(term.locations)
            term = term.with_points(rows)
        terms.append(replace(term, weight=weights[k] / place.n_columns))
    return objective.with_terms(terms)


def check_model(model: object) -> None:
    """Raise unless it is a compiled model of the PyTorch backend, of data that can be converted."""
    backend = dde.backend.backend_name
    if backend != "pytorch":
        raise TypeError(
            f"DeepXDE runs on the backend {backend!r}: whence differentiates models of PyTorch; "
            "set DDE_BACKEND=pytorch before DeepXDE is imported, and use functions of torch in the "
            "equation"
        )
    if not isinstance(model, dde.Model):
        raise TypeError(f"expected a deepxde.Model, got {_checks.describe(model)}")
    if type(model.data) not in DATA:
        kinds = " or ".join(f"dde.data.{kind.__name__}" for kind in DATA)
        raise TypeError(
            f"data of class {type(model.data).__name__} cannot be converted: expected {kinds}, "
            "whose residuals each have a point of their own; integrals, memories and fractional "
            "derivatives can be written as a pinn.Problem"
        )
    if model.outputs_losses_train is None:
        raise ValueError(
            "the model is not compiled, so that it has no loss: call model.compile(...) first"
        )
    if dde.config.autodiff != "reverse":
        raise ValueError(
            f"DeepXDE differentiates by {dde.config.autodiff!r} mode, in which equations get a "
            'function beside the outputs: call dde.config.set_default_autodiff("reverse")'
        )
    regularizer = model.net.regularizer
    if regularizer is not None and regularizer[0] != "l2":
        raise ValueError(
            f"the regularizer {regularizer[0]!r} is no part of whence's loss: expected 'l2' or none"
        )


def coordinate_names(
    data: dde.data.PDE, coordinates: Sequence[str] | None
) -> tuple[str, ...]:
    """Return the names of the columns of inputs."""
    d = data.geom.dim
    if coordinates is not None:
        return checked_names("coordinates", coordinates, d)

    has_time = hasattr(data.geom, "timedomain")
    is_time = isinstance(data.geom, dde.geometry.TimeDomain)
    n_space = 0 if is_time else d - has_time
    space = ("x", "y", "z")[:n_space]
    if n_space > 3:
        space = tuple(f"x{k}" for k in range(n_space))
    return (*space, "t") if has_time or is_time else space


def output_names(model: dde.Model, outputs: Sequence[str] | None) -> tuple[str, ...]:
    """Return the names of the network's outputs."""
    like = next(model.net.parameters())
    with torch.no_grad():
        point = torch.as_tensor(model.data.train_x[:1]).to(like)
        n = model.net(point.requires_grad_()).shape[1]
    if outputs is not None:
        return checked_names("outputs", outputs, n)
    return ("u",) if n == 1 else tuple(f"u{k}" for k in range(n))


def checked_names(what: str, names: Sequence[str], n: int) -> tuple[str, ...]:
    """Return n different names; anything else is a ``ValueError``."""
    names = (names,) if isinstance(names, str) else tuple(names)
    if len(names) != n or len(set(names)) != n:
        raise ValueError(f"{what} must be {n} different name(s), got {names}")
    return names


def with_variables(model: dde.Model) -> WithVariables:
    """Return the network with the external trainable variables, which share their memory."""
    functions = [model.data.pde] if model.data.pde is not None else []
    for name in ("_output_transform", "_input_transform"):
        transform = getattr(model.net, name, None)
        if transform is not None:
            functions.append(transform)
    functions += [bc.func for bc in model.data.bcs if hasattr(bc, "func")]

    variables: dict[str, Tensor] = {}
    for k, variable in enumerate(model.external_trainable_variables):
        if not isinstance(variable, Tensor) or not variable.requires_grad:
            raise ValueError(
                f"external_trainable_variables[{k}] is {_checks.describe(variable)}: expected a "
                "dde.Variable"
            )
        name = name_of(variable, functions, f"variable_{k}")
        if name in variables or not name.isidentifier():
            name = f"variable_{k}"
        variables[name] = variable
    return WithVariables(model.net, variables)


def equation_residuals(model: dde.Model) -> list[Residual]:
    """Return the residuals of the equation, functions of inputs, outputs and points."""
    data = model.data
    if data.pde is None:
        return []

    auxiliary = None
    if data.auxiliary_var_fn is not None:
        auxiliary = remembered(data.auxiliary_var_fn)

    def every(inputs: Any, outputs: Any, rows: Tensor) -> list[Tensor]:
        if auxiliary is None:
            results = data.pde(inputs, outputs)
        else:
            results = data.pde(inputs, outputs, auxiliary(rows))
        return list(results) if isinstance(results, (list, tuple)) else [results]

    def part(k: int) -> Residual:
        def residual(inputs: Any, outputs: Any, rows: Tensor) -> Tensor:
            return every(inputs, outputs, rows)[k]

        return residual

    return [part(k) for k in range(n_residuals(model))]


def n_residuals(model: dde.Model) -> int:
    """Return how many residuals the equation has: as many losses as are not of conditions."""
    losses = deepxde_losses(model)
    return len(losses) - len(model.data.bcs)


def deepxde_losses(model: dde.Model) -> list[float]:
    """Return DeepXDE's own losses at its training points, weighted, in its order."""
    data = model.data
    was_training = model.net.training
    inputs = torch.as_tensor(data.train_x).clone()
    losses = model.outputs_losses_test(inputs, data.train_y, data.train_aux_vars)[1]
    model.net.train(was_training)
    return losses.detach().tolist()


def conditions_at_points(data: dde.data.PDE) -> list[ConvertedCondition]:
    """Return the conditions as formulas, each at its training points."""
    conditions = []
    start = 0
    for k, (bc, n) in enumerate(zip(data.bcs, data.num_bcs, strict=True)):
        points = data.train_x[start : start + n]
        start += n
        if not n:
            raise ValueError(
                f"condition {k} ({type(bc).__name__}) has no training points: raise num_boundary "
                "or num_initial, or look at which points its function of (x, on_boundary) takes"
            )
        conditions.append(converted(bc, points))
    return conditions


def term_of(
    name: str,
    weight: float,
    part: ConvertedCondition,
    field_map: FieldMap,
    module: WithVariables,
) -> tuple[Term, int]:
    """Return the term of a residual of the equation, or of a condition, and its columns' number."""
    like = next(module.parameters())
    rows = torch.as_tensor(np.asarray(part.rows)).to(like.detach())

    def cleared(inputs: Any, outputs: Any, at: Tensor) -> Tensor:
        # DeepXDE keeps derivatives by tensor until it is made to forget them.
        dde.grad.clear()
        try:
            return part.residual(inputs, outputs, at)
        finally:
            dde.grad.clear()

    function = pointwise(Formula(f"term {name!r}", cleared), field_map, module, rows)
    if part.partner is not None:
        function = difference(function, part.partner)

    tensors = {key: p.detach() for key, p in module.named_parameters()}
    with torch.no_grad():
        n_columns = function(tensors, rows[:2]).shape[1]
    term = Term(
        name,
        function,
        rows,
        weight / n_columns,  # DeepXDE averages over the columns too
        carried=part.carried,
        source="fixed" if part.carried else "drawn",
    )
    check_term_uncoupled(term, tensors, f"term {name!r}")
    return term, n_columns


def difference(function: Pointwise, partner: Callable[[Tensor], Tensor]) -> Pointwise:
    """Return a function at points minus the same at their partners."""

    def at(tensors: Mapping[str, Tensor], points: Any) -> Tensor:
        rows = locations(points)
        return function(tensors, rows) - function(tensors, partner(rows))

    at.__qualname__ = function.__qualname__
    return at


def term_weights(model: dde.Model, n: int) -> list[float]:
    """Return the weight of each term."""
    weights = model.loss_weights
    if weights is None:
        return [1.0] * n
    if len(weights) != n:
        raise ValueError(
            f"loss_weights has {len(weights)} entries for {n} losses: give one for each"
        )
    return [float(weight) for weight in weights]


def weight_decay(model: dde.Model) -> float:
    """Return c of the penalty ``(c/2)‖θ‖²`` that DeepXDE leaves to the optimizer."""
    if model.net.regularizer is None:
        return 0.0
    if model.external_trainable_variables:
        raise ValueError(
            "an l2 regularizer penalizes the network's parameters and not the external variables, "
            "which is no penalty of whence: leave one of them out"
        )
    return float(model.net.regularizer[1])


def term_names(
    n_equations: int,
    bcs: Sequence[dde.icbc.BC],
    outputs: Sequence[str],
    names: Sequence[str] | None,
) -> tuple[str, ...]:
    """Return a name for each term: residuals of the equation, then conditions."""
    if names is not None:
        return checked_names("names", names, n_equations + len(bcs))

    kinds = ["pde"] * n_equations
    for bc in bcs:
        kind = NAMES.get(type(bc), type(bc).__name__.lower())
        component = getattr(bc, "component", None)
        if len(outputs) > 1 and isinstance(component, int) and kind != "operator":
            kind += f"_{outputs[component]}"
        kinds.append(kind)

    # Numbers where there are several of a kind.
    counts = Counter(kinds)
    seen: Counter[str] = Counter()
    labels = []
    for kind in kinds:
        seen[kind] += 1
        labels.append(kind if counts[kind] == 1 else f"{kind}_{seen[kind]}")
    return tuple(labels)


def check_losses(model: dde.Model, objective: Objective) -> None:
    """Raise ``ValueError`` unless every term's loss is DeepXDE's."""
    tolerance = TOLERANCE[objective.parameters.dtype]
    theirs = deepxde_losses(model)
    ours = objective.term_losses()
    batched = [getattr(bc, "batch_size", None) is not None for bc in model.data.bcs]
    is_batched = [False] * (len(theirs) - len(batched)) + batched
    for (name, loss), expected, skipped in zip(
        ours.items(), theirs, is_batched, strict=True
    ):
        weighted = objective.term(name).weight * loss
        if skipped or math.isclose(
            weighted, expected, rel_tol=tolerance, abs_tol=1e-30
        ):
            continue
        raise ValueError(
            f"the loss of term {name!r} is {weighted:.6g}, in DeepXDE {expected:.6g}: whence takes "
            "means of squares, so compile the model with loss='MSE'; an equation whose residual at "
            "a point depends on other points, or a network that draws random numbers, has no term"
        )
