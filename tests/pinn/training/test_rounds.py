"""When points are renewed: before the first step, between stages; and the test loss."""

import numpy as np
import pytest
import torch
from trainings import go, small

from whence import pinn
from whence.pinn.training.run_folder import described


def resample(**options):
    return pinn.Resample(pinn.RandomScore(), n=3, candidates=50, **options)


def entered(result):
    """Return at which iterations how many points came."""
    iterations, counts = np.unique(result.points["pde:entered"], return_counts=True)
    return dict(zip(iterations.tolist(), counts.tolist(), strict=True))


CYCLES = [pinn.Adam(4), pinn.Adam(6)] * 3


def test_a_round_before_the_first_step():
    result = go(schedule=CYCLES, resample=resample(at_start=True, every=10))
    assert entered(result) == {0: 43, 10: 3, 20: 3}
    assert result.summary["rounds"] == 3
    assert result.history[0]["points"] == 43


def test_rounds_between_cycles():
    result = go(schedule=CYCLES, resample=resample(stages=2, every=1))
    assert entered(result) == {0: 40, 10: 3, 20: 3}
    one = go(schedule=CYCLES, resample=resample(stages=1, every=1))
    assert entered(one) == {0: 40, 4: 3, 10: 3, 14: 3, 20: 3, 24: 3}


def test_points_stay_after_the_last_round():
    result = go(schedule=CYCLES, resample=resample(every=5, rounds=2))
    assert entered(result) == {0: 40, 5: 3, 10: 3}
    # One at the start counts.
    first = go(schedule=CYCLES, resample=resample(every=5, rounds=2, at_start=True))
    assert entered(first) == {0: 43, 5: 3}
    with pytest.raises(ValueError, match="rounds must be a positive integer"):
        resample(rounds=0)


class Early(pinn.Adam):
    """Ends its stage after two steps, whatever it was asked for."""

    def start(self, parameters):
        stepper = super().start(parameters)
        advance = stepper.advance

        def ending(objective, iterations):
            done = advance(objective, min(2, iterations))
            done.finished = True
            return done

        stepper.advance = ending
        return stepper


def test_a_stage_that_ends_early_ends_its_cycle():
    schedule = [pinn.Adam(4), Early(100)] * 3
    result = go(schedule=schedule, resample=resample(stages=2))
    assert entered(result) == {0: 40, 6: 3, 12: 3}


def test_the_first_round_scores_the_network_that_begins():
    seen = []

    class Noting(pinn.RandomScore):
        def score(self, objective, candidates):
            seen.append(objective.parameters.vector())
            return super().score(objective, candidates)

    problem = small()
    noted = pinn.Resample(Noting(), n=3, candidates=50, at_start=True, every=99)
    go(problem=problem, schedule=[pinn.Adam(3)], resample=noted)
    start = pinn.train(
        problem, points=5, schedule=[pinn.Adam(1)], progress=False, seed=0
    )
    fresh = problem.objective(
        problem.network(0).double(), {"pde": start.objective.locations("pde")}
    )
    (theta,) = seen
    assert torch.equal(theta, fresh.parameters.vector())


def test_a_resumed_run_has_the_same_rounds(tmp_path):
    options = {"schedule": CYCLES, "resample": resample(stages=2, at_start=True)}
    whole = go(tmp_path / "whole", **options)
    go(tmp_path / "part", max_seconds=1e-9, **options)
    part = go(tmp_path / "part", resume=True, **options)
    assert entered(part) == entered(whole)
    vectors = [r.objective.parameters.vector() for r in (whole, part)]
    assert torch.equal(*vectors)


def test_options_that_came_later_are_in_the_folder_only_if_set(tmp_path):
    """Runs of before, whose folders lack them, can be resumed."""
    plain = described(resample())
    assert "stages" not in plain
    assert "at_start" not in plain
    chosen = described(resample(stages=2, at_start=True))
    assert (chosen["stages"], chosen["at_start"]) == (2, True)
    assert "reduce" not in described(pinn.GradDotScore())
    assert described(pinn.GradDotScore(reduce="sum_of_abs"))["reduce"] == "sum_of_abs"


def test_the_test_loss_is_the_loss_at_other_points():
    result = go(problem=small("burgers", "soft"), test=70, schedule=[pinn.Adam(3)],
                resample=None, keep="last",
                points={"pde": 40, "initial_u": 9, "dirichlet_u": 9})  # fmt: skip
    history = result.history
    assert "test_loss" in history.columns
    assert not np.allclose(history["test_loss"], history["validation_loss"], rtol=1e-6)
    # Another seed of as many points has much the same mean.
    objective = result.objective
    points = {n: objective.draw(n, 5000, seed=5) for n in objective.terms}
    expected = float(objective.with_points(points).loss())
    assert history[-1]["test_loss"] == pytest.approx(expected, rel=0.5)
    assert "test_loss" not in go(schedule=[pinn.Adam(3)], resample=None).history.columns
