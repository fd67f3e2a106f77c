"""What holds for every selection and every round of resampling."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from whence import pinn

EACH = settings(deadline=None, max_examples=60)
SEED = st.integers(0, 2**31)
SIZES = st.floats(0, 1e6).map(lambda v: 0.0 if v < 1e-6 else v)
SCORES = st.lists(SIZES, min_size=1, max_size=40).map(
    lambda v: torch.tensor(v).double()
)
PROPORTIONAL = st.builds(
    pinn.Proportional, k=st.sampled_from([0.0, 0.5, 1.0, 2.0]), c=SIZES
)
SELECTIONS = st.one_of(st.just(pinn.TopK()), PROPORTIONAL)


def some(data, scores):
    return data.draw(st.integers(1, len(scores)))


@EACH
@given(SELECTIONS, SCORES, SEED, st.data())
def test_as_many_different_candidates_as_asked_for(selection, scores, seed, data):
    n = some(data, scores)
    chosen = selection.select(scores, n, seed)
    assert len(set(chosen.tolist())) == len(chosen) == n
    assert set(chosen.tolist()) <= set(range(len(scores)))
    assert torch.equal(chosen, selection.select(scores, n, seed))


@EACH
@given(SELECTIONS, SCORES, SEED, st.data())
def test_a_higher_score_never_costs_a_candidate_its_place(
    selection, scores, seed, data
):
    n = some(data, scores)
    one = data.draw(st.sampled_from(selection.select(scores, n, seed).tolist()))
    raised = scores.clone()
    raised[one] = 2 * raised[one] + 1
    assert one in selection.select(raised, n, seed).tolist()


@EACH
@given(SELECTIONS, SCORES, SEED, st.data())
def test_only_the_ratios_of_scores_count(selection, scores, seed, data):
    n = some(data, scores)
    assert torch.equal(
        selection.select(scores, n, seed), selection.select(4 * scores, n, seed)
    )


@EACH
@given(SCORES, SEED, st.data())
def test_the_highest_scores_do_not_depend_on_the_order(scores, seed, data):
    n = some(data, scores)
    order = torch.tensor(data.draw(st.permutations(range(len(scores)))))
    moved = scores[order]
    found = scores[pinn.TopK().select(scores, n, seed)]
    assert torch.equal(found, scores.sort(descending=True).values[:n])
    assert torch.equal(found, moved[pinn.TopK().select(moved, n, seed)])


@EACH
@given(st.sampled_from([0.5, 1.0, 2.0]), SCORES, SEED, st.data())
def test_what_scores_nothing_comes_last(k, scores, seed, data):
    n, positive = some(data, scores), int((scores > 0).sum())
    chosen = pinn.Proportional(k=k, c=0).select(scores, n, seed)
    assert int((scores[chosen] > 0).sum()) == min(n, positive)


PROBLEM = pinn.Problem(
    pinn.Rectangle(("x", "y"), (0, 0), (1, 2)) - pinn.Disk(("x", "y"), (0.5, 1), 0.3),
    ("u",),
    {"pde": lambda u, x: u - x},
    conditions=[pinn.Dirichlet(u=0.0, on="disk")],
)
NETWORK = pinn.MLP([2, 3, 1], seed=0)


def objective(n):
    return PROBLEM.objective(
        NETWORK, PROBLEM.sample({"pde": n, "dirichlet_u": 7}, seed=0)
    )


@pytest.fixture(scope="module")
def pool():
    return PROBLEM.draw("pde", 25, seed=5)


@settings(EACH, max_examples=30)
@given(
    start=st.integers(1, 30),
    n=st.integers(1, 12),
    room=st.none() | st.integers(0, 20),
    saved=st.booleans(),
    selection=SELECTIONS,
    seed=SEED,
)
def test_points_are_added_once_and_the_oldest_leave(
    pool, start, n, room, saved, selection, seed
):
    limit = None if room is None else max(n, start) + room
    score = pinn.SavedScore("pde", pool, pool[:, 0]) if saved else pinn.ResidualScore()
    resample = pinn.Resample(score, selection, n=n, candidates=30, max_points=limit)
    present = objective(start)
    resample.check(present)
    for round in range(1, 5):
        before = present.terms["pde"].points
        fresh = resample.update_points(present, round, seed)
        assert list(fresh) == ["pde"]
        after = fresh["pde"]
        new = sum(not bool((before == point).all(dim=1).any()) for point in after)
        assert new == n if not saved else new <= n
        stayed = len(after) - new
        if round > 1:
            assert torch.equal(after[:stayed], before[len(before) - stayed :])
        # Of the first points none is older than another.
        assert all(bool((before == point).all(1).any()) for point in after[:stayed])
        if new:
            assert len(after) == min(len(before) + new, limit or 10**6)
        assert len(after.unique(dim=0)) == len(after)
        assert bool(PROBLEM.domain.contains(after).all())
        assert torch.equal(after, resample.update_points(present, round, seed)["pde"])
        present = present.with_points(fresh)


@settings(EACH, max_examples=30)
@given(
    start=st.integers(1, 20),
    n=st.none() | st.integers(1, 20),
    selection=SELECTIONS,
    seed=SEED,
)
def test_points_are_replaced_in_number(start, n, selection, seed):
    resample = pinn.Resample(
        pinn.OutputGradScore(),
        selection,
        n=n,
        candidates=30,
        update="replace",
        terms=("pde",),
    )
    before = objective(start)
    after = resample.update_points(before, 2, seed)["pde"]
    renewed = start if n is None else n
    assert len(after) == max(start, renewed)
    assert torch.equal(after[:-renewed], before.terms["pde"].points[renewed:])
    assert len(after.unique(dim=0)) == len(after)
