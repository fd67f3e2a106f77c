"""Figures of a study: what they draw, against closed forms and the tables that they are of."""

import math
import shutil
import warnings

import matplotlib.colors as colors
import numpy as np
import pandas as pd
import pytest
from trained_study import METHODS, PROBLEMS

from whence import cli, pinn, plots
from whence.cli.study_figures import study_figures
from whence.plots.study_curves import curves_of, ratios_of
from whence.plots.study_panels import StudyPanels, tick_label
from whence.plots.study_points import StudyPoints


def history(method, seed, iterations, errors, problem="wave"):
    return pd.DataFrame(
        {
            "problem": problem,
            "method": method,
            "seed": seed,
            "iteration": iterations,
            "seconds": np.asarray(iterations) * 0.5,
            "error": errors,
        }
    )


THREE = pd.concat(
    [
        history("random", 0, [0, 10, 20], [1.0, 0.1, 0.01]),
        history("random", 1, [0, 10, 20], [1.0, 0.4, 0.04]),
        history("random", 2, [0, 20], [1.0, 1.0]),
        history("b", 0, [0, 10, 20], [1.0, 0.05, 0.02]),
        history("b", 1, [0, 10], [2.0, 0.04]),
        history("b", 7, [0, 10], [1.0, 1.0]),
    ]
)


def test_runs_are_compared_at_common_places():
    of_random = THREE[THREE["method"] == "random"]
    curves = curves_of(of_random, "iteration", "error")
    assert curves.places.tolist() == [0, 10, 20]
    expected = [[1.0, 0.1, 0.01], [1.0, 0.4, 0.04], [1.0, 1.0, 1.0]]
    np.testing.assert_allclose(np.exp(curves.logarithms), expected)
    low, median, high = curves.quartiles()
    np.testing.assert_allclose(median, [1.0, 0.4, 0.04])
    # Halfway between two values on a logarithmic axis.
    np.testing.assert_allclose(low, [1.0, 0.2, 0.02])
    np.testing.assert_allclose(high, [1.0, math.sqrt(0.4), 0.2])


def test_a_value_between_two_rows_is_straight_on_a_logarithmic_axis():
    runs = pd.concat(
        [
            history("a", 0, [0, 20], [1.0, 0.01]),
            history("a", 1, [0, 10], [1.0, 0.5]),
            # Of two rows at one iteration the later one counts.
            history("a", 2, [0, 10, 10], [1.0, 0.9, 0.3]),
        ]
    )
    curves = curves_of(runs, "iteration", "error")
    expected = [[1.0, 0.1, 0.01], [1.0, 0.5, 0.5], [1.0, 0.3, 0.3]]
    np.testing.assert_allclose(np.exp(curves.logarithms), expected)


def test_ratios_are_those_of_the_same_seed():
    ratios = ratios_of(THREE, "random", "error")
    assert list(ratios) == ["b"]
    curves = ratios["b"]
    # Seed 7 has no baseline; seed 1 keeps its last error to the end.
    expected = [[1.0, 0.5, 2.0], [2.0, 0.1, 1.0]]
    np.testing.assert_allclose(np.exp(curves.logarithms), expected)


def test_a_long_history_is_thinned():
    n = 1001
    runs = history("a", 0, np.arange(n), np.geomspace(1, 1e-6, n))
    curves = curves_of(runs, "seconds", "error")
    assert len(curves.places) == 200
    assert curves.places[[0, -1]].tolist() == [0, 500]
    np.testing.assert_allclose(
        curves.quartiles()[1], 10.0 ** (-6 * curves.places / 500)
    )


def drawn_without_warning(figure):
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a panel without room is a warning
        figure.draw_without_rendering()
    return figure


def test_a_method_looks_the_same_in_all_panels():
    other = history("b", 0, [0, 10], [1.0, 0.5], problem="heat")
    figure = drawn_without_warning(plots.study_convergence(pd.concat([THREE, other])))
    wave, heat = figure.axes
    assert (wave.get_title(), heat.get_title()) == ("wave", "heat")
    assert wave.get_yscale() == "log"
    first, second = wave.lines
    assert first.get_label() == "random"
    np.testing.assert_allclose(first.get_ydata(), [1.0, 0.4, 0.04])
    (only,) = heat.lines
    assert only.get_color() == second.get_color() != first.get_color()
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["random", "b"]
    # Beside the panels, where it hides nothing.
    assert legend.get_window_extent().x0 >= heat.get_window_extent().x1


def test_against_seconds():
    figure = plots.study_convergence(THREE, "seconds")
    (ax,) = figure.axes
    assert ax.get_xlabel() == "time (s)"
    assert ax.lines[0].get_xdata().tolist() == [0, 5, 10]


def test_the_ratio_has_a_line_at_one():
    figure = drawn_without_warning(plots.study_ratio(THREE, "random"))
    (ax,) = figure.axes
    one, other = ax.lines
    assert list(one.get_ydata()) == [1, 1]
    np.testing.assert_allclose(other.get_ydata(), np.sqrt([2.0, 0.05, 2.0]))
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["b"]


def test_boxes_hold_every_seed():
    rows = [
        {"problem": "wave", "method": method, "seed": seed, "error": error}
        for method, errors in {"a": [0.1, 0.2, 0.3, 0.4, 0.5], "b": [3.0]}.items()
        for seed, error in enumerate(errors)
    ]
    figure = drawn_without_warning(plots.study_boxes(pd.DataFrame(rows)))
    (ax,) = figure.axes
    marks = [points.get_offsets()[:, 0].tolist() for points in ax.collections]
    assert marks == [[0.1, 0.2, 0.3, 0.4, 0.5], [3.0]]
    # Within their own box.
    heights = np.concatenate([points.get_offsets()[:, 1] for points in ax.collections])
    assert np.rint(heights).tolist() == [0] * 5 + [1]
    box = ax.patches[0].get_path().get_extents()
    assert (box.x0, box.x1) == pytest.approx((0.2, 0.4))


def test_many_methods_have_room_in_the_legend():
    runs = [history(f"method {k}, n=100", 0, [0, 9], [1, 0.1]) for k in range(24)]
    figure = drawn_without_warning(plots.study_convergence(pd.concat(runs)))
    (ax,) = figure.axes
    (legend,) = figure.legends
    frame = legend.get_window_extent()
    assert 0 <= frame.y0 < frame.y1 <= figure.bbox.y1
    assert ax.get_window_extent().width > 300
    looks = {(colors.to_hex(a.get_color()), a.get_linestyle()) for a in ax.lines}
    assert len(looks) == 24


@pytest.mark.parametrize(
    ("values", "n"), [([0.7, 1.1], 4), ([0.02, 0.5], 4), ([1e-7, 1.0], 3)]
)
def test_ticks_can_be_read_however_little_an_axis_spans(values, n):
    runs = history("a", 0, [0, 10], values[::-1])
    figure = plots.study_convergence(runs)
    figure.draw_without_rendering()
    (ax,) = figure.axes
    low, high = ax.get_ylim()
    texts = []
    for tick in ax.yaxis.get_major_ticks():
        if low <= tick.get_loc() <= high:
            texts.append(tick.label1.get_text())
    assert n <= len(texts) <= 9
    assert all(texts)
    # None in between has a name.
    assert not any(label.get_text() for label in ax.get_yticklabels(minor=True))


def test_tick_labels():
    assert [tick_label(v) for v in (0, 1, 0.002, 5e-4, 1e-5, 1e4)] == [
        "", "1", "0.002", "5e-4", "1e-5", "1e4",
    ]  # fmt: skip


def test_panels_are_three_in_a_row_and_four_a_square():
    shapes = {}
    for n in (1, 2, 3, 4, 5):
        panels = StudyPanels([str(k) for k in range(n)], ["a"])
        shapes[n] = (panels.n_rows, panels.n_columns)
    assert shapes == {1: (1, 1), 2: (1, 2), 3: (1, 3), 4: (2, 2), 5: (2, 3)}


def test_points_are_a_panel_for_each_problem_and_method():
    rng = np.random.default_rng(0)
    runs = []
    for name in ("diffusion", "wave"):
        problem = pinn.zoo.load(name, constraints="soft")
        for method in ("a", "b"):
            points = {term: rng.random((5, 2)) for term in problem.terms[:2]}
            runs.append(StudyPoints(problem, name, method, points))

    figure = drawn_without_warning(plots.study_points(runs))
    titles = [ax.get_title() for ax in figure.axes]
    assert titles == ["diffusion\na", "diffusion\nb", "wave\na", "wave\nb"]
    assert [ax.get_ylabel() for ax in figure.axes] == ["x", "", "x", ""]
    # Time goes across.
    drawn = figure.axes[3].collections[0].get_offsets()
    np.testing.assert_array_equal(drawn, runs[3].points["pde"][:, ::-1])
    (legend,) = figure.legends
    names = [text.get_text() for text in legend.get_texts()]
    assert names == list(dict.fromkeys(term for run in runs for term in run.points))


def test_mistakes_are_said():
    with pytest.raises(ValueError, match="unknown axis 'time'"):
        plots.study_convergence(THREE, "time")
    with pytest.raises(ValueError, match="did you mean 'random'"):
        plots.study_ratio(THREE, "randm")
    with pytest.raises(ValueError, match="no positive value of 'error'"):
        plots.study_convergence(THREE.assign(error=math.nan))
    with pytest.raises(ValueError, match="no method shares a problem and a seed"):
        plots.study_ratio(THREE[THREE["method"] == "random"], "random")
    with pytest.raises(ValueError, match="no runs whose points"):
        plots.study_points([])


# --- a trained study -----------------------------------------------------------------------------


def test_whence_plot_draws_a_study(study, tmp_path, capsys):
    out = tmp_path / "figures"
    assert cli.main(["plot", str(study), "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    for name in ("convergence", "error_against_time", "boxes", "ratio", "points"):
        assert (out / f"{name}.png").stat().st_size > 5000
        assert (out / f"{name}.svg").is_file()
        assert f"{name}.png" in printed


def test_the_points_are_those_that_a_run_ended_with(study):
    figure = dict(study_figures(study, "residual"))["points"]
    assert len(figure.axes) == len(PROBLEMS) * len(METHODS)
    arrays = pinn.RunFolder(study / "runs" / "wave-residual-0").points()
    at_end = arrays["pde"][arrays["pde:left"] == -1]
    ax = figure.axes[3]
    drawn = ax.collections[0].get_offsets()
    assert len(drawn) == 40 + 3 * 10
    np.testing.assert_array_equal(drawn, at_end[:, ::-1])


def test_a_study_of_one_method_has_no_ratio_and_one_without_a_reference_its_test_loss(
    study, tmp_path
):
    shutil.copytree(study, tmp_path / "one")
    for path in (tmp_path / "one" / "runs").glob("*-residual-*"):
        shutil.rmtree(path)
    for path in (tmp_path / "one" / "runs").iterdir():
        run = pinn.RunFolder(path)
        run.write_summary(run.summary() | {"relative_l2": None})
    figures = dict(study_figures(tmp_path / "one"))
    assert list(figures) == ["convergence", "error_against_time", "boxes", "points"]
    assert figures["boxes"].axes[0].get_xlabel() == "test loss"


def test_flags_of_a_run_are_refused_of_a_study_and_the_other_way_round(study, capsys):
    assert cli.main(["plot", str(study), "--terms", "pde"]) == 2
    assert "is a study" in capsys.readouterr().err
    run = study / "runs" / "wave-random-0"
    assert cli.main(["plot", str(run), "--baseline", "random"]) == 2
    assert "--baseline is of a study" in capsys.readouterr().err
    assert cli.main(["plot", str(study), "--baseline", "radom"]) == 2
    assert "did you mean 'random'" in capsys.readouterr().err
