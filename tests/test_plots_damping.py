"""The figure of influences over dampings."""

import numpy as np
import pytest
import xarray as xr

from whence import plots
from whence.plots.damping import stable_range

VALUES = np.array([1e-4, 1e-3, 1e-2, 1e-1])


def path(**more):
    ranks = np.array([0.96, 1.0, 0.97, 0.4])
    agreement = np.minimum.outer(ranks, ranks)
    agreement[1] = agreement[:, 1] = ranks
    variables = {
        "size": ("damping", [3.0, 2.0, 1.0, 0.1]),
        "residual": ("damping", [1e-9] * 4),
        "agreement": (("damping", "other"), agreement),
        **{name: ("damping", values) for name, values in more.items()},
    }
    attrs = {"damping": 2e-3, "targets": 3, "points": 50, "quantity": "loss"}
    return xr.Dataset(variables, {"damping": VALUES, "other": VALUES}, attrs)


def caption(figure):
    figure.canvas.draw()
    return figure.get_supxlabel().replace("\n", " ")


def test_the_ranking_is_compared_with_that_at_the_nearest_damping():
    figure = plots.damping(path())
    above, below = figure.axes
    np.testing.assert_allclose(above.lines[0].get_ydata(), [0.96, 1.0, 0.97, 0.4])
    np.testing.assert_allclose(below.lines[0].get_ydata(), [3.0, 2.0, 1.0, 0.1])
    assert below.get_yscale() == "log"
    text = caption(figure)
    assert "own damping, 2e-03" in text
    assert "from 1e-04 to 1e-02 rankings correlate with that at 1e-03" in text
    assert figure.get_suptitle().startswith("Influence of 50 points on the loss (3 tar")


def test_the_best_for_retraining_is_named():
    figure = plots.damping(path(retraining=[0.1, 0.3, 0.5, 0.2], lds=[0.6, 0.4, 0, 0]))
    labels = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert labels == ["with λ = 1e-03", "with leaving out", "with subsets (LDS)"]
    text = caption(figure)
    assert "Best for leaving points out: 1e-02 (0.50; at 1e-03 0.30)" in text
    assert "Best for subsets: 1e-04 (0.60; at 1e-03 0.40)" in text


def test_residuals_are_shown_where_systems_are_not_solved():
    figure = plots.damping(path(residual=[1.0, 0.1, 1e-2, 1e-4]))
    assert figure.axes[2].get_ylabel() == "residual"
    assert "not solved" in caption(figure)


def test_dampings_without_an_answer_are_left_out():
    data = path()
    data["size"][1] = data["residual"][1] = np.nan
    data["agreement"][1] = data["agreement"][:, 1] = np.nan
    figure = plots.damping(data)
    assert figure.axes[0].get_legend().get_texts()[0].get_text() == "with λ = 1e-02"
    assert "At 1 damping the system is singular" in caption(figure)


def test_a_truth_that_is_known_nowhere_is_left_out():
    """Subsets of which all models came to the same have no ranks."""
    figure = plots.damping(path(lds=[np.nan] * 4))
    (label,) = figure.axes[0].get_legend().get_texts()
    assert label.get_text() == "with λ = 1e-03"
    assert "subsets" not in caption(figure)


def test_the_stable_range_has_no_gaps():
    data = path()
    data["agreement"][1, 2] = 0.5
    data["agreement"][1, 3] = 0.99
    assert stable_range(data, 1) == (1e-4, 1e-3)


def test_something_else_is_refused():
    with pytest.raises(TypeError, match="damping_path"):
        plots.damping(xr.DataArray([1.0]))
