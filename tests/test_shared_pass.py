"""Terms at the same points share a pass: the same numbers as each alone, and one pass for all."""

import shutil

import oracles
import pytest
import torch

import whence as wh
from whence import evaluator, pinn
from whence.compilation import Compiled, passes_to_compile
from whence.evaluator import Remembering
from whence.jacobian import Jacobian
from whence.levenberg_marquardt import DualSystem, PrimalSystem
from whence.ntk import TangentKernel
from whence.pinn.optimizers.batches import Batches
from whence.shared_pass import passes_of

EQUATIONS = {
    "mass": lambda u_x, v_y: u_x + v_y,
    "flow": lambda u, v, u_x, u_y, u_xx, x: (u * u_x + v * u_y - x * u_xx, u_y),
    "curl": lambda v_x, u_y, y: v_x - u_y + y**2,
}


def problem(**equations):
    return pinn.Problem(
        domain=pinn.Rectangle(("x", "y"), (0, 0), (1, 1)),
        outputs=("u", "v"),
        equations=equations or EQUATIONS,
        conditions=[pinn.Dirichlet(u=0.3, on="x")],
    )


def objective(n=11, order=("mass", "dirichlet_u", "flow", "curl"), **widths):
    made = problem()
    points = made.sample({"mass": n, "flow": n, "curl": n, "dirichlet_u": 5}, seed=0)
    network = pinn.MLP([2, *widths.get("hidden", (6, 6)), 2], seed=1)
    whole = made.objective(network, points, {"mass": 3.0, "curl": 0.5})
    weights = torch.linspace(0.5, 2.0, n, dtype=torch.float64)
    whole = whole.with_weights({"flow": weights})
    # A term of other points between those that share theirs.
    return whole.with_terms([whole.term(name) for name in order])


def alone(whole):
    return {n: whole.with_terms([term]) for n, term in whole.terms.items()}


def names(whole):
    return [
        [t.name for t in shared.terms] for shared in passes_of(whole.terms.values())
    ]


def test_equations_on_the_domain_draw_the_same_points_and_conditions_their_own():
    made = problem()
    for seed in (None, 3):
        points = made.sample({"mass": 9, "flow": 9, "curl": 8, "dirichlet_u": 9}, seed)
        assert torch.equal(points["mass"], points["flow"])
        assert len(points["curl"]) == 8
    # The first equation's are those that it always had.
    lonely = problem(mass=EQUATIONS["mass"])
    assert torch.equal(lonely.draw("mass", 9, 3), made.draw("mass", 9, 3))
    assert names(objective()) == [["mass", "flow", "curl"], ["dirichlet_u"]]


def test_an_equation_elsewhere_or_at_other_points_has_a_pass_of_its_own():
    late = pinn.Equation(EQUATIONS["curl"], where=lambda x: x > 0.5)
    made = problem(mass=EQUATIONS["mass"], curl=late, flow=EQUATIONS["flow"])
    counts = {"mass": 9, "curl": 9, "flow": 7, "dirichlet_u": 4}
    whole = made.objective(pinn.MLP([2, 6, 2], seed=0), made.sample(counts, seed=0))
    assert names(whole) == [["mass"], ["curl"], ["flow"], ["dirichlet_u"]]


@pytest.mark.parametrize("at_once", [4, 4000])
def test_loss_gradient_and_losses_are_those_of_the_terms_alone(at_once, monkeypatch):
    monkeypatch.setattr(evaluator, "MAX_EVALUATED", at_once)
    whole = objective()
    parts = {name: one.loss_and_gradient() for name, one in alone(whole).items()}
    for evaluation in (evaluator.Eager(), Remembering()):
        loss, gradient = whole.with_evaluator(evaluation).loss_and_gradient()
        assert loss == pytest.approx(sum(value for value, _ in parts.values()), 1e-13)
        oracles.close(gradient, sum(g for _, g in parts.values()), 1e-13)

    for name, one in alone(whole).items():
        assert whole.term_losses()[name] == pytest.approx(one.term_losses()[name])
        oracles.close(whole.point_losses()[name], one.point_losses()[name], 1e-13)


def test_what_a_weighting_has_asked_for_serves_the_step():
    whole = objective().with_evaluator(Remembering())
    gradients = whole.term_gradients()
    _, total = whole.loss_and_gradient()
    expected = sum(whole.term(n).weight * g for n, (_, g) in gradients.items())
    assert torch.equal(total, expected)


@pytest.mark.parametrize("chunk", [None, 4])
@pytest.mark.parametrize("scaled", [False, True])
def test_rows_stand_term_by_term(chunk, scaled):
    whole = objective()
    J = Jacobian(whole, scaled=scaled, chunk=chunk)
    systems = [Jacobian(one, scaled=scaled).system() for one in alone(whole).values()]
    rows = torch.cat([part for part, _ in systems])
    right = torch.cat([part for _, part in systems])
    dense, rho = J.system()
    oracles.close(dense, rows, 1e-12)
    oracles.close(rho, right, 1e-12)
    oracles.close(J.residual(), right, 1e-12)

    v = torch.arange(rows.shape[1], dtype=torch.float64).cos()
    u = torch.arange(len(rows), dtype=torch.float64).sin()
    oracles.close(J.matvec(v), rows @ v, 1e-12)
    oracles.close(J.rmatvec(u), rows.T @ u, 1e-12)
    oracles.close(J.normal_product(v[:, None])[:, 0], rows.T @ (rows @ v), 1e-12)
    oracles.close(J.row_norms(), rows.norm(dim=1), 1e-12)


def test_the_kernel_of_thin_rows_has_their_order(monkeypatch):
    whole = objective(hidden=(40, 40))
    monkeypatch.setattr("whence.jacobian.linearized_at_once", lambda *_: 4)
    kernel = TangentKernel(whole)
    assert kernel._thin
    parts = [Jacobian(one, scaled=True).system() for one in alone(whole).values()]
    rows = torch.cat([part for part, _ in parts])
    oracles.close(kernel.gram, rows @ rows.T, 1e-12)
    oracles.close(kernel.dense(), rows, 1e-12)
    oracles.close(kernel.right, torch.cat([part for _, part in parts]), 1e-12)


def test_both_systems_of_a_step_agree():
    whole = objective()
    moved = torch.zeros(whole.parameters.size, dtype=torch.float64)
    steps = [s(whole, 0.0, moved).solve(0.1).delta for s in (DualSystem, PrimalSystem)]
    oracles.close(*steps, 1e-9)


def test_kronecker_factors_take_each_term_by_itself():
    whole = objective()
    for first in ("mass", "curl"):
        order = [first, *(n for n in whole.terms if n != first)]
        other = whole.with_terms([whole.term(name) for name in order])
        influence = [
            wh.Influence(o, solver=wh.EKFAC(), damping=1e-3) for o in (whole, other)
        ]
        right = torch.ones(whole.parameters.size, 1, dtype=torch.float64)
        solved = [one.solve(right).value for one in influence]
        oracles.close(*solved, 1e-8)


def test_one_pass_through_the_network_for_all():
    whole = objective(order=("mass", "flow", "curl"))
    calls = []
    hook = whole.network.register_forward_hook(lambda *_: calls.append(1))
    whole.loss_and_gradient()
    assert len(calls) == 1
    whole.losses()
    assert len(calls) == 2
    hook.remove()


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
def test_compiled_together_as_eager():
    whole = objective(order=("mass", "curl"), hidden=(5,))
    together = [
        [term.name for term in s.terms] for s in passes_to_compile(whole, False)
    ]
    assert together == [["mass", "curl"]]

    compiled = whole.with_evaluator(Compiled(whole, by_term=True))
    blocks = compiled.evaluator._blocks
    assert set(blocks) == {("mass", "curl"), ("mass",), ("curl",)}
    other = {"mass": 2.0, "curl": torch.rand(11).double()}
    for changed in (compiled, compiled.with_weights(other)):
        loss, gradient = changed.loss_and_gradient()
        eager = changed.with_evaluator(evaluator.Eager())
        expected = eager.loss_and_gradient()
        assert loss == pytest.approx(expected[0], rel=1e-12)
        oracles.close(gradient, expected[1], 1e-11)

        parts = changed.term_gradients()
        for name, (value, right) in eager.term_gradients().items():
            assert float(parts[name][0]) == pytest.approx(float(value), rel=1e-12)
            oracles.close(parts[name][1], right, 1e-11)
    assert len(blocks) == 3


def test_batches_stay_shared():
    whole = objective(n=10)
    batch = Batches(4, seed=0).next_of(whole)
    assert names(batch) == names(whole)
    assert batch.n_points == 3 * 4 + 4


@pytest.mark.parametrize(
    "resampler",
    [
        pinn.Resample(pinn.ResidualScore(), n=3, candidates=40),
        pinn.Resample(pinn.ResidualScore(), n=6, candidates=40, joint=True),
        pinn.Resample(
            pinn.PinnacleScore(reference=10, eigenpairs=4),
            pinn.KMeansPlusPlus(),
            n=None,
            candidates=40,
            update="replace",
        ),
        pinn.R3(),
    ],
    ids=["add", "joint", "replace", "r3"],
)
def test_renewed_points_stay_shared(resampler):
    whole = objective()
    points = resampler.update_points(whole, round=1, seed=0)
    renewed = whole.with_points(points)
    assert not torch.equal(renewed.locations("mass"), whole.locations("mass"))
    assert names(renewed) == names(whole)


def test_a_candidate_of_several_equations_has_the_sum_of_their_scores():
    whole = objective()
    pool = whole.draw("mass", 40, seed=5)
    resample = pinn.Resample(pinn.ResidualScore(), pinn.TopK(), n=1, candidates=40)
    units = {"mass": ("mass", "flow", "curl")}
    found = resample._values(whole, units, {"mass": pool}, seed=0)
    scores = pinn.ResidualScore().score(whole, dict.fromkeys(units["mass"], pool))
    oracles.close(found, scores.view(3, 40).sum(0), 1e-14)


def test_a_run_trains_and_validates_in_shared_passes():
    result = pinn.train(
        problem(),
        pinn.MLP([2, 6, 2], seed=0),
        points={"mass": 12, "flow": 12, "curl": 12, "dirichlet_u": 5},
        schedule=[pinn.GaussNewton(6)],
        resample=pinn.Resample(pinn.ResidualScore(), n=2, every=3, candidates=30),
        validation=20,
        progress=False,
    )
    assert names(result.objective) == [["mass", "flow", "curl"], ["dirichlet_u"]]
    assert len(result.objective.locations("curl")) == 14
