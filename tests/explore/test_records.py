"""What a run's record says of its training, as the page gets it."""

import dataclasses
import json

import numpy as np
import pytest
from trainings import go

from whence import pinn
from whence.explore import Session, records
from whence.explore.answers import Answers


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run whose points were renewed, and whose spectra were taken."""
    return go(
        tmp_path_factory.mktemp("runs") / "run", observers=[pinn.Spectra(every=20)]
    )


def test_history_is_columns_of_numbers(run):
    columns = records.history(run)
    assert columns["iteration"] == [row["iteration"] for row in run.history]
    assert columns["loss"] == pytest.approx([row["loss"] for row in run.history])
    assert all(len(column) == len(columns["iteration"]) for column in columns.values())
    json.dumps(columns, allow_nan=False)


def test_words_and_what_is_no_number(run):
    class History(list):
        columns = ("iteration", "loss", "stage")

    class Run:
        history = History(
            [
                {"iteration": 0, "loss": float("nan"), "stage": "adam"},
                {"iteration": 1, "loss": float("inf"), "stage": "adam"},
                {"iteration": 2, "stage": "lbfgs"},
                {"iteration": 3, "loss": 0.5, "stage": "lbfgs"},
            ]
        )

    columns = records.history(Run())
    assert columns == {"iteration": [0, 1, 2, 3], "loss": [None, None, None, 0.5]}


@pytest.mark.parametrize("n", [999, 1000, 1002, 2501])
def test_long_histories_are_thinned_to_their_end(n):
    class History(list):
        columns = ("iteration",)

    class Run:
        history = History({"iteration": k} for k in range(n))

    iterations = records.history(Run())["iteration"]
    assert len(iterations) <= records.MAX_ROWS
    assert len(iterations) > records.MAX_ROWS / 3
    assert iterations[-1] == n - 1
    steps = set(np.diff(iterations))
    assert len(steps) == 1


def test_rounds_are_all_points_there_ever_were(run):
    x, t, term, entered, left = records.rounds(run)
    record = run.points
    assert len(x) == len(record["pde"])
    np.testing.assert_array_equal(np.stack([x, t], 1), record["pde"])
    np.testing.assert_array_equal(entered, record["pde:entered"])
    np.testing.assert_array_equal(left, record["pde:left"])
    assert (term == 0).all()
    # Some were renewed, and as many are there now as the objective has.
    assert entered.max() > 0
    assert (left < 0).sum() == run.objective.n_points


def test_when_the_points_of_now_came(run):
    points = Answers(Session(run)).points()
    x, t, _, entered, left = records.rounds(run)
    came = {
        (a, b): c for a, b, c, gone in zip(x, t, entered, left, strict=True) if gone < 0
    }
    expected = [came[tuple(place)] for place in points["coordinates"]]
    assert points["entered"].tolist() == expected
    assert set(expected) != {0}


def test_points_that_the_record_has_not():
    rows = np.array([[0.0, 1.0], [2.0, 3.0]])
    assert records.entered(rows, {}, "pde").tolist() == [-1, -1]
    record = {"pde": rows[1:], "pde:entered": np.array([7])}
    assert records.entered(rows, record, "pde").tolist() == [-1, 7]


def test_spectra(run):
    said = records.spectra(run)
    assert said["iteration"] == run.spectra["iteration"].tolist()
    assert np.shape(said["pde"])[0] == len(said["iteration"]) > 1
    json.dumps(said, allow_nan=False)


def test_findings_are_what_diagnose_left(run):
    nothing = {"text": "", "indicators": []}
    assert records.findings(run) == nothing
    (run.path / records.FINDINGS).write_text("Größe ∂u", encoding="utf-8")
    (run.path / records.INDICATORS).write_text('run,value\n"a,b",0.5\n')
    found = records.findings(run)
    assert found["text"] == "Größe ∂u"
    assert found["indicators"] == [["run", "value"], ["a,b", "0.5"]]
    in_memory = go(schedule=[pinn.GaussNewton(1)], resample=None)
    assert records.findings(in_memory) == nothing
    assert records.spectra(in_memory) == {}


def test_summary(run):
    said = records.summary(run)
    assert set(said) <= set(records.SUMMARY)
    assert said["iterations"] == run.summary["iterations"] == 60
    assert said["relative_l2"] == run.summary["relative_l2"]


def test_what_is_no_number_is_left_out():
    assert records.finite(float("nan")) is None
    assert records.finite("done") is None
    diverged = dataclasses.replace(
        go(schedule=[pinn.GaussNewton(1)], resample=None),
        summary={"relative_l2": float("inf"), "loss": None, "iterations": 3},
    )
    assert records.summary(diverged) == {"iterations": 3}
