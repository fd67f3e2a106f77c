"""``whence table`` on a trained study."""

import shutil

import pandas as pd
import pytest

from whence import cli
from whence.studies.comparison import compare
from whence.studies.results import read_results
from whence.studies.tables import formatted


def test_the_table_is_printed(study, capsys):
    assert cli.main(["table", str(study)]) == 0
    printed = capsys.readouterr().out
    results = read_results(study)
    missing = results.describe_missing()
    assert printed == formatted(compare(results.table), "text", missing)
    assert "2 of 14 runs are left out" in printed
    assert "ratio to random" in printed


def test_options_choose_what_is_compared_and_how_it_is_written(study, tmp_path, capsys):
    out = tmp_path / "tables" / "loss.csv"
    command = ["table", str(study), "--value", "test_loss", "--statistic", "median"]
    options = ["--baseline", "residual", "--format", "csv", "--out", str(out)]
    assert cli.main([*command, *options]) == 0
    printed = capsys.readouterr().out
    assert f"table: {out}" in printed
    assert "2 of 14 runs are left out" in printed

    cells = pd.read_csv(out)
    expected = compare(read_results(study).table, "test_loss", "median", "residual")
    pd.testing.assert_frame_equal(cells, expected.cells, check_dtype=False)
    assert list(out.parent.iterdir()) == [out]


@pytest.mark.parametrize("form", ["markdown", "latex"])
def test_other_formats(study, form, capsys):
    assert cli.main(["table", str(study), "--format", form]) == 0
    printed = capsys.readouterr().out
    assert ("\\toprule" in printed) == (form == "latex")


def test_mistakes_are_one_line(study, tmp_path, capsys):
    def message(*arguments):
        assert cli.main(["table", *map(str, arguments)]) == 2
        (line,) = capsys.readouterr().err.strip().splitlines()
        return line

    assert "holds no study: study.json is missing" in message(tmp_path)
    assert "did you mean 'random'" in message(study, "--baseline", "radom")
    assert "did you mean 'seconds'" in message(study, "--value", "second")
    assert "is a folder" in message(study, "--out", tmp_path)

    empty = tmp_path / "empty"
    empty.mkdir()
    shutil.copy(study / "study.json", empty)
    assert "has finished: 14 are unfinished" in message(empty)
