"""Distance of the fast paths from brute force, in float64.

``python -m benchmarks.exactness``: (1) influence of every training point on five outputs, hard-
and soft-constrained burgers, 2241 parameters, against dense Jacobians by ``torch.func.jacrev``
over nested autograd and a dense inverse; (2) both derivative paths on every problem of the zoo.
Differences are relative to the largest entry. The brute force itself is uncertain by about
machine precision over relative damping; the last column measures that (dense inverse against a
dense solve).
"""

from __future__ import annotations

import argparse
import dataclasses
import json

import torch
from torch import Tensor

import whence as wh
from whence import pinn

DAMPINGS = (1e-3, 1e-4, 1e-5, 1e-6, 1e-8, 1e-10)


def difference(a: Tensor, b: Tensor) -> float:
    """Return max |a − b| / max |b|."""
    return float((a - b).abs().max() / b.abs().max())


def dense_rows(term: wh.Term, parameters: wh.Parameters, points: Tensor) -> Tensor:
    """Return the residual Jacobian (n, m, P), one point at a time."""

    def residual(theta: Tensor, point: Tensor) -> Tensor:
        return term.residual(parameters.substituted(theta), point.unsqueeze(0)).squeeze(
            0
        )

    theta = parameters.vector()
    return torch.stack([torch.func.jacrev(residual)(theta, p).detach() for p in points])


def brute_force(
    problem: pinn.Problem, trained: wh.Objective, at: Tensor
) -> tuple[Tensor, ...]:
    """Return the dense Gauss–Newton matrix, ∇u at the targets, and every (w/N)∇ℓ."""
    nested = dataclasses.replace(problem, derivatives="autograd")
    points = {name: term.points for name, term in trained.terms.items()}
    objective = nested.objective(trained.network, points)
    parameters = objective.parameters
    matrix, gradients = (
        torch.zeros(parameters.size, parameters.size, dtype=torch.float64),
        [],
    )
    for term in objective.terms.values():
        rows = dense_rows(term, parameters, term.points)
        residual = term.residual(parameters.tensors(), term.points).detach()
        matrix += 2 * term.scale * torch.einsum("nmp,nmq->pq", rows, rows)
        gradients.append(2 * term.scale * torch.einsum("nmp,nm->np", rows, residual))
    output = wh.Term("u", objective.fields(("u",)), at)
    return matrix, dense_rows(output, parameters, at)[:, 0], torch.cat(gradients)


def influence_table() -> list[dict[str, object]]:
    """Compare influences at several dampings."""
    table: list[dict[str, object]] = []
    for constraints in ("hard", "soft"):
        problem = pinn.zoo.load("burgers", constraints)  # type: ignore[arg-type]
        counts = {term: 400 if term == "pde" else 100 for term in problem.terms}
        schedule = [pinn.GaussNewton(60)]
        result = pinn.train(problem, points=counts, schedule=schedule, progress=False)
        at = problem.draw("pde", 5, seed=3)
        matrix, targets, gradients = brute_force(problem, result.objective, at)
        largest = torch.linalg.eigvalsh(matrix)[-1]
        eye = torch.eye(len(matrix), dtype=torch.float64)
        for damping in DAMPINGS:
            damped = matrix + damping * largest * eye
            truth = targets @ torch.linalg.inv(damped) @ gradients.T
            again = targets @ torch.linalg.solve(damped, gradients.T)
            row: dict[str, object] = {"constraints": constraints, "damping": damping}
            for form in ("dual", "primal"):
                solver = wh.Exact(form=form)  # type: ignore[arg-type]
                influence = wh.Influence(
                    result.objective, solver=solver, damping=damping
                )
                found = torch.from_numpy(influence.attribute(wh.Output(at)).values)
                row[form] = difference(found, truth)
                row[f"{form}_solve"] = difference(found, again)
            influence = wh.Influence(
                result.objective, solver=wh.Exact(form="dual"), damping=damping
            )
            # So many targets that one solve for every training point is cheaper.
            many = torch.cat(
                [at, problem.draw("pde", result.objective.n_points, seed=4)]
            )
            found = torch.from_numpy(
                influence.attribute(wh.Output(many)).values[: len(at)]
            )
            row["dual_by_points_solve"] = difference(found, again)
            row["brute_force_itself"] = difference(again, truth)
            table.append(row)
    return table


def derivative_table() -> dict[str, float]:
    """Compare residuals through jets with residuals through nested autograd."""
    table = {}
    for name in pinn.zoo.names():
        for constraints in ("hard", "soft"):
            problem = pinn.zoo.load(name, constraints)  # type: ignore[arg-type]
            other = dataclasses.replace(problem, derivatives="autograd")
            network = problem.network(0)
            points = problem.sample(dict.fromkeys(problem.terms, 200), seed=0)
            worst = 0.0
            for term in problem.terms:
                values = [
                    p.objective(network, points)
                    .terms[term]
                    .residual(dict(network.named_parameters()), points[term])
                    for p in (problem, other)
                ]
                worst = max(worst, difference(values[0].detach(), values[1].detach()))
            table[f"{name} {constraints}"] = worst
    return table


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    influences, derivatives = influence_table(), derivative_table()
    if given.json:
        print(json.dumps({"influence": influences, "derivatives": derivatives}))
        return
    print(
        "| burgers | damping | dual | primal | dual, against a dense solve | dual, many targets, "
        "against a dense solve | brute force itself |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for row in influences:
        print(
            f"| {row['constraints']} | {row['damping']:.0e} | {row['dual']:.1e} | "
            f"{row['primal']:.1e} | {row['dual_solve']:.1e} | {row['dual_by_points_solve']:.1e} | "
            f"{row['brute_force_itself']:.1e} |"
        )
    print("\n| problem | jets against nested autograd |\n| --- | --- |")
    for name, value in derivatives.items():
        print(f"| {name} | {value:.1e} |")


if __name__ == "__main__":
    main()
