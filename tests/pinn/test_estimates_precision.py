"""Standard errors of networks trained in single precision, computed in double precision."""

from __future__ import annotations

import copy
import warnings

import numpy as np
import pytest
import torch
from test_estimates import DESIGN, SIGMA, TRUTH, X, flux, least_squares

import whence as wh
from whence import pinn
from whence.pinn.estimates import Estimates
from whence.pinn.pde.precision import in_double

MEASURED = DESIGN @ TRUTH + SIGMA * np.random.default_rng(3).normal(size=len(X))


@pytest.fixture(scope="module", params=["errors given", "errors from the fit"])
def result(request: pytest.FixtureRequest) -> pinn.Result:
    sigma = SIGMA if request.param == "errors given" else None
    return pinn.train(
        flux(MEASURED, sigma),
        pinn.MLP([1, 16, 1], seed=0),
        points={"pde": 30, "flux": 1},
        schedule=pinn.GaussNewton(60),
        weights={"pde": 2.0},
        progress=False,
        validation=20,
        dtype=torch.float32,
    )


def doubled(result: pinn.Result) -> Estimates:
    """The estimates of the same parameters in a problem made in double precision."""
    objective = result.objective
    points = {}
    for name, term in objective.terms.items():
        if term.source != "fixed":
            points[name] = term.points.double()
    network = copy.deepcopy(result.network).double()
    weights = {name: term.weight for name, term in objective.terms.items()}
    made = result.problem.objective(network, points, weights)
    return Estimates(made, result.problem.data)


def test_errors_and_intervals_are_those_of_double_precision(result) -> None:
    single, double = result.unknowns["C"], doubled(result)["C"]
    assert float(single) == pytest.approx(float(double), rel=1e-6)
    assert single.standard_error == pytest.approx(double.standard_error, rel=1e-3)
    assert single.interval() == pytest.approx(double.interval(), rel=1e-3)
    width = np.diff(double.interval())[0]
    assert np.diff(single.interval())[0] == pytest.approx(width, rel=1e-3)
    table = result.unknowns.covariance()
    assert table.loc["C", "C"] == pytest.approx(double.standard_error**2, rel=2e-3)

    # The damping that single precision needs is not small beside what is measured here.
    gradient = next(wh.UnknownValue("C").gradients(result.objective)).T
    influence = wh.Influence(result.objective, curvature="gauss_newton")
    variance = float((gradient * influence.solve(gradient).value).sum())
    error = (double._among.noise.scale * variance) ** 0.5
    assert abs(error / double.standard_error - 1) > 1e-2


def test_errors_of_a_solution_and_deviations(result) -> None:
    places = wh.Output(torch.tensor([[0.05], [0.5]]))
    double = doubled(result)
    np.testing.assert_allclose(
        result.unknowns.standard_errors(places),
        double.standard_errors(places),
        rtol=1e-3,
    )
    table = result.suspects()
    leverages = table.sort_values("index")["leverage"].to_numpy()
    # Two coefficients are determined: the leverages of a line of two numbers.
    hat = np.diag(DESIGN @ np.linalg.pinv(DESIGN))
    np.testing.assert_allclose(leverages, hat, atol=0.03)


@pytest.mark.parametrize("result", ["errors given"], indirect=True)
def test_profile_leaves_the_network_alone(result) -> None:
    before = result.objective.parameters.vector()
    found = result.unknowns["C"]
    low, high = found.interval(0.9)
    reach = (high - low) / 2
    assert found.profile(0.9) == pytest.approx((low, high), abs=0.1 * reach)
    assert torch.equal(before, result.objective.parameters.vector())
    _, error = least_squares(MEASURED, np.full(len(X), SIGMA))
    assert found.standard_error == pytest.approx(error, rel=0.05)


def test_weights_of_points_and_parts_are_kept(result) -> None:
    objective = result.objective.subset({"sensors": torch.arange(3, 9)})
    weights = torch.linspace(0.5, 2, 30)
    objective = objective.with_weights({"pde": weights})
    double = in_double(objective)
    assert double.parameters.dtype is torch.float64
    assert torch.equal(double.term("pde").point_weights, weights.double())
    for name, term in objective.terms.items():
        other = double.term(name)
        assert torch.equal(other.points, term.points.double())
        assert (other.weight, other.source) == (term.weight, term.source)
    assert float(double.loss()) == pytest.approx(float(objective.loss()), rel=1e-3)
    assert in_double(double) is double

    # Of the unknown alone: the network stays as it is.
    of_unknown = wh.Objective(
        objective.network, objective.terms.values(), select="unknowns.*",
        space=objective.space,
    )  # fmt: skip
    assert in_double(of_unknown).parameters.names == ("unknowns.C.theta",)


def test_an_equation_that_is_bound_to_single_precision_is_said() -> None:
    table = torch.eye(2)

    def pde(u, u_xx):
        # A product of matrices, which cannot mix precisions.
        both = torch.stack([u_xx, u], dim=1) @ table
        return both[:, 0] - both[:, 1]

    data = pinn.Data("sensors", X[:, None], u=MEASURED, sigma=SIGMA)
    problem = pinn.Problem(
        pinn.Interval("x", 0, 1), ("u",), {"pde": pde}, conditions=[data],
        unknowns={"C": 1.0},
    )  # fmt: skip
    network = pinn.MLP([1, 4, 1], seed=0).float()
    objective = problem.objective(network, {"pde": [[0.2], [0.7]]})
    with pytest.warns(UserWarning, match="in single precision.*'pde' fails"):
        assert in_double(objective) is objective
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        in_double(problem_of_double(data))


def problem_of_double(data: pinn.Data) -> wh.Objective:
    problem = pinn.Problem(
        pinn.Interval("x", 0, 1), ("u",), {"pde": lambda u, u_xx: u_xx - u},
        conditions=[data],
    )  # fmt: skip
    return problem.objective(pinn.MLP([1, 4, 1], seed=0).double(), {"pde": [[0.2]]})
