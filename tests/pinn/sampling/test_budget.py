"""Numbers of new points that move between terms by their weighted scores."""

import itertools

import pytest
import torch

from whence import pinn
from whence.pinn.sampling.resamplers.shares import portions

CANDIDATES = 40


@pytest.fixture(name="soft", scope="module")
def _soft():
    problem = pinn.zoo.load("wave", "soft")
    counts = {"pde": 40, "initial_u": 10, "initial_u_t": 10, "dirichlet_u": 20}
    points = problem.sample(counts, seed=0)
    network = pinn.MLP([2, 8, 1], seed=0)
    return problem.objective(network, points, {"initial_u": 4.0, "dirichlet_u": 0.5})


class Noted:
    """A score that keeps what it was asked for and what it said."""

    def __init__(self, score):
        self.inner = score
        self.candidates = {}
        self.values = torch.empty(0)

    def score(self, objective, candidates):
        self.candidates = candidates
        self.values = self.inner.score(objective, candidates)
        return self.values


def counts(points):
    return {name: len(rows) for name, rows in points.items()}


def nearest_split(n, shares):
    """The whole numbers of sum n that lie nearest to shares, of all that there are."""
    splits = itertools.product(range(n + 1), repeat=len(shares) - 1)
    whole = [(*split, n - sum(split)) for split in splits if sum(split) <= n]
    return min(
        whole,
        key=lambda split: sum((a - b) ** 2 for a, b in zip(split, shares, strict=True)),
    )


def test_each_term_has_its_share_of_the_points_and_its_best_candidates(soft):
    score = Noted(pinn.ResidualScore())
    resample = pinn.Resample(
        score, pinn.TopK(), n=17, candidates=CANDIDATES, shares="score"
    )
    renewed = resample.update_points(soft, round=1, seed=3)

    values = dict(zip(soft.terms, score.values.split(CANDIDATES), strict=True))
    amounts = {n: soft.term(n).weight * float(v.mean()) for n, v in values.items()}
    total = sum(amounts.values())
    expected = nearest_split(17, [17 * a / total for a in amounts.values()])
    before = counts({name: term.points for name, term in soft.terms.items()})
    new = {name: number - before[name] for name, number in counts(renewed).items()}
    assert tuple(new.values()) == expected
    assert len(set(expected)) > 2

    for name, number in new.items():
        best = values[name].argsort(descending=True)[:number]
        wanted = {tuple(row) for row in score.candidates[name][best].tolist()}
        joined = renewed[name][before[name] :]
        assert {tuple(row) for row in joined.tolist()} == wanted


def test_points_of_equal_weight_go_where_the_variance_is_least():
    """Σ_k (w_k s_k)²/N_k is least, of all splits, near N_k in proportion to w_k s_k."""
    amounts = {"a": 3.0, "b": 1.0, "c": 6.5}
    n = 21
    parts = portions(n, amounts, dict.fromkeys(amounts, n))

    def variance(split):
        pairs = zip(amounts.values(), split, strict=True)
        return sum(amount**2 / number for amount, number in pairs)

    splits = itertools.product(range(1, n), repeat=3)
    least = min(variance(split) for split in splits if sum(split) == n)
    assert sum(parts.values()) == n
    assert variance(parts.values()) == pytest.approx(least, rel=1e-3)


def test_replacement_keeps_the_total_and_moves_the_budget(soft):
    score = pinn.LossGradScore()
    options = {"update": "replace", "candidates": CANDIDATES, "shares": "score"}
    resample = pinn.Resample(score, n=20, **options)
    moving = soft
    history = []
    for round in range(1, 9):
        moving = moving.with_points(resample.update_points(moving, round, seed=0))
        history.append(counts({n: t.points for n, t in moving.terms.items()}))
    assert {sum(numbers.values()) for numbers in history} == {80}
    assert min(min(numbers.values()) for numbers in history) >= 1

    # In the end numbers are as the weighted mean scores, at fresh points.
    amounts = {}
    for name, term in soft.terms.items():
        points = {name: soft.draw(name, 400, seed=77)}
        amounts[name] = term.weight * float(score.score(soft, points).mean())
    total = sum(amounts.values())
    for name, number in history[-1].items():
        assert number == pytest.approx(80 * amounts[name] / total, abs=9)
    assert history[-1]["initial_u"] > 3 * 10


def test_limits_of_all_terms_together_and_of_what_can_be_drawn(soft):
    resample = pinn.Resample(
        pinn.ResidualScore(), n=30, candidates=50, shares="score", max_points=86
    )
    renewed = resample.update_points(soft, round=1, seed=0)
    assert sum(counts(renewed).values()) == 86

    few = pinn.Problem(
        pinn.Interval("x", 0, 1),
        ("u",),
        {"pde": lambda u_xx: u_xx + 1},
        conditions=[pinn.Dirichlet(u=5.0, on="x")],
    )
    objective = few.objective(
        pinn.MLP([1, 4, 1], seed=0), few.sample({"pde": 9, "dirichlet_u": 2}, seed=0)
    )
    resample = pinn.Resample(pinn.ResidualScore(), n=6, candidates=30, shares="score")
    renewed = resample.update_points(objective, round=1, seed=0)
    assert counts(renewed) == {"pde": 15, "dirichlet_u": 2}  # the interval has two ends


def test_scores_that_count_the_weight_are_not_weighted_again(soft):
    heavy = soft.with_weights({"initial_u": 1e4})
    for score in (pinn.LeverageScore(), pinn.PinnacleScore(reference=20)):
        noted = Noted(score)
        noted.counts_weights = True
        resample = pinn.Resample(
            noted,
            n=40,
            candidates=CANDIDATES,
            terms=("pde", "initial_u"),
            shares="score",
        )
        number = counts(resample.update_points(heavy, round=1, seed=0))["pde"] - 40
        means = [float(v.mean()) for v in noted.values.split(CANDIDATES)]
        assert number == pytest.approx(40 * means[0] / sum(means), abs=1)
        assert type(score).counts_weights


def test_equations_at_the_same_points_share_one_part():
    problem = pinn.Problem(
        pinn.Rectangle(("x", "y"), (0, 0), (1, 1)),
        ("u", "v"),
        {"mass": lambda u_x, v_y: u_x + v_y, "curl": lambda u_y, v_x: u_y - v_x},
        conditions=[pinn.Dirichlet(u=1.0, on="x")],
    )
    numbers = {"mass": 12, "curl": 12, "dirichlet_u": 8}
    points = problem.sample(numbers, seed=0)
    network = pinn.MLP([2, 6, 2], seed=0)
    objective = problem.objective(network, points, {"curl": 3.0})
    score = Noted(pinn.ResidualScore())
    resample = pinn.Resample(score, n=10, candidates=30, shares="score")
    renewed = resample.update_points(objective, round=1, seed=0)
    assert torch.equal(renewed["mass"], renewed["curl"])

    mass, curl, boundary = (float(v.mean()) for v in score.values.split(30))
    equations = mass + 3 * curl
    expected = round(10 * equations / (equations + boundary))
    assert len(renewed["mass"]) - 12 == expected
    assert len(renewed["dirichlet_u"]) - 8 == 10 - expected


@pytest.mark.parametrize("selection", [pinn.Determinant(), pinn.Proportional(k=1, c=1)])
def test_a_run_cut_in_two_goes_on_to_the_same_bits(selection, tmp_path):
    problem = pinn.zoo.load("wave", "soft")
    resample = pinn.Resample(
        pinn.PinnacleScore(reference=15, eigenpairs=5),
        selection,
        n=6,
        every=10,
        candidates=30,
        update="replace",
        shares="score",
    )

    def go(out=None, **changes):
        options = {
            "points": {"pde": 20, **dict.fromkeys(problem.terms[1:], 8)},
            "schedule": [pinn.Adam(35)],
            "resample": resample,
            "validation": 20,
            "progress": False,
            **changes,
        }
        return pinn.train(problem, pinn.MLP([2, 8, 1], seed=0), out=out, **options)

    whole = go()
    go(tmp_path / "run", max_seconds=1e-9)
    again = go(tmp_path / "run", resume=True)
    assert whole.history[-1]["loss"] == again.history[-1]["loss"]
    for name, term in whole.objective.terms.items():
        assert torch.equal(term.points, again.objective.term(name).points)
    numbers = counts({n: t.points for n, t in whole.objective.terms.items()})
    assert sum(numbers.values()) == 44
    assert set(numbers.values()) != {20, 8}


class Signed:
    """Scores below zero, which a share cannot be made of."""

    def score(self, objective, candidates):
        return torch.cat([-torch.ones(len(rows)) for rows in candidates.values()])


def test_scores_below_zero_are_refused(soft):
    resample = pinn.Resample(Signed(), n=5, candidates=20, shares="score")
    with pytest.raises(ValueError, match="the mean score of term 'pde' is -1"):
        resample.update_points(soft, round=1, seed=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shares": "scores"}, "did you mean 'score'"),
        ({"shares": "score", "joint": True}, "leave one of them out"),
        (
            {
                "shares": "score",
                "importance": True,
                "selection": pinn.Proportional(k=1, c=1),
            },
            "shares='score' moves them between terms",
        ),
    ],
)
def test_options_are_checked(options, message):
    with pytest.raises(ValueError, match=message):
        pinn.Resample(pinn.ResidualScore(), **options)
