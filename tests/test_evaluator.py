"""Loss and gradient, eager and compiled, against the oracle's rows."""

import shutil

import oracles
import pytest
import torch

from whence import compilation, evaluator, pinn
from whence.compilation import Compiled, NotCompiled, Work
from whence.evaluator import Remembering
from whence.jacobian import Jacobian

needs_compiler = pytest.mark.skipif(
    shutil.which("g++") is None, reason="needs a C++ compiler"
)
CASES = {
    "hard": oracles.burgers_hard,
    "soft": oracles.burgers_soft,
    "flow": oracles.navier_stokes,
}


def expected(case):
    gradients, scales = oracles.loss_gradients(case)
    return float(oracles.loss(case, case.theta)), (scales[:, None] * gradients).sum(0)


@pytest.mark.parametrize("at_once", [1, 4, 10, 4000])
@pytest.mark.parametrize("name", CASES)
def test_blocks_change_nothing(name, at_once, monkeypatch):
    monkeypatch.setattr(evaluator, "MAX_EVALUATED", at_once)
    case = CASES[name]()
    loss, found = case.objective.loss_and_gradient()
    value, right = expected(case)
    assert loss == pytest.approx(value, rel=1e-12)
    oracles.close(found, right, 1e-12)


def test_every_point_is_taken_once(monkeypatch):
    monkeypatch.setattr(evaluator, "MAX_EVALUATED", 4)
    objective = oracles.burgers_soft().objective
    seen = {}
    for pieces in evaluator._portions(objective.terms):
        assert 0 < sum(len(points) for _, points, _ in pieces) <= 4
        for shared, points, _ in pieces:
            for term in shared.terms:
                seen.setdefault(term.name, []).append(points)
    assert {n: torch.cat(p).tolist() for n, p in seen.items()} == {
        n: t.points.tolist() for n, t in objective.terms.items()
    }


def test_gradients_of_terms_add_up_and_are_those_of_each_alone():
    objective = oracles.burgers_soft().objective
    objective = objective.with_weights(
        {name: 2.0 + k for k, name in enumerate(objective.terms)}
    )
    parts, total = objective.term_gradients(), objective.loss_and_gradient()
    weights = {name: term.weight for name, term in objective.terms.items()}
    assert sum(weights[n] * float(v) for n, (v, _) in parts.items()) == pytest.approx(
        total[0]
    )
    oracles.close(sum(weights[n] * g for n, (_, g) in parts.items()), total[1], 1e-12)
    for name, (value, part) in parts.items():
        alone = objective.with_terms([objective.term(name)]).with_weights({name: 1.0})
        one = alone.loss_and_gradient()
        assert float(value) == pytest.approx(one[0], rel=1e-12)
        oracles.close(part, one[1], 1e-12)


def test_gradients_of_terms_are_remembered_until_parameters_or_points_change(
    monkeypatch,
):
    objective = oracles.burgers_soft().objective
    evaluation = Remembering()
    made = []
    one = Remembering.term_gradient

    def noted(self, *args):
        made.append(args[1].name)
        return one(self, *args)

    monkeypatch.setattr(Remembering, "term_gradient", noted)
    agrees(evaluation, objective)
    names = list(objective.terms)
    assert made == names
    agrees(evaluation, objective.with_weights({names[0]: 7.0}))
    assert made == names
    points = objective.terms[names[0]].points
    agrees(evaluation, objective.with_points({names[0]: points[:3].clone()}))
    assert made == [*names, names[0]]
    points.mul_(0.5)
    agrees(evaluation, objective)
    assert made == [*names, names[0], names[0]]
    with objective.parameters.at(objective.parameters.vector() * 1.1):
        agrees(evaluation, objective)
    assert len(made) == 2 + 2 * len(names)


def two_terms():
    """A term of two components and one of another number of points: compiling takes seconds."""
    made = pinn.Problem(
        pinn.Rectangle(("x", "y"), (0, 0), (1, 1)),
        ("u",),
        {"pde": lambda u, u_x, u_y, x: (u * u_x - x, u_y)},
        conditions=[pinn.Dirichlet(u=0.3, on="x")],
    )
    points = made.sample({"pde": 9, "dirichlet_u": 6}, seed=0)
    return made.objective(pinn.MLP([2, 3, 1], seed=1), points, {"pde": 3.0})


@pytest.fixture(scope="module")
def compiled():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compilation, "MAX_BLOCK", 4)
        patch.setattr(compilation, "MIN_BLOCK", 1)
        whole = two_terms()
        return whole, Compiled(whole)


def agrees(evaluate, objective):
    loss, found = objective.with_evaluator(evaluate).loss_and_gradient()
    value, right = objective.loss_and_gradient()
    assert loss == pytest.approx(value, rel=1e-12)
    oracles.close(found, right, 1e-12)


@needs_compiler
def test_compiled_agrees_and_takes_new_points_weights_and_parameters(compiled):
    objective, evaluate = compiled
    agrees(evaluate, objective)
    name, term = next(iter(objective.terms.items()))
    generator = torch.Generator().manual_seed(1)
    for n in (1, 3, 4, 17):
        points = torch.rand(
            n, term.points.shape[1], generator=generator, dtype=torch.float64
        )
        agrees(evaluate, objective.with_points({name: points}))
    agrees(evaluate, objective.with_weights({name: 7.0}))
    before = objective.parameters.vector()
    objective.parameters.assign(before * 0.5)
    agrees(evaluate, objective)
    objective.parameters.assign(before)


@needs_compiler
def test_compiled_traces_agree(compiled):
    objective, evaluate = compiled
    # Not compiled yet, and added up in another order.
    eager = evaluate.traces(objective.parameters, objective.terms)
    assert eager == pytest.approx(Jacobian(objective).traces(), rel=1e-14)
    evaluate.compile_traces(objective)
    name, term = next(iter(objective.terms.items()))
    points = torch.rand(9, term.points.shape[1], dtype=torch.float64)
    weighted = objective.with_weights(
        {name: torch.arange(float(len(term.points))).double()}
    )
    before = objective.parameters.vector()
    for other in (objective, objective.with_points({name: points}), weighted):
        objective.parameters.assign(before * 0.9)
        found = evaluate.traces(other.parameters, other.terms)
        expected = Jacobian(other).traces()
        assert found == pytest.approx(expected, rel=1e-12)
    objective.parameters.assign(before)


@needs_compiler
def test_points_changed_in_place_are_noticed(compiled):
    objective, evaluate = compiled
    name, term = next(iter(objective.terms.items()))
    changed = objective.with_points({name: term.points.clone()})
    agrees(evaluate, changed)
    changed.terms[name].points.mul_(0.5)
    agrees(evaluate, changed)


@needs_compiler
def test_another_residual_is_refused(compiled):
    _, evaluate = compiled
    with pytest.raises(ValueError, match="not the one that was compiled"):
        agrees(evaluate, oracles.burgers_soft().objective)


def problem(equation):
    square = pinn.Interval("x", 0, 1) * pinn.Interval("y", 0, 1)
    return pinn.Problem(square, ("u",), {"pde": equation})


def objective(equation, network=None):
    made = problem(equation)
    network = network or pinn.MLP([2, 4, 1], seed=0).double()
    return made.objective(network, made.sample(6, seed=0))


class Counting(torch.nn.Module):
    """A network that counts its calls in a buffer."""

    def __init__(self):
        super().__init__()
        self.inner = torch.nn.Linear(2, 1, dtype=torch.float64)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x):
        self.calls.add_(1)
        return self.inner(x)


def branching(u, u_x):
    return u if float(u.detach().sum()) > 0 else u_x


def dropping():
    layers = torch.nn.Linear(2, 8), torch.nn.Dropout(0.5), torch.nn.Linear(8, 1)
    return torch.nn.Sequential(*layers).double()


@needs_compiler
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: objective(branching),
            "term 'pde' cannot be traced: it depends on the values",
        ),
        (lambda: objective(lambda u: u - 1, dropping()), "random numbers"),
        (lambda: objective(lambda u: u - 1, Counting()), "mutate a captured"),
    ],
    ids=["branch", "dropout", "buffer"],
)
def test_what_cannot_be_compiled_is_said(make, message):
    with pytest.raises(NotCompiled, match=message):
        Compiled(make())


def test_a_wrong_compilation_is_noticed(monkeypatch):
    monkeypatch.setattr(
        compilation,
        "compiled",
        lambda name, graph, arguments: (
            lambda *args: tuple(1.001 * part for part in graph(*args))
        ),
    )
    with pytest.raises(NotCompiled, match=r"differs from the eager one by 1\.0e-03"):
        Compiled(objective(lambda u: u - 1))


@pytest.mark.parametrize(
    ("work", "pays"),
    [
        (Work(gradients=200, points=1000, parameters=2241, terms=1), False),
        (Work(gradients=20_000, points=1000, parameters=2241, terms=1), True),
        (Work(gradients=1000, points=2500, parameters=12_867, terms=1), True),
        (Work(gradients=1000, points=2500, parameters=12_867, terms=8), False),
    ],
)
def test_long_runs_pay_for_compilation(work, pays):
    assert work.pays_for_compilation() == pays
