"""Scores against brute force, selections, updates."""

import dataclasses

import numpy as np
import pytest
import torch

import whence as wh
from whence import pinn
from whence.pinn.sampling.scores.base import spawn

SCORES = [
    pinn.InfluenceScore(n_test=20),
    pinn.InfluenceScore(n_test=20, reduce="sum_of_abs"),
    pinn.ResidualScore(),
    pinn.GradDotScore(n_test=20),
    pinn.OutputGradScore(),
    pinn.LossGradScore(),
    pinn.RandomScore(),
]


@pytest.fixture(scope="module")
def objective():
    problem = dataclasses.replace(
        pinn.zoo.load("burgers"),
        architecture=lambda seed: pinn.MLP([2, 8, 8, 1], seed=seed),
    )
    result = pinn.train(
        problem, points=60, schedule=[pinn.GaussNewton(10)], progress=False
    )
    return result.objective


@pytest.fixture(scope="module")
def candidates(objective):
    return objective.draw("pde", 30, seed=9)


def gradients(objective, points):
    """∇ℓ of each point by autograd, one point at a time."""
    parameters, term = objective.parameters, objective.terms["pde"]
    rows = []
    for point in points:
        theta = parameters.vector().requires_grad_()
        residual = term.residual(parameters.substituted(theta), point[None])
        rows.append(torch.autograd.grad(residual.square().sum(), theta)[0])
    return torch.stack(rows)


def pairs(objective, candidates, score):
    """∇ℓ_tᵀ(A + λI)⁻¹∇ℓ(x) for every test point and candidate, by a dense solve."""
    test = objective.draw("pde", score.n_test, spawn(score.seed, 1))
    matrix = wh.GaussNewtonMatrix(objective).dense()
    damped = matrix + score.damping * torch.linalg.eigvalsh(matrix)[-1] * torch.eye(
        len(matrix)
    )
    right = torch.linalg.solve(damped, gradients(objective, candidates).T)
    return gradients(objective, test) @ right


def shifted(values):
    return values - min(float(values.min()), 0)


@pytest.mark.parametrize("reduce", ["abs_of_sum", "sum_of_abs"])
@pytest.mark.parametrize("factor", [1, -1])
def test_shifted_signs_keep_the_order_of_the_sum(objective, candidates, reduce, factor):
    """What the published code makes of its signs pos and neg."""
    sign = "positive_shifted" if factor == 1 else "negative_shifted"
    rows = gradients(objective, candidates)
    test = gradients(objective, objective.draw("pde", 20, spawn(0, 1)))
    found = pinn.GradDotScore(20, reduce, sign).score(objective, candidates)
    torch.testing.assert_close(found, shifted(factor * (test @ rows.T).sum(0)))

    score = pinn.InfluenceScore(20, reduce, sign, damping=1e-3)
    sums = factor * pairs(objective, candidates, score).sum(0)
    found = score.score(objective, candidates)
    torch.testing.assert_close(found, shifted(sums), rtol=1e-6, atol=1e-8)
    assert torch.equal(found.argsort(), sums.argsort())
    # Of one sign alone nothing is shifted, as there is nothing negative.
    alike = candidates[sums > 0]
    alone = score.score(objective, alike)
    torch.testing.assert_close(alone, sums[sums > 0], rtol=1e-6, atol=1e-8)


def test_grad_dot_by_sizes_against_brute_force(objective, candidates):
    rows = gradients(objective, candidates)
    test = gradients(objective, objective.draw("pde", 20, spawn(0, 1)))
    products = test @ rows.T
    for sign, part in [
        ("abs", torch.abs),
        ("positive", torch.relu),
        ("negative", lambda values: torch.relu(-values)),
    ]:
        found = pinn.GradDotScore(20, "sum_of_abs", sign).score(objective, candidates)
        torch.testing.assert_close(found, part(products).sum(0))


@pytest.mark.parametrize("sign", ["abs", "positive", "negative"])
@pytest.mark.parametrize("reduce", ["abs_of_sum", "sum_of_abs"])
def test_influence_score_against_brute_force(objective, candidates, reduce, sign):
    score = pinn.InfluenceScore(n_test=20, reduce=reduce, sign=sign, damping=1e-4)
    matrix = pairs(objective, candidates, score)
    part = {
        "abs": torch.abs,
        "positive": torch.relu,
        "negative": lambda v: torch.relu(-v),
    }[sign]
    expected = part(matrix.sum(0)) if reduce == "abs_of_sum" else part(matrix).sum(0)
    found = score.score(objective, candidates)
    assert float((found - expected).abs().max()) <= 1e-8 * float(
        matrix.abs().sum(0).max()
    )


def test_positive_influence_means_that_adding_helps(objective, candidates):
    """Train a little on the objective plus the point: the test loss falls where the sign says."""
    influence = wh.Influence(objective, damping=1e-3)
    quantity = wh.Loss({"pde": objective.draw("pde", 20, spawn(0, 1))}, reduce="sum")
    added = influence.attribute(quantity, {"pde": candidates}, effect="add").isel(
        target=0
    )
    score = pinn.InfluenceScore(n_test=20, sign="positive", damping=1e-3)
    helps = score.score(objective, candidates) > 0
    assert np.array_equal(helps.numpy(), added.values < 0)


def test_goal_oriented_score(objective, candidates):
    goal = wh.Output(torch.tensor([[0.1, 0.5]], dtype=torch.float64))
    score = pinn.InfluenceScore(quantity=goal, damping=1e-4)
    row = (
        wh.Influence(objective, damping=1e-4).attribute(goal, candidates).isel(target=0)
    )
    expected = np.abs(row.values) * len(objective.terms["pde"].points)
    np.testing.assert_allclose(score.score(objective, candidates), expected, rtol=1e-8)


def test_other_scores_against_brute_force(objective, candidates):
    rows = gradients(objective, candidates)
    found = pinn.LossGradScore().score(objective, candidates)
    torch.testing.assert_close(found, rows.norm(dim=1), rtol=1e-10, atol=0)
    residual = objective.terms["pde"].residual(
        objective.parameters.tensors(), candidates
    )
    found = pinn.ResidualScore().score(objective, candidates)
    torch.testing.assert_close(found, residual.detach().abs()[:, 0])
    test = objective.draw("pde", 20, spawn(0, 1))
    expected = (rows @ gradients(objective, test).sum(0)).abs()
    found = pinn.GradDotScore(n_test=20).score(objective, candidates)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)
    points = candidates.clone().requires_grad_()
    fields = objective.fields(("u",))(objective.parameters.tensors(), points)
    slope = torch.autograd.grad(fields.sum(), points)[0].norm(dim=1)
    found = pinn.OutputGradScore().score(objective, candidates)
    torch.testing.assert_close(found, slope, rtol=1e-10, atol=0)


@pytest.mark.parametrize("score", SCORES, ids=lambda s: type(s).__name__)
def test_every_score_gives_one_value_per_candidate(objective, candidates, score):
    values = score.score(objective, candidates)
    assert values.shape == (30,)
    assert bool((values >= 0).all())
    by_term = score.score(objective, {"pde": candidates})
    torch.testing.assert_close(values, by_term)


def test_proportional_follows_its_distribution():
    scores = torch.tensor([1.0, 2.0, 3.0, 4.0])
    draws = [
        int(pinn.Proportional(k=2, c=0).select(scores, 1, seed)[0])
        for seed in range(4000)
    ]
    found = np.bincount(draws, minlength=4) / len(draws)
    np.testing.assert_allclose(found, np.array([1, 4, 9, 16]) / 30, atol=0.03)
    mixed = [
        int(pinn.Proportional(k=1, c=1).select(scores, 1, seed)[0])
        for seed in range(4000)
    ]
    weights = scores.numpy() / 2.5 + 1
    np.testing.assert_allclose(
        np.bincount(mixed) / 4000, weights / weights.sum(), atol=0.03
    )


def test_selections_draw_without_replacement_and_repeat():
    scores = torch.rand(50, generator=torch.Generator().manual_seed(0))
    for selection in (pinn.Proportional(), pinn.TopK()):
        chosen = selection.select(scores, 50, seed=1)
        assert sorted(chosen.tolist()) == list(range(50))
        assert torch.equal(
            selection.select(scores, 9, 3), selection.select(scores, 9, 3)
        )
    assert (
        len(set(pinn.Proportional(k=1, c=0).select(torch.zeros(5), 5, 0).tolist())) == 5
    )


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_selection_errors(bad):
    with pytest.raises(ValueError, match="cannot select 6 of 5"):
        pinn.TopK().select(torch.ones(5), 6, 0)
    with pytest.raises(ValueError, match="must be finite"):
        pinn.Proportional().select(torch.tensor([1.0, bad]), 1, 0)


def test_updates(objective):
    before = objective.terms["pde"].points
    add = pinn.Resample(pinn.ResidualScore(), n=7, candidates=100)
    after = add.update_points(objective, round=1, seed=0)["pde"]
    assert torch.equal(after[:60], before)
    assert len(after) == 67
    later = add.update_points(objective, round=2, seed=0)["pde"]
    capped = dataclasses.replace(add, max_points=62)
    assert torch.equal(capped.update_points(objective, 2, 0)["pde"], later[5:])
    swap = dataclasses.replace(add, update="replace")
    assert torch.equal(swap.update_points(objective, 2, 0)["pde"], later[7:])
    everything = dataclasses.replace(swap, n=None)
    fresh = everything.update_points(objective, 1, 0)["pde"]
    assert fresh.shape == before.shape
    assert not bool((fresh[:, None] == before[None]).all(-1).any())
    assert not torch.equal(add.update_points(objective, round=2, seed=0)["pde"], after)


def test_first_points_leave_by_chance_as_none_is_older():
    problem = pinn.zoo.load("diffusion")
    ordered = problem.draw("pde", 400)  # from one side of the domain to the other
    assert torch.equal(ordered[:, 0], ordered[:, 0].sort().values)
    pinned = problem.draw("pde", 5, seed=3, method="random")
    network = problem.network(seed=0)
    objective = problem.objective(network, {"pde": torch.cat([pinned, ordered])})
    term = dataclasses.replace(objective.terms["pde"], pinned=5)
    objective = objective.with_terms([term])
    swap = pinn.Resample(pinn.RandomScore(), n=100, candidates=500, update="replace")
    objective = objective.with_points(swap.update_points(objective, 1, seed=0))

    points = objective.locations("pde")
    assert torch.equal(points[:5], pinned)
    stayed = points[5:305]
    assert len(stayed[(stayed[:, None] == ordered[None]).all(-1).any(-1)]) == 300
    # A third of the domain has a third of them, but for chance: 100 ± 5.
    for edge in (-1 / 3, 1 / 3):
        share = float((stayed[:, 0] < edge).double().mean())
        assert abs(share - (edge + 1) / 2) < 0.08
    # In the next round it is the same ones' turn, in the order of the first.
    again = swap.update_points(objective, 2, seed=0)["pde"]
    assert torch.equal(again[5:205], stayed[100:])


def test_saved_scores_are_used(objective, candidates, tmp_path):
    values = torch.arange(30.0)
    pinn.SavedScore("pde", candidates, values).save(tmp_path / "scores.npz")
    assert [p.name for p in tmp_path.iterdir()] == ["scores.npz"]
    saved = pinn.SavedScore.load(tmp_path / "scores.npz")
    resample = pinn.Resample(saved, pinn.TopK(), n=3)
    points = resample.update_points(objective, round=1, seed=0)["pde"]
    assert torch.equal(points[-3:], candidates[[29, 28, 27]])
    with pytest.raises(ValueError, match="saved for 30 other candidates"):
        saved.score(objective, candidates + 0.001)


def test_saved_scores_refuse_other_files(tmp_path):
    np.savez(tmp_path / "other.npz", a=np.zeros(3))
    with pytest.raises(ValueError, match="holds no saved scores"):
        pinn.SavedScore.load(tmp_path / "other.npz")
    np.savez(
        tmp_path / "code.npz",
        candidates=np.array([{}], dtype=object),
        values=0,
        term='"pde"',
    )
    with pytest.raises(ValueError, match="pickle"):
        pinn.SavedScore.load(tmp_path / "code.npz")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: pinn.InfluenceScore(reduce="sum"), "reduction 'sum'"),
        (lambda: pinn.InfluenceScore(sign="both"), "sign 'both'"),
        (lambda: pinn.InfluenceScore(n_test=0), "n_test must be a positive integer"),
        (lambda: pinn.Proportional(k=-1), "k must be"),
        (lambda: pinn.Resample(n=None), "needs the number n"),
        (lambda: pinn.Resample(every=0), "every must be"),
        (lambda: pinn.Resample(update="swap"), "update 'swap'"),
    ],
)
def test_option_errors(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_fixed_data_cannot_be_resampled():
    network = torch.nn.Linear(2, 1, dtype=torch.float64)

    def residual(tensors, z):
        return torch.func.functional_call(network, tensors, (z,))

    term = wh.Term("data", residual, torch.zeros(3, 2, dtype=torch.float64))
    with pytest.raises(ValueError, match="fixed data"):
        pinn.Resample(pinn.ResidualScore()).update_points(
            wh.Objective(network, [term]), 1, 0
        )


def test_saved_scores_in_float32_training_and_of_another_term(
    objective, candidates, tmp_path
):
    saved = pinn.SavedScore("pde", candidates, torch.arange(30.0))
    saved.save(tmp_path / "new" / "scores.npz")
    held = pinn.SavedScore.load(tmp_path / "new" / "scores.npz")
    network = pinn.MLP([2, 4, 1], seed=0, dtype=torch.float32)
    rounded = pinn.zoo.load("burgers").objective(
        network, {"pde": objective.terms["pde"].points}
    )
    resample = pinn.Resample(held, pinn.TopK(), n=3)
    points = resample.update_points(rounded, round=1, seed=0)["pde"]
    assert torch.equal(
        points[-3:].sort(0).values, candidates[-3:].float().sort(0).values
    )
    with pytest.raises(ValueError, match=r"pass terms=\('pde',\)"):
        pinn.Resample(held, n=3, terms=("other",)).check(_two_terms(objective))
    assert set(pinn.Resample(held, n=3).update_points(_two_terms(objective), 1, 0)) == {
        "pde"
    }


def _two_terms(objective):
    """The objective with another term before its own."""
    term = objective.terms["pde"]
    return objective.with_terms([dataclasses.replace(term, name="other"), term])


def test_what_cannot_be_resampled_is_said_before_training(objective):
    with pytest.raises(ValueError, match="cannot select n = 20 of 10 candidates"):
        pinn.Resample(pinn.ResidualScore(), n=20, candidates=10)
    with pytest.raises(ValueError, match="n = 20 exceeds max_points = 10"):
        pinn.Resample(pinn.ResidualScore(), n=20, max_points=10)
    everything = pinn.Resample(
        pinn.ResidualScore(), n=None, update="replace", candidates=10
    )
    with pytest.raises(ValueError, match="cannot renew all 60 points"):
        everything.check(objective)
    with pytest.raises(ValueError, match="did you mean 'pde'"):
        pinn.Resample(pinn.ResidualScore(), terms=("pdf",)).check(objective)
    with pytest.raises(ValueError, match="not negative"):
        pinn.Proportional().select(torch.tensor([1.0, -1.0]), 1, seed=0)


def test_saved_candidates_are_trained_on_once_and_run_out(objective, candidates):
    twice = torch.cat([candidates[:4], candidates[:4]])
    resample = pinn.Resample(
        pinn.SavedScore("pde", twice, torch.ones(8)), pinn.TopK(), n=3
    )
    for sizes in (63, 64, 64):
        points = resample.update_points(objective, round=1, seed=0)["pde"]
        assert len(points) == len(points.unique(dim=0)) == sizes
        objective = objective.with_points({"pde": points})
    assert bool((points[-4:].unique(dim=0) == candidates[:4].unique(dim=0)).all())


def test_candidates_in_float32_are_taken(objective, candidates):
    rounded = candidates.float()
    found = pinn.ResidualScore().score(objective, rounded)
    assert torch.equal(found, pinn.ResidualScore().score(objective, rounded.double()))
