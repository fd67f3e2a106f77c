"""Scores from the tangent kernel against brute force, k-means++, joint resampling, R3."""

import numpy as np
import pytest
import torch
from torch.func import jacrev

import whence as wh
from whence import pinn
from whence.pinn.sampling.resamplers.shares import leaving_counts
from whence.pinn.sampling.scores.base import spawn


@pytest.fixture(name="objective", scope="module")
def _objective():
    """Two residual components in the equation, a condition, and one that holds at two points."""
    problem = pinn.Problem(
        pinn.Interval("x", -1, 1),
        ("u",),
        {"pde": lambda u, u_x, u_xx: (u * u_x - 0.1 * u_xx + 1, u - u_x)},
        conditions=[pinn.Dirichlet(u=0.5, on="x")],
    )
    network = pinn.MLP([1, 7, 5, 1], seed=0)
    points = problem.sample({"pde": 30, "dirichlet_u": 2}, seed=0)
    return problem.objective(network, points, {"pde": 2.0, "dirichlet_u": 50.0})


def rows(objective, name, points):
    """The residuals and their Jacobian at each point, (n, m) and (n, m, P), by torch.func."""
    parameters, term = objective.parameters, objective.terms[name]
    theta = parameters.vector()

    def residual(t, z):
        return term.residual(parameters.substituted(t), z[None])[0]

    values = torch.stack([residual(theta, z) for z in points])
    return values, torch.stack([jacrev(residual)(theta, z) for z in points])


def pools(objective):
    return {
        "dirichlet_u": objective.draw("dirichlet_u", 2, 5),
        "pde": objective.draw("pde", 9, 4),
    }


@pytest.mark.parametrize("eigenpairs", [3, 10_000])
def test_pinnacle_is_the_sum_over_eigenpairs_of_the_kernel(objective, eigenpairs):
    score = pinn.PinnacleScore(reference=11, eigenpairs=eigenpairs, seed=3)
    given, reference = pools(objective), []
    for k, name in enumerate(given):
        points = objective.draw(name, 11, spawn(3, 1 + k))
        own = rows(objective, name, points)[1].flatten(0, 1)
        reference.append(own * objective.terms[name].weight ** 0.5)
    reference = torch.cat(reference)
    values, vectors = np.linalg.eigh((reference @ reference.T).numpy())
    kept = [
        t for t in np.argsort(-values)[:eigenpairs] if values[t] > 1e-12 * values.max()
    ]
    expected = []
    for name, points in given.items():
        residuals, own = rows(objective, name, points)
        weight = objective.terms[name].weight ** 0.5
        a = torch.einsum(
            "nmp,rp,rt->nmt", weight * own, reference, torch.tensor(vectors[:, kept])
        )
        moved = torch.einsum("nm,nmt->nt", weight * residuals, a)
        expected.append((moved**2 / torch.tensor(values[kept])).sum(dim=1))
    expected = torch.cat(expected)
    found = score.score(objective, given)
    torch.testing.assert_close(
        found, expected, rtol=1e-6 if eigenpairs > 20 else 1e-10, atol=0
    )


def test_pinnacle_with_every_direction_is_the_squared_length_of_the_step(objective):
    """With as many references as parameters, α is ‖Σ_m R_m ∇r_m‖² of what can be learnt."""
    points = objective.draw("pde", 6, 1)
    residuals, own = rows(objective, "pde", points)
    step = 2.0 * torch.einsum("nm,nmp->np", residuals, own)
    found = pinn.PinnacleScore(400, 400).score(objective, points)
    torch.testing.assert_close(found, step.square().sum(dim=1), rtol=1e-3, atol=0)


@pytest.mark.parametrize("points", [30, 5])
def test_leverage_is_that_of_the_scaled_rows(objective, points):
    """With few points JJᵀ is factored, with many JᵀJ."""
    objective = objective.with_points({"pde": objective.terms["pde"].points[:points]})
    damping = wh.Damping(1e-3, relative=False)
    found = pinn.LeverageScore(damping=damping).score(objective, pools(objective))
    matrix = wh.GaussNewtonMatrix(objective).dense()
    matrix.diagonal().add_(1e-3)
    expected = []
    for name, points in pools(objective).items():
        own = (
            rows(objective, name, points)[1] * (2 * objective.terms[name].scale) ** 0.5
        )
        solved = torch.linalg.solve(matrix, own.flatten(0, 1).T).T.view_as(own)
        expected.append((own * solved).sum(dim=(1, 2)))
    torch.testing.assert_close(found, torch.cat(expected), rtol=1e-8, atol=0)


def test_leverages_of_the_training_points_are_the_attributions(objective):
    """Together they are the effective number of parameters, as wh.leverage says of each point."""
    present = {name: term.points for name, term in objective.terms.items()}
    found = pinn.LeverageScore(damping=1e-6).score(objective, present)
    expected = wh.leverage(wh.Influence(objective, damping=1e-6)).values
    np.testing.assert_allclose(found, expected, rtol=1e-6)


# --- k-means++ ---


def test_kmeans_takes_no_two_of_the_same_place_while_others_are_left():
    corners = torch.eye(4, dtype=torch.float64).repeat_interleave(25, dim=0)
    for seed in range(20):
        chosen = pinn.KMeansPlusPlus().select(corners, 4, seed)
        assert sorted((chosen // 25).tolist()) == [0, 1, 2, 3]


def test_kmeans_draws_in_proportion_to_squared_distances():
    places = torch.tensor([[1.0, 0.0], [0.0, 2.0], [0.0, 0.0]])
    first = [int(pinn.KMeansPlusPlus().select(places, 1, seed)) for seed in range(2000)]
    assert np.bincount(first, minlength=3)[1] / 2000 == pytest.approx(0.8, abs=0.03)
    assert 2 not in first


@pytest.mark.parametrize("places", [torch.zeros(6, 2), torch.ones(6, 1)])
def test_kmeans_takes_each_once_even_where_all_are_alike(places):
    chosen = pinn.KMeansPlusPlus().select(places, 6, seed=1)
    assert sorted(chosen.tolist()) == list(range(6))


def test_kmeans_needs_embeddings():
    with pytest.raises(ValueError, match=r"embedding \(n, q\) for each candidate"):
        pinn.KMeansPlusPlus().select(torch.ones(5), 2, seed=0)
    with pytest.raises(ValueError, match="cannot select 6 of 5"):
        pinn.KMeansPlusPlus().select(torch.ones(5, 2), 6, seed=0)
    with pytest.raises(ValueError, match="finite"):
        pinn.KMeansPlusPlus().select(torch.full((5, 2), torch.nan), 2, seed=0)
    with pytest.raises(
        TypeError, match=r"which ResidualScore has not: use pinn\.PinnacleScore"
    ):
        pinn.Resample(pinn.ResidualScore(), pinn.KMeansPlusPlus())


def test_resampling_by_embedding(objective):
    score = pinn.PinnacleScore(reference=10, eigenpairs=4)
    resample = pinn.Resample(score, pinn.KMeansPlusPlus(), n=5, candidates=40)
    found = resample.update_points(objective, round=1, seed=0)["pde"]
    assert len(found) == 35
    again = resample.update_points(objective, round=1, seed=0)["pde"]
    assert torch.equal(found, again)
    other = resample.update_points(objective, round=2, seed=0)["pde"]
    assert not torch.equal(found, other)


# --- joint ---


class Wanted:
    """Wants the candidates of one term only."""

    def __init__(self, term):
        self.term = term

    def score(self, objective, candidates):
        return torch.cat(
            [
                torch.full((len(p),), float(n == self.term))
                for n, p in candidates.items()
            ]
        ).double()


@pytest.fixture(name="soft", scope="module")
def _soft():
    problem = pinn.zoo.load("wave", "soft")
    counts = {"pde": 40, "initial_u": 10, "initial_u_t": 10, "dirichlet_u": 20}
    return problem.objective(
        pinn.MLP([2, 8, 1], seed=0), problem.sample(counts, seed=0)
    )


def counts(points):
    return {name: len(p) for name, p in points.items()}


@pytest.mark.parametrize("name", ["initial_u", "dirichlet_u"])
def test_new_points_go_to_the_term_that_needs_them(soft, name):
    before = counts({n: t.points for n, t in soft.terms.items()})
    resample = pinn.Resample(Wanted(name), pinn.TopK(), n=12, candidates=50, joint=True)
    found = resample.update_points(soft, round=1, seed=0)
    assert counts(found) == {**before, name: before[name] + 12}
    assert torch.equal(found[name][: before[name]], soft.terms[name].points)
    soft.with_points(found)  # which checks that each lies where its term holds


def test_joint_replacement_keeps_the_total_and_lets_the_oldest_of_all_terms_go(soft):
    given = {"update": "replace", "candidates": 50, "joint": True}
    resample = pinn.Resample(Wanted("initial_u"), pinn.TopK(), n=16, **given)
    found = resample.update_points(soft, round=2, seed=0)
    assert counts(found) == {
        "pde": 32,
        "initial_u": 24,
        "initial_u_t": 8,
        "dirichlet_u": 16,
    }
    assert torch.equal(found["pde"], soft.terms["pde"].points[8:])


def test_joint_limit_is_that_of_all_terms(soft):
    resample = pinn.Resample(
        Wanted("pde"), pinn.TopK(), n=30, candidates=50, joint=True, max_points=86
    )
    found = resample.update_points(soft, round=1, seed=0)
    assert sum(counts(found).values()) == 86
    assert counts(found)["pde"] == 40 + 30 - 12


def test_joint_over_some_terms_alone(soft):
    names = ("initial_u", "initial_u_t")
    resample = pinn.Resample(
        pinn.ResidualScore(), n=6, candidates=30, terms=names, joint=True
    )
    found = resample.update_points(soft, round=1, seed=0)
    assert set(found) == set(names)
    assert sum(counts(found).values()) == 26


def test_terms_that_hold_at_few_points_have_no_more(objective):
    resample = pinn.Resample(pinn.ResidualScore(), n=20, candidates=30, joint=True)
    found = resample.update_points(objective, round=1, seed=0)
    assert counts(found) == {"pde": 50, "dirichlet_u": 2}


def test_a_heavier_term_gets_more_points_by_pinnacle(soft):
    score = pinn.PinnacleScore(reference=20)
    resample = pinn.Resample(score, pinn.TopK(), n=20, candidates=60, joint=True)
    light = counts(resample.update_points(soft, round=1, seed=0))
    heavy = soft.with_weights({"initial_u": 1e6})
    found = counts(resample.update_points(heavy, round=1, seed=0))
    assert found["initial_u"] > light["initial_u"]
    assert sum(found.values()) == sum(light.values()) == 100


@pytest.mark.parametrize("n", [60, None])
def test_joint_replacement_of_nearly_all_keeps_the_total_and_a_point_of_each(soft, n):
    given = {"update": "replace", "candidates": 90, "joint": True}
    resample = pinn.Resample(Wanted("pde"), pinn.TopK(), n=n, **given)
    found = counts(resample.update_points(soft, round=1, seed=0))
    assert sum(found.values()) == 80
    assert min(found.values()) >= 1


def test_joint_limit_leaves_room_for_a_point_of_each_term(soft):
    given = {"candidates": 50, "joint": True, "max_points": 12}
    resample = pinn.Resample(Wanted("pde"), pinn.TopK(), n=12, **given)
    found = counts(resample.update_points(soft, round=1, seed=0))
    assert found == {"pde": 9, "initial_u": 1, "initial_u_t": 1, "dirichlet_u": 1}
    few = pinn.Resample(pinn.ResidualScore(), n=2, joint=True, max_points=4)
    with pytest.raises(
        ValueError, match=r"max_points is 4, but each of 4 terms keeps a point"
    ):
        few.check(soft)


@pytest.mark.parametrize(
    "options", [{"update": "replace", "n": 6}, {"n": 10, "max_points": 33}], ids=str
)
def test_a_boundary_all_of_whose_points_are_present_stays_whole(objective, options):
    resample = pinn.Resample(pinn.ResidualScore(), candidates=30, joint=True, **options)
    found = resample.update_points(objective, round=1, seed=0)
    assert torch.equal(found["dirichlet_u"], objective.terms["dirichlet_u"].points)
    assert len(found["pde"]) == (30 if options["n"] == 6 else 31)


def test_saved_scores_are_of_one_term():
    saved = pinn.SavedScore("pde", torch.rand(5, 2), torch.rand(5))
    with pytest.raises(ValueError, match="saved scores are of one term"):
        pinn.Resample(saved, n=2, joint=True)


@pytest.mark.parametrize("old", [(40, 10, 10, 20), (1, 1, 1, 1), (100, 1, 1, 3)])
@pytest.mark.parametrize("surplus", [0, 1, 7, 30])
def test_points_leave_in_proportion_and_each_term_keeps_one(old, surplus):
    given = {f"term{k}": n for k, n in enumerate(old)}
    leaving = leaving_counts(given, dict.fromkeys(given, 1), surplus)
    assert sum(leaving.values()) == min(surplus, sum(old) - len(old))
    for name, n in given.items():
        assert leaving[name] <= n - 1
        if surplus <= sum(old) - len(old):
            assert leaving[name] == pytest.approx(surplus * n / sum(old), abs=4)


# --- R3 ---


def test_r3_keeps_the_points_above_the_mean_and_draws_the_others_anew(objective):
    points = objective.terms["pde"].points
    sizes = torch.linalg.vector_norm(rows(objective, "pde", points)[0], dim=1)
    kept = points[sizes > sizes.mean()]
    found = pinn.R3().update_points(objective, round=1, seed=0)["pde"]
    assert 0 < len(kept) < len(points) == len(found)
    assert torch.equal(found[: len(kept)], kept)
    fresh = {tuple(p) for p in found[len(kept) :].tolist()}
    assert len(fresh) == len(points) - len(kept)
    assert not fresh & {tuple(p) for p in points.tolist()}


def test_r3_of_a_term_that_holds_at_two_points_keeps_both(objective):
    found = pinn.R3(terms=("dirichlet_u",)).update_points(objective, round=1, seed=0)
    held = objective.terms["dirichlet_u"].points
    assert sorted(found["dirichlet_u"].tolist()) == sorted(held.tolist())


def go(out=None, **changes):
    problem = pinn.zoo.load("wave", "soft")
    options = {
        "points": {"pde": 30, "initial_u": 8, "initial_u_t": 8, "dirichlet_u": 8},
        "schedule": [pinn.Adam(40)],
        "validation": 20,
        "progress": False,
        "keep": "last",
    }
    return pinn.train(
        problem, pinn.MLP([2, 8, 1], seed=0), out=out, **{**options, **changes}
    )


JOINT = pinn.Resample(
    pinn.PinnacleScore(reference=15, eigenpairs=5),
    pinn.KMeansPlusPlus(),
    n=6,
    every=10,
    candidates=30,
    joint=True,
)


def test_the_swapped_points_of_r3_reach_the_loss(tmp_path):
    result = go(tmp_path / "run", resample=pinn.R3(every=10))
    arrays = pinn.RunFolder(tmp_path / "run").points()
    assert set(arrays["pde:entered"].tolist()) == {0, 10, 20, 30}
    present = arrays["pde"][arrays["pde:left"] < 0]
    trained = result.objective.terms["pde"].points.numpy()
    assert sorted(map(tuple, present)) == sorted(map(tuple, trained))
    again = float(result.objective.loss())
    assert again == pytest.approx(result.history[-1]["loss"], rel=1e-12)
    assert again != pytest.approx(go().history[-1]["loss"], rel=1e-6)


@pytest.mark.parametrize("resample", [pinn.R3(every=10), JOINT], ids=["r3", "joint"])
def test_a_run_cut_in_two_draws_the_same_points(resample, tmp_path):
    whole = go(resample=resample)
    folder = tmp_path / "run"
    go(folder, resample=resample, max_seconds=1e-9)
    again = go(folder, resample=resample, resume=True)
    for name, term in whole.objective.terms.items():
        assert torch.equal(term.points, again.objective.terms[name].points)
    assert whole.history[-1]["loss"] == again.history[-1]["loss"]
    total = sum(len(term.points) for term in whole.objective.terms.values())
    assert total == (54 if isinstance(resample, pinn.R3) else 54 + 18)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: pinn.R3(every=0), "every must be a positive integer"),
        (lambda: pinn.PinnacleScore(reference=0), "reference must be"),
        (lambda: pinn.PinnacleScore(eigenpairs=1.5), "eigenpairs must be"),
        (lambda: pinn.LeverageScore(damping=-1.0), "damping must be"),
        (lambda: pinn.LeverageScore(damping=wh.Damping(0.0)), "damping must be"),
        (lambda: pinn.R3(terms=("pde", "pde")), "different names"),
        (lambda: pinn.R3(terms=("pdf",)).check(go().objective), "unknown term 'pdf'"),
    ],
)
def test_options_are_checked(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("make", [pinn.R3, lambda terms: pinn.Resample(terms=terms)])
@pytest.mark.parametrize("terms", ["pde", (), 3])
def test_terms_are_a_tuple(make, terms):
    with pytest.raises(TypeError, match=r"tuple of names, such as \('pde',\)"):
        make(terms=terms)


def test_joint_is_true_or_false():
    with pytest.raises(TypeError, match="joint must be True or False, got 'yes'"):
        pinn.Resample(joint="yes")
