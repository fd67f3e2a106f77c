"""Weightings against their formulas, written out by hand from Jacobians at single points."""

import itertools
import json
import math
from types import SimpleNamespace

import numpy as np
import oracles
import pytest
import torch
from torch import nn
from torch.func import functional_call, jacrev, vmap

from whence import pinn
from whence.evaluator import Remembering
from whence.jacobian import Jacobian
from whence.objective import Objective
from whence.term import Term

STEPS = 8
NAMES = ("pde", "initial", "periodic")


class Path:
    """A network that moves through some states, and the measures of its terms in each by hand."""

    def __init__(self):
        self.case = oracles.burgers_soft(widths=(2, 6, 6, 1))
        theta = self.case.theta
        generator = torch.Generator().manual_seed(3)
        noise = torch.randn(STEPS, len(theta), generator=generator, dtype=torch.float64)
        shrinking = torch.linspace(1.0, 0.3, STEPS, dtype=torch.float64)
        self.states = shrinking[:, None] * theta + 0.02 * noise
        self.by_hand = [self._measures(state) for state in self.states]

    @property
    def objective(self):
        return self.case.objective

    @property
    def parameters(self):
        return list(self.objective.network.parameters())

    @property
    def points(self):
        return {name: term.points for name, term in self.objective.terms.items()}

    def _measures(self, state):
        self.objective.parameters.assign(state)
        found = {}
        for name, points in self.points.items():
            rows, values = oracles.point_jacobians(
                self.case, self.case.residuals[name], points
            )
            losses = (values**2).sum(1)
            found[name] = SimpleNamespace(
                loss=losses.mean(),
                losses=losses,
                gradient=2 * np.einsum("nmp,nm->p", rows, values) / len(values),
                trace=(rows**2).sum(),
                count=values.size,
                points=points.numpy(),
            )
        return found

    def residuals(self):
        """Residuals (n, m) of the moved network with their graph, without whence's fields."""
        live = dict(self.objective.network.named_parameters())
        return {
            name: vmap(lambda z, f=self.case.residuals[name]: f(live, z))(points)
            for name, points in self.points.items()
        }

    def updates(self, weighting, kind, steps=range(STEPS)):
        found = []
        for k in steps:
            self.objective.parameters.assign(self.states[k])
            if kind == "objective":
                found.append(weighting.update(self.objective))
            elif kind == "residuals":
                residuals = self.residuals()
                found.append(
                    weighting.update(residuals, self.parameters, points=self.points)
                )
            else:
                losses = {
                    n: r.square().sum(1).mean() for n, r in self.residuals().items()
                }
                found.append(weighting.update(losses, self.parameters))
        return found


@pytest.fixture(name="path", scope="module")
def _path():
    return Path()


# --- the formulas ------------------------------------------------------------------------------


def fixed(measures):
    return [{"pde": 1.0, "initial": 7.0, "periodic": 0.0} for _ in measures]


def linear(measures):
    shares = [0.0, 0.0, 0.4, 0.4, 0.8, 0.8, 1.0, 1.0]
    return [{"pde": 3 - 2 * s, "initial": 1 + 3 * s, "periodic": 1.0} for s in shares]


def moving(measures, share, now):
    """``w ← share·w + (1 − share)·now``, from 1."""
    weights, found = dict.fromkeys(NAMES, 1.0), []
    for terms in measures:
        values = now(terms)
        weights = {n: share * weights[n] + (1 - share) * values[n] for n in NAMES}
        found.append(weights)
    return found


def ntk(measures):
    def now(terms):
        total = sum(t.trace for t in terms.values())
        return {n: total / t.trace for n, t in terms.items()}

    return moving(measures, 0.3, now)


def ntk_mean(measures):
    def now(terms):
        total = sum(t.trace / t.count for t in terms.values())
        return {n: total / (t.trace / t.count) for n, t in terms.items()}

    return moving(measures, 0.5, now)


def ntk_once(measures):
    """Times its count over its trace every weight is the same, and stays."""
    first = {n: t.trace / t.count for n, t in measures[0].items()}
    weights = {n: sum(first.values()) / mean for n, mean in first.items()}
    return [weights] * len(measures)


def ntk_gradient(measures):
    def now(terms):
        norms = {n: np.linalg.norm(t.gradient) for n, t in terms.items()}
        return {n: norms[n] / sum(norms.values()) for n in NAMES}

    return moving(measures, 0.5, now)


def gradient_norm(measures):
    def now(terms):
        norms = {n: math.sqrt((t.gradient**2).sum()) for n, t in terms.items()}
        mean = sum(norms.values()) / 3
        return {n: mean / (norms[n] + 1e-5 * mean) for n in NAMES}

    return moving(measures, 0.9, now)


def annealing(measures, reference="pde"):
    def now(terms):
        top = np.abs(terms[reference].gradient).max()
        return {n: top / np.abs(t.gradient).mean() for n, t in terms.items()}

    found = moving(measures, 0.8, now)
    return [{**weights, reference: 1.0} for weights in found]


def annealing_to_initial(measures):
    return annealing(measures, "initial")


def balanced(now, before, temperature=0.5):
    powers = {n: math.exp(now[n] / before[n] / temperature) for n in NAMES}
    return {n: 3 * powers[n] / sum(powers.values()) for n in NAMES}


def relobralo(measures):
    losses = [{n: t.loss for n, t in terms.items()} for terms in measures]
    found = [dict.fromkeys(NAMES, 1.0)]
    for k in range(1, len(losses)):
        rho = float(np.random.default_rng([5, k]).random() < 0.6)
        first = balanced(losses[k], losses[0])
        recent = balanced(losses[k], losses[k - 1])
        past = {n: rho * found[-1][n] + (1 - rho) * first[n] for n in NAMES}
        found.append({n: 0.7 * past[n] + 0.3 * recent[n] for n in NAMES})
    return found


def adapted(measures, beta, *, normalized, loss_weighted):
    losses = [np.array([t.loss for t in terms.values()]) for terms in measures]
    found = [dict.fromkeys(NAMES, 1.0)]
    for before, now in itertools.pairwise(losses):
        slopes = now - before
        if normalized:
            slopes = slopes / np.abs(slopes).sum()
        powers = np.exp(beta * slopes) * (now if loss_weighted else 1.0)
        found.append(dict(zip(NAMES, 3 * powers / powers.sum(), strict=True)))
    return found


def softadapt(measures):
    return adapted(measures, 0.1, normalized=True, loss_weighted=False)


def softadapt_by_losses(measures):
    return adapted(measures, 0.1, normalized=True, loss_weighted=True)


def softadapt_plain(measures):
    return adapted(measures, -0.02, normalized=False, loss_weighted=False)


def self_adaptive(measures):
    found, sizes = (
        [],
        {n: np.ones(len(measures[0][n].losses)) for n in ("pde", "initial")},
    )
    for terms in measures:
        for name, size in sizes.items():
            losses = terms[name].losses
            sizes[name] = 0.9 * size + 0.1 * 2 * size * losses / losses.mean()
        found.append({n: s**2 for n, s in sizes.items()} | {"periodic": 1.0})
    return found


def attention(measures, slope):
    """``λ ← 0.8 λ + 0.3 q/max q`` from 1, with weights λ²; ``slope`` of residuals and update."""
    found = []
    sizes = {name: np.ones(len(measures[0][name].losses)) for name in NAMES}
    for k, terms in enumerate(measures):
        for name in NAMES:
            slopes = slope(np.sqrt(terms[name].losses), k)
            sizes[name] = 0.8 * sizes[name] + 0.3 * slopes / slopes.max()
        found.append({name: size**2 for name, size in sizes.items()})
    return found


def vrba(measures):
    def slope(residuals, k):
        epsilon = 0.5 * residuals.max() / math.log(k + 2)
        return np.exp(residuals / epsilon)

    return attention(measures, slope)


def rba(measures):
    return attention(measures, lambda residuals, k: residuals)


def causal(measures):
    epsilons, threshold, windows, stage = (0.01, 0.1, 1.0), 0.4, 4, 0
    times = measures[0]["pde"].points[:, 1]
    edges = np.linspace(times.min(), times.max(), windows + 1)[1:-1]
    window = np.digitize(times, edges)
    found = []
    for terms in measures:
        losses = terms["pde"].losses
        means = [
            losses[window == j].mean() if (window == j).any() else 0.0
            for j in range(windows)
        ]
        weights = [math.exp(-epsilons[stage] * sum(means[:i])) for i in range(windows)]
        if weights[-1] > threshold and stage < 2:
            stage += 1
        found.append(
            {"pde": np.array(weights)[window], "initial": 1.0, "periodic": 1.0}
        )
    return found


def weighting_of_causal(kind):
    column = "t" if kind == "objective" else 1
    return pinn.Causal((0.01, 0.1, 1.0), windows=4, threshold=0.4, coordinate=column)


SCALARS, TENSORS = ("objective", "residuals", "losses"), ("objective", "residuals")
FORMULAS = {
    "Fixed": (
        fixed,
        lambda kind: pinn.Fixed({"initial": 7.0, "periodic": 0.0}),
        SCALARS,
    ),
    "Linear": (
        linear,
        lambda kind: pinn.Linear(
            {"pde": 3.0}, {"initial": 4.0}, iterations=5, update_every=2
        ),
        SCALARS,
    ),
    "NTK": (ntk, lambda kind: pinn.NeuralTangentKernel(0.3), TENSORS),
    "NTK mean": (
        ntk_mean,
        lambda kind: pinn.NeuralTangentKernel(estimate="mean_trace"),
        TENSORS,
    ),
    "NTK once": (
        ntk_once,
        lambda kind: pinn.NeuralTangentKernel(estimate="mean_trace", once=True),
        TENSORS,
    ),
    "NTK gradient": (
        ntk_gradient,
        lambda kind: pinn.NeuralTangentKernel(estimate="gradient_norm"),
        SCALARS,
    ),
    "GradientNorm": (
        gradient_norm,
        lambda kind: pinn.GradientNorm(update_every=1),
        SCALARS,
    ),
    "LearningRateAnnealing": (
        annealing,
        lambda kind: pinn.LearningRateAnnealing(0.2, update_every=1),
        SCALARS,
    ),
    "LearningRateAnnealing to": (
        annealing_to_initial,
        lambda kind: pinn.LearningRateAnnealing(
            0.2, update_every=1, reference="initial"
        ),
        SCALARS,
    ),
    "ReLoBRaLo": (
        relobralo,
        lambda kind: pinn.ReLoBRaLo(alpha=0.7, rho=0.6, temperature=0.5, seed=5),
        SCALARS,
    ),
    "SoftAdapt": (softadapt, lambda kind: pinn.SoftAdapt(), SCALARS),
    "SoftAdapt by losses": (
        softadapt_by_losses,
        lambda kind: pinn.SoftAdapt(loss_weighted=True),
        SCALARS,
    ),
    "SoftAdapt plain": (
        softadapt_plain,
        lambda kind: pinn.SoftAdapt(-0.02, normalized=False, loss_weighted=False),
        SCALARS,
    ),
    "SelfAdaptive": (
        self_adaptive,
        lambda kind: pinn.SelfAdaptive(
            0.1, decay=0.9, power=2.0, terms=("pde", "initial")
        ),
        TENSORS,
    ),
    "vRBA": (
        vrba,
        lambda kind: pinn.ResidualBasedAttention(0.3, decay=0.8, sharpness=0.5),
        TENSORS,
    ),
    "RBA": (
        rba,
        lambda kind: pinn.ResidualBasedAttention(0.3, decay=0.8, potential="quadratic"),
        TENSORS,
    ),
    "Causal": (causal, weighting_of_causal, TENSORS),
}


@pytest.mark.parametrize(
    ("name", "kind"),
    [(name, kind) for name, (*_, kinds) in FORMULAS.items() for kind in kinds],
)
def test_weights_are_those_of_the_formula(path, name, kind):
    formula, make, _ = FORMULAS[name]
    expected = formula(path.by_hand)
    found = path.updates(make(kind), kind)
    assert len(found) == len(expected) == STEPS
    for ours, theirs in zip(found, expected, strict=True):
        assert tuple(ours) == NAMES
        for term in NAMES:
            assert np.shape(ours[term]) == np.shape(theirs[term])
            np.testing.assert_allclose(ours[term], theirs[term], rtol=1e-12, atol=0)
    if name not in ("Fixed", "NTK once"):
        assert any(not np.array_equal(found[0][n], found[-1][n]) for n in NAMES)


def test_the_formula_of_causal_goes_through_every_stage(path):
    weighting = weighting_of_causal("objective")
    path.updates(weighting, "objective")
    assert weighting.state_dict()["stage"] == 2


def test_the_lookback_of_relobralo_is_drawn_both_ways():
    draws = [np.random.default_rng([5, k]).random() < 0.6 for k in range(1, STEPS)]
    assert any(draws)
    assert not all(draws)


def test_weights_of_an_objective_that_has_weights_are_the_same(path):
    """What a weighting measures is without the weights of terms, which it would feed back."""
    for name, (_, make, _) in FORMULAS.items():
        path.objective.parameters.assign(path.states[0])
        heavy = path.objective.with_weights({"initial": 1e3, "periodic": 0.0})
        assert_equal(
            make("objective").update(path.objective), make("objective").update(heavy)
        )
        assert name


def test_losses_have_the_weights_of_points_as_their_gradients_do(path):
    each = torch.linspace(0, 4, 9, dtype=torch.float64)
    weighted = path.objective.with_weights({"pde": each})
    remembering = weighted.with_evaluator(Remembering())
    path.objective.parameters.assign(path.states[0])
    loss = (each.numpy() * path.by_hand[0]["pde"].losses).mean()
    for objective in (weighted, remembering):
        weighting = pinn.SoftAdapt()
        weighting.update(objective)
        assert weighting.state_dict()["last/pde"] == pytest.approx(loss, rel=1e-12)
    found = pinn.GradientNorm().update(weighted)
    assert found == pytest.approx(pinn.GradientNorm().update(remembering), rel=1e-13)
    assert found["pde"] != pinn.GradientNorm().update(path.objective)["pde"]


def assert_equal(one, other):
    assert list(one) == list(other)
    for name in one:
        assert torch.equal(torch.as_tensor(one[name]), torch.as_tensor(other[name])), (
            name
        )


# --- when ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [n for n in FORMULAS if n not in ("Fixed", "Linear")])
def test_weights_stay_between_two_updates(path, name):
    weighting, every = FORMULAS[name][1]("objective"), FORMULAS[name][1]("objective")
    weighting.update_every = 3
    found = path.updates(weighting, "objective")
    for k in (1, 2, 4, 5, 7):
        assert_equal(found[k], found[k - 1])
    if not name.startswith("ReLoBRaLo"):  # which draws by the number of calls
        assert_equal(found[3], path.updates(every, "objective", (0, 3))[-1])


def test_an_update_that_is_not_due_asks_for_nothing():
    weighting = pinn.NeuralTangentKernel(update_every=2)
    theta = torch.ones(2, requires_grad=True)
    first = weighting.update({"a": theta, "b": 2 * theta}, [theta])
    assert weighting.update({"a": torch.ones(()), "b": torch.ones(())}) == first


@pytest.mark.parametrize("name", FORMULAS)
def test_renewing_is_updating_as_many_times_as_there_are_steps(path, name):
    one, other = FORMULAS[name][1]("objective"), FORMULAS[name][1]("objective")
    one.update_every = other.update_every = 2
    updated = path.updates(one, "objective")
    for k in range(0, STEPS, 2):
        path.objective.parameters.assign(path.states[k])
        assert_equal(other.renew(path.objective), updated[k])
        assert_equal(other.at(path.objective), updated[k])


# --- state --------------------------------------------------------------------------------------


@pytest.mark.parametrize("every", [1, 2])
@pytest.mark.parametrize("name", FORMULAS)
def test_a_weighting_saved_in_the_middle_goes_on_to_the_same_bits(
    path, name, every, tmp_path
):
    make = FORMULAS[name][1]
    whole, cut, fresh = (make("objective") for _ in range(3))
    for weighting in (whole, cut, fresh):
        weighting.update_every = every
    expected = path.updates(whole, "objective")
    path.updates(cut, "objective", range(3))
    state = cut.state_dict()
    torch.save(state, tmp_path / "state.pt")
    path.updates(
        cut, "objective", range(3, STEPS)
    )  # which leaves the saved state alone
    again = torch.load(tmp_path / "state.pt", weights_only=True)
    assert_equal(state, again)
    numbers = {n: v for n, v in again.items() if not isinstance(v, torch.Tensor)}
    assert json.loads(json.dumps(numbers)) == numbers
    fresh.load_state_dict(state)
    found = path.updates(fresh, "objective", range(3, STEPS))
    assert_equal(fresh.state_dict(), cut.state_dict())
    for ours, theirs in zip(found, expected[3:], strict=True):
        assert_equal(ours, theirs)


@pytest.mark.parametrize(
    "state",
    [
        {},
        {"calls": -1},
        {"calls": True},
        {"calls": 1.0},
        {"calls": 1, "weights/pde": math.nan},
        {"calls": 1, "weights/pde": "1"},
        {"calls": 1, "weights/pde": torch.tensor([1.0, math.inf])},
        {"calls": 1, "weights/pde": None},
    ],
)
def test_what_is_no_state_is_refused_and_changes_nothing(state):
    weighting = pinn.NeuralTangentKernel()
    with pytest.raises(ValueError, match="a weighting's state"):
        weighting.load_state_dict(state)
    assert weighting.state_dict() == {"calls": 0}


def test_a_saved_state_is_a_copy(path):
    weighting = pinn.SelfAdaptive()
    path.updates(weighting, "objective", [0])
    weighting.state_dict()["sizes/pde"].zero_()
    assert bool((weighting.state_dict()["sizes/pde"] > 0).all())


# --- options and errors -------------------------------------------------------------------------

ALL = {
    pinn.Linear: {"initial": {}, "final": {}, "iterations": 3},
    pinn.NeuralTangentKernel: {},
    pinn.GradientNorm: {},
    pinn.LearningRateAnnealing: {},
    pinn.ReLoBRaLo: {},
    pinn.SoftAdapt: {},
    pinn.SelfAdaptive: {},
    pinn.ResidualBasedAttention: {},
    pinn.Causal: {},
}


@pytest.mark.parametrize("every", [0, -1, 1.0, True, "2", None])
@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.__name__)
def test_update_every_must_be_a_positive_integer(kind, every):
    with pytest.raises(ValueError, match="update_every must be a positive integer"):
        kind(**ALL[kind], update_every=every)


@pytest.mark.parametrize("value", [-0.1, 1.1, 2, -1, "0.5", None, math.nan, True])
@pytest.mark.parametrize(
    ("kind", "option"),
    [
        (pinn.NeuralTangentKernel, "alpha"),
        (pinn.GradientNorm, "momentum"),
        (pinn.LearningRateAnnealing, "alpha"),
        (pinn.ReLoBRaLo, "alpha"),
        (pinn.ReLoBRaLo, "rho"),
    ],
)
def test_shares_must_be_numbers_between_zero_and_one(kind, option, value):
    with pytest.raises(ValueError, match=f"{option} must be a number between 0 and 1"):
        kind(**{option: value})


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_shares_may_be_nothing_or_all(path, value):
    kept = pinn.NeuralTangentKernel(value)
    path.updates(kept, "objective", [0, 1])
    assert (set(kept.weights.values()) == {1.0}) is (value == 1.0)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: pinn.Fixed([1.0]), ValueError, "weights must be numbers by term"),
        (lambda: pinn.Fixed({"pde": -1.0}), ValueError, "the weight of term 'pde'"),
        (lambda: pinn.Fixed({"pde": math.inf}), ValueError, "the weight of term 'pde'"),
        (
            lambda: pinn.Linear({"a": "1"}, {}, 3),
            ValueError,
            "initial: the weight of term 'a'",
        ),
        (
            lambda: pinn.Linear({}, {"a": -1}, 3),
            ValueError,
            "final: the weight of term 'a'",
        ),
        (
            lambda: pinn.Linear({}, {}, 0),
            ValueError,
            "iterations must be a positive integer",
        ),
        (
            lambda: pinn.NeuralTangentKernel(estimate="traces"),
            ValueError,
            "did you mean 'trace'",
        ),
        (
            lambda: pinn.ReLoBRaLo(temperature=0.0),
            ValueError,
            "temperature must be a positive",
        ),
        (
            lambda: pinn.ReLoBRaLo(seed=-1),
            ValueError,
            "seed must be a non-negative integer",
        ),
        (
            lambda: pinn.SoftAdapt(beta=math.nan),
            ValueError,
            "beta must be a finite number",
        ),
        (lambda: pinn.SelfAdaptive(lr=0.0), ValueError, "lr must be a positive number"),
        (lambda: pinn.SelfAdaptive(decay=1.1), ValueError, "decay must be at most 1"),
        (
            lambda: pinn.SelfAdaptive(decay=0.0),
            ValueError,
            "decay must be a positive number",
        ),
        (
            lambda: pinn.SelfAdaptive(power=-1.0),
            ValueError,
            "power must be a positive number",
        ),
        (lambda: pinn.SelfAdaptive(terms="pde"), TypeError, r"such as \('pde',\)"),
        (lambda: pinn.Causal(terms="pde"), TypeError, r"such as \('pde',\)"),
        (lambda: pinn.Causal(epsilon=1.0), TypeError, "epsilon must be numbers"),
        (lambda: pinn.Causal(epsilon=()), TypeError, "epsilon must be numbers"),
        (
            lambda: pinn.Causal(epsilon=(1.0, 0.0)),
            ValueError,
            "epsilon must be a positive",
        ),
        (lambda: pinn.Causal(epsilon=(1.0, 0.1)), ValueError, "in rising order"),
        (lambda: pinn.Causal(windows=1), ValueError, "windows must be 2 or more"),
        (
            lambda: pinn.Causal(windows=2.0),
            ValueError,
            "windows must be a positive integer",
        ),
        (
            lambda: pinn.Causal(threshold=1.0),
            ValueError,
            "threshold must be between 0 and 1",
        ),
        (
            lambda: pinn.Causal(coordinate=-1),
            ValueError,
            "coordinate must be a non-negative",
        ),
        (
            lambda: pinn.Causal(coordinate=1.0),
            ValueError,
            "coordinate must be a non-negative",
        ),
    ],
)
def test_options_are_checked_where_they_are_given(make, error, message):
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize(
    ("weighting", "message"),
    [
        (pinn.Fixed({"pdes": 1.0}), "unknown term 'pdes' .*did you mean 'pde'"),
        (pinn.Linear({}, {"start": 1.0}, 3), "unknown term 'start'"),
        (pinn.LearningRateAnnealing(reference="start"), "unknown reference 'start'"),
        (pinn.SelfAdaptive(terms=("pde", "start")), "unknown term 'start'"),
        (pinn.Causal(terms=("start",)), "unknown term 'start'"),
        (pinn.Causal(coordinate="time"), "unknown coordinate 'time'"),
        (pinn.Causal(coordinate=2), "unknown coordinate 2"),
    ],
)
def test_options_that_name_what_is_not_there_are_refused(path, weighting, message):
    for ask in (weighting.check, weighting.update, weighting.renew):
        with pytest.raises(ValueError, match=message):
            ask(path.objective)
    assert weighting.state_dict() == {"calls": 0}


THETA = torch.tensor([1.0, 2.0], dtype=torch.float64, requires_grad=True)


@pytest.mark.parametrize(
    ("weighting", "losses", "options", "error", "message"),
    [
        (
            pinn.GradientNorm(),
            {"a": THETA.sum()},
            {},
            ValueError,
            "needs the parameters",
        ),
        (
            pinn.NeuralTangentKernel(),
            {"a": THETA},
            {},
            ValueError,
            "needs the parameters",
        ),
        (
            pinn.GradientNorm(),
            {"a": THETA.sum()},
            {"parameters": [torch.ones(2)]},
            ValueError,
            "needs the parameters",
        ),
        (
            pinn.GradientNorm(),
            {"a": THETA.sum()},
            {"parameters": nn.Linear(2, 1).named_parameters()},
            TypeError,
            "parameters must be tensors",
        ),
        (
            pinn.GradientNorm(),
            {"a": THETA.sum()},
            {"parameters": nn.Sequential(nn.Linear(2, 1))},
            TypeError,
            "parameters must be tensors, such as list",
        ),
        (
            pinn.GradientNorm(),
            {"a": THETA.detach().sum()},
            {"parameters": [THETA]},
            ValueError,
            "depend on no parameter",
        ),
        (
            pinn.NeuralTangentKernel(),
            {"a": THETA, "b": THETA.sum()},
            {"parameters": [THETA]},
            ValueError,
            "does not tell the residuals of term 'b'",
        ),
        (
            pinn.NeuralTangentKernel(estimate="mean_trace"),
            {"a": THETA.sum()},
            {"parameters": [THETA]},
            ValueError,
            "residuals of term 'a'",
        ),
        (
            pinn.SelfAdaptive(),
            {"a": THETA.sum()},
            {},
            ValueError,
            "residuals of term 'a'",
        ),
        (
            pinn.Causal(coordinate=0),
            {"a": THETA.sum()},
            {},
            ValueError,
            "residuals of term 'a'",
        ),
        (pinn.Causal(coordinate=0), {"a": THETA}, {}, ValueError, "points of term 'a'"),
        (
            pinn.Causal(),
            {"a": THETA},
            {"points": {"a": torch.rand(2, 2)}},
            ValueError,
            "such as coordinate=1",
        ),
        (
            pinn.Causal(coordinate=2),
            {"a": THETA},
            {"points": {"a": torch.rand(2, 2)}},
            ValueError,
            "unknown coordinate 2",
        ),
        (
            pinn.Causal(coordinate=1),
            {"a": THETA},
            {"points": {"a": torch.zeros(2, 2)}},
            ValueError,
            "all at the time 0",
        ),
        (pinn.Fixed({}), {}, {}, TypeError, "losses must be tensors by term"),
        (pinn.Fixed({}), THETA, {}, TypeError, "losses must be tensors by term"),
        (
            pinn.Fixed({}),
            {"a": 1.0},
            {},
            TypeError,
            "the loss of term 'a' must be a tensor",
        ),
    ],
)
def test_what_is_missing_is_said(weighting, losses, options, error, message):
    with pytest.raises(error, match=message):
        weighting.update(losses, **options)
    assert weighting.state_dict() == {"calls": 0}


def test_other_terms_than_before_are_refused():
    weighting = pinn.SoftAdapt()
    weighting.update({"a": torch.ones(()), "b": torch.ones(())})
    with pytest.raises(
        ValueError, match="weights of the terms a, b, but was given a, c"
    ):
        weighting.update({"a": torch.ones(()), "c": torch.ones(())})


BROKEN = {
    "NTK": pinn.NeuralTangentKernel,
    "NTK mean": lambda: pinn.NeuralTangentKernel(estimate="mean_trace"),
    "NTK gradient": lambda: pinn.NeuralTangentKernel(estimate="gradient_norm"),
    "GradientNorm": lambda: pinn.GradientNorm(update_every=1),
    "LearningRateAnnealing": lambda: pinn.LearningRateAnnealing(update_every=1),
    "ReLoBRaLo": pinn.ReLoBRaLo,
    "SoftAdapt": pinn.SoftAdapt,
    "SelfAdaptive": pinn.SelfAdaptive,
    "vRBA": pinn.ResidualBasedAttention,
    "Causal": lambda: pinn.Causal(coordinate=0, terms=("b",), windows=2),
}


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("name", BROKEN)
def test_a_loss_that_is_not_finite_is_an_error_that_leaves_the_weighting_as_it_was(
    name, first
):
    def residuals(factor):
        return {"a": THETA**2, "b": factor * THETA}

    def update(weighting, factor):
        points = {n: torch.tensor([[0.0], [1.0]], dtype=torch.float64) for n in "ab"}
        return weighting.update(residuals(factor), [THETA], points=points)

    weighting, spared = BROKEN[name](), BROKEN[name]()
    if not first:
        for each in (weighting, spared):
            update(each, 1.0)
    before = weighting.state_dict()
    with pytest.raises(FloatingPointError, match=r"'b'|'a'"):
        update(weighting, math.nan)
    assert_equal(weighting.state_dict(), before)
    assert_equal(update(weighting, 2.0), update(spared, 2.0))


def test_a_term_without_a_gradient_keeps_its_weight():
    """As a boundary condition that is met exactly has none."""
    terms = {"a": THETA.sum(), "b": 0 * THETA.sum(), "c": 2 * THETA.sum()}
    for weighting in (pinn.GradientNorm(0.0), pinn.LearningRateAnnealing(1.0)):
        found = weighting.update(terms, [THETA])
        assert all(math.isfinite(weight) for weight in found.values())
        assert (
            found["a"] == pytest.approx(2 * found["c"], rel=1e-4) or found["a"] == 1.0
        )
    residuals = {"a": THETA, "b": 0 * THETA}
    assert pinn.NeuralTangentKernel(0.0).update(residuals, [THETA]) == {
        "a": 1.0,
        "b": 1.0,
    }
    norms = pinn.NeuralTangentKernel(0.5, estimate="gradient_norm")
    assert norms.update({"a": 0 * THETA.sum()}, [THETA]) == {"a": 1.0}


def test_parameters_that_a_loss_does_not_depend_on_count_as_zero():
    other = torch.ones(6, dtype=torch.float64, requires_grad=True)
    frozen = torch.ones(3, dtype=torch.float64)
    found = pinn.LearningRateAnnealing(1.0).update(
        {"a": THETA.sum(), "b": other.sum()}, iter([THETA, frozen, other])
    )
    assert found == {"a": 1.0, "b": 1 / (6 / 8)}


def test_traces_of_residuals_that_do_not_depend_on_every_parameter():
    """The last bias falls out of every derivative."""
    network, z = (
        oracles.tanh_network(1, 6, 1),
        torch.linspace(0, 1, 5).double()[:, None],
    )
    z.requires_grad_()
    (first,) = torch.autograd.grad(network(z).sum(), z, create_graph=True)
    residuals = {"pde": first, "boundary": network(z.detach()[:2])}
    parameters = list(network.parameters())
    traces = {}
    for name, values in residuals.items():
        rows = [
            torch.autograd.grad(r, parameters, retain_graph=True, materialize_grads=True,
                                allow_unused=True)
            for r in values.flatten()
        ]  # fmt: skip
        traces[name] = sum(float(g.square().sum()) for row in rows for g in row)
    found = pinn.NeuralTangentKernel(0.0).update(residuals, parameters)
    total = sum(traces.values())
    assert found == pytest.approx({n: total / t for n, t in traces.items()}, rel=1e-12)


@pytest.mark.parametrize("shape", [(600,), (300, 2), (1, 1)])
def test_traces_of_many_residuals(shape):
    matrix = torch.randn(
        math.prod(shape), 2, generator=torch.Generator().manual_seed(0)
    ).double()
    residuals = {"a": (matrix @ THETA).reshape(shape), "b": THETA}
    found = pinn.NeuralTangentKernel(0.0).update(residuals, [THETA])
    trace = float(matrix.square().sum())
    assert found["a"] == pytest.approx((trace + 2) / trace, rel=1e-13)
    assert found["b"] == pytest.approx((trace + 2) / 2, rel=1e-13)
    mean = pinn.NeuralTangentKernel(0.0, estimate="mean_trace").update(
        residuals, [THETA]
    )
    assert mean["b"] == pytest.approx(trace / len(matrix) + 1, rel=1e-13)


def test_the_graph_of_the_losses_is_there_for_the_step():
    theta = torch.ones(3, requires_grad=True)
    losses = {"a": (theta**2).mean(), "b": (theta**3).mean()}
    weights = pinn.GradientNorm().update(losses, [theta])
    sum(weights[n] * losses[n] for n in losses).backward()
    assert theta.grad is not None
    assert all(isinstance(weight, float) for weight in weights.values())


def test_single_precision():
    theta = torch.ones(3, requires_grad=True)
    points = {
        n: torch.rand(3, 1, generator=torch.Generator().manual_seed(1)) for n in "ab"
    }
    for make in BROKEN.values():
        found = make().update({"a": theta**2, "b": theta}, [theta], points=points)
        for weight in found.values():
            assert isinstance(weight, float) or weight.dtype == torch.float32


# --- points that change -------------------------------------------------------------------------


def test_self_adaptive_weights_follow_their_points():
    weighting = pinn.SelfAdaptive(0.5, decay=1.0)
    points = torch.tensor([[0.0], [1.0], [2.0]])
    first = weighting.update(
        {"a": torch.tensor([1.0, 2.0, 3.0])}, points={"a": points}
    )["a"]
    losses = torch.tensor([1.0, 4.0, 9.0])
    torch.testing.assert_close(first, 1 + 0.5 * losses / losses.mean())
    weighting.update_every = 7  # so that nothing but the points changes
    weighting._state["calls"] = 1
    moved = torch.tensor([[1.0], [2.2], [-3.0], [0.4], [0.0]])
    found = weighting.update({"a": torch.ones(5)}, points={"a": moved})["a"]
    assert torch.equal(found, first[[1, 2, 0, 0, 0]])


def test_self_adaptive_weights_without_points_need_the_same_number_of_residuals():
    weighting = pinn.SelfAdaptive(update_every=2)
    weighting.update({"a": torch.ones(3)})
    for _ in range(2):
        with pytest.raises(ValueError, match="needs the points of term 'a'"):
            weighting.update({"a": torch.ones(4)})
        weighting._state["calls"] = 2


def test_nearest_points_are_exact_however_many_there_are():
    generator = torch.Generator().manual_seed(0)
    points = 1e3 + torch.rand(2300, 2, generator=generator, dtype=torch.float64)
    weighting = pinn.SelfAdaptive()
    first = weighting.update({"a": points[:, :1]}, points={"a": points})["a"]
    order = torch.randperm(len(points), generator=generator)
    weighting.update_every, weighting._state["calls"] = 5, 1
    found = weighting.update({"a": points[:, :1]}, points={"a": points[order]})["a"]
    assert torch.equal(found, first[order])


def test_causal_weights_follow_the_time_of_their_points():
    weighting = pinn.Causal((0.5,), windows=2, coordinate=0)
    points = torch.tensor([[0.0], [0.4], [0.5], [1.0]])
    found = weighting.update({"a": torch.full((4,), 2.0)}, points={"a": points})["a"]
    torch.testing.assert_close(
        found, torch.tensor([1.0, 1.0, math.exp(-2), math.exp(-2)])
    )
    weighting.update_every = 9
    weighting._state["calls"] = 1
    other = torch.tensor([[2.0], [-1.0], [0.6]])
    found = weighting.update({"a": torch.ones(3)}, points={"a": other})["a"]
    torch.testing.assert_close(found, torch.tensor([math.exp(-2), 1.0, math.exp(-2)]))


# --- traces -------------------------------------------------------------------------------------


def by_points(objective):
    """Σ‖∂r/∂θ‖² by ``jacrev`` at one point after the other."""
    parameters = objective.parameters
    theta = parameters.vector()

    def trace(term, z):
        rows = jacrev(lambda t: term.residual(parameters.substituted(t), z[None])[0])(
            theta
        )
        return float(rows.square().sum())

    return {n: sum(trace(t, z) for z in t.points) for n, t in objective.terms.items()}


def zoo(name):
    problem = pinn.zoo.load(name, "soft")
    points = problem.sample(dict.fromkeys(problem.terms, 5), seed=0)
    return problem.objective(
        pinn.MLP([2, 7, 7, 1], seed=0), points, {problem.terms[0]: 3.0}
    )


def flow():
    return oracles.navier_stokes(widths=(2, 7, 7, 3)).objective


class Scaled(nn.Module):
    """A parameter outside of layers."""

    def __init__(self):
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(1.5))
        self.inner = oracles.tanh_network(2, 6, 1)

    def forward(self, x):
        return self.factor * self.inner(x)


class Embedded(nn.Module):
    def __init__(self):
        super().__init__()
        self.table, self.end = nn.Embedding(5, 3), nn.Linear(3, 2)

    def forward(self, x):
        return self.end(torch.tanh(self.table(x[:, 0].long())))


class Image(nn.Module):
    def __init__(self, *layers):
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, x):
        return self.layers(x.view(-1, 1, 4, 4)).flatten(1)


def of_network(network, width=2, integers=False):
    torch.manual_seed(0)
    network = network.double().eval()
    points = oracles.uniform(6, (0,) * width, (4.9,) * width)

    def residual(tensors, z):
        return functional_call(network, dict(tensors), (z,))

    def twice(tensors, z):
        return residual(tensors, z) ** 2 - residual(tensors, 4.9 - z)

    return Objective(
        network, [Term("a", residual, points, 2.0), Term("b", twice, points[:4])]
    )


def seeded(make):
    torch.manual_seed(0)
    return make()


TRACED = {
    "soft": lambda: oracles.burgers_soft(widths=(2, 7, 7, 1)).objective,
    "wide": lambda: oracles.burgers_soft(widths=(2, 70, 70, 1)).objective,
    "flow": flow,
    "periodic": lambda: zoo("drift_diffusion"),
    "wave": lambda: zoo("wave"),
    "autograd": lambda: (
        oracles.burgers_soft(widths=(2, 7, 1), derivatives="autograd").objective
    ),
    "outside": lambda: of_network(Scaled()),
    "embedding": lambda: of_network(Embedded(), 1),
    "convolution": lambda: of_network(
        Image(nn.Conv2d(1, 3, 3, padding=1), nn.Tanh(), nn.Conv2d(3, 2, 2)), 16
    ),
    "batch norm": lambda: of_network(
        Image(
            nn.Conv2d(1, 3, 2),
            nn.BatchNorm2d(3),
            nn.Tanh(),
            nn.Flatten(),
            nn.Linear(27, 2),
        ),
        16,
    ),
    "layer norm": lambda: of_network(
        nn.Sequential(nn.Linear(2, 5), nn.LayerNorm(5), nn.GELU(), nn.Linear(5, 1))
    ),
    "selected": lambda: (
        oracles.burgers_soft(widths=(2, 7, 7, 1), select="2.*").objective
    ),
}


@pytest.mark.parametrize("name", TRACED)
def test_traces_are_those_of_jacobians_at_single_points(name):
    objective = seeded(TRACED[name])
    expected, found = by_points(objective), Jacobian(objective).traces()
    assert list(found) == list(expected)
    for term, trace in expected.items():
        assert trace > 1e-6
        assert found[term] == pytest.approx(trace, rel=1e-12), term
    chunked = Jacobian(objective, chunk=2).traces()
    assert chunked == pytest.approx(expected, rel=1e-12)
    weights = pinn.NeuralTangentKernel(0.0).update(objective)
    total = sum(expected.values())
    assert weights == pytest.approx(
        {n: total / t for n, t in expected.items()}, rel=1e-12
    )


# --- PINA ---------------------------------------------------------------------------------------


def of_pina(losses, parameters, weights, alpha):
    """``NeuralTangentKernelWeighting.update_weights`` of PINA 0.3.2, written out again."""
    norms = {}
    for name, loss in losses.items():
        grads = torch.autograd.grad(
            loss, parameters, retain_graph=True, allow_unused=True
        )
        norms[name] = torch.cat([g.flatten() for g in grads if g is not None]).norm()
    return {
        name: alpha * weights.get(name, 1)
        + (1 - alpha) * norms[name] / sum(norms.values())
        for name in losses
    }


class Training:
    """A network with Adam in a plain loop."""

    def __init__(self):
        self.network = oracles.tanh_network(2, 8, 8, 1)
        self.adam = torch.optim.Adam(self.network.parameters(), lr=1e-2)
        self.points = {
            "pde": oracles.uniform(20, (0, 0), (1, 1), 1),
            "boundary": oracles.uniform(9, (0, 0), (1, 0), 2),
        }

    def losses(self):
        z = self.points["pde"].clone().requires_grad_()
        (first,) = torch.autograd.grad(self.network(z).sum(), z, create_graph=True)
        (second,) = torch.autograd.grad(first[:, 0].sum(), z, create_graph=True)
        pde = (first[:, 1] - second[:, 0]).square().mean()
        boundary = (
            self.network(self.points["boundary"]) - self.points["boundary"][:, :1]
        )
        return {"pde": pde, "boundary": boundary.square().mean()}

    def step(self, losses, weights):
        self.adam.zero_grad()
        sum(weights[name] * loss for name, loss in losses.items()).backward()
        self.adam.step()


@pytest.mark.parametrize("alpha", [0.0, 0.3, 0.5, 1.0])
def test_the_gradient_norms_are_what_pina_ships_as_its_kernel(alpha):
    training, theirs = Training(), {}
    ours = pinn.NeuralTangentKernel(alpha, estimate="gradient_norm")
    for _ in range(10):
        losses, parameters = training.losses(), list(training.network.parameters())
        theirs = of_pina(losses, parameters, theirs, alpha)
        found = ours.update(losses, parameters)
        assert found == pytest.approx(
            {n: float(w) for n, w in theirs.items()}, rel=1e-12
        )
        training.step(losses, found)


@pytest.mark.parametrize("every", [1, 3])
@pytest.mark.parametrize("alpha", [0.0, 0.5, 0.9])
def test_pina_itself_gives_the_same_weights(alpha, every):
    weighting = pytest.importorskip("pina.weighting")
    training = Training()
    theirs = weighting.NeuralTangentKernelWeighting(every, alpha)
    ours = pinn.NeuralTangentKernel(alpha, every, estimate="gradient_norm")
    for epoch in range(10):
        trainer = SimpleNamespace(current_epoch=epoch)
        theirs._solver = SimpleNamespace(model=training.network, trainer=trainer)
        losses = training.losses()
        total = theirs.aggregate(losses)
        found = ours.update(losses, training.network.parameters())
        saved = {n: float(w) for n, w in theirs.last_saved_weights().items()}
        assert found == pytest.approx(saved, rel=1e-12)
        weighted = sum(found[n] * float(loss) for n, loss in losses.items())
        assert float(total) == pytest.approx(weighted, rel=1e-12)
        training.step(losses, found)
