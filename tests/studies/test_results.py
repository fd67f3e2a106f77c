"""The results of a study, read from its folder."""

import math

import numpy as np
import pandas as pd
import pytest
from trained_study import METHODS, PROBLEMS, SEEDS, run_of, write_run, write_study

from whence import pinn
from whence.studies.folder import StudyFolder
from whence.studies.methods import runs_by_method
from whence.studies.results import check_column, read_histories, read_results


def test_a_row_for_each_finished_run_and_the_others_counted(study):
    results = read_results(study)
    table = results.table
    keys = [tuple(row) for row in table[["problem", "method", "seed"]].values]
    expected = [(p, m, s) for p in PROBLEMS for m in METHODS for s in SEEDS]
    assert keys == expected

    row = table.iloc[4]
    run = pinn.RunFolder(study / "runs" / row["name"])
    summary = run.summary()
    assert row["error"] == summary["relative_l2"]
    assert row["validation_loss"] == summary["validation_loss"]
    assert row["seconds"] == summary["seconds"]
    assert (row["iterations"], row["points"]) == (80, summary["points"])
    kept = run.history().at_iteration(summary["kept_iteration"])
    assert row["test_loss"] == kept["test_loss"]

    assert results.unfinished == ("wave-random-3",)
    assert results.failed == {"wave-residual-3": "ValueError: no memory"}
    assert results.describe_missing() == (
        "2 of 14 runs are left out: 1 unfinished (wave-random-3); 1 failed (wave-residual-3)."
    )


def test_histories_are_those_of_the_finished_runs(study):
    table = read_histories(study)
    assert list(table.columns) == [
        "problem", "method", "seed", "iteration", "seconds", "error", "test_loss",
    ]  # fmt: skip
    assert len(table.groupby(["problem", "method", "seed"])) == 12
    of_run = table.query("problem == 'wave' and method == 'random' and seed == 2")
    history = pinn.RunFolder(study / "runs" / "wave-random-2").history()
    np.testing.assert_array_equal(of_run["iteration"], history["iteration"])
    np.testing.assert_array_equal(of_run["error"], history["relative_l2"])
    np.testing.assert_array_equal(of_run["test_loss"], history["test_loss"])


SUMMARY = {"seconds": 1.0, "iterations": 9, "points": 9, "kept_iteration": 0}


def test_a_run_that_says_it_failed_is_no_result_and_one_that_recovered_is(tmp_path):
    labels = [{"problem": "wave", "method": "a", "seed": seed} for seed in range(4)]
    study = write_study(tmp_path, labels)
    names = [run_of(own_labels).name for own_labels in labels]
    write_run(tmp_path, names[0], SUMMARY | {"failure": "loss of pde is nan"})
    write_run(tmp_path, names[1], SUMMARY)
    write_run(tmp_path, names[2], SUMMARY | {"stopped_by": "interrupted"})
    # The second failed at first, and finished when it was started again.
    study.fail(run_of(labels[1]), "killed")

    results = read_results(tmp_path)
    assert list(results.table["name"]) == [names[1]]
    assert results.failed == {names[0]: "loss of pde is nan"}
    assert results.unfinished == (names[2], names[3])
    # Nothing was measured without a reference and without test points.
    assert math.isnan(results.table["error"].iloc[0])
    assert math.isnan(results.table["test_loss"].iloc[0])


@pytest.mark.parametrize(
    ("labels", "methods"),
    [
        ([{"method": "a"}, {"method": "b"}], ["a", "b"]),
        # An axis that goes with the method is none of its own.
        ([{"method": "a", "n": 1}, {"method": "b", "n": 2}], ["a", "b"]),
        ([{"method": "a", "n": 1}, {"method": "a", "n": 2}], ["a, n=1", "a, n=2"]),
        ([{"score": "x", "k": 1}, {"score": "x", "k": 2}], ["x, k=1", "x, k=2"]),
        ([{}], ["all"]),
    ],
)
def test_the_method_of_a_run_tells_it_apart(tmp_path, labels, methods):
    labels = [{"problem": "wave", "seed": 0, **each} for each in labels]
    write_study(tmp_path, labels)
    assert [own.method for own in runs_by_method(StudyFolder(tmp_path))] == methods
    write_run(tmp_path, run_of(labels[0]).name, SUMMARY)
    row = read_results(tmp_path).table.iloc[0]
    assert row["method"] == methods[0]
    for name in set(labels[0]) - {"problem", "method", "seed"}:
        assert row[f"label_{name}"] == labels[0][name]


def test_what_is_no_study_or_has_no_results_is_said_by_name(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"holds no study: study\.json is"):
        read_results(tmp_path)

    labels = {"problem": "wave", "method": "a", "seed": 0}
    write_study(tmp_path, [labels])
    with pytest.raises(
        ValueError, match=r"no run of .* has finished: 1 are unfinished"
    ):
        read_results(tmp_path)

    # Alike but for the type of a label.
    write_study(tmp_path / "two", [labels | {"x": 1}, labels | {"x": "x=1"}])
    with pytest.raises(ValueError, match="have the same labels"):
        runs_by_method(StudyFolder(tmp_path / "two"))
    write_study(tmp_path / "none", [{"problem": "wave", "method": "a"}])
    with pytest.raises(ValueError, match="must have the label 'seed'"):
        runs_by_method(StudyFolder(tmp_path / "none"))


def test_a_damaged_study_is_named(tmp_path):
    (tmp_path / "study.json").write_text("{")
    with pytest.raises(ValueError, match=r"study\.json is damaged, not valid JSON"):
        read_results(tmp_path)


def test_an_unknown_or_empty_column_names_another():
    table = pd.DataFrame({"error": [math.nan], "test_loss": [math.nan]})
    table["validation_loss"] = table["seconds"] = 1.0
    table["iterations"] = table["points"] = 1
    with pytest.raises(ValueError, match="did you mean 'error'"):
        check_column(table, "eror")
    with pytest.raises(ValueError, match=r"no run has a number in 'error'.*'seconds'"):
        check_column(table, "error")
