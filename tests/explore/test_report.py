"""A report has the numbers of the attribution in it, and nothing in it leaves it."""

import base64
import dataclasses
import json
import re

import numpy as np
import pytest
from explorers import line_run, small_run, space_run
from recorded import numbers, read

import whence as wh
from whence import cli, pinn
from whence.explore import Session
from whence.explore.answers import Answers
from whence.explore.report import report_of_runs


def answers(result, **options):
    return Answers(Session(result), **options)


@pytest.fixture(scope="module")
def page(result):
    return report_of_runs(answers(result), targets=4, of=("u", "u_x"))


def test_influences_are_those_of_the_attribution(page, result):
    (run,) = read(page)
    places = numbers(run["targets"]).T
    assert places.shape == (16, 2)
    influence = wh.Influence(result.objective)
    for name, quantity in (
        ("u", wh.Output(places, "u")),
        ("u_x", wh.Derivative(places, "u_x")),
    ):
        expected = influence.attribute(quantity).values
        strongest = np.abs(expected).max(axis=1, keepdims=True)
        off = np.abs(numbers(run["influence"][name]) - expected)
        assert (off <= 2.0**-15 * strongest).all()
        # They are rounded indeed, and the strongest is not.
        assert off.max() > 0
        value = np.asarray(result.solution(places, name))[:, 0]
        np.testing.assert_allclose(numbers(run["values"][name]), value, rtol=1e-9)


def test_places_are_on_the_grid(page):
    (run,) = read(page)
    assert run["target_grid"] == [4, 4]
    rows = numbers(run["target_rows"]).astype(int)
    assert rows.tolist() == list(range(16))
    x, t = numbers(run["targets"])
    np.testing.assert_allclose(x.reshape(4, 4)[:, 0], np.linspace(-1, 1, 4))
    np.testing.assert_allclose(t.reshape(4, 4)[0], np.linspace(0, 1, 4))


def test_fields_points_and_terms_are_those_of_the_server(page, result):
    (run,) = read(page)
    asked = answers(result)
    n_x, n_t = run["field_grid"]
    assert (n_x, n_t) == (101, 101)
    for name in run["run"]["fields"]:
        field = numbers(run["fields"][name]).reshape(n_x, n_t)
        # Time goes across, x up.
        np.testing.assert_allclose(field, asked.field(name), rtol=1e-6, atol=1e-6)
    points = asked.points()
    ours = numbers(run["points"])
    np.testing.assert_array_equal(ours[:2].T, points["coordinates"])
    np.testing.assert_array_equal(ours[4], points["loss"])
    np.testing.assert_array_equal(numbers(run["terms"]), asked.between_terms())
    assert run["history"]["loss"]


def test_only_what_a_file_can_answer_is_offered(page):
    (run,) = read(page)
    can = run["run"]["can"]
    assert "field" in can
    assert not {"any place", "exact", "retrain"} & set(can)
    assert run["run"]["answers"] == ["u", "u_x"]


def test_nothing_comes_from_elsewhere(page):
    assert "default-src 'none'" in page
    without = page.replace("http://www.w3.org/", "")
    assert not re.search(r"https?://", without)
    assert not re.search(r'(src|href)="(?!data:)', without)
    modules = json.loads(re.search(r'"importmap">(.*?)</script>', page)[1])["imports"]
    for name, address in modules.items():
        source = base64.b64decode(address.partition(",")[2]).decode()
        imported = re.findall(
            r'^import .*? from "(.*?)"', source, re.MULTILINE | re.DOTALL
        )
        assert set(imported) <= set(modules), name


def test_no_name_ends_the_script(result):
    hostile = "</script><script>document.title='taken'</script><!--"
    terms = [
        dataclasses.replace(term, name=hostile if name == "initial_u" else name)
        for name, term in result.objective.terms.items()
    ]
    objective = wh.Objective(result.network, terms, space=result.objective.space)
    renamed = dataclasses.replace(result, objective=objective)
    page = report_of_runs(answers(renamed), targets=3)
    assert hostile not in page
    (run,) = read(page)
    assert hostile in run["run"]["terms"]


def test_a_domain_that_is_no_box():
    problem = dataclasses.replace(
        pinn.zoo.load("poisson_disk"),
        architecture=lambda seed: pinn.MLP([2, 6, 1], seed=seed),
    )
    steps = [pinn.GaussNewton(3)]
    result = pinn.train(problem, points=50, schedule=steps, progress=False)
    (run,) = read(report_of_runs(answers(result), targets=7))
    places = numbers(run["targets"]).T
    assert (np.hypot(*places.T) <= 1 + 1e-12).all()
    rows = numbers(run["target_rows"]).astype(int)
    assert (rows < 0).sum() == 49 - len(places) > 0
    x, y = np.meshgrid(np.linspace(-1, 1, 7), np.linspace(-1, 1, 7), indexing="ij")
    grid = np.stack([x.ravel(), y.ravel()], axis=1)
    np.testing.assert_allclose(places[rows[rows >= 0]], grid[rows >= 0])
    field = numbers(run["fields"]["u"]).reshape(run["field_grid"])
    assert np.isnan(field[0, 0])
    assert np.isfinite(field[50, 50])


@pytest.mark.parametrize(
    ("make", "grid", "field_grid"),
    [(line_run, [5], [401]), (space_run, [5, 5, 5], [34, 34, 34])],
)
def test_other_numbers_of_coordinates(make, grid, field_grid):
    (run,) = read(report_of_runs(answers(make()), targets=5))
    assert run["target_grid"] == grid
    assert run["field_grid"] == field_grid
    assert run["fields"]["u"]["shape"] == [np.prod(field_grid)]


def test_two_runs(result):
    other = small_run(seed=3)
    first, second = read(report_of_runs(answers(result), answers(other), targets=3))
    places = numbers(second["targets"]).T
    expected = wh.Influence(other.objective).attribute(wh.Output(places, "u")).values
    off = np.abs(numbers(second["influence"]["u"]) - expected)
    assert (off <= 2.0**-15 * np.abs(expected).max(axis=1, keepdims=True)).all()
    assert first["values"]["u"] != second["values"]["u"]
    with pytest.raises(ValueError, match="need the same coordinates"):
        report_of_runs(answers(result), answers(line_run()))


def test_names_that_mean_nothing(result):
    with pytest.raises(ValueError, match="nonsense"):
        report_of_runs(answers(result), of=("u", "nonsense"))


def test_a_report_of_many_points_is_some_megabytes():
    result = pinn.train(
        pinn.zoo.load("burgers"), pinn.MLP([2, 8, 1], seed=0), points=2000,
        schedule=[pinn.GaussNewton(2)], progress=False,
    )  # fmt: skip
    page = report_of_runs(answers(result))
    size = len(page.encode())
    print(f"report of 2000 points: {size / 2**20:.2f} MB")
    assert 1 << 20 < size <= 8 << 20
    (run,) = read(page)
    assert min(run["target_grid"]) > 20


# --- the command ---


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "run"
    steps = ["--schedule", "gauss_newton:2", "--resampler", "none", "--quiet"]
    command = ["train", "burgers", *steps, "--points", "pde=50", "--out", str(path)]
    assert cli.main(command) == 0
    return path


def test_the_command(folder, capsys):
    assert cli.main(["report", str(folder), "--targets", "3"]) == 0
    file = folder / "report.html"
    assert f"report: {file}  (" in capsys.readouterr().out
    (run,) = read(file.read_text(encoding="utf-8"))
    assert run["run"]["name"] == "run"
    assert "retrain" not in run["run"]["can"]
    assert run["target_grid"] == [3, 3]


def test_the_command_on_two_runs(folder, tmp_path, capsys):
    out = tmp_path / "new" / "both.html"
    command = ["report", str(folder), str(folder), "--of", "u_x", "--targets", "3"]
    assert cli.main([*command, "--out", str(out)]) == 0
    assert [run["run"]["answers"] for run in read(out.read_text(encoding="utf-8"))] == [
        ["u_x"],
        ["u_x"],
    ]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--targets", "1"], "--targets must be at least 2, got 1"),
        (["--targets", "-3"], "--targets must be at least 2, got -3"),
        (["--of", "nonsense"], "nonsense"),
        (["--out", "page.pdf"], "--out names an HTML file, which ends in .html"),
    ],
)
def test_what_the_command_refuses(folder, options, said, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (folder / "report.html").unlink(missing_ok=True)
    assert cli.main(["report", str(folder), *options]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert "Traceback" not in error
    assert not (folder / "report.html").exists()
    assert not list(tmp_path.iterdir())


def test_the_command_takes_one_run_or_two(folder, tmp_path, capsys):
    assert cli.main(["report", *[str(folder)] * 3]) == 2
    assert "takes one run, or two to be compared, got 3" in capsys.readouterr().err
    assert cli.main(["report", str(tmp_path / "none")]) == 2
    assert "holds no whence run" in capsys.readouterr().err
    # A folder in the way of the file.
    (tmp_path / "a.html").mkdir()
    out = str(tmp_path / "a.html")
    assert cli.main(["report", str(folder), "--targets", "2", "--out", out]) == 2
    assert "a.html" in capsys.readouterr().err
