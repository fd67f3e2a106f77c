"""Regions, scales, ratios, outliers, prescribed values: against closed forms."""

import dataclasses
import math

import numpy as np
import pandas as pd
import pytest
import torch

from whence import pinn
from whence.catalogue import CHECKS, REMEDIES
from whence.diagnosis.checks.conflicting_conditions import prescribed_values
from whence.diagnosis.checks.few_points import ratio_interval
from whence.diagnosis.checks.sensor_outliers import outliers
from whence.diagnosis.evidence import Evidence
from whence.diagnosis.finding import Finding
from whence.diagnosis.reference import Reference
from whence.diagnosis.regions import EVERYWHERE, region_of
from whence.diagnosis.remedies import advise

DOMAIN = pinn.Interval("x", -1, 1) * pinn.Interval("t", 0, 1)


def evidence_of(problem, n=50):
    points = problem.sample(dict.fromkeys(problem.terms, n), seed=0)
    network = pinn.MLP([2, 8, 1], seed=0)
    return Evidence.of(problem, problem.objective(network, points))


# --- regions ------------------------------------------------------------------------------------


def test_a_region_is_the_box_of_what_is_large():
    points = DOMAIN.sample(4000, "sobol")
    inside = (points[:, 0] - 0.5).abs() < 0.1
    region = region_of(points, inside.double(), ("x", "t"), torch.tensor(DOMAIN.bounds))
    # Half of the points inside, of which the inner nine tenths count.
    assert region.low[0] == pytest.approx(0.4, abs=0.05)
    assert region.high[0] == pytest.approx(0.6, abs=0.05)
    assert region.share == pytest.approx(0.05, abs=0.005)
    assert region.mostly.startswith("mostly at x from 0.4")
    assert ", t" not in region.text


def test_what_is_the_same_everywhere_is_in_no_region():
    points = DOMAIN.sample(500, "sobol")
    bounds = torch.tensor(DOMAIN.bounds)
    region = region_of(points, torch.ones(500), ("x", "t"), bounds)
    assert region.text == region.mostly == EVERYWHERE


# --- scales -------------------------------------------------------------------------------------


def test_the_scale_of_a_term_is_the_rms_of_its_largest_part():
    def equation(u, u_x, x):
        return 1e3 * u - 2 * u_x + 0 * x

    problem = pinn.Problem(domain=DOMAIN, outputs=("u",), equations={"pde": equation})
    evidence = evidence_of(problem)
    size = evidence.scales.field("u")
    assert evidence.scales.of("pde") == pytest.approx(1e3 * size)


def test_what_is_prescribed_gives_a_scale_where_the_network_gives_none():
    problem = pinn.Problem(
        domain=DOMAIN,
        outputs=("u",),
        equations={"pde": lambda u_t, u_xx: u_t - u_xx},
        conditions=[pinn.Initial(u=lambda x: 5 * torch.sin(math.pi * x))],
    )
    evidence = evidence_of(problem)
    zeros = torch.zeros_like(evidence.objective.parameters.vector())
    with evidence.objective.parameters.at(zeros):
        # The rms of 5 sin πx.
        assert evidence.scales.outputs["u"] == pytest.approx(5 / 2**0.5, rel=0.1)
        # u_t over the half of its extent, u_xx over that of its own.
        assert evidence.scales.of("pde") == pytest.approx(10 / 2**0.5, rel=0.1)


# --- ratios -------------------------------------------------------------------------------------


def test_noise_gives_no_alarm_and_a_large_ratio_gives_one():
    generator = torch.Generator().manual_seed(0)

    def squares(n):
        return torch.randn(n, generator=generator, dtype=torch.float64).square()

    lows = [
        ratio_interval(squares(20), squares(500), None, seed)[0] for seed in range(60)
    ]
    assert max(lows) < 3
    low, ratio = ratio_interval(squares(20), 50 * squares(500), None, 0)
    assert 3 < low < ratio


def test_points_of_a_rule_count_by_their_weights():
    training = torch.tensor([1.0, 100.0])
    weights = torch.tensor([1.98, 0.02])
    _, ratio = ratio_interval(training, torch.full((5,), 1.99), weights, 0)
    # (1.98·1 + 0.02·100)/2 = 1.99
    assert ratio == pytest.approx(1.0)


# --- outliers -----------------------------------------------------------------------------------


def test_normal_errors_have_no_outliers():
    random = np.random.default_rng(0)
    for _ in range(100):
        table = pd.DataFrame({"deviation": random.normal(size=60)})
        assert outliers(table).empty


def test_a_fit_that_is_off_everywhere_has_none_either():
    random = np.random.default_rng(0)
    table = pd.DataFrame({"deviation": 40 * random.normal(size=60)})
    assert outliers(table).empty


def test_outliers_come_worst_first():
    deviations = np.random.default_rng(0).normal(size=60)
    deviations[[3, 40]] = -8, 30
    assert outliers(pd.DataFrame({"deviation": deviations})).index.tolist() == [40, 3]


# --- prescribed values --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("condition", "value"),
    [
        (pinn.Initial(u=lambda x: x**2), lambda z: z[:, 0] ** 2),
        (pinn.Dirichlet(u=3.0, on="x"), lambda z: torch.full_like(z[:, 0], 3.0)),
        (pinn.Condition("c", "x_max", lambda u, t: 2 * u - t), lambda z: z[:, 1] / 2),
        (pinn.Condition("c", "x_max", lambda u: u**2 - 1), None),
        (pinn.Condition("c", "x_max", lambda u, u_x: u - u_x), None),
    ],
)
def test_what_a_condition_prescribes(condition, value):
    problem = pinn.Problem(
        domain=DOMAIN,
        outputs=("u",),
        equations={"pde": lambda u_t, u_xx: u_t - u_xx},
        conditions=[condition],
    )
    prescribed = prescribed_values(evidence_of(problem), condition.name)
    if value is None:
        assert prescribed is None
    else:
        assert prescribed.field == "u"
        torch.testing.assert_close(prescribed.values, value(prescribed.points))


# --- reference, remedies, findings --------------------------------------------------------------


def test_a_table_of_some_outputs_in_any_order_of_columns():
    problem = pinn.zoo.load("burgers")
    table = pd.DataFrame(
        {"u": [1.0, np.nan], "t": [0.5, 0.5], "note": [1, 2], "x": [0.1, 0.2]}
    )
    reference = Reference.of_table(problem, table)
    assert reference.points.tolist() == [[0.1, 0.5]]
    assert reference.values.tolist() == [[1.0]]


@pytest.mark.parametrize(
    ("table", "error", "message"),
    [
        (pd.DataFrame({"x": [0.0], "u": [1.0]}), ValueError, "needs the columns x, t"),
        (pd.DataFrame({"x": [0.0], "t": [0.0]}), ValueError, "at least one of u, got x, t"),
        (pd.DataFrame({"x": [9.0], "t": [0.0], "u": [1.0]}), ValueError, "outside"),
        (pd.DataFrame({"x": [0.0], "t": [0.0], "u": [np.nan]}), ValueError, "no row"),
        ([[0.0, 0.0, 1.0]], TypeError, "must be a table"),
        ("nowhere.csv", FileNotFoundError, "nowhere.csv"),
    ],
)  # fmt: skip
def test_a_reference_that_will_not_do(table, error, message):
    with pytest.raises(error, match=message):
        Reference.of_table(pinn.zoo.load("burgers"), table)


@pytest.mark.parametrize("name", REMEDIES)
def test_a_remedy_is_one_sentence(name):
    (sentence,) = advise([name], ["pde", "initial_u"], None, 100.0)
    assert sentence.endswith(".")
    assert sentence[0].isupper()


def test_every_check_has_a_rank_of_its_own():
    ranks = [CHECKS[name].rank for name in CHECKS]
    assert len(set(ranks)) == len(ranks)


def test_a_severity_that_there_is_not():
    with pytest.raises(ValueError, match="did you mean 'serious'"):
        Finding("c", "serius", "s", "n", 1.0, 1.0)


def test_the_figures_of_the_evidence_are_those_of_the_problem():
    problem = pinn.zoo.load("diffusion", "soft")
    evidence = evidence_of(problem)
    name = "initial_u"
    points = evidence.fresh_points[name]
    residual = pinn.Solution(problem, evidence.objective.network).residual(points, name)
    expected = float(residual.square().mean().sqrt()) / evidence.scales.of(name)
    assert evidence.relative(evidence.trained, name) == pytest.approx(expected)

    moved = dataclasses.replace(evidence.trained, values=evidence.trained.values + 0.3)
    change = evidence.change(evidence.trained, moved)
    assert change == pytest.approx(0.3 / evidence.scales.outputs["u"])


@pytest.mark.parametrize(("width", "kept"), [(10, 3000), (1200, 3600)])
def test_points_are_no_fewer_than_determine_the_network(width, kept):
    problem = pinn.zoo.load("diffusion")
    network = pinn.RandomFeatures([2, width, 1], seed=0)
    objective = problem.objective(network, problem.sample(5000, seed=0))
    looked_at = Evidence.of(problem, objective).objective
    assert looked_at.parameters.size == pytest.approx(width, abs=1)
    assert looked_at.n_points == pytest.approx(kept, abs=3)
