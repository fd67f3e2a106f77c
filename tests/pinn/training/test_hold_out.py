"""Given points held out of training: which, what they judge, and what is told of the others."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest

from whence import pinn
from whence.pinn.pde.trained_data import occurrences, rows_within

N = 20
PLACES = np.repeat(np.linspace(0.05, 0.95, N // 2), 2)  # two measurements at each place
NOISE = 0.1 * np.random.default_rng(0).standard_normal(N)
VALUES = np.exp(-1.3 * PLACES) + NOISE
SIGMA = np.linspace(0.05, 0.15, N)


def decay(
    values: np.ndarray = VALUES, rows: object = slice(None), **unknown
) -> pinn.Problem:
    """Return y' = −k y, y(0) = 1, with measurements."""
    points = PLACES[rows][:, None]
    sensors = pinn.Data("sensors", points, y=values[rows], sigma=SIGMA[rows])
    return pinn.Problem(
        domain=pinn.Interval("t", 0, 1),
        outputs=("y",),
        equations={"ode": lambda y, y_t, k: y_t + k * y},
        conditions=[sensors],
        ansatz=lambda t, y: 1 + t * y,
        unknowns={"k": pinn.Unknown(1.0, **unknown)},
    )  # fmt: skip


def train(problem: pinn.Problem, **options) -> pinn.Result:
    options = {
        "points": {"ode": 30},
        "schedule": pinn.GaussNewton(30),
        "weights": {"ode": 100.0},
        "validation": 50,
        "progress": False,
        "keep": "last",
    } | options
    return pinn.train(problem, pinn.MLP([1, 8, 1], seed=0), **options)


@pytest.fixture(scope="module")
def held() -> pinn.Result:
    return train(decay(), hold_out=0.25)


def test_a_share_is_kept_out_and_the_rest_trained_on(held: pinn.Result) -> None:
    table = held.suspects()
    rows = sorted(table["index"])
    assert len(rows) == len(set(rows)) == 15
    in_order = table.sort_values("index")
    np.testing.assert_array_equal(in_order["t"], PLACES[rows])
    np.testing.assert_array_equal(in_order["value"], VALUES[rows])
    again = train(decay(), hold_out={"sensors": 0.25}, schedule=pinn.GaussNewton(1))
    assert sorted(again.suspects()["index"]) == rows
    other = train(decay(), hold_out=0.25, seed=1, schedule=pinn.GaussNewton(1))
    assert sorted(other.suspects()["index"]) != rows


def test_what_is_held_out_is_what_judges(held: pinn.Result) -> None:
    rows = sorted(held.suspects()["index"])
    left_out = np.setdiff1d(np.arange(N), rows)
    # σ̄ of the whole set: 1/σ̄² is the mean of 1/σ².
    reference = np.mean(SIGMA**-2.0) ** -0.5
    fit = held.solution(PLACES[left_out][:, None])[:, 0]
    of_sensors = np.mean(((fit - VALUES[left_out]) * reference / SIGMA[left_out]) ** 2)
    of_equation = held.history[-1]["validation_loss"] - of_sensors
    assert 0 <= of_equation < 1e-3 * of_sensors + 1e-6
    assert held.history[-1]["loss_sensors"] != pytest.approx(of_sensors, rel=0.05)


def test_estimates_are_those_of_the_rows_trained_on(held: pinn.Result) -> None:
    rows = np.sort(held.suspects()["index"])
    alone = train(decay(rows=rows))
    # The weight of one set of measurements is 1, but σ̄ is of all rows or of these alone.
    scale = np.mean(SIGMA**-2.0) / np.mean(SIGMA[rows] ** -2.0)
    same = train(decay(rows=rows), weights={"ode": 100.0 * scale})
    estimate = held.unknowns["k"]
    assert float(estimate) == pytest.approx(float(same.unknowns["k"]), rel=1e-5)
    wanted = same.unknowns["k"].standard_error
    assert estimate.standard_error == pytest.approx(wanted, rel=1e-4)
    assert float(alone.unknowns["k"]) == pytest.approx(float(estimate), rel=1e-2)


def test_the_network_that_fits_noise_is_not_kept() -> None:
    """Twenty noisy values and no equation to speak of: the last network is worse than the best."""
    options = {
        "weights": {"ode": 1e-9},
        "schedule": pinn.GaussNewton(60),
        "hold_out": 0.3,
    }
    last = train(decay(), keep="last", **options)
    best = train(decay(), keep="best", **options)
    places = np.linspace(0.05, 0.95, 50)[:, None]
    truth = np.exp(-1.3 * places)
    errors = [np.abs(run.solution(places) - truth).mean() for run in (best, last)]
    assert errors[0] < 0.8 * errors[1]


def test_runs_load_and_resume_with_what_they_held_out(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(pinn.training.loop, "CHECKPOINT_SECONDS", 0.0)
    whole = train(decay(), hold_out=0.25, schedule=pinn.GaussNewton(8))
    out = tmp_path / "run"
    options = {"schedule": pinn.GaussNewton(8), "out": out}
    train(decay(), hold_out=0.25, max_seconds=1e-9, **options)
    options["resume"] = True
    train(decay(), hold_out=0.25, **options)
    loaded = pinn.load_run(out, decay(), pinn.MLP([1, 8, 1]))
    pd.testing.assert_frame_equal(loaded.suspects(), whole.suspects())
    assert loaded.history[-1]["validation_loss"] == whole.history[-1]["validation_loss"]

    with pytest.raises(ValueError, match=r"made with hold_out = 0\.25, not None"):
        train(decay(), **options)
    with pytest.raises(ValueError, match="made with measurements"):
        train(decay(values=VALUES + 1e-9), hold_out=0.25, **options)
    with pytest.raises(ValueError, match="made with unknowns"):
        train(decay(positive=True), hold_out=0.25, **options)


def test_arrays_of_points_are_told_from_others(tmp_path) -> None:
    points = np.linspace(0.1, 0.9, 7)[:, None]
    options = {"schedule": pinn.GaussNewton(2), "out": tmp_path / "run"}
    train(decay(), points={"ode": points}, **options)
    options["resume"] = True
    train(decay(), points={"ode": points}, **options)
    with pytest.raises(ValueError, match="made with points"):
        # The same sum, other points.
        train(
            decay(), points={"ode": points[::-1] ** 2 + points - points**2}, **options
        )


def test_points_of_the_user_are_held_out_too() -> None:
    points = np.linspace(0.1, 0.9, 10)[:, None]
    result = train(decay(), points={"ode": points}, hold_out={"ode": 0.2})
    assert len(result.objective.term("ode").points) == 8
    assert len(result.objective.term("sensors").points) == N


@pytest.mark.parametrize(
    ("share", "message"),
    [
        (1.0, r"a share in \[0, 1\)"),
        (-0.1, r"a share in \[0, 1\)"),
        ({"sensor": 0.1}, "did you mean 'sensors'"),
        ({"ode": 0.1}, "term for hold_out"),
    ],
)
def test_wrong_shares_are_refused(share: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        train(decay(), hold_out=share)


def test_where_nothing_is_given_nothing_is_held_out() -> None:
    problem = dataclasses.replace(decay(), conditions=[])
    with pytest.raises(ValueError, match="all points of this problem are drawn"):
        train(problem, hold_out=0.1)
    single = dataclasses.replace(
        problem, conditions=[pinn.Data("sensors", [[0.5]], y=[0.5])]
    )
    with pytest.raises(ValueError, match="'sensors' has one point"):
        train(single, hold_out=0.1)


def test_repeated_rows_are_taken_one_after_another() -> None:
    table = np.array([[1.0, 2], [3, 4], [1, 2], [5, 6], [1, 2]])
    assert rows_within(table[[0, 2, 3]], table).tolist() == [0, 2, 3]
    assert rows_within(table, table).tolist() == [0, 1, 2, 3, 4]
    assert occurrences(np.array([7, 7, 3, 7, 3])).tolist() == [0, 1, 0, 2, 1]
    with pytest.raises(ValueError, match="row 1 of the points"):
        rows_within(np.array([[3.0, 4], [9, 9]]), table)
    with pytest.raises(ValueError, match="row 3 of the points"):
        rows_within(table[[0, 2, 4, 4]], table)
