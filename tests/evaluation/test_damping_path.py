"""How influences change over dampings, against influences made one by one."""

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from torch import nn

import whence as wh
from whence.evaluation import damping_path, linear_datamodeling_score, random_subsets

DAMPINGS = [1e-4, 1e-2, 1.0]


@pytest.fixture(name="influence", scope="module")
def _influence():
    torch.manual_seed(0)
    x, y = torch.randn(30, 3, dtype=torch.float64), torch.arange(30) % 2
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()
    return wh.Influence(model, (x, y), nn.CrossEntropyLoss(), damping=1e-2)


def quantity():
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(4, 3, generator=generator, dtype=torch.float64)
    return wh.Loss(x, torch.arange(4) % 2)


def alone(influence, damping, **options):
    made = wh.Influence(influence.objective, damping=damping, **options)
    return made.attribute(quantity())


def test_numbers_are_those_of_influences_one_by_one(influence):
    path = damping_path(influence, quantity(), DAMPINGS[::-1])
    assert path["damping"].values.tolist() == DAMPINGS
    tables = [alone(influence, value) for value in DAMPINGS]
    for k, table in enumerate(tables):
        assert float(path["size"][k]) == pytest.approx(
            np.sqrt(np.mean(table.values**2)), rel=1e-8
        )
        assert float(path["absolute"][k]) == pytest.approx(table.attrs["damping"])
        for j, other in enumerate(tables):
            pairs = zip(table.values, other.values, strict=True)
            expected = np.mean([spearmanr(a, b).statistic for a, b in pairs])
            assert float(path["agreement"][k, j]) == pytest.approx(expected, abs=1e-9)
    assert path.attrs["damping"] == 1e-2
    assert (path["residual"].values < 1e-6).all()


def test_dampings_are_decades_around_its_own_by_default(influence):
    path = damping_path(influence, quantity())
    np.testing.assert_allclose(path["damping"], 1e-2 * 10.0 ** np.arange(-4, 5))
    largest = influence.state().spectrum.largest_eigenvalue
    absolute = influence.with_damping(wh.Damping(0.1 * largest, relative=False))
    other = damping_path(absolute, quantity(), DAMPINGS)
    assert other.attrs["damping"] == pytest.approx(0.1)


def test_agreement_with_retraining(influence):
    """What is predicted at one damping is taken for the truth: there it is 1."""
    truth = alone(influence, 1e-4).isel(point=[3, 9, 4, 17, 20])
    path = damping_path(influence, quantity(), DAMPINGS, retrained=truth)
    assert float(path["retraining"][0]) == pytest.approx(1.0)
    predicted = alone(influence, 1.0).values[:, [3, 9, 4, 17, 20]]
    pairs = zip(predicted, truth.values, strict=True)
    expected = np.mean([spearmanr(a, b).statistic for a, b in pairs])
    assert float(path["retraining"][2]) == pytest.approx(expected)

    subsets = random_subsets(30, 12)
    actual = (~subsets).astype(float) @ alone(influence, 1e-4).values.T
    path = damping_path(influence, quantity(), DAMPINGS, subsets=subsets, actual=actual)
    assert float(path["lds"][0]) == pytest.approx(1.0)
    score = linear_datamodeling_score(alone(influence, 1.0), subsets, actual)
    assert float(path["lds"][2]) == pytest.approx(score.attrs["mean"])


def test_dampings_at_which_the_system_is_singular_are_left_empty(influence):
    """λ takes off a negative eigenvalue of −1e-2 of the largest exactly."""
    size = influence.objective.parameters.size
    eye = torch.eye(size, dtype=torch.float64)
    values = torch.ones(size, dtype=torch.float64)
    values[0] = -1e-2
    solver = wh.GivenFactors(eigenpairs=(eye, values))
    made = wh.Influence(influence.objective, solver=solver, curvature="hessian")
    path = damping_path(made, quantity(), [1e-2, 0.1])
    assert np.isnan(path["size"][0])
    assert np.isnan(path["agreement"].values[0]).all()
    assert np.isfinite(path["size"][1])
    with pytest.raises(ValueError, match="singular at all"):
        damping_path(made, quantity(), [1e-2, np.nextafter(1e-2, 1)])


def test_bad_calls(influence):
    with pytest.raises(TypeError, match="solves with a damping"):
        damping_path(wh.GradDot(influence.objective), quantity())
    with pytest.raises(ValueError, match="two or more"):
        damping_path(influence, quantity(), [1e-3, 1e-3])
    with pytest.raises(ValueError, match="a relative damping"):
        damping_path(influence, quantity(), [0.0, 1e-3])
    with pytest.raises(ValueError, match="subsets= and actual= together"):
        damping_path(influence, quantity(), subsets=np.ones((2, 30), bool))
    undamped = wh.Influence(influence.objective, damping=0.0)
    with pytest.raises(ValueError, match="there are no decades"):
        damping_path(undamped, quantity())
    truth = alone(influence, 1e-4)
    far = (
        truth.isel(point=[0]).drop_indexes("term").assign_coords(index=("point", [99]))
    )
    with pytest.raises(ValueError, match="point 99 of data was left out"):
        damping_path(influence, quantity(), DAMPINGS, retrained=far)
    with pytest.raises(ValueError, match="changes of 1 targets, and 4 are predicted"):
        damping_path(influence, quantity(), DAMPINGS, retrained=truth[:1])
