"""Importance weights: adaptive points as an unbiased estimate of the uniform mean."""

import math

import pytest
import torch

from whence import pinn
from whence.pinn.sampling.weighted_points import WeightedPoints

DRAWS = 1500


def problem():
    return pinn.Problem(
        domain=pinn.Rectangle(("x", "t"), (0, 0), (1, 1)),
        outputs=("u",),
        equations={"pde": lambda u_x, x: u_x - 4 * x**3},
        conditions=[pinn.Dirichlet(u=0.0, on="x_min")],
    )


def objective(n=20):
    points = problem().sample({"pde": n, "dirichlet_u": 5}, seed=0)
    return problem().objective(pinn.MLP([2, 4, 1], seed=0), points)


class Steep:
    """Scores x⁴: points crowd at one end."""

    def score(self, objective, candidates):
        return candidates["pde"][:, 0] ** 4


def resample(**options):
    chosen = {"n": 6, "candidates": 30, "importance": True, "every": 1}
    selection = pinn.Proportional(k=1, c=0.5)
    return pinn.Resample(
        Steep(), options.pop("selection", selection), **chosen | options
    )


@pytest.mark.parametrize("n", [1, 5, 20, 40])
def test_probabilities_make_sums_over_the_pool_unbiased(n):
    """Also where a large part of the pool is taken, as draws are without replacement."""
    scores = torch.linspace(0, 3, 40, dtype=torch.float64) ** 3
    f = torch.cos(torch.arange(40.0).double()) + scores / 10 + 1
    selection = pinn.Proportional(k=1, c=0.3)
    sums, plain = [], []
    for seed in range(DRAWS):
        rows, chances = selection.select_with_probabilities(scores, n, seed)
        if n < 40:
            assert torch.equal(rows, selection.select(scores, n, seed))
        sums.append(float((f[rows] / chances).sum()))
        plain.append(float(f[rows].mean()) * 40)

    sums = torch.tensor(sums, dtype=torch.float64)
    error = float(sums.std()) / math.sqrt(DRAWS)
    assert abs(float(sums.mean()) - float(f.sum())) < 3.5 * error + 1e-9
    if n < 40:
        plain = torch.tensor(plain, dtype=torch.float64)
        error = float(plain.std()) / math.sqrt(DRAWS)
        assert abs(float(plain.mean()) - float(f.sum())) > 10 * error


def means(resampler, rounds=4):
    """Return weighted and plain means of x² over sets that grew for some rounds, and their ages."""
    weighted, plain = [], []
    start = objective()
    for seed in range(160):
        current = start.with_points({"pde": start.draw("pde", 8, seed)})
        for number in range(1, rounds + 1):
            entry = resampler.update_points(current, number, seed)["pde"]
            current = current.with_points({"pde": entry.points})
            current = current.with_base_weights({"pde": entry.tensor})
        term = current.term("pde")
        values = term.locations[:, 0] ** 2
        weighted.append((term.base_weights * values).mean())
        plain.append(values.mean())
    return torch.stack(weighted), torch.stack(plain)


@pytest.mark.parametrize(
    "options",
    [{}, {"max_points": 16}, {"update": "replace"}],
    ids=["growing", "leaving", "replace"],
)
def test_weighted_means_over_sets_are_the_uniform_mean(options):
    weighted, plain = means(resample(**options))
    for values, is_unbiased in ((weighted, True), (plain, False)):
        error = float(values.std()) / math.sqrt(len(values))
        distance = abs(float(values.mean()) - 1 / 3)
        # Three standard errors and a half; without weights it is ten of them off.
        assert (distance < 3.5 * error) if is_unbiased else (distance > 10 * error)


def test_present_points_keep_their_weights():
    start = objective()
    first = resample().update_points(start, 1, 0)["pde"]
    assert isinstance(first, WeightedPoints)
    assert torch.equal(first.tensor[:20], torch.ones(20, dtype=torch.float64))
    grown = start.with_points({"pde": first.points})
    grown = grown.with_base_weights({"pde": first.tensor})
    second = resample(max_points=26).update_points(grown, 2, 0)["pde"]
    assert torch.equal(second.tensor[:20], first.tensor[6:])
    assert torch.equal(second.points[:20], first.points[6:])


def go(out=None, steps=6, resume=False, **options):
    return pinn.train(
        problem(),
        pinn.MLP([2, 4, 1], seed=0),
        points={"pde": 12, "dirichlet_u": 5},
        schedule=[pinn.Adam(steps)],
        resample=pinn.Resample(
            pinn.ResidualScore(),
            pinn.Proportional(k=1, c=1),
            n=3,
            every=2,
            candidates=40,
            importance=True,
        ),
        validation=20,
        keep="last",
        progress=False,
        out=out,
        resume=resume,
        **options,
    )


def test_a_run_keeps_the_weights_on_disk_and_over_a_resume(tmp_path):
    whole = go(tmp_path / "whole")
    term = whole.objective.term("pde")
    assert len(term.points) == 12 + 2 * 3
    assert torch.equal(term.base_weights[:12], torch.ones(12, dtype=torch.float64))
    assert float(term.base_weights[12:].max()) < 2.5
    assert len(set(term.base_weights[12:].tolist())) == 6

    loaded = pinn.load_run(tmp_path / "whole", problem(), pinn.MLP([2, 4, 1]))
    assert torch.equal(loaded.objective.term("pde").base_weights, term.base_weights)
    stopped = go(tmp_path / "part", max_seconds=1e-9)
    assert stopped.summary["stopped_by"] == "time limit"
    resumed = go(tmp_path / "part", resume=True)
    assert torch.equal(resumed.objective.term("pde").base_weights, term.base_weights)
    assert resumed.summary["loss"] == whole.summary["loss"]


def test_weightings_of_terms_multiply_them():
    result = go(weighting=pinn.ReLoBRaLo(update_every=1))
    term = result.objective.term("pde")
    assert term.base_weights is not None
    assert result.summary["finished"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"selection": pinn.TopK()}, "TopK takes candidates without chance"),
        ({"selection": pinn.Proportional(k=1, c=0)}, "c = 0"),
        ({"joint": True}, "joint=True"),
    ],
)
def test_what_no_weights_can_make_up_for_is_an_error(options, message):
    with pytest.raises(ValueError, match=message):
        resample(**options)
