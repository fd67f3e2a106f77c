"""What is said of a loss that is not finite, for each way in which it can come about."""

import math

import pytest
import torch

import whence as wh
from whence.finiteness import where_not_finite

POINTS = torch.tensor([[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]], dtype=torch.float64)


def said_of(function, theta=1.0, weight=1.0, points=POINTS):
    """The diagnosis of residual function(θ, points) beside a term that is fine."""
    network = torch.nn.Linear(1, 1, bias=False, dtype=torch.float64)
    network.weight.data.fill_(1.0)

    def residual(tensors, z):
        return function(tensors["weight"], z)

    terms = [
        wh.Term("fine", lambda tensors, z: tensors["weight"] * z[:, :1], points),
        wh.Term("pde", residual, points, weight),
    ]
    objective = wh.Objective(network, terms, space=wh.Space(coordinates=("x", "t")))
    said = where_not_finite(objective, torch.tensor([theta], dtype=torch.float64))
    assert float(objective.parameters.vector()) == 1.0
    return said


def test_rows_are_named_with_their_coordinates():
    assert said_of(lambda w, z: torch.log(w * (z[:, :1] - 2.0))) == (
        "term 'pde' is not finite at 2 of 3 points: row 0 (x = 0, t = 1), row 1 (x = 2, t = 3)"
    )


def test_the_parameters_of_the_diagnosis_are_those_given():
    assert said_of(lambda w, z: torch.log(w * z[:, 1:]), theta=1.0).startswith(
        "the sum of"
    )
    assert "3 of 3 points" in said_of(lambda w, z: torch.log(w * z[:, 1:]), theta=-1.0)


def test_only_the_first_rows_are_shown():
    points = torch.arange(20.0).double().view(10, 2)
    said = said_of(lambda w, z: w * z[:, :1] / 0, points=points)
    assert said.endswith("row 2 (x = 4, t = 5), …")
    assert "10 of 10 points" in said


@pytest.mark.parametrize("theta", [math.nan, math.inf])
def test_parameters_that_are_not_finite_are_said_first(theta):
    assert said_of(lambda w, z: w * z, theta) == "1 of 1 parameters are not finite"


def test_a_square_that_overflows_is_that_points():
    said = said_of(lambda w, z: w * 1e200 * (z[:, :1] == 2.0))
    assert said == "term 'pde' is not finite at 1 of 3 points: row 1 (x = 2, t = 3)"


def test_a_sum_that_overflows_is_that_terms():
    said = said_of(lambda w, z: w * 1.2e154 * torch.ones_like(z[:, :1]))
    assert (
        said == "the sum over the points of term 'pde' is too large for its number type"
    )


def test_a_weight_that_overflows_is_said():
    said = said_of(lambda w, z: w * 1e150 * torch.ones_like(z[:, :1]), weight=1e100)
    assert said == "the weighted sum of the terms is too large for its number type"


def test_a_gradient_that_is_not_finite_is_that_points():
    said = said_of(lambda w, z: torch.sqrt((w * (z[:, :1] - 4.0)).abs()))
    assert said == (
        "the gradient of term 'pde' is not finite at 1 of 3 points: row 2 (x = 4, t = 5)"
    )
