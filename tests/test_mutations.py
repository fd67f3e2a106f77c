"""The suite's own test: each mutation of the core makes the shared check of influences fail."""

import functools
from dataclasses import replace

import oracles
import pytest
import torch
import torch.nn.functional as F

from whence import elementwise, jacobian, jets, linearization, thin_rows
from whence.attribution import factored
from whence.attribution.influence import Influence
from whence.attribution.solved_points import SolvedPoints
from whence.curvature import exact
from whence.curvature.operators import GaussNewtonMatrix, Hessian
from whence.curvature.solvers import Damping, Solution
from whence.jets import Jet
from whence.losses import Squared
from whence.objective import Objective
from whence.parameters import Parameters
from whence.space import Space
from whence.term import Term

SOFT, HARD, FLOW = oracles.burgers_soft, oracles.burgers_hard, oracles.navier_stokes
AUTOGRAD = functools.partial(HARD, derivatives="autograd")
WIDE = functools.partial(HARD, widths=(2, 40, 40, 1))
SMALL = functools.partial(oracles.burgers_soft, n=5, widths=(2, 4, 1))


def identity(self):
    return torch.eye(self.size, dtype=torch.float64)


def drop_curved(jet, rule, carry):
    """f(x)″ = f′ x″ without the f″ x′ x′."""
    value, first, *_ = rule(jet.data[0])
    return Jet(torch.cat([value.unsqueeze(0), first() * jet.data[1:]]), jet.layout)


def drop_cross(a, b, mul=jets._mul):
    """(ab)″ = a″b + ab″ without the 2 a′b′."""
    if not (isinstance(a, Jet) and isinstance(b, Jet)):
        return mul(a, b)
    x, y = jets._pair(a, b)
    rest = x[1:] * y[0] + x[0] * y[1:]
    return Jet(torch.cat([(x[0] * y[0]).unsqueeze(0), rest]), a.layout)


def bias_everywhere(x, weight, bias=None):
    return Jet(F.linear(x.data, weight, bias), x.layout)


def all_but_the_last_term(operator):
    return lambda objective: operator(
        objective.with_terms(list(objective.terms.values())[:-1])
    )


def negated(method):
    return lambda *args, **kwargs: -method(*args, **kwargs)


def first_component(method):
    """As if a term with several residuals had only one."""
    return lambda *args: [
        seed if k == 0 else 0 * seed for k, seed in enumerate(method(*args))
    ]


def last_call_only(method):
    """A layer used twice counts once."""

    def active(self, seed):
        latest = {
            call.weight: (call, delta, source)
            for call, delta, source in method(self, seed)
        }
        return iter(latest.values())

    return active


MUTATIONS = {
    "curvature is the identity": (
        GaussNewtonMatrix, "dense", lambda old: identity, {"make": SOFT, "form": "primal"},
    ),
    "Hessian is the identity": (
        Hessian, "dense", lambda old: identity, {"make": SMALL, "curvature": "hessian"},
    ),
    "Hessian is Gauss–Newton": (
        Hessian, "dense", lambda old: lambda self: GaussNewtonMatrix(self.objective).dense(),
        {"make": SMALL, "curvature": "hessian"},
    ),
    "1/N is dropped": (
        Term, "scale", lambda old: property(lambda self: self.weight), {"make": SOFT},
    ),
    "w is dropped": (
        Term, "scale", lambda old: property(lambda self: 1 / len(self.points)), {"make": SOFT},
    ),
    "loss ½r² in the gradient": (
        Squared, "gradient", lambda old: lambda self, r, y=None: r,
        {"make": HARD, "form": "primal"},
    ),
    "loss ½r² in the whitened gradient": (
        Squared, "whitened_gradient", lambda old: lambda self, r, y=None: r,
        {"make": HARD, "targets": 20},
    ),
    "loss ½r² in the curvature": (
        Squared, "curvature_root", lambda old: lambda self, r, y=None: old(self, r) / 2**0.5,
        {"make": HARD, "form": "primal"},
    ),
    "a term is left out of the curvature": (
        factored, "GaussNewtonMatrix", all_but_the_last_term, {"make": SOFT, "form": "primal"},
    ),
    "a component is left out of the curvature": (
        jacobian.Jacobian, "_cotangents", first_component, {"make": FLOW, "form": "primal"},
    ),
    "the sign is flipped": (
        Influence, "products", negated, {"make": SOFT, "form": "primal", "targets": 3},
    ),
    "the sign is flipped, by points": (
        SolvedPoints, "influences", negated, {"make": SOFT, "form": "primal", "targets": 20},
    ),
    "the sign is flipped, by rows": (
        jacobian.Jacobian, "by_point", negated, {"make": SOFT, "targets": 20},
    ),
    "damping is absolute": (
        Damping, "resolve", lambda old: lambda self, largest: self.value, {"make": HARD},
    ),
    "the solver does nothing": (
        exact, "_refined",
        lambda old: lambda apply, system, right, tol: Solution(right, 0.0, True, 0),
        {"make": HARD, "form": "primal", "targets": 3},
    ),
    "the solver of images does nothing": (
        exact.KernelFactor, "solve_images",
        lambda old: lambda self, vectors: self._kernel.matmat(vectors),
        {"make": HARD, "targets": 3},
    ),
    "the solver of rows does nothing": (
        exact._Dual, "solve_rows",
        lambda old: lambda self: replace(old(self), coefficients=self._factor.T @ self._factor),
        {"make": HARD, "targets": 20},
    ),
    "the kernel misses a layer": (
        thin_rows.ThinLayer, "add_products",
        lambda old: lambda *given, **options: None, {"make": WIDE},
    ),
    "targets miss a layer": (
        thin_rows.ThinRows, "_direct_rows",
        lambda old: lambda self, factors, thin: 0 * old(self, factors, thin),
        {"make": WIDE},
    ),
    "jets drop f″": (jets, "_through", lambda old: drop_curved, {"make": HARD}),
    "the fused chain rule drops f‴": (
        elementwise, "_add_second_orders", lambda old: lambda *given: None, {"make": HARD},
    ),
    "jets drop 2a′b′": (jets, "_mul", lambda old: drop_cross, {"make": HARD}),
    "bias reaches derivatives, forward": (
        jets._RULES, "linear", lambda old: bias_everywhere, {"make": HARD},
    ),
    "bias reaches derivatives, backward": (
        linearization, "_bias_part", lambda old: lambda call, delta: delta, {"make": HARD},
    ),
    "bias is left out of the products": (
        linearization, "_bias_part", lambda old: lambda call, delta: 0 * old(call, delta),
        {"make": SOFT},
    ),
    "a layer used twice counts once": (
        linearization.LayerLinearization, "_active", last_call_only, {"make": SOFT},
    ),
    "parameters in another order": (
        Parameters, "unflatten",
        lambda old: lambda self, vector: old(self, vector.flip(0)),
        {"make": AUTOGRAD},
    ),
}  # fmt: skip


@functools.cache
def passes_unmutated(*options):
    oracles.check_influence(**dict(options))
    return True


@pytest.fixture(name="mutate")
def _mutate(monkeypatch):
    def mutate(owner, name, mutation):
        if isinstance(owner, dict):
            monkeypatch.setitem(owner, name, mutation(owner[name]))
        else:
            monkeypatch.setattr(owner, name, mutation(getattr(owner, name)))

    return mutate


@pytest.mark.parametrize("targets", [3, 20])
@pytest.mark.parametrize("name", MUTATIONS)
def test_the_check_fails_under_mutation(name, targets, mutate):
    owner, attribute, mutation, options = MUTATIONS[name]
    options = {"targets": targets, **options}
    assert passes_unmutated(*options.items())
    mutate(owner, attribute, mutation)
    with pytest.raises(AssertionError, match="of the largest"):
        oracles.check_influence(**options)


def test_the_check_fails_when_the_objective_misses_a_term():
    """The oracle sees three terms, whence two."""
    case = SOFT()
    terms = list(case.objective.terms.values())[:-1]
    expected = oracles.influence(
        case, oracles.value_gradients(case, points := oracles.target_points(case)), 1e-4,
        points={t.name: t.points for t in terms},
    )  # fmt: skip
    objective = Objective(
        case.objective.network,
        terms,
        space=Space(
            coordinates=("x", "t"), outputs=("u",), evaluate=case.objective.fields
        ),
    )
    found = Influence(objective, damping=1e-4).attribute(oracles.Output(points))
    with pytest.raises(AssertionError, match="of the largest"):
        oracles.close(found, expected, 1e-10)


@pytest.mark.parametrize("error", [float("nan"), 1.0])
def test_the_comparison_itself_fails(error):
    expected = torch.ones(3)
    oracles.close(expected, expected, 0.0)
    wrong = expected.clone()
    wrong[1] += error
    with pytest.raises(AssertionError, match="of the largest"):
        oracles.close(wrong, expected, 1e-10)
    with pytest.raises(AssertionError):
        oracles.close(expected[:2], expected, 1e-10)
