"""Unknowns: values, errors and intervals against closed-form least squares, and what moves them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats

import whence as wh
from whence import pinn

LENGTH = 0.5
X = np.linspace(0.1, 0.95, 16)
SIGMA = 0.01

# u″ = u/L² with u′(0) = −C/(2D): u = a cosh(x/L) − C L/(2D) sinh(x/L), linear in a and C.
D = 0.3
DESIGN = np.stack(
    [np.cosh(X / LENGTH), -LENGTH / (2 * D) * np.sinh(X / LENGTH)], axis=1
)
TRUTH = np.array([0.9, 0.8])  # a, C


def flux(u: np.ndarray, sigma: object = SIGMA) -> pinn.Problem:
    return pinn.Problem(
        domain=pinn.Interval("x", 0, 1),
        outputs=("u",),
        equations={"pde": lambda u, u_xx: u_xx - u / LENGTH**2},
        conditions=[
            pinn.Condition("flux", on="x_min", residual=lambda u_n, C: u_n - C / (2 * D)),
            pinn.Data("sensors", X[:, None], u=u, sigma=sigma),
        ],
        unknowns={"C": 0.1},
    )  # fmt: skip


def trained(u: np.ndarray, sigma: object = SIGMA, steps: int = 60) -> pinn.Result:
    return pinn.train(
        flux(u, sigma),
        pinn.MLP([1, 16, 1], seed=0),
        points={"pde": 30, "flux": 1},
        schedule=pinn.GaussNewton(steps),
        progress=False,
        validation=20,
        keep="last",
    )


def least_squares(u: np.ndarray, weights: np.ndarray) -> tuple[float, float]:
    """Return the best estimate of C and its standard error."""
    weighted = DESIGN / weights[:, None]
    covariance = np.linalg.inv(weighted.T @ weighted)
    best = covariance @ weighted.T @ (u / weights)
    return float(best[1]), float(covariance[1, 1] ** 0.5)


@pytest.fixture(scope="module")
def measured() -> np.ndarray:
    noise = np.random.default_rng(3).normal(size=len(X))
    return DESIGN @ TRUTH + SIGMA * noise


@pytest.fixture(scope="module")
def result(measured: np.ndarray) -> pinn.Result:
    return trained(measured)


def test_value_and_error_are_those_of_least_squares(result, measured) -> None:
    best, error = least_squares(measured, np.full(len(X), SIGMA))
    found = result.unknowns["C"]
    assert abs(float(found) - best) < 0.05 * error
    assert found.standard_error == pytest.approx(error, rel=0.05)
    assert f"± {error:.2g}"[:5] in repr(found) or "±" in repr(found)


def test_intervals_agree_with_the_normal_and_with_the_profile(result) -> None:
    found = result.unknowns["C"]
    low, high = found.interval(0.9)
    reach = stats.norm.ppf(0.95) * found.standard_error
    assert low == pytest.approx(float(found) - reach, rel=1e-9)
    before = result.objective.parameters.vector()
    assert found.profile(0.9) == pytest.approx((low, high), abs=0.05 * reach)
    assert torch.equal(before, result.objective.parameters.vector())


def test_unequal_errors_are_weighted() -> None:
    sigma = np.where(np.arange(len(X)) % 3 == 0, 10 * SIGMA, SIGMA)
    u = DESIGN @ TRUTH + sigma * np.random.default_rng(5).normal(size=len(X))
    best, error = least_squares(u, sigma)
    found = trained(u, sigma).unknowns["C"]
    assert abs(float(found) - best) < 0.1 * error
    assert found.standard_error == pytest.approx(error, rel=0.1)


def test_without_errors_the_scatter_tells(measured) -> None:
    found = trained(measured, None).unknowns["C"]
    _, unit = least_squares(measured, np.ones(len(X)))
    coefficients = np.linalg.lstsq(DESIGN, measured, rcond=None)[0]
    scatter = np.sum((measured - DESIGN @ coefficients) ** 2) / (len(X) - 2)
    assert found.standard_error == pytest.approx(unit * scatter**0.5, rel=0.1)


def test_influence_of_each_datum_is_that_of_refits(result) -> None:
    quantity = wh.UnknownValue("C")
    predicted = wh.Influence(result.objective).attribute(quantity).sel(term="sensors")
    refits = wh.leave_one_out(
        result.objective, quantity, {"sensors": list(range(len(X)))}, steps=8
    )
    ranks = stats.spearmanr(predicted.values[0], refits.values[0]).statistic
    assert ranks >= 0.98


def test_a_bad_sensor_is_found_first(measured) -> None:
    bad = measured.copy()
    bad[9] += 8 * SIGMA
    table = trained(bad).suspects("sensors")
    assert table["index"][0] == 9
    assert abs(table["deviation"][0]) > 4 > abs(table["deviation"][1])

    # The studentized deleted residual of ordinary least squares.
    hat = DESIGN @ np.linalg.pinv(DESIGN)
    residual = bad - hat @ bad
    expected = residual[9] / (SIGMA * math.sqrt(1 - hat[9, 9]))
    assert table["deviation"][0] == pytest.approx(expected, rel=0.02)


UNKNOWNS = {
    "plain": (pinn.Unknown(-3.0), -3.0),
    "zero": (pinn.Unknown(0.0), 0.0),
    "positive": (pinn.Unknown(1e-6, positive=True), 1e-6),
    "between": (pinn.Unknown(0.2, bounds=(0, 1)), 0.2),
    "above": (pinn.Unknown(5.0, bounds=(2.0, None)), 5.0),
    "below": (pinn.Unknown(-5.0, bounds=(None, 2.0)), -5.0),
    "scaled": (pinn.Unknown(3e8, scale=1e9), 3e8),
}


@pytest.mark.parametrize("name", UNKNOWNS)
def test_unknowns_start_where_they_should_and_keep_to_bounds(name: str) -> None:
    unknown, value = UNKNOWNS[name]
    theta = torch.tensor(unknown.theta(), dtype=torch.float64)
    assert float(unknown.value(theta)) == pytest.approx(value, rel=1e-12)

    ends = unknown.value(torch.tensor([-50.0, 50.0], dtype=torch.float64))
    low, high = unknown.limits
    if low is not None:
        assert float(ends.min()) >= low
    if high is not None:
        assert float(ends.max()) <= high


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: pinn.Unknown(-1.0, positive=True), "between its bounds"),
        (lambda: pinn.Unknown(2.0, bounds=(0, 1)), "between its bounds"),
        (lambda: pinn.Unknown(float("nan")), "finite number"),
        (lambda: pinn.Unknown(1.0, scale=0.0), "positive"),
        (lambda: pinn.Field("C", of=()), "names"),
    ],
)
def test_wrong_unknowns_are_refused(make, message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        make()


def with_names(**options: object) -> pinn.Problem:
    return pinn.Problem(
        domain=pinn.Interval("x", 0, 1),
        outputs=("u",),
        equations={"pde": lambda u_xx: u_xx},
        **options,
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"unknowns": {"u": 1.0}}, "taken"),
        ({"unknowns": {"x": 1.0}}, "taken"),
        ({"unknowns": {"u_x": 1.0}}, "derivative"),
        ({"unknowns": {"k": "a"}}, "finite number"),
        ({"unknowns": {"k": pinn.Field("C", of=("x",))}}, "one name"),
        ({"unknowns": {"C": pinn.Field("C", of=("y",))}}, "coordinate"),
        ({"derived": {"k": 1.0}}, "pinn.At"),
        ({"derived": {"k": pinn.At("v", x=0.0)}}, "unknown name 'v'"),
        ({"derived": {"k": pinn.At("u", y=0.0)}}, "coordinate"),
        ({"derived": {"k": pinn.Integrated("k", over="x")}}, "unknown name 'k'"),
    ],
)
def test_names_that_mean_nothing_are_refused(options, message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        with_names(**options)


def test_a_run_with_unknowns_is_loaded_as_it_was(tmp_path) -> None:
    made = flux(DESIGN @ TRUTH)
    result = pinn.train(
        made,
        pinn.MLP([1, 8, 1], seed=0),
        points={"pde": 10, "flux": 1},
        schedule=[pinn.Adam(5), pinn.GaussNewton(5)],
        out=tmp_path / "run",
        progress=False,
        validation=10,
    )
    again = pinn.load_run(tmp_path / "run", problem=made)
    assert float(again.unknowns["C"]) == float(result.unknowns["C"])
    assert again.history["unknown_C"][-1] == result.history["unknown_C"][-1]
    assert again.solution([[0.3]], "C")[0, 0] == float(result.unknowns["C"])


def test_an_eigenvalue_with_its_normalization() -> None:
    made = pinn.Problem(
        domain=pinn.Interval("x", 0, 1),
        outputs=("u",),
        equations={"pde": lambda u, u_xx, lam: u_xx + lam * u},
        ansatz=lambda x, u: x * (1 - x) * u,
        conditions=[pinn.Integral("norm", over="x", of=lambda u: u**2, equals=1.0)],
        unknowns={"lam": pinn.Unknown(8.0, positive=True)},
    )
    result = pinn.train(
        made,
        pinn.MLP([1, 12, 1], seed=0),
        points={"pde": 30},
        schedule=pinn.GaussNewton(60),
        progress=False,
        validation=30,
    )
    assert float(result.unknowns["lam"]) == pytest.approx(math.pi**2, rel=1e-4)
    with pytest.raises(ValueError, match="comes from measurements"):
        _ = result.unknowns["lam"].standard_error
