"""The march of a run in slabs as a figure: what each slab came to and took."""

import numpy as np
import pytest

from whence import pinn, plots


def training(low, high, kept=True, **values):
    row = {"low": low, "high": high, "kept": kept, "loss": 1e-6, "seconds": 2.0}
    return row | {"validation_loss": 2e-6, "relative_l2": 1e-4} | values


HALVED = [
    training(0.0, 0.5, kept=False, loss=1e-2),
    training(0.0, 0.25, kept=False, loss=1e-3),
    training(0.0, 0.25, seconds=3.0),
    training(0.25, 0.5, relative_l2=None),
    training(0.5, 1.0, loss=0.0),
]


def test_each_slab_is_a_step_over_its_part_of_the_time():
    figure = plots.march(HALVED, "time")
    figure.draw_without_rendering()
    above, _, seconds = figure.axes
    assert above.get_yscale() == "log"
    assert seconds.get_xlabel() == "time"
    assert seconds.get_xlim() == (0, 1)
    legend = [text.get_text() for text in above.get_legend().get_texts()]
    of = {line.get_label(): line for line in above.lines}
    assert legend == ["loss", "validation loss", "relative L2 error", "loss, not kept"]

    times, levels = of["loss"].get_data()
    assert times.tolist() == [0, 0.25, 0.25, 0.5, 0.5, 1]
    assert levels[:4].tolist() == [1e-6] * 4
    assert np.isnan(levels[4:]).all()  # an exact slab is below any logarithmic axis
    errors = of["relative L2 error"].get_ydata()
    assert np.isnan(errors).tolist() == [False, False, True, True, False, False]


def test_trainings_and_seconds_are_those_of_all_that_a_slab_took():
    figure = plots.march(HALVED)
    _, counts, seconds = figure.axes
    passes, longer = counts.containers
    assert [bar.get_height() for bar in passes] == [2, 1, 1]
    assert [bar.get_height() for bar in longer] == [1, 0, 0]
    assert [bar.get_y() for bar in longer] == [2, 1, 1]
    assert [bar.get_height() for bar in seconds.patches] == [7, 2, 2]
    assert [bar.get_width() for bar in passes] == [0.25, 0.25, 0.5]
    assert figure.get_suptitle() == "3 slabs, 5 trainings, 11 s"


def test_without_a_reference_and_without_halving_nothing_is_said_of_them():
    rows = [training(0, 1, relative_l2=None), training(1, 2, relative_l2=None)]
    figure = plots.march(rows)
    above, counts, _ = figure.axes
    legend = [text.get_text() for text in above.get_legend().get_texts()]
    assert legend == ["loss", "validation loss"]
    assert len(counts.containers) == 1


def test_trainings_without_a_kept_slab_are_refused():
    with pytest.raises(ValueError, match="got 2 of which none was kept"):
        plots.march(HALVED[:2])


def test_a_run_in_slabs_draws_its_march(tmp_path):
    problem = pinn.zoo.load("diffusion")
    network = pinn.RandomFeatures([2, 60, 1], bounds=problem.domain.bounds, seed=0)
    slabs = pinn.Slabs(t=0.5, tolerance=1e-13, passes=2)
    result = slabs.train(
        problem, network, points=300, schedule=pinn.VarPro(3), progress=False,
        out=tmp_path / "run",
    )  # fmt: skip
    folders = sorted((tmp_path / "run" / "slabs").iterdir())
    summaries = [pinn.RunFolder(folder).summary() for folder in folders]
    rows = result.summary["march"]["trainings"]
    assert [row["loss"] for row in rows] == [s["loss"] for s in summaries]
    kept = [row["low"] for row in rows if row["kept"]]
    assert kept == [0, *result.network.edges]
    assert len(rows) > len(kept)

    loaded = pinn.load_run(tmp_path / "run")
    assert loaded.summary["march"] == {"time": "t", "trainings": rows}
    title = f"{len(kept)} slabs, {len(rows)} trainings"
    assert loaded.plot("convergence").get_suptitle().startswith(title)
    # Runs of former versions do not say how they were made.
    del loaded.summary["march"]
    assert loaded.plot("convergence").axes[-1].get_xlabel() == "iteration"
