"""``whence influence RUN`` of one's own problem: any quantity, place, points and method."""

import functools

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import whence as wh
from whence import cli, pinn
from whence.components import split_components

pytestmark = pytest.mark.filterwarnings(
    "ignore::whence.attribution.quality.FarFromMinimum"
)

PROBLEM = """
import torch
import whence as wh
from whence import pinn

places = torch.linspace(0.1, 0.9, 9, dtype=torch.float64)
line = torch.stack([places, 0.2 * places], dim=1)


def pair(x, u, v, u_xx, u_yy, v_x, v_y):
    return u_xx + u_yy - x, v_x + v_y - u


problem = pinn.Problem(
    name="own",
    domain=pinn.Rectangle(("x", "y"), (0, 0), (4, 1))
    - pinn.Disk(("x", "y"), (1, 0.5), 0.25, name="hole"),
    outputs=("u", "v"),
    equations={"pde": pair},
    conditions=[
        pinn.Dirichlet(u=0.0, on=("y", "hole"), name="wall"),
        pinn.Dirichlet(v=0.0, on="x_min", name="inlet"),
    ],
)
FUNCTIONALS = {
    "mean_u": lambda field: field("u", line).mean(),
    "largest": wh.Functional(lambda field: field("v", line).max(), name="largest v"),
}
"""

TINY = ["--points", "pde=30", "wall=12", "inlet=5", "--layers", "2", "6", "2"]
TINY += ["--schedule", "gauss_newton:5", "--resampler", "none", "--quiet"]


@pytest.fixture(name="run", scope="module")
def _run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("own")
    (folder / "own.py").write_text(PROBLEM)
    out = folder / "run"
    assert cli.main(["train", str(folder / "own.py"), "--out", str(out), *TINY]) == 0
    return out


@pytest.fixture(name="objective", scope="module")
def _objective(run):
    return pinn.load_run(run).objective


@pytest.fixture(autouse=True)
def _without_figures(monkeypatch):
    """Most tests are of numbers: drawing takes a second each."""
    monkeypatch.setattr("whence.plots.save", lambda figure, path: (path, path))


def copy_of(run, folder):
    """Copy a run without figures and locks of its own."""
    folder.mkdir()
    for file in run.iterdir():
        if file.is_file():
            (folder / file.name).write_bytes(file.read_bytes())
    return folder


def asked(run, *arguments):
    assert cli.main(["influence", str(run), *map(str, arguments)]) == 0


def attributed(run, *arguments, tmp_path):
    out = tmp_path / "found.nc"
    asked(run, *arguments, "--out", out, "--overwrite")
    with xr.open_dataarray(out) as found:
        return found.load()


@pytest.fixture(name="found")
def _found(run, tmp_path):
    return functools.partial(attributed, run, tmp_path=tmp_path)


def test_several_answers_of_any_kind_in_one_call(found, objective):
    names = ["u", "v_x", "wall", "conditions", "total", "mean_u", "largest", "loss"]
    table = found("--of", *names, "--at", 0.5, 0.25)
    place = [[0.5, 0.25]]
    line = np.linspace(0.1, 0.9, 9)
    points = np.stack([line, 0.2 * line], axis=1)
    quantities = [
        wh.Output(place, "u"),
        wh.Derivative(place, "v_x"),
        wh.TermLoss("wall", "conditions", "total"),
        wh.Functional(lambda field: field("u", points).mean()),
        wh.Functional(lambda field: field("v", points).max()),
        wh.Loss(reduce="mean"),
    ]
    expected = wh.Influence(objective).attribute(quantities)
    np.testing.assert_allclose(table, expected, rtol=1e-6, atol=1e-12)
    assert table["quantity"].values.tolist() == [
        "u", "v_x", "loss wall", "loss conditions", "total loss", "mean_u", "largest v",
        "mean of losses",
    ]  # fmt: skip


METHODS = {
    "influence": wh.Influence,
    "grad_dot": wh.GradDot,
    "grad_cos": wh.GradCos,
    "empirical": wh.EmpiricalInfluence,
}


@pytest.mark.parametrize("method", METHODS)
def test_the_points_of_some_terms_on_places_of_a_file(
    found, objective, method, tmp_path
):
    points = np.array([[0.1, 0.2], [3.0, 0.9], [2.0, 0.5]])
    np.savez(tmp_path / "places.npz", y=points[:, 1], x=points[:, 0])
    table = found(
        "--of", "u", "v", "--at", tmp_path / "places.npz", "--from", "conditions",
        "--method", method,
    )  # fmt: skip
    quantities = [wh.Output(points, "u"), wh.Output(points, "v")]
    expected = METHODS[method](objective).attribute(quantities)
    is_condition = expected["term"].values != "pde"
    np.testing.assert_allclose(
        table, expected.values[:, is_condition], rtol=1e-5, atol=1e-10
    )
    assert table["target_y"].values.tolist() == [0.2, 0.9, 0.5] * 2
    assert set(table["term"].values) == {"wall", "inlet"}


def test_places_of_a_table(found, tmp_path):
    frame = pd.DataFrame({"id": [1, 2], "y": [0.2, 0.9], "x": [0.1, 3.0]})
    frame.to_csv(tmp_path / "places.csv", index=False)
    table = found("--at", tmp_path / "places.csv")
    assert table["target_x"].values.tolist() == [0.1, 3.0]


def test_a_region_is_a_grid_of_cubes_without_the_hole(found):
    table = found("--region", 0, 4, 0, 1, "--targets", 100)
    x, y = table["target_x"].values, table["target_y"].values
    # 20 × 5 cells of 0.2, whose middles are in the hole or not.
    assert sorted(set(y.round(6))) == [0.1, 0.3, 0.5, 0.7, 0.9]
    assert np.allclose(np.unique(np.diff(np.unique(x.round(6)))), 0.2)
    outside = (x - 1) ** 2 + (y - 0.5) ** 2 > 0.25**2
    assert outside.all()
    assert 90 <= len(x) < 100
    whole = found("--region", "domain", "--targets", 100)
    np.testing.assert_array_equal(whole, table)


def test_a_region_may_be_a_part_of_the_boundary(found):
    table = found("--region", "hole", "--targets", 30)
    x, y = table["target_x"].values, table["target_y"].values
    assert len(x) == 30
    np.testing.assert_allclose((x - 1) ** 2 + (y - 0.5) ** 2, 0.25**2)


def test_components_on_either_side(found, objective):
    split = split_components(objective)
    table = found("--of", "pde_1", "pde", "--from", "pde_2", "inlet")
    expected = wh.Influence(split).attribute(wh.TermLoss("pde_1", "pde"))
    chosen = np.isin(expected["term"].values, ["pde_2", "inlet"])
    np.testing.assert_allclose(table, expected.values[:, chosen], rtol=1e-6, atol=1e-14)


def test_the_summary_is_the_term_matrix(run, objective, tmp_path, capsys):
    out = tmp_path / "terms.nc"
    asked(run, "--summary", "--of", "equations", "total", "mean_u", "--out", out)
    with xr.open_dataset(out) as found:
        expected = wh.term_matrix(
            wh.Influence(objective), [wh.TermLoss("equations", "total")]
        )
        first = found.isel(quantity=slice(0, 2))
        np.testing.assert_allclose(first.influence, expected.influence, rtol=1e-6)
        np.testing.assert_allclose(first.share, expected.share, rtol=1e-6)
        assert found["quantity"].values.tolist()[2] == "mean_u"
    printed = capsys.readouterr().out
    assert "share of" in printed
    assert "inlet" in printed

    asked(run, "--summary", "--targets", "20")
    with xr.open_dataset(run / "term_influence.nc") as found:
        rows = ["loss pde", "loss wall", "loss inlet", "u", "v"]
        assert found["quantity"].values.tolist() == rows
    assert cli.main(["check", str(run)]) == 0


def test_a_damaged_summary_is_noticed(run, tmp_path, capsys):
    copied = copy_of(run, tmp_path / "run")
    asked(copied, "--summary", "--of", "total")
    file = copied / "term_influence.nc"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    assert cli.main(["check", str(copied)]) != 0
    assert "is damaged" in capsys.readouterr().out


@pytest.mark.parametrize("words", [["wall:3"], ["wall", "near"]])
def test_one_point_on_a_field(run, objective, words, capsys):
    location = objective.locations("wall")[3]
    if words[1:]:
        near = (location + 1e-4).tolist()
        words = ["wall", *map(str, near)]
    asked(run, "--point", *words, "--of", "u", "v", "--targets", 60)
    with xr.open_dataarray(run / "point_influence.nc") as found:
        grid = np.stack([found["target_x"].values, found["target_y"].values], axis=1)
        half = len(grid) // 2
        quantities = [wh.Output(grid[:half], name) for name in ("u", "v")]
        chosen = wh.TrainingPoints({"wall": [3]})
        expected = wh.Influence(objective).attribute(quantities, chosen)
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-12)
        assert found["index"].values.tolist() == [3]
    assert "The point of wall at" in capsys.readouterr().out


def test_points_left_out_are_trained_without(run, objective, tmp_path):
    out = tmp_path / "found.nc"
    asked(run, "--of", "mean_u", "--leave-out", 3, "--out", out)
    with xr.open_dataarray(tmp_path / "found_leave_one_out.nc") as true:
        assert true.sizes == {"target": 1, "point": 3}
        members = {}
        for term, index in zip(true["term"].values, true["index"].values, strict=True):
            members.setdefault(str(term), []).append(int(index))
        functional = wh.Functional(
            lambda field: field("u", np.stack([LINE, 0.2 * LINE], axis=1)).mean()
        )
        expected = wh.leave_one_out(objective, functional, members)
        np.testing.assert_allclose(true, expected, rtol=1e-6, atol=1e-12)


LINE = np.linspace(0.1, 0.9, 9)


def test_plot_draws_what_influence_left(run, capsys, monkeypatch):
    drawn = {}
    monkeypatch.setattr(
        "whence.plots.save",
        lambda figure, path: drawn.update({path.name: figure}) or (path, path),
    )
    asked(run, "--of", "u", "v", "mean_u", "--region", 2, 3, 0, 1, "--targets", 20)
    before = set(drawn)
    smoothed = "influence_mean_u_smoothed"  # of one answer
    assert before == {"influence_u", "influence_v", "influence_mean_u", smoothed}
    drawn.clear()
    assert cli.main(["plot", str(run)]) == 0
    assert before <= set(drawn)
    titles = [axes.get_title() for axes in drawn["influence_v"].axes]
    assert titles[0].startswith("pde: 30 points")
    assert "Influence on v at 16 targets" in capsys.readouterr().out


def test_runs_are_compared_on_the_same_answers(run, tmp_path, capsys, monkeypatch):
    drawn = []
    monkeypatch.setattr(
        "whence.plots.save", lambda figure, path: drawn.append(figure) or (path, path)
    )
    other = tmp_path / "other"
    source = str(run.parent / "own.py")
    more = ["train", source, "--out", str(other), *TINY, "--seed", "1"]
    assert cli.main(more) == 0
    for folder in (run, other):
        asked(folder, "--of", "u", "--at", 0.5, 0.25)
    drawn.clear()
    assert cli.main(["plot", str(run), "--compare", str(other)]) == 0
    assert cli.main(["plot", str(run), "--compare", str(other), "--terms", "wall"]) == 0
    three, wall = drawn
    titles = [axes.get_title() for axes in three.axes]
    assert titles[0].startswith("run, pde: 30 points")
    assert titles[1].startswith("other, pde: 30 points")
    assert len(wall.axes) == 3

    asked(other, "--of", "u", "--at", 0.5, 0.3)
    assert cli.main(["plot", str(run), "--compare", str(other)]) == cli.EXIT_ERROR
    assert "explain different answers" in capsys.readouterr().err
    (other / "influence.nc").unlink()
    assert cli.main(["plot", str(run), "--compare", str(other)]) == cli.EXIT_ERROR
    assert "whence influence" in capsys.readouterr().err
    assert cli.main(["plot", str(run), "--terms", "wall"]) == cli.EXIT_ERROR
    assert "--terms does nothing without --compare" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--of mena_u", "did you mean 'mean_u'"),
        ("--of walll", "did you mean 'wall'"),
        ("--of pde_3", "did you mean 'pde'"),
        ("--of x", "--of x is a coordinate"),
        (
            "--of mean_u --at 0.5 0.5",
            "--at does nothing with --of mean_u, which has no place",
        ),
        (
            "--of total wall --region domain",
            "--region does nothing with --of total wall",
        ),
        ("--at 0.5 0.5 --region domain", "--at and --region both say where"),
        ("--at no.csv", "there is no file no.csv"),
        ("--at 0.5 high", "--at takes numbers, got 'high'"),
        ("--at 0.5 0.5 0.5", "--at takes 2 numbers (x, y), got 3"),
        ("--region 5 6 0 1", "--region has no points of the domain"),
        (
            "--region 0.9 1.1 0.4 0.6 --targets 4",
            "--region has no points of the domain",
        ),
        ("--region 1 0 0 1", "the lowest and then the highest"),
        ("--region 0 1 0", "--region takes 4 numbers (x_min x_max y_min y_max)"),
        ("--region hol", "did you mean 'hole'"),
        ("--targets 5", "add --region"),
        ("--region domain --targets 0", "--targets must be a positive integer"),
        ("--from wal", "did you mean 'wall'"),
        ("--point wall:99", "wall has the points 0 … 11"),
        ("--point wal:0", "did you mean 'wall'"),
        ("--point wall 0.5", "TERM and 2 numbers (x, y)"),
        ("--point wall:0 --of mean_u", "mean_u has no place"),
        ("--point wall:0 --at 0.5 0.5", "--at does nothing with --point"),
        ("--summary --from wall", "--from does nothing with --summary"),
        ("--leave-out 0", "--leave-out must be a positive integer"),
        ("--leave-out 2 --effect add", "--leave-out trains without points"),
        ("--sample 3", "--sample is for a Python file"),
        (
            "--method tracin",
            "--method tracin needs checkpoints, which a run does not keep",
        ),
        (
            "--region domain --memory-budget 1e-6",
            "need 0.0 GiB: ask for fewer by --targets",
        ),
    ],
)
def test_mistakes_are_one_line_before_any_work(
    run, arguments, message, capsys, monkeypatch
):
    monkeypatch.setattr(wh.Influence, "attribute", None)
    assert cli.main(["influence", str(run), *arguments.split()]) == cli.EXIT_ERROR
    error = capsys.readouterr().err
    assert error.startswith("whence: error: ")
    assert message in error
    assert error.count("\n") == 1


def test_functionals_that_are_none(run, tmp_path, capsys):
    copied = copy_of(run, tmp_path / "run")
    text = (copied / "problem.py").read_text()
    for wrong, message in (
        ("FUNCTIONALS = {'mean_u': 3}", "a Functional takes a function"),
        ("FUNCTIONALS = [3]", "FUNCTIONALS in"),
    ):
        (copied / "problem.py").write_text(f"{text}\n{wrong}\n")
        code = cli.main(["influence", str(copied), "--of", "mean_u"])
        assert code == cli.EXIT_ERROR
        assert message in capsys.readouterr().err


def test_the_zoo_lists_functionals(capsys):
    from whence.catalogue import PROBLEMS
    from whence.pinn.training.problem_file import ProblemFile

    source = ProblemFile("navier_stokes", vars(PROBLEMS["navier_stokes"]))
    assert list(source.functionals) == ["drag", "lift", "pressure_drop"]
    assert ProblemFile("wave", vars(PROBLEMS["wave"])).functionals == {}
    assert cli.main(["problems", "navier_stokes"]) == 0
    assert "functionals  drag, lift, pressure_drop" in capsys.readouterr().out
