from dataclasses import replace

import numpy as np
import oracles
import pytest
import torch
from torch import nn
from torch.func import functional_call

from whence import pinn
from whence.attribution.influence import Influence
from whence.attribution.quantities import Output, Residual
from whence.curvature.solvers import Damping
from whence.evaluation.damping import (
    DAMPINGS,
    DampingChoice,
    LeaveOneOut,
    check_changes,
    damping_from_refits,
    draw_points,
)
from whence.evaluation.leaving_out import (
    Changes,
    leave_one_out,
    leave_out,
)
from whence.evaluation.ranks import rank_agreement
from whence.objective import Objective
from whence.refits import refit
from whence.space import Space
from whence.subsets import drop_points
from whence.term import Term


def least_squares(n=(11, 7), d=4, spread=1.0, seed=0):
    """Two terms of other N and w of a linear fit; columns of x shrink down to ``spread``."""
    generator = torch.Generator().manual_seed(seed)
    network = nn.Linear(d, 1, bias=False).double()

    def residual(tensors, z):
        return functional_call(network, tensors, (z[:, :d],)) - z[:, d:]

    terms, rows, right = [], [], []
    for name, k, weight in (("a", n[0], 2.0), ("b", n[1], 0.5)):
        z = torch.randn(k, d + 1, generator=generator).double()
        z[:, :d] *= torch.logspace(0, np.log10(spread), d).double()
        terms.append(Term(name, residual, z, weight=weight))
        scale = np.sqrt(2 * weight / k)
        rows.append(scale * z[:, :d].numpy())
        right.append(scale * z[:, d].numpy())

    def fields(names):
        return lambda tensors, z: functional_call(network, tensors, (z[:, :d],))

    objective = Objective(network, terms, space=Space(evaluate=fields))
    return objective, np.vstack(rows), np.concatenate(right)


def solution(rows, right, ridge=0.0, center=0.0):
    if ridge:
        d = rows.shape[1]
        rows = np.vstack([rows, np.sqrt(ridge) * np.eye(d)])
        right = np.concatenate([right, np.sqrt(ridge) * np.ones(d) * center])
    return np.linalg.lstsq(rows, right, rcond=None)[0]


def parameters_of(objective):
    return objective.parameters.vector()


# --- refit -------------------------------------------------------------------------------------


@pytest.mark.parametrize("spread", [1.0, 1e-3])
def test_refit_finds_the_least_squares_solution_and_moves_nothing(spread):
    objective, rows, right = least_squares(spread=spread)
    before = objective.parameters.vector()
    found = refit(objective, tolerance=1e-14)
    expected = solution(rows, right)
    oracles.close(found.theta, expected, 1e-9)
    assert found.converged
    assert found.steps <= 5
    assert found.loss == pytest.approx(
        0.5 * np.square(rows @ expected - right).sum(), rel=1e-12
    )
    assert found.gradient_norm < 1e-9
    assert torch.equal(objective.parameters.vector(), before)


@pytest.mark.parametrize("n", [(11, 7), (2, 1)])
def test_an_anchor_holds_it_to_where_it_was(n):
    """Primal and, with fewer rows than parameters, dual."""
    objective, rows, right = least_squares(n)
    center = objective.parameters.vector().numpy()
    found = refit(objective, anchor=0.3)
    assert found.converged
    oracles.close(found.theta, solution(rows, right, 0.3, center), 1e-9)
    assert np.abs(found.theta.numpy() - center).max() > 0.1


@pytest.mark.parametrize("widths", [(2, 4, 1), (2, 30, 1)])
def test_several_steps_of_a_network_end_where_the_gradient_vanishes(widths):
    """Primal and dual; the gradient is that of the loss and of the anchor."""
    objective = oracles.burgers_soft(n=12, widths=widths).objective
    start = objective.parameters.vector()
    found = refit(objective, anchor=1.0, steps=200)
    assert found.converged
    assert found.steps > 3
    objective.parameters.assign(found.theta)
    gradient = objective.loss_and_gradient()[1] + (found.theta - start)
    assert float(gradient.norm()) == pytest.approx(
        found.gradient_norm, rel=1e-3, abs=1e-13
    )
    assert float(gradient.norm()) < 1e-7
    assert found.loss == pytest.approx(float(objective.loss().detach()), rel=1e-12)
    assert float((found.theta - start).norm()) > 1e-3


def curved(start):
    """Rosenbrock's valley: a step that raises the loss must be taken back."""
    network = nn.Linear(2, 1, bias=False).double()

    def residual(tensors, z):
        x, y = tensors["weight"][0]
        return torch.stack([10 * (y - x**2), 1 - x]).unsqueeze(0) * z

    objective = Objective(network, Term("valley", residual, torch.ones(1, 1).double()))
    objective.parameters.assign(torch.tensor(start).double())
    return objective


def test_a_step_that_raises_the_loss_is_taken_back():
    found = refit(curved([-1.2, 1.0]), steps=100)
    assert found.converged
    oracles.close(found.theta, [1.0, 1.0], 1e-9)
    few = refit(curved([-1.2, 1.0]), steps=2)
    assert (few.converged, few.steps) == (False, 2)
    assert few.loss < float(curved([-1.2, 1.0]).loss().detach())


@pytest.mark.parametrize("anchor", [0.0, 0.01, 0.5])
@pytest.mark.parametrize(
    ("function", "slope", "start"),
    [
        (torch.atan, lambda w: 1 / (1 + w**2), 2.0),  # whose undamped steps run away
        (torch.expm1, torch.exp, 2.0),
        (lambda w: w**2 - 4, lambda w: 2 * w, 0.5),
    ],
)
def test_what_is_minimized_falls_with_the_anchor_in_it(function, slope, start, anchor):
    network = nn.Linear(1, 1, bias=False).double()

    def residual(tensors, z):
        return function(tensors["weight"]) * z

    objective = Objective(network, Term("one", residual, torch.ones(1, 1).double()))
    objective.parameters.assign(torch.tensor([start]).double())
    found = refit(objective, steps=60, anchor=anchor)
    assert found.converged
    w = found.theta
    gradient = 2 * function(w) * slope(w) + anchor * (w - start)
    assert abs(float(gradient)) < 1e-9
    distance = 0.5 * anchor * float((w - start).square())
    assert found.loss + distance < float(function(torch.tensor(start)).square()) - 0.1


def test_the_same_call_gives_the_same_bits():
    objective = oracles.burgers_soft(n=12, widths=(2, 6, 1)).objective
    one, other = (refit(objective, steps=20) for _ in range(2))
    assert torch.equal(one.theta, other.theta)
    assert (one.loss, one.steps) == (other.loss, other.steps)


@pytest.mark.parametrize("calls", [1, 4, 9, 16])
def test_an_error_on_the_way_leaves_the_network_as_it_was(calls):
    objective = curved([-1.2, 1.0])
    before, inner = objective.parameters.vector(), objective.term("valley").residual
    left = [calls]

    def failing(tensors, z):
        left[0] -= 1
        if left[0] < 0:
            raise RuntimeError("on the way")
        return inner(tensors, z)

    broken = Objective(
        objective.network, Term("valley", failing, torch.ones(1, 1).double())
    )
    with pytest.raises(RuntimeError, match="on the way"):
        refit(broken, steps=100)
    assert torch.equal(objective.parameters.vector(), before)
    left[0] = calls
    with pytest.raises(
        (RuntimeError, ValueError), match=r"on the way|nothing would be left"
    ):
        leave_one_out(broken, parameters_of, [0])
    assert torch.equal(objective.parameters.vector(), before)


def test_errors_of_refit():
    objective = curved([-1.2, 1.0])
    for options, said in (
        ({"steps": 0}, "steps must be a positive integer, got 0"),
        ({"tolerance": -1.0}, "tolerance must be zero or a positive number, got -1"),
        ({"damping": 0.0}, "damping must be a positive number, got 0"),
        ({"anchor": -1.0}, "anchor must be zero or a positive number, got -1"),
    ):
        with pytest.raises(ValueError, match=said):
            refit(objective, **options)
        with pytest.raises(ValueError, match=said):
            leave_one_out(objective, parameters_of, [0], **options)
    objective.parameters.assign(torch.tensor([float("inf"), 0.0]).double())
    with pytest.raises(
        ValueError, match=r"the loss is (nan|inf) at the network's parameters"
    ):
        refit(objective)


# --- leaving out -------------------------------------------------------------------------------


def refits_of(rows, right, groups):
    whole = solution(rows, right)
    found = []
    for group in groups:
        keep = np.setdiff1d(np.arange(len(rows)), group)
        found.append(solution(rows[keep], right[keep]) - whole)
    return np.stack(found, axis=1)


def test_leave_one_out_is_that_of_least_squares_without_the_drift():
    objective, rows, right = least_squares()
    found = leave_one_out(objective, parameters_of, {"b": [6, 2], "a": [3]})
    oracles.close(found, refits_of(rows, right, [[3], [11 + 2], [11 + 6]]), 1e-8)
    assert found.dims == ("target", "point")
    assert found.term.values.tolist() == ["a", "b", "b"]
    assert found["index"].values.tolist() == [3, 2, 6]
    points = objective.term("b").points
    assert found.sel(term="b")["x1"].values.tolist() == points[[2, 6], 1].tolist()
    moved = solution(rows, right) - objective.parameters.vector().numpy()
    assert found.attrs["drift"] == pytest.approx(
        np.sqrt(np.square(moved).mean()), rel=1e-8
    )
    assert found.attrs["stability"] == pytest.approx(1)
    influence = Influence(objective, damping=0.0)  # what it is the truth of
    objective.parameters.assign(torch.as_tensor(solution(rows, right)))
    targets = torch.cat([torch.eye(4), torch.zeros(4, 1)], 1).double()
    predicted = influence.attribute(Output(targets)).values[:, [3, 13, 17]]
    hat = np.einsum("ij,ji->i", rows, np.linalg.pinv(rows))[[3, 13, 17]]
    oracles.close(found, predicted / (1 - hat), 1e-8)


def test_leave_out_takes_groups_and_quantities():
    objective, rows, right = least_squares()
    groups = {
        "few": {"a": [0, 1, 2]},
        "a term": {"b": range(7)},
        "mixed": {"a": [9], "b": [0]},
    }
    expected = refits_of(rows, right, [[0, 1, 2], range(11, 18), [9, 11]])
    found = leave_out(objective, parameters_of, groups)
    oracles.close(found, expected, 1e-8)
    assert found.group.values.tolist() == list(groups)
    assert found["size"].values.tolist() == [3, 7, 2]
    targets = torch.cat([torch.eye(4), torch.zeros(4, 1)], 1).double()
    labelled = leave_out(objective, Output(targets), groups, steps=20)
    oracles.close(labelled, expected, 1e-8)
    assert labelled["target_x2"].values.tolist() == [0, 0, 1, 0]
    assert labelled.attrs["quantity"] == "output"
    assert labelled.attrs["steps"] == 20


def test_an_anchor_is_that_of_a_damped_prediction():
    objective, rows, right = least_squares()
    center = objective.parameters.vector().numpy()
    found = leave_out(objective, parameters_of, {"g": {"a": [0, 4]}}, anchor=0.3)
    keep = np.setdiff1d(np.arange(18), [0, 4])
    expected = solution(rows[keep], right[keep], 0.3, center) - solution(
        rows, right, 0.3, center
    )
    oracles.close(found.values[:, 0], expected, 1e-8)


def test_refits_that_are_still_under_way_are_unstable():
    objective = pinn.zoo.load("diffusion").objective(
        pinn.MLP([2, 6, 1], seed=0), pinn.zoo.load("diffusion").sample(30, seed=0)
    )
    output = Output(objective.term("pde").points[:5])
    found = leave_one_out(objective, output, range(6), steps=6)
    assert found.attrs["stability"] < 0.9


def test_errors_of_leaving_out():
    objective, *_ = least_squares()
    with pytest.raises(ValueError, match="nothing would be left: all 18 points"):
        leave_out(objective, parameters_of, {"all": {"a": range(11), "b": range(7)}})
    with pytest.raises(ValueError, match="nothing would be left"):
        drop_points(objective, {"a": np.ones(11, dtype=bool), "b": range(7)})
    with pytest.raises(
        ValueError, match=r"the points to leave out, term 'a'.* 0 … 10, got 11"
    ):
        leave_one_out(objective, parameters_of, {"a": [11]})
    with pytest.raises(
        TypeError, match=r"must be a quantity, .* or a function of the objective"
    ):
        leave_one_out(objective, "u", {"a": [1]})
    with pytest.raises(TypeError, match="stepz"):
        leave_one_out(objective, parameters_of, {"a": [1]}, stepz=3)


# --- choosing the damping ----------------------------------------------------------------------


@pytest.fixture(name="fitted", scope="module")
def _fitted():
    """A fit whose smallest eigenvalue is 1e-6 of the largest: more damping than that is wrong."""
    objective, *_ = least_squares((25, 12), spread=1e-3)
    objective.parameters.assign(refit(objective).theta)
    return objective


def test_the_damping_chosen_predicts_the_refits_best(fitted):
    choice = damping_from_refits(fitted, targets=15)
    assert list(choice.scores) == list(DAMPINGS)
    assert (choice.points, choice.targets) == (10, 15)
    assert choice.damping.relative
    best = max(choice.scores.values())
    assert choice.scores[choice.damping.value] == best > 0.95
    assert choice.scores[1e-2] < best - 0.1
    assert choice.damping.value == max(v for v, s in choice.scores.items() if s == best)
    # the score once more, by other roads
    left = draw_points(fitted, 10, 15, 0)
    index = [(name, int(i[0])) for one in left[0] for name, i in one.items()]
    watched = [(name, int(i[0])) for one in left[1] for name, i in one.items()]
    assert len({*index, *watched}) == 25
    at = {n: [i for m, i in index if m == n] for n in ("a", "b")}
    actual, predicted = [], []
    for name in ("a", "b"):
        points = fitted.term(name).points[[i for m, i in watched if m == name]]
        actual.append(leave_one_out(fitted, Residual(points, name), at).values)
        influence = Influence(fitted, damping=1e-4).attribute(Residual(points, name))
        columns = [
            np.flatnonzero((influence.term == n) & (influence["index"] == i))
            for n, i in index
        ]
        predicted.append(influence.values[:, np.concatenate(columns)])
    ranks = [
        np.concatenate(table).argsort(1).argsort(1) for table in (actual, predicted)
    ]
    scores = [np.corrcoef(a, b)[0, 1] for a, b in zip(*ranks, strict=True)]
    assert choice.scores[1e-4] == pytest.approx(np.mean(scores), rel=1e-9)


def test_of_equals_the_larger_damping_and_the_same_call_the_same_answer(fitted):
    values = (1e-13, 1e-10, 1e-12, 1e-11)
    choice = damping_from_refits(fitted, values=values, targets=20)
    assert len(set(choice.scores.values())) == 1
    assert choice.damping == Damping(1e-10)
    assert damping_from_refits(fitted, values=values, targets=20) == choice
    other = damping_from_refits(fitted, values=(1e-2,), targets=20, seed=1)
    assert (
        other.scores != damping_from_refits(fitted, values=(1e-2,), targets=20).scores
    )


def test_a_damping_at_which_the_system_is_singular_has_no_score():
    objective, *_ = least_squares((25, 12), spread=1e-9)
    objective.parameters.assign(refit(objective).theta)
    choice = damping_from_refits(objective, values=(1e-3, 1e-30), points=5)
    assert np.isnan(choice.scores[1e-30])
    assert choice.damping.value == 1e-3
    with pytest.raises(ValueError, match=r"none of the dampings \[1e-30\] .* singular"):
        damping_from_refits(objective, values=(1e-30,), points=5)


def test_a_network_far_from_a_minimum_is_refused_and_one_that_drifts_is_warned_of():
    problem = pinn.zoo.load("diffusion")
    objective = problem.objective(
        pinn.MLP([2, 6, 1], seed=0), problem.sample(40, seed=0)
    )
    with pytest.raises(ValueError, match=r"too far from a minimum .* train further"):
        damping_from_refits(objective, points=5, steps=4)
    drifting, *_ = least_squares((25, 12))
    with pytest.warns(UserWarning, match=r"not at a minimum: .* train further"):
        choice = damping_from_refits(drifting, values=(1e-12,))
    assert choice.stability == pytest.approx(1)


@pytest.mark.parametrize("stability", [float("nan"), 0.49])
def test_unstable_refits_choose_nothing(stability):
    changes = Changes(torch.ones(2, 3), torch.zeros(2), stability)
    with pytest.raises(
        ValueError, match=r"for 50 steps .* rank correlation of (nan|0.49)"
    ):
        check_changes(changes, 50)
    check_changes(replace(changes, stability=0.51), 50)


def test_errors_of_the_choice(fitted):
    for points in (2, 37):
        with pytest.raises(
            ValueError, match=rf"points must lie in 3 … 36 .* got {points}"
        ):
            damping_from_refits(fitted, points=points)
    with pytest.raises(ValueError, match="targets must be a positive integer, got 0"):
        damping_from_refits(fitted, targets=0)
    with pytest.raises(
        ValueError, match="a relative damping must be a positive number, got 0"
    ):
        damping_from_refits(fitted, values=(1e-3, 0.0))
    with pytest.raises(ValueError, match="values must name at least one"):
        damping_from_refits(fitted, values=())
    with pytest.raises(ValueError, match="unknown curvature 'hesian'"):
        damping_from_refits(fitted, curvature="hesian")


def test_a_rule_chooses_the_same_for_an_influence(fitted):
    rule = LeaveOneOut(values=(1e-2, 1e-10), points=8, targets=20, seed=3)
    choice = damping_from_refits(
        fitted, values=(1e-2, 1e-10), points=8, targets=20, seed=3
    )
    assert Influence(fitted, damping=rule).damping == choice.damping
    hessian = Influence(fitted, damping=rule, curvature="hessian").damping
    assert hessian == choice.damping  # of squares of linear functions, where both agree


def test_a_rule_of_ones_own_sees_the_influence_that_it_is_for(fitted):
    seen = []

    class Fixed:
        def choose(self, objective, curvature, solver):
            seen.append((objective, curvature, solver.name))
            return Damping(0.5, relative=False)

    influence = Influence(fitted, damping=Fixed(), curvature="hessian")
    assert influence.damping == Damping(0.5, relative=False)
    assert seen == [(fitted, "hessian", influence.solver.name)]


def test_the_choice_is_readable():
    choice = DampingChoice(Damping(1e-8), {1e-2: -0.1, 1e-8: 0.91234}, 10, 50, 0.5)
    assert str(choice).splitlines()[1:] == ["  1e-02  -0.100", "  1e-08   0.912  <-"]


def test_ranks_decide_and_rows_without_ranks_count_as_nothing():
    actual = np.array([[1.0, 2.0, 3.0], [1.0, 2.0, 3.0], [1.0, 1.0, 1.0]])
    predicted = np.array([[1.0, 8.0, 99.0], [3.0, 2.0, 1.0], [1.0, 2.0, 3.0]])
    assert rank_agreement(actual[:1], predicted[:1]) == pytest.approx(1)
    assert rank_agreement(actual[1:2], predicted[1:2]) == pytest.approx(-1)
    assert rank_agreement(actual[[0, 2]], predicted[[0, 2]]) == pytest.approx(0.5)


# --- Newton's steps, and refits that go on -------------------------------------------------------


def test_steps_of_newton_end_where_residuals_do_not_vanish():
    """A network too small for its data: Gauss–Newton's steps are linear there, Newton's are not."""
    objective = oracles.burgers_soft(n=40, widths=(2, 3, 1)).objective
    objective.parameters.assign(refit(objective, steps=200, tolerance=1e-4).theta)
    start = objective.parameters.vector()
    newton = refit(objective, tolerance=1e-13, curvature="hessian", anchor=1e-3)
    assert newton.converged
    objective.parameters.assign(newton.theta)
    gradient = objective.loss_and_gradient()[1] + 1e-3 * (newton.theta - start)
    assert float(gradient.norm()) < 1e-12 * float(start.norm())
    objective.parameters.assign(start)
    slow = refit(
        objective, steps=newton.steps, tolerance=1e-13, anchor=1e-3
    ).gradient_norm
    assert newton.gradient_norm < 1e-2 * slow
    with pytest.raises(ValueError, match="unknown curvature 'hesian'"):
        refit(objective, curvature="hesian")


def test_a_penalty_is_in_newtons_matrix_once():
    objective, rows, right = least_squares()
    objective = objective.with_weight_decay(0.7)
    fit = refit(objective, tolerance=1e-13, curvature="hessian")
    oracles.close(fit.theta, solution(rows, right, ridge=0.7), 1e-9)
    # The loss is quadratic: one step, and one that finds nothing left.
    assert fit.steps <= 5


def test_refits_that_are_finished_are_not_made_again(tmp_path, monkeypatch):
    objective, *_ = least_squares()
    out = tmp_path / "refits.npz"
    points = {"a": [0, 3, 5]}
    whole = leave_one_out(objective, parameters_of, points)

    class Interrupted(Exception):
        pass

    made = []
    real = "whence.evaluation.leaving_out.Descent"
    from whence.refits import Descent

    class Counted(Descent):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            made.append(1)
            if len(made) == 3:
                raise Interrupted

    monkeypatch.setattr(real, Counted)
    with pytest.raises(Interrupted):
        leave_one_out(objective, parameters_of, points, out=out)
    again = leave_one_out(objective, parameters_of, points, out=out)
    # Two were finished, the third begun: it and the fourth are made.
    assert len(made) == 5
    np.testing.assert_array_equal(again.values, whole.values)
    assert again.attrs == whole.attrs

    others = (
        {"points": {"a": [0, 3, 6]}},
        {"options": {"steps": 7}},
        {"quantity": lambda o: 2 * o.parameters.vector()},
    )
    for other in others:
        with pytest.raises(ValueError, match="holds refits of another"):
            leave_one_out(
                objective,
                other.get("quantity", parameters_of),
                other.get("points", points),
                out=out,
                **other.get("options", {}),
            )
    with pytest.raises(ValueError, match=r"ends in \.npz"):
        leave_one_out(objective, parameters_of, points, out=tmp_path / "x.csv")


def test_a_refit_that_stalls_ends():
    objective = oracles.burgers_hard().objective.with_weight_decay(1e-3)
    stalled = refit(objective, steps=29, stall=0.1)
    n = stalled.steps
    assert 3 <= n < 29

    # It ends at the first step before which three gained less than a tenth.
    losses = [float(objective.loss())]
    for steps in range(1, n + 1):
        losses.append(refit(objective, steps=steps).loss)
    assert losses[n - 3] - losses[n] < 0.1 * losses[n - 3]
    for earlier in range(3, n):
        assert losses[earlier - 3] - losses[earlier] >= 0.1 * losses[earlier - 3]
