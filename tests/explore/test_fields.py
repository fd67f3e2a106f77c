"""Fields by name: the solution's own numbers, whichever way they are asked for."""

import numpy as np
import pytest
from explorers import line_run, space_run

from whence import pinn
from whence.explore import Session
from whence.explore.answers import Answers
from whence.explore.fields import Fields
from whence.explore.slices import Slice

PLACES = np.array([[0.1, 0.5], [-0.7, 0.2], [1.0, 1.0]])


@pytest.fixture(scope="module")
def fields(result):
    return Fields(result)


def test_what_there_is(fields, result):
    assert fields.answers() == ["u", "u_x", "u_t", "pde"]
    assert fields.names() == ["u", "u_x", "u_t", "pde", "error(u)"]
    # All of them can be shown, and all answers be explained.
    for name in fields.names():
        assert fields(name, PLACES).shape == (3,)


def test_the_numbers_are_those_of_the_solution(fields, result):
    solution = result.solution
    for name in ("u", "u_x", "u_t", "u_xx"):
        expected = np.asarray(solution(PLACES, name))[:, 0]
        np.testing.assert_array_equal(fields(name, PLACES), expected)
    expected = np.asarray(solution.residual(PLACES, "pde"))[:, 0]
    np.testing.assert_array_equal(fields("pde", PLACES), expected)
    expected = np.asarray(solution.error(PLACES))[:, 0]
    np.testing.assert_array_equal(fields("error(u)", PLACES), expected)


def test_formulas(fields):
    u, u_t = fields("u", PLACES), fields("u_t", PLACES)
    np.testing.assert_allclose(fields("u_t + 2*u**2", PLACES), u_t + 2 * u**2)
    np.testing.assert_array_equal(fields("x", PLACES), PLACES[:, 0])
    np.testing.assert_array_equal(fields("3", PLACES), [3, 3, 3])
    exact = fields("u - error(u)", PLACES)
    expected = np.asarray(pinn.zoo.load("burgers").solution(*PLACES.T)).ravel()
    np.testing.assert_allclose(exact, expected, atol=1e-12)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("v", "'v'"),
        ("u_y", "u_y"),
        ("error(v)", "the error of 'v' is not known"),
        ("error(u_x)", "the error of 'u_x' is not known"),
        ("u.x", "is no formula"),
        ("", "is no formula"),
    ],
)
def test_what_means_nothing(fields, name, said):
    with pytest.raises(ValueError, match=said):
        fields(name, PLACES)


def test_no_error_without_a_solution():
    problem = pinn.Problem(
        domain=pinn.Interval("x", 0, 1),
        outputs=("u", "v"),
        equations={"pde": lambda u_x, v: u_x - v},
    )
    network = pinn.MLP([1, 4, 2], seed=0)
    steps = [pinn.GaussNewton(1)]
    result = pinn.train(problem, network, points=9, schedule=steps, progress=False)
    fields = Fields(result)
    assert fields.names() == ["u", "v", "u_x", "v_x", "pde"]
    with pytest.raises(ValueError, match="no solution to compare with"):
        fields("error(u)", [[0.5]])


def test_a_slice_beside_the_domain_is_blank():
    answers = Answers(Session(line_run()))
    beside = Slice(0, None, (0.5,))
    whole = answers.field("u", beside)
    assert np.isfinite(whole).all()

    answers = Answers(Session(space_run()), resolution=5)
    beside = Slice(0, 1, (0.5, 0.5, 9.0))
    assert np.isnan(answers.field("u", beside)).all()
    assert np.isnan(answers.influence_of("pde", 3, "u", beside)).all()
