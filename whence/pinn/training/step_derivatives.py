"""Derivatives of single steps of optimizers, backwards: of Adam and of Gauss–Newton.

A step makes θ′ and the optimizer's next state of θ, its state and the weights w of the points.
For K columns λ of derivatives by what it made, the functions here return those by what it was
made of, exactly.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from whence.curvature.exact import Exact
from whence.curvature.operators import GaussNewtonMatrix, Hessian
from whence.curvature.solvers import Damping
from whence.jacobian import Jacobian, gradient_products
from whence.objective import Objective
from whence.pinn.optimizers import Adam, GaussNewton
from whence.pinn.optimizers.gauss_newton import GaussNewtonStepper
from whence.pinn.optimizers.stepper import Optimizer, OptimizerState
from whence.replay.steps import State
from whence.replay.updates import adam
from whence.term import Term

THETA = "theta"
GRADIENT = "gradient"
MU = "number.mu"
"""μ of the next step, as a run's state names it; absent where it is relative to J."""
EVERY_POINT = slice(None)


@dataclass(frozen=True, eq=False)
class Derivative:
    """Derivatives of K answers by what a step was made of.

    Parameters
    ----------
    cotangent:
        By θ and the optimizer's state before the step, each (K, …).
    by_point:
        By the weights of the points of each term, (K, n).
    """

    cotangent: dict[str, Tensor]
    by_point: Mapping[str, Tensor]


PullBack = Callable[[Optimizer, Objective, State, State], Derivative]
"""``(stage, objective, state before, cotangent after) -> derivative``, at θ of the state."""


def pull_back_adam(
    stage: Optimizer, objective: Objective, state: State, cotangent: State
) -> Derivative:
    """Return the derivative of a step of Adam.

    ``θ, m, v ← adam(θ, g, m, v)`` with ``g = Σ_k (w_k/N_k) Σ_i m_i ∇ℓ_k(z_i)``. With λ_g the part
    of ``(∂adam/∂·)ᵀλ`` that belongs to g, θ gets ``H λ_g`` more, and the weight of a point
    ``(w_k m_i/N_k) ∇ℓ_k(z_i)·λ_g``.
    """
    assert isinstance(stage, Adam)
    _, gradient = objective.loss_and_gradient()
    pulled = pulled_through_adam(stage, state, gradient, cotangent)
    by_gradient = pulled.pop(GRADIENT)  # λ_g, (K, P)
    pulled[THETA] = pulled[THETA] + Hessian(objective).matmat(by_gradient.T).T

    by_point = {}
    for name in objective.data_terms:
        by_point[name] = gradient_weights(objective, name, by_gradient)
    return Derivative(pulled, by_point)


def pulled_through_adam(
    stage: Adam, state: State, gradient: Tensor, cotangent: State
) -> dict[str, Tensor]:
    """Return ``(∂adam/∂·)ᵀλ`` by θ, m, v and the gradient, each (K, P)."""
    options = {
        **torch.optim.Adam([torch.zeros(1)]).defaults,
        "lr": stage.lr,
        "betas": stage.betas,
    }
    # Leaves of their own: the formula is differentiated by them, number by number.
    inputs = {GRADIENT: gradient.clone().requires_grad_()}
    for name in (THETA, "exp_avg", "exp_avg_sq"):
        if name in state:
            inputs[name] = state[name].clone().requires_grad_()
    moments = {name: inputs.get(name, value) for name, value in state.items()}
    after, following = adam(inputs[THETA], inputs[GRADIENT], moments, options)

    outputs = {THETA: after, **following}
    followed = [name for name in outputs if name in cotangent]
    gradients = torch.autograd.grad(
        [outputs[name] for name in followed],
        list(inputs.values()),
        [cotangent[name] for name in followed],
        is_grads_batched=True,
        allow_unused=True,
        materialize_grads=True,
    )
    return dict(zip(inputs, gradients, strict=True))


def pull_back_gauss_newton(
    stage: Optimizer, objective: Objective, state: State, cotangent: State
) -> Derivative:
    """Return the derivative of a step of Gauss–Newton with Levenberg–Marquardt damping.

    The step δ solves ``(G + μI)δ = −∇L`` with ``G = JᵀJ``. A change of θ or w changes it by
    ``(G + μI)dδ = −d∇L − (dG)δ − dμ δ``, so with ``u = (G + μI)⁻¹λ``

    ``λᵀdδ = −uᵀd∇L − uᵀ(dG)δ − uᵀδ dμ``.

    By θ the first is ``−Hu`` and the second ``−∇θ(uᵀG(θ)δ)`` with u and δ held; by the weight of a
    point they are ``−s_i ∇ℓ_i·u`` and ``−s_i (J_i u)ᵀΛ_i(J_i δ)``, ``s_i = w_k m_i/N_k``. The
    accepted μ is that of the state, or ``c·mean(diag JJᵀ)`` at first, times factors that small
    changes leave as they are.
    """
    assert isinstance(stage, GaussNewton)
    stepper = GaussNewtonStepper(stage, objective.parameters)
    if MU in state:
        numbers = {"mu": float(state[MU]), "stalled": 0, "steps": 0}
        stepper.restore(OptimizerState({}, numbers))
    # Taken once more, as the accepted step and its damping are no part of the state.
    theta = objective.parameters.vector()
    stepper.advance(objective, 1)
    objective.parameters.assign(theta)
    accepted = stepper.accepted
    by_theta = cotangent[THETA].clone()  # of θ itself in θ + δ
    if accepted is None:  # no step lowered the loss: θ stays
        points = {n: len(t.points) for n, t in objective.data_terms.items()}
        nothing = {n: by_theta.new_zeros(len(by_theta), k) for n, k in points.items()}
        return Derivative({THETA: by_theta}, nothing)

    # The system of the step itself, with λ on the right-hand side.
    damping = Damping(accepted.damping, relative=False)
    factored = Exact().factor(GaussNewtonMatrix(objective), damping)
    solved = factored.solve(cotangent[THETA].T).value.T  # u, (K, P)

    by_theta -= Hessian(objective).matmat(solved.T).T
    by_theta -= form_gradients(objective, solved, accepted.delta)
    by_point = {}
    for name, term in objective.data_terms.items():
        values = gradient_weights(objective, name, solved)
        values = values + form_weights(objective, term, solved, accepted.delta)
        by_point[name] = -values

    # By the accepted μ, then by the first one tried, of which it is a multiple.
    next_mu = float(stepper.state().numbers["mu"])
    by_mu = -(solved @ accepted.delta)  # −uᵀδ
    if MU in cotangent:
        by_mu = by_mu + cotangent[MU] * next_mu / accepted.damping
    if MU in state:
        by_mu = by_mu * accepted.damping / float(state[MU])
        return Derivative({THETA: by_theta, MU: by_mu}, by_point)

    diagonal = mean_diagonal(objective)
    by_diagonal = by_mu * accepted.damping / diagonal.value
    by_theta += by_diagonal[:, None] * diagonal.gradient
    for name, values in diagonal.by_point.items():
        by_point[name] = by_point[name] + by_diagonal[:, None] * values
    return Derivative({THETA: by_theta}, by_point)


def gradient_weights(objective: Objective, name: str, vectors: Tensor) -> Tensor:
    """Return ``(w_k m_i/N_k) ∇ℓ_k(z_i)·v`` of a term's points for vectors (K, P), (K, n)."""
    term = objective.term(name)
    products = gradient_products(term, objective.parameters, term.points, vectors.T)
    return products.T * term.scales(EVERY_POINT)


def form_gradients(objective: Objective, left: Tensor, right: Tensor) -> Tensor:
    """Return ``∇θ(uᵀG(θ)δ)`` for left u (K, P) and right δ (P,), both held, (K, P)."""
    parameters = objective.parameters

    # Over all terms: penalties bend the path too, though they have no points.
    def value(theta: Tensor, u: Tensor) -> Tensor:
        total = theta.new_zeros(())
        for term in objective.terms.values():
            total = total + (_forms(objective, term, theta, u, right)).sum()
        return total

    gradient = torch.func.vmap(torch.func.grad(value), in_dims=(None, 0))
    result: Tensor = gradient(parameters.vector(), left)
    return result.detach()


def form_weights(
    objective: Objective, term: Term, left: Tensor, right: Tensor
) -> Tensor:
    """Return ``s_i (J_i u)ᵀΛ_i(J_i δ)`` of a term's points for left u (K, P), (K, n)."""
    theta = objective.parameters.vector()
    rows = [_forms(objective, term, theta, u, right) for u in left]
    return torch.stack(rows).detach()


def _forms(
    objective: Objective, term: Term, theta: Tensor, left: Tensor, right: Tensor
) -> Tensor:
    """Return ``s_i (J_i u)ᵀΛ_i(J_i δ)`` at θ, (n,)."""
    parameters = objective.parameters

    def residual(vector: Tensor) -> Tensor:
        return term.residual(parameters.substituted(vector), term.points)

    # Products with J along u and δ, by forward mode, which the gradient goes through again.
    value = residual(theta)
    along_left = torch.func.jvp(residual, (theta,), (left,))[1]
    along_right = torch.func.jvp(residual, (theta,), (right,))[1]
    bent = term.curvature_product(value, term.points)(along_right)
    forms: Tensor = (along_left * bent).sum(dim=1) * term.scales(EVERY_POINT)
    return forms


@dataclass(frozen=True, eq=False)
class MeanDiagonal:
    """The mean diagonal entry of JJᵀ, and its derivatives by θ (P,) and the points' weights."""

    value: float
    gradient: Tensor
    by_point: Mapping[str, Tensor]


def mean_diagonal(objective: Objective) -> MeanDiagonal:
    """Return ``(1/R) Σ_i s_i tr(J_iᵀΛ_i J_i)`` over R rows, with its derivatives."""
    jacobian = Jacobian(objective, scaled=True)
    n_rows, _ = jacobian.shape
    theta = objective.parameters.vector()

    def by_points(vector: Tensor) -> dict[str, Tensor]:
        return {
            name: squared_rows(objective, term, vector)
            for name, term in objective.terms.items()
        }

    def total(vector: Tensor) -> Tensor:
        sums = [values.sum() for values in by_points(vector).values()]
        return torch.stack(sums).sum() / n_rows

    gradient = torch.func.grad(total)(theta)
    value = total(theta)
    of_points = {}
    for name, values in by_points(theta).items():
        if name in objective.data_terms:
            of_points[name] = values.detach() / n_rows
    return MeanDiagonal(float(value), gradient.detach(), of_points)


def squared_rows(objective: Objective, term: Term, theta: Tensor) -> Tensor:
    """Return ``s_i tr(J_iᵀΛ_i J_i)`` of a term's points at θ, (n,)."""
    parameters = objective.parameters

    def residual(vector: Tensor) -> Tensor:
        return term.residual(parameters.substituted(vector), term.points)

    # All rows at once: replayed networks are small enough for their systems, too.
    rows = torch.func.jacrev(residual)(theta)  # (n, m, P)
    curvature = term.curvature_product(residual(theta), term.points)
    # Λ acts on the m components of each point, one column of J_i after another.
    bent = torch.func.vmap(curvature, in_dims=2, out_dims=2)(rows)
    squares: Tensor = (rows * bent).sum(dim=(1, 2)) * term.scales(EVERY_POINT)
    return squares


PULL_BACKS: dict[type[Optimizer], PullBack] = {
    Adam: pull_back_adam,
    GaussNewton: pull_back_gauss_newton,
}
"""The derivative of each optimizer's step, by its class."""


def check_differentiable(stage: Optimizer) -> None:
    """Raise ``ValueError`` if the steps of a stage cannot be differentiated."""
    kind = type(stage)
    known = " or ".join(known.__name__ for known in PULL_BACKS)
    if kind not in PULL_BACKS:
        raise ValueError(
            f"steps of {kind.__name__} cannot be replayed: use {known}, or let it be the last "
            "stage and end at a minimum"
        )
    if not isinstance(stage, GaussNewton):
        return
    plain = GaussNewton(1)
    for option in (
        "acceleration",
        "momentum",
        "damping_rule",
        "sketch_rows",
        "sketch_columns",
    ):
        value = getattr(stage, option)
        if value != getattr(plain, option):
            raise ValueError(
                f"steps of GaussNewton with {option}={value!r} cannot be replayed: train without"
            )
