"""A session's answers are those of the influence, whatever was asked before."""

import numpy as np
import pytest
import torch
from trainings import small

import whence as wh
from whence import pinn
from whence.explore import Session

PLACES = [[0.5, 0.25], [-0.3, 0.8], [0.0, 0.5]]


def run(points=60, constraints="hard", steps=8, **options):
    counts = (
        points
        if constraints == "hard"
        else {"pde": points, "initial_u": 9, "dirichlet_u": 12}
    )
    return pinn.train(
        small("burgers", constraints),
        points=counts,
        schedule=[pinn.GaussNewton(steps)],
        keep="last",
        progress=False,
        **options,
    )  # fmt: skip


@pytest.fixture(scope="module")
def soft():
    return run(constraints="soft")


def matrix(result, quantity, **options):
    return wh.Influence(result.objective, **options).attribute(quantity)


def assert_equal(values, expected):
    np.testing.assert_allclose(
        values, expected, rtol=0, atol=1e-12 * np.abs(expected).max()
    )


@pytest.mark.parametrize("form", ["primal", "dual"])
@pytest.mark.parametrize("constraints", ["hard", "soft"])
def test_one_target_after_another(form, constraints):
    result = run(constraints=constraints)
    options = {"solver": wh.Exact(form=form), "damping": 1e-6}
    session = Session(result, wh.Influence(result.objective, **options))
    for of in ("u", "u_x", "pde"):
        for place in PLACES:
            quantity = session.quantity(place, of)
            expected = matrix(result, quantity, **options)
            row = session.influence_at(place, of)
            assert row.dims == ("point",)
            assert_equal(row.values, expected.values[0])
            assert row.attrs.keys() == expected.attrs.keys()
            assert row["term"].values.tolist() == expected["term"].values.tolist()


def test_what_does_not_fit_is_made_anew(soft):
    size = soft.objective.parameters.size
    budget = 8 * size * (soft.objective.n_points - 1)
    options = {"solver": wh.Exact(form="primal"), "damping": 1e-6}
    influence = wh.Influence(soft.objective, memory_budget=budget, **options)
    row = Session(soft, influence).influence_at(PLACES[0])
    assert_equal(row.values, matrix(soft, wh.Output(PLACES[:1], "u"), **options)[0])


def test_a_network_that_changes_is_followed():
    result = run()
    options = {"solver": wh.Exact(form="primal"), "damping": 1e-6}
    session = Session(result, wh.Influence(result.objective, **options))
    before = session.influence_at(PLACES[0])
    theta = result.objective.parameters.vector()
    result.objective.parameters.assign(theta * 1.01)
    after = session.influence_at(PLACES[0])
    expected = matrix(result, wh.Output(PLACES[:1]), **options)
    assert_equal(after.values, expected.values[0])
    assert after.attrs["loss"] == expected.attrs["loss"] != before.attrs["loss"]


def test_one_point_on_a_field(soft):
    session = Session(soft)
    field = session.influence_of("initial_u", 4, "u_x", PLACES)
    whole = matrix(soft, session.quantity(PLACES, "u_x"))
    column = whole.sel(term="initial_u").isel(point=4)
    assert int(column["index"]) == 4
    # The one is solved for at the point, the other at the targets.
    scale = np.abs(whole.values).max()
    np.testing.assert_allclose(field.values, column.values, rtol=0, atol=1e-7 * scale)
    everywhere = session.influence_of("pde", 0, n=400)
    assert 300 < everywhere.sizes["target"] < 500
    inside = np.stack([everywhere.target_x, everywhere.target_t], axis=1)
    assert bool(soft.problem.domain.contains(torch.from_numpy(inside)).all())


def test_a_region(soft):
    session = Session(soft)
    members = {"pde": [3, 5, 8], "dirichlet_u": [0, 1]}
    region = session.region(members, PLACES[1])
    quantity = session.quantity(PLACES[1])
    influence = wh.Influence(soft.objective)
    exact = wh.group_influence(influence, quantity, {"all": members})
    row = influence.attribute(quantity).isel(target=0)
    inside = np.zeros(row.sizes["point"], dtype=bool)
    for term, places in members.items():
        inside |= (row["term"].values == term) & np.isin(row["index"].values, places)
    assert region.size == inside.sum() == 5
    assert region.exact == pytest.approx(float(exact.values[0, 0]), rel=1e-9)
    first_order = float(row.values[inside].sum())
    assert region.first_order == pytest.approx(first_order, rel=1e-9)
    sizes = np.abs(row.values)
    assert region.share == pytest.approx(sizes[inside].sum() / sizes.sum(), rel=1e-9)


def test_the_prediction_is_what_retraining_finds():
    result = run(points=80, steps=60)
    influence = wh.Influence(result.objective, damping=1e-4)
    session = Session(result, influence)
    members = [3, 4, 5]
    damping = float(session.influence_at(PLACES[0]).attrs["damping"])
    measured = session.retrained_without(
        members, PLACES[0], anchor=damping, progress=False
    )
    predicted = session.region(members, PLACES[0]).exact
    assert measured == pytest.approx(predicted, rel=0.2)


def test_a_run_on_disk(tmp_path):
    result = run(out=tmp_path / "run")
    session = Session.of_run(tmp_path / "run", small("burgers"))
    again = session.influence_at(PLACES[0])
    assert_equal(again.values, Session(result).influence_at(PLACES[0]).values)


def test_what_cannot_be_asked(soft):
    session = Session(soft)
    with pytest.raises(ValueError, match="pde_loss"):
        session.influence_at(PLACES[0], "pde_loss")
    with pytest.raises(
        ValueError, match="'x' does not depend on the network: name an output"
    ):
        session.influence_at(PLACES[0], "x")  # fmt: skip
    with pytest.raises(ValueError, match="lie outside"):
        session.influence_at([7.0, 0.5])
    with pytest.raises(ValueError, match="one answer at a time, got 3"):
        session.influence_at(PLACES)
    with pytest.raises(ValueError, match="one answer at a time, got 3"):
        session.region({"pde": [1]}, PLACES)
    with pytest.raises(ValueError, match="that of another objective"):
        Session(soft, wh.Influence(run().objective))
