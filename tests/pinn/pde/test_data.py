"""Measurements as terms: rows of their own, errors, files, and what training does with them."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch
import zarr

import whence as wh
from whence import pinn

LINE = pinn.Interval("x", 0, 1)
X = [[0.5], [0.5], [0.8]]


def problem(*data: pinn.Data, **options: object) -> pinn.Problem:
    return pinn.Problem(
        domain=LINE,
        outputs=("u",),
        equations={"pde": lambda u_xx: u_xx},
        conditions=list(data),
        **options,
    )


def objective(made: pinn.Problem, n: int = 5) -> wh.Objective:
    network = pinn.MLP([1, 4, 1], seed=0)
    return made.objective(network.double(), made.sample({"pde": n}))


def test_two_measurements_at_one_place_are_two_rows() -> None:
    made = objective(problem(pinn.Data("sensors", X, u=[1.0, 3.0, 2.0])))
    values = made.network(torch.tensor(X, dtype=torch.float64)).detach()[:, 0]

    losses = made.point_losses()["sensors"].detach()
    expected = (values - torch.tensor([1.0, 3.0, 2.0])) ** 2
    assert torch.allclose(losses, expected)


def test_errors_weigh_rows_with_mean_one() -> None:
    sigma = np.array([0.1, 0.2, 0.4])
    u = np.array([1.0, 3.0, 2.0])
    made = objective(problem(pinn.Data("sensors", X, u=u, sigma=sigma)))
    values = made.network(torch.tensor(X, dtype=torch.float64)).detach()[:, 0].numpy()

    weights = sigma**-2 / np.mean(sigma**-2)
    expected = np.mean(weights * (values - u) ** 2)
    assert float(made.losses()["sensors"]) == pytest.approx(expected, rel=1e-12)


def test_splitting_a_set_in_two_changes_nothing() -> None:
    sigma = [0.1, 0.2, 0.4]
    u = [1.0, 3.0, 2.0]
    whole = objective(problem(pinn.Data("all", X, u=u, sigma=sigma)))
    parts = objective(
        problem(
            pinn.Data("first", X[:1], u=u[:1], sigma=sigma[:1]),
            pinn.Data("rest", X[1:], u=u[1:], sigma=sigma[1:]),
        )
    )
    assert float(parts.loss()) == pytest.approx(float(whole.loss()), rel=1e-12)


def test_a_slope_and_an_expression_are_measured_too() -> None:
    made = objective(
        problem(
            pinn.Data("slopes", [[0.3]], u_x=[0.25]),
            pinn.Data("squares", [[0.3]], of=lambda u, u_x: u * u_x, equals=0.1),
        )
    )
    fields = made.fields(("u", "u_x"))
    at = torch.tensor([[0.3]], dtype=torch.float64)
    u, slope = fields(made.parameters.tensors(), at)[0].tolist()

    losses = made.losses()
    assert float(losses["slopes"]) == pytest.approx((slope - 0.25) ** 2)
    assert float(losses["squares"]) == pytest.approx((u * slope - 0.1) ** 2)


@pytest.mark.parametrize("kind", ["frame", "csv", "zarr"])
def test_tables_give_points_values_and_errors_by_column(kind: str, tmp_path) -> None:
    frame = pd.DataFrame({"sd": [0.1, 0.3], "x": [0.2, 0.9], "T": [1.5, 2.5]})
    table: object = frame
    if kind == "csv":
        table = tmp_path / "sensors.csv"
        frame.to_csv(table, index=False)
    if kind == "zarr":
        table = tmp_path / "sensors.zarr"
        group = zarr.open_group(table, mode="w")
        for name in frame:
            group.create_array(name, data=frame[name].to_numpy())

    made = pinn.Data("sensors", table, u="T", sigma="sd")
    assert made.values()[:, 0].tolist() == [1.5, 2.5]
    assert made.errors()[:, 0].tolist() == [0.1, 0.3]
    assert objective(problem(made)).locations("sensors")[:, 0].tolist() == [0.2, 0.9]


WRONG = {
    "nothing measured": (TypeError, "measure nothing", lambda: pinn.Data("d", X)),
    "too few": (ValueError, "must be 3 numbers", lambda: pinn.Data("d", X, u=[1, 2])),
    "not finite": (
        ValueError,
        "the first is row 1",
        lambda: pinn.Data("d", X, u=[1, float("nan"), 2]),
    ),
    "sigma zero": (
        ValueError,
        "must be positive, got 0.0 in row 2",
        lambda: pinn.Data("d", X, u=0.0, sigma=[1, 1, 0]),
    ),
    "text": (TypeError, "no table", lambda: pinn.Data("d", X, u="T")),
    "outside": (ValueError, "outside", lambda: pinn.Data("d", [[2.0]], u=1.0)),
    "unknown field": (ValueError, "unknown name 'v'", lambda: pinn.Data("d", X, v=1)),
    "sigma of another": (
        ValueError,
        "measured field",
        lambda: pinn.Data("d", X, u=1, sigma={"v": 1}),
    ),
    "half an expression": (
        TypeError,
        "together",
        lambda: pinn.Data("d", X, of=lambda u: u),
    ),
    "no file": (FileNotFoundError, "no file", lambda: pinn.Data("d", "no.csv", u="T")),
    "two columns": (
        ValueError,
        r"\(n, 1\)",
        lambda: pinn.Data("d", [[0.1, 0.2]], u=1.0),
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_measurements_are_one_clear_error(name: str) -> None:
    kind, message, make = WRONG[name]
    with pytest.raises(kind, match=message):
        objective(problem(make()))


def test_measured_points_are_neither_renewed_nor_judged_elsewhere() -> None:
    """The solution fits the measurements and nothing between them: the last network is best."""
    made = problem(
        pinn.Data("sensors", [[0.2], [0.9]], u=[0.2, 0.9]),
        unknowns={"k": 0.0},
    )
    resample = pinn.Resample(
        pinn.ResidualScore(), n=3, every=5, candidates=50, joint=True
    )
    result = pinn.train(
        made,
        pinn.MLP([1, 8, 1], seed=0),
        points={"pde": 10},
        schedule=pinn.GaussNewton(15),
        resample=resample,
        progress=False,
        validation=50,
    )
    kept = result.objective.locations("sensors")
    assert kept[:, 0].tolist() == [0.2, 0.9]
    assert len(result.objective.term("pde").points) > 10
    assert result.summary["losses"]["sensors"] < 1e-8
    with pytest.raises(ValueError, match="part of it, as measurements are"):
        pinn.Resample(pinn.ResidualScore(), terms=("sensors",)).check(result.objective)


def test_points_of_the_user_are_renewed_only_if_named() -> None:
    made = problem()

    def network() -> pinn.MLP:
        return pinn.MLP([1, 4, 1], seed=0)

    points = {"pde": np.linspace(0.1, 0.9, 7)[:, None]}
    options = {"schedule": pinn.GaussNewton(4), "progress": False, "validation": 20}
    resample = pinn.Resample(pinn.ResidualScore(), n=2, every=2, candidates=30)
    with pytest.raises(ValueError, match="name those to renew"):
        pinn.train(made, network(), points=points, resample=resample, **options)

    named = dataclasses.replace(resample, terms=("pde",))
    result = pinn.train(made, network(), points=points, resample=named, **options)
    assert len(result.objective.term("pde").points) > 7


def test_keep_best_judges_given_points_where_they_are() -> None:
    """A term that holds at given points alone does not keep an early network (k is 1.7)."""
    times = torch.tensor([0.2, 1.0, 2.5], dtype=torch.float64)
    values = 1 / (1 + 1.7 * times)

    def nearest(t: torch.Tensor) -> torch.Tensor:
        return values[(t[:, None] - times).abs().argmin(1)]

    made = pinn.Problem(
        domain=pinn.Interval("t", 0, 3),
        outputs=("y",),
        equations={
            "ode": lambda y, y_t, k: y_t + k * y**2,
            "data": lambda y, t: y - nearest(t),
        },
        conditions=[pinn.Initial(y=1.0)],
        unknowns={"k": 0.5},
    )
    result = pinn.train(
        made,
        pinn.MLP([1, 20, 20, 1], seed=0),
        points={"ode": 60, "data": times[:, None], "initial_y": 1},
        schedule=pinn.GaussNewton(40),
        progress=False,
        validation=200,
    )
    assert float(result.unknowns["k"]) == pytest.approx(1.7, abs=1e-3)


def test_batches_go_through_every_row_once_in_a_pass() -> None:
    made = problem(pinn.Data("sensors", np.linspace(0, 1, 40)[:, None], u=0.0))
    batches = pinn.optimizers.batches.Batches(8, seed=1)
    whole = objective(made)
    rows = []
    for _ in range(5):
        part = batches.next_of(whole)
        assert len(part.term("pde").points) == 5
        rows += part.locations("sensors")[:, 0].tolist()
    assert sorted(rows) == pytest.approx(np.linspace(0, 1, 40).tolist())
    assert rows != sorted(rows)


def test_a_run_in_batches_resumes_to_the_same_bits(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(pinn.training.loop, "CHECKPOINT_SECONDS", 0.0)
    made = problem(pinn.Data("sensors", np.linspace(0, 1, 40)[:, None], u=0.0))
    options = {
        "points": {"pde": 6},
        "schedule": pinn.Adam(200, batch_size=8),
        "progress": False,
        "validation": 20,
        "compile": False,
    }

    def network() -> pinn.MLP:
        return pinn.MLP([1, 4, 1], seed=0)

    whole = pinn.train(made, network(), **options)

    class Kill(pinn.Observer):
        def at_step(self, iteration: int, row: object) -> None:
            if iteration == 60:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pinn.train(made, network(), out=tmp_path / "run", observers=[Kill()], **options)
    assert pinn.RunFolder(tmp_path / "run").is_started()
    resumed = pinn.train(made, network(), out=tmp_path / "run", resume=True, **options)
    assert torch.equal(
        whole.objective.parameters.vector(), resumed.objective.parameters.vector()
    )
