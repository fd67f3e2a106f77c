"""Figures: what they show of real, small runs, and what they refuse."""

from __future__ import annotations

import dataclasses
import os

import numpy as np
import pytest
import torch
import xarray as xr
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

import whence as wh
from whence import pinn, plots
from whence.attribution.labels import SIGN

TARGET = torch.tensor([[0.1, 0.5], [-0.3, 0.2]], dtype=torch.float64)


@pytest.fixture(scope="module")
def burgers(tmp_path_factory):
    return pinn.train(
        pinn.zoo.load("burgers"),
        pinn.MLP([2, 12, 12, 1], seed=0),
        points=100,
        schedule=[pinn.Adam(20), pinn.GaussNewton(40)],
        resample=pinn.Resample(
            pinn.InfluenceScore(n_test=50), n=10, every=10, candidates=200
        ),
        validation=100,
        progress=False,
        out=tmp_path_factory.mktemp("plots") / "burgers",
    )


@pytest.fixture(scope="module")
def wave(tmp_path_factory):
    """Soft constraints, points that leave, one Adam stage much longer than the next."""
    problem = pinn.zoo.load("wave", constraints="soft")
    return pinn.train(
        problem,
        pinn.MLP([2, 10, 10, 1], seed=0),
        points={"pde": 60, "initial_u": 15, "initial_u_t": 15, "dirichlet_u": 15},
        schedule=[pinn.Adam(200), pinn.GaussNewton(5)],
        resample=pinn.Resample(
            pinn.ResidualScore(), n=10, every=50, candidates=100, update="replace"
        ),
        validation=50,
        progress=False,
        out=tmp_path_factory.mktemp("plots") / "wave",
    )


def holed(solution=None, names=("x", "y")):
    domain = pinn.Rectangle(names, (0, 0), (4, 1)) - pinn.Disk(names, (1, 0.5), 0.3)
    return pinn.Problem(
        domain=domain,
        outputs=("u", "v"),
        equations={"pde": lambda u_xx, v: (u_xx, v)},
        solution=solution,
        name="holed",
    )


def three_coordinates():
    domain = pinn.Rectangle(("x", "y"), (0, 0), (1, 1)) * pinn.Interval("t", 0, 1)
    return pinn.Problem(
        domain=domain, outputs=("u",), equations={"pde": lambda u_t: u_t}
    )


def drawn(figure: Figure) -> None:
    """Lay the figure out and draw it, which finds wrong scales and labels."""
    figure.canvas.draw()


def legend(figure: Figure, k: int = 0) -> list[str]:
    return [text.get_text() for text in figure.axes[k].get_legend().get_texts()]


def caption(figure: Figure) -> str:
    return figure.get_supxlabel().replace("\n", " ")


def influence(result, quantity, **options):
    return wh.Influence(result.objective).attribute(quantity, **options)


# solution


def test_solution_shows_reference_network_and_error_on_one_scale(burgers):
    figure = plots.solution(burgers.problem, burgers.network, resolution=31)
    drawn(figure)
    assert [ax.get_title() for ax in figure.axes[:3]] == [
        "u: reference",
        "u: network",
        "u: absolute error",
    ]
    reference, network, error = (ax.collections[0] for ax in figure.axes[:3])
    assert reference.get_clim() == network.get_clim()
    assert isinstance(error.norm, LogNorm)
    assert all(
        (ax.get_xlabel(), ax.get_ylabel()) == ("t", "x") for ax in figure.axes[:3]
    )
    assert figure.axes[0].get_xlim() == (0, 1)
    assert figure.axes[0].get_ylim() == (-1, 1)


def test_solution_title_and_values_are_those_of_the_problem(burgers):
    problem, n = burgers.problem, 21
    figure = plots.solution(problem, burgers.network, resolution=n)
    x, t = np.linspace(-1, 1, n), np.linspace(0, 1, n)
    grid = torch.tensor([[a, b] for a in x for b in t], dtype=torch.float64)
    assert (
        f"L2 error {problem.relative_l2(burgers.network, grid):.2e} on"
        in figure.get_suptitle()
    )
    shown = np.asarray(figure.axes[0].collections[0].get_array())
    expected = (
        problem.reference(grid).numpy().reshape(n, n)
    )  # x down the rows, t along them
    np.testing.assert_allclose(shown, expected)


def test_solution_masks_what_is_outside_and_has_a_row_of_panels_per_output():
    problem = holed(lambda x, y: (x * y, x - y))
    figure = plots.solution(problem, pinn.MLP([2, 4, 2], seed=0), resolution=41)
    drawn(figure)
    titles = {ax.get_title() for ax in figure.axes} - {""}
    assert titles == {
        f"{u}: {p}" for u in "uv" for p in ("reference", "network", "absolute error")
    }
    shown = np.ma.masked_invalid(figure.axes[0].collections[0].get_array()).reshape(
        41, 41
    )
    assert shown.mask[20, 10]
    assert not shown.mask[0].any()


def test_solution_without_reference_shows_the_network_alone():
    figure = plots.solution(holed(), pinn.MLP([2, 4, 2], seed=0), resolution=21)
    drawn(figure)
    assert {ax.get_title() for ax in figure.axes} - {""} == {"u: network", "v: network"}
    assert figure.get_suptitle() == "holed"


def test_solution_survives_an_exact_and_a_diverged_network():
    problem = holed(lambda x, y: (0 * x, 0 * x))
    network = pinn.MLP([2, 4, 2], seed=0)
    for value in (0.0, float("nan")):
        with torch.no_grad():
            for p in network.parameters():
                p.fill_(value)
        with np.errstate(invalid="ignore"):
            drawn(plots.solution(problem, network, resolution=11))


def test_rounds_need_two_coordinates():
    problem = three_coordinates()
    with pytest.raises(ValueError, match="two coordinates"):
        plots.rounds(problem, {})


# convergence


def test_convergence_names_lines_in_words_and_marks_stages(burgers):
    rows = pinn.RunFolder(burgers.path).history()
    figure = plots.convergence(rows)
    drawn(figure)
    top, low = figure.axes
    assert legend(figure) == ["loss: pde", "validation loss", "relative L2 error"]
    assert [text.get_text() for text in top.texts] == ["Adam", "GaussNewton"]
    assert [text.xy[0] for text in top.texts] == [0, 20]
    assert top.get_yscale() == "log"
    assert low.get_xlabel() == "iteration"
    assert low.get_ylabel() == "points"
    assert top.lines[0].get_ydata()[-1] == rows[-1]["loss_pde"]
    assert low.lines[0].get_ydata()[-1] == rows[-1]["points"] == 150


def test_convergence_of_a_soft_problem_has_each_term_and_no_panel_of_points(wave):
    figure = plots.convergence(wave.history)
    assert len(figure.axes) == 1
    terms = [f"loss: {name}" for name in wave.problem.terms]
    assert legend(figure) == [
        "total loss",
        *terms,
        "validation loss",
        "relative L2 error",
    ]
    texts = figure.axes[0].texts
    assert [text.get_text() for text in texts] == ["Adam", "GaussNewton"]
    assert all(text.get_rotation() for text in texts)  # no room side by side


def test_convergence_shows_weights_that_change():
    rows = [
        {"iteration": k, "stage": "Adam", "points": 5 + k // 2, "loss": 1.0}
        | {
            "loss_pde": 1.0,
            "loss_initial_u": 2.0,
            "weight_pde": 1.0,
            "weight_initial_u": 10.0**k,
        }
        for k in range(4)
    ]
    figure = plots.convergence(rows)
    drawn(figure)
    _, weights, points = figure.axes
    assert weights.get_ylabel() == "weight"
    assert weights.get_yscale() == "log"
    assert weights.lines[1].get_ydata().tolist() == [1, 10, 100, 1000]
    colours = [line.get_color() for line in figure.axes[0].lines[1:3]]
    assert [line.get_color() for line in weights.lines[:2]] == colours
    assert points.get_ylabel() == "points"


def test_convergence_needs_rows_with_iterations():
    for rows in ([], [{"loss": 1.0}]):
        with pytest.raises(ValueError, match="iteration"):
            plots.convergence(rows)


# rounds


def test_rounds_colours_points_by_when_they_entered(burgers):
    figure = plots.rounds(burgers.problem, pinn.RunFolder(burgers.path).points())
    drawn(figure)
    ax, bar = figure.axes
    assert ax.get_title() == "pde\n100 at the start, 50 came, 0 left"
    assert bar.get_ylabel() == "entered at iteration"
    assert [len(c.get_offsets()) for c in ax.collections] == [0, 0, 100, 50]
    assert len(np.unique(ax.collections[3].get_facecolors(), axis=0)) == 5
    assert [t.get_text() for t in figure.legends[0].get_texts()] == [
        "at the start",
        "came later",
    ]
    assert "resampling put" in figure.get_suptitle()


def test_rounds_has_a_panel_per_term_and_shows_what_left_smaller_and_fainter(wave):
    figure = plots.rounds(wave.problem, pinn.RunFolder(wave.path).points())
    drawn(figure)
    terms = [ax.get_title().split("\n")[0] for ax in figure.axes[:4]]
    assert terms == list(wave.problem.terms)
    assert figure.axes[0].get_title().endswith("60 at the start, 40 came, 40 left")
    gone, _, here, _ = figure.axes[0].collections
    assert len(gone.get_offsets()) == 40
    assert gone.get_sizes()[0] < here.get_sizes()[0]
    assert gone.get_alpha() < here.get_alpha()
    assert "left" in figure.legends[0].get_texts()[-1].get_text()


def test_rounds_says_so_when_there_was_no_resampling(burgers):
    arrays = pinn.RunFolder(burgers.path).points()
    start = arrays["pde:entered"] == 0
    figure = plots.rounds(
        burgers.problem, {name: rows[start] for name, rows in arrays.items()}
    )
    drawn(figure)
    assert "no resampling" in figure.get_suptitle()
    assert len(figure.axes) == 1


def test_rounds_refuses_points_of_other_terms(wave):
    with pytest.raises(ValueError, match=r"no points of pde.*got \['data'\]"):
        plots.rounds(wave.problem, {"data": np.zeros((1, 2))})


# influence maps


def test_influence_map_of_an_output(burgers):
    row = influence(burgers, wh.Output(TARGET)).isel(target=0)
    for problem in (None, burgers.problem):
        figure = plots.influence_map(row, problem)
        drawn(figure)
        ax, bar = figure.axes
        assert (ax.get_xlabel(), ax.get_ylabel()) == ("t", "x")
        assert bar.get_ylabel() == "influence on u"
        assert figure.get_suptitle() == "Influence of each point on u at (x=0.1, t=0.5)"
        assert legend(figure) == ["target"]
        assert tuple(ax.lines[0].get_xydata()[0]) == (0.5, 0.1)
        words = (
            "Orange: removing the point would raise u at the star; purple: lower it."
        )
        assert caption(figure).startswith(words)
        assert len(ax.collections[0].get_offsets()) == row.size


def test_influence_map_colours_say_what_the_caption_says():
    row = made_up([4.0, -4.0, 0.0, 1e-9])
    (points,) = plots.influence_map(row).axes[0].collections
    colours = {tuple(xy): rgba for xy, rgba in zip(*marks(points), strict=True)}
    red, _, blue, _ = colours[(0.0, 0.0)]
    assert red > blue  # orange
    red, green, blue, _ = colours[(0.0, 1.0)]
    assert blue > red > green  # purple
    np.testing.assert_allclose(colours[(0.0, 2.0)], colours[(0.0, 3.0)], atol=0.02)
    assert points.get_sizes()[-1] > points.get_sizes()[0]


def marks(points):
    return points.get_offsets(), points.get_facecolors()


def test_influence_map_of_losses_says_what_helps_and_tells_terms_apart(wave):
    row = influence(wave, wh.Loss(reduce="mean"))
    figure = plots.influence_map(row, wave.problem)
    drawn(figure)
    assert legend(figure) == list(wave.problem.terms)
    words = "would raise the mean of losses (it helps); purple: lower it (it harms)."
    assert words in caption(figure)
    added = influence(wave, wh.Loss(reduce="mean"), effect="add")
    words = "Orange: adding the point would raise the mean of losses (it harms); purple: lower it"
    assert caption(plots.influence_map(added)).startswith(words)


def test_influence_map_of_one_term(wave):
    row = influence(wave, wh.Residual(TARGET[:1].abs(), "pde"))
    figure = plots.influence_map(row, wave.problem, term="initial_u")
    drawn(figure)
    assert legend(figure) == ["target"]
    assert len(figure.axes[0].collections[0].get_offsets()) == 15
    assert "the residual of pde at" in figure.get_suptitle()
    chosen = plots.influence_map(row.sel(term="initial_u"), wave.problem)
    assert len(chosen.axes[0].collections[0].get_offsets()) == 15
    with pytest.raises(ValueError, match="did you mean 'initial_u'"):
        plots.influence_map(row, wave.problem, term="inital_u")


def test_influence_map_of_a_sum_has_no_star(burgers):
    row = wh.Influence(burgers.objective).attribute_sum(wh.Output(TARGET))
    figure = plots.influence_map(row, burgers.problem)
    drawn(figure)
    assert figure.axes[0].get_legend() is None
    assert "star" not in caption(figure)
    assert "the sum of output" in figure.get_suptitle()


def test_influence_map_does_not_guess_an_unknown_sign():
    row = made_up([1.0, -2.0], sign="alignment of gradients", solver_converged=0)
    words = caption(plots.influence_map(row))
    assert words.startswith(
        "Orange: positive; purple: negative. alignment of gradients."
    )
    assert words.endswith("Caution: the solver did not converge.")
    assert "its value is -2.0e+00 (but the solver did not" in plots.describe_influence(
        row
    )


def test_influence_map_draws_a_domain_that_is_no_rectangle():
    problem = holed()
    row = made_up(np.linspace(-1, 1, 5), names=("x", "y"))
    figure = plots.influence_map(row, problem)
    drawn(figure)
    assert figure.axes[0].get_aspect() == 1
    assert len(figure.axes[0].collections) == 2  # the outline and the points


def test_influence_map_and_description_refuse_what_they_cannot_show(burgers):
    rows = influence(burgers, wh.Output(TARGET))
    for function in (plots.influence_map, plots.describe_influence):
        with pytest.raises(
            ValueError, match=r"2 targets: select one, .*isel\(target=0\)"
        ):
            function(rows)
        with pytest.raises(ValueError, match="dimensions"):
            function(rows.isel(point=0))
        with pytest.raises(ValueError, match="finite"):
            function(rows.isel(target=0) * np.nan)
    with pytest.raises(ValueError, match="two coordinates, got x"):
        plots.influence_map(rows.isel(target=0).drop_vars("t"))
    with pytest.raises(ValueError, match="'y'"):
        plots.influence_map(rows.isel(target=0), holed())


# description


def made_up(values, names=("x", "t"), sign=SIGN["remove"], **attrs) -> xr.DataArray:
    values = np.asarray(values, dtype=float)
    first, second = names
    coords = {
        "quantity": "u",
        f"target_{first}": 0.1,
        f"target_{second}": 0.5,
        first: ("point", np.arange(len(values), dtype=float)),
        second: ("point", np.zeros(len(values))),
        "index": ("point", np.arange(len(values))),
    }
    return xr.DataArray(
        values, coords, "point", attrs={"effect": "remove", "sign": sign, **attrs}
    )


def test_description_of_a_made_up_map():
    # 20 points: the two strongest have 6 + 4 of a total of 6 + 4 + 18 · 0.5 = 19, or 53 %.
    values = np.full(20, 0.5)
    values[[3, 7]] = 4.0, -6.0
    assert plots.describe_influence(made_up(values)) == (
        "The 2 most influential of 20 points (10 %) carry 53 % of the total absolute influence "
        "on u at (x=0.1, t=0.5); the strongest is at (x=7, t=0), and removing it would lower u "
        "by a predicted 6.0e+00."
    )
    # Adding has the other sign, as attribute(effect="add") would give it.
    added = made_up(-values, sign=SIGN["add"], effect="add")
    assert (
        "adding it would raise u by a predicted 6.0e+00."
        in plots.describe_influence(added)
    )


def test_description_rounds_shares_honestly():
    most = np.full(20, 1e-6)
    most[4] = 1.0
    assert "(10 %) carry more than 99 % of" in plots.describe_influence(made_up(most))
    assert (
        "The 3 most influential of 25 points (12 %) carry 12 % of"
        in plots.describe_influence(made_up(np.ones(25)))
    )
    nothing = plots.describe_influence(made_up(np.zeros(5)))
    assert nothing == "None of the 5 points has any influence on u at (x=0.1, t=0.5)."
    drawn(plots.influence_map(made_up(np.zeros(5))))


def test_description_names_the_term_of_the_strongest_point(wave):
    row = influence(wave, wh.Output(TARGET[:1].abs())).isel(target=0)
    k = int(np.abs(row.values).argmax())
    text = plots.describe_influence(row)
    assert (
        f"the strongest, of term {row.term.values[k]}, is at (x={row.x.values[k]:.3g}, "
        in text
    )
    assert f"{abs(row.values[k]):.1e}" in text
    assert f"would {'raise' if row.values[k] > 0 else 'lower'} u" in text


# save


def test_save_writes_both_files_and_nothing_else(tmp_path):
    rows = [{"iteration": k, "loss_pde": 0.1**k} for k in range(3)]
    png, svg = plots.save(plots.convergence(rows), tmp_path / "new" / "curve.v1")
    assert (png, svg) == (tmp_path / "new/curve.v1.png", tmp_path / "new/curve.v1.svg")
    assert sorted(os.listdir(tmp_path / "new")) == ["curve.v1.png", "curve.v1.svg"]
    assert png.read_bytes().startswith(b"\x89PNG")
    assert b"<svg" in svg.read_bytes()
    held = svg.read_bytes()
    again = plots.save(plots.convergence(rows), svg)  # a suffix is no part of the name
    assert again == (png, svg)
    assert svg.read_bytes() == held


def test_save_keeps_the_old_file_if_drawing_fails(tmp_path):
    figure = plots.convergence([{"iteration": 0, "loss_pde": 1.0}])
    png, _ = plots.save(figure, tmp_path / "curve")
    held = png.read_bytes()
    figure.axes[0].set_title("$\\nonsense$")
    with pytest.raises(ValueError, match="nonsense"):
        plots.save(figure, tmp_path / "curve")
    assert png.read_bytes() == held
    assert sorted(os.listdir(tmp_path)) == ["curve.png", "curve.svg"]


def test_figures_leave_no_global_state(burgers):
    import matplotlib as mpl

    before = dict(mpl.rcParams)
    plots.rounds(burgers.problem, pinn.RunFolder(burgers.path).points())
    assert dict(mpl.rcParams) == before


def test_a_problem_names_its_own_time():
    space = pinn.Interval("tau", 0, 1) * pinn.Interval("x", 0, 2)
    problem = pinn.Problem(
        domain=space, outputs=("u",), equations={"pde": lambda u_x: u_x}, time="tau"
    )
    network = pinn.MLP([2, 4, 1], seed=0)
    assert plots.solution(problem, network, 11).axes[0].get_xlabel() == "tau"
    flat = dataclasses.replace(problem, time=None)
    assert plots.solution(flat, network, 11).axes[0].get_xlabel() == "tau"
    assert plots.solution(flat, network, 11).axes[0].get_aspect() == 1


# spectra


def test_spectra_has_a_panel_for_each_term_and_a_line_for_each_record():
    values = 10.0 ** -np.arange(5.0)
    arrays = {
        "iteration": np.array([0, 10, 20]),
        "pde": np.stack([values, 2 * values, 3 * values]),
    }
    arrays["initial_u"] = arrays["pde"][:, :3] * 100
    figure = plots.spectra(arrays, {"pde": "equation"})
    drawn(figure)
    first, second = figure.axes[:2]
    assert [ax.get_title() for ax in (first, second)] == ["equation", "initial_u"]
    assert [line.get_ydata().tolist() for line in second.lines[:3]] == arrays[
        "initial_u"
    ].tolist()
    mean = second.lines[3].get_ydata()[0]
    assert mean == pytest.approx(arrays["initial_u"][-1].mean())
    assert len({line.get_color() for line in first.lines[:3]}) == 3


def test_spectra_of_one_record_of_a_single_point_and_of_many_terms():
    arrays = {"iteration": np.array([0])} | {
        f"term_{k}": np.ones((1, 1)) for k in range(5)
    }
    figure = plots.spectra(arrays)
    drawn(figure)
    assert [ax.get_title() for ax in figure.axes if ax.get_visible()][:5] == list(
        arrays
    )[1:]


def test_spectra_refuses_what_are_none():
    for wrong in ({"pde": np.ones((1, 2))}, {"iteration": np.array([0])}):
        with pytest.raises(ValueError, match="spectra"):
            plots.spectra(wrong)
    arrays = {"iteration": np.array([0]), "pde": np.ones((1, 2))}
    with pytest.raises(ValueError, match="unknown term 'pdf'"):
        plots.spectra(arrays, {"pdf": "equation"})
