"""A finished attribution is shown as it is: its rows, at the places of its targets."""

import json
from urllib.parse import urlencode

import numpy as np
import pytest
from asking import ask, asked
from explorers import ode
from sample_models import influence_of

import whence as wh
from whence import pinn
from whence._netcdf import write_netcdf
from whence.attribution.result import Attribution
from whence.cli.explore import attribution_at
from whence.explore.server import Explorer
from whence.explore.stored import StoredAnswers
from whence.explore.stored_questions import StoredQuestions

PLACES = [[0.5, 0.25], [-0.3, 0.8], [0.0, 0.5]]
pytestmark = pytest.mark.filterwarnings(
    "ignore::whence.attribution.quality.FarFromMinimum"
)


@pytest.fixture(scope="module")
def influence(result):
    return wh.Influence(result.objective)


@pytest.fixture(scope="module")
def table(influence):
    return influence.attribute(wh.Output(PLACES, "u"))


@pytest.fixture(scope="module")
def stored(table):
    return StoredAnswers(table, "mine")


def test_rows_are_those_of_the_attribution(stored, table):
    (answer,) = stored.run()["answers"]
    for row, place in zip(table.values, PLACES, strict=True):
        assert np.array_equal(stored.influence_at(answer, place), row)
    # A little beside a target is that target.
    assert np.array_equal(stored.influence_at(answer, [0.45, 0.28]), table.values[0])
    for index in (0, 7):
        column = table.isel(point=(table.term == "initial_u").values).isel(point=index)
        values = stored.influence_of("initial_u", index, answer)
        assert np.array_equal(values, column.values)
    np.testing.assert_allclose(
        stored.totals(*stored.rows), np.abs(table.values).sum(axis=1)
    )


def test_points_and_targets(stored, table):
    x, t, term, index, loss, entered, residual = stored.points()
    assert np.array_equal(x, table.x.values)
    assert np.array_equal(t, table.t.values)
    assert np.array_equal(index, table["index"].values)
    names = np.array(stored.run()["terms"])
    assert np.array_equal(names[term.astype(int)], table.term.values)
    assert np.isnan(loss).all()
    assert np.isnan(residual).all()
    assert (entered == -1).all()
    np.testing.assert_array_equal(stored.targets().T, PLACES)
    run = stored.run()
    assert (run["across"], run["up"]) == (1, 0)
    assert run["n_points"] == 250
    json.dumps(run, allow_nan=False)


def test_the_nearest_is_by_parts_of_each_range():
    coords = {
        "x": ("point", [0.0, 1000.0]), "y": ("point", [0.0, 1.0]),
        "term": ("point", ["a", "a"]), "index": ("point", [0, 1]),
        "target_x": ("target", [100.0, 0.0]), "target_y": ("target", [0.0, 0.5]),
    }  # fmt: skip
    rows = Attribution([[1.0, 2.0], [3.0, 4.0]], coords, ("target", "point"))
    # 0.06 of the range of x and 0.1 of that of y away: in plain numbers it is the other.
    assert StoredAnswers(rows, "a").influence_at("answer", [40.0, 0.1])[0] == 1
    assert StoredAnswers(rows, "a").run()["across"] == 0


def test_a_region(stored, table):
    (answer,) = stored.run()["answers"]
    members = {"pde": [3, 5], "dirichlet_u": [0]}
    region = stored.region(members, answer, PLACES[1])
    row = table.isel(target=1)
    inside = np.zeros(250, dtype=bool)
    for term, indices in members.items():
        inside |= (row.term.values == term) & np.isin(row["index"].values, indices)
    sizes = np.abs(row.values)
    assert region["size"] == 3
    assert region["exact"] is None
    assert region["first_order"] == pytest.approx(row.values[inside].sum())
    assert region["share"] == pytest.approx(sizes[inside].sum() / sizes.sum())
    with pytest.raises(ValueError, match="pdf"):
        stored.region({"pdf": [1]}, answer, PLACES[0])


def test_how_far_to_trust_it(stored, table):
    said = stored.answer(stored.run()["answers"][0], PLACES[0])
    assert said["value"] is None
    assert "Solver exact" in said["quality"]
    bare = table.copy()
    bare.attrs = {}
    assert StoredAnswers(bare, "bare").answer("u", PLACES[0])["quality"] == ""


def test_one_target_that_was_selected(table):
    one = StoredAnswers(table.isel(target=1), "one")
    (answer,) = one.run()["answers"]
    np.testing.assert_array_equal(one.targets(), np.transpose([PLACES[1]]))
    assert np.array_equal(one.influence_at(answer, [0.9, 0.9]), table.values[1])


def test_points_of_one_term(table):
    some = StoredAnswers(table.isel(point=table.term.values == "initial_u"), "some")
    assert some.run()["terms"] == ["initial_u"]
    assert some.run()["n_points"] == 20


def of_two(influence, result, second=PLACES):
    """Return an attribution of two quantities as one table."""
    tables = [
        influence.attribute(quantity)
        for quantity in (wh.Output(PLACES, "u"), wh.Derivative(second, "u_x"))
    ]
    values = np.concatenate([one.values for one in tables])
    coords = {
        name: ("point", tables[0][name].values) for name in ("x", "t", "term", "index")
    }
    for name in ("target_x", "target_t"):
        coords[name] = ("target", np.concatenate([one[name].values for one in tables]))
    quantity = ["u"] * len(PLACES) + ["u_x"] * len(second)
    coords["quantity"] = ("target", quantity)
    return Attribution(values, coords, ("target", "point"))


def test_several_quantities(influence, result):
    table = of_two(influence, result)
    stored = StoredAnswers(table, "two")
    assert stored.run()["answers"] == ["u", "u_x"]
    assert stored.targets().shape == (2, 3)
    for k, name in enumerate(("u", "u_x")):
        for row, place in enumerate(PLACES):
            values = stored.influence_at(name, place)
            assert np.array_equal(values, table.values[3 * k + row])
    column = stored.influence_of("pde", 4, "u_x")
    assert np.array_equal(column, table.values[3:, 4])
    assert np.array_equal(stored.totals("u_x"), np.abs(table.values[3:]).sum(axis=1))


@pytest.mark.parametrize("second", [PLACES[:2], PLACES[::-1]])
def test_several_quantities_at_different_places(influence, result, second):
    with pytest.raises(ValueError, match="explained at different places: select one"):
        StoredAnswers(of_two(influence, result, second), "two")


def test_targets_without_places(influence):
    """The loss of a term is nowhere: each is an answer of its own."""
    table = influence.attribute(wh.TermLoss("pde", "initial_u"))
    stored = StoredAnswers(table, "losses")
    answers = stored.run()["answers"]
    assert len(answers) == 2
    assert "pde" in answers[0]
    assert stored.targets().shape == (2, 1)
    for row, answer in zip(table.values, answers, strict=True):
        assert np.array_equal(stored.influence_at(answer, [0.1, 0.9]), row)


def test_samples_have_no_places():
    influence, test = influence_of("values")
    table = influence.attribute(wh.Loss(test))
    with pytest.raises(ValueError, match=r"no coordinates of its points.*MODEL.py"):
        StoredAnswers(table, "samples")
    with pytest.raises(ValueError, match="no coordinates of its points"):
        table.explore()


@pytest.mark.parametrize(
    "dims", [("target", "sample"), ("target",), ("target", "point", "k")]
)
def test_wrong_dimensions(dims):
    table = Attribution(np.zeros((2,) * len(dims)), dims=dims)
    with pytest.raises(ValueError, match=r"has the dimensions \(target, point\), got"):
        StoredAnswers(table, "wrong")


def test_files(influence, table, tmp_path):
    folder, file = tmp_path / "influence.zarr", tmp_path / "influence.nc"
    influence.attribute(wh.Output(PLACES, "u"), out=folder)
    write_netcdf(table, file)
    limit = 1e-12 * np.abs(table.values).max()
    for path in (folder, file):
        found = attribution_at(path)
        np.testing.assert_allclose(found.values, table.values, rtol=0, atol=limit)
        stored = StoredAnswers(found, path.name)
        assert stored.run()["answers"] == ["u"]
        for row, place in zip(found.values, PLACES, strict=True):
            np.testing.assert_array_equal(stored.influence_at("u", place), row)
    # A run's folder is none.
    assert attribution_at(tmp_path) is None


def test_one_coordinate():
    result = pinn.train(
        ode(), pinn.MLP([1, 6, 1], seed=0), points=12,
        schedule=[pinn.GaussNewton(3)], progress=False,
    )  # fmt: skip
    table = wh.Influence(result.objective).attribute(wh.Output([[0.2], [0.7]]))
    stored = StoredAnswers(table, "line")
    run = stored.run()
    assert (run["across"], run["up"], run["coordinates"]) == (0, None, ["x"])
    assert np.array_equal(
        stored.influence_at(run["answers"][0], [0.9]), table.values[1]
    )


def test_by_the_server(stored, table):
    (answer,) = stored.run()["answers"]
    with Explorer(StoredQuestions(stored), port=0) as explorer:
        explorer.start()
        (run,) = json.loads(asked(explorer, "runs"))
        assert run == json.loads(json.dumps(stored.run()))
        assert ask(explorer, "")[0] == 200
        points = np.frombuffer(asked(explorer, "points"), "<f8").reshape(7, -1)
        np.testing.assert_array_equal(points, stored.points())
        targets = np.frombuffer(asked(explorer, "targets"), "<f8").reshape(2, -1)
        np.testing.assert_array_equal(targets.T, PLACES)
        total = np.frombuffer(asked(explorer, "field", of=answer), "<f8")
        np.testing.assert_array_equal(total, stored.totals(answer))

        body = asked(explorer, "influence", of=answer, at="-0.3,0.8", run=0)
        np.testing.assert_array_equal(np.frombuffer(body, "<f8"), table.values[1])
        body = asked(explorer, "point", term="pde", index=4, of=answer, axes="1,0")
        np.testing.assert_array_equal(np.frombuffer(body, "<f8"), table.values[:, 4])
        said = json.loads(asked(explorer, "answer", of=answer, at="-0.3,0.8"))
        assert said["value"] is None
        question = json.dumps(
            {"points": {"pde": [1, 2]}, "of": answer, "at": PLACES[0]}
        )
        status, reply = ask(explorer, "api/region", question)
        assert (status, json.loads(reply)["size"]) == (200, 2)


@pytest.mark.parametrize(
    ("question", "said"),
    [
        ({"name": "influence", "of": "v", "at": "0,0"}, "v"),
        ({"name": "influence", "of": "{of}", "at": "0"}, "2 coordinates"),
        ({"name": "influence", "of": "{of}", "at": "nan,0"}, "nan"),
        ({"name": "point", "of": "{of}", "term": "pde", "index": 999}, "no point 999"),
        ({"name": "point", "of": "{of}", "term": "pdf", "index": 1}, "'pdf'"),
    ],
)
def test_questions_without_an_answer(stored, question, said):
    (answer,) = stored.run()["answers"]
    asked_for = {k: str(v).format(of=answer) for k, v in question.items()}
    with Explorer(StoredQuestions(stored), port=0) as explorer:
        explorer.start()
        name = asked_for.pop("name")
        status, body = ask(explorer, f"api/{name}?{urlencode(asked_for)}")
        assert status == 400
        assert said in json.loads(body)["error"]
        # What needs the network is no question here.
        for name in ("retrain", "terms", "rounds", "history"):
            assert ask(explorer, f"api/{name}")[0] == 404
