"""The line search: both Wolfe conditions, or the best that there is where none can be fulfilled."""

import math

import pytest
import torch

from whence.pinn.optimizers.wolfe import MAX_TRIALS, Trial, cubic_minimum, strong_wolfe


def on_line(loss, slope):
    """A function of the length that makes a trial, and counts them in ``lengths``."""

    def evaluate(length):
        evaluate.lengths.append(length)
        theta = torch.tensor([length], dtype=torch.float64)
        return Trial(length, loss(length), slope(length), theta, theta)

    evaluate.lengths = []
    return evaluate


def wall(at):
    """−α up to a wall, behind which nothing is finite."""
    return on_line(
        lambda a: -a if a < at else math.nan, lambda a: -1.0 if a < at else math.nan
    )


LINES = {
    "parabola": on_line(lambda a: (a - 3) ** 2, lambda a: 2 * (a - 3)),
    "steep": on_line(lambda a: (a - 0.01) ** 4, lambda a: 4 * (a - 0.01) ** 3),
    "far": on_line(lambda a: math.exp(-a / 100) + 1e-6 * a,
                   lambda a: -math.exp(-a / 100) / 100 + 1e-6),
    "waves": on_line(lambda a: math.cos(a) + a * a / 50 - a / 10,
                     lambda a: -math.sin(a) + a / 25 - 0.1),
    "a pole": on_line(lambda a: 1 / (2 - a) - 2 * a if a < 2 else math.inf,
                      lambda a: 1 / (2 - a) ** 2 - 2 if a < 2 else math.nan),
    "a log": on_line(lambda a: -math.log(a + 1e-3) + a if a >= 0 else math.nan,
                     lambda a: 1 - 1 / (a + 1e-3)),
}  # fmt: skip


@pytest.mark.parametrize("name", LINES)
@pytest.mark.parametrize("length", [1e-6, 0.03, 1.0, 7.0, 1e4])
@pytest.mark.parametrize("c2", [0.9, 0.1])
def test_both_conditions_are_fulfilled(name, length, c2):
    evaluate = LINES[name]
    start = evaluate(0.0)
    evaluate.lengths.clear()
    trial = strong_wolfe(evaluate, start, length, 1e-4, c2)
    assert trial.loss <= start.loss + 1e-4 * trial.length * start.slope
    assert abs(trial.slope) <= -c2 * start.slope
    assert len(evaluate.lengths) <= MAX_TRIALS


def test_a_length_that_fulfils_both_is_taken_at_once():
    evaluate = LINES["parabola"]
    start = evaluate(0.0)
    evaluate.lengths.clear()
    assert strong_wolfe(evaluate, start, 1.0).length == 1.0
    assert evaluate.lengths == [1.0]


@pytest.mark.parametrize("at", [1e-9, 1e-3, 0.7, 30.0])
def test_it_goes_up_to_a_wall_of_nan(at):
    """The slope never flattens: the lowest point before the wall is what there is."""
    evaluate = wall(at)
    trial = strong_wolfe(evaluate, evaluate(0.0), 1.0)
    assert 0.5 * at < trial.length < at


def test_without_a_lower_point_there_is_none():
    nowhere = on_line(
        lambda a: 1.0 if a == 0 else math.nan, lambda a: -1.0 if a == 0 else math.nan
    )
    lying = on_line(lambda a: 1.0 + a, lambda a: -1.0)
    for evaluate in (nowhere, lying):
        assert strong_wolfe(evaluate, evaluate(0.0), 1.0) is None


def test_a_slope_that_is_not_finite_counts_as_a_loss_that_is_not():
    kink = on_line(lambda a: -a, lambda a: -1.0 if a < 0.5 else math.inf)
    assert strong_wolfe(kink, kink(0.0), 1.0).length < 0.5


@pytest.mark.parametrize("ends", [(0.0, 1.0), (1.0, 0.0), (-2.0, 0.1), (0.3, 5.0)])
def test_the_minimum_of_a_cubic_is_exact(ends):
    """x³ − x has its minimum at 1/√3 and, ahead of both ends or between them, none else."""
    a, b = (Trial(x, x**3 - x, 3 * x * x - 1, None, None) for x in ends)
    assert cubic_minimum(a, b) == pytest.approx(1 / math.sqrt(3), rel=1e-12)


def test_a_line_and_a_bracket_without_minimum_have_none():
    line = [Trial(x, -x, -1.0, None, None) for x in (0.0, 1.0)]
    assert math.isnan(cubic_minimum(*line))
    rising = [Trial(x, x**3 + x, 3 * x * x + 1, None, None) for x in (0.0, 1.0)]
    assert math.isnan(cubic_minimum(*rising))
