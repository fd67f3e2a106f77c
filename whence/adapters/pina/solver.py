"""A PINA solver as an objective: the same loss, at the same points."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from pina import Condition, LabelTensor
from pina.condition import InputEquationCondition, InputTargetCondition
from pina.optim import TorchOptimizer
from pina.problem import BaseProblem
from pina.solver import (
    PhysicsInformedSingleModelSolver,
    SolverInterface,
    SupervisedSingleModelSolver,
)
from pina.weighting import ScalarWeighting
from torch import Tensor, nn

from whence import _checks
from whence.adapters.agreement import disagreements
from whence.adapters.columns import Columns
from whence.adapters.formulas import Formula, pointwise
from whence.adapters.optimizers import penalty_of_optimizer
from whence.adapters.pina.labels import (
    LabelColumns,
    LabelJet,
    LabelPoints,
    labelled,
    plain,
)
from whence.adapters.pina.space import PinaSpace
from whence.adapters.variables import WithVariables
from whence.jets import Jet
from whence.objective import Objective
from whence.pinn.pde.fields import FieldMap
from whence.pinn.pde.term_function import check_term_uncoupled
from whence.term import Source, Term

SOLVERS = (PhysicsInformedSingleModelSolver, SupervisedSingleModelSolver)
"""Solvers whose loss is that of each condition's residual and nothing else."""


class LabelledModel(nn.Module):
    """A PINA model that takes and returns tensors without labels, or jets.

    Parameters
    ----------
    model:
        From tensors with labels to outputs.
    labels:
        Names of the columns of inputs.
    """

    def __init__(self, model: nn.Module, labels: tuple[str, ...]) -> None:
        super().__init__()
        self.model = model
        self._labels = labels

    def forward(self, points: Tensor | Jet) -> Tensor:
        """Return the outputs (n, m) at points (n, d)."""
        inputs: LabelJet | LabelTensor = points
        if isinstance(points, Jet):
            inputs = LabelJet(points, self._labels)
        elif not isinstance(points, LabelTensor):
            inputs = LabelPoints(points, self._labels)
        return plain(self.model(inputs))


def from_solver(
    solver: SolverInterface, *, weight_decay: float | None = None
) -> Objective:
    """Return the loss of a PINA solver, ``Σ_k w_k/N_k Σ_i ‖r_k(z_i)‖²``, as it stands.

    Each condition is a term of its name, at all its points, with the weight that the solver's
    weighting gave it last (1 before training). PINA averages squares over the m columns of a
    residual too, so that a term's weight is divided by m. Parameters are the model's and, of an
    ``InverseProblem``, the unknown parameters by name. They are shared: what trains the solver
    moves the objective, and what trains the objective the solver.

    Derivatives that an equation takes by PINA's operators or ``torch.autograd.grad`` come in one
    pass through the network where they are derivatives of outputs; an equation that differentiates
    an expression goes through autograd as it stands, point by point, which is as exact and slower.
    Either way every condition's loss is compared with PINA's before it is returned.

    Parameters
    ----------
    solver:
        A ``PINN`` (``PhysicsInformedSingleModelSolver``), or a ``SupervisedSolver`` of labelled
        tensors; trained or not.
    weight_decay:
        c of the penalty ``(c/2)‖θ‖²``; by default that of the solver's optimizer. Where that decays
        weights apart from the loss, as AdamW does, it must be given.

    Returns
    -------
    Objective
        What ``wh.Influence`` and all other methods of whence take.

    Raises
    ------
    TypeError
        If it is no such solver, or a condition is of graphs or unlabelled tensors.
    ValueError
        If the problem has no conditions, a domain has no points, the loss is not the mean of
        squares, a condition's loss differs from PINA's, or the optimizer has no one penalty.

    Examples
    --------
    >>> import whence as wh
    >>> from whence.adapters.pina import from_solver  # doctest: +SKIP
    >>> objective = from_solver(solver)  # doctest: +SKIP
    >>> wh.Influence(objective).attribute(wh.Output([[0.5, 0.5]])).plot()  # doctest: +SKIP
    """
    check_solver(solver)
    if weight_decay is None:
        weight_decay = weight_decay_of(solver)
    problem = solver.problem
    coordinates = tuple(problem.input_variables)
    outputs = tuple(problem.output_variables)
    variables = dict(getattr(problem, "unknown_parameters", {}))
    model = WithVariables(LabelledModel(solver.model, coordinates), variables)
    field_map = FieldMap(model, coordinates, outputs, unknowns=model.names)
    weights = condition_weights(solver)

    terms = []
    domains = {}
    n_columns = {}
    for name, condition in problem.conditions.items():
        rows, carried = condition_rows(name, condition, problem)
        rows = rows[training_rows(solver, name)]
        rows = rows.to(next(model.parameters()).detach())
        formula = condition_formula(name, condition, coordinates, outputs, variables)
        function = pointwise(formula, field_map, model, rows)
        tensors = {key: p.detach() for key, p in model.named_parameters()}
        with torch.no_grad():
            n_columns[name] = function(tensors, rows[:2]).shape[1]

        domain = getattr(condition, "domain", None)
        domains[name] = problem.domains[domain] if isinstance(domain, str) else domain
        source: Source = "drawn" if domain is not None else "given"
        if carried:
            source = "fixed"
        terms.append(
            Term(
                name, function, rows, weights[name] / n_columns[name],
                carried=carried, source=source,
            )
        )  # fmt: skip
        check_term_uncoupled(terms[-1], tensors, f"condition {name!r}")

    space = PinaSpace(field_map, domains, n_columns)
    objective = Objective(model, terms, space=space, weight_decay=weight_decay)
    check_losses(solver, objective)
    return objective


def check_solver(solver: object) -> None:
    """Raise unless a solver's loss is made of mean squares of its conditions' residuals."""
    # The very class: one derived from it may have a loss of its own.
    if type(solver) not in SOLVERS:
        kinds = " or ".join(kind.__name__ for kind in SOLVERS)
        raise TypeError(
            f"expected a solver of PINA of class {kinds}, got {type(solver).__name__}: others add "
            "to the loss, or have several models"
        )
    assert isinstance(solver, SOLVERS)
    if not solver.problem.conditions:
        raise ValueError(
            "the solver's problem has no conditions, so that it has no loss: give it some"
        )
    reduction = getattr(
        solver, "_reduction", "mean"
    )  # PINA sets the loss's own to "none"
    if type(solver.loss) is not nn.MSELoss or reduction != "mean":
        raise ValueError(
            f"the solver's loss is {type(solver.loss).__name__}, reduced by {reduction!r}: whence "
            "takes means of squares, torch.nn.MSELoss()"
        )


def weight_decay_of(solver: SolverInterface) -> float:
    """Return c of the penalty ``(c/2)‖θ‖²`` that a solver's optimizer adds by ``weight_decay``."""
    optimizer = solver.optimizer
    if not isinstance(optimizer, TorchOptimizer):
        return 0.0
    # PINA makes the optimizer when the training starts, of these options.
    weights = [torch.nn.Parameter(torch.zeros(1))]
    return penalty_of_optimizer(optimizer.optimizer_class(weights, **optimizer.kwargs))


def condition_rows(
    name: str, condition: Condition, problem: BaseProblem
) -> tuple[Tensor, tuple[str, ...]]:
    """Return a condition's points (N, d + q) with the targets that they carry, and their names."""
    inputs = getattr(condition, "input", None)
    if inputs is None:
        # Before training the points are kept by domain.
        inputs = problem.discretised_domains.get(condition.domain)
    if inputs is None:
        raise ValueError(
            f"condition {name!r} has no points as yet: call problem.discretise_domain(n, "
            f"domains={condition.domain!r}) first"
        )
    if not isinstance(inputs, LabelTensor):
        raise TypeError(
            f"the inputs of condition {name!r} are {_checks.describe(inputs)}: expected a "
            "LabelTensor of the problem's input variables"
        )

    rows = plain(inputs.extract(list(problem.input_variables))).detach()
    if not isinstance(condition, InputTargetCondition):
        return rows, ()
    targets = condition.target
    columns = plain(targets).detach()
    if columns.shape[1] != len(problem.output_variables):
        raise ValueError(
            f"the targets of condition {name!r} have {columns.shape[1]} column(s) for the outputs "
            f"{', '.join(problem.output_variables)}, which PINA compares one by one: give a "
            "target for each, or a condition of an equation with those that were measured"
        )
    if isinstance(targets, LabelTensor) and targets.labels is not None:
        columns = plain(targets.extract(list(problem.output_variables))).detach()
    carried = tuple(f"target_{output}" for output in problem.output_variables)
    return torch.cat([rows, columns], dim=1), carried


def training_rows(solver: SolverInterface, name: str) -> list[int] | slice:
    """Return which points of a condition a solver is trained on: all but those set aside."""
    try:
        data = solver.trainer.datamodule
    except RuntimeError:  # no trainer as yet
        return slice(None)
    # In the order of the condition, whichever way the trainer shuffles them.
    return sorted(data.split_idxs[name]["train"])


def condition_formula(
    name: str,
    condition: Condition,
    coordinates: tuple[str, ...],
    outputs: tuple[str, ...],
    variables: Mapping[str, Tensor],
) -> Formula:
    """Return a condition's residual as a formula."""
    parameters = dict(variables) or None
    # That of now: the objective stays as it is where the condition gets another.
    equation = getattr(condition, "equation", None)

    def residual(inputs: Any, values: Any, rows: Tensor) -> Tensor:
        u = with_labels(values, outputs)
        if equation is None:
            difference: Tensor = plain(u) - rows[:, len(coordinates) :]
            return difference
        x = with_labels(inputs, coordinates)
        result: Tensor = plain(equation.residual(x, u, parameters))
        return result

    return Formula(
        f"condition {name!r}", residual, lambda rows: labelled(rows, coordinates)
    )


def with_labels(
    values: Columns | Tensor | LabelTensor, labels: tuple[str, ...]
) -> LabelTensor:
    """Return columns of fields, or a tensor, as PINA's tensor."""
    if isinstance(values, Columns):
        return LabelColumns(values, list(labels))
    if isinstance(values, LabelTensor):
        return values
    return labelled(values, labels)


def condition_weights(solver: SolverInterface) -> dict[str, float]:
    """Return each condition's weight: the last of the solver's weighting, or the fixed one."""
    names = list(solver.problem.conditions)
    weighting = solver.weighting
    weights = dict(weighting.last_saved_weights())
    if not weights and isinstance(weighting, ScalarWeighting):
        weights = weighting.update_weights(dict.fromkeys(names, 0.0))
    return {name: float(weights.get(name, 1.0)) for name in names}


def check_losses(solver: SolverInterface, objective: Objective) -> None:
    """Raise ``ValueError`` unless every condition's loss is PINA's."""
    space = objective.space
    assert isinstance(space, PinaSpace)

    def ours() -> dict[str, float]:
        losses = objective.term_losses()
        return {name: losses[name] / space.n_columns[name] for name in losses}

    def theirs() -> dict[str, float]:
        conditions = solver.problem.conditions
        return {name: pina_loss(solver, name, c) for name, c in conditions.items()}

    for name, (loss, expected) in disagreements(objective, ours, theirs).items():
        raise ValueError(
            f"the loss of condition {name!r} is {loss:.6g}, in PINA {expected:.6g}: its "
            "residual at a point may depend on other points, or its model draws random numbers"
        )


def pina_loss(solver: SolverInterface, name: str, condition: Condition) -> float:
    """Return PINA's own mean of squares of a condition's residual at its points."""
    inputs = getattr(condition, "input", None)
    if inputs is None:
        inputs = solver.problem.discretised_domains[condition.domain]
        condition = InputEquationCondition(input=inputs, equation=condition.equation)
    rows = training_rows(solver, name)
    batch = {"input": inputs[rows].clone()}
    if isinstance(condition, InputTargetCondition):
        batch["target"] = condition.target[rows]
    with torch.enable_grad():
        residual = plain(condition.evaluate(batch, solver))
    return float(residual.detach().square().mean())
