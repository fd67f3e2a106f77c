"""Scores in parts: those of one pass, to the last bit, here and by workers."""

import pytest
import torch

from whence import cli, pinn
from whence.catalogue import SCORES
from whence.pinn.sampling.scores.parts import parts_of, score_in_parts

N = 9001


@pytest.fixture(scope="module")
def objective():
    problem = pinn.zoo.load("diffusion", "soft")
    network = pinn.MLP([2, 6, 6, 1], seed=0)
    points = problem.sample({"pde": 60, "initial_u": 10, "dirichlet_u": 10}, seed=0)
    return problem.objective(network, points)


@pytest.fixture(scope="module")
def candidates(objective):
    counts = {"pde": N, "initial_u": 8100}
    return {name: objective.draw(name, n, seed=5) for name, n in counts.items()}


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr("whence.pinn.sampling.scores.parts.PART", 4000)


SCORERS = {name: SCORES[name]() for name in SCORES}
SCORERS |= {
    "sum_of_abs": pinn.InfluenceScore(n_test=5, reduce="sum_of_abs"),
    "shifted": pinn.InfluenceScore(n_test=5, sign="positive_shifted"),
    "negative": pinn.GradDotScore(n_test=5, sign="negative_shifted"),
}


@pytest.mark.parametrize("name", SCORERS)
@pytest.mark.parametrize("by_workers", [False, True], ids=["here", "workers"])
def test_parts_make_the_whole(name, by_workers, objective, candidates, request):
    scorer = SCORERS[name]
    expected = scorer.score(objective, candidates)
    client = request.getfixturevalue("client") if by_workers else None
    found = score_in_parts(scorer, objective, candidates, client)
    assert torch.equal(found, expected)


@pytest.mark.parametrize(
    "counts", [(N,), (N, 4100), (N, 7), (N, 2), (1, 1), (8000, 4001), (3, 12001)]
)
def test_every_candidate_is_in_one_part(counts):
    terms = {str(k): torch.zeros(n, 2) for k, n in enumerate(counts)}
    parts = parts_of(terms)
    for k, n in enumerate(counts):
        places = [i for part in parts for i in range(part[k].start, part[k].stop)]
        assert places == list(range(n))
        assert all(part[k].stop > part[k].start for part in parts)


class Ranked:
    """A score of one's own, that of the best candidate 1: it depends on all of them."""

    def score(self, objective, candidates):
        scores = pinn.ResidualScore().score(objective, candidates)
        return scores / scores.max()


def test_a_score_that_looks_at_all_candidates_sees_them(objective, candidates, client):
    expected = Ranked().score(objective, candidates)
    assert torch.equal(score_in_parts(Ranked(), objective, candidates), expected)
    assert torch.equal(
        score_in_parts(Ranked(), objective, candidates, client), expected
    )
    saved = pinn.SavedScore("pde", candidates["pde"], expected[:N])
    found = score_in_parts(saved, objective, {"pde": candidates["pde"]})
    assert torch.equal(found, expected[:N])


def test_the_command_has_workers(tmp_path, capsys):
    run = tmp_path / "run"
    train = [
        "train",
        "diffusion",
        "--out",
        str(run),
        "--quiet",
        "--layers",
        "2",
        "5",
        "1",
    ]
    train += ["--points", "pde=20", "--schedule", "gauss_newton:2"]
    assert cli.main(train) == 0
    for out, more in (("a.npz", []), ("b.npz", ["--workers", "2"])):
        score = [
            "score",
            str(run),
            "--candidates",
            "9000",
            "--out",
            str(tmp_path / out),
        ]
        assert cli.main([*score, *more]) == 0
    first, second = (
        pinn.SavedScore.load(tmp_path / name) for name in ("a.npz", "b.npz")
    )
    assert torch.equal(first.values, second.values)

    capsys.readouterr()
    both = ["--workers", "2", "--scheduler", "tcp://127.0.0.1:1"]
    assert cli.main(["score", str(run), *both]) == 2
    assert "leave out workers or scheduler" in capsys.readouterr().err
    assert cli.main(["score", str(run), "--workers", "0"]) == 2
