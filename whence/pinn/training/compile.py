"""Whether a run uses compiled losses and gradients."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from whence.compilation import Compiled, NotCompiled, Work, passes_to_compile
from whence.evaluator import Remembering
from whence.objective import Objective
from whence.pinn.training.loop import Plan
from whence.pinn.training.observers import say
from whence.shared_pass import passes_of

Compile = Literal["auto"] | bool


def with_evaluator_for(
    objective: Objective, plan: Plan, compile: Compile, progress: bool
) -> Objective:
    """Return the objective with a compiled gradient where that is asked for or pays.

    ``"auto"`` decides by the number of steps, points and parameters alone, not by the clock, so
    that a resumed run decides the same.
    """
    # The weighting and the step that follows share gradients.
    if plan.weighting is not None:
        # A weighting asks for gradients that the step from the same θ needs too.
        objective = objective.with_evaluator(Remembering())

    # Gauss–Newton differentiates residuals one by one, for which there is no compiled code.
    gradients = sum(s.iterations for s in plan.schedule if s.by_gradient)
    if compile is True and not gradients:
        raise ValueError(
            "compile=True does nothing: no optimizer in the schedule steps by gradients, as "
            "Adam, L-BFGS and SSBroyden do"
        )

    n_parameters = objective.parameters.size
    points = points_of_a_step(objective, plan)
    by_term = plan.weighting is not None
    n_compiled = len(passes_to_compile(objective, by_term))
    work = Work(gradients, points, n_parameters, n_compiled)
    wanted = compile is True or (compile == "auto" and work.pays_for_compilation())
    if not gradients or not wanted:
        return objective

    if progress:
        say(
            f"compiling the loss and its gradient: {work.terms} term(s), some seconds each"
        )
    try:
        compiled = Compiled(objective, by_term)
    except NotCompiled as error:
        if compile is True:
            raise ValueError(
                f"compile=True, but the gradient cannot be compiled: {error}"
            ) from None

        say(f"training without compilation: {error}")
        return objective

    weighting = plan.weighting
    if weighting is not None and weighting.reads_traces:
        # Traces are read once in update_every steps: compiling them takes longer to pay.
        updates = replace(work, gradients=work.gradients // weighting.update_every)
        if updates.pays_for_compilation():
            compile_traces(compiled, objective, progress)
    return objective.with_evaluator(compiled)


def points_of_a_step(objective: Objective, plan: Plan) -> int:
    """Return how many points the dearest step of a schedule evaluates."""
    most = 0
    for stage in plan.schedule:
        if not stage.by_gradient:
            continue
        # Of a stage in batches each term has at most so many points in a step.
        batch = getattr(stage, "batch_size", None)
        # Terms at the same points are evaluated in one pass.
        passes = passes_of(objective.terms.values())
        sizes = [len(shared.points) for shared in passes]
        if batch is not None:
            sizes = [min(n, batch) for n in sizes]
        most = max(most, sum(sizes))
    return most


def compile_traces(compiled: Compiled, objective: Objective, progress: bool) -> None:
    """Compile the traces that a weighting reads; where that fails they stay eager."""
    if progress:
        say("compiling the traces of the tangent kernel too")
    try:
        compiled.compile_traces(objective)
    except NotCompiled as error:
        say(f"the kernel's traces are not compiled: {error}")
