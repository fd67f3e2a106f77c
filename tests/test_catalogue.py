"""What all entries of the catalogue of a kind must do, whoever wrote them."""

import copy
import dataclasses
import inspect
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import oracles
import pytest
import torch

import whence as wh
from whence import cli, pinn
from whence.attribution.quantities import aggregate_gradient
from whence.catalogue import (
    KINDS,
    METHODS,
    NETWORKS,
    OPTIMIZERS,
    PROBLEMS,
    QUANTITIES,
    RESAMPLERS,
    SAMPLINGS,
    SCORES,
    SELECTIONS,
    SOLVERS,
    WEIGHTINGS,
    Catalogue,
)
from whence.cli.catalogue import markdown
from whence.cli.flags import flags_of

DOCS = Path(__file__).parent.parent / "docs"

NEEDED = {
    "iterations": 6,
    "given": {"pde": 2.0},
    "initial": {"pde": 2.0},
    "final": {"pde": 1.0},
}
"""Values for options without a default, by their name."""


ONE_OF = {"GivenFactors": {"kronecker": {}}}
"""Options of classes that need one of several."""


def make(cls, **options):
    """Return an object of a catalogued class with its defaults."""
    if "inverse" not in options:
        options = ONE_OF.get(cls.__name__, {}) | options
    for field in dataclasses.fields(cls):
        is_needed = (
            field.default is dataclasses.MISSING
            and field.default_factory is dataclasses.MISSING
        )
        if is_needed and field.init and field.name not in options:
            options[field.name] = NEEDED[field.name]
    return cls(**options)


def objective(n=20):
    """A small objective with three terms."""
    problem = pinn.zoo.load("wave", "soft")
    counts = dict.fromkeys(problem.terms, n)
    network = pinn.MLP([2, 8, 1], seed=0)
    return problem.objective(network, problem.sample(counts, seed=0))


def trained():
    """A short training on the points of that objective."""
    problem = pinn.zoo.load("wave", "soft")
    points = problem.sample(dict.fromkeys(problem.terms, 6), seed=0)
    network = pinn.MLP([2, 8, 1], seed=0)
    schedule = pinn.Adam(3)
    return pinn.train(
        problem, points=points, network=network, schedule=schedule, progress=False
    )


# --- the catalogue itself -----------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_entries_that_say_what_they_are(kind):
    catalogue = KINDS[kind]
    assert len(catalogue)
    assert list(catalogue) == sorted(catalogue)
    for name in catalogue:
        assert re.fullmatch(r"[a-z0-9_]+", name)
        assert catalogue.summary(name)
        assert catalogue.name_of(catalogue[name]) == name
        assert name in catalogue
        assert catalogue.home(name).startswith("whence.")


@pytest.mark.parametrize("kind", KINDS)
def test_an_unknown_name_is_an_error_that_suggests_the_nearest(kind):
    catalogue = KINDS[kind]
    name = next(iter(catalogue))
    with pytest.raises(ValueError, match=f"did you mean '{name}'"):
        catalogue[name + "x"]


def test_two_things_of_one_name_are_refused():
    catalogue = Catalogue("shape", (), "none")
    catalogue.named("round")(test_two_things_of_one_name_are_refused)

    def elsewhere():
        pass

    elsewhere.__module__ = "elsewhere"
    with pytest.raises(ValueError, match="two shapes are called 'round'"):
        catalogue.named("round")(elsewhere)


def test_a_broken_entry_point_is_a_warning_and_leaves_the_others(monkeypatch):
    from importlib.metadata import EntryPoint

    broken = EntryPoint("odd", "no.such.module:Odd", "whence.scores")
    monkeypatch.setattr("whence.catalogue.entry_points", lambda: (broken,))
    catalogue = Catalogue("score", ("whence.pinn.sampling.scores",), "whence.scores")
    catalogue.named("fine")(make)
    with pytest.warns(UserWarning, match=r"the score 'odd' of .* cannot be used"):
        assert list(catalogue) == ["fine"]
    with pytest.raises(ValueError, match=r"'odd' cannot be used: No module named"):
        catalogue["odd"]


def test_docs_show_the_catalogue():
    shown = (DOCS / "catalogue.md").read_text()
    table = "\n".join(markdown(list(KINDS)))
    assert table in shown, "run: whence catalogue --markdown, and put it into the docs"


@pytest.mark.parametrize("kind", KINDS)
def test_the_command_line_lists_it(kind, capsys):
    assert cli.main(["catalogue", kind]) == 0
    printed = capsys.readouterr().out
    assert all(f"  {name} " in printed for name in KINDS[kind])


# --- options ------------------------------------------------------------------------------------

DATACLASSES = [
    (kind, name)
    for kind in (
        "scores", "selections", "resamplers", "optimizers", "weightings", "solvers",
    )
    for name in KINDS[kind]
]  # fmt: skip


@pytest.mark.parametrize(("kind", "name"), DATACLASSES)
def test_options_are_kept_and_read_back(kind, name):
    """The representation makes the same object again."""
    cls = KINDS[kind][name]
    given = make(cls)
    text = repr(given)
    assert text.startswith(cls.__name__)
    names = {n: getattr(package, n) for package in (pinn, wh) for n in package.__all__}
    again = eval(text, names | {cls.__name__: cls})
    for field in dataclasses.fields(cls):
        assert repr(getattr(again, field.name)) == repr(getattr(given, field.name))


def numeric_options():
    """Yield every option that is a number or a word, of every class with options."""
    for kind, name in DATACLASSES:
        cls = KINDS[kind][name]
        for flag in flags_of(cls):
            yield kind, name, flag.name


@pytest.mark.parametrize(("kind", "name", "option"), numeric_options())
def test_a_wrong_option_is_refused_by_its_name(kind, name, option):
    cls = KINDS[kind][name]
    with pytest.raises((TypeError, ValueError)) as caught:
        make(cls, **{option: object()})
    words = {option, option.replace("_", " "), option.removesuffix("s")}
    words |= {"reduce": {"reduction"}, "given": {"weights"}}.get(option, set())
    assert any(word in str(caught.value) for word in words), caught.value


# --- problems and networks ----------------------------------------------------------------------


# Whose boundary values no ansatz meets that would not give the solution away.
WITHOUT_ANSATZ = {"navier_stokes", "navier_stokes_dimensional", "poisson_5d"}


@pytest.mark.parametrize("name", PROBLEMS)
@pytest.mark.parametrize("constraints", ["hard", "soft"])
def test_problem(name, constraints):
    problem = pinn.zoo.load(name, constraints)
    assert problem.name == name
    has_ansatz = constraints == "hard" and name not in WITHOUT_ANSATZ
    assert (problem.ansatz is not None) == has_ansatz
    # What no ansatz meets must be asked for.
    assert problem.ansatz is not None or problem.conditions
    recipe = pinn.zoo.recipe(name, constraints)
    counted = set(problem.terms) - set(problem.given_terms)
    assert set(recipe.points) == counted
    network = problem.network(seed=0)
    counts = {term: min(2, problem.room(term) or 2) for term in counted}
    points = problem.sample(counts, seed=0)
    made = problem.objective(network, points)
    if recipe.resample is not None:
        recipe.resample.check(made)
    assert torch.isfinite(made.loss())
    first = next(iter(problem.equations))
    shape = (2, len(problem.outputs))
    assert problem.reference(points[first]).shape == shape


@pytest.mark.parametrize("name", NETWORKS)
def test_network(name):
    network = NETWORKS[name]([2, 8, 1], seed=3)
    again = NETWORKS[name]([2, 8, 1], seed=3)
    points = torch.rand(5, 2, dtype=torch.float64)
    assert torch.equal(network(points), again(points))
    rebuilt = NETWORKS[name].from_options(network.options())
    rebuilt.load_state_dict(network.state_dict())
    assert torch.equal(network(points), rebuilt(points))
    assert repr(rebuilt) == repr(network)


# --- points -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SAMPLINGS)
@pytest.mark.parametrize("dimension", [1, 2, 3])
def test_sampling(name, dimension):
    sampling = SAMPLINGS[name]()
    points = sampling.points(30, dimension, 7)
    assert points.shape[1] == dimension
    assert len(points) == 30 or (sampling.may_return_fewer and len(points) < 30)
    assert points.min() >= 0
    assert points.max() < 1
    np.testing.assert_array_equal(points, sampling.points(30, dimension, 7))
    if sampling.is_ordered:
        assert (np.diff(SAMPLINGS[name]().points(30, dimension, None)[:, 0]) > 0).all()


@pytest.mark.parametrize("name", SCORES)
def test_score(name):
    case = objective()
    score = make(SCORES[name])
    candidates = case.draw("pde", 11, seed=5)
    values = score.score(case, {"pde": candidates})
    assert values.shape == (11,)
    assert bool((torch.isfinite(values) & (values >= 0)).all())
    assert torch.equal(values, score.score(case, candidates))
    # Each candidate's score is its own: others, and their order, do not matter.
    backwards = score.score(case, {"pde": candidates.flip(0)}).flip(0)
    oracles.close(backwards, values, 1e-8)
    assert score.score(case, candidates.numpy()).allclose(values)
    if hasattr(score, "embedding"):
        squares = score.embedding(case, candidates).square().sum(dim=1)
        oracles.close(squares, values, 1e-10)


@pytest.mark.parametrize("name", SELECTIONS)
def test_selection(name):
    selection = make(SELECTIONS[name])
    generator = torch.Generator().manual_seed(0)
    shape = (40, 3) if getattr(selection, "embedded", False) else (40,)
    scores = torch.rand(*shape, generator=generator, dtype=torch.float64)
    rows = selection.select(scores, 7, seed=3)
    assert rows.shape == (7,)
    assert len(set(rows.tolist())) == 7
    assert set(rows.tolist()) <= set(range(40))
    assert torch.equal(rows, selection.select(scores, 7, seed=3))
    assert len(selection.select(scores, 40, seed=3)) == 40


@pytest.mark.parametrize("name", RESAMPLERS)
def test_resampler(name):
    case = objective()
    resampler = make(RESAMPLERS[name])
    resampler.check(case)
    points = resampler.update_points(case, round=2, seed=1)
    again = resampler.update_points(case, round=2, seed=1)
    assert points.keys() == again.keys()
    for term, rows in points.items():
        assert torch.equal(rows, again[term])
        case.space.check(term, rows)
        assert len(rows.unique(dim=0)) == len(rows)


# --- training -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizer(name):
    """It lowers the loss, and a copy restored midway goes on to the same bits."""
    case = objective()
    start = float(case.loss())
    optimizer = make(OPTIMIZERS[name])
    stepper = optimizer.start(case.parameters)
    stepper.advance(case, 3)
    state = stepper.state()
    theta = case.parameters.vector()
    done = stepper.advance(case, 3)
    expected = case.parameters.vector()
    assert 0 < done.iterations <= 3
    assert float(case.loss()) < start

    case.parameters.assign(theta)
    other = optimizer.start(case.parameters)
    other.restore(state)
    other.advance(case, 3)
    assert torch.equal(case.parameters.vector(), expected)


@pytest.mark.parametrize("name", WEIGHTINGS)
def test_weighting(name):
    """Its state makes a copy go on to the same weights; all weights are finite."""
    case = objective()
    weighting = make(WEIGHTINGS[name])
    weighting.check(case)
    theta = case.parameters.vector()
    weighting.renew(case)
    case.parameters.assign(theta * 1.1)
    state = copy.deepcopy(weighting.state_dict())
    expected = weighting.renew(case)
    other = make(WEIGHTINGS[name])
    other.load_state_dict(state)
    weights = other.renew(case)
    assert list(weights) == list(case.terms)
    for term, weight in weights.items():
        given = torch.as_tensor(weight)
        assert bool((torch.isfinite(given) & (given >= 0)).all())
        assert torch.equal(given, torch.as_tensor(expected[term]))
    assert isinstance(weighting.at(case), Mapping)


# --- attribution --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SOLVERS)
def test_solver(name):
    """What it solves, it says truly how well."""
    case = objective(8)
    operator = wh.GaussNewtonMatrix(case)
    options = {"dimension": 12} if name == "sketched" else {}
    if name == "given_factors":
        options = {"inverse": lambda vectors: vectors / 2.0}
    state = make(SOLVERS[name], **options).factor(operator, wh.Damping(1e-2))
    right = torch.ones(case.parameters.size, 2, dtype=torch.float64)
    solution = state.solve(right)
    damping = state.spectrum.damping
    residual = operator.matmat(solution.value) + damping * solution.value - right
    relative = float((residual.norm(dim=0) / right.norm(dim=0)).max())
    assert solution.residual == pytest.approx(relative, rel=1e-6, abs=1e-9)
    assert state.spectrum.attributes()["damping"] == damping


def methods(name, case):
    cls = METHODS[name]
    required = [
        parameter.name
        for parameter in list(inspect.signature(cls).parameters.values())[1:]
        if parameter.default is parameter.empty
        and parameter.kind is not parameter.VAR_KEYWORD
    ]
    if "run" in inspect.signature(cls).parameters:
        return cls(trained())
    state = case.network.state_dict()
    given = {"checkpoints": [state], "segments": [wh.Segment([state], 1e-3, 9)]}
    if "members" in inspect.signature(cls).parameters:
        return cls([wh.GradDot(case), wh.Influence(case)])
    return cls(case, **{option: given[option] for option in required})


SUPERVISED_ONLY = {"representation_similarity", "trak"}


@pytest.mark.parametrize("name", sorted(set(METHODS) - SUPERVISED_ONLY))
def test_method(name):
    """One sign, the same numbers in tiles, sums and by points, one effect the other's negative."""
    case = objective(6)
    method = methods(name, case)
    points = case.draw("pde", 3, seed=9)
    quantity = wh.Output(points, "u")
    whole = method.attribute(quantity)
    assert whole.dims == ("target", "point")
    assert whole.shape == (3, case.n_points)
    assert np.isfinite(whole).all()
    assert whole.attrs["method"] == name
    oracles.close(-method.attribute(quantity, effect="add").values, whole.values, 1e-10)
    some = method.attribute(quantity, wh.TrainingPoints({"pde": [0, 1]}))
    oracles.close(some.values, whole.sel(term="pde").values[:, :2], 1e-8)


def with_unknown():
    """Return an objective with an unknown number k."""
    problem = pinn.Problem(
        domain=pinn.Interval("x", 0, 1),
        outputs=("u",),
        equations={"pde": lambda u_x, k: u_x - k},
        unknowns={"k": pinn.Unknown(2.0, positive=True)},
    )
    return problem.objective(pinn.MLP([1, 4, 1], seed=0), problem.sample(5))


def quantity_of(name, case, points):
    cls = QUANTITIES[name]
    if name == "unknown_value":
        return cls("k")
    if hasattr(cls, "of_objective"):
        return cls.of_objective(case, None if name in ("loss", "term_loss") else points)
    return cls(lambda field: field("u", points).square().mean())


@pytest.mark.parametrize("name", QUANTITIES)
def test_quantity(name):
    """Gradients are the derivatives of values, and their sum is the gradient of the sum."""
    case = objective(5)
    if name == "unknown_value":
        case = with_unknown()
    quantity = quantity_of(name, case, case.draw("pde", 3, seed=9))
    values = quantity.values(case)
    gradients = torch.cat(list(quantity.gradients(case)))
    assert gradients.shape == (len(values), case.parameters.size)
    theta = case.parameters.vector()
    generator = torch.Generator().manual_seed(0)
    direction = torch.randn(len(theta), generator=generator, dtype=torch.float64)
    step = 1e-5
    with case.parameters.at(theta + step * direction):
        after = quantity.values(case)
    with case.parameters.at(theta - step * direction):
        before = quantity.values(case)
    slopes = (after - before) / (2 * step)
    oracles.close(gradients @ direction, slopes, 1e-6)
    total = aggregate_gradient(quantity, case)
    oracles.close(gradients.sum(dim=0), total, 1e-10)
    labels = quantity.targets(case)
    assert all(len(column) == len(values) for column in labels.values())
    assert quantity.label()
