"""Several quantities in one call: the same numbers, one solve, labels that say which."""

import numpy as np
import oracles
import pytest
import torch

import whence as wh
from whence.attribution import reductions
from whence.attribution.quantities import (
    Derivative,
    Functional,
    Loss,
    Output,
    aggregate_gradient,
)
from whence.attribution.quantities.several import Several
from whence.curvature.exact import _Dual

pytestmark = pytest.mark.filterwarnings(
    "ignore::whence.attribution.quality.FarFromMinimum"
)

EXACT = 1e-10


@pytest.fixture(name="flow", scope="module")
def _flow():
    return oracles.navier_stokes()


def speed(u, v):
    return (u**2 + v**2).sqrt()


def quantities(flow, n=30):
    points = oracles.target_points(flow, n)
    return [
        *(Output(points, name) for name in "uvp"),
        Output(points[:4], speed),
        Derivative(points[:2], "u_y"),
        Functional(lambda field: field("p", points).mean(), name="mean of p"),
    ]


def test_the_parts_against_brute_force(flow):
    points = oracles.target_points(flow, 30)
    influence = wh.Influence(flow.objective, damping=1e-4)
    found = influence.attribute([Output(points, name) for name in "uvp"])
    for k, name in enumerate("uvp"):
        gradients = oracles.value_gradients(flow, points, k)
        expected = oracles.influence(flow, gradients, 1e-4)
        part = found.isel(target=found["quantity"].values == name)
        oracles.close(part, expected, EXACT)
        assert np.array_equal(part["target_y"], points[:, 1])


def test_all_parts_share_one_solve(flow, monkeypatch):
    solves = []
    solve_rows = _Dual.solve_rows
    monkeypatch.setattr(
        _Dual, "solve_rows", lambda self: solves.append(self) or solve_rows(self)
    )
    influence = wh.Influence(flow.objective, damping=1e-4)
    several = quantities(flow)
    found = influence.attribute(several)
    assert len(solves) == 1
    alone = [influence.attribute(quantity) for quantity in several]
    oracles.close(found, np.concatenate(alone), EXACT)
    assert found.attrs["quantity"] == "u, v, p, f(u, v), u_y, mean of p"
    names = found["quantity"].values.tolist()
    assert names == (
        ["u"] * 30 + ["v"] * 30 + ["p"] * 30 + ["f(u, v)"] * 4 + ["u_y"] * 2
    ) + ["mean of p"]
    assert np.isnan(found["target_x"][-1])
    assert not np.isnan(found["target_x"][:-1]).any()

    # A few points on all of it, and the sum of all.
    chosen = wh.TrainingPoints({"flow": [2], "wall": [1]})
    oracles.close(influence.attribute(several, chosen), found.values[:, [2, 8]], EXACT)
    oracles.close(influence.attribute_sum(several), found.sum("target"), EXACT)


METHODS = {
    "influence": lambda objective: wh.Influence(objective, damping=1e-4),
    "grad_dot": wh.GradDot,
    "empirical": wh.EmpiricalInfluence,
}


@pytest.mark.parametrize("method", METHODS)
def test_every_way_to_ask(flow, method, tmp_path):
    asked = METHODS[method](flow.objective)
    several = quantities(flow, 3)
    found = asked.attribute(several)
    alone = np.concatenate([asked.attribute(quantity) for quantity in several])
    oracles.close(found, alone, EXACT)
    blocks = list(asked.attribute_blocks(several, block=4))
    oracles.close(torch.cat(blocks), found, EXACT)
    stored = asked.attribute(several, out=tmp_path / "a.zarr")
    oracles.close(stored, found, EXACT)
    assert stored["quantity"].values.tolist() == found["quantity"].values.tolist()
    mean = reductions.reduced(asked, several, by="quantity")
    parts = found.isel(target=found["quantity"].values == "p").mean("target")
    oracles.close(mean.sel(quantity="p"), parts, EXACT)
    top = reductions.top(asked, several, 1)
    oracles.close(top.highest[:, 0], found.max("point"), EXACT)


def test_values_and_gradients_follow_each_other(flow):
    several = quantities(flow, 3)
    joined = Several(several)
    objective = flow.objective
    values = torch.cat([quantity.values(objective) for quantity in several])
    assert torch.equal(joined.values(objective), values)
    gradients = torch.cat(list(joined.gradients(objective)))
    oracles.close(aggregate_gradient(joined, objective), gradients.sum(0), 1e-12)
    vectors = torch.eye(objective.parameters.size, 3, dtype=torch.float64)
    products = torch.cat(list(joined.products(objective, vectors)))
    oracles.close(products, gradients[:, :3], 1e-12)


def test_groups_and_samples():
    x, y = torch.rand(8, 3).double(), torch.arange(8) % 2
    model = torch.nn.Linear(3, 2).double()
    influence = wh.Influence(model, (x, y), torch.nn.CrossEntropyLoss())
    several = [Loss(x[:2], y[:2]), Loss(reduce="mean")]
    found = influence.attribute(several)
    assert found["target_label"].values[:2].tolist() == [0.0, 1.0]
    assert np.isnan(found["target_label"].values[2])
    groups = wh.group_influence(influence, several, {"a": [0]}, method="first_order")
    oracles.close(groups.isel(group=0), found.isel(point=0), EXACT)


@pytest.mark.parametrize(
    ("quantity", "error", "message"),
    [
        ([], ValueError, "no quantity to explain"),
        ([Loss(), "u"], TypeError, "must be a quantity, such as"),
        ("u", TypeError, "must be a quantity, such as"),
    ],
)
def test_what_is_no_list_of_quantities(flow, quantity, error, message):
    influence = wh.Influence(flow.objective)
    for ask in (
        influence.attribute,
        influence.attribute_sum,
        lambda q: next(influence.attribute_blocks(q)),
        lambda q: reductions.top(influence, q),
    ):
        with pytest.raises(error, match=message):
            ask(quantity)


def test_a_list_of_one_is_the_one(flow):
    (first, *_) = quantities(flow, 3)
    influence = wh.Influence(flow.objective)
    found = influence.attribute([first])
    assert found.attrs == influence.attribute(first).attrs
