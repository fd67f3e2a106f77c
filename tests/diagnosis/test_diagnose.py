"""Diagnoses of runs that are broken on purpose, in ways that leave no doubt, and of good ones."""

import dataclasses
import math

import pandas as pd
import pytest
import torch

from whence import cli, pinn
from whence.catalogue import CHECKS

HEAT = pinn.Problem(
    name="heat",
    domain=pinn.Interval("x", 0, 1) * pinn.Interval("t", 0, 0.1),
    outputs=("u",),
    equations={"pde": lambda u_t, u_xx: u_t - u_xx},
    conditions=[
        pinn.Initial(u=lambda x: torch.sin(math.pi * x)),
        pinn.Dirichlet(u=0.0, on="x"),
    ],
)
POINTS = {"pde": 200, "initial_u": 40, "dirichlet_u": 40}


def exact(x, t):
    return torch.sin(math.pi * x) * torch.exp(-(math.pi**2) * t)


def features(n=60):
    bounds = HEAT.domain.bounds.tolist()
    return pinn.RandomFeatures([2, n, 1], "sin", scale=3.0, bounds=bounds, seed=0)


def trained(problem=HEAT, points=None, schedule=None, **options):
    return pinn.train(
        problem,
        features(),
        points={**POINTS, **(points or {})},
        schedule=schedule or pinn.VarPro(2),
        progress=False,
        **{"keep": "last", **options},
    )


def trusted(n=300):
    inside = HEAT.domain.sample(n, "sobol")
    at_start = HEAT.domain.part("t_min").sample(30)
    x, t = torch.cat([inside, at_start]).T
    return pd.DataFrame({"x": x, "t": t, "u": exact(x, t)})


@pytest.fixture(scope="module")
def good():
    return trained()


def with_pde(equation):
    return dataclasses.replace(HEAT, equations={"pde": equation})


def with_conditions(*conditions):
    return dataclasses.replace(HEAT, conditions=conditions)


def first(diagnosis):
    return diagnosis.findings[0]


# --- a good run ---------------------------------------------------------------------------------


def test_nothing_looks_wrong_with_a_good_run(good):
    diagnosis = pinn.diagnose(good, trusted())
    assert diagnosis.findings == ()
    assert "Nothing looks wrong." in diagnosis.text()
    assert "Nothing looks wrong." in diagnosis.markdown()
    assert set(diagnosis.checks) == set(CHECKS)
    assert max(before for before, _ in diagnosis.relative.values()) < 0.01


def test_without_trusted_values_that_is_said(good):
    assert "No trusted values were given" in pinn.diagnose(good).text()


def test_the_network_is_left_as_it_was(good):
    before = good.objective.parameters.vector().clone()
    pinn.diagnose(trained(points={"pde": 3}), trusted())
    pinn.diagnose(good, trusted())
    assert torch.equal(good.objective.parameters.vector(), before)


# --- broken ones --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("equation", "words"),
    [
        # u_t = −π² u and u_xx = −π² u: a factor of either mends it.
        (lambda u_t, u_xx: u_t - 2 * u_xx, "u_xx times 0.5"),
        (lambda u_t: u_t, "-1 u_xx more"),
    ],
)
def test_a_wrong_equation_is_named_with_trusted_values(equation, words):
    finding = first(pinn.diagnose(trained(with_pde(equation)), trusted()))
    assert (finding.check, finding.severity) == ("trusted_values", "serious")
    assert finding.terms == ("pde",)
    assert words in finding.statement


def test_a_wrong_initial_value_is_named_with_trusted_values():
    problem = with_conditions(
        pinn.Initial(u=lambda x: 0.5 * torch.sin(math.pi * x)),
        pinn.Dirichlet(u=0.0, on="x"),
    )
    finding = first(pinn.diagnose(trained(problem), trusted()))
    assert finding.terms == ("initial_u",)
    assert "what is prescribed times 2" in finding.statement


def test_a_wrong_ansatz_is_named_with_trusted_values():
    problem = dataclasses.replace(
        HEAT,
        conditions=(),
        ansatz=lambda x, t, u: 0.3 + t * x * (1 - x) * u,
    )
    result = pinn.train(
        problem, features(), points=200, schedule=pinn.VarPro(2), progress=False
    )
    finding = first(pinn.diagnose(result, trusted(), checks=["trusted_values"]))
    assert finding.terms == ("ansatz",)


def test_conditions_that_differ_where_they_meet():
    problem = with_conditions(
        pinn.Initial(u=lambda x: torch.sin(math.pi * x)), pinn.Dirichlet(u=1.0, on="x")
    )
    finding = first(pinn.diagnose(trained(problem), checks=["conflicting_conditions"]))
    assert finding.terms == ("initial_u", "dirichlet_u")
    assert finding.region.low[1] == 0.0


def test_a_condition_that_the_ansatz_contradicts():
    problem = dataclasses.replace(HEAT, ansatz=lambda x, t, u: 0.5 + x * (1 - x) * u)
    finding = first(pinn.diagnose(trained(problem), checks=["conflicting_conditions"]))
    assert finding.terms == ("dirichlet_u", "ansatz")


def test_too_few_points():
    finding = first(pinn.diagnose(trained(points={"pde": 3})))
    assert (finding.check, finding.terms) == ("few_points", ("pde",))


def test_a_weight_that_is_too_low():
    schedule = [pinn.Adam(600, lr=1e-2)]
    result = trained(schedule=schedule, weights={"initial_u": 1e-5})
    finding = first(pinn.diagnose(result))
    assert (finding.check, finding.terms[0]) == ("term_weights", "initial_u")


def test_training_that_ended_early():
    finding = first(pinn.diagnose(trained(schedule=pinn.Adam(5))))
    assert (finding.check, finding.severity) == ("stuck_training", "serious")


def test_a_measurement_that_is_wrong():
    points = HEAT.domain.sample(30, "sobol")
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(30, generator=generator, dtype=torch.float64)
    values = exact(*points.T) + 0.01 * noise
    values[7] += 0.2
    sensors = pinn.Data("sensors", points, u=values, sigma=0.01)
    finding = first(pinn.diagnose(trained(with_conditions(*HEAT.conditions, sensors))))
    assert (finding.check, finding.rows) == ("sensor_outliers", (7,))


def test_a_network_that_is_too_small():
    result = pinn.train(
        HEAT, features(2), points=POINTS, schedule=pinn.VarPro(2), progress=False
    )
    diagnosis = pinn.diagnose(result)
    assert "network_capacity" in [finding.check for finding in diagnosis.findings]


def test_single_precision_is_diagnosed_in_double():
    result = trained(points={"pde": 3}, dtype=torch.float32)
    assert first(pinn.diagnose(result)).check == "few_points"


@pytest.mark.filterwarnings("ignore:the problem of")
def test_a_problem_that_was_changed_since(tmp_path):
    trained(out=tmp_path / "run")
    changed = with_pde(lambda u_t, u_xx: u_t - 2 * u_xx)
    for problem, names in ((HEAT, []), (changed, ["pde"])):
        result = pinn.load_run(tmp_path / "run", problem=problem)
        diagnosis = pinn.diagnose(result, checks=["changed_problem"])
        assert [finding.terms[0] for finding in diagnosis.findings] == names


# --- how it is told -----------------------------------------------------------------------------


def test_the_worst_comes_first_and_symptoms_last():
    result = trained(with_pde(lambda u_t, u_xx: u_t - 3 * u_xx), {"pde": 3})
    findings = pinn.diagnose(result, trusted()).findings
    order = [(f.severity != "serious", f.is_symptom) for f in findings]
    assert order == sorted(order)


def test_bad_arguments(good):
    with pytest.raises(ValueError, match="did you mean 'few_points'"):
        pinn.diagnose(good, checks=["few_point"])
    with pytest.raises(TypeError, match=r"result of pinn\.train"):
        pinn.diagnose(good.network)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    out = tmp_path_factory.mktemp("diagnosis") / "run"
    pinn.train(
        pinn.zoo.load("diffusion"),
        pinn.MLP([2, 8, 1], seed=0),
        points=5,
        schedule=pinn.GaussNewton(20),
        out=out,
        progress=False,
    )
    return out


def test_the_command_writes_a_page_and_a_figure(run, capsys):
    assert cli.main(["diagnose", str(run)]) == 0
    printed = capsys.readouterr().out
    assert "[serious] few_points: pde" in printed
    page = (run / "diagnosis.md").read_text()
    assert "## 1. few_points (serious)" in page
    assert "](diagnosis.png)" in page
    assert (run / "diagnosis.svg").is_file()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere"], "holds no whence run"),
        (["RUN", "--reference", "nowhere.csv"], "there is no file nowhere.csv"),
        (["RUN", "--out", "page.txt"], "ends in .md"),
    ],
)
def test_errors_of_the_command(run, words, message, capsys):
    words = [str(run) if word == "RUN" else word for word in words]
    assert cli.main(["diagnose", *words]) == 2
    assert message in capsys.readouterr().err
